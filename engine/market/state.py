"""The market state of all symbols: owns the arrays, calls the kernels. No I/O and no clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from engine.domain.instruments import MAX_SYMBOLS, Instrument
from engine.market import features, micro, publish
from engine.market.book import check, set_fault
from engine.market.layout import (
    BAR,
    C_BAD,
    C_BAR_NS,
    C_FAULTS,
    C_NEXT_BAR,
    CONTROL_WORDS,
    FAIR_BUCKETS,
    GAP_RING,
    SPREAD_RING,
    SYMBOL,
    Fault,
)
from shm.layouts import BOOK, SIGNAL

Records = npt.NDArray[np.void]
MAX_EMPTY_BARS = 3
"""A silence longer than this many bars is a gap, not a row of empty bars."""
_MEDIAN_SAMPLES = 30
NEWS, EVERYTHING, BAR_END = 0, 1, 2


class Market:
    """Books and features of every instrument.

    ``stale_min_s`` and ``stale_factor`` give the age beyond which a symbol counts as stale: max(stale_min_s,
    stale_factor × its median gap); an index ``index_stale_s``. ``books`` (dtype BOOK) are the records to fill: a cell
    writer's values.
    """

    def __init__(
        self,
        instruments: Sequence[Instrument],
        *,
        bar_s: float = 10.0,
        depth_rows: int = 10,
        fair_value_s: float = 300.0,
        fair_value_min_s: float = 30.0,
        stale_min_s: float = 5.0,
        stale_factor: float = 20.0,
        index_stale_s: float = 15.0,
        books: Records | None = None,
    ) -> None:
        n = len(instruments)
        self.state: Records = np.zeros(n, SYMBOL)
        self.state["tick_size"] = [i.tick_size for i in instruments]
        self.state["index"] = [0 if i.tradable else 1 for i in instruments]
        self.state["row_limit"] = depth_rows
        self.state["session_open"] = 1
        self.state["fair_bucket_ns"] = fair_value_s * 1e9 / FAIR_BUCKETS
        self.state["fair_min_ns"] = fair_value_min_s * 1e9
        self.state["spread_median_bps"] = np.nan
        self.state["gap_median_ns"] = np.nan
        self._stale_min_ns = np.where(self.state["index"] == 1, index_stale_s, stale_min_s) * 1e9
        self._stale_factor = np.where(self.state["index"] == 1, 0.0, stale_factor)
        self.state["stale_ns"] = self._stale_min_ns
        self.control: npt.NDArray[np.int64] = np.zeros(CONTROL_WORDS, np.int64)
        self.bar_ns = int(bar_s * 1e9)
        self.control[C_BAR_NS] = self.bar_ns
        self.stocks = int((self.state["index"] == 0).sum())
        self.bars: Records = np.zeros(max(1, self.stocks), BAR)
        self.books: Records = np.zeros(MAX_SYMBOLS, BOOK) if books is None else books
        self.signals: Records = np.zeros(n, SIGNAL)
        self.changed: npt.NDArray[np.int64] = np.zeros(n + 1, np.int64)

    @property
    def bad_ticks(self) -> int:
        """Ticks of unknown symbols or kinds so far."""
        return int(self.control[C_BAD])

    @property
    def faults(self) -> int:
        """Faults of all symbols so far."""
        return int(self.control[C_FAULTS])

    def drain(self, ticks: Records) -> Iterator[Records]:
        """Apply ticks (dtype TICK); yields the bars (dtype BAR, one per stock, reused) of every bar end passed."""
        start, count = 0, len(ticks)
        while True:
            start = int(features.drain(ticks, start, count, self.state, self.control))
            if start >= count:
                return
            yield from self.close_until(int(ticks[start]["t_socket_ns"]))

    def close_until(self, t_ns: int) -> Iterator[Records]:
        """Close every bar that ends at or before ``t_ns``; after a long silence the bars between are skipped."""
        end = int(self.control[C_NEXT_BAR])
        if end == 0:
            self.control[C_NEXT_BAR] = (t_ns // self.bar_ns + 1) * self.bar_ns
            return
        closed = 0
        while t_ns >= end:
            n = features.close_bars(self.state, end, float(self.bar_ns), self.bars)
            # One symbol per bar end: a solution costs a fraction of a millisecond, all at once would be felt.
            micro.refresh(self.state[end // self.bar_ns % len(self.state)])
            closed += 1
            end += self.bar_ns
            if closed > MAX_EMPTY_BARS:
                end = (t_ns // self.bar_ns + 1) * self.bar_ns
            self.control[C_NEXT_BAR] = end
            yield self.bars[:n]

    @property
    def next_bar_ns(self) -> int:
        """End of the open bar; 0 before the first tick."""
        return int(self.control[C_NEXT_BAR])

    def publish(self, models: Records, now_ns: int, scope: int = NEWS) -> tuple[npt.NDArray[np.int64], Records]:
        """Symbols whose record in ``books`` is to be published, and the signals (views, reused).

        ``scope``: NEWS, EVERYTHING (staleness is no news) or BAR_END (everything, and a SIGNAL_BAR for every stock).
        """
        n = int(publish.publish(self.state, self.books, models, self.signals, self.changed, now_ns, scope))
        return self.changed[1 : 1 + int(self.changed[0])], self.signals[:n]

    def invalidate(self, now_ns: int) -> None:
        """Ticks were lost: no row of any stock can be trusted until it is inserted anew."""
        for s in np.flatnonzero(self.state["index"] == 0):
            set_fault(self.state, int(s), int(Fault.GAP), now_ns)
            self.state[s]["usable"] = 0
            self.state[s]["dirty"] = 1
        self.control[C_FAULTS] += self.stocks

    def refresh_medians(self, symbol: int = -1) -> None:
        """Medians of spread and message gap of a symbol (-1: of all), and the staleness that follows; call about once a
        second."""
        if symbol < 0:
            for s in range(len(self.state)):
                self.refresh_medians(s)
            return
        me = self.state[symbol]
        n = min(int(me["spread_i"]), SPREAD_RING)
        if n >= _MEDIAN_SAMPLES:
            me["spread_median_bps"] = np.median(me["spread_bps"][:n])
        n = min(int(me["gap_i"]), GAP_RING)
        if n >= _MEDIAN_SAMPLES:
            me["gap_median_ns"] = np.median(me["gap_ns"][:n])
            me["stale_ns"] = max(self._stale_min_ns[symbol], self._stale_factor[symbol] * me["gap_median_ns"])

    def check(self) -> list[str]:
        """Every broken invariant in words; empty if sound."""
        return check(self.state)
