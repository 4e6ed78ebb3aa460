"""Ticks for the market tests, and the same kernels interpreted."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
from hypothesis import strategies as st

from engine.domain.codes import BookSide, DepthOp, TickKind
from engine.domain.instruments import SIM_INDEX, SIM_UNIVERSE
from engine.market import book, features, publish
from engine.market.state import Market
from shm.layouts import TICK

INSTRUMENTS = (SIM_UNIVERSE[0], SIM_UNIVERSE[1], replace(SIM_INDEX, index=2))
MS = 1_000_000
BAR_NS = 10_000 * MS
NOON = 1_000 * BAR_NS
"""Tests start at a bar boundary."""
BID, ASK = BookSide.BID, BookSide.ASK
INSERT, UPDATE, DELETE = DepthOp.INSERT, DepthOp.UPDATE, DepthOp.DELETE


def tick(t_ms: float, kind: TickKind = TickKind.DEPTH, symbol: int = 0, **fields: Any) -> np.ndarray:
    """One tick ``t_ms`` after NOON."""
    record = np.zeros(1, TICK)
    record["t_socket_ns"] = NOON + int(t_ms * MS)
    record["kind"] = kind
    record["symbol"] = symbol
    for name, value in fields.items():
        record[name] = value
    return record


def row(
    t_ms: float, op: int, side: int, level: int, price: float = 0.0, size: float = 0.0, symbol: int = 0
) -> np.ndarray:
    return tick(t_ms, symbol=symbol, op=op, side=side, level=level, price=price, size=size)


def plain_book(
    t_ms: float = 0.0, symbol: int = 0, rows: int = 3, bid: float = 100.0, ask: float = 100.01
) -> list[np.ndarray]:
    """Inserts of a book with ``rows`` levels of 100, 200, ... shares a cent apart."""
    ticks = []
    for k in range(rows):
        ticks.append(row(t_ms, INSERT, BID, k, bid - 0.01 * k, 100.0 * (k + 1), symbol))
        ticks.append(row(t_ms, INSERT, ASK, k, ask + 0.01 * k, 100.0 * (k + 1), symbol))
    return ticks


def feed(market: Market, *ticks: np.ndarray) -> list[np.ndarray]:
    """Drain ticks as one batch; returns copies of the bars that closed."""
    return [bars.copy() for bars in market.drain(np.concatenate(ticks))]


def market(**options: Any) -> Market:
    return Market(INSTRUMENTS, **options)


def rows_of(m: Market, side: int, symbol: int = 0) -> list[tuple[float, float]]:
    me = m.state[symbol]
    n = int(me["row_n"][side])
    return list(zip(me["row_price"][side, :n].tolist(), me["row_size"][side, :n].tolist(), strict=True))


@contextmanager
def interpreted() -> Any:
    """All market kernels as plain Python for the time of the block."""
    modules: tuple[ModuleType, ...] = (book, features, publish)
    saved = [(m, name, value) for m in modules for name, value in vars(m).items() if hasattr(value, "py_func")]
    for m, name, value in saved:
        setattr(m, name, value.py_func)
    try:
        yield
    finally:
        for m, name, value in saved:
            setattr(m, name, value)


def any_ticks(garbage: bool) -> st.SearchStrategy[np.ndarray]:
    """Ticks in time order over about four bars; with ``garbage`` any bytes may stand in price, size and codes."""
    cents = st.integers(9_950, 10_050).map(lambda c: c / 100.0)
    sizes = st.integers(0, 20).map(lambda n: 100.0 * n)
    if garbage:
        odd = st.sampled_from([float("nan"), float("inf"), -float("inf"), -1.0, 0.0, 1e300, 5e-324])
        cents, sizes = st.one_of(cents, odd), st.one_of(sizes, odd)
    small = st.integers(0, 255) if garbage else st.integers(0, 11)
    kinds = st.integers(0, 255) if garbage else st.sampled_from([1, 1, 1, 1, 2, 3, 4, 5, 6])
    one = st.tuples(
        st.integers(0, 400),  # ms since the one before
        st.one_of(st.just(1), kinds),
        st.integers(0, 3) if garbage else st.integers(0, 2),
        small if garbage else st.integers(0, 1),
        small if garbage else st.integers(0, 2),
        small,
        cents,
        sizes,
    )

    def build(items: list[tuple[Any, ...]]) -> np.ndarray:
        ticks = np.zeros(len(items), TICK)
        t = NOON
        for record, (dt, kind, symbol, side, op, level, price, size) in zip(ticks, items, strict=True):
            t += dt * MS
            record["t_socket_ns"], record["kind"], record["symbol"], record["side"] = t, kind, symbol, side
            record["op"], record["level"], record["price"], record["size"] = op, level, price, size
        return ticks

    return st.lists(one, min_size=1, max_size=120).map(build)
