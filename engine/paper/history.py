"""Bars and ticks of what the market has done since the gateway started. Bounded, allocated once, no I/O.

Bars are kept at two widths, one second for two hours and one minute for two days; wider bars are merged from these.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import numpy.typing as npt

FINE_S, FINE_ROWS = 1, 7_200
COARSE_S, COARSE_ROWS = 60, 2_880
TICKS_KEPT = 5_000
SERIES = ("TRADES", "MIDPOINT", "BID", "ASK")
_FIELDS = 7  # open, high, low, close, volume, turnover, count

Bar = tuple[float, float, float, float, float, float, int]
"""Open, high, low, close, volume, volume-weighted price, count."""


class BarSeries:
    """Bars of one width as a ring of rows; ``add`` merges a value into the current bar."""

    __slots__ = ("_count", "_current", "_rows", "_starts", "width_s")

    def __init__(self, width_s: int, rows: int) -> None:
        self.width_s = width_s
        self._rows: npt.NDArray[np.float64] = np.zeros((rows, _FIELDS))
        self._starts: npt.NDArray[np.int64] = np.zeros(rows, np.int64)
        self._count = 0
        self._current: list[float] | None = None

    def add(self, start_s: int, price: float, size: float) -> None:
        """A price (and traded size, 0 for quotes) within the bar that starts at ``start_s``."""
        current = self._current
        if current is not None and self._start() == start_s:
            if price > current[1]:
                current[1] = price
            elif price < current[2]:
                current[2] = price
            current[3] = price
            current[4] += size
            current[5] += size * price
            current[6] += 1
            return
        if current is not None:
            self._rows[(self._count - 1) % len(self._rows)] = current
        self._starts[self._count % len(self._rows)] = start_s
        self._current = [price, price, price, price, size, size * price, 1.0]
        self._count += 1

    def _start(self) -> int:
        return int(self._starts[(self._count - 1) % len(self._rows)])

    def rows(self, since_s: float, until_s: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Starts (n,) and rows (n, 7) of the bars that start in [since_s, until_s), oldest first; both are copies."""
        if self._current is None:
            return np.zeros(0, np.int64), np.zeros((0, _FIELDS))
        self._rows[(self._count - 1) % len(self._rows)] = self._current
        kept = min(self._count, len(self._rows))
        order = np.arange(self._count - kept, self._count) % len(self._rows)
        starts = self._starts[order]
        chosen = (starts >= since_s) & (starts < until_s)
        return starts[chosen], self._rows[order[chosen]]


def merge(starts: npt.NDArray[np.int64], rows: npt.NDArray[np.float64], width_s: int) -> list[tuple[int, Bar]]:
    """Bars of ``width_s`` from narrower ones. Pure."""
    merged: list[tuple[int, Bar]] = []
    groups = starts - starts % width_s
    edges = np.flatnonzero(np.diff(groups)) + 1
    for part, row in zip(np.split(groups, edges), np.split(rows, edges), strict=True):
        if not len(part):
            continue
        volume = float(row[:, 4].sum())
        close = float(row[-1, 3])
        wap = float(row[:, 5].sum()) / volume if volume > 0 else close
        bar = (
            float(row[0, 0]),
            float(row[:, 1].max()),
            float(row[:, 2].min()),
            close,
            volume,
            wap,
            int(row[:, 6].sum()),
        )
        merged.append((int(part[0]), bar))
    return merged


class SymbolHistory:
    """All series and recent ticks of one symbol."""

    __slots__ = ("_series", "first_s", "quotes", "trades")

    def __init__(self) -> None:
        self._series = {name: (BarSeries(FINE_S, FINE_ROWS), BarSeries(COARSE_S, COARSE_ROWS)) for name in SERIES}
        self.trades: deque[tuple[int, float, float]] = deque(maxlen=TICKS_KEPT)  # wall s, price, size
        self.quotes: deque[tuple[int, float, float, float, float]] = deque(maxlen=TICKS_KEPT)  # s, bid, ask, sizes
        self.first_s = math.inf

    def trade(self, wall_s: float, price: float, size: float) -> None:
        self._add("TRADES", wall_s, price, size)
        self.trades.append((int(wall_s), price, size))

    def quote(self, wall_s: float, bid: float, ask: float, bid_size: float, ask_size: float) -> None:
        """Best bid and ask after a change."""
        self._add("BID", wall_s, bid, 0.0)
        self._add("ASK", wall_s, ask, 0.0)
        self._add("MIDPOINT", wall_s, (bid + ask) / 2, 0.0)
        self.quotes.append((int(wall_s), bid, ask, bid_size, ask_size))

    def _add(self, name: str, wall_s: float, price: float, size: float) -> None:
        second = int(wall_s)
        if second < self.first_s:
            self.first_s = second
        fine, coarse = self._series[name]
        fine.add(second, price, size)
        coarse.add(second - second % COARSE_S, price, size)

    def bars(self, what: str, width_s: int, since_s: float, until_s: float) -> list[tuple[int, Bar]]:
        """Bars of ``width_s`` seconds with their start, oldest first. ``what`` is one of SERIES."""
        fine, coarse = self._series[what]
        source = coarse if width_s % COARSE_S == 0 else fine
        starts, rows = source.rows(since_s - since_s % source.width_s, until_s)
        return merge(starts, rows, width_s)


_UNITS_S = {"S": 1, "D": 86_400, "W": 7 * 86_400, "M": 30 * 86_400, "Y": 365 * 86_400}
_BAR_UNITS_S = {"sec": 1, "min": 60, "hour": 3_600, "day": 86_400, "week": 7 * 86_400, "month": 30 * 86_400}
_MAX_DURATION_S = 100 * _UNITS_S["Y"]


def duration_s(text: str) -> int:
    """Seconds of a duration such as ``1800 S`` or ``2 D``. Raises ValueError."""
    count, _, unit = text.partition(" ")
    if not count.isdigit() or unit.upper() not in _UNITS_S or int(count) < 1:
        raise ValueError(
            f"duration {text[:20]!r}, expected a number and one of {', '.join(_UNITS_S)}, such as '1800 S'"
        )
    seconds = int(count) * _UNITS_S[unit.upper()] if len(count) < 12 else math.inf
    if seconds > _MAX_DURATION_S:
        raise ValueError(f"duration {text[:20]!r}, allowed are at most 100 Y")
    return int(seconds)


def bar_size_s(text: str) -> int:
    """Seconds of a bar size such as ``5 secs`` or ``1 min``. Raises ValueError."""
    count, _, unit = text.partition(" ")
    name = unit.removesuffix("s") if unit != "s" else unit
    if not count.isdigit() or name not in _BAR_UNITS_S or len(count) > 2 or int(count) < 1:
        raise ValueError(f"bar size {text[:20]!r}, expected for example '5 secs', '1 min', '1 hour', '1 day'")
    return int(count) * _BAR_UNITS_S[name]
