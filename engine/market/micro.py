"""Micro-price: where the mid is expected to settle, given the queue imbalance and the spread.

After Stoikov (2018), "The micro-price: a high-frequency estimator of future prices". States are the imbalance in
buckets times the spread in ticks. With Q the probabilities of a step that leaves the mid alone, R those of one that
moves it (by the state after it) and r the mean move of a step, all per state:

    G1 = (1 - Q)^-1 r          expected first move of the mid
    B  = (1 - Q)^-1 R          where the book stands after it
    G* = G1 + B G1 + B^2 G1 + ...

Every step also counts in the mirror, bid for ask, which makes the sum converge and halves the noise. It suits spreads
of a few ticks; beyond, and until enough has been seen, the weighted mid stands. ``observe`` counts, ``adjustment``
solves; neither knows the clock, so a replay comes to the same prices.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.market.ktypes import STATE, f8, i8, void
from engine.market.layout import MICRO_BUCKETS, MICRO_SPREADS, MICRO_STATES
from shm.jit import kernel

Array = npt.NDArray[np.float64]
LEAST_MOVES = 300
"""Moves of the mid seen before the estimate is used."""
MEMORY = 200_000.0
"""Steps after which what was seen is halved, so that the estimate follows the market of the day."""
_LARGEST_MOVE = 2.0
_ROUNDS, _SMALL = 200, 1e-6


@kernel(i8(f8, f8, f8, f8, f8))
def state_of(bid: float, ask: float, bid_size: float, ask_size: float, tick_size: float) -> int:
    """State of a book, or -1 if its spread is none of those that are modelled."""
    spread = round((ask - bid) / tick_size)
    if spread < 1 or spread > MICRO_SPREADS or not bid_size + ask_size > 0.0:
        return -1
    bucket = int(bid_size / (bid_size + ask_size) * MICRO_BUCKETS)
    return (spread - 1) * MICRO_BUCKETS + min(bucket, MICRO_BUCKETS - 1)


@kernel(void(STATE, i8, f8, f8, f8, f8))
def observe(state: Any, s: int, bid: float, ask: float, bid_size: float, ask_size: float) -> None:
    """Count the step from the book seen before to this one."""
    me = state[s]
    now = state_of(bid, ask, bid_size, ask_size, me["tick_size"])
    mid = 0.5 * (bid + ask)
    before = me["micro_at"] - 1
    if before >= 0 and now >= 0:
        move = (mid - me["micro_mid"]) / me["tick_size"]
        if abs(move) < 0.25:
            me["micro_stay"][before, now] += 1.0
        else:
            me["micro_leave"][before, now] += 1.0
            me["micro_drift"][before] += max(-_LARGEST_MOVE, min(_LARGEST_MOVE, move))
    me["micro_at"] = now + 1
    me["micro_mid"] = mid


@kernel(f8(STATE, i8, f8, f8, f8, f8))
def price(state: Any, s: int, bid: float, ask: float, bid_size: float, ask_size: float) -> float:
    """Micro-price of a book, never outside its spread; the weighted mid where the estimate says nothing."""
    me = state[s]
    weighted = (ask * bid_size + bid * ask_size) / (bid_size + ask_size)
    if me["micro_known"] == 0:
        return weighted
    now = state_of(bid, ask, bid_size, ask_size, me["tick_size"])
    if now < 0 or math.isnan(me["micro_adjust"][now]):
        return weighted
    expected: float = 0.5 * (bid + ask) + me["micro_adjust"][now] * me["tick_size"]
    return max(bid, min(ask, expected))


def mirror(at: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """State with bid and ask exchanged."""
    result: npt.NDArray[np.int64] = at // MICRO_BUCKETS * MICRO_BUCKETS + (MICRO_BUCKETS - 1 - at % MICRO_BUCKETS)
    return result


def adjustment(stay: Array, leave: Array, drift: Array) -> Array:
    """G* per state in ticks; NaN where nothing was seen. Counts are ``stay[from, to]``, ``leave[from, to]`` of steps
    with the mid unchanged and moved, ``drift[from]`` the sum of moves in ticks."""
    other = mirror(np.arange(MICRO_STATES))
    stay, leave = stay + stay[np.ix_(other, other)], leave + leave[np.ix_(other, other)]
    drift = drift - drift[other]
    steps = stay.sum(axis=1) + leave.sum(axis=1)
    seen = steps > 0.0
    total = np.where(seen, steps, 1.0)[:, None]
    # A state that was entered and never left would make the system singular: it stays out of the chain.
    settled = np.eye(MICRO_STATES) - stay / total + np.diag(np.where(seen & (leave.sum(axis=1) == 0.0), 1e-9, 0.0))
    solved = np.linalg.solve(settled, np.column_stack([drift / total[:, 0], leave / total]))
    first, after = solved[:, 0], solved[:, 1:]
    result, term = first.copy(), first
    for _ in range(_ROUNDS):
        term = after @ term
        result += term
        if np.abs(term).max() < _SMALL:
            break
    return np.where(seen & np.isfinite(result), result, np.nan)


def refresh(me: Any) -> None:
    """Solve for one symbol (about 0.3 ms) and let the memory fade."""
    moves = float(me["micro_leave"].sum())
    if moves < LEAST_MOVES:
        return
    me["micro_adjust"] = adjustment(me["micro_stay"], me["micro_leave"], me["micro_drift"])
    me["micro_known"] = 1
    if moves + float(me["micro_stay"].sum()) > MEMORY:
        for name in ("micro_stay", "micro_leave", "micro_drift"):
            me[name] *= 0.5
