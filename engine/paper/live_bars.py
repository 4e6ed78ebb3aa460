"""Bars that keep coming: real-time bars of five seconds, and historical requests that are kept up to date."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from engine.paper import messages_out as out
from engine.paper.history import Bar, bar_start_s
from engine.paper.market_data import MarketFeed

LIVE_WIDTH_S = 5
Within = Callable[[float], bool] | None
"""Which seconds count; None: all of them."""


class BarClient(Protocol):
    def send(self, message: bytes) -> None: ...

    def error(self, req_id: int, code: int, message: str) -> None: ...


@dataclass(slots=True, eq=False)
class BarLine:
    """``width_s`` 0 marks a real-time bar subscription."""

    client: BarClient
    req_id: int
    symbol: int
    what: str
    width_s: int
    date_format: int
    within: Within = None


class LiveBars:
    """Subscriptions to bars; ``tick`` is called with the wall time and sends what has become due."""

    def __init__(self, feed: MarketFeed, stamp: Callable[[int, int, int], str]) -> None:
        self._feed = feed
        self._stamp = stamp
        self._lines: list[BarLine] = []
        self._slot = 0

    def subscribe_live(self, client: BarClient, req_id: int, symbol: int, what: str, within: Within = None) -> None:
        self._add(BarLine(client, req_id, symbol, what, 0, 2, within))

    def subscribe_update(
        self,
        client: BarClient,
        req_id: int,
        symbol: int,
        what: str,
        width_s: int,
        date_format: int,
        within: Within = None,
    ) -> None:
        self._add(BarLine(client, req_id, symbol, what, width_s, date_format, within))

    def _add(self, line: BarLine) -> None:
        if any(known.client is line.client and known.req_id == line.req_id for known in self._lines):
            line.client.error(line.req_id, 102, "Duplicate ticker ID.")
            return
        self._lines.append(line)

    def unsubscribe(self, client: BarClient, req_id: int) -> None:
        """Cancelling a finished request is no error: a client can't know that it has finished."""
        self._lines = [line for line in self._lines if line.client is not client or line.req_id != req_id]

    def forget(self, client: BarClient) -> None:
        self._lines = [line for line in self._lines if line.client is not client]

    def tick(self, wall_s: float) -> None:
        """Send the bars of the five seconds that have ended."""
        slot = int(wall_s) // LIVE_WIDTH_S
        if slot == self._slot:
            return
        self._slot = slot
        end_s = slot * LIVE_WIDTH_S
        for line in self._lines:
            if line.within is not None and not line.within(float(end_s - LIVE_WIDTH_S)):
                continue
            if line.width_s == 0:
                bar = self._last(line, LIVE_WIDTH_S, end_s - LIVE_WIDTH_S, end_s)
                if bar is not None:
                    line.client.send(out.real_time_bar(line.req_id, end_s - LIVE_WIDTH_S, bar))
                continue
            start_s = bar_start_s(end_s, line.width_s)
            bar = self._last(line, line.width_s, start_s, wall_s + 1)
            if bar is not None:
                stamp = self._stamp(start_s, line.width_s, line.date_format)
                line.client.send(out.historical_data_update(line.req_id, stamp, bar))

    def _last(self, line: BarLine, width_s: int, start_s: int, end_s: float) -> Bar | None:
        bars = self._feed.history[line.symbol].bars(line.what, width_s, start_s, end_s, line.within)
        if bars:
            return bars[-1][1]
        mark = self._feed.books[line.symbol].mark()
        return (mark, mark, mark, mark, 0.0, mark, 0) if mark == mark else None
