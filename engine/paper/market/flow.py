"""The background flow: one kernel that runs every symbol up to a time, event by event.

Each symbol is a Cont-Stoikov-Talreja order flow whose rates are those of its hidden regime, raised by a decaying
self-excitation (so that the market is not exactly a hidden Markov model) and tilted by the regime's direction and by
a soft pull towards the anchor price.
"""

from __future__ import annotations

import math
from typing import Any

from engine.domain.codes import Regime
from engine.paper.market.book import add_shares, own_shares, put, refresh, uniform, walk
from engine.paper.market.ktypes import F1, F2, F3, I1, I2, I3, LOG, OWN, SYM, Q, boolean, f8, i8, void
from engine.paper.market.layout import (
    C_GAP_T0,
    C_GAP_T1,
    C_INDEX_FROZEN,
    C_INDEX_NUMBER,
    C_INDEX_T,
    C_LOG,
    C_NOW,
    C_OWN,
    C_TAIL,
    C_TRUTH,
    EPS,
    HEAT_TAU_S,
    INDEX_PERIOD_NS,
    NEVER,
    P_HEAT,
    P_LEAN,
    P_LIMIT,
    P_MARKET,
    P_SIZE,
    P_TILT,
    RESTING,
    RUN_ROOM,
    X_BASE,
    X_GAP_FROM,
    X_GAP_TO,
    X_VALUE,
)
from engine.paper.market.orders import reprice
from engine.paper.market.regimes import DWELL_MAX_S, DWELL_MIN_S, LOT, LOT_SHARES
from shm.jit import kernel

_ASK, _BID = 0, 1
_INDEX = 4
_DIRECTIONAL = int(Regime.DIRECTIONAL)
_ONE, _TWO, _THREE = LOT_SHARES
_DWELL_LOG = math.log(DWELL_MAX_S / DWELL_MIN_S)
_BAND = 0.04  # half width of the range around the anchor, share of price
_PULL, _PULL_CUBE = 0.25, 1.0  # of the market orders' tilt: at 1/10 of the band, and at its edge


@kernel(f8(SYM, i8))
def order_size(sym: Any, s: int) -> float:
    """Shares of one background order: 1, 2, 3 or 5 lots."""
    u = uniform(sym, s)
    if u < _ONE:
        return LOT
    if u < _TWO:
        return 2 * LOT
    return 3 * LOT if u < _THREE else 5 * LOT


@kernel(void(SYM, F2, LOG, I1, i8))
def next_regime(sym: Any, jump: Any, truth: Any, ctl: Any, s: int) -> None:
    """End the current regime at its time: draw the next one, its direction and its dwell time."""
    me = sym[s]
    u = uniform(sym, s)
    regime = 0
    while regime < jump.shape[0] - 1 and u >= jump[me["regime"], regime]:
        regime += 1
    me["regime"] = regime
    v = uniform(sym, s)
    off = (0.5 * (me["bid"] + me["ask"]) - me["anchor"]) / (_BAND * me["anchor"])
    # directions lean back towards the anchor, so that runs do not add up
    me["direction"] = (1 if v < 0.5 - 0.5 * min(1.0, max(-1.0, 2.0 * off)) else -1) if regime == _DIRECTIONAL else 0
    dwell_s = DWELL_MIN_S * math.exp(_DWELL_LOG * uniform(sym, s))
    began = me["t_regime"]
    me["t_regime"] = began + int(dwell_s * 1e9)
    if ctl[C_LOG] != 0 and ctl[C_TRUTH] < len(truth):
        row = truth[ctl[C_TRUTH]]
        row["t_ns"] = began
        row["symbol"] = me["number"]
        row["regime"] = regime
        row["direction"] = me["direction"]
        ctl[C_TRUTH] += 1


@kernel(void(SYM, F1, Q, I1))
def print_index(sym: Any, index: Any, q: Any, ctl: Any) -> None:
    """Write the index: equal-weighted moves of the stocks since the start, times the commanded gap."""
    total = 0.0
    for s in range(len(sym)):
        me = sym[s]
        mid = 0.5 * (me["bid"] + me["ask"])
        if me["bid"] == 0 or me["ask"] == 0:
            mid = float(me["last"])
        total += mid / me["start"]
    t = ctl[C_INDEX_T]
    share = 1.0
    if t < ctl[C_GAP_T1]:
        share = max(0.0, (t - ctl[C_GAP_T0]) / (ctl[C_GAP_T1] - ctl[C_GAP_T0]))
    gap = index[X_GAP_FROM] + share * (index[X_GAP_TO] - index[X_GAP_FROM])
    index[X_VALUE] = math.floor(index[X_BASE] * total / len(sym) * gap * 100.0 + 0.5) / 100.0
    if ctl[C_INDEX_FROZEN] == 0:
        put(q, ctl, t, 0, index[X_VALUE], 0.0, ctl[C_INDEX_NUMBER], _INDEX, 0, 0, 0, 0)
    ctl[C_INDEX_T] = t + INDEX_PERIOD_NS


@kernel(void(SYM, F3, OWN, I1, i8, i8, i8))
def cancel_one(sym: Any, grid: Any, own: Any, ctl: Any, s: int, side: int, price: int) -> None:
    """One background order of a level is cancelled; where it stood decides whose queue gets shorter."""
    me = sym[s]
    background = grid[s, side, price]
    if me["own"] > 0:
        background -= own_shares(own, ctl, s, side, price)
    size = order_size(sym, s)
    if background <= EPS:
        return
    size = background if size > background else size
    at = math.floor(uniform(sym, s) * (background - size + 1.0))  # whole shares, so that queues and fills are whole
    if me["own"] > 0:
        sign = 1 if side == _BID else -1
        for k in range(ctl[C_OWN]):
            o = own[k]
            if o["slot"] == s and o["price"] == price and o["side"] == sign and o["state"] == RESTING:
                o["ahead"] -= max(0.0, min(o["ahead"], at + size) - at)
    add_shares(sym, grid, s, side, price, -size)


@kernel(void(SYM, F3, OWN, I3, F3, I2, I1, F1, Q, I1, F2, F2, F2, F2, LOG, i8))
def step(
    sym: Any,
    grid: Any,
    own: Any,
    row_price: Any,
    row_size: Any,
    row_count: Any,
    scratch_price: Any,
    scratch_size: Any,
    q: Any,
    ctl: Any,
    parameters: Any,
    limit: Any,
    cancel: Any,
    jump: Any,
    truth: Any,
    s: int,
) -> None:
    """The next background event of one symbol, and the time of the one after it."""
    me = sym[s]
    t = me["t_event"]
    while t >= me["t_regime"]:
        next_regime(sym, jump, truth, ctl, s)
    if me["offset_bid"] != 0 and t >= me["t_offset"]:
        me["offset_bid"] = 0
        refresh(sym, grid, row_price, row_size, row_count, scratch_price, scratch_size, q, ctl, s, _BID, t)
    if me["shock_done"] != me["shock_ticks"]:
        due = me["shock_ticks"]
        if t < me["shock_t1"]:
            due = int(me["shock_ticks"] * ((t - me["shock_t0"]) / (me["shock_t1"] - me["shock_t0"])))
        move = due - me["shock_done"]
        if move != 0:
            me["shock_done"] = due
            me["anchor"] += move
            reprice(
                sym, grid, own, row_price, row_size, row_count, scratch_price, scratch_size, q, ctl, s, move, move, t
            )
    fade = math.exp((me["t_heat"] - t) / (HEAT_TAU_S * 1e9))
    me["heat"] *= fade
    me["lean"] *= fade
    me["t_heat"] = t

    regime = me["regime"]
    top = grid.shape[2]
    # a side can only be empty right after a client swept it: quotes then come back around the last price
    ask = me["ask"] if me["ask"] > 0 else max(me["last"], me["bid"]) + 1
    bid = me["bid"] if me["bid"] > 0 else min(me["last"], ask - 1)
    off = (0.5 * (bid + ask) - me["anchor"]) / (_BAND * me["anchor"])
    off = min(1.5, max(-1.5, off))
    pull = _PULL * off + _PULL_CUBE * off * off * off
    tilt = parameters[regime, P_TILT] * me["direction"] + me["lean"] - pull
    tilt = min(0.7, max(-0.7, tilt))
    activity = min(3.0, 1.0 + me["heat"])
    room = me["wide_ticks"] - 1 if me["wide_ticks"] > 1 else 0
    market = parameters[regime, P_MARKET] * activity
    quote = parameters[regime, P_LIMIT] * activity
    distances = limit.shape[1]
    cancel_bid = 0.0
    cancel_ask = 0.0
    for i in range(distances):
        p = ask - room - 1 - i
        if p > 0:
            cancel_bid += cancel[regime, i] * grid[s, _BID, p]
        p = bid + room + 1 + i
        if p < top:
            cancel_ask += cancel[regime, i] * grid[s, _ASK, p]
    total = market + 2.0 * quote + cancel_bid + cancel_ask

    u = uniform(sym, s) * total
    side = _BID
    if u < market:
        sign = 1 if u < 0.5 * market * (1.0 + tilt) else -1
        side = _ASK if sign > 0 else _BID
        # the background never sweeps a nearly empty side: a real book's makers stop selling it first
        if row_count[s, side] >= min(3, len(scratch_price)) or me["frozen"] != 0:
            size = math.floor(order_size(sym, s) * parameters[regime, P_SIZE] / LOT + uniform(sym, s)) * LOT
            if size > 0.0:
                walk(sym, grid, own, q, ctl, s, sign, size, 0, -1, t)
            me["heat"] += parameters[regime, P_HEAT] / activity
            me["lean"] += parameters[regime, P_LEAN] * sign
    elif u < market + 2.0 * quote:
        side = _BID if u - market < quote * (1.0 + 0.3 * tilt) else _ASK
        v = uniform(sym, s)
        i = 0
        while i < distances - 1 and v >= limit[regime, i]:
            i += 1
        p = ask - room - 1 - i if side == _BID else bid + room + 1 + i
        size = order_size(sym, s)
        if 0 < p < top:
            add_shares(sym, grid, s, side, p, size)
    else:
        u -= market + 2.0 * quote
        side = _BID if u < cancel_bid else _ASK
        if side == _ASK:
            u -= cancel_bid
        for i in range(distances):
            p = ask - room - 1 - i if side == _BID else bid + room + 1 + i
            if p <= 0 or p >= top:
                break
            u -= cancel[regime, i] * grid[s, side, p]
            if u < 0.0:
                cancel_one(sym, grid, own, ctl, s, side, p)
                break
    refresh(sym, grid, row_price, row_size, row_count, scratch_price, scratch_size, q, ctl, s, side, t)
    gap_s = -math.log(1.0 - uniform(sym, s)) / total
    me["t_event"] = t + 1 + int(gap_s * 1e9)


@kernel(boolean(SYM, F3, OWN, I3, F3, I2, I1, F1, Q, I1, F2, F2, F2, F2, LOG, F1, i8))
def run(
    sym: Any,
    grid: Any,
    own: Any,
    row_price: Any,
    row_size: Any,
    row_count: Any,
    scratch_price: Any,
    scratch_size: Any,
    q: Any,
    ctl: Any,
    parameters: Any,
    limit: Any,
    cancel: Any,
    jump: Any,
    truth: Any,
    index: Any,
    until_ns: int,
) -> bool:
    """Run all symbols, in the order of their events, up to ``until_ns``; False when queue or log are full before."""
    reserve = RUN_ROOM + 8 * len(scratch_price)
    while True:
        first = -1
        t = ctl[C_INDEX_T]
        for s in range(len(sym)):
            if sym[s]["t_event"] < t:
                t = sym[s]["t_event"]
                first = s
        if t > until_ns or t >= NEVER:
            break
        if len(q) - ctl[C_TAIL] < reserve + 4 * ctl[C_OWN]:
            return False
        if ctl[C_LOG] != 0 and len(truth) - ctl[C_TRUTH] < 8:
            return False
        if first < 0:
            print_index(sym, index, q, ctl)
        else:
            step(
                sym,
                grid,
                own,
                row_price,
                row_size,
                row_count,
                scratch_price,
                scratch_size,
                q,
                ctl,
                parameters,
                limit,
                cancel,
                jump,
                truth,
                first,
            )
        ctl[C_NOW] = t
    if until_ns > ctl[C_NOW]:
        ctl[C_NOW] = until_ns
    return True
