"""Order book kernels: random numbers, event writing, row diffs, matching with price-time priority.

``grid[slot, side, price]`` holds the shares at every price, background and client orders together. Client orders also
stand in a pool with the background size ahead of them, so that their queue position is exact while the background
stays an aggregate.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.paper.market.ktypes import F1, F3, I1, I2, I3, OWN, SYM, Q, f8, i8, void
from engine.paper.market.layout import C_LOST, C_OWN, C_TAIL, EPS, MAX_WALK_LEVELS, RESTING
from shm.jit import kernel

_DEPTH, _TRADE, _QUOTE, _OWN_FILL = 1, 2, 3, 5
_INSERT, _UPDATE, _DELETE = 0, 1, 2
_ASK, _BID = 0, 1

_R12, _R25, _R27, _R11 = np.uint64(12), np.uint64(25), np.uint64(27), np.uint64(11)
_MULTIPLIER = np.uint64(0x2545F4914F6CDD1D)


@kernel(f8(SYM, i8))
def uniform(sym: Any, s: int) -> float:
    """Next number in [0, 1) of one symbol's own generator (xorshift64*)."""
    x = sym[s]["rng"]
    x ^= x >> _R12
    x ^= x << _R25
    x ^= x >> _R27
    sym[s]["rng"] = x
    return float((x * _MULTIPLIER) >> _R11) * (1.0 / 9007199254740992.0)


@kernel(void(Q, I1, i8, i8, f8, f8, i8, i8, i8, i8, i8, i8))
def put(
    q: Any,
    ctl: Any,
    t: int,
    key: int,
    price: float,
    size: float,
    number: int,
    kind: int,
    side: int,
    op: int,
    level: int,
    flag: int,
) -> None:
    """Append one event to the queue; counts it as lost when there is no room (the shell treats that as a bug)."""
    i = ctl[C_TAIL]
    if i >= len(q):
        ctl[C_LOST] += 1
        return
    e = q[i]
    e["t_ns"] = t
    e["order_key"] = key
    e["price"] = price
    e["size"] = size
    e["symbol"] = number
    e["kind"] = kind
    e["side"] = side
    e["op"] = op
    e["level"] = level
    e["flag"] = flag
    e["pad"] = 0
    ctl[C_TAIL] = i + 1


@kernel(i8(I1, F1, i8, I1, F1, i8, Q, I1, i8, i8, i8, f8, f8))
def diff_rows(
    old_price: Any,
    old_size: Any,
    n_old: int,
    new_price: Any,
    new_size: Any,
    n_new: int,
    q: Any,
    ctl: Any,
    t: int,
    number: int,
    side: int,
    num: float,
    den: float,
) -> int:
    """Write the row operations that turn the old rows into the new ones, store the new rows, return their number.

    Deletes go bottom up and before the inserts, so a reader never holds more rows than the source displays. A change
    of the first row is also written as a QUOTE (price and size 0 when the side is empty).
    """
    sign = -1 if side == _BID else 1
    j = n_new - 1
    for i in range(n_old - 1, -1, -1):
        while j >= 0 and sign * new_price[j] > sign * old_price[i]:
            j -= 1
        if j < 0 or new_price[j] != old_price[i]:
            put(q, ctl, t, 0, old_price[i] * num / den, 0.0, number, _DEPTH, side, _DELETE, i, 0)
    quote = (n_old == 0) != (n_new == 0)
    if n_old > 0 and n_new > 0:
        quote = old_price[0] != new_price[0] or old_size[0] != new_size[0]
    i = 0
    for j in range(n_new):
        while i < n_old and sign * old_price[i] < sign * new_price[j]:
            i += 1
        if i < n_old and old_price[i] == new_price[j]:
            if old_size[i] != new_size[j]:
                put(q, ctl, t, 0, new_price[j] * num / den, new_size[j], number, _DEPTH, side, _UPDATE, j, 0)
            i += 1
        else:
            put(q, ctl, t, 0, new_price[j] * num / den, new_size[j], number, _DEPTH, side, _INSERT, j, 0)
    for j in range(n_new):
        old_price[j] = new_price[j]
        old_size[j] = new_size[j]
    if quote:
        price = new_price[0] * num / den if n_new > 0 else 0.0
        size = new_size[0] if n_new > 0 else 0.0
        put(q, ctl, t, 0, price, size, number, _QUOTE, side, 0, 0, 0)
    return n_new


@kernel(void(SYM, F3, I3, F3, I2, I1, F1, Q, I1, i8, i8, i8))
def refresh(
    sym: Any,
    grid: Any,
    row_price: Any,
    row_size: Any,
    row_count: Any,
    scratch_price: Any,
    scratch_size: Any,
    q: Any,
    ctl: Any,
    s: int,
    side: int,
    t: int,
) -> None:
    """Bring the displayed rows of one side up to date and write what changed. A frozen symbol shows nothing."""
    me = sym[s]
    if me["frozen"] != 0:
        return
    levels = len(scratch_price)
    step = -1 if side == _BID else 1
    p = me["bid"] if side == _BID else me["ask"]
    shift = me["offset_bid"] if side == _BID else 0
    n = 0
    # 256 ticks beyond the best without ten levels: the rows end there, as a short book would
    stop = p + step * 256
    if stop < 0:
        stop = 0
    if stop > grid.shape[2]:
        stop = grid.shape[2]
    if p > 0:
        while p != stop and n < levels:
            size = grid[s, side, p]
            if size > EPS:
                scratch_price[n] = p + shift
                scratch_size[n] = size
                n += 1
            p += step
    row_count[s, side] = diff_rows(
        row_price[s, side],
        row_size[s, side],
        row_count[s, side],
        scratch_price,
        scratch_size,
        n,
        q,
        ctl,
        t,
        me["number"],
        side,
        me["tick_num"],
        me["tick_den"],
    )


@kernel(void(SYM, F3, i8, i8))
def settle_best(sym: Any, grid: Any, s: int, side: int) -> None:
    """Move the best price of a side to its first level that still holds shares; 0 when there is none."""
    me = sym[s]
    if side == _BID:
        p = me["bid"]
        while p > 0 and grid[s, _BID, p] <= EPS:
            p -= 1
        me["bid"] = p
    else:
        p = me["ask"]
        if p > 0:
            top = grid.shape[2]
            while p < top and grid[s, _ASK, p] <= EPS:
                p += 1
            me["ask"] = 0 if p >= top else p


@kernel(void(SYM, F3, i8, i8, i8, f8))
def add_shares(sym: Any, grid: Any, s: int, side: int, price: int, size: float) -> None:
    """Add (or with a negative size remove) shares at a price and keep the best price right."""
    me = sym[s]
    held = grid[s, side, price] + size
    grid[s, side, price] = held if held > EPS else 0.0
    if size > 0.0:
        if side == _BID:
            if price > me["bid"]:
                me["bid"] = price
        elif me["ask"] == 0 or price < me["ask"]:
            me["ask"] = price
    else:
        settle_best(sym, grid, s, side)


@kernel(f8(OWN, I1, i8, i8, i8))
def own_shares(own: Any, ctl: Any, s: int, side: int, price: int) -> float:
    """Shares of client orders resting at a price."""
    total = 0.0
    sign = 1 if side == _BID else -1
    for k in range(ctl[C_OWN]):
        o = own[k]
        if o["slot"] == s and o["price"] == price and o["side"] == sign and o["state"] == RESTING:
            total += o["left"]
    return total


@kernel(void(SYM, OWN, I1, i8))
def drop_own(sym: Any, own: Any, ctl: Any, k: int) -> None:
    """Remove one client order from the pool, keeping the arrival order of the others."""
    sym[own[k]["slot"]]["own"] -= 1
    for i in range(k, ctl[C_OWN] - 1):
        own[i] = own[i + 1]
    ctl[C_OWN] -= 1


@kernel(f8(SYM, F3, OWN, Q, I1, i8, i8, i8, f8, i8))
def take(sym: Any, grid: Any, own: Any, q: Any, ctl: Any, s: int, side: int, price: int, want: float, t: int) -> float:
    """Trade up to ``want`` shares against one level in time order; returns the shares traded and prints them once."""
    me = sym[s]
    held = grid[s, side, price]
    traded = want if want < held else held
    left = traded
    sign = 1 if side == _BID else -1
    cash = price * me["tick_num"] / me["tick_den"]
    if me["own"] > 0:
        gone = 0.0  # background shares traded, all of them ahead of what remains
        background = held - own_shares(own, ctl, s, side, price)
        k = 0
        while k < ctl[C_OWN]:
            o = own[k]
            if o["slot"] != s or o["price"] != price or o["side"] != sign or o["state"] != RESTING:
                k += 1
                continue
            part = o["ahead"] - gone
            if part > left:
                part = left
            if part > 0.0:
                gone += part
                left -= part
            fill = o["left"] if o["left"] < left else left
            if fill > EPS:
                left -= fill
                o["left"] -= fill
                put(q, ctl, t, o["key"], cash, fill, me["number"], _OWN_FILL, sign, 0, 0, 1)
            if o["left"] <= EPS:
                drop_own(sym, own, ctl, k)
            else:
                k += 1
        part = background - gone
        gone += part if part < left else left
        for k in range(ctl[C_OWN]):
            o = own[k]
            if o["slot"] == s and o["price"] == price and o["side"] == sign and o["state"] == RESTING:
                o["ahead"] = o["ahead"] - gone if o["ahead"] > gone else 0.0
    add_shares(sym, grid, s, side, price, -traded)
    me["last"] = price
    if me["frozen"] == 0:
        put(q, ctl, t, 0, cash, traded, me["number"], _TRADE, -sign, 0, 0, 0)
    return traded


@kernel(f8(SYM, F3, OWN, Q, I1, i8, i8, f8, i8, i8, i8))
def walk(
    sym: Any, grid: Any, own: Any, q: Any, ctl: Any, s: int, sign: int, size: float, limit: int, key: int, t: int
) -> float:
    """Trade against the other side from its best price on, to ``limit`` ticks (0: any); returns what is left.

    ``key`` is the client's order key, or negative for the background.
    """
    me = sym[s]
    side = _ASK if sign > 0 else _BID
    for _ in range(MAX_WALK_LEVELS):
        price = me["ask"] if sign > 0 else me["bid"]
        if size <= EPS or price == 0 or (limit != 0 and sign * price > sign * limit):
            break
        done = take(sym, grid, own, q, ctl, s, side, price, size, t)
        size -= done
        if key >= 0:
            put(q, ctl, t, key, price * me["tick_num"] / me["tick_den"], done, me["number"], _OWN_FILL, sign, 0, 0, 0)
    return size
