"""The gateway's side of the emergency connection: the dozen messages of its codec, as bytes, behind a socket."""

from __future__ import annotations

import math
import struct
from collections import deque

from engine.broker import news as n
from engine.broker.emergency import EmergencyConnection
from engine.broker.link import WireOrder
from engine.sim.gateway import EMERGENCY, Gateway, Local, Trouble, global_cancel
from engine.sim.machine import NEVER

VERSION = 176
_HELLO = b"API\0"


def frame(*fields: object) -> bytes:
    body = "".join(f"{f}\0" for f in fields).encode()
    return struct.pack(">I", len(body)) + body


class SimSocket:
    """One TCP connection to the gateway. Looks like a non-blocking socket as far as the connection looks."""

    def __init__(self, gateway: Gateway, client: int) -> None:
        self.gateway, self.client = gateway, client
        self.open = True
        self.closed_by_peer = False
        self._buffer = bytearray()
        self._inbox: deque[tuple[int, bytes]] = deque()
        self._subscribed = False
        self._greeted = self._logged_in = False
        gateway.doors[EMERGENCY] = self

    @property
    def trouble(self) -> Trouble:
        return self.gateway.trouble[EMERGENCY]

    # The socket.

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        self.open = False

    def recv(self, size: int) -> bytes:
        """Raises BlockingIOError when nothing has arrived."""
        now_ns = self.gateway.clock.now
        out = b""
        if now_ns >= self.trouble.mute_until_ns and not self.trouble.half_open:
            while self._inbox and self._inbox[0][0] <= now_ns:
                out += self._inbox.popleft()[1]
        if out or self.closed_by_peer:
            return out
        raise BlockingIOError

    def next_ns(self) -> int:
        if not self._inbox or not self.open:
            return NEVER
        return max(self._inbox[0][0], self.trouble.mute_until_ns)

    def send(self, data: bytes | bytearray) -> int:
        self._buffer += data
        if not self._greeted and self._buffer.startswith(_HELLO):
            size = struct.unpack_from(">I", self._buffer, 4)[0]
            if len(self._buffer) >= 8 + size:
                del self._buffer[: 8 + size]
                self._greeted = True
                self._ask(Local(lambda _: self._later(frame(VERSION, "20260102 09:30:00 EST"))), "hello")
        while self._greeted and len(self._buffer) >= 4:
            size = struct.unpack_from(">I", self._buffer)[0]
            if len(self._buffer) < 4 + size:
                break
            fields = bytes(self._buffer[4 : 4 + size]).decode().split("\0")[:-1]
            del self._buffer[: 4 + size]
            self._take(fields)
        return len(data)

    # What arrives.

    def _ask(self, request: Local | object, what: str) -> None:
        gateway = self.gateway
        if what != "hello":
            gateway.witness.message(EMERGENCY, what, gateway.clock.now)
        if not self.trouble.half_open:
            gateway.schedule(request, gateway.clock.now + gateway.latency_ns, self.tell)  # type: ignore[arg-type]

    def _take(self, f: list[str]) -> None:
        gateway, exchange = self.gateway, self.gateway.exchange
        kind, now_ns = f[0], gateway.clock.now
        if kind == "71":
            self._ask(Local(self._login), "login")
        elif kind == "49":
            self._ask(Local(exchange.time), "time")
        elif kind == "16":
            self._ask(lambda _: exchange.open_orders(), "open orders")
        elif kind == "61":
            self._ask(lambda _: self._positions(), "positions")
        elif kind == "58":
            gateway.witness.cancelled(EMERGENCY, 0, now_ns)
            self._ask(global_cancel(gateway), "global cancel")
        elif kind == "4":
            order_id = int(f[2])
            gateway.witness.cancelled(EMERGENCY, order_id, now_ns)
            self._ask(lambda t: exchange.cancel(order_id, t, self.client), "cancel")
        elif kind == "3":
            self._place(f)

    def _place(self, f: list[str]) -> None:
        gateway = self.gateway
        symbol = next(i.index for i in gateway.exchange.instruments if i.con_id == int(f[2]))
        limit = float(f[19]) if f[18] == "LMT" else math.nan
        side = 1 if f[16] == "BUY" else -1
        order = WireOrder(int(f[1]), symbol, side, float(f[17]), f[18], limit, f[21], False, f[26], f[23])
        gateway.witness.placed(EMERGENCY, order, gateway.clock.now)
        if not self.trouble.half_open:
            gateway.flying[self.client, order.order_id] = order

        def arrive(t_ns: int) -> list[n.News]:
            gateway.flying.pop((self.client, order.order_id), None)
            self.tell(gateway.exchange.place(order, t_ns, self.client), t_ns)
            gateway.run(t_ns)
            return gateway.exchange.settle(order.order_id, self.client)

        self._ask(arrive, "order")

    def _login(self, t_ns: int) -> list[n.News]:
        self._logged_in = True
        self._later(frame(15, 1, self.gateway.exchange.account_id))
        self._later(frame(9, 1, self.gateway.next_order_id(self.client)))
        return []

    def _positions(self) -> list[n.News]:
        self._subscribed = True
        return self.gateway.exchange.positions()

    # What is told.

    def _later(self, data: bytes) -> list[n.News]:
        if self.closed_by_peer:
            return []
        due = self.gateway.clock.now + self.gateway.latency_ns
        if self._inbox:
            due = max(due, self._inbox[-1][0])
        self._inbox.append((due, data))
        return []

    def hang_up(self, reason: str) -> None:
        self._inbox.clear()
        self.closed_by_peer = True

    def tell(self, news: list[n.News], t_ns: int) -> None:
        if not self.open or self.closed_by_peer or self.trouble.half_open or not self._logged_in:
            return
        for one in news:
            data = self._bytes(one)
            if data:
                self.gateway.witness.heard(EMERGENCY, one, t_ns)
                self._later(data)

    def _bytes(self, x: n.News) -> bytes:
        if isinstance(x, n.OrderStatusNews):
            return frame(
                3, x.order_id, x.status, x.filled, x.remaining, x.avg_price, x.perm_id, 0, 0.0, x.client_id, "", ""
            )
        if isinstance(x, n.OpenOrderNews):
            contract = (x.con_id, x.symbol, "STK", "", "0", "", "", "SMART", "USD", x.symbol, x.symbol)
            action = "BUY" if x.side > 0 else "SELL"
            limit = "" if math.isnan(x.limit_price) else x.limit_price
            fields: list[object] = [
                5,
                x.order_id,
                *contract,
                action,
                x.qty,
                x.order_type,
                limit,
                "",
                x.tif,
                "",
                x.account,
            ]
            fields += ["", 0, x.order_ref, x.client_id, x.perm_id]
            return frame(*fields)
        if isinstance(x, n.PositionNews):
            if not self._subscribed:
                return b""
            contract = (x.con_id, x.symbol, "STK", "", "0", "", "", "SMART", "USD", x.symbol, x.symbol)
            return frame(61, 3, x.account, *contract, x.qty, x.avg_cost)
        if isinstance(x, n.ErrorNews):
            return frame(4, 2, x.ref, x.code, x.text)
        if isinstance(x, n.OpenOrdersEnd):
            return frame(53, 1)
        if isinstance(x, n.PositionsEnd):
            return frame(62, 1)
        if isinstance(x, n.TimeNews):
            return frame(49, 1, x.epoch_s)
        return b""


class SimEmergency(EmergencyConnection):
    """The watchdog's own connection, whole, on a simulated socket."""

    gateway: Gateway

    def _open(self, now_ns: int) -> None:
        trouble = self.gateway.trouble[EMERGENCY]
        if now_ns < trouble.refuse_until_ns:
            raise OSError(111, "simulated: refused")
        trouble.half_open = False
        self._deadline_ns = now_ns + 4_000_000_000
        self._socket = SimSocket(self.gateway, self.client_id)  # type: ignore[assignment]

    def _established(self, now_ns: int) -> bool:
        self._greet()
        return True
