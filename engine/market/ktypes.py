"""Numba types of the kernels' arguments, made in one place: ``shm.jit`` has to be imported before numba."""

# ruff: noqa: I001
from __future__ import annotations

from shm.jit import rec
from numba import types

from engine.market.layout import BAR, SYMBOL
from shm import layouts

void = types.void
i8 = types.int64
f8 = types.float64
I1 = types.int64[::1]
F1 = types.float64[::1]
TICKS = rec(layouts.TICK)
STATE = rec(SYMBOL)
BARS = rec(BAR)
BOOKS = rec(layouts.BOOK)
MODELS = rec(layouts.MODEL)
SIGNALS = rec(layouts.SIGNAL)
