"""The port between the bridge and a broker: a socket to a gateway, or a simulated exchange in the same thread.

A link never blocks and never decides. Requests are queued and leave in one write at ``flush``; what arrives is put into
``ticks`` (market data, in the layout of the ticks ring) and ``news`` (everything else) by ``poll``.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine.broker.news import News


class LinkPhase(IntEnum):
    CLOSED = 0
    CONNECTING = 1
    """TCP or the API handshake under way."""
    OPEN = 2


class Line(IntEnum):
    """Kinds of market-data subscriptions."""

    DEPTH = 1
    QUOTES = 2
    PRINTS = 3
    DETAILS = 4


@dataclass(frozen=True, slots=True)
class WireOrder:
    """An order as it goes to the broker. ``limit_price`` is NaN for a market order; ``side`` +1 or -1."""

    order_id: int
    symbol: int
    side: int
    qty: float
    order_type: str
    limit_price: float
    tif: str
    outside_rth: bool
    order_ref: str
    account: str


class BrokerLink(Protocol):
    """One session with one broker. All times are CLOCK_MONOTONIC ns."""

    phase: LinkPhase
    news: deque[News]
    ticks: npt.NDArray[np.void]
    """Preallocated TICK records; the first ``tick_count`` are new since the last ``take_ticks``."""
    tick_count: int
    last_message_ns: int
    messages_sent: int
    bad_frames: int

    def connect(self, now_ns: int) -> None:
        """Begin a session; LinkUp or LinkDown follows as news."""

    def disconnect(self, reason: str) -> None:
        """End the session; LinkDown follows as news if there was one."""

    def poll(self, now_ns: int) -> int:
        """Take what has arrived; returns messages handled (0: nothing). Stops when ``ticks`` is full."""

    def take_ticks(self) -> npt.NDArray[np.void]:
        """View of the new ticks, valid until the next poll; they count as taken."""

    def flush(self) -> bool:
        """Hand everything queued to the kernel in one write. False: some bytes still wait."""

    def fileno(self) -> int:
        """Descriptor to wait for, -1 if none."""

    # Requests. Each is one message and is queued until ``flush``.

    def place(self, order: WireOrder) -> None: ...

    def cancel(self, order_id: int) -> None: ...

    def global_cancel(self) -> None: ...

    def request_open_orders(self) -> None:
        """All open orders of the account, whoever placed them; ends with OpenOrdersEnd."""

    def request_executions(self) -> int:
        """The day's executions; returns the request id of their ExecutionsEnd."""

    def request_positions(self) -> None:
        """All positions; ends with PositionsEnd. Changes keep coming afterwards."""

    def request_account(self, account: str) -> None:
        """Account values; ends with AccountEnd. Changes keep coming afterwards."""

    def probe(self) -> None:
        """Ask for the time; TimeNews answers."""

    def subscribe(self, symbol: int, line: Line) -> None: ...

    def unsubscribe(self, symbol: int, line: Line) -> None: ...

    def request_details(self, symbol: int) -> None: ...

    def request_market_rule(self, rule_id: int) -> None: ...

    def qualify(self, symbol: int, con_id: int, primary_exchange: str) -> None:
        """From now on address a symbol by its contract id. No message."""
