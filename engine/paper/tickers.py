"""Top-of-book subscriptions: quotes, last trade, volume, day's range, halted and shortable marks, index values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.paper import messages_out as out
from engine.paper.books import SymbolBook
from engine.paper.catalog import Catalog
from engine.paper.generic_ticks import MARK_PRICE
from engine.paper.lines import Lines, Subscriber

MAX_LINES = 100
SHORTABLE_FREELY = 3.0
SHORTABLE_SHARES = 10_000_000.0
BBO_EXCHANGE = "9c0001"

_BID_PRICE, _ASK_PRICE, _LAST_PRICE, _HIGH, _LOW, _CLOSE, _OPEN = 1, 2, 4, 6, 7, 9, 14
_BID_SIZE, _ASK_SIZE, _LAST_SIZE, _VOLUME = 0, 3, 5, 8
_LAST_TIME, _SHORTABLE, _RT_VOLUME, _HALTED, _LAST_EXCHANGE, _SHORTABLE_SHARES = 45, 46, 48, 49, 84, 89
_MARK_PRICE, _RT_TRADE_VOLUME = 37, 77
_PRINTS = (("233", _RT_VOLUME), ("375", _RT_TRADE_VOLUME))


@dataclass(slots=True, eq=False)
class TickerLine:
    """``sent`` remembers by tick type what the client knows, so that only changes are sent."""

    client: Subscriber
    req_id: int
    symbol: int
    generic: frozenset[str]
    sent: dict[int, tuple[float, float]] = field(default_factory=dict)


class Tickers:
    """Who follows the top of which book."""

    def __init__(self, books: Mapping[int, SymbolBook], catalog: Catalog) -> None:
        self._books = books
        self._catalog = catalog
        self.lines: Lines[TickerLine] = Lines(books)

    def subscribe(self, client: Subscriber, req_id: int, symbol: int, generic: frozenset[str], snapshot: bool) -> bool:
        """Parameters, type and current values now, changes later; a snapshot ends with message 57.

        False after an error was sent.
        """
        if self.lines.find(client, req_id) is not None:
            client.error(req_id, 102, "Duplicate ticker ID.")
            return False
        if len(self.lines) >= MAX_LINES:
            client.error(req_id, 101, f"Max number of tickers has been reached ({MAX_LINES}).")
            return False
        line = TickerLine(client, req_id, symbol, generic)
        client.send(out.market_data_type(req_id, 1))
        client.send(out.tick_req_params(req_id, self._catalog[symbol].tick_size, BBO_EXCHANGE))
        self._send_once(line)
        self._send_changes(line)
        if snapshot:
            client.send(out.tick_snapshot_end(req_id))
        else:
            self.lines.add(line)
        return True

    def unsubscribe(self, client: Subscriber, req_id: int) -> None:
        line = self.lines.find(client, req_id)
        if line is None:
            client.error(req_id, 300, f"Can't find EId with tickerId:{req_id}")
        else:
            self.lines.remove(line)

    def changed(self, symbol: int) -> None:
        """Send the newest values of a symbol to its subscribers."""
        for line in self.lines.of(symbol):
            self._send_changes(line)

    def halted(self, symbol: int) -> None:
        """Send the halted mark of a symbol."""
        value = 1.0 if self._books[symbol].halted else 0.0
        for line in self.lines.of(symbol):
            line.client.send(out.tick_generic(line.req_id, _HALTED, value))

    def traded(self, symbol: int, wall_s: float) -> None:
        """Send a print to those who asked for the time-and-sales string (generic ticks 233, 375).

        They are the same here: every trade is reported.
        """
        book = self._books[symbol]
        value = ""
        for line in self.lines.of(symbol):
            kinds = [kind for tick, kind in _PRINTS if tick in line.generic]
            if kinds:
                if not value:
                    vwap = book.turnover / book.volume if book.volume else book.last
                    milliseconds = f"{wall_s * 1e3:.0f}"
                    value = f"{book.last:.2f};{book.last_size:.0f};{milliseconds};{book.volume:.0f};{vwap:.8f};true"
                for kind in kinds:
                    line.client.send(out.tick_string(line.req_id, kind, value))

    def _send_once(self, line: TickerLine) -> None:
        send, req_id = line.client.send, line.req_id
        book, instrument = self._books[line.symbol], self._catalog[line.symbol]
        send(out.tick_price(req_id, _CLOSE, book.close, 0.0, 0))
        if not instrument.tradable:
            return
        if book.opened == book.opened:
            send(out.tick_price(req_id, _OPEN, book.opened, 0.0, 0))
        send(out.tick_generic(req_id, _HALTED, 1.0 if book.halted else 0.0))
        send(out.tick_string(req_id, _LAST_EXCHANGE, instrument.primary_exchange[:1]))
        if "236" in line.generic:
            send(out.tick_generic(req_id, _SHORTABLE, SHORTABLE_FREELY))
            send(out.tick_size(req_id, _SHORTABLE_SHARES, SHORTABLE_SHARES))

    def _send_changes(self, line: TickerLine) -> None:
        book = self._books[line.symbol]
        self._send_value(line, _BID_PRICE, _BID_SIZE, book.bid, book.bid_size)
        self._send_value(line, _ASK_PRICE, _ASK_SIZE, book.ask, book.ask_size)
        if book.last_s and line.sent.get(_VOLUME) != (book.volume, book.last):
            line.sent[_VOLUME] = (book.volume, book.last)
            self._send_value(line, _LAST_PRICE, _LAST_SIZE, book.last, book.last_size)
            if line.sent.get(_LAST_TIME) != (book.last_s, 0.0):
                line.sent[_LAST_TIME] = (book.last_s, 0.0)
                line.client.send(out.tick_string(line.req_id, _LAST_TIME, str(book.last_s)))
            if book.volume:
                line.client.send(out.tick_size(line.req_id, _VOLUME, book.volume))
        if line.generic & MARK_PRICE:
            self._send_value(line, _MARK_PRICE, -1, book.mark(), 0.0)
        self._send_value(line, _HIGH, -1, book.high, 0.0)
        self._send_value(line, _LOW, -1, book.low, 0.0)

    def _send_value(self, line: TickerLine, price_type: int, size_type: int, price: float, size: float) -> None:
        if price != price:
            return
        sent = line.sent.get(price_type)
        if sent == (price, size):
            return
        line.sent[price_type] = (price, size)
        if size_type >= 0 and sent is not None and sent[0] == price:
            line.client.send(out.tick_size(line.req_id, size_type, size))
            return
        # An empty side has price 0 in the book; the broker says -1 when there is no quote.
        line.client.send(out.tick_price(line.req_id, price_type, price if price > 0 else -1.0, size))
        if size_type >= 0:
            line.client.send(out.tick_size(line.req_id, size_type, size))
