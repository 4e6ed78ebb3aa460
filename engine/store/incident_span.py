"""Which incidents the journal knows: stops, and flattens by hand, each from its first row to the one that ended it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.domain.codes import FlattenState, Source
from engine.risk.latch import StopEvent
from engine.store.journal_read import JournalReader, Record

CAUSE_BEFORE_NS = 120 * 1_000_000_000
"""A badge that tripped this long before the stop can still be its cause (rules that wait by design)."""
STOPS = (StopEvent.KILL, StopEvent.SYMBOL_KILL)
_BY_HAND = (Source.OPERATOR, Source.CLI)


@dataclass(frozen=True, slots=True)
class Span:
    """``row``: what began it; ``end``: the release of a stop, the confirmed flat of a flatten, None while open."""

    row: Record
    end: Record | None
    by_hand: bool
    """A flatten that an operator asked for while no KILL held."""

    @property
    def end_ns(self) -> int:
        return int(self.end["wall_ns"]) if self.end else 1 << 62

    @property
    def state(self) -> str:
        if self.end is None:
            return "OPEN"
        return "FLAT" if self.by_hand else "RELEASED"


def spans(journal: JournalReader) -> list[Span]:
    """All of them, by the time at which they began."""
    stops = journal.stops()
    found = [
        Span(row, _release(stops[n:], row), by_hand=False)
        for n, row in enumerate(stops)
        if row["code"] in STOPS and not _repeats(stops[:n], row)
    ]
    rows = journal.flattens()
    seen: set[int] = set()
    for row in rows:
        first = row["ref_id"] not in seen
        seen.add(row["ref_id"])
        held = any(s.row["wall_ns"] <= row["wall_ns"] < s.end_ns for s in found if not s.by_hand)
        if first and row["source"] in _BY_HAND and not held:
            mine = [r for r in rows if r["ref_id"] == row["ref_id"] and r["id"] > row["id"]]
            flat = next((r for r in mine if r["code"] == FlattenState.FLAT), None)
            found.append(Span(row, flat, by_hand=True))
    return sorted(found, key=lambda s: (s.row["wall_ns"], s.row["id"]))


def span_of(journal: JournalReader, number: int) -> tuple[Span | None, Span | None]:
    """The span that a row id, an incident id or a flatten id belongs to, and the one that began after it."""
    known = spans(journal)
    chosen = next((s for s in known if number in (s.row["id"], s.row["ref_id"])), None)
    if chosen is None:
        wall_ns = journal.wall_of(number)
        if wall_ns is None:
            return None, None
        around = [s for s in known if s.row["wall_ns"] - CAUSE_BEFORE_NS <= wall_ns <= s.end_ns]
        begun = [s for s in around if s.row["wall_ns"] <= wall_ns]
        chosen = (begun or around or [None])[-1]  # type: ignore[list-item]
    if chosen is None:
        return None, None
    return chosen, next((s for s in known if s.row["id"] > chosen.row["id"]), None)


def _repeats(before: Sequence[Record], row: Record) -> bool:
    """A further reason of a KILL that holds already, or its return after a restart."""
    for stop in reversed(before):
        if stop["code"] == StopEvent.KILL_RELEASED:
            return False
        if stop["code"] in STOPS and stop["ref_id"] == row["ref_id"] and row["ref_id"]:
            return True
    return False


def _release(after: Sequence[Record], row: Record) -> Record | None:
    return next((s for s in after if s["id"] > row["id"] and s["code"] == StopEvent.KILL_RELEASED), None)
