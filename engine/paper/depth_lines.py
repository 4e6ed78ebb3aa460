"""Depth subscriptions. A row is encoded once; only the request id in front of it differs between subscribers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.paper.books import Row, RowChange, SymbolBook, caught_up, window
from engine.paper.catalog import Catalog
from engine.paper.framing import frame
from engine.paper.lines import Lines, Subscriber

MAX_ROWS = 60
RESET, HALTED = 317, 316
_TEXTS = {
    RESET: "Market depth data has been RESET. Please empty deep book contents before applying any new entries.",
    HALTED: "Market depth data has been HALTED. Please re-subscribe.",
}


@dataclass(slots=True, eq=False)
class DepthLine:
    """``head`` is everything of a message in front of the row. Smart depth is message 13, a single venue 12.

    ``told``: the rows that the client knows, asks and bids, while a fault keeps the newer ones from it.
    """

    client: Subscriber
    req_id: int
    symbol: int
    rows: int
    smart: bool
    head: bytes
    told: tuple[list[Row], list[Row]] | None = None


class DepthLines:
    """Who follows which book, how deep."""

    def __init__(self, books: Mapping[int, SymbolBook], catalog: Catalog, levels: int, max_lines: int) -> None:
        self.messages = 0
        self._books = books
        self._catalog = catalog
        self._levels = levels
        self._max_lines = max_lines
        self._lines: Lines[DepthLine] = Lines(books)
        self._cancelled: DepthLine | None = None

    def __len__(self) -> int:
        return len(self._lines)

    def subscribe(self, client: Subscriber, req_id: int, symbol: int, rows: int, smart: bool) -> None:
        """Start a line: errors 309, 321, 322, 10092, or all rows now and every change later."""
        if not self._catalog[symbol].tradable:
            text = "Deep market data is not supported for this combination of security type/exchange"
            client.error(req_id, 10092, text)
        elif self._lines.find(client, req_id) is not None:
            client.error(req_id, 322, "Error processing request.-'depth' : cause - Duplicate ticker id")
        elif len(self._lines) >= self._max_lines:
            client.error(req_id, 309, f"Max number ({self._max_lines}) of market depth requests has been reached")
        elif not 1 <= rows <= MAX_ROWS:
            cause = f"number of rows {rows} is outside 1..{MAX_ROWS}"
            client.error(req_id, 321, f"Error validating request.-'depth' : cause - {cause}")
        else:
            head = b"%d\x001\x00%d\x00" % (13 if smart else 12, req_id)
            line = DepthLine(client, req_id, symbol, min(rows, self._levels), smart, head)
            self._lines.add(line)
            self._send_rows(line)

    def unsubscribe(self, client: Subscriber, req_id: int) -> None:
        line = self._lines.find(client, req_id)
        if line is None:
            client.error(req_id, 310, f"Can't find the subscribed market depth with tickerId:{req_id}")
            return
        self._lines.remove(line)
        self._cancelled = line

    def forget(self, client: Subscriber) -> None:
        self._lines.forget(client)
        if self._cancelled is not None and self._cancelled.client is client:
            self._cancelled = None

    def clear(self) -> None:
        self._lines.clear()

    def changed(self, symbol: int, side: int, change: RowChange) -> None:
        """Tell everyone who follows a symbol of a change that the book already contains."""
        lines = self._lines.of(symbol)
        if not lines:
            return
        bodies: dict[tuple[int, bool], list[bytes]] = {}
        for line in lines:
            key = (line.rows, line.smart)
            encoded = bodies.get(key)
            if encoded is None:
                rows = self._books[symbol].side(side)
                seen = window(rows, change, line.rows) if line.rows < self._levels else [change]
                encoded = bodies[key] = [self._body(symbol, line.smart, side, row) for row in seen]
            head, push = line.head, line.client.push
            for body in encoded:
                push((len(head) + len(body)).to_bytes(4, "big") + head + body)
            self.messages += len(encoded)

    def hush(self, symbol: int) -> None:
        """Nothing is told of a symbol from now on."""
        for line in self._lines.of(symbol):
            if line.told is None:
                line.told = self._rows(line)

    def resume(self, symbol: int) -> None:
        """Tell what has changed meanwhile, as data that was kept: by ordinary changes, without a reset."""
        for line in self._lines.of(symbol):
            if line.told is None:
                continue
            changes = caught_up(line.told, self._rows(line))
            line.told = None
            for side, change in changes:
                line.client.push(frame(line.head + self._body(symbol, line.smart, side, change)))
            self.messages += len(changes)

    def _rows(self, line: DepthLine) -> tuple[list[Row], list[Row]]:
        book = self._books[line.symbol]
        return book.asks[: line.rows], book.bids[: line.rows]

    def void(self, symbol: int) -> None:
        """Tell subscribers that the rows are void; new ones follow."""
        for line in self._lines.of(symbol):
            line.client.error(line.req_id, RESET, _TEXTS[RESET])

    def reset(self, symbol: int) -> None:
        """Void the rows and send those of the book anew."""
        self.void(symbol)
        for line in self._lines.of(symbol):
            self._send_rows(line)
            if line.told is not None:
                line.told = self._rows(line)

    def halt(self, symbol: int) -> None:
        """A halt ends the subscriptions, as at the broker: clients must subscribe again."""
        for line in self._lines.take(symbol):
            line.client.error(line.req_id, HALTED, _TEXTS[HALTED])

    def malform(self, symbol: int) -> int:
        """Send every subscriber an update of a row that doesn't exist; returns how many."""
        lines = self._lines.of(symbol)
        for line in lines:
            body = self._body(symbol, line.smart, 1, (1, 99, self._books[symbol].bid, 1.0))
            line.client.push(frame(line.head + body))
        return len(lines)

    def echo_cancelled(self) -> int:
        """Send a row on the line that was cancelled last; returns how many were sent."""
        line = self._cancelled
        if line is None:
            return 0
        book = self._books[line.symbol]
        line.client.send(line.head + self._body(line.symbol, line.smart, 1, (1, 0, book.bid, book.bid_size)))
        return 1

    def _send_rows(self, line: DepthLine) -> None:
        book = self._books[line.symbol]
        for side in (0, 1):
            for level, (price, size) in enumerate(book.side(side)[: line.rows]):
                line.client.send(line.head + self._body(line.symbol, line.smart, side, (0, level, price, size)))

    def _body(self, symbol: int, smart: bool, side: int, change: RowChange) -> bytes:
        op, level, price, size = change
        if smart:
            venue = self._catalog[symbol].primary_exchange.encode()
            return b"%d\x00%b\x00%d\x00%d\x00%.10g\x00%.10g\x001\x00" % (level, venue, op, side, price, size)
        return b"%d\x00%d\x00%d\x00%.10g\x00%.10g\x00" % (level, op, side, price, size)
