"""Tick-by-tick subscriptions: every trade (Last, AllLast), every quote (BidAsk), every change of the mid (MidPoint)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine.paper import messages_out as out
from engine.paper.books import SymbolBook
from engine.paper.catalog import Catalog
from engine.paper.lines import Lines, Subscriber

_TRADES = ("Last", "AllLast")


@dataclass(slots=True, eq=False)
class PrintLine:
    """``kind`` is Last, AllLast, BidAsk or MidPoint; ``mid`` the mid sent last, ``quote`` the bid and ask sent last.

    ``ignore_size``: a quote of which only a size has changed is not sent.
    """

    client: Subscriber
    req_id: int
    symbol: int
    kind: str
    ignore_size: bool = False
    mid: float = math.nan
    quote: tuple[float, float] = (math.nan, math.nan)


class Prints:
    """Who follows which prints."""

    def __init__(
        self, books: Mapping[int, SymbolBook], catalog: Catalog, max_lines: int, wall_s: Callable[[], float]
    ) -> None:
        self._books = books
        self._catalog = catalog
        self._max_lines = max_lines
        self._wall_s = wall_s
        self.lines: Lines[PrintLine] = Lines(books)

    def subscribe(
        self, client: Subscriber, req_id: int, symbol: int, kind: str, ignore_size: bool = False, past: bytes = b""
    ) -> None:
        """Errors 102 and 10190, else the current quote (for kinds that have one) and all prints from now on.

        ``past``: a message with earlier ticks, which goes first.
        """
        if self.lines.find(client, req_id) is not None:
            client.error(req_id, 102, "Duplicate ticker ID.")
        elif len(self.lines) >= self._max_lines:
            client.error(req_id, 10190, "Max number of tick-by-tick requests has been reached.")
        else:
            line = PrintLine(client, req_id, symbol, kind, ignore_size)
            self.lines.add(line)
            if past:
                client.send(past)
            book = self._books[symbol]
            if kind not in _TRADES and book.two_sided:
                self._send_quote(line, book, int(self._wall_s()))

    def unsubscribe(self, client: Subscriber, req_id: int) -> None:
        line = self.lines.find(client, req_id)
        if line is None:
            client.error(req_id, 300, f"Can't find EId with tickerId:{req_id}")
        else:
            self.lines.remove(line)

    def traded(self, symbol: int, wall_s: float) -> None:
        """A public trade."""
        book = self._books[symbol]
        for line in self.lines.of(symbol):
            if line.kind in _TRADES:
                kind = 1 if line.kind == "Last" else 2
                venue = self._catalog[symbol].primary_exchange
                message = out.tick_by_tick_last(line.req_id, kind, int(wall_s), book.last, book.last_size, venue)
                line.client.send(message)

    def quoted(self, symbol: int, wall_s: float) -> None:
        """The best bid or ask has changed."""
        book = self._books[symbol]
        for line in self.lines.of(symbol):
            if line.kind not in _TRADES:
                self._send_quote(line, book, int(wall_s))

    @staticmethod
    def _send_quote(line: PrintLine, book: SymbolBook, wall_s: int) -> None:
        if line.kind == "BidAsk":
            if line.ignore_size and line.quote == (book.bid, book.ask):
                return
            line.quote = (book.bid, book.ask)
            sizes = (book.bid_size, book.ask_size)
            line.client.send(out.tick_by_tick_bid_ask(line.req_id, wall_s, book.bid, book.ask, *sizes))
            return
        mid = (book.bid + book.ask) / 2
        if mid != line.mid:
            line.mid = mid
            line.client.send(out.tick_by_tick_mid(line.req_id, wall_s, mid))
