"""What the rules need from the book and position cells, in one compiled pass over the symbols.

The pass also keeps the mark of each symbol: the mid from which equity and exposure are computed. One bad print must not
move it: a new mid counts when a second quote confirms it (the one nearer to the old mark is taken), or when it has
stood for MARK_STANDS_NS.
"""

from __future__ import annotations

import math

import numpy as np

from engine.domain.codes import TickKind
from shm.atomics import fence_acquire, load_acquire, load_relaxed
from shm.jit import kernel, rec
from shm.kernels import SLOTS
from shm.layouts import BOOK, POSITION, TICK

from numba import types  # isort: skip  (after shm.jit, which sets the cache directory)

MARK_STANDS_NS = 200_000_000

# Columns of the table (n symbols × COLUMNS, float64).
(
    MID, MARK, AGE_NS, STALE_LIMIT_NS, FLAGS, SPREAD_BPS, SPREAD_LIMIT_BPS, EXPOSURE_USD, WORST_USD, QTY,
    DRIFT_PCT, QUOTES, MARK_AGE_NS, PNL_USD, COLUMNS,
) = range(15)  # fmt: skip

# Bits of FLAGS.
SEEN, OPEN, HALTED, EMPTY, CROSSED, VALID, STALE, UNKNOWN_ORDERS, WARMED = (1 << i for i in range(9))

# Totals (float64).
GROSS_USD, GROSS_WORST_USD, NET_USD, PNL_TOTAL_USD, HELD, MAX_WORST_USD, TOTALS = range(7)

# Memory of the pass between calls (n symbols × MEMORY, float64); start from NaN.
M_MARK, M_MID, M_QUOTES, M_MARK_NS, M_OPEN_MARK, M_OPEN_QTY, M_EXECUTIONS, M_PNL, M_ADJUST, MEMORY = range(10)

# Parameters (float64).
P_SPREAD_BPS, P_SPREAD_FACTOR, P_CROSSED_NS, P_STALE_MIN_NS, P_STALE_FACTOR, P_ACCOUNTED, PARAMETERS = range(7)

BUCKETS = 3_200
BUCKET_NS = 100_000_000
NO_STAMP = -(1 << 62)
"""Stamp of a bucket that has never been used; -1 would match on a host that has just booted."""


@kernel("int64(int64[::1], int64, int64, int64[:, ::1], int64[::1], int64[::1])")
def read_cells(region, count, words, out, versions, torn_mask):  # type: ignore[no-untyped-def]
    """Refresh ``count`` cells of a region into ``out`` (count × words). Returns how many have changed.

    ``versions`` remembers what was read, so that an unchanged cell costs one load. ``torn_mask[0]``: bits of the cells
    whose writer died while writing; they keep their last good value.
    """
    torn = changed = 0
    for i in range(count):
        at = SLOTS + i * words
        good = False
        for _ in range(2_000):
            before = load_acquire(region, at)
            if before & 1:
                continue
            if before == versions[i]:
                good = True
                break
            for w in range(words):
                out[i, w] = load_relaxed(region, at + w)
            fence_acquire()
            if load_relaxed(region, at) == before:
                versions[i] = before
                good = True
                changed += 1
                break
        if not good:
            torn |= 1 << min(i, 62)
    torn_mask[0] = torn
    return changed


@kernel(
    types.void(
        rec(BOOK), rec(POSITION), types.int64, types.int64, types.float64[::1], types.float64[:, ::1],
        types.float64[:, ::1], types.float64[::1],
    )
)  # fmt: skip
def measure(books, positions, count, now_ns, parameters, memory, table, totals):  # type: ignore[no-untyped-def]
    """Fill ``table`` (count × COLUMNS) and ``totals`` (TOTALS) from the cells of ``count`` symbols.

    P_ACCOUNTED of ``parameters`` is 0 while the bridge rebuilds positions from executions: then marks move on, but
    P&L keeps its last value, because quantity and cash flow do not belong together yet.
    """
    accounted = parameters[P_ACCOUNTED] > 0.0
    gross = worst_gross = net = pnl_total = held = most = 0.0
    for i in range(count):
        book, position = books[i], positions[i]
        bid, ask = book.bid_price[0], book.ask_price[0]
        flags = 0
        if book.updates > 0 and book.t_socket_ns > 0:
            flags |= SEEN
        if book.session_open:
            flags |= OPEN
        if book.halted:
            flags |= HALTED
        if book.valid:
            flags |= VALID
        if book.bid_rows == 0 or book.ask_rows == 0:
            flags |= EMPTY
        if book.crossed_since_ns > 0 and now_ns - book.crossed_since_ns > parameters[P_CROSSED_NS]:
            flags |= CROSSED
        age = float(now_ns - book.t_socket_ns)
        limit = parameters[P_STALE_MIN_NS]
        if book.gap_median_ns > 0.0:  # NaN compares false: not known while warming
            limit = max(limit, parameters[P_STALE_FACTOR] * book.gap_median_ns)
        if flags & SEEN and flags & OPEN and not flags & HALTED and age > limit:
            flags |= STALE
        two_sided = bid > 0.0 and ask > bid and not flags & EMPTY
        fresh = bool(flags & SEEN) and bool(flags & OPEN) and not flags & (STALE | HALTED) and two_sided
        mid = 0.5 * (bid + ask) if fresh else math.nan
        mark = memory[i, M_MARK]
        if fresh:
            quotes = float(book.quotes)
            if math.isnan(mark):
                mark = mid
            elif quotes != memory[i, M_QUOTES]:
                last = memory[i, M_MID]
                mark = mid if math.isnan(last) or abs(mid - mark) <= abs(last - mark) else last
            elif now_ns - book.top_ns >= MARK_STANDS_NS:
                mark = mid
            if quotes != memory[i, M_QUOTES]:
                memory[i, M_QUOTES] = quotes
                memory[i, M_MID] = mid
            memory[i, M_MARK] = mark
            memory[i, M_MARK_NS] = float(now_ns)
        mark_age = math.inf if math.isnan(memory[i, M_MARK_NS]) else float(now_ns) - memory[i, M_MARK_NS]
        price = mark
        if math.isnan(price):  # never seen a quote: the cost is the best that is known
            price = position.avg_cost if position.avg_cost > 0.0 else 0.0
        qty = position.qty
        worst = max(abs(qty + position.unknown_buy_qty), abs(qty - position.unknown_sell_qty))
        if position.unknown_buy_qty > 0.0 or position.unknown_sell_qty > 0.0:
            flags |= UNKNOWN_ORDERS
        if accounted:
            open_qty, executions = position.day_open_qty, float(position.executions)
            new_day = open_qty != memory[i, M_OPEN_QTY] or executions < memory[i, M_EXECUTIONS]
            first = math.isnan(memory[i, M_OPEN_QTY])
            if math.isnan(memory[i, M_OPEN_MARK]) or (new_day and not first):
                memory[i, M_OPEN_MARK] = price
            pnl = position.cash_flow_usd + qty * price - open_qty * memory[i, M_OPEN_MARK]
            if new_day and not first:  # the books were closed: equity must not jump because its parts were regrouped
                memory[i, M_ADJUST] += memory[i, M_PNL] - pnl
            memory[i, M_OPEN_QTY] = open_qty
            memory[i, M_EXECUTIONS] = executions
            memory[i, M_PNL] = pnl
        if math.isnan(memory[i, M_ADJUST]):
            memory[i, M_ADJUST] = 0.0
        pnl = memory[i, M_PNL] + memory[i, M_ADJUST]
        if math.isnan(pnl):
            pnl = 0.0
        drift = math.nan
        if fresh and book.fair_value > 0.0:
            drift = 100.0 * abs(mid - book.fair_value) / book.fair_value
        spread = book.spread_bps if two_sided else math.nan
        spread_limit = parameters[P_SPREAD_BPS]
        if book.spread_median_bps > 0.0:
            flags |= WARMED
            spread_limit = max(spread_limit, parameters[P_SPREAD_FACTOR] * book.spread_median_bps)
        row = table[i]
        row[MID], row[MARK], row[AGE_NS], row[STALE_LIMIT_NS] = mid, mark, age, limit
        row[FLAGS], row[SPREAD_BPS], row[SPREAD_LIMIT_BPS] = float(flags), spread, spread_limit
        row[EXPOSURE_USD], row[WORST_USD], row[QTY] = abs(qty) * price, worst * price, qty
        row[DRIFT_PCT], row[QUOTES], row[MARK_AGE_NS], row[PNL_USD] = drift, float(book.quotes), mark_age, pnl
        gross += row[EXPOSURE_USD]
        worst_gross += row[WORST_USD]
        net += qty * price
        pnl_total += pnl
        most = max(most, row[WORST_USD])
        if qty != 0.0:
            held += 1.0
    totals[GROSS_USD], totals[GROSS_WORST_USD], totals[NET_USD] = gross, worst_gross, net
    totals[PNL_TOTAL_USD], totals[HELD], totals[MAX_WORST_USD] = pnl_total, held, most


@kernel(
    types.int64(
        rec(TICK), types.int64, types.int64, types.int64, types.float64, types.int64[::1], types.float64[:, ::1],
        types.float64[::1],
    )
)  # fmt: skip
def scan_index(ticks, count, index_symbol, window_ns, limit_pct, stamps, buckets, out):  # type: ignore[no-untyped-def]
    """Look through a batch of ticks for the index. Returns t_socket_ns of the first tick that moved it beyond the
    limit within the window, else 0.

    ``stamps`` (BUCKETS) and ``buckets`` (BUCKETS × min, max) hold 100-ms extremes. ``out``: last value, its
    t_socket_ns, largest move in percent (signed) as of the last tick.
    """
    breach = 0
    reach = min(window_ns // BUCKET_NS, BUCKETS - 1)
    for t in range(count):
        tick = ticks[t]
        if tick.symbol != index_symbol or tick.kind != TickKind.INDEX:
            continue
        value = tick.price
        if not (value > 0.0 and value < math.inf):
            continue
        number = tick.t_socket_ns // BUCKET_NS
        slot = number % BUCKETS
        if stamps[slot] != number:
            stamps[slot] = number
            buckets[slot, 0] = value
            buckets[slot, 1] = value
        else:
            buckets[slot, 0] = min(buckets[slot, 0], value)
            buckets[slot, 1] = max(buckets[slot, 1], value)
        low, high = value, value
        for back in range(reach + 1):
            at = (number - back) % BUCKETS
            if stamps[at] == number - back:
                low = min(low, buckets[at, 0])
                high = max(high, buckets[at, 1])
        rise = 100.0 * (value - low) / low
        fall = 100.0 * (value - high) / high
        out[0] = value
        out[1] = float(tick.t_socket_ns)
        out[2] = rise if rise >= -fall else fall
        if breach == 0 and abs(out[2]) > limit_pct:
            breach = tick.t_socket_ns
    return breach


def new_memory(symbols: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Memory of ``measure`` that knows nothing yet."""
    return np.full((symbols, MEMORY), np.nan)
