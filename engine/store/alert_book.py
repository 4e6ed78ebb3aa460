"""The alert book: groups alerts into incidents and decides which message is due when. Pure; time is an argument.

* The first alert of an incident goes out at once, and so does one that raises its severity. What else happens within
  it is gathered for ``SETTLE_NS`` and told in one update; repetitions are only counted.
* An incident of P1 is repeated every ``repeat_ns`` until it is acknowledged. One of P2 ends by itself when nothing new
  came for ``JOIN_NS``.
* ROUTINE alerts are gathered for ``ROUTINE_NS`` and told in one message, never repeated.
* A message that could not be delivered stays due and is tried again after ``RETRY_NS``.

Times are wall-clock ns (anchored once, advanced by the monotonic clock), because an incident outlives a reboot.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from engine.domain.codes import Severity
from engine.store.alert_rules import Alert

JOIN_NS = 300 * 1_000_000_000
SETTLE_NS = 5 * 1_000_000_000
ROUTINE_NS = 60 * 1_000_000_000
RETRY_NS = 5 * 1_000_000_000
LINES = 20
ROUTINE_ID = 0


class Incident(msgspec.Struct):
    """What belongs together. ``lines`` are texts in order; ``told`` of them have been delivered."""

    id: int
    opened_ns: int
    last_ns: int
    severity: int
    told_severity: int = 0
    lines: list[str] = []
    counts: dict[str, int] = {}
    told: int = 0
    untold_since_ns: int = 0
    sent_ns: int = 0
    messages: int = 0
    retry_ns: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """One message to deliver. ``incident`` 0: the routine digest. ``lines``: how many will have been told with it."""

    incident: int
    severity: Severity
    title: str
    body: str
    lines: int


class AlertBook(msgspec.Struct):
    """All state; a plain structure, so that it can be kept in a file."""

    repeat_ns: int
    last_id: int = 0
    """Newest journal row that has been looked at."""
    incidents: list[Incident] = []
    routine: Incident | None = None

    def observe(self, alert: Alert, now_ns: int) -> None:
        """Take in one alert."""
        line = f"{alert.severity.name} {alert.title}: {alert.text}"
        if alert.severity == Severity.ROUTINE:
            if self.routine is None:
                self.routine = Incident(ROUTINE_ID, now_ns, now_ns, int(Severity.ROUTINE))
            _note(self.routine, alert, line, now_ns)
            return
        incident = next((i for i in self.incidents if _open(i, now_ns)), None)
        if incident is None:
            incident = Incident(alert.id, now_ns, now_ns, int(alert.severity))
            self.incidents.append(incident)
        _note(incident, alert, line, now_ns)

    def acknowledge(self, incident_id: int, now_ns: int) -> list[int]:
        """Close an incident, or all of them for 0; returns the ids that were closed."""
        closed = [i.id for i in self.incidents if incident_id in (0, i.id)]
        self.incidents = [i for i in self.incidents if i.id not in closed]
        return closed

    def due(self, now_ns: int) -> list[Message]:
        """Messages to deliver now, the most severe first. Forgets incidents that are over."""
        self.incidents = [i for i in self.incidents if _open(i, now_ns) or i.told < len(i.lines)]
        found = [m for i in self.incidents if (m := self._message(i, now_ns)) is not None]
        routine = self.routine
        if routine is not None and now_ns >= max(routine.opened_ns + ROUTINE_NS, routine.retry_ns):
            title = f"{sum(routine.counts.values())} routine alerts"
            found.append(Message(ROUTINE_ID, Severity.ROUTINE, title, _body(routine, 0), len(routine.lines)))
        return sorted(found, key=lambda m: -m.severity)

    def delivered(self, message: Message, ok: bool, now_ns: int) -> None:
        """Record the fate of a message from ``due``."""
        if message.incident == ROUTINE_ID:
            if self.routine is not None:
                self.routine.retry_ns = now_ns + RETRY_NS
            if ok:
                self.routine = None
            return
        for incident in self.incidents:
            if incident.id == message.incident:
                incident.retry_ns = 0 if ok else now_ns + RETRY_NS
                if ok:
                    incident.told = message.lines
                    incident.told_severity = int(message.severity)
                    incident.sent_ns = now_ns
                    incident.messages += 1

    def _message(self, i: Incident, now_ns: int) -> Message | None:
        if now_ns < i.retry_ns:
            return None
        severity = Severity(i.severity)
        fresh = i.told < len(i.lines)
        if i.severity > i.told_severity:
            what, start = ("escalated", i.told) if i.messages else ("new incident", 0)
        elif fresh and now_ns - i.untold_since_ns >= SETTLE_NS:
            what, start = "update", i.told
        elif severity == Severity.P1 and now_ns - i.sent_ns >= self.repeat_ns:
            what, start = f"not acknowledged, message {i.messages + 1}", 0
        else:
            return None
        title = f"{severity.name} incident {i.id}: {what}: {i.lines[start if fresh else 0].partition(' ')[2]}"
        return Message(i.id, severity, title[:160], _body(i, start), len(i.lines))


def _open(i: Incident, now_ns: int) -> bool:
    return i.severity >= Severity.P1 or now_ns - i.last_ns <= JOIN_NS


def _note(i: Incident, alert: Alert, line: str, now_ns: int) -> None:
    i.last_ns = now_ns
    i.severity = max(i.severity, int(alert.severity))
    first = alert.key not in i.counts
    i.counts[alert.key] = i.counts.get(alert.key, 0) + 1
    if first:
        if i.told == len(i.lines):
            i.untold_since_ns = now_ns
        i.lines.append(line)


def _body(i: Incident, start: int) -> str:
    lines = i.lines[start:]
    repeated = sum(i.counts.values()) - len(i.lines)
    more = [f"… and {len(lines) - LINES} more"] if len(lines) > LINES else []
    if repeated:
        more.append(f"({repeated} repetitions of these)")
    if i.severity >= Severity.P1:
        more.append(f"Repeats until acknowledged (incident {i.id}).")
    return "\n".join(lines[:LINES] + more)
