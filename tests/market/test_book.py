"""Order books: the rows a feed describes, and what happens when it describes nonsense."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ib_insync import IB, Stock
from market_ticks import ASK, BID, DELETE, INSERT, MS, NOON, UPDATE, feed, market, plain_book, row, rows_of, tick

from engine.domain.codes import SymbolStatus, TickKind
from engine.domain.instruments import SIM_UNIVERSE
from engine.market.layout import ROWS, Fault
from engine.market.state import EVERYTHING, Market
from engine.model.history import ticks_of
from engine.paper.market.synthetic import SyntheticMarket
from engine.paper.port import MARKET_EVENT
from shm.layouts import MODEL

MODELS = np.zeros(3, MODEL)


@st.composite
def fitting_operations(draw: st.DrawFn) -> list[tuple[int, int, int, float, float]]:
    """Depth operations that fit a book of at most ten rows a side, as a feed sends them."""
    count = [0, 0]
    operations = []
    for _ in range(draw(st.integers(1, 60))):
        side = draw(st.integers(0, 1))
        n = count[side]
        op = draw(st.sampled_from([INSERT] if n == 0 else [DELETE, UPDATE] if n == 10 else [INSERT, UPDATE, DELETE]))
        level = draw(st.integers(0, n if op == INSERT else n - 1))
        count[side] += {INSERT: 1, UPDATE: 0, DELETE: -1}[op]
        operations.append((op, side, level, draw(st.integers(1, 10_000)) / 100.0, float(draw(st.integers(0, 99)))))
    return operations


@settings(max_examples=60, deadline=None)
@given(fitting_operations())
def test_rows_equal_those_of_the_client_library_after_any_fitting_operations(
    operations: list[tuple[int, int, int, float, float]],
) -> None:
    wrapper = IB().wrapper
    ticker = wrapper.startTicker(1, Stock("AAPL", "SMART", "USD"), "mktDepth")
    m = market()
    for op, side, level, price, size in operations:
        wrapper.updateMktDepthL2(1, level, "NSDQ", op, side, price, size, True)
        feed(m, row(1, op, side, level, price, size))
    for side, dom in ((BID, ticker.domBids), (ASK, ticker.domAsks)):
        assert rows_of(m, side) == [(x.price, x.size) for x in dom]
    assert m.faults == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 13), st.integers(1, 999)), max_size=60))
def test_rows_equal_a_plain_list_until_the_first_operation_that_does_not_fit(
    operations: list[tuple[int, int, int]],
) -> None:
    m = market()
    plain: list[tuple[float, float]] = []
    for op, level, cents in operations:
        item = (cents / 100.0, 100.0)
        feed(m, row(1, op, BID, level, *item))
        beyond = level >= 10  # rows nobody subscribed to are none of our business
        if op == INSERT and level <= len(plain):
            plain.insert(level, item)
            del plain[ROWS:]
        elif op == UPDATE and level < len(plain):
            plain[level] = item
        elif op == DELETE and level < len(plain):
            plain.pop(level)
        elif not beyond:
            assert m.state[0]["fault"] == Fault.OUT_OF_RANGE
            assert rows_of(m, BID) == []
            return
        assert rows_of(m, BID) == plain
    assert m.check() == []


@pytest.mark.parametrize("price", [float("nan"), float("inf"), -float("inf"), -1.0, 0.0, 1e12])
@pytest.mark.parametrize("op", [INSERT, UPDATE])
def test_a_price_that_is_no_price_voids_the_book_instead_of_entering_it(price: float, op: int) -> None:
    m = market()
    feed(m, *plain_book(), row(5, op, BID, 0, price, 100.0))
    assert m.state[0]["fault"] == Fault.BAD_VALUE
    m.publish(MODELS, NOON + 6 * MS, EVERYTHING)
    assert m.books[0]["valid"] == 0
    assert m.check() == []


@pytest.mark.parametrize("size", [float("nan"), float("inf"), -1.0])
def test_a_size_that_is_no_size_voids_the_book(size: float) -> None:
    m = market()
    feed(m, *plain_book(), row(5, UPDATE, ASK, 0, 100.01, size))
    assert m.state[0]["fault"] == Fault.BAD_VALUE


def test_a_book_that_was_voided_ignores_depth_until_the_feed_resets_it() -> None:
    m = market()
    feed(m, *plain_book(), row(5, UPDATE, BID, 7, 99.0, 100.0), *plain_book(10))
    assert rows_of(m, BID) == []
    assert m.faults == 1
    feed(m, tick(20, TickKind.DEPTH_RESET), *plain_book(20))
    m.publish(MODELS, NOON + 21 * MS, EVERYTHING)
    assert m.books[0]["valid"] == 1
    assert m.books[0]["resets"] == 1
    assert len(rows_of(m, BID)) == 3


def test_quotes_take_over_while_the_rows_are_void_and_the_book_stays_invalid() -> None:
    m = market()
    feed(
        m,
        *plain_book(),
        tick(1, TickKind.QUOTE_PRICE, level=1, price=99.5, size=300.0),
        tick(1, TickKind.QUOTE_PRICE, level=2, price=99.6, size=100.0),
        row(5, DELETE, BID, 9),
    )
    m.publish(MODELS, NOON + 6 * MS, EVERYTHING)
    book = m.books[0]
    assert book["valid"] == 0
    assert book["mid"] == pytest.approx(99.55)
    assert (book["bid_rows"], book["ask_rows"]) == (1, 1)


def test_a_symbol_without_depth_lives_on_its_quotes() -> None:
    m = market()
    feed(
        m,
        tick(1, TickKind.QUOTE_PRICE, level=1, price=99.5),
        tick(1, TickKind.QUOTE_SIZE, level=0, size=300.0),
        tick(1, TickKind.QUOTE_PRICE, level=2, price=99.6, size=100.0),
    )
    m.publish(MODELS, NOON + 2 * MS, EVERYTHING)
    assert m.books[0]["valid"] == 1
    assert m.books[0]["micro_price"] == pytest.approx((99.6 * 300 + 99.5 * 100) / 400)


def test_a_quote_of_minus_one_takes_that_side_away() -> None:
    m = market()
    feed(
        m,
        tick(1, TickKind.QUOTE_PRICE, level=1, price=99.5, size=1.0),
        tick(1, TickKind.QUOTE_PRICE, level=2, price=99.6, size=1.0),
        tick(2, TickKind.QUOTE_PRICE, level=1, price=-1.0),
    )
    m.publish(MODELS, NOON + 3 * MS, EVERYTHING)
    assert m.books[0]["valid"] == 0
    assert m.books[0]["bid_rows"] == 0


def test_a_book_crossed_for_a_moment_is_valid_and_one_crossed_for_long_is_not() -> None:
    m = market()
    feed(m, *plain_book(), row(100, UPDATE, BID, 0, 100.05, 100.0))
    m.publish(MODELS, NOON + 300 * MS, EVERYTHING)
    assert m.books[0]["valid"] == 1
    assert m.books[0]["crossed_since_ns"] == NOON + 100 * MS
    m.publish(MODELS, NOON + 601 * MS, EVERYTHING)
    assert m.books[0]["valid"] == 0
    feed(m, row(700, UPDATE, BID, 0, 100.0, 100.0))
    m.publish(MODELS, NOON + 701 * MS, EVERYTHING)
    assert m.books[0]["valid"] == 1
    assert m.books[0]["crossed_since_ns"] == 0


def test_rows_out_of_order_for_long_are_a_fault() -> None:
    m = market()
    feed(m, *plain_book(), row(10, UPDATE, BID, 1, 100.5, 100.0), row(400, UPDATE, ASK, 0, 100.01, 90.0))
    assert m.state[0]["fault"] == Fault.NONE
    feed(m, row(600, UPDATE, ASK, 0, 100.01, 80.0), row(601, UPDATE, ASK, 0, 100.01, 70.0))
    assert m.state[0]["fault"] == Fault.UNSORTED


def test_rows_of_several_venues_at_one_price_are_one_level() -> None:
    m = market()
    feed(
        m,
        row(0, INSERT, BID, 0, 100.0, 100.0),
        row(0, INSERT, BID, 1, 100.0, 300.0),
        row(0, INSERT, BID, 2, 99.99, 50.0),
        row(0, INSERT, ASK, 0, 100.01, 10.0),
    )
    m.publish(MODELS, NOON + MS, EVERYTHING)
    book = m.books[0]
    assert book["bid_rows"] == 2
    assert book["bid_price"][:2].tolist() == [100.0, 99.99]
    assert book["bid_size"][:2].tolist() == [400.0, 50.0]


def test_a_row_pushed_out_of_the_subscribed_depth_never_comes_back_as_a_ghost() -> None:
    m = market(depth_rows=3)
    feed(m, *plain_book(rows=3), row(10, INSERT, BID, 0, 100.005, 50.0))
    feed(m, row(20, UPDATE, ASK, 0, 100.01, 60.0), row(30, DELETE, BID, 0))
    assert rows_of(m, BID) == [(100.0, 100.0), (99.99, 200.0)]


def test_an_insert_before_its_delete_in_one_read_keeps_the_last_row() -> None:
    m = market(depth_rows=3)
    feed(
        m,
        *plain_book(rows=3),
        row(10, INSERT, BID, 0, 100.005, 50.0),
        row(10, DELETE, BID, 1),
        row(20, UPDATE, ASK, 0, 100.01, 1),
    )
    assert rows_of(m, BID) == [(100.005, 50.0), (99.99, 200.0), (99.98, 300.0)]


def test_lost_ticks_void_every_book_until_it_is_reset() -> None:
    m = market()
    feed(m, *plain_book(), *plain_book(symbol=1))
    m.invalidate(NOON + 10 * MS)
    m.publish(MODELS, NOON + 10 * MS, EVERYTHING)
    assert m.books["valid"][:2].tolist() == [0, 0]
    feed(m, tick(20, TickKind.DEPTH_RESET), *plain_book(20))
    m.publish(MODELS, NOON + 21 * MS, EVERYTHING)
    assert m.books["valid"][:2].tolist() == [1, 0]


def test_a_silent_book_becomes_stale_and_a_halted_one_does_not() -> None:
    m = market()
    feed(m, *plain_book(), *plain_book(symbol=1), tick(1, TickKind.STATUS, symbol=1, op=SymbolStatus.HALTED))
    m.publish(MODELS, NOON + 4_900 * MS, EVERYTHING)
    assert m.books["valid"][:2].tolist() == [1, 1]
    m.publish(MODELS, NOON + 5_100 * MS, EVERYTHING)
    assert m.books["valid"][:2].tolist() == [0, 1]
    assert m.books[1]["halted"] == 1


def test_the_index_is_a_price_without_a_book() -> None:
    m = market()
    feed(m, tick(1, TickKind.INDEX, symbol=2, price=40_000.5))
    m.publish(MODELS, NOON + 2 * MS, EVERYTHING)
    assert m.books[2]["valid"] == 1
    assert m.books[2]["mid"] == 40_000.5
    m.publish(MODELS, NOON + 15_100 * MS, EVERYTHING)
    assert m.books[2]["valid"] == 0


def test_books_equal_the_paper_market_after_a_minute_of_its_life() -> None:
    source = SyntheticMarket(SIM_UNIVERSE, None, 3, 10, start_ns=1, messages_per_s=1000.0)
    m = Market(SIM_UNIVERSE)
    events = np.zeros(1 << 17, MARKET_EVENT)
    for second in range(60):
        source.advance((second + 1) * 1_000_000_000)
        count = source.poll(events)
        for _ in m.drain(ticks_of(events[:count])):
            pass
    m.publish(np.zeros(8, MODEL), source.now_ns, EVERYTHING)
    assert m.faults == 0
    assert m.check() == []
    for s in range(8):
        bids, asks = source.snapshot(s)
        book = m.books[s]
        assert book["valid"] == 1
        for name, rows in (("bid", bids), ("ask", asks)):
            assert book[f"{name}_rows"] == len(rows)
            assert book[f"{name}_price"][: len(rows)].tolist() == rows[:, 0].tolist()
            assert book[f"{name}_size"][: len(rows)].tolist() == rows[:, 1].tolist()
