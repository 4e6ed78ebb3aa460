"""LOBSTER replay: exact rows, trade prints, halts, client orders against the displayed book, named errors."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import make_tiny_lobster
import numpy as np
import pytest
from market_reader import Reader
from market_realism import imbalance_auc, ofi_r2, tape_of

from engine.paper.market import book, lobster, lobster_file, lobster_kernels
from engine.paper.market.lobster import LobsterMarket
from engine.paper.market.lobster_file import (
    LobsterColumnsMismatch,
    LobsterError,
    LobsterFileMissing,
    LobsterNoRows,
    LobsterTimeUnsorted,
    read_lobster,
)
from engine.paper.port import MARKET_EVENT, MarketEventKind, MarketSource

DATA = Path(__file__).resolve().parents[1] / "data"
MESSAGES = DATA / f"{make_tiny_lobster.STEM}_message_5.csv"
BOOKS = DATA / f"{make_tiny_lobster.STEM}_orderbook_5.csv"
S = 1_000_000_000
DAY_NS = 24 * 3600 * S
MARKET = float("nan")


def file_rows(row: np.ndarray) -> tuple[list[list[float]], list[list[float]]]:
    """Bids and asks of one order-book row, read the slow and obvious way."""
    sides = []
    for offset in (2, 0):
        cells = [(row[k + offset], row[k + offset + 1]) for k in range(0, len(row), 4)]
        sides.append([[p / 10_000, float(s)] for p, s in cells if s > 0 and 0 < p < 9_000_000_000])
    return sides[0], sides[1]


def write_pair(folder: Path, messages: list[str], books: list[str], levels: int = 2) -> Path:
    stem = "TEST_2024-01-02_34200000_57600000"
    (folder / f"{stem}_orderbook_{levels}.csv").write_text("\n".join(books) + "\n")
    path = folder / f"{stem}_message_{levels}.csv"
    path.write_text("\n".join(messages) + "\n")
    return path


def book_row(bid: int, bid_size: int, ask: int, ask_size: int) -> str:
    """Two levels a cent apart around the given best prices (in cents); the second has 500 shares."""
    return f"{ask * 100},{ask_size},{bid * 100},{bid_size},{(ask + 1) * 100},500,{(bid - 1) * 100},500"


def small_market(tmp_path: Path, rows: list[tuple[str, str]]) -> tuple[LobsterMarket, Reader]:
    """Rows one second apart from 09:30:01; row k is (type,id,size,price,direction) and the book after it."""
    messages = [f"{34201 + k}.0,{message}" for k, (message, _) in enumerate(rows)]
    market = LobsterMarket(write_pair(tmp_path, messages, [b for _, b in rows]))
    return market, Reader(2)


def test_the_tiny_file_is_what_its_generator_makes() -> None:
    assert (MESSAGES.read_text(), BOOKS.read_text()) == make_tiny_lobster.make()


def test_row_operations_rebuild_every_snapshot_of_the_file() -> None:
    market: MarketSource = LobsterMarket(MESSAGES)
    day = read_lobster(MESSAGES)
    reader = Reader(5)
    reader.drain(market)
    for k in range(len(day.t_ns)):
        if k + 1 < len(day.t_ns) and day.t_ns[k + 1] == day.t_ns[k]:
            continue
        market.advance(int(day.t_ns[k]) - 34_200 * S)
        reader.drain(market)
        bids, asks = file_rows(day.book[k])
        assert [list(r) for r in reader.books[0][1]] == bids
        assert [list(r) for r in reader.books[0][0]] == asks
        reader.assert_equals_snapshot(market, 0)
    assert market.finished  # type: ignore[attr-defined]


def test_fewer_levels_than_the_file_has_are_its_first_rows() -> None:
    market = LobsterMarket(MESSAGES, levels=3)
    reader = Reader(3)
    market.advance(DAY_NS)
    reader.drain(market)
    bids, asks = file_rows(market.day.book[-1])
    assert [list(r) for r in reader.books[0][1]] == bids[:3]
    assert [list(r) for r in reader.books[0][0]] == asks[:3]


def test_executions_become_trade_prints_with_the_aggressors_side() -> None:
    market = LobsterMarket(MESSAGES)
    reader = Reader(5)
    market.advance(DAY_NS)
    reader.drain(market)
    day = market.day
    executed = np.isin(day.kind, (4, 5))
    expected = [
        (0, p / 10_000, float(s), -int(d))
        for p, s, d in zip(day.price[executed], day.size[executed], day.direction[executed], strict=True)
    ]
    assert expected
    assert reader.trades == expected


def test_a_halt_in_the_file_is_announced_and_holds_client_orders() -> None:
    market = LobsterMarket(MESSAGES)
    reader = Reader(5)
    day = market.day
    halt, _, resume = (int(t) - 34_200 * S for t in day.t_ns[day.kind == 7])
    market.advance(halt)
    market.submit(1, 0, 1, 10, MARKET, False, halt)
    reader.drain(market)
    assert reader.halts == [(0, 1)]
    market.advance(resume - 1)
    reader.drain(market)
    assert reader.fills == []
    market.advance(resume)
    reader.drain(market)
    assert reader.halts == [(0, 1), (0, 0)]
    assert [(f[0], f[2]) for f in reader.fills] == [(1, 10)]


def test_a_start_inside_a_halt_says_so_first() -> None:
    day = read_lobster(MESSAGES)
    halted_at_s = int(day.t_ns[day.kind == 7][0] // S) + 1
    start = f"{halted_at_s // 3600:02d}:{halted_at_s // 60 % 60:02d}:{halted_at_s % 60:02d}"
    market = LobsterMarket(MESSAGES, start=start)
    reader = Reader(5)
    reader.drain(market)
    assert reader.halts == [(0, 1)]


def test_a_later_start_opens_with_the_book_of_that_moment() -> None:
    market = LobsterMarket(MESSAGES, start="09:31:30", start_ns=7 * S)
    reader = Reader(5)
    reader.drain(market)
    row = int(np.searchsorted(market.day.t_ns, 34_290 * S)) - 1
    bids, asks = file_rows(market.day.book[row])
    assert [list(r) for r in reader.books[0][1]] == bids
    assert [list(r) for r in reader.books[0][0]] == asks
    assert market.next_ns() == int(market.day.t_ns[row + 1]) - 34_290 * S + 7 * S


def test_faster_than_real_time_only_in_process() -> None:
    with pytest.raises(ValueError, match="speed = 10"):
        LobsterMarket(MESSAGES, speed=10.0)
    with pytest.raises(ValueError, match="speed = 0"):
        LobsterMarket(MESSAGES, speed=0.0, in_process=True)
    fast, slow = LobsterMarket(MESSAGES, speed=10.0, in_process=True), LobsterMarket(MESSAGES)
    fast.advance(30 * S)
    slow.advance(300 * S)
    assert fast.finished
    assert slow.finished
    assert np.array_equal(fast.snapshot(0)[0], slow.snapshot(0)[0])
    readers = Reader(5), Reader(5)
    fast_events, slow_events = readers[0].drain(fast), readers[1].drain(slow)
    assert np.abs(fast_events["t_ns"] * 10 - slow_events["t_ns"]).max() < 10


def test_a_known_symbol_has_its_own_contract_and_an_unknown_one_a_stable_made_up_id(tmp_path: Path) -> None:
    tiny = LobsterMarket(MESSAGES).instruments[0]
    assert (tiny.symbol, tiny.index) == ("TINY", 0)
    assert tiny.con_id == LobsterMarket(MESSAGES).instruments[0].con_id > 900_000_000
    for source in (MESSAGES, BOOKS):
        (tmp_path / source.name.replace("TINY", "AMZN")).write_bytes(source.read_bytes())
    assert LobsterMarket(tmp_path, "AMZN").instruments[0].con_id == 3691937


@pytest.mark.parametrize("form", ["message", "orderbook", "pair", "reversed", "folder", "zip"])
def test_every_form_of_the_pair_is_found(form: str, tmp_path: Path) -> None:
    archive = tmp_path / "tiny.zip"
    with zipfile.ZipFile(archive, "w") as z:
        for source in (MESSAGES, BOOKS):
            z.write(source, f"inside/{source.name}")
        z.writestr("ReadMe.txt", "not data")
    paths = {
        "message": MESSAGES,
        "orderbook": BOOKS,
        "pair": (MESSAGES, BOOKS),
        "reversed": (BOOKS, MESSAGES),
        "folder": DATA,
        "zip": archive,
    }
    day = read_lobster(paths[form], "TINY" if form == "folder" else None)  # type: ignore[arg-type]
    assert (day.symbol, day.levels, len(day.t_ns)) == ("TINY", 5, len(MESSAGES.read_text().splitlines()))


def test_times_are_exact_to_the_nanosecond_and_numbers_equal_a_plain_parse() -> None:
    day = read_lobster(MESSAGES)
    lines = [line.split(",") for line in MESSAGES.read_text().splitlines()]
    whole = [line[0].partition(".") for line in lines]
    assert day.t_ns.tolist() == [int(s) * S + int(f.ljust(9, "0")) for s, _, f in whole]
    for name, column in (("kind", 1), ("size", 3), ("price", 4), ("direction", 5)):
        assert getattr(day, name).tolist() == [int(line[column]) for line in lines]
    assert day.book.tolist() == [[int(c) for c in line.split(",")] for line in BOOKS.read_text().splitlines()]


QUOTES = "1,1,100,1000000,1"


def test_a_taker_depletes_the_displayed_level_until_the_file_changes_it(tmp_path: Path) -> None:
    rows = [
        (QUOTES, book_row(9999, 300, 10001, 200)),
        (QUOTES, book_row(9999, 400, 10001, 200)),  # the bid changed: the ask stays depleted
        (QUOTES, book_row(9999, 400, 10001, 250)),  # now the file has a word on the ask
    ]
    market, reader = small_market(tmp_path, rows)
    market.advance(1 * S)
    market.submit(5, 0, 1, 150, MARKET, False, 1 * S)
    reader.drain(market)
    assert reader.fills == [(5, 100.01, 150, 1, 0)]
    assert reader.trades == [(0, 100.01, 150, 1)]
    assert market.snapshot(0)[1][0].tolist() == [100.01, 50]
    market.advance(2 * S)
    assert market.snapshot(0)[1][0].tolist() == [100.01, 50]
    market.advance(3 * S)
    assert market.snapshot(0)[1][0].tolist() == [100.01, 250]
    reader.drain(market)
    reader.assert_equals_snapshot(market, 0)


def test_a_taker_walks_all_displayed_levels_and_the_rest_waits_for_new_size(tmp_path: Path) -> None:
    rows = [
        (QUOTES, book_row(9999, 300, 10001, 200)),
        (QUOTES, book_row(9999, 400, 10001, 200)),
        (QUOTES, book_row(9999, 400, 10001, 260)),
    ]
    market, reader = small_market(tmp_path, rows)
    market.advance(1 * S)
    market.submit(5, 0, 1, 800, MARKET, False, 1 * S)
    market.submit(6, 0, 1, 100, 100.02, True, 1 * S)
    reader.drain(market)
    assert [(f[1], f[2]) for f in reader.fills] == [(100.01, 200), (100.02, 500)]
    assert reader.done == [(6, 100, 2)]
    assert market.snapshot(0)[1].tolist() == []
    market.advance(2 * S)
    reader.drain(market)
    assert len(reader.fills) == 2
    market.advance(3 * S)
    reader.drain(market)
    assert reader.fills[2:] == [(5, 100.01, 100, 1, 0)]
    assert market.snapshot(0)[1][0].tolist() == [100.01, 160]


def test_a_resting_order_waits_behind_the_displayed_queue(tmp_path: Path) -> None:
    rows = [
        (QUOTES, book_row(9999, 300, 10001, 200)),
        ("4,9,200,999900,1", book_row(9999, 100, 10001, 200)),  # 200 of the 300 ahead trade
        ("5,0,500,999900,1", book_row(9999, 100, 10001, 200)),  # hidden size at the price says nothing about the queue
        ("4,9,60,999900,1", book_row(9999, 40, 10001, 200)),
        ("4,9,90,999900,1", book_row(9998, 500, 10001, 200)),  # 40 ahead, so 50 for us
        ("4,9,10,999700,1", book_row(9998, 400, 10001, 200)),  # through our price: the rest
    ]
    market, reader = small_market(tmp_path, rows)
    market.advance(1 * S)
    market.submit(5, 0, 1, 120, 99.99, False, 1 * S)
    market.advance(4 * S)
    reader.drain(market)
    assert reader.fills == []
    market.advance(5 * S)
    reader.drain(market)
    assert reader.fills == [(5, 99.99, 50, 1, 1)]
    market.advance(6 * S)
    reader.drain(market)
    assert reader.fills[1:] == [(5, 99.99, 70, 1, 1)]
    assert not market.cancel(5, 6 * S)


def test_cancels_shorten_the_queue_only_down_to_what_is_displayed(tmp_path: Path) -> None:
    rows = [
        (QUOTES, book_row(9999, 300, 10001, 200)),
        ("2,9,250,999900,1", book_row(9999, 50, 10001, 200)),
        ("4,9,80,999900,1", book_row(9998, 500, 10001, 200)),
    ]
    market, reader = small_market(tmp_path, rows)
    market.advance(1 * S)
    market.submit(5, 0, 1, 120, 99.99, False, 1 * S)
    market.advance(3 * S)
    reader.drain(market)
    assert reader.fills == [(5, 99.99, 30, 1, 1)]


def test_quotes_that_reach_a_resting_order_fill_it_at_its_limit(tmp_path: Path) -> None:
    rows = [(QUOTES, book_row(9999, 300, 10003, 200)), (QUOTES, book_row(9997, 300, 9999, 70))]
    market, reader = small_market(tmp_path, rows)
    market.advance(1 * S)
    market.submit(5, 0, 1, 100, 100.00, False, 1 * S)
    market.advance(2 * S)
    reader.drain(market)
    assert reader.fills == [(5, 100.0, 70, 1, 1), (5, 100.0, 30, 1, 1)]
    reader.assert_equals_snapshot(market, 0)


def test_an_order_beyond_the_displayed_levels_assumes_the_worst_until_its_price_is_seen(tmp_path: Path) -> None:
    rows = [
        (QUOTES, book_row(9999, 300, 10001, 200)),
        ("4,9,300,999900,1", book_row(9996, 40, 10001, 200)),
        ("4,9,60,999600,1", book_row(9995, 300, 10001, 200)),
    ]
    market, reader = small_market(tmp_path, rows)
    market.advance(1 * S)
    market.submit(5, 0, 1, 100, 99.96, False, 1 * S)
    market.advance(3 * S)
    reader.drain(market)
    assert reader.fills == [(5, 99.96, 20, 1, 1)]


def test_replace_keeps_the_place_for_a_decrease_and_cancel_reports_the_rest(tmp_path: Path) -> None:
    rows = [
        (QUOTES, book_row(9999, 300, 10001, 200)),
        ("4,9,290,999900,1", book_row(9999, 310, 10001, 200)),
        ("4,9,15,999900,1", book_row(9999, 295, 10001, 200)),
    ]
    market, reader = small_market(tmp_path, rows)
    market.advance(1 * S)
    market.submit(5, 0, 1, 100, 99.99, False, 1 * S)
    market.submit(6, 0, 1, 100, 99.99, False, 1 * S)
    market.advance(2 * S)
    assert market.replace(5, 60, 99.99, 2 * S)
    assert market.replace(6, 160, 99.99, 2 * S)
    market.advance(3 * S)
    reader.drain(market)
    assert reader.fills == [(5, 99.99, 5, 1, 1)]
    assert market.cancel(5, 3 * S)
    assert market.replace(6, 10, 100.01, 3 * S)
    assert not market.cancel(6, 3 * S)
    reader.drain(market)
    assert reader.done == [(5, 55, 1)]
    assert reader.fills[1:] == [(6, 100.01, 10, 1, 0)]


def test_defects_are_named(tmp_path: Path) -> None:
    good = [f"{34200 + k}.5,{QUOTES}" for k in range(3)]
    rows = [book_row(9999, 300, 10001, 200)] * 3
    with pytest.raises(LobsterFileMissing, match="no such file"):
        read_lobster(tmp_path / "TEST_2024-01-02_1_2_message_2.csv")
    with pytest.raises(LobsterFileMissing, match="no such file"):
        read_lobster(tmp_path / "nothing.zip")
    with pytest.raises(LobsterFileMissing, match="no message and orderbook pair of NONE"):
        read_lobster(DATA, "NONE")
    (tmp_path / "broken.zip").write_bytes(b"no archive")
    with pytest.raises(LobsterFileMissing, match="not a zip"):
        read_lobster(tmp_path / "broken.zip")
    with pytest.raises(LobsterColumnsMismatch, match=r"3 rows and .* has 2"):
        read_lobster(write_pair(tmp_path, good, rows[:2]))
    with pytest.raises(LobsterColumnsMismatch, match="5 columns where 6"):
        read_lobster(write_pair(tmp_path, [g.rpartition(",")[0] for g in good], rows))
    with pytest.raises(LobsterColumnsMismatch, match="8 columns where 12"):
        read_lobster(write_pair(tmp_path, good, rows, levels=3))
    with pytest.raises(LobsterColumnsMismatch, match="row 2: not 6 comma-separated"):
        read_lobster(write_pair(tmp_path, [good[0], good[1].replace("100", "1x0", 1), good[2]], rows))
    with pytest.raises(LobsterTimeUnsorted, match="row 2"):
        read_lobster(write_pair(tmp_path, [good[1], good[0], good[2]], rows))
    with pytest.raises(LobsterNoRows, match="no rows"):
        LobsterMarket(MESSAGES, start="15:00")
    with pytest.raises(ValueError, match='start = "nine"'):
        LobsterMarket(MESSAGES, start="nine")
    with pytest.raises(ValueError, match="levels = 6"):
        LobsterMarket(MESSAGES, levels=6)
    assert issubclass(LobsterNoRows, LobsterError)


def test_compiled_and_interpreted_replay_write_the_same_events(monkeypatch: pytest.MonkeyPatch) -> None:
    def play() -> np.ndarray:
        market = LobsterMarket(MESSAGES)
        market.advance(20 * S)
        bids, asks = market.snapshot(0)
        market.submit(1, 0, 1, 200, bids[0, 0], False, 20 * S)
        market.submit(2, 0, -1, 700, bids[1, 0], False, 20 * S)
        market.submit(3, 0, -1, 100, asks[0, 0], False, 20 * S)
        market.advance(290 * S)
        out = np.zeros(1 << 14, MARKET_EVENT)
        return out[: market.poll(out)].copy()

    compiled = play()
    for module in (book, lobster, lobster_file, lobster_kernels):
        for name, value in list(vars(module).items()):
            if hasattr(value, "py_func"):
                monkeypatch.setattr(module, name, value.py_func)
    assert MarketEventKind.OWN_FILL in compiled["kind"]
    assert np.array_equal(compiled, play())


@pytest.mark.real_data
@pytest.mark.skipif("L2DASH_REAL_DATA" not in os.environ, reason="L2DASH_REAL_DATA does not name a folder of real data")
def test_a_real_day_is_rebuilt_exactly_and_has_the_published_figures() -> None:
    source = next(Path(os.environ["L2DASH_REAL_DATA"]).rglob("*AMZN*.zip"))
    market = LobsterMarket(source)
    day = market.day
    assert len(day.t_ns) == 155_935
    books = [[], []]  # asks, bids
    parts, out = [], np.zeros(1 << 16, MARKET_EVENT)
    starts = np.flatnonzero(np.diff(day.t_ns, append=DAY_NS) > 0)
    for k in starts:
        market.advance(int(day.t_ns[k]) - 34_200 * S)
        count = market.poll(out)
        events = out[:count]
        parts.append(events.copy())
        for e in events[events["kind"] == MarketEventKind.DEPTH]:
            rows, level = books[e["side"]], int(e["level"])
            if e["op"] == 2:
                del rows[level]
            elif e["op"] == 1:
                rows[level] = [float(e["price"]), float(e["size"])]
            else:
                rows.insert(level, [float(e["price"]), float(e["size"])])
        if k % 7 == 0:
            bids, asks = file_rows(day.book[k])
            assert books == [asks, bids]
    tape = tape_of(np.concatenate(parts), 0)
    r2, lagged = ofi_r2(tape)
    before, between = imbalance_auc(tape)
    assert r2 == pytest.approx(0.525, abs=0.02)
    assert lagged == pytest.approx(0.025, abs=0.01)
    assert before == pytest.approx(0.661, abs=0.02)
    assert between == pytest.approx(0.629, abs=0.02)
