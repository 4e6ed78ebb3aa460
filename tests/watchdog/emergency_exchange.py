"""A broker behind the emergency connection that makes everything late: bytes, cancels, fills, reads. No sockets.

It decodes the frames that the hand sends and answers with messages, so that thousands of courses run in seconds.
Numbered checks are noted in ``broken``:
1. a position never crosses zero by an order of the hand's; 2. no close leaves before two reads have begun and ended
apart, without a change in between; 3. the hand says flat only when nothing in scope is open; 4. what is out of scope is
never touched; 5. at most ``messages_per_s`` messages leave in any second.
"""

from __future__ import annotations

import math
import random
import struct
from collections import deque
from dataclasses import dataclass, field

from engine.broker.emergency_codec import (
    BrokerError,
    Contract,
    EmergencyCodec,
    Message,
    OpenOrder,
    OpenOrdersEnd,
    OrderStatus,
    Position,
    PositionsEnd,
    TickPrice,
)

MS = 1_000_000
ACCOUNT = "DUSIM001"
BRIDGE_ID, EMERGENCY_ID, STRANGER_ID = 11, 12, 77


@dataclass(slots=True)
class Working:
    client_id: int
    order_id: int
    symbol: int
    signed: float
    remaining: float
    ref: str
    cancel_at: int = 0
    limit: float = math.nan
    parked: bool = False
    wakes_at: int = 0
    over: bool = False


@dataclass(slots=True)
class Late:
    """Bytes of the dead bridge that reach the broker after its death."""

    at_ns: int
    order: Working


class Connection:
    """Stands for EmergencyConnection: what the hand uses of it."""

    def __init__(self, exchange: Exchange, client_id: int) -> None:
        self._exchange = exchange
        self.client_id = client_id
        self.codec = EmergencyCodec(client_id)
        self.codec.server_version = 176
        self.ready = True
        self.incarnation = 1
        self.next_order_id = 1
        self.messages_per_s = 45
        self.queue: deque[bytes] = deque()
        self.sent: deque[int] = deque()

    @property
    def unsent(self) -> int:
        return len(self.queue)

    def send(self, *frames: bytes, urgent: bool = False) -> None:
        if urgent:
            self.queue.extendleft(reversed(frames))
        else:
            self.queue.extend(frames)

    def lose(self) -> None:
        """The socket dies: what was queued is gone."""
        self.ready = False
        self.queue.clear()

    def log_in(self) -> None:
        self.ready, self.incarnation = True, self.incarnation + 1

    def pump(self, now_ns: int) -> None:
        while self.sent and now_ns - self.sent[0] > 1_050 * MS:
            self.sent.popleft()
        while self.ready and self.queue and len(self.sent) < self.messages_per_s:
            self.sent.append(now_ns)
            (size,) = struct.unpack_from(">I", self.queue[0])
            body = self.queue.popleft()[4 : 4 + size]
            self._exchange.take(self.client_id, body.decode().split("\0")[:-1], now_ns)


@dataclass
class Exchange:
    seed: int
    qty: list[float]
    orders: list[Working] = field(default_factory=list)
    late: list[Late] = field(default_factory=list)
    scope: frozenset[str] | None = None
    reject_share: float = 0.1
    park_share: float = 0.0
    """Share of closes that become Inactive: some are taken up again later, some stay in the list after their cancel."""
    echoes: bool = False
    """Each cancel of an inactive order is answered by PendingCancel, and its line in the list stays Inactive."""
    quotes: bool = True
    bridge_fills: float = 0.004
    """Chance of a fill of the dead bridge's orders, each 2 ms."""
    events: list[Message] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    closes: list[tuple[int, int, float, float]] = field(default_factory=list)  # time, symbol, signed, limit
    reads: list[tuple[int, int, int]] = field(default_factory=list)  # began, ended, changes seen
    changes: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.out: list[tuple[int, list[Message]]] = []
        self.names = [f"S{i}" for i in range(len(self.qty))]
        self._asked: dict[str, int] = {}
        self.done_ns = 0

    def contract(self, i: int) -> Contract:
        return Contract(1_000 + i, self.names[i], "STK", "USD")

    def in_scope(self, order: Working) -> bool:
        return self.scope is None or (self.names[order.symbol] in self.scope and order.ref.startswith("L2:"))

    # -- what the hand sends --------------------------------------------------------------------------------------

    def take(self, client_id: int, f: list[str], now_ns: int) -> None:
        kind = f[0]
        if kind == "58":
            if self.scope is not None:
                self.broken.append("global cancel in an account that is not ours alone")
            for order in self.orders:
                self._cancel(order, now_ns)
        elif kind == "4":
            for order in self.orders:
                if (order.client_id, order.order_id) == (client_id, int(f[2])):
                    self._cancel(order, now_ns)
        elif kind == "16":
            self._asked["orders"] = now_ns
            self._answer(now_ns, self._orders)
        elif kind == "61":
            self._answer(now_ns, self._positions)
        elif kind == "1":
            if self.quotes:
                request = int(f[2])
                self.later(now_ns + 20 * MS, [TickPrice(request, 1, 99.99), TickPrice(request, 2, 100.01)])
        elif kind == "3":
            self._place(client_id, f, now_ns)

    def _cancel(self, order: Working, now_ns: int) -> None:
        order.cancel_at = order.cancel_at or now_ns + self.random.randint(1, 400) * MS
        if order.parked and self.echoes:
            self._status(order, "PendingCancel", now_ns)  # each time, also of what is over

    def _answer(self, now_ns: int, what: object) -> None:
        self.out.append((now_ns + self.random.randint(1, 60) * MS, [what]))  # type: ignore[list-item]

    def _orders(self, now_ns: int) -> list[Message]:
        self.reads.append((self._asked["orders"], now_ns, self.changes))
        found: list[Message] = []
        for o in self.orders:
            side = "BUY" if o.signed > 0 else "SELL"
            found.append(
                OpenOrder(o.order_id, self.contract(o.symbol), side, o.remaining, ACCOUNT, o.ref, o.client_id, 0)
            )
            if o.parked:
                found.append(OrderStatus(o.order_id, "Inactive", 0.0, o.remaining, 0, o.client_id))
        return [*found, OpenOrdersEnd()]

    def _positions(self, now_ns: int) -> list[Message]:
        return [*(Position(ACCOUNT, self.contract(i), q) for i, q in enumerate(self.qty) if q), PositionsEnd()]

    def _place(self, client_id: int, f: list[str], now_ns: int) -> None:
        order_id, symbol = int(f[1]), int(f[2]) - 1_000
        signed = float(f[17]) * (1 if f[16] == "BUY" else -1)
        limit = float(f[19]) if f[18] == "LMT" else math.nan
        self.closes.append((now_ns, symbol, signed, limit))
        if self.scope is not None and self.names[symbol] not in self.scope:
            self.broken.append(f"closed {self.names[symbol]}, which is not ours")
        if self.random.random() < self.reject_share:
            self.later(now_ns + 5 * MS, [BrokerError(order_id, 201, "rejected")])
            return
        order = Working(client_id, order_id, symbol, signed, abs(signed), f[26], limit=limit)
        self.orders.append(order)
        self.changes += 1
        if self.park_share and self.random.random() < self.park_share:
            self.park(order, now_ns, self.random.choice((0, now_ns + self.random.randint(50, 4_000) * MS)))

    def park(self, order: Working, now_ns: int, wakes_at: int) -> None:
        order.parked, order.wakes_at = True, wakes_at
        self._status(order, "Inactive", now_ns)

    # -- what happens at the broker -------------------------------------------------------------------------------

    def later(self, at_ns: int, messages: list[Message]) -> None:
        self.out.append((at_ns, messages))

    def tick(self, now_ns: int) -> None:
        rnd = self.random
        for late in [x for x in self.late if x.at_ns <= now_ns]:
            self.late.remove(late)
            self.orders.append(late.order)
            self.changes += 1
        for order in list(self.orders):
            own = order.client_id == EMERGENCY_ID
            if order.over:
                continue  # its line in the list is all that is left
            if order.parked and 0 < order.wakes_at <= now_ns:
                order.parked = False
                self.changes += 1
                self._status(order, "Submitted", now_ns)
            if order.parked:
                if order.cancel_at and now_ns >= order.cancel_at:
                    order.over = True
                    self.changes += 1
                continue
            strange = order.client_id == STRANGER_ID and not own
            if not strange and rnd.random() < (0.2 if own else self.bridge_fills):
                size = order.remaining if rnd.random() < 0.6 else float(rnd.randint(1, max(1, int(order.remaining))))
                before = self.qty[order.symbol]
                self.qty[order.symbol] = before + math.copysign(min(size, order.remaining), order.signed)
                if own and before * self.qty[order.symbol] < 0:
                    self.broken.append(f"{before} crossed zero to {self.qty[order.symbol]}")
                order.remaining -= min(size, order.remaining)
                self.changes += 1
                if order.remaining <= 1e-9:
                    self.orders.remove(order)
                if own and rnd.random() < 0.8:  # some fills are told by nothing but the next read
                    status = "Filled" if order.remaining <= 1e-9 else "Submitted"
                    self._status(order, status, now_ns)
                continue
            if order.cancel_at and now_ns >= order.cancel_at and order in self.orders:
                self.orders.remove(order)
                self.changes += 1
                if own:
                    self._status(order, "Cancelled", now_ns)

    def _status(self, order: Working, status: str, now_ns: int) -> None:
        self.later(
            now_ns + self.random.randint(1, 30) * MS,
            [OrderStatus(order.order_id, status, 0.0, order.remaining, 0, order.client_id)],
        )

    def arrived(self, now_ns: int) -> list[Message]:
        """Messages that have reached the hand; in the order in which they were sent, as over one socket."""
        found: list[Message] = []
        while self.out and self.out[0][0] <= now_ns:
            for item in self.out.pop(0)[1]:
                found += item(now_ns) if callable(item) else [item]
        return found

    def open_in_scope(self) -> list[str]:
        held = [f"{n} {q:+g}" for n, q in zip(self.names, self.qty, strict=True) if abs(q) >= 1.0
                and (self.scope is None or n in self.scope)]  # fmt: skip
        return held + [f"order {o.order_id} of {o.client_id}" for o in self.orders if self.in_scope(o) and not o.over]
