"""The arrays of a synthetic market, and the few operations on them that need no kernel of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.paper.market.book import add_shares, refresh
from engine.paper.market.eventqueue import EventQueue
from engine.paper.market.layout import C_INDEX_T, C_OWN, HELD


def grown(array: npt.NDArray[np.void], length: int) -> npt.NDArray[np.void]:
    """A longer copy of a record array, the new rows zero."""
    longer = np.zeros(length, array.dtype)
    longer[: len(array)] = array
    return longer


@dataclass(slots=True)
class MarketMemory:
    """Everything a market run reads and writes; shapes are stated for n symbols, L rows, G ticks of grid.

    ``symbols`` SYMBOL_STATE[n]; ``grid`` shares (n, 2, G), side 0 asks; ``own`` OWN_ORDER pool; ``row_price``,
    ``row_size`` displayed rows (n, 2, L) and ``row_count`` (n, 2); ``scratch_*`` (L,); ``queue`` of events;
    ``control`` words; ``rates`` the four tables of ``RateTables``; ``truth`` TRUTH; ``index`` words.
    """

    symbols: npt.NDArray[np.void]
    grid: npt.NDArray[np.float64]
    own: npt.NDArray[np.void]
    row_price: npt.NDArray[np.int64]
    row_size: npt.NDArray[np.float64]
    row_count: npt.NDArray[np.int64]
    scratch_price: npt.NDArray[np.int64]
    scratch_size: npt.NDArray[np.float64]
    queue: EventQueue
    control: npt.NDArray[np.int64]
    rates: tuple[npt.NDArray[np.float64], ...]
    truth: npt.NDArray[np.void]
    index: npt.NDArray[np.float64]

    @property
    def book(self) -> tuple[Any, ...]:
        """The leading arguments that all book-changing kernels share."""
        return (
            self.symbols,
            self.grid,
            self.own,
            self.row_price,
            self.row_size,
            self.row_count,
            self.scratch_price,
            self.scratch_size,
        )

    def next_ns(self) -> int:
        """Time of the next event of any symbol or of the index."""
        return int(min(self.symbols["t_event"].min(), self.control[C_INDEX_T]))

    def rows(self, slot: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Displayed bids and asks, each (rows, 2)."""
        me = self.symbols[slot]
        sides = []
        for side in (1, 0):
            n = int(self.row_count[slot, side])
            price = self.row_price[slot, side, :n] * float(me["tick_num"]) / float(me["tick_den"])
            sides.append(np.column_stack((price, self.row_size[slot, side, :n])))
        return sides[0], sides[1]

    def redraw(self, slot: int, side: int, t_ns: int) -> None:
        """Bring the displayed rows of a side up to date."""
        book = (self.symbols, self.grid, self.row_price, self.row_size, self.row_count)
        refresh(*book, self.scratch_price, self.scratch_size, self.queue.events, self.control, slot, side, t_ns)

    def shrink_level(self, slot: int, sign: int, ticks: int, shares: float, t_ns: int) -> None:
        """Take shares off a level and show it."""
        side = 1 if sign > 0 else 0
        add_shares(self.symbols, self.grid, slot, side, ticks, -shares)
        self.redraw(slot, side, t_ns)

    def hold(self, key: int, slot: int, side: int, qty: float, left: float, ticks: int, ioc: bool) -> None:
        """Keep an order for the end of a halt; ``ahead`` has no meaning there and carries the IOC mark."""
        row = self.own[self.control[C_OWN] : self.control[C_OWN] + 1]
        row["key"], row["slot"], row["side"], row["price"] = key, slot, side, ticks
        row["qty"], row["left"], row["ahead"], row["state"] = qty, left, float(ioc), HELD
        self.control[C_OWN] += 1
        self.symbols[slot : slot + 1]["own"] += 1
