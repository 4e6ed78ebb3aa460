"""Replay kernels: book rows from file snapshots, takers against the displayed book, passive fills by queue model.

Side 0 is asks. ``seen`` is what a reader may see: the file's levels minus what client takers have depleted there. The
depletion of a level (``eaten``) stays until the file changes the size of that level or drops it. Prices are 1/10,000.
"""

from __future__ import annotations

from typing import Any

from engine.paper.market.book import diff_rows, put
from engine.paper.market.ktypes import F2, I1, I2, OWN, Q, boolean, f8, i8, void
from engine.paper.market.layout import C_NOW, C_OWN, C_TAIL, EPS, HELD, RESTING
from shm.jit import kernel

_ASK, _BID = 0, 1
_TRADE, _OWN_FILL, _HALT = 2, 5, 7
_PRICE_SCALE = 10_000.0
_MARK = 9_000_000_000  # the file writes +-9999999999 for a level that is not there

R_ROW = 0  # next file row
R_HALTED = 1
R_START_NS = 2  # clock of this source at file time R_ORIGIN_NS
R_ORIGIN_NS = 3
REPLAY_WORDS = 4

UNKNOWN_AHEAD = 1e18
"""Queue ahead of an order at a price beyond the displayed levels: unknown, so the worst is assumed."""


@kernel(void(I2, I1, I2, F2, I1, I2, F2, I1, I2, F2, I1, Q, I1, i8, i8))
def show(
    book: Any,
    place: Any,
    seen_price: Any,
    seen_size: Any,
    seen_count: Any,
    eaten_price: Any,
    eaten_size: Any,
    eaten_count: Any,
    row_price: Any,
    row_size: Any,
    row_count: Any,
    q: Any,
    ctl: Any,
    number: int,
    t: int,
) -> None:
    """Recompute what is seen of the current file row and write the row operations of both sides."""
    row = place[R_ROW] - 1
    first = _BID
    for side in range(2):
        n = 0
        if row >= 0:
            for level in range(book.shape[1] // 4):
                price = book[row, 4 * level + 2 * side]
                size = float(book[row, 4 * level + 2 * side + 1])
                if price >= _MARK or price <= 0 or size <= 0.0:
                    continue
                for k in range(eaten_count[side]):
                    if eaten_price[side, k] == price:
                        size -= eaten_size[side, k]
                if size > EPS:
                    seen_price[side, n] = price
                    seen_size[side, n] = size
                    n += 1
        seen_count[side] = n
    # the side that makes room goes first, so that no reader sees a crossed book in between
    if seen_count[_BID] > 0 and row_count[_ASK] > 0 and seen_price[_BID, 0] >= row_price[_ASK, 0]:
        first = _ASK
    levels = row_price.shape[1]
    for turn in range(2):
        side = first if turn == 0 else 1 - first
        row_count[side] = diff_rows(
            row_price[side],
            row_size[side],
            row_count[side],
            seen_price[side],
            seen_size[side],
            min(levels, seen_count[side]),
            q,
            ctl,
            t,
            number,
            side,
            1.0,
            _PRICE_SCALE,
        )


@kernel(f8(I2, F2, I1, I2, F2, I1, Q, I1, i8, i8, f8, i8, f8, i8, i8))
def sweep(
    seen_price: Any,
    seen_size: Any,
    seen_count: Any,
    eaten_price: Any,
    eaten_size: Any,
    eaten_count: Any,
    q: Any,
    ctl: Any,
    number: int,
    sign: int,
    size: float,
    limit: int,
    at_price: float,
    key: int,
    t: int,
) -> float:
    """Trade a client order against what is seen of the other side; returns what is left.

    ``limit`` 0: any price. ``at_price`` 0 fills a taker at each level's own price; otherwise the order was resting,
    and the market that came to it pays its limit ``at_price``. Call ``show`` afterwards.
    """
    side = _ASK if sign > 0 else _BID
    for i in range(seen_count[side]):
        price = seen_price[side, i]
        if size <= EPS or (limit != 0 and sign * price > sign * limit):
            break
        done = size if size < seen_size[side, i] else seen_size[side, i]
        if done <= EPS:
            continue
        size -= done
        seen_size[side, i] -= done
        k = 0
        while k < eaten_count[side] and eaten_price[side, k] != price:
            k += 1
        if k == eaten_count[side]:
            eaten_price[side, k] = price
            eaten_size[side, k] = 0.0
            eaten_count[side] += 1
        eaten_size[side, k] += done
        cash = (price if at_price == 0.0 else at_price) / _PRICE_SCALE
        put(q, ctl, t, 0, cash, done, number, _TRADE, sign if at_price == 0.0 else -sign, 0, 0, 0)
        put(q, ctl, t, key, cash, done, number, _OWN_FILL, sign, 0, 0, 0 if at_price == 0.0 else 1)
    return size


@kernel(void(OWN, I1, i8))
def drop(own: Any, ctl: Any, k: int) -> None:
    """Remove one client order, keeping the arrival order of the others."""
    for i in range(k, ctl[C_OWN] - 1):
        own[i] = own[i + 1]
    ctl[C_OWN] -= 1


@kernel(void(OWN, Q, I1, i8, i8, i8, i8, f8, i8))
def fill_on_print(
    own: Any, q: Any, ctl: Any, number: int, kind: int, resting_sign: int, price: int, size: float, t: int
) -> None:
    """What a file's trade does to resting client orders, by the risk-averse queue model.

    At the order's price only visible executions of its side count: first against the queue ahead, then for it. A
    trade at a price worse than the order's fills it whole: the market went through it.
    """
    k = 0
    while k < ctl[C_OWN]:
        o = own[k]
        fill = 0.0
        if o["state"] == RESTING:
            if o["side"] * price < o["side"] * o["price"]:
                fill = o["left"]
            elif price == o["price"] and kind == 4 and resting_sign == o["side"]:
                o["ahead"] -= size
                if o["ahead"] < 0.0:
                    fill = min(o["left"], -o["ahead"])
                    o["ahead"] = 0.0
        if fill > EPS:
            o["left"] -= fill
            put(q, ctl, t, o["key"], o["price"] / _PRICE_SCALE, fill, number, _OWN_FILL, o["side"], 0, 0, 1)
        if o["left"] <= EPS:
            drop(own, ctl, k)
        else:
            k += 1


@kernel(void(OWN, I1, I2, F2, I1))
def cap_queues(own: Any, ctl: Any, seen_price: Any, seen_size: Any, seen_count: Any) -> None:
    """No more can be ahead of a resting order than is displayed at its price."""
    for k in range(ctl[C_OWN]):
        o = own[k]
        if o["state"] != RESTING:
            continue
        sign = o["side"]
        side = _BID if sign > 0 else _ASK
        n = seen_count[side]
        shown = 0.0
        for i in range(n):
            if seen_price[side, i] == o["price"]:
                shown = seen_size[side, i]
        within = n > 0 and sign * o["price"] >= sign * seen_price[side, n - 1]
        if within and o["ahead"] > shown:
            o["ahead"] = shown


@kernel(boolean(I1, I1, I1, I1, I1, I2, f8, OWN, I1, I2, F2, I1, I2, F2, I1, I2, F2, I1, Q, I1, i8, i8))
def replay(
    time: Any,
    kind: Any,
    size: Any,
    price: Any,
    direction: Any,
    book: Any,
    speed: float,
    own: Any,
    place: Any,
    seen_price: Any,
    seen_size: Any,
    seen_count: Any,
    eaten_price: Any,
    eaten_size: Any,
    eaten_count: Any,
    row_price: Any,
    row_size: Any,
    row_count: Any,
    q: Any,
    ctl: Any,
    number: int,
    until_ns: int,
) -> bool:
    """Play file rows up to ``until_ns`` on the source's clock; False if the queue is full before."""
    while place[R_ROW] < len(time):
        r = place[R_ROW]
        t = place[R_START_NS] + int((time[r] - place[R_ORIGIN_NS]) / speed)
        if t > until_ns:
            break
        if len(q) - ctl[C_TAIL] < 8 * book.shape[1] + 64 + 32 * ctl[C_OWN]:
            return False
        place[R_ROW] = r + 1
        what = kind[r]
        if what == 7:
            if price[r] == -1 and place[R_HALTED] == 0:
                place[R_HALTED] = 1
                put(q, ctl, t, 0, 0.0, 0.0, number, _HALT, 0, 0, 0, 1)
            elif price[r] == 1 and place[R_HALTED] == 1:
                place[R_HALTED] = 0
                put(q, ctl, t, 0, 0.0, 0.0, number, _HALT, 0, 0, 0, 0)
        elif what == 4 or what == 5 or what == 6:
            side = 0 if what == 6 else -direction[r]
            put(q, ctl, t, 0, price[r] / _PRICE_SCALE, float(size[r]), number, _TRADE, side, 0, 0, 0)
            if place[R_HALTED] == 0:
                fill_on_print(own, q, ctl, number, what, direction[r], price[r], float(size[r]), t)
        for side in range(2):
            k = 0
            while k < eaten_count[side]:
                before = -1
                after = -1
                for level in range(book.shape[1] // 4):
                    c = 4 * level + 2 * side
                    if r > 0 and book[r - 1, c] == eaten_price[side, k]:
                        before = book[r - 1, c + 1]
                    if book[r, c] == eaten_price[side, k]:
                        after = book[r, c + 1]
                if after < 0 or after != before:
                    eaten_count[side] -= 1
                    eaten_price[side, k] = eaten_price[side, eaten_count[side]]
                    eaten_size[side, k] = eaten_size[side, eaten_count[side]]
                else:
                    k += 1
        show(
            book,
            place,
            seen_price,
            seen_size,
            seen_count,
            eaten_price,
            eaten_size,
            eaten_count,
            row_price,
            row_size,
            row_count,
            q,
            ctl,
            number,
            t,
        )
        if ctl[C_OWN] > 0 and place[R_HALTED] == 0:
            touched = False
            k = 0
            while k < ctl[C_OWN]:
                o = own[k]
                had = o["left"]
                at_price = 0.0 if o["state"] == HELD else float(o["price"])
                o["left"] = sweep(
                    seen_price,
                    seen_size,
                    seen_count,
                    eaten_price,
                    eaten_size,
                    eaten_count,
                    q,
                    ctl,
                    number,
                    o["side"],
                    had,
                    o["price"],
                    at_price,
                    o["key"],
                    t,
                )
                touched = touched or o["left"] != had
                if o["left"] <= EPS:
                    drop(own, ctl, k)
                else:
                    if o["state"] == HELD and o["price"] != 0:
                        o["state"] = RESTING
                        o["ahead"] = UNKNOWN_AHEAD
                    k += 1
            if touched:
                show(
                    book,
                    place,
                    seen_price,
                    seen_size,
                    seen_count,
                    eaten_price,
                    eaten_size,
                    eaten_count,
                    row_price,
                    row_size,
                    row_count,
                    q,
                    ctl,
                    number,
                    t,
                )
            cap_queues(own, ctl, seen_price, seen_size, seen_count)
        ctl[C_NOW] = t
    if until_ns > ctl[C_NOW]:
        ctl[C_NOW] = until_ns
    return True
