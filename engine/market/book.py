"""Order books from depth rows: compiled, self-checking, all symbols in one array.

Invariants
1. Rows lie contiguously from 0. An insert shifts the rows below it, a delete pulls them up.
2. At the end of a socket read no side holds more rows than were subscribed. A source may send the insert before the
   delete it causes, so surplus rows live until then and no longer: kept for good they would come back as ghosts.
3. A row that contradicts the held ones (past the end, no number) is a fault: the rows are void, the quotes take
   over, and depth is ignored until the feed says DEPTH_RESET. Wrong rows that look right are worse than none.
4. Levels are rows summed by price: aggregated feeds have one row per venue.
5. Crossed, locked or unsorted for a moment is normal (rows change one by one, venues disagree); for over
   CROSSED_NS it is not: unsorted becomes a fault, crossed makes the book invalid while it lasts.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.market.ktypes import STATE, f8, i8, void
from engine.market.layout import CROSSED_NS, ROWS, SETTLE_NS, SYMBOL, Fault
from shm.jit import kernel
from shm.layouts import BOOK_LEVELS

_INSERT, _UPDATE, _DELETE = 0, 1, 2
_ASK, _BID = 0, 1
_OUT_OF_RANGE, _UNSORTED = int(Fault.OUT_OF_RANGE), int(Fault.UNSORTED)
_BAD_VALUE, _BAD_SIDE = int(Fault.BAD_VALUE), int(Fault.BAD_SIDE)
_BIGGEST = 1e9
"""No price and no size of a stock reaches this: beyond it a number is garbage."""


@kernel(void(STATE, i8, i8))
def clear_rows(state: Any, s: int, t: int) -> None:
    """Void both sides; flow is not counted while they are refilled."""
    me = state[s]
    me["row_n"][_ASK] = 0
    me["row_n"][_BID] = 0
    me["unsorted_ns"] = 0
    me["crossed_ns"] = 0
    me["settled_ns"] = t + SETTLE_NS


@kernel(void(STATE, i8, i8, i8))
def set_fault(state: Any, s: int, fault: int, t: int) -> None:
    """Rows can't be trusted any more: quotes take over until DEPTH_RESET."""
    me = state[s]
    me["fault"] = fault
    me["faults"] += 1
    me["deep"] = 0
    me["pending"] = 1
    clear_rows(state, s, t)


@kernel(i8(STATE, i8, i8, i8, i8, f8, f8))
def apply_row(state: Any, s: int, side: int, op: int, level: int, price: float, size: float) -> int:
    """One depth operation. Returns the Fault it reveals, 0 if it fits; the rows are unchanged then."""
    me = state[s]
    if side != _ASK and side != _BID:
        return _BAD_SIDE
    n = me["row_n"][side]
    if op == _DELETE:
        if level >= n:
            # past the subscribed depth: the row fell off at the end of an earlier read
            return 0 if level >= me["row_limit"] else _OUT_OF_RANGE
        for k in range(level, n - 1):
            me["row_price"][side, k] = me["row_price"][side, k + 1]
            me["row_size"][side, k] = me["row_size"][side, k + 1]
        me["row_n"][side] = n - 1
        return 0
    if not (0.0 < price < _BIGGEST and 0.0 <= size < _BIGGEST):
        return _BAD_VALUE
    if op == _INSERT:
        if level > n:
            return 0 if level >= me["row_limit"] else _OUT_OF_RANGE
        if level >= ROWS:
            return 0
        last = n if n < ROWS else ROWS - 1
        for k in range(last, level, -1):
            me["row_price"][side, k] = me["row_price"][side, k - 1]
            me["row_size"][side, k] = me["row_size"][side, k - 1]
        me["row_price"][side, level] = price
        me["row_size"][side, level] = size
        me["row_n"][side] = last + 1
        return 0
    if op == _UPDATE:
        if level >= n:
            return 0 if level >= me["row_limit"] else _OUT_OF_RANGE
        me["row_price"][side, level] = price
        me["row_size"][side, level] = size
        return 0
    return _BAD_VALUE


@kernel(i8(STATE, i8))
def read_levels(state: Any, s: int) -> int:
    """Fill ``next_*`` with the current levels; returns 0 if the rows are out of order, else 1."""
    me = state[s]
    ordered = 1
    if me["deep"] == 0:
        for side in range(2):
            n = 0
            if me["quote_price"][side] > 0.0 and me["quote_size"][side] > 0.0:
                me["next_price"][side, 0] = me["quote_price"][side]
                me["next_size"][side, 0] = me["quote_size"][side]
                n = 1
            me["next_n"][side] = n
        return ordered
    for side in range(2):
        rows = min(me["row_n"][side], me["row_limit"])
        sign = 1.0 if side == _ASK else -1.0
        n = 0
        last = -math.inf
        for k in range(rows):
            price = me["row_price"][side, k]
            size = me["row_size"][side, k]
            if sign * price < last:
                ordered = 0
            last = sign * price
            if size <= 0.0:
                continue
            if n > 0 and me["next_price"][side, n - 1] == price:
                me["next_size"][side, n - 1] += size
            elif n < BOOK_LEVELS:
                me["next_price"][side, n] = price
                me["next_size"][side, n] = size
                n += 1
        me["next_n"][side] = n
    return ordered


@kernel(i8(STATE, i8, i8))
def examine(state: Any, s: int, t: int) -> int:
    """Read the levels as of ``t`` and note since when they are unsorted or crossed. Returns 1 if usable now."""
    me = state[s]
    ordered = read_levels(state, s)
    if ordered == 0:
        if me["unsorted_ns"] == 0:
            me["unsorted_ns"] = t
    else:
        me["unsorted_ns"] = 0
    both = me["next_n"][_ASK] > 0 and me["next_n"][_BID] > 0
    crossed = both and me["next_price"][_BID, 0] >= me["next_price"][_ASK, 0]
    if crossed:
        if me["crossed_ns"] == 0:
            me["crossed_ns"] = t
    else:
        me["crossed_ns"] = 0
    return 1 if both and not crossed and ordered == 1 and me["fault"] == 0 else 0


@kernel(void(STATE, i8))
def drop_surplus(state: Any, s: int) -> None:
    """Invariant 2, at the end of a socket read."""
    me = state[s]
    for side in range(2):
        if me["row_n"][side] > me["row_limit"]:
            me["row_n"][side] = me["row_limit"]


@kernel(i8(STATE, i8, i8))
def is_valid(state: Any, s: int, now_ns: int) -> int:
    """Sorted, contiguous, not empty, not stale, not crossed for long. A halted symbol keeps its last book."""
    me = state[s]
    silent = me["stale"] != 0 or now_ns - me["last_ns"] > me["stale_ns"]
    if me["halted"] == 0 and me["session_open"] == 1 and silent:
        return 0
    if me["index"] == 1:
        return 1 if me["last_price"] > 0.0 else 0
    if me["fault"] != 0 or me["unsorted_ns"] != 0 or me["next_n"][_ASK] == 0 or me["next_n"][_BID] == 0:
        return 0
    return 0 if me["crossed_ns"] != 0 and now_ns - me["crossed_ns"] > CROSSED_NS else 1


def check(state: npt.NDArray[np.void]) -> list[str]:
    """Every broken invariant of a symbol array (dtype SYMBOL) in words; empty if sound."""
    if state.dtype != SYMBOL:
        return [f"dtype {state.dtype} is not SYMBOL"]
    broken = []
    for s, me in enumerate(state):
        for side, name in ((_ASK, "asks"), (_BID, "bids")):
            n = int(me["row_n"][side])
            if not 0 <= n <= ROWS:
                broken.append(f"symbol {s}: {n} {name}, allowed are 0 to {ROWS}")
                continue
            price, size = me["row_price"][side, :n], me["row_size"][side, :n]
            if not (np.isfinite(price).all() and (price > 0).all() and np.isfinite(size).all() and (size >= 0).all()):
                broken.append(f"symbol {s}: {name} hold a price or size that is no number or not positive")
            levels = me["level_price"][side, : int(me["level_n"][side])]
            step = np.diff(levels) * (1.0 if side == _ASK else -1.0)
            if me["usable"] and not (step > 0).all():
                broken.append(f"symbol {s}: levels of {name} are not sorted though the book counts as usable")
        if me["fault"] and (me["row_n"].any() or me["deep"]):
            broken.append(f"symbol {s}: holds rows in spite of fault {Fault(int(me['fault'])).name}")
    return broken
