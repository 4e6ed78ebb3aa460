"""Follows every events ring and the executions: feeds the blotter, the durable stream events and waiting requests.

At start the rings are read again from their oldest record, so that a restarted cockpit knows the day; nothing of that
goes out as news.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine import topology
from engine.cockpit.blotter import Blotter
from engine.cockpit.durable import DurableLog
from engine.cockpit.words import display, iso, name_of, number, text_of
from engine.domain.codes import (
    Badge,
    BadgeState,
    CommandKind,
    EventKind,
    FlattenState,
    OrderState,
    Refusal,
    ServiceState,
    Severity,
    Source,
)
from engine.runtime.context import Context
from shm.ring import RingReader

KEPT_ALERTS, KEPT_AUDITS, KEPT_RESULTS = 300, 1_000, 256


def _tripped(row: dict[str, Any]) -> str:
    head = f"{row['name']} {row['state']}"
    return row["reason"] if row["reason"].startswith(head) else f"{head}: {row['reason']}"


@dataclass(frozen=True, slots=True)
class Result:
    """The verdict on one of our intents or commands. ``code`` is a Refusal, or 0 done / 1 refused for a command."""

    ok: bool
    code: int
    text: str


class Tail:
    """One per cockpit. ``drain`` is cheap when nothing waits: one load per ring."""

    def __init__(self, ctx: Context, blotter: Blotter, log: DurableLog) -> None:
        self._instruments = ctx.instruments
        self.blotter = blotter
        self.log = log
        self.alerts: deque[dict[str, Any]] = deque(maxlen=KEPT_ALERTS)
        self.audits: deque[dict[str, Any]] = deque(maxlen=KEPT_AUDITS)
        self.results: OrderedDict[int, Result] = OrderedDict()
        """Verdicts by intent or command id."""
        names = [r.name for r in topology.RINGS if r.name.startswith("events.") and topology.COCKPIT in r.lossy]
        self._events = [(n.removeprefix("events."), ctx.ring_reader(n, batch=256)) for n in names]
        self._executions = ctx.ring_reader("executions", batch=256)
        self._priming = False
        self.gap = 0
        """Records lost by lapping since the last look; the owner tells clients to resynchronise."""
        self._numbers = 0

    def prime(self) -> None:
        """Read all rings from their oldest record."""
        self._priming = True
        for reader in (*(r for _, r in self._events), self._executions):
            tail = reader.position + reader.waiting
            reader.seek(max(0, tail - reader.capacity))
        self.drain()
        ordered = sorted(self.alerts, key=lambda a: a["t"])
        self.alerts.clear()
        self.alerts.extend(ordered)
        ordered = sorted(self.audits, key=lambda a: a["t"])
        self.audits.clear()
        self.audits.extend(ordered)
        self._priming = False
        self.gap = 0

    @property
    def waiting(self) -> int:
        return self._executions.waiting + sum(r.waiting for _, r in self._events)

    def drain(self) -> int:
        """Apply all that waits; returns how many records that were."""
        done = 0
        for service, reader in self._events:
            done += self._each(reader, lambda e, s=service: self._event(s, e))  # type: ignore[misc]
        done += self._each(self._executions, self._execution)
        return done

    def _each(self, reader: RingReader, apply: Any) -> int:
        done = 0
        while reader.waiting:
            records = reader.poll()
            self.gap += reader.last_gap
            if not len(records):
                break
            for record in records:
                apply(record)
            done += len(records)
        return done

    def _publish(self, event: str, data: dict[str, Any]) -> None:
        if not self._priming:
            self.log.add(event, data)

    def _execution(self, x: np.void) -> None:
        fill = self.blotter.execution(x)
        if fill is not None:
            self._publish("fill", self.blotter.fill_json(fill))

    def _event(self, service: str, e: np.void) -> None:
        kind = int(e["kind"])
        if kind in (EventKind.ORDER_STATE, EventKind.REFUSED):
            self._verdict(e, kind)
            order = self.blotter.order_event(e)
            if order is not None:
                self._publish("order", self.blotter.order_json(order))
        elif kind == EventKind.GUARDRAIL:
            row = self._guardrail(e)
            self._publish("guardrail", row)
            if row["state"] in ("TRIPPED", "STALE", "WARN"):
                severity = "P1" if row["state"] == "TRIPPED" else "ROUTINE"
                self._alert(service, e, "GUARDRAIL", _tripped(row), severity)
        elif kind in (EventKind.AUDIT, EventKind.COMMAND_RESULT):
            if kind == EventKind.COMMAND_RESULT:
                self._remember(int(e["ref_id"]), Result(int(e["code"]) == 0, int(e["code"]), text_of(e["text"])))
            row = self._audit(service, e, kind)
            self.audits.append(row)
            self._publish("audit", row)
        elif kind == EventKind.INTENT:
            self.blotter.intent_event(e)
        else:
            self._alert(
                service, e, name_of(EventKind, kind), self._words(kind, e), name_of(Severity, int(e["severity"]))
            )

    def _verdict(self, e: np.void, kind: int) -> None:
        if kind == EventKind.REFUSED:
            self._remember(
                int(e["ref_id"]), Result(False, int(e["code"]), text_of(e["text"]) or name_of(Refusal, int(e["code"])))
            )
        elif int(e["ref_id"]) not in self.results and int(e["code"]) != OrderState.PENDING:
            self._remember(int(e["ref_id"]), Result(True, 0, ""))

    def _remember(self, ref_id: int, result: Result) -> None:
        self.results[ref_id] = result
        while len(self.results) > KEPT_RESULTS:
            self.results.popitem(last=False)

    def _base(self, service: str, e: np.void) -> dict[str, Any]:
        self._numbers += 1
        symbol = int(e["symbol"])
        return {
            "id": self._numbers,
            "t": int(e["t_wall_ns"]) // 1_000_000,
            "time": iso(int(e["t_wall_ns"])),
            "service": service,
            "symbol": display(self._instruments[symbol].symbol) if symbol < len(self._instruments) else None,
        }

    def _guardrail(self, e: np.void) -> dict[str, Any]:
        return {
            **self._base("watchdog", e),
            "name": name_of(Badge, int(e["code"])),
            "state": name_of(BadgeState, int(e["ref_id"])),
            "value": number(float(e["value"])),
            "limit": number(float(e["limit"])),
            "reason": text_of(e["text"]),
        }

    def _audit(self, service: str, e: np.void, kind: int) -> dict[str, Any]:
        code = int(e["code"])
        if kind == EventKind.COMMAND_RESULT:
            action = "DONE" if code == 0 else "REFUSED"
        else:
            action = name_of(CommandKind, code) if code else "ORDER"
        return {
            **self._base(service, e),
            "action": action,
            "source": name_of(Source, int(e["source"])) if e["source"] else None,
            "ref_id": str(int(e["ref_id"])),
            "text": text_of(e["text"]),
        }

    def _alert(self, service: str, e: np.void, kind: str, text: str, severity: str) -> None:
        row = {**self._base(service, e), "kind": kind, "severity": severity, "text": text}
        self.alerts.append(row)
        self._publish("alert", row)

    def _words(self, kind: int, e: np.void) -> str:
        text, code = text_of(e["text"]), int(e["code"])
        if kind == EventKind.LIFECYCLE:
            return f"{name_of(ServiceState, code)}{': ' if text else ''}{text}"
        if kind == EventKind.FLATTEN:
            return f"flatten {name_of(FlattenState, code)}{': ' if text else ''}{text}"
        if kind == EventKind.CONNECTIVITY and code:
            return f"{text} ({code})"
        return text or f"{name_of(EventKind, kind)} {code}"
