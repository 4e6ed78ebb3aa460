"""Marks of all symbols from their book cells: compiled, for the bridge looks at all of them 50 times a second."""

# ruff: noqa: I001  (shm.jit sets the kernel cache before numba is imported)
from __future__ import annotations

import math

import numpy as np

from shm.jit import kernel, rec
from numba import types

from engine.risk.pretrade import SYMBOL_FACTS
from shm.kernels import SLOTS, TORN, cell_read
from shm.layouts import BOOK

_WORDS = BOOK.itemsize // 8
_RETRIES = 10_000
_i8, _f8 = types.int64, types.float64


@kernel(types.void(rec(SYMBOL_FACTS), types.int64[::1], rec(BOOK), types.int64[::1], _i8, _i8, _i8, _f8, _f8))
def mark(facts, cells, book, words, first, end, now_ns, stale_min_ns, stale_factor):  # type: ignore[no-untyped-def]
    """Mid and freshness of the tradable symbols from ``first`` to ``end``; ``words`` are those of ``book``, scratch.

    A cell whose writer died while writing leaves the last mid, and is not fresh.
    """
    for s in range(first, end):
        f = facts[s]
        if f.tradable == 0:
            continue
        if cell_read(cells, SLOTS + s * _WORDS, words, _RETRIES) == TORN:
            f.fresh = 0
            continue
        b = book[0]
        limit = stale_min_ns
        if b.gap_median_ns > 0.0:
            limit = max(limit, stale_factor * b.gap_median_ns)
        f.mid = b.mid if b.mid > 0.0 else math.nan
        f.fresh = 1 if b.valid != 0 and b.t_socket_ns > 0 and np.float64(now_ns - b.t_socket_ns) <= limit else 0
