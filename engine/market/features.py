"""Features of every bar, streamed: each socket read changes the levels once, and sums are weighted by time.

Order-flow imbalance after Cont, Kukanov, Stoikov (2014), per level after Xu, Gould, Howison. A read that deletes a row
and inserts it elsewhere is one event: counted message by message it would be two flows that never happened. So news of
a read is held until a later time is seen, which also makes the result independent of how ticks were batched.
"""

from __future__ import annotations

import math
from typing import Any

from engine.market.book import apply_row, clear_rows, drop_surplus, examine, set_fault
from engine.market.ktypes import BARS, I1, STATE, TICKS, f8, i8, void
from engine.market.layout import (
    C_BAD,
    C_FAULTS,
    C_NEXT_BAR,
    CROSSED_NS,
    FAIR_BUCKETS,
    GAP_RING,
    OFI_LEVELS,
    SETTLE_NS,
    SPREAD_RING,
    SPREAD_SAMPLE_NS,
    Fault,
)
from engine.market.micro import observe
from engine.market.micro import price as micro_price
from shm.jit import kernel

_ASK, _BID = 0, 1
_DEPTH, _RESET, _QUOTE_PRICE, _QUOTE_SIZE, _TRADE, _INDEX, _STATUS = 1, 2, 3, 4, 5, 6, 7
_LIVE, _HALTED, _STALE, _UNSUBSCRIBED, _OPEN, _CLOSED = 1, 2, 3, 4, 5, 6
_UNSORTED = int(Fault.UNSORTED)
_BIGGEST = 1e9


@kernel(void(STATE, i8))
def reseed_fair(state: Any, s: int) -> None:
    """Forget the slow fair-value reference: at the open and after a halt the old one is no reference."""
    me = state[s]
    for k in range(FAIR_BUCKETS):
        me["fair_sum"][k] = 0.0
        me["fair_ns"][k] = 0.0


@kernel(void(STATE, i8, i8))
def integrate(state: Any, s: int, t: int) -> None:
    """Weigh the levels that held since the last call with the time they held; silence counts up to staleness."""
    me = state[s]
    if t <= me["clock_ns"]:
        return
    dt = float(min(t, me["fresh_ns"]) - me["clock_ns"])
    me["clock_ns"] = t
    if dt <= 0.0 or me["usable"] == 0 or me["halted"] == 1:
        return
    depth = 0.0
    for side in range(2):
        for k in range(min(OFI_LEVELS, me["level_n"][side])):
            depth += me["level_size"][side, k]
    me["active_ns"] += dt
    me["sum_imbalance"] += me["imbalance"] * dt
    me["sum_spread"] += me["spread"] * dt
    me["sum_depth"] += depth * dt
    me["sum_top"] += 0.5 * (me["level_size"][_ASK, 0] + me["level_size"][_BID, 0]) * dt
    i = me["fair_i"]
    if me["fair_ns"][i] >= me["fair_bucket_ns"]:
        i = (i + 1) % FAIR_BUCKETS
        me["fair_i"] = i
        me["fair_sum"][i] = 0.0
        me["fair_ns"][i] = 0.0
    me["fair_sum"][i] += me["fair"] * dt
    me["fair_ns"][i] += dt
    if t >= me["spread_due_ns"]:
        me["spread_bps"][me["spread_i"] % SPREAD_RING] = me["spread"] / me["mid"] * 1e4
        me["spread_i"] += 1
        me["spread_due_ns"] = t + SPREAD_SAMPLE_NS


@kernel(f8(STATE, i8))
def fair_reference(state: Any, s: int) -> float:
    """Time-weighted mean of the fair value over the last minutes of fresh data; NaN while there is too little."""
    me = state[s]
    total = 0.0
    weight = 0.0
    for k in range(FAIR_BUCKETS):
        total += me["fair_sum"][k]
        weight += me["fair_ns"][k]
    return total / weight if weight >= me["fair_min_ns"] else math.nan


@kernel(void(STATE, i8))
def flow(state: Any, s: int) -> None:
    """Add the order-flow imbalance between the held and the next levels, level by level."""
    me = state[s]
    for k in range(OFI_LEVELS):
        e = 0.0
        has, had = me["next_n"][_BID] > k, me["level_n"][_BID] > k
        new, old = me["next_price"][_BID, k], me["level_price"][_BID, k]
        if has and (not had or new >= old):
            e += me["next_size"][_BID, k]
        if had and (not has or new <= old):
            e -= me["level_size"][_BID, k]
        has, had = me["next_n"][_ASK] > k, me["level_n"][_ASK] > k
        new, old = me["next_price"][_ASK, k], me["level_price"][_ASK, k]
        if has and (not had or new <= old):
            e -= me["next_size"][_ASK, k]
        if had and (not has or new >= old):
            e += me["level_size"][_ASK, k]
        me["ofi"][k] += e


@kernel(i8(STATE, i8))
def commit(state: Any, s: int) -> int:
    """Take over the news of the last read as of its own time. Returns 1 if that revealed a fault."""
    me = state[s]
    t = me["last_ns"]
    integrate(state, s, t)
    me["fresh_ns"] = t + int(me["stale_ns"])
    if me["pending"] == 0:
        return 0
    me["pending"] = 0
    drop_surplus(state, s)
    usable = examine(state, s, t)
    if me["unsorted_ns"] != 0 and t - me["unsorted_ns"] > CROSSED_NS:
        set_fault(state, s, _UNSORTED, t)
        examine(state, s, t)
        me["usable"] = 0
        return 1
    was = me["usable"]
    if usable == 1:
        bid, ask = me["next_price"][_BID, 0], me["next_price"][_ASK, 0]
        bid_size, ask_size = me["next_size"][_BID, 0], me["next_size"][_ASK, 0]
        mid = 0.5 * (bid + ask)
        if was == 1 and t >= me["settled_ns"]:
            flow(state, s)
            move = (mid - me["mid"]) / me["tick_size"]
            me["rv"] += move * move
        me["mid"] = mid
        me["spread"] = ask - bid
        me["imbalance"] = (bid_size - ask_size) / (bid_size + ask_size)
        if was == 1 and t >= me["settled_ns"]:
            observe(state, s, bid, ask, bid_size, ask_size)
        else:
            me["micro_at"] = 0
        me["fair"] = micro_price(state, s, bid, ask, bid_size, ask_size)
        if me["mid_open"] == 0.0:
            me["mid_open"] = mid
    me["usable"] = usable
    for side in range(2):
        n = me["next_n"][side]
        me["level_n"][side] = n
        for k in range(n):
            me["level_price"][side, k] = me["next_price"][side, k]
            me["level_size"][side, k] = me["next_size"][side, k]
    return 0


@kernel(void(STATE, TICKS, i8, i8))
def quote(state: Any, ticks: Any, i: int, s: int) -> None:
    """A quote tick: best bid or ask outside the depth feed, or the last trade. A price of -1 or 0 means none."""
    me = state[s]
    tick = ticks[i]
    kind = tick["kind"]
    what = tick["level"]
    price = tick["price"]
    size = tick["size"]
    sized = 0.0 <= size < _BIGGEST
    if kind == _QUOTE_PRICE:
        if what == 1 or what == 2:
            side = _BID if what == 1 else _ASK
            good = 0.0 < price < _BIGGEST
            me["quote_price"][side] = price if good else 0.0
            if sized and size > 0.0:
                me["quote_size"][side] = size
            me["pending"] = 1
        elif what == 4 and 0.0 < price < _BIGGEST:
            me["last_price"] = price
    elif sized:
        if what == 0 or what == 3:
            me["quote_size"][_BID if what == 0 else _ASK] = size
            me["pending"] = 1
        elif what == 5:
            me["last_size"] = size


@kernel(void(STATE, i8, i8, i8))
def status(state: Any, s: int, what: int, t: int) -> None:
    """A change of the feed's or the session's state."""
    me = state[s]
    if what == _LIVE:
        if me["halted"] == 1:
            reseed_fair(state, s)
        me["halted"] = 0
        me["stale"] = 0
    elif what == _HALTED:
        me["halted"] = 1
    elif what == _STALE:
        me["stale"] = 1
    elif what == _UNSUBSCRIBED:
        me["deep"] = 0
        me["fault"] = 0
        me["quote_price"][_ASK] = 0.0
        me["quote_price"][_BID] = 0.0
        clear_rows(state, s, t)
        me["pending"] = 1
    elif what == _OPEN:
        if me["session_open"] == 0:
            reseed_fair(state, s)
        me["session_open"] = 1
    elif what == _CLOSED:
        me["session_open"] = 0


@kernel(i8(TICKS, i8, i8, STATE, I1))
def drain(ticks: Any, start: int, count: int, state: Any, ctl: Any) -> int:
    """Apply ticks ``start`` to ``count``; stops before the first one that lies beyond the open bar.

    Returns the index of the first tick not applied. Unknown symbols and kinds are counted in ``ctl[C_BAD]``.
    """
    i = start
    while i < count:
        tick = ticks[i]
        t = tick["t_socket_ns"]
        if t >= ctl[C_NEXT_BAR]:
            return i
        s = int(tick["symbol"])
        kind = tick["kind"]
        i += 1
        if s >= len(state) or kind < _DEPTH or kind > _STATUS:
            ctl[C_BAD] += 1
            continue
        me = state[s]
        if t < me["last_ns"]:
            t = me["last_ns"]
        if me["last_ns"] == 0:
            me["clock_ns"] = t
            me["settled_ns"] = t + SETTLE_NS
        elif t > me["last_ns"]:
            ctl[C_FAULTS] += commit(state, s)
            me["gap_ns"][me["gap_i"] % GAP_RING] = float(t - me["last_ns"])
            me["gap_i"] += 1
        me["last_ns"] = t
        me["updates"] += 1
        me["dirty"] = 1
        if kind == _DEPTH:
            if me["fault"] != 0:
                continue
            me["deep"] = 1
            me["stale"] = 0
            me["count"] += 1
            fault = apply_row(
                state, s, int(tick["side"]), int(tick["op"]), int(tick["level"]), tick["price"], tick["size"]
            )
            me["pending"] = 1
            if fault != 0:
                set_fault(state, s, fault, t)
                ctl[C_FAULTS] += 1
        elif kind == _RESET:
            me["resets"] += 1
            me["fault"] = 0
            me["deep"] = 1
            me["pending"] = 1
            clear_rows(state, s, t)
        elif kind in (_QUOTE_PRICE, _QUOTE_SIZE):
            quote(state, ticks, i - 1, s)
            # a feed with depth repeats its best rows as quotes: counting both would double the activity
            me["count"] += 1 if me["deep"] == 0 else 0
        elif kind == _TRADE:
            price = tick["price"]
            size = tick["size"]
            if 0.0 < price < _BIGGEST and 0.0 < size < _BIGGEST:
                me["last_price"] = price
                me["last_size"] = size
                me["traded_qty"] += size
                me["trades"] += 1
                if me["usable"] == 1:
                    if price >= me["level_price"][_ASK, 0]:
                        me["trade_flow"] += size
                    elif price <= me["level_price"][_BID, 0]:
                        me["trade_flow"] -= size
        elif kind == _INDEX:
            if 0.0 < tick["price"] < _BIGGEST:
                me["last_price"] = tick["price"]
                me["stale"] = 0
        else:
            status(state, s, int(tick["op"]), t)
    return i


@kernel(i8(STATE, i8, f8, BARS))
def close_bars(state: Any, t_end: int, bar_ns: float, bars: Any) -> int:
    """Close the open bar of every stock at ``t_end`` into ``bars``; returns the number of bars (one per stock)."""
    n = 0
    for s in range(len(state)):
        me = state[s]
        if me["index"] == 1:
            continue
        if me["last_ns"] > 0:
            commit(state, s)
            integrate(state, s, t_end)
        bar = bars[n]
        n += 1
        bar["t_end_ns"] = t_end
        bar["symbol"] = s
        bar["count"] = me["count"]
        bar["trades"] = me["trades"]
        bar["trade_flow"] = me["trade_flow"]
        bar["mid_open"] = me["mid_open"]
        bar["mid_close"] = me["mid"]
        active = me["active_ns"]
        bar["valid"] = 1 if active >= 0.5 * bar_ns and me["mid"] > 0.0 else 0
        weight = active if active > 0.0 else 1.0
        top = max(me["sum_top"] / weight, 1.0)
        bar["x"][0] = me["ofi"][0] / top
        bar["x"][1] = me["sum_imbalance"] / weight
        bar["x"][2] = math.log(max(me["sum_spread"] / weight / me["tick_size"], 0.01))
        # one half-tick move squared is the least that a bar can show: it keeps quiet bars from being an atom at -inf
        bar["x"][3] = math.log(me["rv"] + 0.25)
        bar["x"][4] = math.log(1.0 + me["count"])
        bar["x"][5] = math.log(max(me["sum_depth"] / weight, 1.0))
        for k in range(OFI_LEVELS):
            bar["ofi"][k] = me["ofi"][k]
            me["ofi"][k] = 0.0
        me["active_ns"] = 0.0
        me["sum_imbalance"] = 0.0
        me["sum_spread"] = 0.0
        me["sum_depth"] = 0.0
        me["sum_top"] = 0.0
        me["rv"] = 0.0
        me["trade_flow"] = 0.0
        me["count"] = 0
        me["trades"] = 0
        me["mid_open"] = me["mid"] if me["usable"] == 1 else 0.0
    return n
