"""Client orders in the synthetic market: price-time priority, exact queue positions, halts, replacement."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market_reader import Reader, check_market

from engine.domain.instruments import SIM_UNIVERSE
from engine.paper.market.book import add_shares, own_shares, take, uniform
from engine.paper.market.flow import cancel_one, order_size
from engine.paper.market.layout import C_OWN, CONTROL_WORDS, OWN_ORDER, SYMBOL_STATE
from engine.paper.market.synthetic import SyntheticMarket
from engine.paper.port import MARKET_EVENT, MarketEventKind

S = 1_000_000_000
MARKET = float("nan")


def halted_book(seed: int = 1) -> tuple[SyntheticMarket, Reader]:
    """A market with a settled book in which nothing but the client happens (its background is far away in time)."""
    market = SyntheticMarket(SIM_UNIVERSE[:1], seed=seed)
    market.advance(20 * S)
    market._memory.symbols["t_event"] = 1 << 60
    reader = Reader(10)
    reader.drain(market)
    reader.fills.clear()
    reader.trades.clear()
    return market, reader


def test_a_market_order_walks_the_levels_best_first_and_depletes_them() -> None:
    market, reader = halted_book()
    _, asks = market.snapshot(0)
    qty = asks[0, 1] + asks[1, 1] + 50
    market.submit(7, 0, 1, qty, MARKET, False, 20 * S)
    reader.drain(market)
    assert [(f[1], f[2]) for f in reader.fills] == [
        (asks[0, 0], asks[0, 1]),
        (asks[1, 0], asks[1, 1]),
        (asks[2, 0], 50),
    ]
    assert all(f[0] == 7 and f[3] == 1 and f[4] == 0 for f in reader.fills)
    assert [t[1:] for t in reader.trades] == [(f[1], f[2], 1) for f in reader.fills]
    after = market.snapshot(0)[1]
    assert after[0].tolist() == [asks[2, 0], asks[2, 1] - 50]
    reader.assert_equals_snapshot(market, 0)


def test_a_limit_order_trades_up_to_its_limit_and_rests_the_remainder() -> None:
    market, reader = halted_book()
    bids, asks = market.snapshot(0)
    market.submit(7, 0, 1, asks[0, 1] + 120, asks[0, 0], False, 20 * S)
    reader.drain(market)
    assert sum(f[2] for f in reader.fills) == asks[0, 1]
    assert market.snapshot(0)[0][0].tolist() == [asks[0, 0], 120]
    assert market.snapshot(0)[0][1].tolist() == bids[0].tolist()
    check_market(market)


def test_an_ioc_remainder_ends_and_leaves_no_trace_in_the_book() -> None:
    market, reader = halted_book()
    bids, asks = market.snapshot(0)
    market.submit(7, 0, -1, bids[0, 1] + 30, bids[0, 0], True, 20 * S)
    reader.drain(market)
    assert reader.done == [(7, 30, 2)]
    assert market.snapshot(0)[1].tolist() == asks.tolist()
    assert not market.cancel(7, 20 * S)


def test_a_resting_order_fills_only_after_the_size_ahead_of_it() -> None:
    market, reader = halted_book()
    bids, _ = market.snapshot(0)
    best, ahead = bids[0]
    market.submit(1, 0, 1, 100, best, False, 20 * S)
    market.submit(2, 0, -1, ahead, best, True, 20 * S)
    reader.drain(market)
    assert [f for f in reader.fills if f[0] == 1] == []
    market.submit(3, 0, -1, 40, best, True, 20 * S)
    market.submit(4, 0, -1, 60, best, True, 20 * S)
    reader.drain(market)
    assert [f for f in reader.fills if f[0] == 1] == [(1, best, 40, 1, 1), (1, best, 60, 1, 1)]
    assert not market.cancel(1, 20 * S)
    check_market(market)


def test_of_two_client_orders_the_earlier_fills_first() -> None:
    market, reader = halted_book()
    _, asks = market.snapshot(0)
    inside = round(asks[0, 0] - 0.01, 2) if market.snapshot(0)[0][0, 0] < asks[0, 0] - 0.015 else asks[0, 0]
    market.submit(1, 0, -1, 100, inside, False, 20 * S)
    market.submit(2, 0, -1, 100, inside, False, 20 * S)
    queue = sum(r[1] for r in market.snapshot(0)[1] if r[0] == inside)
    market.submit(3, 0, 1, queue - 50, inside, True, 20 * S)
    reader.drain(market)
    filled = {key: sum(f[2] for f in reader.fills if f[0] == key) for key in (1, 2)}
    assert filled == {1: 100, 2: 50}


def test_cancel_reports_what_remained_and_only_once() -> None:
    market, reader = halted_book()
    bids, _ = market.snapshot(0)
    market.submit(1, 0, 1, 250, bids[2, 0], False, 20 * S)
    assert market.cancel(1, 20 * S)
    assert not market.cancel(1, 20 * S)
    reader.drain(market)
    assert reader.done == [(1, 250, 1)]
    assert market.snapshot(0)[0].tolist() == bids.tolist()


def test_replace_keeps_priority_only_for_a_decrease_at_the_same_price() -> None:
    market, _ = halted_book()
    bids, _asks = market.snapshot(0)
    price = bids[1, 0]
    market.submit(1, 0, 1, 300, price, False, 20 * S)
    market.submit(2, 0, 1, 100, price, False, 20 * S)

    def order() -> list[int]:
        m = market._memory
        return m.own["key"][: m.control[C_OWN]].tolist()

    assert market.replace(1, 200, price, 20 * S)
    assert order() == [1, 2]
    assert market.snapshot(0)[0][1, 1] == bids[1, 1] + 300
    assert market.replace(1, 400, price, 20 * S)
    assert order() == [2, 1]
    assert market.replace(2, 100, bids[0, 0], 20 * S)
    assert order() == [1, 2]
    assert not market.replace(99, 1, price, 20 * S)
    check_market(market)


def test_replace_to_a_crossing_price_trades_and_to_nothing_ends_the_order() -> None:
    market, reader = halted_book()
    bids, asks = market.snapshot(0)
    market.submit(1, 0, 1, 50, bids[0, 0], False, 20 * S)
    assert market.replace(1, 50, asks[0, 0], 20 * S)
    reader.drain(market)
    assert [(f[0], f[1], f[2]) for f in reader.fills] == [(1, asks[0, 0], 50)]
    market.submit(2, 0, 1, 50, bids[0, 0], False, 20 * S)
    assert market.replace(2, 0, bids[0, 0], 20 * S)
    reader.drain(market)
    assert reader.done == [(2, 0, 1)]


def test_limits_round_to_the_passive_side_and_far_prices_rest_unseen() -> None:
    market, _ = halted_book()
    bids, asks = market.snapshot(0)
    market.submit(1, 0, 1, 10, bids[0, 0] + 0.004, False, 20 * S)
    assert market.snapshot(0)[0][0].tolist() == [bids[0, 0], bids[0, 1] + 10]
    market.submit(2, 0, -1, 10, asks[0, 0] - 0.004, False, 20 * S)
    assert market.snapshot(0)[1][0].tolist() == [asks[0, 0], asks[0, 1] + 10]
    market.submit(3, 0, -1, 10, 1e9, False, 20 * S)
    market.submit(4, 0, 1, 10, 0.001, False, 20 * S)
    check_market(market)
    assert market.cancel(3, 20 * S)
    assert market.cancel(4, 20 * S)


def test_a_market_order_larger_than_the_book_rests_and_fills_as_liquidity_returns() -> None:
    market = SyntheticMarket(SIM_UNIVERSE[:1], seed=2)
    reader = Reader(10)
    market.advance(5 * S)
    everything = float(market._memory.grid[0, 0].sum())
    market.submit(1, 0, 1, everything + 500, MARKET, False, 5 * S)
    for k in range(6, 60):
        market.advance(k * S)
        reader.drain(market)
        check_market(market)
    assert sum(f[2] for f in reader.fills) == everything + 500
    reader.assert_equals_snapshot(market, 0)


def test_fractional_quantities_leave_no_dust() -> None:
    market, reader = halted_book()
    bids, _ = market.snapshot(0)
    market.submit(1, 0, 1, 0.3, bids[0, 0], False, 20 * S)
    market.submit(2, 0, 1, 0.1, bids[0, 0], False, 20 * S)
    market.submit(3, 0, -1, bids[0, 1] + 0.4, bids[0, 0], True, 20 * S)
    reader.drain(market)
    assert market.snapshot(0)[0][0, 0] == bids[1, 0]
    assert sum(f[2] for f in reader.fills if f[0] in (1, 2)) == pytest.approx(0.4)
    check_market(market)


@pytest.mark.parametrize(
    ("order", "named"),
    [
        ((-1, 0, 1, 10.0), "order_key = -1"),
        ((1, 5, 1, 10.0), "symbol = 5"),
        ((1, 0, 0, 10.0), "side = 0"),
        ((1, 0, 1, 0.0), "qty = 0.0"),
        ((1, 0, 1, float("nan")), "qty = nan"),
    ],
)
def test_impossible_orders_are_named(order: tuple[int, int, int, float], named: str) -> None:
    market, _ = halted_book()
    with pytest.raises(ValueError, match=named):
        market.submit(*order, 100.0, False, 20 * S)


def test_a_repeated_order_key_is_refused() -> None:
    market, _ = halted_book()
    market.submit(1, 0, 1, 10, 100.0, False, 20 * S)
    with pytest.raises(ValueError, match="order_key = 1"):
        market.submit(1, 0, 1, 10, 100.0, False, 20 * S)


def test_shares_are_conserved_for_hundreds_of_client_orders_in_a_running_market() -> None:
    rng = np.random.default_rng(4)
    market = SyntheticMarket(SIM_UNIVERSE[:2], seed=4, messages_per_s=2_000)
    reader = Reader(10)
    sent: dict[int, float] = {}
    cancelled_by_replace: dict[int, float] = {}
    for key in range(1, 401):
        now = key * S // 20
        market.advance(now)
        symbol, side = int(rng.integers(2)), int(rng.choice([-1, 1]))
        bids, asks = market.snapshot(symbol)
        mid = (bids[0, 0] + asks[0, 0]) / 2
        limit = MARKET if rng.random() < 0.2 else mid + 0.01 * rng.integers(-8, 9)
        qty = float(rng.integers(1, 900))
        market.submit(key, symbol, side, qty, limit, bool(rng.random() < 0.2), now)
        sent[key] = qty
        if rng.random() < 0.3:
            market.cancel(int(rng.integers(1, key + 1)), now)
        if rng.random() < 0.3:
            other = int(rng.integers(1, key + 1))
            qty = float(rng.integers(1, 900))
            if market.replace(other, qty, mid, now):
                cancelled_by_replace[other] = qty
                sent[other] = qty
        if key % 20 == 0:
            reader.drain(market)
            check_market(market)
            reader.assert_equals_snapshot(market, symbol)
    for key in sent:
        market.cancel(key, market.now_ns)
    reader.drain(market)
    ended = {key: size for key, size, _ in reader.done}
    for key, qty in sent.items():
        filled = sum(f[2] for f in reader.fills if f[0] == key)
        if key in cancelled_by_replace:
            assert filled + ended.get(key, 0.0) == pytest.approx(max(qty, filled))
        else:
            assert filled + ended.get(key, 0.0) == pytest.approx(qty)
    assert market._memory.control[C_OWN] == 0


class ShareQueue:
    """Reference: every share of one level by its owner (0 is the background), first in first out."""

    def __init__(self) -> None:
        self.shares: list[int] = []

    def ahead_of(self, key: int) -> int:
        at = self.shares.index(key)
        return self.shares[:at].count(0)

    def cancel_background(self, at: int, size: int) -> None:
        places = [i for i, key in enumerate(self.shares) if key == 0][at : at + size]
        for i in reversed(places):
            del self.shares[i]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["background", "client", "trade", "cancel"]), st.integers(1, 9)),
        min_size=1,
        max_size=25,
    ),
    st.integers(1, 2**60),
)
def test_queue_positions_equal_those_of_a_share_by_share_queue(moves: list[tuple[str, int]], seed: int) -> None:
    sym = np.zeros(1, SYMBOL_STATE)
    sym["rng"], sym["tick_num"], sym["tick_den"] = seed, 1, 100
    grid = np.zeros((1, 2, 50))
    own, q, ctl = np.zeros(64, OWN_ORDER), np.zeros(4096, MARKET_EVENT), np.zeros(CONTROL_WORDS, np.int64)
    model = ShareQueue()
    filled: dict[int, int] = {}
    key = 0
    for what, size in moves:
        size *= 50  # half lots, so that background cancels (whole lots) hit parts of orders
        if what == "background":
            add_shares(sym, grid, 0, 1, 20, float(size))
            model.shares += [0] * size
        elif what == "client":
            key += 1
            o = own[ctl[C_OWN] : ctl[C_OWN] + 1]
            o["key"], o["side"], o["price"], o["qty"], o["left"] = key, 1, 20, size, size
            o["ahead"] = grid[0, 1, 20] - own_shares(own, ctl, 0, 1, 20)
            ctl[C_OWN] += 1
            sym["own"] += 1
            add_shares(sym, grid, 0, 1, 20, float(size))
            model.shares += [key] * size
        elif what == "trade":
            if grid[0, 1, 20] > 0:
                traded = take(sym, grid, own, q, ctl, 0, 1, 20, float(size), 1)
                assert traded == min(size, len(model.shares))
                for k in model.shares[:size]:
                    filled[k] = filled.get(k, 0) + 1
                del model.shares[:size]
        else:
            foresight = sym.copy()
            background = model.shares.count(0)
            wanted = min(order_size(foresight, 0), background)
            at = math.floor(uniform(foresight, 0) * (background - wanted + 1.0))
            cancel_one(sym, grid, own, ctl, 0, 1, 20)
            model.cancel_background(at, int(wanted))
        assert grid[0, 1, 20] == len(model.shares)
        for o in own[: ctl[C_OWN]]:
            assert o["ahead"] == model.ahead_of(int(o["key"]))
            assert o["left"] == model.shares.count(int(o["key"]))
    fills = q[(q["kind"] == MarketEventKind.OWN_FILL)]
    for k in range(1, key + 1):
        assert fills["size"][fills["order_key"] == k].sum() == filled.get(k, 0)
