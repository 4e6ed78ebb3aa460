"""Bar features: what flows, what weighs, what never becomes NaN, and that nothing depends on how ticks were batched."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market_ticks import (
    ASK,
    BAR_NS,
    BID,
    DELETE,
    INSERT,
    MS,
    NOON,
    UPDATE,
    any_ticks,
    feed,
    interpreted,
    market,
    plain_book,
    row,
    tick,
)

from engine.domain.codes import SymbolStatus, TickKind
from engine.market.layout import FEATURES
from engine.market.state import BAR_END, EVERYTHING, NEWS
from shm.layouts import MODEL, SIGNAL_BAR, SIGNAL_VALID

OFI, IMBALANCE, LOG_SPREAD, LOG_RV, LOG_COUNT, LOG_DEPTH = range(len(FEATURES))


def test_order_flow_imbalance_follows_the_published_formula() -> None:
    m = market()
    feed(
        m,
        *plain_book(),  # bid 100.00 x 100, ask 100.01 x 100
        row(1_000, UPDATE, BID, 0, 100.0, 150.0),  # +50
        row(2_000, UPDATE, ASK, 0, 100.01, 120.0),  # -20
        row(3_000, INSERT, BID, 0, 100.005, 40.0),  # a better bid: +40
        row(4_000, DELETE, ASK, 0),  # the ask retreats from 120 shares: +120
        row(5_000, DELETE, BID, 0),  # the bid retreats from 40 shares: -40
    )
    (bars,) = feed(m, tick(10_001, TickKind.TRADE, price=100.0, size=1.0))
    assert bars[0]["ofi"][0] == pytest.approx(50 - 20 + 40 + 120 - 40)


def test_a_row_that_moves_in_one_read_is_one_event() -> None:
    m = market()
    feed(m, *plain_book(), row(1_000, DELETE, BID, 0), row(1_000, INSERT, BID, 0, 100.005, 70.0))
    (bars,) = feed(m, tick(10_001, TickKind.TRADE, price=100.0, size=1.0))
    assert bars[0]["ofi"][0] == pytest.approx(70.0)  # message by message it would be 70 - 100


def test_queue_imbalance_and_spread_are_weighted_by_time() -> None:
    m = market()
    feed(m, *plain_book(), row(4_000, UPDATE, BID, 2, 99.98, 1.0), row(7_500, UPDATE, BID, 0, 100.0, 300.0))
    (bars,) = feed(m, tick(10_001, TickKind.TRADE, price=100.0, size=1.0))
    assert bars[0]["x"][IMBALANCE] == pytest.approx(0.25 * 0.5, abs=1e-9)
    assert bars[0]["x"][LOG_SPREAD] == pytest.approx(math.log(1.0), abs=1e-6)
    assert bars[0]["x"][LOG_COUNT] == pytest.approx(math.log(1 + 8))


def test_realised_variance_is_in_ticks_squared() -> None:
    m = market()
    feed(m, *plain_book(), row(1_000, INSERT, ASK, 0, 100.009, 10.0), row(2_000, DELETE, ASK, 0))
    (bars,) = feed(m, tick(10_001, TickKind.TRADE, price=100.0, size=1.0))
    assert bars[0]["x"][LOG_RV] == pytest.approx(math.log(2 * 0.05**2 + 0.25))


def test_refilling_a_reset_book_is_no_flow() -> None:
    m = market()
    feed(m, *plain_book(), tick(5_000, TickKind.DEPTH_RESET), *plain_book(5_010, bid=101.0, ask=101.01))
    (bars,) = feed(m, tick(10_001, TickKind.TRADE, price=101.0, size=1.0))
    assert bars[0]["ofi"].tolist() == [0.0] * 5
    assert bars[0]["x"][LOG_RV] == pytest.approx(math.log(0.25))


def test_trades_at_the_ask_count_as_bought_and_at_the_bid_as_sold() -> None:
    m = market()
    feed(m, *plain_book())
    feed(m, tick(1, TickKind.TRADE, price=100.01, size=30.0), tick(2, TickKind.TRADE, price=100.0, size=10.0))
    (bars,) = feed(m, tick(10_001, TickKind.TRADE, price=100.0, size=1.0))
    assert bars[0]["trade_flow"] == 20.0
    assert bars[0]["trades"] == 2


def test_a_bar_without_a_usable_book_is_marked() -> None:
    m = market()
    feed(m, tick(1, TickKind.TRADE, price=100.0, size=1.0), *plain_book(6_000, symbol=1))
    (bars,) = feed(m, tick(10_001, TickKind.TRADE, price=100.0, size=1.0))
    assert bars["valid"].tolist() == [0, 0]


def test_a_long_silence_is_a_gap_and_not_a_row_of_empty_bars() -> None:
    m = market()
    feed(m, *plain_book())
    bars = feed(m, tick(1_000_000, TickKind.TRADE, price=100.0, size=1.0))
    assert len(bars) <= 4
    assert m.next_bar_ns == NOON + 1_000_000 * MS + BAR_NS


def test_time_that_goes_backward_is_taken_as_no_time() -> None:
    m = market()
    feed(m, *plain_book(), row(5_000, UPDATE, BID, 0, 100.0, 200.0), row(1_000, UPDATE, BID, 0, 100.0, 300.0))
    (bars,) = feed(m, tick(10_001, TickKind.TRADE, price=100.0, size=1.0))
    assert np.isfinite(bars["x"]).all()
    assert 0 < bars[0]["x"][IMBALANCE] < 0.5


def test_fair_value_reference_needs_half_a_minute_and_then_averages_over_time() -> None:
    m = market(fair_value_min_s=30.0)
    feed(m, *plain_book())
    for second in range(29):
        feed(m, row(second * 1_000 + 1, UPDATE, BID, 2, 99.98, 300.0 + second))
    m.publish(np.zeros(3, MODEL), NOON + 29_000 * MS, EVERYTHING)
    assert math.isnan(m.books[0]["fair_value"])
    for second in range(29, 34):
        feed(m, row(second * 1_000 + 1, UPDATE, BID, 2, 99.98, 300.0 + second))
    m.publish(np.zeros(3, MODEL), NOON + 34_000 * MS, EVERYTHING)
    assert m.books[0]["fair_value"] == pytest.approx(100.005)


def test_fair_value_reference_is_frozen_while_the_feed_is_stale() -> None:
    m = market(fair_value_min_s=5.0)
    feed(m, *plain_book())
    for second in range(1, 20):
        feed(m, row(second * 1_000, UPDATE, BID, 2, 99.98, 300.0 + second))
    feed(
        m,
        row(19_500, DELETE, BID, 0),
        row(600_000, UPDATE, BID, 1, 99.98, 1.0),
        row(600_001, UPDATE, BID, 1, 99.98, 2.0),
    )
    m.publish(np.zeros(3, MODEL), NOON + 600_001 * MS, EVERYTHING)
    # of ten silent minutes only the five seconds before staleness count
    assert m.books[0]["fair_value"] == pytest.approx(
        (19.5 * 100.005 + 5 * (100.01 * 200 + 99.99 * 100) / 300) / 24.5, abs=1e-6
    )


def test_fair_value_reference_starts_anew_after_a_halt() -> None:
    m = market(fair_value_min_s=5.0)
    feed(m, *plain_book())
    for second in range(1, 8):
        feed(m, row(second * 1_000, UPDATE, BID, 2, 99.98, 300.0 + second))
    m.publish(np.zeros(3, MODEL), NOON + 8_000 * MS, EVERYTHING)
    assert m.books[0]["fair_value"] > 0
    feed(m, tick(8_000, TickKind.STATUS, op=SymbolStatus.HALTED), tick(9_000, TickKind.STATUS, op=SymbolStatus.LIVE))
    m.publish(np.zeros(3, MODEL), NOON + 9_001 * MS, EVERYTHING)
    assert math.isnan(m.books[0]["fair_value"])


def test_signals_are_written_for_changes_at_the_top_only_and_for_every_stock_at_a_bar_end() -> None:
    m, models = market(), np.zeros(3, MODEL)
    models["valid"] = 1
    feed(m, *plain_book(), *plain_book(symbol=1))
    changed, signals = m.publish(models, NOON + MS, NEWS)
    assert sorted(changed.tolist()) == [0, 1]
    assert sorted(signals["symbol"].tolist()) == [0, 1]
    feed(m, row(2, UPDATE, BID, 2, 99.98, 5.0))
    changed, signals = m.publish(models, NOON + 20 * MS, NEWS)
    assert (changed.tolist(), len(signals)) == ([0], 0)
    feed(m, row(21, UPDATE, BID, 2, 99.98, 6.0))
    assert len(m.publish(models, NOON + 22 * MS, NEWS)[0]) == 0  # below the top at most every 5 ms
    feed(m, row(23, UPDATE, ASK, 0, 100.01, 900.0))
    _, signals = m.publish(models, NOON + 24 * MS, NEWS)
    assert signals["symbol"].tolist() == [0]
    assert signals["t_socket_ns"].tolist() == [NOON + 23 * MS]
    assert signals["flags"].tolist() == [SIGNAL_VALID]
    assert signals["expected_move_bps"][0] < 0
    _, signals = m.publish(models, NOON + 25 * MS, BAR_END)
    assert signals["flags"].tolist() == [SIGNAL_VALID | SIGNAL_BAR] * 2


@settings(max_examples=40, deadline=None)
@given(any_ticks(garbage=True))
def test_no_tick_however_wrong_breaks_an_invariant_or_makes_a_feature_nan(ticks: np.ndarray) -> None:
    m = market()
    bars = feed(m, ticks)
    bars += [b.copy() for b in m.close_until(int(ticks["t_socket_ns"][-1]) + BAR_NS)]
    m.refresh_medians()
    m.publish(np.zeros(3, MODEL), int(ticks["t_socket_ns"][-1]), EVERYTHING)
    assert m.check() == []
    for b in bars:
        assert np.isfinite(b["x"]).all()
        assert np.isfinite(b["ofi"]).all()


@settings(max_examples=40, deadline=None)
@given(any_ticks(garbage=False), st.lists(st.integers(1, 30), max_size=20), st.booleans())
def test_bars_do_not_depend_on_how_the_ticks_were_batched(ticks: np.ndarray, sizes: list[int], look: bool) -> None:
    whole, parts = market(), market()
    expected, found, start = feed(whole, ticks), [], 0
    for size in [*sizes, len(ticks)]:
        batch = ticks[start : start + size]
        start += size
        if len(batch):
            found += feed(parts, batch)
            if look:  # publishing in between must not change what is computed
                parts.publish(np.zeros(3, MODEL), int(batch["t_socket_ns"][-1]), EVERYTHING)
    assert len(found) == len(expected)
    for a, b in zip(expected, found, strict=True):
        assert a.tobytes() == b.tobytes()


@settings(max_examples=15, deadline=None)
@given(any_ticks(garbage=False))
def test_compiled_and_interpreted_kernels_agree(ticks: np.ndarray) -> None:
    compiled, plain = market(), market()
    end = int(ticks["t_socket_ns"][-1])
    expected = feed(compiled, ticks)
    compiled.publish(np.zeros(3, MODEL), end, EVERYTHING)
    with interpreted():
        found = feed(plain, ticks)
        plain.publish(np.zeros(3, MODEL), end, EVERYTHING)
    for name in compiled.state.dtype.names:
        np.testing.assert_allclose(plain.state[name], compiled.state[name], rtol=1e-12, err_msg=name)
    for name in compiled.books.dtype.names:
        np.testing.assert_allclose(plain.books[name], compiled.books[name], rtol=1e-12, err_msg=name)
    assert len(found) == len(expected)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(a["x"], b["x"], rtol=1e-9, atol=1e-12)
