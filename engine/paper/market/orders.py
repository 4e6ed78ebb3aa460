"""Client-order kernels of the synthetic market: entry, removal, and commanded repricing of the background."""

from __future__ import annotations

from typing import Any

from engine.paper.market.book import add_shares, drop_own, own_shares, put, refresh, settle_best, walk
from engine.paper.market.ktypes import F1, F3, I1, I2, I3, OWN, SYM, Q, boolean, f8, i8, void
from engine.paper.market.layout import C_OWN, EPS, MARKET_PRICE, PARKED, RESTING
from shm.jit import kernel

_OWN_FILL, _OWN_DONE, _TRADE = 5, 6, 2
_ASK, _BID = 0, 1
_FLAG_IOC = 2


@kernel(void(SYM, F3, OWN, I3, F3, I2, I1, F1, Q, I1, i8, i8, i8, f8, f8, i8, boolean, i8))
def enter(
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
    s: int,
    key: int,
    sign: int,
    qty: float,
    left: float,
    limit: int,
    ioc: bool,
    t: int,
) -> None:
    """A client order arrives: match it, then rest, park or end the remainder. ``limit`` 0 means market.

    A market order that exhausts the book rests at the last traded price, as a market-to-limit order would.
    """
    me = sym[s]
    top = grid.shape[2]
    side = _BID if sign > 0 else _ASK
    reachable = limit
    if limit != MARKET_PRICE and sign > 0 and limit >= top:
        reachable = MARKET_PRICE
    parked = limit != MARKET_PRICE and ((sign > 0 and limit < 1) or (sign < 0 and limit >= top))
    if not parked:
        left = walk(sym, grid, own, q, ctl, s, sign, left, reachable, key, t)
        refresh(sym, grid, row_price, row_size, row_count, scratch_price, scratch_size, q, ctl, s, 1 - side, t)
    if left <= EPS:
        return
    if ioc:
        put(q, ctl, t, key, 0.0, left, me["number"], _OWN_DONE, sign, 0, 0, _FLAG_IOC)
        return
    price = reachable
    if reachable == MARKET_PRICE:
        price = me["last"]
        if sign > 0 and me["ask"] > 0 and price >= me["ask"]:
            price = me["ask"] - 1
        if sign < 0 and price <= me["bid"]:
            price = me["bid"] + 1
    if parked:
        price = limit
    o = own[ctl[C_OWN]]
    o["key"] = key
    o["slot"] = s
    o["side"] = sign
    o["price"] = price
    o["qty"] = qty
    o["left"] = left
    o["ahead"] = 0.0
    o["state"] = PARKED
    if not parked:
        o["ahead"] = grid[s, side, price] - own_shares(own, ctl, s, side, price)
        o["state"] = RESTING
    ctl[C_OWN] += 1
    me["own"] += 1
    if not parked:
        add_shares(sym, grid, s, side, price, left)
        refresh(sym, grid, row_price, row_size, row_count, scratch_price, scratch_size, q, ctl, s, side, t)


@kernel(void(SYM, F3, OWN, I3, F3, I2, I1, F1, Q, I1, i8, i8))
def leave(
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
    k: int,
    t: int,
) -> None:
    """Take client order ``k`` of the pool out of the book. Writes row changes, but no end-of-order event."""
    s = own[k]["slot"]
    side = _BID if own[k]["side"] > 0 else _ASK
    price = own[k]["price"]
    left = own[k]["left"]
    resting = own[k]["state"] == RESTING
    drop_own(sym, own, ctl, k)
    if resting:
        add_shares(sym, grid, s, side, price, -left)
        refresh(sym, grid, row_price, row_size, row_count, scratch_price, scratch_size, q, ctl, s, side, t)


@kernel(void(SYM, OWN, Q, I1, i8, i8, i8))
def fill_through(sym: Any, own: Any, q: Any, ctl: Any, s: int, sign: int, t: int) -> None:
    """Fill the client orders of one direction that the background's best price trades through, at their limits."""
    me = sym[s]
    edge = me["ask"] if sign > 0 else me["bid"]
    k = 0
    while k < ctl[C_OWN]:
        o = own[k]
        reached = edge != 0 and sign * o["price"] >= sign * edge
        if o["slot"] != s or o["side"] != sign or o["state"] != RESTING or not reached:
            k += 1
            continue
        cash = o["price"] * me["tick_num"] / me["tick_den"]
        put(q, ctl, t, o["key"], cash, o["left"], me["number"], _OWN_FILL, sign, 0, 0, 1)
        if me["frozen"] == 0:
            put(q, ctl, t, 0, cash, o["left"], me["number"], _TRADE, -sign, 0, 0, 0)
        me["last"] = o["price"]
        drop_own(sym, own, ctl, k)


@kernel(void(SYM, F3, OWN, I3, F3, I2, I1, F1, Q, I1, i8, i8, i8, i8))
def reprice(
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
    s: int,
    bid_ticks: int,
    ask_ticks: int,
    t: int,
) -> None:
    """The whole background of a symbol moves its bids and asks by so many ticks each.

    Client orders in the way are traded through at their limits; the others keep their place and become first in
    their queues, because every background order has just been re-entered behind them. The caller keeps bids below
    asks.
    """
    me = sym[s]
    top = grid.shape[2]
    for k in range(ctl[C_OWN]):
        o = own[k]
        if o["slot"] == s and o["state"] == RESTING:
            grid[s, _BID if o["side"] > 0 else _ASK, o["price"]] -= o["left"]
            o["ahead"] = 0.0
    for side in range(2):
        shift = bid_ticks if side == _BID else ask_ticks
        if shift > 0:
            for p in range(top - 1, shift - 1, -1):
                grid[s, side, p] = grid[s, side, p - shift]
            grid[s, side, 0:shift] = 0.0
        elif shift < 0:
            for p in range(top + shift):
                grid[s, side, p] = grid[s, side, p - shift]
            grid[s, side, top + shift : top] = 0.0
        grid[s, side, 0] = 0.0
    # searched from the far ends: every level may have moved either way
    me["bid"] = top - 1
    me["ask"] = 1
    settle_best(sym, grid, s, _BID)
    settle_best(sym, grid, s, _ASK)
    fill_through(sym, own, q, ctl, s, 1, t)
    fill_through(sym, own, q, ctl, s, -1, t)
    for k in range(ctl[C_OWN]):
        o = own[k]
        if o["slot"] == s and o["state"] == RESTING:
            add_shares(sym, grid, s, _BID if o["side"] > 0 else _ASK, o["price"], o["left"])
    first = _ASK if ask_ticks > 0 else _BID  # the side that makes room goes first: no reader sees a crossed book
    refresh(sym, grid, row_price, row_size, row_count, scratch_price, scratch_size, q, ctl, s, first, t)
    refresh(sym, grid, row_price, row_size, row_count, scratch_price, scratch_size, q, ctl, s, 1 - first, t)
