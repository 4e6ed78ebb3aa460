"""A recorded session comes back in time order, and its summary is what was traded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.domain.codes import BookSide, DepthOp, Side, TickKind
from engine.domain.instruments import SIM_UNIVERSE
from engine.store.blocks import BlockKind, Header, Records, encode
from engine.store.files import StoreError
from engine.store.journal import Journal, journal_path
from engine.store.replay import Kind, session, summarise
from engine.store.rows import Batch, Names
from engine.store.segments import SegmentWriter
from shm.layouts import TICK

from .conftest import WALL_OFFSET_NS, execution, intent

DAY = 20240102


def book(symbol: int, bid: float, ask: float, first: int, at_ns: int) -> Records:
    """A book of one level a side, then a print that makes the levels count."""
    found = np.zeros(3, TICK)
    found["sequence"] = np.arange(first, first + 3)
    found["t_socket_ns"] = at_ns + np.array([0, 0, 1_000])
    found["symbol"] = symbol
    found["kind"] = [TickKind.DEPTH, TickKind.DEPTH, TickKind.TRADE]
    found["side"] = [BookSide.BID, BookSide.ASK, 0]
    found["op"] = DepthOp.INSERT
    found["price"] = [bid, ask, bid]
    found["size"] = 100.0
    return found


@pytest.fixture
def state(tmp_path: Path, names: Names) -> Path:
    """100 shares bought at 150.05 between two looks at the book, 40 sold at 150.30 after it; 7 ticks lost."""
    writer = SegmentWriter(tmp_path / "ticks", "ticks", 1 << 20)
    before = book(0, 150.0, 150.1, 0, 1_000_000_000)
    after = book(1, 410.0, 410.2, 3, 2_500_000_000)
    both = np.concatenate([before, after])
    writer.append(DAY, encode(Header(BlockKind.TICK, 0, 6, 1, WALL_OFFSET_NS, 0, 7), both))
    last = book(0, 150.0, 150.1, 13, 4_000_000_000)[2:]
    last["sequence"] = 13
    writer.append(DAY, encode(Header(BlockKind.TICK, 13, 14, 1, WALL_OFFSET_NS, 7, 7), last))
    writer.close()
    journal = Journal(journal_path(tmp_path))
    journal.append(
        [
            Batch("orders.algo", 1, intent(5, qty=100.0), 0, 1, 1),
            Batch("executions", 1, execution("1.1.01.01", 100.0, 150.05, commission=1.0), 0, 1, 1),
            Batch("executions", 1, execution("1.2.01.01", 40.0, 150.3, sequence=1, side=Side.SELL), 0, 2, 1),
        ],
        names,
    )
    journal.close()
    return tmp_path


def test_pieces_come_in_time_order_and_ticks_are_split_where_something_happened(state: Path) -> None:
    pieces = list(session(state, DAY))
    assert [(p.kind, len(p.records)) for p in pieces] == [
        (Kind.TICKS, 3),
        (Kind.INTENT, 1),
        (Kind.TICKS, 3),
        (Kind.EXECUTION, 1),
        (Kind.EXECUTION, 1),
        (Kind.TICKS, 1),
    ]
    assert [p.wall_ns for p in pieces] == sorted(p.wall_ns for p in pieces)
    assert pieces[1].records.tobytes() == intent(5, qty=100.0).tobytes()


def test_the_summary_counts_marks_and_names_the_gap(state: Path) -> None:
    found = summarise(state, "2024-01-02", SIM_UNIVERSE)
    assert (found.ticks, found.orders, found.fills, [g.lost for g in found.gaps]) == (7, 1, 2, [7])
    apple = found.symbols["AAPL"]
    assert (apple.ticks, apple.position.qty) == (4, 60.0)
    assert apple.mid == pytest.approx(150.05)
    assert apple.pnl_usd == pytest.approx(40 * (150.3 - 150.05) - 1.0)
    assert found.symbols["MSFT"].mid == pytest.approx(410.1)
    assert found.last_wall_ns - found.first_wall_ns == 3_000_001_000


def test_a_day_that_was_not_recorded_is_refused_by_name(state: Path) -> None:
    with pytest.raises(StoreError, match="20240105"):
        list(session(state, 20240105))
