"""Micro-price against a market whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from engine.domain.instruments import Instrument
from engine.market import micro
from engine.market.layout import MICRO_BUCKETS, SYMBOL
from engine.market.state import Market
from shm.layouts import MODEL, TICK

TICK_SIZE = 0.01
TRUTH = (2.0 * np.arange(MICRO_BUCKETS) - (MICRO_BUCKETS - 1)) / (MICRO_BUCKETS + 1)


def sizes(bucket: int) -> tuple[float, float]:
    """Bid and ask size in the middle of a bucket of imbalance."""
    return 100.0 * (bucket + 0.5), 100.0 * (MICRO_BUCKETS - bucket - 0.5)


def play(steps: int, seed: int = 1) -> np.ndarray:
    """A symbol that has seen a book one tick wide whose imbalance walks one bucket up or down, heads or tails. Beyond
    the last bucket the mid moves by a tick, and the imbalance is drawn afresh, so that nothing is known about the move
    after the next: the micro-price is the mid and the odds of the next move, which are the gambler's (``TRUTH``)."""
    chance = np.random.default_rng(seed)
    state = np.zeros(1, SYMBOL)
    state["tick_size"] = TICK_SIZE
    bucket, at = 5, 10_000
    for up in chance.random(steps) < 0.5:
        micro.observe(state, 0, at * TICK_SIZE, (at + 1) * TICK_SIZE, *sizes(bucket))
        bucket += 1 if up else -1
        if not 0 <= bucket < MICRO_BUCKETS:
            at += 1 if bucket > 0 else -1
            bucket = int(chance.integers(MICRO_BUCKETS))
    return state


def test_the_estimate_finds_the_true_odds_of_the_next_move() -> None:
    state = play(60_000)
    micro.refresh(state[0])
    found = state[0]["micro_adjust"][:MICRO_BUCKETS]
    assert found == pytest.approx(TRUTH, abs=0.04)
    assert found == pytest.approx(-found[::-1], abs=1e-9), "bid and ask are mirrored"
    weighted = (np.arange(MICRO_BUCKETS) + 0.5) / MICRO_BUCKETS - 0.5
    assert np.abs(weighted - TRUTH).max() > 5 * np.abs(found - TRUTH).max(), "what the estimator is for"


def test_a_price_uses_the_estimate_within_the_spread_and_the_weighted_mid_elsewhere() -> None:
    state = play(12_000)
    weighted = (100.01 * 300 + 100.0 * 100) / 400
    assert micro.price(state, 0, 100.0, 100.01, 300.0, 100.0) == pytest.approx(weighted), "nothing is known yet"
    micro.refresh(state[0])
    adjust = state[0]["micro_adjust"][micro.state_of(100.0, 100.01, 300.0, 100.0, TICK_SIZE)]
    found = micro.price(state, 0, 100.0, 100.01, 300.0, 100.0)
    assert found == pytest.approx(100.005 + adjust * TICK_SIZE, rel=1e-12)
    assert micro.price.py_func(state, 0, 100.0, 100.01, 300.0, 100.0) == found
    assert micro.price(state, 0, 100.0, 100.01, 950.0, 50.0) == 100.01, "never outside the spread"
    wide = micro.price(state, 0, 100.0, 100.10, 300.0, 100.0)
    assert wide == pytest.approx((100.10 * 300 + 100.0 * 100) / 400)
    unseen = micro.price(state, 0, 100.0, 100.02, 300.0, 100.0)
    assert unseen == pytest.approx((100.02 * 300 + 100.0 * 100) / 400)


def test_too_few_moves_change_nothing() -> None:
    state = play(300)
    micro.refresh(state[0])
    assert state[0]["micro_known"] == 0


def test_old_steps_fade_and_a_state_that_was_never_left_does_no_harm() -> None:
    state = play(2_000)
    me = state[0]
    me["micro_stay"][25, 25] = 50.0
    for name in ("micro_stay", "micro_leave", "micro_drift"):
        me[name] *= 200.0
    steps = me["micro_stay"].sum() + me["micro_leave"].sum()
    micro.refresh(me)
    assert np.isfinite(me["micro_adjust"][:MICRO_BUCKETS]).all()
    assert me["micro_stay"].sum() + me["micro_leave"].sum() == pytest.approx(steps / 2)


def depth(at: int, bid_size: float, ask_size: float, t_ns: int, op: int) -> np.ndarray:
    ticks = np.zeros(2, TICK)
    ticks["t_socket_ns"], ticks["kind"], ticks["op"], ticks["side"] = t_ns, 1, op, (1, 0)
    ticks["price"], ticks["size"] = (at * TICK_SIZE, (at + 1) * TICK_SIZE), (bid_size, ask_size)
    return ticks


def test_the_books_of_a_feed_are_counted_and_the_published_price_follows() -> None:
    market = Market([Instrument(0, "AAPL", 1, tick_size=TICK_SIZE)], depth_rows=1)
    models = np.zeros(1, MODEL)
    for n in range(4_000):  # the mid goes up and down by a tick, with a full bid before every way up
        up = n % 2 == 0
        ticks = depth(10_000 + n % 2, *sizes(9 if up else 0), (n + 1) * 20_000_000, 0 if n == 0 else 1)
        for _ in market.drain(ticks):
            pass
    market.publish(models, 4_000 * 20_000_000)
    me, book = market.state[0], market.books[0]
    assert me["micro_known"] == 1
    assert me["micro_drift"][0] < 0.0 < me["micro_drift"][9]
    expected = micro.price(market.state, 0, book["bid_price"][0], book["ask_price"][0], *sizes(0))
    assert book["micro_price"] == expected
    assert book["micro_price"] < book["mid"]
