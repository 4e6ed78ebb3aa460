"""Numba types of the market kernels' arguments, made in one place.

Kernel modules take their types from here instead of from numba, because ``shm.jit`` has to be imported before numba.
"""

# ruff: noqa: I001
from __future__ import annotations

from shm.jit import rec
from numba import types

from engine.paper.market.layout import OWN_ORDER, SYMBOL_STATE, TRUTH
from engine.paper.port import MARKET_EVENT

void = types.void
boolean = types.boolean
i8 = types.int64
f8 = types.float64
Q = rec(MARKET_EVENT)
SYM = rec(SYMBOL_STATE)
OWN = rec(OWN_ORDER)
LOG = rec(TRUTH)
U1 = types.Array(types.uint8, 1, "C", readonly=True)
I1 = types.int64[::1]
F1 = types.float64[::1]
I2 = types.int64[:, ::1]
F2 = types.float64[:, ::1]
I3 = types.int64[:, :, ::1]
F3 = types.float64[:, :, ::1]
