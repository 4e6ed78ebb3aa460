"""A gateway that plays what it is told: the server's side of a session, for measurements and tests of the hot path.

It answers a client's start-up like a broker with an empty account, remembers who subscribed to what, and otherwise
sends only what its owner asks it to send. One client, one thread, no clock: every byte is somebody's decision.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from datetime import datetime

from engine.domain.instruments import Instrument
from engine.paper import messages_out as out
from engine.paper.catalog import NEW_YORK
from engine.paper.fields import payload
from engine.paper.framing import frame
from engine.paper.watch import session_hours

ACCOUNT = "DUSIM001"
START_API, PLACE, CANCEL = 71, 3, 4
ASK, BID = 0, 1
INSERT, UPDATE, DELETE = 0, 1, 2


class ScriptedGateway:
    """Listens on ``port`` (0: a free one). ``pump`` reads what the client sent and answers it."""

    def __init__(self, instruments: Sequence[Instrument], port: int = 0, version: int = 176) -> None:
        self.instruments = list(instruments)
        self._version = version
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.client: socket.socket | None = None
        self._heard = b""
        self._greeted = self._versioned = False
        self._probed = 0.0
        self.depth: dict[int, int] = {}
        """Request id of the depth of each symbol."""
        self.orders: list[list[bytes]] = []
        """Fields of every placeOrder and cancelOrder in the order they came."""
        self.raw: list[bytes] = []
        """Frames of these, as they were on the wire."""
        self.others: list[list[bytes]] = []

    def close(self) -> None:
        if self.client is not None:
            self.client.close()
        self._listener.close()

    def drop(self) -> None:
        """End the session; the next client starts anew."""
        if self.client is not None:
            self.client.close()
        self.client, self._heard, self._greeted, self._versioned = None, b"", False, False
        self.depth.clear()

    def accept(self) -> bool:
        if self.client is None:
            try:
                self.client, _ = self._listener.accept()
            except BlockingIOError:
                return False
            self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.client.setblocking(False)
        return True

    def pump(self) -> int:
        """Take and answer what has come; returns frames handled. Raises ConnectionError when the client is gone."""
        if not self.accept():
            return 0
        assert self.client is not None
        try:
            got = self.client.recv(1 << 16)
        except BlockingIOError:
            return 0
        if not got:
            raise ConnectionError("the client closed the connection")
        return self.take(got)

    def take(self, got: bytes) -> int:
        """Handle bytes that somebody else has read from the client."""
        self._heard += got
        if not self._greeted:
            if len(self._heard) < 4:
                return 0
            self._heard, self._greeted = self._heard[4:], True
        handled = 0
        while len(self._heard) >= 4:
            size = int.from_bytes(self._heard[:4], "big")
            if len(self._heard) < 4 + size:
                break
            whole, self._heard = self._heard[: 4 + size], self._heard[4 + size :]
            handled += 1
            if not self._versioned:
                self._versioned = True
                self.say(out.server_greeting(self._version, time.time()))
                continue
            self._answer(whole, whole[4:].split(b"\0"))
        return handled

    def say(self, *payloads: bytes) -> None:
        """Send messages in one write."""
        self.write(b"".join(frame(p) for p in payloads))

    def write(self, data: bytes) -> None:
        assert self.client is not None
        while data:
            try:
                data = data[self.client.send(data) :]
            except BlockingIOError:
                time.sleep(0.0001)

    def _symbol(self, fields: list[bytes]) -> int:
        """Symbol number of the contract that begins at field 3."""
        con_id, name = int(fields[3] or 0), fields[4].decode()
        return next(i.index for i in self.instruments if con_id in (0, i.con_id) and i.symbol == name)

    def _answer(self, whole: bytes, f: list[bytes]) -> None:
        kind = int(f[0])
        if kind == START_API:
            self.say(out.managed_accounts(ACCOUNT), out.next_valid_id(1))
        elif kind in (PLACE, CANCEL):
            self.orders.append(f)
            self.raw.append(whole)
        elif kind == 9:
            i = self.instruments[self._symbol([*f[:3], *f[3:]])]
            hours = session_hours(datetime.now(NEW_YORK).date(), "24/7")
            self.say(
                out.contract_details(self._version, int(f[2]), i, "SMART", hours), out.contract_details_end(int(f[2]))
            )
        elif kind == 91:
            self.say(out.market_rule(int(f[1]), [(0.0, 0.01)]))
        elif kind == 61:
            self.say(out.position_end())
        elif kind in (5, 16):
            self.say(out.open_order_end())
        elif kind == 7:
            self.say(out.exec_details_end(int(f[2])))
        elif kind == 6:
            values = {"NetLiquidation": "1000000", "TotalCashValue": "1000000", "BuyingPower": "4000000"}
            self.say(
                *(out.account_value(k, v, "USD", ACCOUNT) for k, v in values.items()), out.account_download_end(ACCOUNT)
            )
        elif kind == 76:
            self.say(out.account_update_multi_end(int(f[2])))
        elif kind == 99:
            self.say(out.completed_orders_end())
        elif kind == 49:
            self.say(out.current_time(time.time()))
        elif kind == 10:
            self.depth[self._symbol(f)] = int(f[2])
        else:
            self.others.append(f)

    # What it plays.

    def row(self, symbol: int, side: int, level: int, price: float, size: int, op: int = UPDATE) -> bytes:
        """One depth message (13) as a frame."""
        return frame(payload(13, 1, self.depth[symbol], level, "NSDQ", op, side, f"{price:.2f}", size, 1))

    def book(self, symbol: int, bid: float, ask: float, sizes: int, rows: int = 10) -> bytes:
        """A whole book, inserted row by row."""
        frames = []
        for level in range(rows):
            frames.append(self.row(symbol, ASK, level, ask + 0.01 * level, sizes, INSERT))
            frames.append(self.row(symbol, BID, level, bid - 0.01 * level, sizes, INSERT))
        return b"".join(frames)

    def done(self, order: list[bytes], status: str = "Cancelled") -> bytes:
        """orderStatus of an order that ended without a fill."""
        quantity = float(order[17])
        return frame(out.order_status(int(order[1]), status, 0.0, quantity, 0.0, 9_000_000 + int(order[1]), 0.0, 11))
