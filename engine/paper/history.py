"""Bars and ticks of what the market has done since the gateway started. Bounded, allocated once, no I/O.

Bars are kept at two widths, one second for two hours and one minute for two days; wider bars are merged from these.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from engine.paper.catalog import NEW_YORK

FINE_S, FINE_ROWS = 1, 7_200
COARSE_S, COARSE_ROWS = 60, 2_880
TICKS_KEPT = 5_000
SERIES = ("TRADES", "MIDPOINT", "BID", "ASK")
HISTORICAL = (*SERIES, "BID_ASK")
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

    def hold(self, since_s: float, until_s: float, price: float) -> None:
        """A price that stood for a while: every bar of that time has it, weighed by its seconds."""
        width_s = self.width_s
        while since_s < until_s:
            start_s = int(since_s) - int(since_s) % width_s
            end_s = min(until_s, float(start_s + width_s))
            self.add(start_s, price, end_s - since_s)
            since_s = end_s

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
    groups = _groups(starts, width_s)
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


def _groups(starts: npt.NDArray[np.int64], width_s: int) -> npt.NDArray[np.int64]:
    """Start of the bar of ``width_s`` that each of the narrower ones, oldest first, belongs to."""
    groups = starts - starts % width_s
    if width_s < DAY_S:
        return groups
    end = len(starts)
    while end:  # days, weeks and months differ in length; there are few of them
        edge_s = bar_start_s(int(starts[end - 1]), width_s)
        begin = int(np.searchsorted(starts, edge_s))
        groups[begin:end] = edge_s
        end = begin
    return groups


def bar_start_s(at_s: int, width_s: int) -> int:
    """When the bar began that holds a second: days, weeks (from Monday) and months are those of the calendar there."""
    if width_s < DAY_S:
        return at_s - at_s % width_s
    local = datetime.fromtimestamp(at_s, NEW_YORK)
    day = local.replace(hour=0, minute=0, second=0, fold=0)
    if width_s == MONTH_S:
        day = day.replace(day=1)
    elif width_s == WEEK_S:
        day -= timedelta(days=day.weekday())
    return int(day.timestamp())


class SymbolHistory:
    """All series and recent ticks of one symbol."""

    __slots__ = ("_quote", "_quoted_s", "_series", "quotes", "trades")

    def __init__(self) -> None:
        self._series = {name: (BarSeries(FINE_S, FINE_ROWS), BarSeries(COARSE_S, COARSE_ROWS)) for name in SERIES}
        self.trades: deque[tuple[int, float, float]] = deque(maxlen=TICKS_KEPT)  # wall s, price, size
        self.quotes: deque[tuple[int, float, float, float, float]] = deque(maxlen=TICKS_KEPT)  # s, bid, ask, sizes
        self._quote: tuple[float, float] | None = None
        self._quoted_s = 0.0

    def trade(self, wall_s: float, price: float, size: float) -> None:
        self._add("TRADES", wall_s, price, size)
        self.trades.append((int(wall_s), price, size))

    def quote(self, wall_s: float, bid: float, ask: float, bid_size: float, ask_size: float) -> None:
        """Best bid and ask after a change."""
        self._hold(wall_s)
        self._add("BID", wall_s, bid, 0.0)
        self._add("ASK", wall_s, ask, 0.0)
        self._add("MIDPOINT", wall_s, (bid + ask) / 2, 0.0)
        self._quote, self._quoted_s = (bid, ask), wall_s
        self.quotes.append((int(wall_s), bid, ask, bid_size, ask_size))

    def _hold(self, wall_s: float) -> None:
        """The quote until now weighs as long as it stood: its averages are over time. Volume holds the seconds."""
        since_s = max(self._quoted_s, wall_s - FINE_ROWS)
        if self._quote is None or wall_s <= since_s:
            return
        for name, value in zip(("BID", "ASK"), self._quote, strict=True):
            for series in self._series[name]:
                series.hold(since_s, wall_s, value)

    def _add(self, name: str, wall_s: float, price: float, size: float) -> None:
        second = int(wall_s)
        fine, coarse = self._series[name]
        fine.add(second, price, size)
        coarse.add(second - second % COARSE_S, price, size)

    def begins_s(self, what: str, within: Callable[[float], bool] | None = None) -> int | None:
        """The first second that ``bars`` can still tell of, of one of HISTORICAL; None if there is none."""
        fine, coarse = self._series["BID" if what == "BID_ASK" else what]
        minute_s = _first(coarse.rows(0, math.inf)[0], within)
        if minute_s is None:
            return None
        return _first(fine.rows(minute_s, minute_s + COARSE_S)[0], within) or minute_s

    def bars(
        self, what: str, width_s: int, since_s: float, until_s: float, within: Callable[[float], bool] | None = None
    ) -> list[tuple[int, Bar]]:
        """Bars of ``width_s`` seconds with their start, oldest first. ``what`` is one of HISTORICAL.

        ``within`` says which seconds count; None: all of them.
        """
        if what == "BID_ASK":
            bids = self.bars("BID", width_s, since_s, until_s, within)
            asks = self.bars("ASK", width_s, since_s, until_s, within)
            return [(start, _bid_ask(bid, ask)) for (start, bid), (_, ask) in zip(bids, asks, strict=True)]
        fine, coarse = self._series[what]
        source = coarse if width_s % COARSE_S == 0 else fine
        starts, rows = source.rows(since_s - since_s % source.width_s, until_s)
        if within is not None:
            chosen = np.array([within(float(start)) for start in starts], bool)
            starts, rows = starts[chosen], rows[chosen]
        return merge(starts, rows, width_s)


def _first(starts: npt.NDArray[np.int64], within: Callable[[float], bool] | None) -> int | None:
    return next((int(start) for start in starts if within is None or within(float(start))), None)


def _bid_ask(bid: Bar, ask: Bar) -> Bar:
    """The broker's bar of both sides: average bid, highest ask, lowest bid, average ask."""
    return (bid[5], ask[1], bid[2], ask[5], 0.0, 0.0, bid[6])


DAY_S = 86_400
WEEK_S = 7 * DAY_S
MONTH_S = 30 * DAY_S  # the name of a width: its bars are calendar months
_UNITS_S = {"S": 1, "D": DAY_S, "W": WEEK_S, "M": MONTH_S, "Y": 365 * DAY_S}
_MAX_DURATION_S = 100 * _UNITS_S["Y"]
BAR_SIZES_S: dict[str, int] = {
    **{f"{n} secs": n for n in (1, 5, 10, 15, 30)},
    "1 min": 60,
    **{f"{n} mins": n * 60 for n in (2, 3, 5, 10, 15, 20, 30)},
    "1 hour": 3_600,
    **{f"{n} hours": n * 3_600 for n in (2, 3, 4, 8)},
    "1 day": DAY_S,
    "1W": WEEK_S,
    "1M": MONTH_S,
}
"""The widths that the broker knows, as it names them."""
_ALSO = {"1 sec": "1 secs", "1 week": "1W", "1 month": "1M"}


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
    if unit.upper() == "S" and seconds > DAY_S:
        raise ValueError(f"duration {text[:20]!r}, allowed are at most {DAY_S} S; longer ones are asked for in days")
    return int(seconds)


def bar_size_s(text: str) -> int:
    """Seconds of a bar size such as ``5 secs`` or ``1 min``. Raises ValueError."""
    found = BAR_SIZES_S.get(_ALSO.get(text, text))
    if found is None:
        raise ValueError(
            f"historical data bar size setting {text[:20]!r} is invalid, legal ones are {', '.join(BAR_SIZES_S)}"
        )
    return found
