"""Which event is worth whose attention: the event-to-severity table. Pure data and look-ups.

P1 pages and repeats until acknowledged, P2 sends an e-mail, ROUTINE a chat line, INFO nothing. A record that carries a
higher severity than its rule keeps its own: a tripped badge that only blocks a symbol is routine, one that kills comes
with a STOP of P1.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.domain.codes import (
    Badge,
    BadgeState,
    CommandKind,
    EventKind,
    FlattenState,
    ServiceState,
    Severity,
)
from engine.risk.latch import StopEvent
from engine.store.rows import Row, column


@dataclass(frozen=True, slots=True)
class Rule:
    """``code`` None: any. ``ref_id`` None: any (for a GUARDRAIL it is the badge's state)."""

    kind: EventKind
    severity: Severity
    title: str
    code: int | None = None
    ref_id: int | None = None


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing to tell. ``key`` is the same for repetitions of the same thing."""

    id: int
    key: str
    severity: Severity
    title: str
    text: str
    wall_ns: int


RULES: tuple[Rule, ...] = (
    Rule(EventKind.GUARDRAIL, Severity.ROUTINE, "guardrail tripped", ref_id=BadgeState.TRIPPED),
    Rule(EventKind.GUARDRAIL, Severity.ROUTINE, "guardrail near its limit", ref_id=BadgeState.WARN),
    Rule(EventKind.STOP, Severity.P1, "KILL latched", code=StopEvent.KILL),
    Rule(EventKind.STOP, Severity.P1, "symbol stopped", code=StopEvent.SYMBOL_KILL),
    Rule(EventKind.STOP, Severity.ROUTINE, "KILL released", code=StopEvent.KILL_RELEASED),
    Rule(EventKind.STOP, Severity.ROUTINE, "trading paused", code=StopEvent.PAUSE),
    Rule(EventKind.STOP, Severity.ROUTINE, "trading resumed", code=StopEvent.PAUSE_RELEASED),
    Rule(EventKind.FLATTEN, Severity.P1, "flatten is stuck", code=FlattenState.STUCK),
    Rule(EventKind.FLATTEN, Severity.P2, "flatten began", code=FlattenState.STOPPING),
    Rule(EventKind.FLATTEN, Severity.ROUTINE, "confirmed flat", code=FlattenState.FLAT),
    Rule(EventKind.CONNECTIVITY, Severity.P2, "gateway lost its connection to the broker", code=1100),
    Rule(EventKind.CONNECTIVITY, Severity.P2, "gateway lost its connection to the broker", code=2110),
    Rule(EventKind.CONNECTIVITY, Severity.P2, "gateway unreachable", code=502),
    Rule(EventKind.CONNECTIVITY, Severity.P2, "gateway connection lost", code=504),
    Rule(EventKind.CONNECTIVITY, Severity.ROUTINE, "broker connection restored", code=1101),
    Rule(EventKind.CONNECTIVITY, Severity.ROUTINE, "broker connection restored", code=1102),
    Rule(EventKind.LIFECYCLE, Severity.P2, "service crashed", code=ServiceState.DOWN),
    Rule(EventKind.MODEL, Severity.ROUTINE, "model promoted", code=2),
    Rule(EventKind.MODEL, Severity.ROUTINE, "model refused", code=3),
    Rule(EventKind.AUDIT, Severity.P2, "operator asked for KILL", code=CommandKind.KILL),
    Rule(EventKind.AUDIT, Severity.P2, "operator asked for flatten", code=CommandKind.FLATTEN),
    Rule(EventKind.AUDIT, Severity.ROUTINE, "operator asked for reset", code=CommandKind.RESET),
    Rule(EventKind.ALERT, Severity.INFO, "alert"),
    Rule(EventKind.RECONCILE, Severity.P2, "position differs from the broker's"),
)


def table() -> tuple[tuple[str, str, str, str], ...]:
    """(event, which, severity, title) of every rule: for the documentation."""
    return tuple((r.kind.name, _which(r), r.severity.name, r.title) for r in RULES)


def _which(rule: Rule) -> str:
    words: dict[EventKind, type] = {
        EventKind.FLATTEN: FlattenState,
        EventKind.LIFECYCLE: ServiceState,
        EventKind.AUDIT: CommandKind,
        EventKind.STOP: StopEvent,
    }
    if rule.kind == EventKind.GUARDRAIL:
        return "any badge " + BadgeState(rule.ref_id or 0).name
    if rule.code is None:
        return "any"
    named = words.get(rule.kind)
    return str(named(rule.code).name) if named else str(rule.code)


def alert_of(row_id: int, name: str, row: Row) -> Alert | None:
    """The alert that a journal row calls for, None if nobody needs to hear of it."""
    if name == "audit":
        if column(name, row, "row") != "ACTION":
            return None
        kind, code, ref_id = int(EventKind.AUDIT), column(name, row, "command"), column(name, row, "ref_id")
        severity = 0
    elif name in ("guardrails", "events"):
        kind = int(column(name, row, "kind") or 0)
        code, ref_id = column(name, row, "code"), column(name, row, "ref_id")
        severity = int(column(name, row, "severity") or 0)
        if kind == EventKind.RECONCILE and column(name, row, "value") == column(name, row, "limit_value"):
            return None
    else:
        return None
    rule = next(
        (r for r in RULES if r.kind == kind and r.code in (None, code) and r.ref_id in (None, ref_id)),
        None,
    )
    level = Severity(min(int(Severity.P1), max(severity, int(rule.severity) if rule else 0)))
    if level == Severity.INFO:
        return None
    symbol = str(column(name, row, "symbol") or "")
    ring = str(column(name, row, "ring"))
    text = str(column(name, row, "text") or "")
    title = rule.title if rule else EventKind(kind).name.lower()
    if kind == EventKind.GUARDRAIL:
        title = f"{Badge(int(code or 0)).name}: {title}"
    # An ALERT has no code of its own for most things: its first words tell alerts of one service apart.
    own = text[:24] if kind == EventKind.ALERT else ""
    state = f"{ref_id!r}" if kind == EventKind.GUARDRAIL else ""
    key = f"{kind}.{code!r}.{state}.{symbol}.{ring}.{own}"
    where = f"{symbol}: " if symbol else ""
    service = ring.partition(".")[2] or ring
    return Alert(
        row_id, key, level, title, f"{where}{text or title} ({service})", int(column(name, row, "wall_ns") or 0)
    )
