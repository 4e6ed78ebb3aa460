"""Memory of the book and feature kernels: one record per symbol, one record per closed bar.

Everything a kernel touches stands in these arrays, so that a run is a pure function of them and of the ticks. Times
are ns on the clock of the ticks, prices USD, sizes shares. Side 0 is ask and side 1 is bid, as in the ticks.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from shm.layouts import BOOK_LEVELS

ROWS = 2 * BOOK_LEVELS
"""Rows held per side. Rows beyond the subscribed depth live only until the next socket read (see ``book``)."""
OFI_LEVELS = 5
FEATURES = ("ofi", "imbalance", "log_spread", "log_rv", "log_count", "log_depth")
FEATURE_SCHEMA = "1:" + ",".join(FEATURES)
"""Version and names: a model fitted on another schema is refused."""
GAP_RING = 256
SPREAD_RING = 300
SPREAD_SAMPLE_NS = 1_000_000_000
FAIR_BUCKETS = 60
MICRO_SPREADS, MICRO_BUCKETS = 3, 10
"""Spreads in ticks, from 1, and buckets of queue imbalance that the micro-price tells apart (see ``micro``)."""
MICRO_STATES = MICRO_SPREADS * MICRO_BUCKETS
SETTLE_NS = 250_000_000
"""After a reset the rows come back one by one: no flow is counted for this long."""
CROSSED_NS = 500_000_000
"""Crossed, locked or unsorted for longer than this is a defect; shorter is normal in aggregated books."""


class Fault(IntEnum):
    """Why the rows of a symbol can't be trusted until the feed inserts them anew."""

    NONE = 0
    OUT_OF_RANGE = 1
    UNSORTED = 2
    BAD_VALUE = 3
    GAP = 4
    BAD_SIDE = 5


SYMBOL = np.dtype(
    [
        ("tick_size", "<f8"),
        ("row_limit", "<i8"),
        ("index", "<i8"),  # 1: a watched index, no book
        # rows as the feed numbers them; several may share a price (one per venue)
        ("row_n", "<i8", (2,)),
        ("row_price", "<f8", (2, ROWS)),
        ("row_size", "<f8", (2, ROWS)),
        ("quote_price", "<f8", (2,)),  # best quotes outside the depth feed; 0 none
        ("quote_size", "<f8", (2,)),
        ("deep", "<i8"),  # 1: the rows are the book; 0: the quotes are
        ("fault", "<i8"),
        ("faults", "<i8"),
        ("unsorted_ns", "<i8"),  # since when; 0 sorted
        ("crossed_ns", "<i8"),  # since when; 0 not crossed
        ("stale", "<i8"),
        ("halted", "<i8"),
        ("session_open", "<i8"),
        # levels as of the last socket read that is complete
        ("level_n", "<i8", (2,)),
        ("level_price", "<f8", (2, BOOK_LEVELS)),
        ("level_size", "<f8", (2, BOOK_LEVELS)),
        ("next_n", "<i8", (2,)),
        ("next_price", "<f8", (2, BOOK_LEVELS)),
        ("next_size", "<f8", (2, BOOK_LEVELS)),
        ("usable", "<i8"),  # both sides there, not crossed, no fault
        ("mid", "<f8"),
        ("fair", "<f8"),  # micro-price, or weighted mid
        ("imbalance", "<f8"),
        ("spread", "<f8"),
        # news that is not yet in the levels
        ("pending", "<i8"),
        ("last_ns", "<i8"),  # last tick
        ("settled_ns", "<i8"),  # flow counts from here on
        ("dirty", "<i8"),  # not yet published
        ("published_ns", "<i8"),
        ("updates", "<i8"),
        ("resets", "<i8"),
        ("quotes", "<i8"),
        ("top_ns", "<i8"),
        ("last_price", "<f8"),
        ("last_size", "<f8"),
        ("traded_qty", "<f8"),
        # sums over the open bar, time-weighted ones in ns
        ("clock_ns", "<i8"),  # integrated up to here
        ("fresh_ns", "<i8"),  # the levels of the last integration count up to here
        ("active_ns", "<f8"),
        ("sum_imbalance", "<f8"),
        ("sum_spread", "<f8"),
        ("sum_depth", "<f8"),
        ("sum_top", "<f8"),
        ("rv", "<f8"),  # ticks squared
        ("ofi", "<f8", (OFI_LEVELS,)),
        ("trade_flow", "<f8"),
        ("count", "<i8"),
        ("trades", "<i8"),
        ("mid_open", "<f8"),
        # slow references
        ("stale_ns", "<f8"),
        ("gap_i", "<i8"),
        ("gap_ns", "<f8", (GAP_RING,)),
        ("spread_i", "<i8"),
        ("spread_due_ns", "<i8"),
        ("spread_bps", "<f8", (SPREAD_RING,)),
        ("spread_median_bps", "<f8"),
        ("gap_median_ns", "<f8"),
        ("fair_i", "<i8"),
        ("fair_sum", "<f8", (FAIR_BUCKETS,)),
        ("fair_ns", "<f8", (FAIR_BUCKETS,)),
        ("fair_bucket_ns", "<f8"),
        ("fair_min_ns", "<f8"),
        # micro-price: steps of the book seen so far, and what follows from them
        ("micro_at", "<i8"),  # state of the last book + 1; 0 none
        ("micro_mid", "<f8"),
        ("micro_known", "<i8"),  # 1: micro_adjust counts
        ("micro_stay", "<f8", (MICRO_STATES, MICRO_STATES)),
        ("micro_leave", "<f8", (MICRO_STATES, MICRO_STATES)),
        ("micro_drift", "<f8", (MICRO_STATES,)),  # ticks
        ("micro_adjust", "<f8", (MICRO_STATES,)),  # ticks
    ]
)

BAR = np.dtype(
    [
        ("t_end_ns", "<i8"),
        ("symbol", "<i8"),
        ("valid", "<i8"),  # the book was usable for at least half of the bar
        ("count", "<i8"),  # depth messages; quotes where there is no depth
        ("trades", "<i8"),
        ("x", "<f8", (len(FEATURES),)),
        ("ofi", "<f8", (OFI_LEVELS,)),  # shares, per level
        ("trade_flow", "<f8"),  # buyers' minus sellers' shares
        ("mid_open", "<f8"),
        ("mid_close", "<f8"),
    ]
)
"""One closed bar. ``x`` is in the order of FEATURES."""

C_NEXT_BAR, C_BAR_NS, C_BAD, C_FAULTS = 0, 1, 2, 3
CONTROL_WORDS = 8
"""Control words: end of the open bar, length of a bar, ticks of unknown symbols, faults of all symbols ever."""
