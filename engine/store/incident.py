"""The report of one incident from the journal: what tripped and with which numbers, every order and execution of the
flatten, the times between the steps, and what is left to do.

An incident begins with a stop that a guardrail, an operator or a dead-man has set (KILL, a stopped symbol), or with a
flatten without one, and ends with its release. Pure over journal rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from engine.domain.codes import (
    Badge,
    BadgeState,
    CommandKind,
    EventKind,
    ExecFlag,
    ExecKind,
    FlattenState,
    OrderState,
    OrderType,
    Refusal,
    Severity,
    Side,
    Source,
)  # fmt: skip
from engine.domain.words import duration
from engine.store.fold import fold_orders
from engine.store.incident_cause import causes, lease_gone_ns, told_by
from engine.store.incident_span import CAUSE_BEFORE_NS, span_of, spans
from engine.store.journal_read import JournalReader, Record, word

HAND_BEFORE_NS = 1_000_000_000
"""The word of whoever asked for a flatten comes this long before it at the most."""
NOT_FLAT = (
    "NOT confirmed flat: `l2dash flatten`, then `l2dash positions`; past every process: `l2dash flatten --direct`; "
    "else the broker's own app"
)
_OPEN = (OrderState.PENDING, OrderState.SENT, OrderState.UNKNOWN, OrderState.WORKING, OrderState.PARTIAL,
         OrderState.PENDING_CANCEL)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Step:
    """``after_ms``: since the cause; ``took_ms``: since the step before."""

    wall_ns: int
    what: str
    who: str
    text: str
    after_ms: float = 0.0
    took_ms: float = 0.0


@dataclass(slots=True)
class Incident:
    """``id``: journal row that began it; ``incident_id``: the stop's own number. ``ended_wall_ns`` 0: still open."""

    id: int
    incident_id: int
    title: str
    began_wall_ns: int
    ended_wall_ns: int = 0
    flat_wall_ns: int = 0
    by_hand: bool = False
    """A flatten that an operator asked for, without a stop."""
    by: str = ""
    """Who set a stop by hand and why, or what the bridge's dead-man said; empty where a badge tripped."""
    causes: list[Record] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    orders: list[Record] = field(default_factory=list)
    executions: list[Record] = field(default_factory=list)
    red: list[str] = field(default_factory=list)
    """Badges that were not OK at the end, in their words."""
    left: list[str] = field(default_factory=list)
    figures_ms: dict[str, float] = field(default_factory=dict)


def incidents(journal: JournalReader, limit: int = 50) -> list[Record]:
    """Incidents, newest last: id, wall_ns, text, state (OPEN, FLAT or RELEASED), incident_id, by_hand."""
    return [
        {"id": s.row["id"], "wall_ns": s.row["wall_ns"], "text": s.row["text"] or "KILL", "state": s.state,
         "incident_id": str(s.row["ref_id"]), "by_hand": s.by_hand}
        for s in spans(journal)[-limit:]
    ]  # fmt: skip


def report(journal: JournalReader, number: int, cooling_s: float = 300.0) -> Incident | None:
    """The incident that a row id, an incident id or a flatten id belongs to; None if nothing does.

    ``cooling_s``: guardrails.cooling_s, which the journal does not know.
    """
    chosen, later = span_of(journal, number)
    if chosen is None:
        return None
    row = chosen.row
    end = chosen.end_ns if chosen.end else int(later.row["wall_ns"]) - 1 if later else chosen.end_ns
    if chosen.by_hand:
        found = _build(row, None, journal.between(row["wall_ns"] - HAND_BEFORE_NS, end), journal.execution_known)
        found.causes, found.by, found.by_hand = [], row["text"], True
        found.ended_wall_ns = chosen.end_ns if chosen.end else 0
        found.figures_ms = {
            name.replace("kill", "start"): ms for name, ms in found.figures_ms.items() if name != "cause_to_kill"
        }
        found.left = _left_by_hand(found)
        return found
    began_ns = min(row["wall_ns"] - CAUSE_BEFORE_NS, lease_gone_ns(journal.stops(), row))
    found = _build(row, chosen.end, journal.between(began_ns, end), journal.execution_known)
    found.left = _left(found, chosen.end, cooling_s, superseded=bool(later and not chosen.end))
    return found


def _build(
    stop: Record, release: Record | None, rows: list[Record], known: Callable[[str, int], bool]
) -> Incident:  # fmt: skip
    """``known``: whether an execution had been journaled before a moment."""
    found = Incident(stop["id"], int(stop["ref_id"]), stop["text"], stop["wall_ns"])
    found.ended_wall_ns = release["wall_ns"] if release else 0
    found.causes = causes(stop, rows)
    told = None if found.causes else told_by(stop, rows)
    found.by = str(told["text"]) if told else ""
    cause_ns = min([c["wall_ns"] for c in found.causes] + [stop["wall_ns"]] + ([told["wall_ns"]] if told else []))
    course = [r for r in rows if r["wall_ns"] >= cause_ns]
    found.orders = _orders(course)
    intents = {o["intent_id"] for o in found.orders}
    found.executions = _executions(course, intents, lambda exec_base: known(exec_base, cause_ns))
    found.steps = _steps(course, cause_ns, intents)
    flat = [r for r in course if _is_flatten(r) and r["code"] == FlattenState.FLAT]
    found.flat_wall_ns = flat[-1]["wall_ns"] if flat else 0
    found.figures_ms = _figures(stop, release, found, flat[0] if flat else None, cause_ns)
    found.red = _red(rows)
    return found


def _closing(row: Record) -> bool:
    return row["source"] in (Source.WATCHDOG, Source.BRIDGE)


def _orders(rows: list[Record]) -> list[Record]:
    """Every closing order with its newest state and the times of its first steps."""
    about = [r for r in rows if r["table"] == "orders" and r["intent_id"]]
    closing = {r["intent_id"] for r in about if _closing(r)}
    mine = [r for r in about if r["intent_id"] in closing]
    times: dict[int, dict[str, int]] = {}
    for r in mine:
        at = times.setdefault(r["intent_id"], {})
        if r["row"] == "STATE":
            at.setdefault(word(OrderState, r["state"]), r["wall_ns"])
    return [
        {
            "intent_id": o["intent_id"], "order_id": o["order_id"], "symbol": o["symbol"],
            "side": word(Side, o["side"]), "qty": o["qty"], "order_type": word(OrderType, o["order_type"]) or "MKT",
            "limit_price": o["limit_price"], "source": word(Source, o["source"]),
            "state": word(OrderState, o["state"]), "refusal": word(Refusal, o["refusal"]),
            "filled": o["filled_qty"], "avg_price": o["avg_price"], "asked_wall_ns": o["wall_ns"],
            "sent_wall_ns": times.get(o["intent_id"], {}).get("SENT", 0),
            "filled_wall_ns": times.get(o["intent_id"], {}).get("FILLED", 0), "text": o["text"],
        }
        for o in fold_orders(mine)
    ]  # fmt: skip


def _executions(rows: list[Record], intents: set[int], told_before: Callable[[str], bool]) -> list[Record]:
    """Those of the closing orders and of a flatten, but not what a new bridge has read back of an earlier one."""
    newest: dict[str, Record] = {}
    told: dict[str, int] = {}
    for r in rows:
        if r["table"] != "executions" or r["kind"] not in (ExecKind.FILL, ExecKind.CORRECTION):
            continue
        # Of a hand whose orders nobody has journaled (a direct flatten, a watchdog that died) only the source tells.
        if r["intent_id"] in intents or r["flags"] & ExecFlag.FLATTEN or _closing(r):
            told.setdefault(r["exec_base"], r["wall_ns"])
            known = newest.get(r["exec_base"])
            if known is None or r["revision"] >= known["revision"]:
                newest[r["exec_base"]] = r
    return [
        {
            "exec_id": r["exec_id"], "wall_ns": r["exec_wall_ns"] or r["wall_ns"],
            "told_wall_ns": told[r["exec_base"]], "symbol": r["symbol"],
            "side": word(Side, r["side"]), "qty": r["qty"], "price": r["price"], "intent_id": r["intent_id"],
            "order_id": r["order_id"],
        }
        for r in newest.values() if not told_before(r["exec_base"])
    ]  # fmt: skip


_STEP_KINDS = (EventKind.FLATTEN, EventKind.CONNECTIVITY, EventKind.RECONCILE)


def _steps(rows: list[Record], cause_ns: int, intents: set[int]) -> list[Step]:
    found: list[Step] = []
    last_sent = max((r["wall_ns"] for r in rows if _is_sent(r, intents)), default=0)
    seen_first = False
    for r in rows:
        who = str(r["ring"]).partition(".")[2] or str(r["ring"])
        table, kind = r["table"], r.get("kind")
        if table == "guardrails":
            name = "badge" if kind == EventKind.GUARDRAIL else "stop"
            found.append(Step(r["wall_ns"], name, who, r["text"]))
        elif table == "events" and (kind in _STEP_KINDS or r["severity"] == Severity.P1):
            found.append(Step(r["wall_ns"], "flatten" if kind == EventKind.FLATTEN else "event", who, r["text"]))
        elif table == "audit" and r["row"] in ("ACTION", "RESULT"):
            name = word(CommandKind, r["command"]).lower() if r["row"] == "ACTION" and r["command"] else "order"
            verdict = "refused: " if r["result"] == 1 else ""
            what = "operator" if r["row"] == "ACTION" else "answer"
            found.append(Step(r["wall_ns"], what, who, f"{verdict}{r['text'] or name}"))
        elif _is_sent(r, intents):
            if not seen_first:
                seen_first = True
                found.append(Step(r["wall_ns"], "sent", who, "first closing order on the wire"))
            if r["wall_ns"] == last_sent and len(intents) > 1:
                found.append(Step(r["wall_ns"], "sent", who, "last closing order on the wire"))
                last_sent = -1
    return _timed(found, cause_ns)


def _is_sent(r: Record, intents: set[int]) -> bool:
    if r["table"] != "orders" or r["intent_id"] not in intents:
        return False
    return bool(r["row"] == "STATE" and r["state"] == OrderState.SENT)


def _is_flatten(r: Record) -> bool:
    return bool(r["table"] == "events" and r["kind"] == EventKind.FLATTEN)


def _timed(steps: list[Step], cause_ns: int) -> list[Step]:
    timed, before = [], cause_ns
    for s in sorted(steps, key=lambda s: s.wall_ns):
        after, took = (s.wall_ns - cause_ns) / 1e6, (s.wall_ns - before) / 1e6
        timed.append(Step(s.wall_ns, s.what, s.who, s.text, round(after, 3), round(took, 3)))
        before = s.wall_ns
    return timed


def _figures(
    stop: Record, release: Record | None, found: Incident, flat: Record | None, cause_ns: int
) -> dict[str, float]:
    figures = {"cause_to_kill": (stop["wall_ns"] - cause_ns) / 1e6}
    sent = [o["sent_wall_ns"] for o in found.orders if o["sent_wall_ns"]]
    if sent:
        early = min(sent) < stop["wall_ns"]  # the bridge got flat before the watchdog could note the stop
        figures["cause_to_first_close" if early else "kill_to_first_close"] = (
            min(sent) - (cause_ns if early else stop["wall_ns"])
        ) / 1e6
    if flat is not None:
        if flat["value"] is not None:
            figures["tick_to_last_close_of_round_one"] = float(flat["value"])
        figures["kill_to_flat"] = (flat["wall_ns"] - stop["wall_ns"]) / 1e6
    if release is not None:
        figures["kill_to_release"] = (release["wall_ns"] - stop["wall_ns"]) / 1e6
        if flat is not None:
            figures["flat_to_release"] = (release["wall_ns"] - flat["wall_ns"]) / 1e6
    return {name: round(value, 3) for name, value in figures.items()}


def _red(rows: list[Record]) -> list[str]:
    badges: dict[int, Record] = {}
    for r in rows:
        if r["table"] == "guardrails" and r["kind"] == EventKind.GUARDRAIL and r["code"] != Badge.KILL:
            badges[r["code"]] = r
    return [r["text"] for r in badges.values() if r["ref_id"] != BadgeState.OK]


def _left(found: Incident, release: Record | None, cooling_s: float, *, superseded: bool) -> list[str]:
    """What a person still has to do, in order."""
    todo: list[str] = []
    undecided = [o for o in found.orders if o["state"] in {s.name for s in _OPEN}]
    if not found.flat_wall_ns:
        todo.append(NOT_FLAT)
    if undecided:
        names = ", ".join(f"{o['side']} {o['qty']:g} {o['symbol']} ({o['state']})" for o in undecided)
        todo.append(f"orders without a final word of the broker: {names}: compare with the broker's blotter")
    if release is not None:
        todo.append("released; if algo or ml-service do not run: `ops/restart.sh algo ml-service`")
        return todo
    if superseded:
        return [*todo, "a later stop holds: see its own report"]
    todo.append("verify in the blotter: every closing order FILLED, nothing working (`l2dash orders`, `l2dash fills`)")
    todo.append(f"cool for {duration(cooling_s)} (guardrails.cooling_s) from confirmed flat, watching the badges")
    todo += [f"wait until this is OK again: {text}" for text in found.red]
    locks = any(c["badge"] == "DD" for c in found.causes)
    todo.append("`l2dash reset --override NAME --reason WHY` (DD is locked until the next session)" if locks
                else "`l2dash reset --reason WHY`")  # fmt: skip
    todo.append("`ops/restart.sh algo ml-service`: a restart alone releases nothing")
    return todo


def _left_by_hand(found: Incident) -> list[str]:
    if not found.flat_wall_ns:
        return [NOT_FLAT]
    return ["flat is confirmed and PAUSE holds: `l2dash resume` when trading may go on"]


def as_dict(found: Incident) -> Record:
    """For JSON: ids as text, because they are larger than what a browser's numbers hold."""
    plain: dict[str, Any] = {
        "id": found.id, "incident_id": str(found.incident_id), "title": found.title,
        "began_wall_ns": str(found.began_wall_ns), "ended_wall_ns": str(found.ended_wall_ns),
        "flat_wall_ns": str(found.flat_wall_ns), "by": found.by, "by_hand": found.by_hand,
        "causes": found.causes, "figures_ms": found.figures_ms,
        "steps": [
            {"wall_ns": str(s.wall_ns), "after_ms": s.after_ms, "took_ms": s.took_ms, "what": s.what, "who": s.who,
             "text": s.text} for s in found.steps
        ],
        "orders": found.orders, "executions": found.executions, "left": found.left,
    }  # fmt: skip

    def texts(row: Record) -> Record:
        return {k: str(v) if k.endswith("_ns") or k == "intent_id" else v for k, v in row.items()}

    for name in ("causes", "orders", "executions"):
        plain[name] = [texts(r) for r in plain[name]]
    return plain
