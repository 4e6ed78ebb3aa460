"""A recorded session in time order: for replay through the same agents, and a summary of what it holds."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from engine.domain.instruments import Instrument
from engine.market.state import Market
from engine.store.blocks import Records
from engine.store.files import StoreError, day_number
from engine.store.fold import Position
from engine.store.journal import journal_path, read_only
from engine.store.journal_read import JournalReader
from engine.store.read import Gap, day_gaps, iter_blocks
from shm.layouts import EXECUTION, INTENT


class Kind(IntEnum):
    """What a piece of a session is. Pieces at the same time come in this order: cause before effect."""

    TICKS = 0
    INTENT = 1
    EXECUTION = 2


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive records. ``records``: dtype TICK, INTENT or EXECUTION; ``wall_ns`` of the first of them."""

    wall_ns: int
    kind: Kind
    wall_offset_ns: int
    records: Records


@dataclass(frozen=True, slots=True)
class SymbolSummary:
    """One symbol of a session. ``mid`` is the last one of a valid book (NaN if there was none)."""

    ticks: int
    resets: int
    faults: int
    mid: float
    position: Position
    pnl_usd: float
    """Of the session's fills at the last mid, after commissions; NaN if it can't be marked."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a session holds: ``l2dash replay SESSION`` prints it."""

    date: int
    ticks: int
    bars: int
    first_wall_ns: int
    last_wall_ns: int
    gaps: tuple[Gap, ...]
    orders: int
    fills: int
    pnl_usd: float
    symbols: dict[str, SymbolSummary]


def _tick_pieces(state_dir: Path, date: int) -> Iterator[Piece]:
    for header, records in iter_blocks(state_dir, date):
        yield Piece(int(records[0]["t_socket_ns"]) + header.wall_offset_ns, Kind.TICKS, header.wall_offset_ns, records)


def _journal_pieces(state_dir: Path, date: int) -> Iterator[Piece]:
    if not journal_path(state_dir).exists():
        return
    with read_only(journal_path(state_dir)) as db:
        yield from heapq.merge(
            _raw(db, "orders", Kind.INTENT, INTENT, date), _raw(db, "executions", Kind.EXECUTION, EXECUTION, date),
            key=_order,
        )  # fmt: skip


def _raw(db: Any, table: str, kind: Kind, dtype: np.dtype[np.void], date: int) -> Iterator[Piece]:
    only = "AND row = 'INTENT'" if kind == Kind.INTENT else ""
    sql = f"SELECT wall_ns, t_ns, raw FROM {table} WHERE day = ? {only} ORDER BY wall_ns, id"
    for wall_ns, t_ns, raw in db.execute(sql, (date,)):
        yield Piece(wall_ns, kind, wall_ns - t_ns, np.frombuffer(raw, dtype))


def _order(piece: Piece) -> tuple[int, int]:
    return piece.wall_ns, piece.kind


def session(state_dir: Path, date: int | str) -> Iterator[Piece]:
    """Every tick, intent and execution of a day in time order; ticks in runs as long as nothing comes between them.

    Raises StoreError if the day was not recorded.
    """
    day = day_number(str(date))
    others = _journal_pieces(state_dir, day)
    other = next(others, None)
    found = False
    for piece in _tick_pieces(state_dir, day):
        found = True
        walls = piece.records["t_socket_ns"] + piece.wall_offset_ns
        start = 0
        while other is not None and other.wall_ns < int(walls[-1]):
            at = int(np.searchsorted(walls, other.wall_ns, side="right"))
            if at > start:
                yield Piece(int(walls[start]), Kind.TICKS, piece.wall_offset_ns, piece.records[start:at])
                start = at
            yield other
            other = next(others, None)
        if start < len(walls):
            yield Piece(int(walls[start]), Kind.TICKS, piece.wall_offset_ns, piece.records[start:])
    while other is not None:
        found = True
        yield other
        other = next(others, None)
    if not found:
        raise StoreError(f"nothing was recorded on {day}: see the directories in {state_dir / 'ticks'}")


def summarise(state_dir: Path, date: int | str, instruments: Sequence[Instrument]) -> Summary:
    """Rebuild the books and positions of a recorded day. Raises StoreError if the day was not recorded."""
    day = day_number(str(date))
    market = Market(instruments)
    counts = np.zeros(1 << 16, np.int64)
    mids = np.full(len(instruments), np.nan)
    bars = ticks = 0
    first = last = 0
    for piece in session(state_dir, day):
        first = first or piece.wall_ns
        last = max(last, piece.wall_ns)
        if piece.kind != Kind.TICKS:
            continue
        ticks += len(piece.records)
        counts += np.bincount(piece.records["symbol"], minlength=1 << 16)
        bars += sum(len(b) for b in market.drain(piece.records.copy()))
        end_ns = int(piece.records[-1]["t_socket_ns"])
        last = max(last, end_ns + piece.wall_offset_ns)
        for i in range(len(instruments)):
            mid = float(market.state[i]["mid"])
            mids[i] = mid if mid > 0 else mids[i]
    orders, fills, positions = _traded(state_dir, day)
    symbols = {}
    for i, instrument in enumerate(instruments):
        mine = positions.get(instrument.symbol, Position())
        marked = mine.cash_flow_usd + (mine.qty * mids[i] if mine.qty else 0.0) - mine.commissions_usd
        state = market.state[i]
        symbols[instrument.symbol] = SymbolSummary(
            int(counts[i]), int(state["resets"]), int(state["faults"]), float(mids[i]), mine, float(marked)
        )
    pnl = sum(s.pnl_usd for s in symbols.values())
    return Summary(day, ticks, bars, first, last, tuple(day_gaps(state_dir, day)), orders, fills, pnl, symbols)


def _traded(state_dir: Path, day: int) -> tuple[int, int, dict[str, Position]]:
    if not journal_path(state_dir).exists():
        return 0, 0, {}
    with JournalReader(journal_path(state_dir)) as journal:
        fills = len(journal.fills(limit=1 << 31, day=day))
        return len(journal.orders(limit=1 << 20, day=day)), fills, journal.positions_from_fills(day)
