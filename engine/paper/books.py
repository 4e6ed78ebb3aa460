"""What a client sees of one symbol now: its depth rows, quote, last trade. Built from the market's events only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from engine.domain.codes import DepthOp

Row = tuple[float, float]
"""Price and size."""
RowChange = tuple[int, int, float, float]
"""Operation, row number, price, size."""

_INSERT, _UPDATE, _DELETE = int(DepthOp.INSERT), int(DepthOp.UPDATE), int(DepthOp.DELETE)


class Marks(Mapping[int, float]):
    """Prices at which positions are valued, by symbol, computed when they are asked for."""

    __slots__ = ("_books",)

    def __init__(self, books: Mapping[int, SymbolBook]) -> None:
        self._books = books

    def __getitem__(self, symbol: int) -> float:
        return self._books[symbol].mark()

    def __iter__(self) -> Iterator[int]:
        return iter(self._books)

    def __len__(self) -> int:
        return len(self._books)


def window(rows_after: list[Row], change: RowChange, limit: int) -> list[RowChange]:
    """What a subscriber of the first ``limit`` rows must be told of a change of the full book. Pure.

    ``rows_after`` is the side after the change. Rows that the change pushes out of the window are deleted first; a row
    that moves into it is inserted after.
    """
    op, level = change[:2]
    if level >= limit:
        return []
    if op == _INSERT and len(rows_after) > limit:
        return [(_DELETE, limit - 1, 0.0, 0.0), change]
    if op == _DELETE and len(rows_after) >= limit:
        entering = rows_after[limit - 1]
        return [change, (_INSERT, limit - 1, entering[0], entering[1])]
    return [change]


def caught_up(before: tuple[list[Row], list[Row]], after: tuple[list[Row], list[Row]]) -> list[tuple[int, RowChange]]:
    """Ordinary changes, each with its side, that lead from rows that were told to those of now. Pure.

    Rows that are gone leave first, on both sides and from the bottom; then sizes; then what is new, from the top. So
    the rows are sorted, whole and uncrossed after every single change.
    """
    deletes: list[tuple[int, RowChange]] = []
    others: list[tuple[int, RowChange]] = []
    for side in (0, 1):
        now = after[side]
        prices = {price for price, _ in now}
        kept = dict(before[side])
        for level in range(len(before[side]) - 1, -1, -1):
            price = before[side][level][0]
            if price not in prices:
                deletes.append((side, (_DELETE, level, 0.0, 0.0)))
                del kept[price]
        left = [price for price, _ in before[side] if price in kept]
        others += [
            (side, (_UPDATE, left.index(price), price, size))
            for price, size in now
            if price in kept and kept[price] != size
        ]
        others += [(side, (_INSERT, n, price, size)) for n, (price, size) in enumerate(now) if price not in kept]
    return deletes + others


@dataclass(slots=True)
class SymbolBook:
    """Rows are best first. Prices in USD, sizes in shares; NaN until first seen."""

    asks: list[Row] = field(default_factory=list)
    bids: list[Row] = field(default_factory=list)
    bid: float = math.nan
    bid_size: float = 0.0
    ask: float = math.nan
    ask_size: float = 0.0
    last: float = math.nan
    last_size: float = 0.0
    last_s: int = 0
    volume: float = 0.0
    turnover: float = 0.0
    opened: float = math.nan
    high: float = math.nan
    low: float = math.nan
    close: float = math.nan
    halted: bool = False
    bad_rows: int = 0

    def side(self, side: int) -> list[Row]:
        """Rows of a side, numbered as in depth messages: 0 ask, 1 bid."""
        return self.bids if side else self.asks

    def apply(self, side: int, change: RowChange) -> bool:
        """Apply one row change; False (and counted) if it names a row that can't exist."""
        op, level, price, size = change
        rows = self.bids if side else self.asks
        if op == _INSERT and level <= len(rows):
            rows.insert(level, (price, size))
        elif op == _UPDATE and level < len(rows):
            rows[level] = (price, size)
        elif op == _DELETE and level < len(rows):
            del rows[level]
        else:
            self.bad_rows += 1
            return False
        return True

    def quoted(self, side: int, price: float, size: float) -> None:
        if side:
            self.bid, self.bid_size = price, size
        else:
            self.ask, self.ask_size = price, size

    def traded(self, wall_s: float, price: float, size: float) -> None:
        self.last, self.last_size, self.last_s = price, size, int(wall_s)
        self.volume += size
        self.turnover += price * size
        if math.isnan(self.opened):
            self.opened = self.high = self.low = price
        self.high = max(self.high, price)
        self.low = min(self.low, price)

    @property
    def two_sided(self) -> bool:
        return self.bid > 0 and self.ask > 0

    def mark(self) -> float:
        """Price at which a position is valued: mid, else last, else the previous close."""
        if self.two_sided:
            return (self.bid + self.ask) / 2
        return self.last if self.last == self.last else self.close
