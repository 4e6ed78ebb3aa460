"""Memory of the synthetic market: record types and the indices of its control words.

Everything the kernels touch is a flat array made once by the shell, so that a run is a pure function of these arrays.
Prices are whole ticks, times are ns on the source's clock, sizes are shares.
"""

from __future__ import annotations

import numpy as np

SYMBOL_STATE = np.dtype(
    [
        ("rng", "<u8"),  # xorshift64* state, one per symbol: a symbol's path does not depend on who else is there
        ("t_event", "<i8"),  # time of the next background event; NEVER while halted
        ("t_heat", "<i8"),  # time to which heat and lean have been decayed
        ("t_regime", "<i8"),  # when the current regime ends
        ("regime", "<i8"),
        ("direction", "<i8"),  # sign of the tilt in a directional regime
        ("heat", "<f8"),  # self-excitation of all rates
        ("lean", "<f8"),  # self-excitation of the market orders' sign
        ("anchor", "<f8"),  # price the mid reverts to, ticks
        ("start", "<f8"),  # price at the start, ticks: what the index measures moves against
        ("bid", "<i8"),  # best prices, ticks; 0: that side is empty
        ("ask", "<i8"),
        ("last", "<i8"),  # last traded price
        ("own", "<i8"),  # client orders of this symbol in the pool
        ("halted", "<i8"),
        ("frozen", "<i8"),  # market data withheld: the market runs on unseen
        ("wide_ticks", "<i8"),  # background quotes keep at least this spread; 0 or 1: none asked for
        ("offset_bid", "<i8"),  # displayed bids are this many ticks off (a crossed feed), until t_offset
        ("t_offset", "<i8"),
        ("shock_ticks", "<i8"),  # commanded move and how much of it is done
        ("shock_done", "<i8"),
        ("shock_t0", "<i8"),
        ("shock_t1", "<i8"),
        ("tick_num", "<f8"),  # price in currency = ticks * tick_num / tick_den: correctly rounded for decimal ticks
        ("tick_den", "<f8"),
        ("number", "<i8"),  # symbol number in events
        ("pad", "<i8"),
    ]
)

OWN_ORDER = np.dtype(
    [
        ("key", "<i8"),
        ("slot", "<i8"),
        ("side", "<i8"),  # +1 buy, -1 sell
        ("price", "<i8"),  # ticks; MARKET_PRICE while a market order is held
        ("qty", "<f8"),  # total
        ("left", "<f8"),
        ("ahead", "<f8"),  # background shares before it in its queue
        ("state", "<i8"),
    ]
)
"""Client orders in arrival order: at one price a lower index has priority."""

TRUTH = np.dtype([("t_ns", "<i8"), ("symbol", "<i8"), ("regime", "<i8"), ("direction", "<i8")])
"""One regime change of one symbol. Research only: nothing that trades may read it."""

RESTING, PARKED, HELD = 0, 1, 2
"""In the grid; off the grid (a price no trade can reach); waiting for the end of a halt."""

MARKET_PRICE = 0
NEVER = (1 << 62) - 1
EPS = 1e-9
"""Sizes below this are nothing: only fractional orders can leave such dust."""

RUN_ROOM = 1024
"""Queue room before an event is run: its prints. Rows (8 a level) and client fills (4 an order) come on top."""

# control words (int64)
C_TAIL = 0  # events written to the queue
C_OWN = 1  # client orders in the pool
C_TRUTH = 2  # rows in the truth log
C_LOST = 3  # events that found no room: the shell's reserve is wrong if this ever moves
C_NOW = 4  # time the market has reached
C_INDEX_T = 5  # next index print; NEVER without an index
C_INDEX_NUMBER = 6
C_INDEX_FROZEN = 7
C_GAP_T0 = 8
C_GAP_T1 = 9
C_LOG = 10  # 1: write the truth log
CONTROL_WORDS = 16

# index words (float64)
X_BASE = 0
X_GAP_FROM = 1
X_GAP_TO = 2
X_VALUE = 3
INDEX_WORDS = 8

INDEX_PERIOD_NS = 250_000_000
MAX_WALK_LEVELS = 512
"""One order walks at most so many levels in one go; what then remains rests."""

# columns of the regime parameter table
P_MARKET = 0  # market orders per second, both sides
P_LIMIT = 1  # limit orders per second and side, all distances
P_TILT = 2
P_SIZE = 3
P_HEAT = 4  # what one market order adds to heat and, signed, to lean
P_LEAN = 5
PARAMETERS = 6

HEAT_TAU_S = 2.0
"""Both excitations fade with this time constant."""
