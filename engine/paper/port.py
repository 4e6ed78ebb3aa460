"""The seam between the TWS server and the market behind it.

A ``MarketSource`` owns the order books and matches client orders in them; the server owns connections, accounts and
order states. Time is an argument: the same source runs in real time behind the server, and on a simulated clock for
training and simulation. All arrays are caller-owned; nothing is allocated per event.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine.domain.instruments import Instrument


class MarketEventKind(IntEnum):
    DEPTH = 1  # one row changed: side, op, level, price, size
    TRADE = 2  # a public trade print: price, size, side = aggressor (+1 buy, -1 sell)
    QUOTE = 3  # best bid or ask changed: side, price, size
    INDEX = 4  # index value in price
    OWN_FILL = 5  # a client order traded: order_key, price, size, flag 1 = it added liquidity
    OWN_DONE = (
        6  # a client order left the book unfilled: order_key, size = remaining; flag: 1 cancelled, 2 IOC remainder
    )
    HALT = 7  # flag 1 halted, 0 resumed
    RESET = 8  # rows of this symbol are void; a full re-insert follows


MARKET_EVENT = np.dtype(
    [
        ("t_ns", "<i8"),  # time of the event on the source's clock, ns
        ("order_key", "<i8"),
        ("price", "<f8"),
        ("size", "<f8"),
        ("symbol", "<u2"),
        ("kind", "u1"),
        ("side", "i1"),  # BookSide for DEPTH and QUOTE (0 ask, 1 bid), Side for TRADE and OWN_FILL
        ("op", "u1"),  # DepthOp
        ("level", "u1"),  # row number, 0 = best
        ("flag", "u1"),
        ("pad", "u1"),
    ]
)
"""One market event, 40 bytes."""


class MarketSource(Protocol):
    """Order books of several symbols, moved forward by ``advance`` and observed through ``poll``."""

    instruments: tuple[Instrument, ...]
    levels: int

    def advance(self, now_ns: int) -> None:
        """Let the market run up to ``now_ns``; resulting events wait in an internal queue."""

    def next_ns(self) -> int:
        """Time of the next thing that will happen, so that a caller can sleep until then."""

    def poll(self, out: npt.NDArray[np.void]) -> int:
        """Move up to ``len(out)`` waiting events (dtype MARKET_EVENT) to ``out``; returns how many."""

    def snapshot(self, symbol: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Bids and asks of one symbol, each shape (rows, 2) of price and size, best first."""

    def submit(self, order_key: int, symbol: int, side: int, qty: float, limit: float, ioc: bool, now_ns: int) -> None:
        """A client order. ``limit`` NaN means market. Fills and the end of an IOC come as events."""

    def cancel(self, order_key: int, now_ns: int) -> bool:
        """True if the order was in the book and is now gone (an OWN_DONE event follows)."""

    def replace(self, order_key: int, qty: float, limit: float, now_ns: int) -> bool:
        """Change total quantity and price. Priority in the queue is kept only by a mere decrease."""
