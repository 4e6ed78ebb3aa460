"""What an incident comes from: the badges that had tripped, with their numbers, or whoever set the stop. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from engine.domain.codes import Badge, BadgeState, BlockReason, CommandKind, EventKind, Severity, Source
from engine.risk.guardrails.result import unit_of
from engine.store.journal_read import Record, word

BY_HAND_BEFORE_NS = 10 * 1_000_000_000
"""An operator's word comes before the stop that it sets, by less than this."""
DEAD_MAN = "the bridge latches KILL"
"""In the words of the bridge's dead-man; a drill with a hung watchdog notices if they change."""


def lease_gone_ns(stops: Sequence[Record], stop: Record) -> int:
    """When the lease expired that made the bridge's dead-man set this stop; the stop's own time for every other one.

    The watchdog notes such a stop when it is back, and by then the bridge may have been flat for a long time.
    """
    began = int(stop["wall_ns"])
    if stop["source"] == Source.BRIDGE:
        blocks = [s for s in stops if s["wall_ns"] <= stop["wall_ns"] and not s["code"]]  # the bridge's own
        for row in sorted(blocks, key=lambda s: -s["wall_ns"]):
            if BlockReason.LEASE_EXPIRED.name not in row["text"]:
                break
            began = int(row["wall_ns"])
    return began


def causes(stop: Record, rows: list[Record]) -> list[Record]:
    """Badges that had tripped when the stop was set, with their numbers; the stop's own words if none had."""
    latest: dict[int, Record] = {}
    for r in rows:
        if r["table"] == "guardrails" and r["kind"] == EventKind.GUARDRAIL and r["wall_ns"] <= stop["wall_ns"]:
            latest[r["code"]] = r
    tripped = [
        r for r in latest.values()
        if r["ref_id"] == BadgeState.TRIPPED and r["code"] != Badge.KILL and str(r["severity"]) in ("2", "3")
    ]  # fmt: skip
    named = [r for r in tripped if word(Badge, r["code"]) in str(stop["text"])] or tripped
    return [
        {
            "badge": word(Badge, r["code"]), "wall_ns": r["wall_ns"], "value": r["value"], "limit": r["limit_value"],
            "unit": unit_of(r["code"], r["text"]), "symbol": r["symbol"], "reason": r["text"],
        }
        for r in named
    ]  # fmt: skip


def told_by(stop: Record, rows: list[Record]) -> Record | None:
    """The row that says who set the stop: an operator's act, or the word of the bridge that latched KILL by itself.

    It comes before the stop, and so may everything that was done about it: a bridge without a watchdog gets flat alone.
    """
    before = [r for r in rows if r["wall_ns"] <= stop["wall_ns"]]
    if stop["source"] == Source.BRIDGE:
        found = [r for r in before if r["table"] == "events" and r["severity"] == Severity.P1 and DEAD_MAN in r["text"]]
    else:
        found = [
            r for r in before
            if r["table"] == "audit" and r["row"] == "ACTION" and r["command"] == CommandKind.KILL
            and r["source"] == stop["source"] and stop["wall_ns"] - r["wall_ns"] <= BY_HAND_BEFORE_NS
        ]  # fmt: skip
    return found[-1] if found else None
