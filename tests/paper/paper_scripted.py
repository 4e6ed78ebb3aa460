"""A small deterministic market source: books that stand still until a test moves them, and real matching in them."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import numpy.typing as npt

from engine.domain.instruments import SIM_INDEX, SIM_UNIVERSE, Instrument
from engine.paper.port import MARKET_EVENT, MarketEventKind

Row = tuple[float, float]


class ScriptedMarket:
    """Ten levels a side around each start price, one tick apart, 100 shares at the first, 200 at the second, ..."""

    def __init__(self, instruments: tuple[Instrument, ...] = SIM_UNIVERSE, levels: int = 10) -> None:
        self.instruments = instruments
        self.levels = levels
        self.index = SIM_INDEX
        self.now_ns = 0
        self.own: dict[int, list[float]] = {}  # key -> [symbol, side, left, limit]
        self.halted: set[int] = set()
        self._queue: deque[tuple[float, ...]] = deque()
        self.sides: dict[int, dict[int, list[Row]]] = {}
        for i in instruments:
            mid = round(i.start_price * 100)
            self.sides[i.index] = {
                1: [((mid - 1 - n) / 100, 100.0 * (n + 1)) for n in range(levels)],
                0: [((mid + 1 + n) / 100, 100.0 * (n + 1)) for n in range(levels)],
            }

    # MarketSource.

    def advance(self, now_ns: int) -> None:
        self.now_ns = now_ns

    def next_ns(self) -> int:
        return self.now_ns if self._queue else self.now_ns + 3_600_000_000_000

    def poll(self, out: npt.NDArray[np.void]) -> int:
        count = min(len(out), len(self._queue))
        for row in range(count):
            out[row] = self._queue.popleft()
        return count

    def snapshot(self, symbol: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        sides = self.sides[symbol]
        return np.array(sides[1]).reshape(-1, 2), np.array(sides[0]).reshape(-1, 2)

    def submit(self, order_key: int, symbol: int, side: int, qty: float, limit: float, ioc: bool, now_ns: int) -> None:
        left = qty
        rows = self.sides[symbol][0 if side > 0 else 1]
        while left > 0 and rows and symbol not in self.halted:
            price, size = rows[0]
            if not math.isnan(limit) and (price - limit) * side > 1e-9:
                break
            take = min(left, size)
            left -= take
            self._event(MarketEventKind.OWN_FILL, symbol, key=order_key, price=price, size=take, side=side)
            self._event(MarketEventKind.TRADE, symbol, price=price, size=take, side=side)
            self.set_row(symbol, 0 if side > 0 else 1, 0, price, size - take)
        if left <= 0:
            return
        if ioc or math.isnan(limit):
            self._event(MarketEventKind.OWN_DONE, symbol, key=order_key, size=left, flag=2)
            return
        self.own[order_key] = [symbol, side, left, limit]

    def cancel(self, order_key: int, now_ns: int) -> bool:
        order = self.own.pop(order_key, None)
        if order is None:
            return False
        self._event(MarketEventKind.OWN_DONE, int(order[0]), key=order_key, size=order[2], flag=1)
        return True

    def replace(self, order_key: int, qty: float, limit: float, now_ns: int) -> bool:
        order = self.own.get(order_key)
        if order is None:
            return False
        self.own[order_key] = [order[0], order[1], qty, limit]
        return True

    # The script.

    def set_row(self, symbol: int, side: int, level: int, price: float, size: float) -> None:
        """Update a row; size 0 deletes it."""
        rows = self.sides[symbol][side]
        if size > 0:
            rows[level] = (price, size)
            self._event(MarketEventKind.DEPTH, symbol, price=price, size=size, side=side, op=1, level=level)
        else:
            del rows[level]
            self._event(MarketEventKind.DEPTH, symbol, side=side, op=2, level=level)
        if level == 0:
            best = rows[0] if rows else (0.0, 0.0)
            self._event(MarketEventKind.QUOTE, symbol, price=best[0], size=best[1], side=side)

    def insert_row(self, symbol: int, side: int, level: int, price: float, size: float) -> None:
        rows = self.sides[symbol][side]
        if len(rows) == self.levels:
            rows.pop()
            self._event(MarketEventKind.DEPTH, symbol, side=side, op=2, level=self.levels - 1)
        rows.insert(level, (price, size))
        self._event(MarketEventKind.DEPTH, symbol, price=price, size=size, side=side, op=0, level=level)
        if level == 0:
            self._event(MarketEventKind.QUOTE, symbol, price=price, size=size, side=side)

    def reset(self, symbol: int) -> None:
        """A reset with its full re-insert."""
        self._event(MarketEventKind.RESET, symbol)
        for side in (0, 1):
            for level, (price, size) in enumerate(self.sides[symbol][side]):
                self._event(MarketEventKind.DEPTH, symbol, price=price, size=size, side=side, op=0, level=level)

    def trade(self, symbol: int, price: float, size: float) -> None:
        self._event(MarketEventKind.TRADE, symbol, price=price, size=size, side=1)

    def set_index(self, value: float) -> None:
        self._event(MarketEventKind.INDEX, self.index.index, price=value)

    def fill_own(self, key: int, size: float) -> None:
        """Trade part of a resting client order at its limit."""
        order = self.own[key]
        order[2] -= size
        if order[2] <= 0:
            del self.own[key]
        symbol, side = int(order[0]), int(order[1])
        self._event(MarketEventKind.OWN_FILL, symbol, key=key, price=order[3], size=size, side=side, flag=1)

    def halt(self, symbol: int) -> None:
        self.halted.add(symbol)
        self._event(MarketEventKind.HALT, symbol, flag=1)

    def resume(self, symbol: int) -> None:
        self.halted.discard(symbol)
        self._event(MarketEventKind.HALT, symbol, flag=0)

    def _event(
        self,
        kind: MarketEventKind,
        symbol: int,
        *,
        key: int = 0,
        price: float = 0.0,
        size: float = 0.0,
        side: int = 0,
        op: int = 0,
        level: int = 0,
        flag: int = 0,
    ) -> None:
        self._queue.append((self.now_ns, key, price, size, symbol, int(kind), side, op, level, flag, 0))


assert len(MARKET_EVENT.names or ()) == 11
