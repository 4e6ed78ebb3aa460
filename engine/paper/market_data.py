"""Books and history of every symbol, fed by the market's events, and the subscriptions that hang on them.

Quotes of stocks are conflated (a client gets the newest values every ``QUOTE_INTERVAL_NS``); depth and prints are not;
index values go out at once.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.paper.books import RowChange, SymbolBook
from engine.paper.catalog import Catalog
from engine.paper.depth_lines import DepthLines
from engine.paper.history import SymbolHistory
from engine.paper.lines import Subscriber
from engine.paper.port import MarketEventKind, MarketSource
from engine.paper.prints import Prints
from engine.paper.tickers import Tickers

QUOTE_INTERVAL_NS = 100_000_000

_QUOTE, _TRADE, _INDEX = int(MarketEventKind.QUOTE), int(MarketEventKind.TRADE), int(MarketEventKind.INDEX)


class MarketFeed:
    """What the clients see of the market.

    ``silent`` and, by symbol, ``stalled`` are faults: subscriptions stay, nothing is sent. When they end, depth goes on
    with ordinary changes that bring every client's rows up to date.
    """

    def __init__(
        self,
        source: MarketSource,
        catalog: Catalog,
        max_depth_lines: int,
        wall_of: Callable[[int], float],
        wall_s: Callable[[], float],
    ) -> None:
        self.books = {symbol: SymbolBook() for symbol in catalog.instruments}
        self.history = {symbol: SymbolHistory() for symbol in catalog.instruments}
        self.depth = DepthLines(self.books, catalog, source.levels, max_depth_lines)
        self.tickers = Tickers(self.books, catalog)
        self.prints = Prints(self.books, catalog, max_depth_lines, wall_s)
        self.silent = False
        self.stalled: set[int] = set()
        self._wall_of = wall_of
        self._changed: set[int] = set()
        self._flushed_ns = 0
        for symbol, instrument in catalog.instruments.items():
            self.books[symbol].close = instrument.start_price
        for instrument in source.instruments:
            if instrument.tradable:
                self._seed(instrument.index, source)

    def _seed(self, symbol: int, source: MarketSource) -> None:
        bids, asks = source.snapshot(symbol)
        book = self.books[symbol]
        book.bids = [(float(p), float(s)) for p, s in bids]
        book.asks = [(float(p), float(s)) for p, s in asks]
        if book.bids:
            book.bid, book.bid_size = book.bids[0]
        if book.asks:
            book.ask, book.ask_size = book.asks[0]

    def forget(self, client: Subscriber) -> None:
        """A connection is gone."""
        self.depth.forget(client)
        self.tickers.lines.forget(client)
        self.prints.lines.forget(client)

    def subscribe_depth(self, client: Subscriber, req_id: int, symbol: int, rows: int, smart: bool) -> None:
        """A new line of depth; rows now, changes unless a fault keeps them."""
        self.depth.subscribe(client, req_id, symbol, rows, smart)
        if not self._told(symbol):
            self.depth.hush(symbol)

    def forget_all(self) -> None:
        """All subscriptions are lost, as after 1101."""
        self.depth.clear()
        self.tickers.lines.clear()
        self.prints.lines.clear()

    def row_changed(self, symbol: int, side: int, change: RowChange) -> None:
        """A DEPTH event."""
        if self.books[symbol].apply(side, change) and not self.silent and symbol not in self.stalled:
            self.depth.changed(symbol, side, change)

    def handle(self, t_ns: int, price: float, size: float, symbol: int, kind: int, side: int, flag: int) -> None:
        """Any other market event that isn't about a client order."""
        if kind == _QUOTE:
            self._quote(symbol, self._wall_of(t_ns), side, price, size)
        elif kind == _TRADE:
            self._trade(symbol, self._wall_of(t_ns), price, size)
        elif kind == _INDEX:
            wall_s = self._wall_of(t_ns)
            self.books[symbol].traded(wall_s, price, 0.0)
            self.history[symbol].trade(wall_s, price, 0.0)
            if self._told(symbol):
                self.tickers.changed(symbol)
        elif kind == MarketEventKind.HALT:
            self.books[symbol].halted = bool(flag)
            self.tickers.halted(symbol)
            if flag:
                self.depth.halt(symbol)
        elif kind == MarketEventKind.RESET:
            self.books[symbol].bids.clear()
            self.books[symbol].asks.clear()
            self.depth.void(symbol)

    def _quote(self, symbol: int, wall_s: float, side: int, price: float, size: float) -> None:
        book = self.books[symbol]
        book.quoted(side, price, size)
        self._changed.add(symbol)
        if book.two_sided:
            self.history[symbol].quote(wall_s, book.bid, book.ask, book.bid_size, book.ask_size)
            if self._told(symbol):
                self.prints.quoted(symbol, wall_s)

    def _trade(self, symbol: int, wall_s: float, price: float, size: float) -> None:
        self.books[symbol].traded(wall_s, price, size)
        self.history[symbol].trade(wall_s, price, size)
        self._changed.add(symbol)
        if self._told(symbol):
            self.prints.traded(symbol, wall_s)
            self.tickers.traded(symbol, wall_s)

    def flush_quotes(self, now_ns: int) -> None:
        """Send the conflated quotes that are due."""
        if not self._changed or self.silent or now_ns - self._flushed_ns < QUOTE_INTERVAL_NS:
            return
        self._flushed_ns = now_ns
        for symbol in self._changed:
            if symbol not in self.stalled:
                self.tickers.changed(symbol)
        self._changed.clear()

    def _told(self, symbol: int) -> bool:
        return not self.silent and symbol not in self.stalled

    def hush(self) -> None:
        """Nothing is told from now on, and nothing says so."""
        self.silent = True
        for symbol in self.books:
            self.depth.hush(symbol)

    def stall(self, symbol: int) -> None:
        """Nothing is told of one symbol from now on."""
        self.stalled.add(symbol)
        self.depth.hush(symbol)

    def speak(self) -> None:
        """End a silence."""
        self.silent = False
        for symbol in self.books:
            self._go_on(symbol)

    def unstall(self, symbol: int) -> None:
        """End the silence of one symbol."""
        if symbol in self.stalled:
            self.stalled.discard(symbol)
            self._changed.add(symbol)
            self._go_on(symbol)

    def _go_on(self, symbol: int) -> None:
        if self._told(symbol):
            self.depth.resume(symbol)
