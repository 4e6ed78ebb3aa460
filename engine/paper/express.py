"""The express lane: a limit order like one before it is acknowledged before anything else is done about it.

Whoever waits for an order finds cold caches, so what an acknowledgement takes is a matter of how much code and data is
touched, not of how much is computed. Here that is one function, one pattern and the texts that orders share. Anything
that is unusual, or might be refused, goes the long way through the desk.

Invariants. 1. What is acknowledged here, the desk would have accepted, and in the same words (a test compares them).
2. An order is in the state file before it is told, as everywhere; all else about it comes afterwards.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.paper.fields import price
from engine.paper.order_checks import MAX_ACTIVE_PER_SIDE, room_usd
from engine.paper.place_order import OrderKind, OrderRequest

if TYPE_CHECKING:
    from engine.paper.server import Gateway
    from engine.paper.session import Session

_SIDES = {b"BUY": "BUY", b"SELL": "SELL"}
_CONTRACT, _ACTION, _TRANSMIT = 4, 16, 27
_LANES = 256
_PLACE_ORDER = 3


class Express:
    """What holds for all connections until something happens: whether the lane is open, and for how large an order.

    ``room_usd``: the value of an order that is within the buying power whatever its side and commission.
    """

    __slots__ = ("_gateway", "open", "room_usd")

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.open = False
        self.room_usd = 0.0

    def refresh(self) -> None:
        """After anything has happened."""
        gateway = self._gateway
        desk = gateway.desk
        self.open = (
            gateway.link_up
            and not gateway.delays_orders
            and not gateway.slow
            and not desk.faults.armed
            and desk.open_now
            and desk.ledger.working_at_most < MAX_ACTIVE_PER_SIDE
            and not gateway.has_master
        )
        if self.open:
            self.room_usd = room_usd(desk.account, desk.ledger, gateway.marks())


class Lane:
    """One kind of order of one connection."""

    __slots__ = ("kind", "line", "match", "texts", "tick_size")

    def __init__(
        self, kind: OrderKind, parts: list[bytes], tick_size: float, texts: tuple[bytes, ...], line: bytes
    ) -> None:
        self.kind = kind
        self.tick_size = tick_size
        self.texts = texts
        self.line = line
        front, behind = (b"\0".join(parts[a:b]) for a, b in ((_CONTRACT, _ACTION), (21, 26)))
        pattern = (re.escape(front), rb"(BUY|SELL)", rb"([1-9]\d{0,7})(?:\.0)?", parts[18], rb"(\d{1,7}(?:\.\d{1,9})?)")
        rest = (b"", re.escape(behind), rb"([ -~]*)", re.escape(parts[_TRANSMIT]))
        self.match: Callable[[bytes], re.Match[bytes] | None] = re.compile(b"\0".join(pattern + rest)).fullmatch


class Lanes:
    """Those of one connection, by contract id and symbol as its client writes them."""

    __slots__ = ("_express", "_gateway", "_lanes", "_session")

    def __init__(self, session: Session, gateway: Gateway) -> None:
        self._session = session
        self._gateway = gateway
        self._express = gateway.express
        self._lanes: dict[tuple[bytes, bytes], Lane] = {}

    @property
    def any(self) -> bool:
        return bool(self._lanes)

    def learn(self, message: bytes, request: OrderRequest) -> None:
        """An order of this kind went the long way: the next one may be faster."""
        kind = request.kind
        plain = kind.plain and kind.tif and kind.transmit and not kind.what_if
        instrument, texts = kind.instrument, kind.texts.get(self._session.version)
        if not plain or kind.refusal or kind.parent_id or kind.oca_group or instrument is None or texts is None:
            return
        if not "".join(texts).isascii():
            return
        parts = message.split(b"\0", _TRANSMIT)
        if kind.lane is not None:
            self._lanes[parts[2], parts[3]] = kind.lane
            return
        if len(self._lanes) >= _LANES:
            self._lanes.clear()
        contract, order_type, middle, hours, end = (text.encode("ascii") for text in texts)
        shared = (contract, order_type, b"\00.0" + middle, hours, end)
        journal, line = self._gateway.journal, b""
        if journal.keeps:
            line = journal.line_of(self._gateway.desk.draft(self._session.client_id, request, instrument.index, 1))
        self._lanes[parts[2], parts[3]] = kind.lane = Lane(kind, parts, instrument.tick_size, shared, line)

    def take(self, data: bytes) -> bool:
        """Acknowledge the order that ``data`` is, and hand it to the desk; False if it isn't one for the lane."""
        express, gateway, session = self._express, self._gateway, self._session
        if not express.open or data[4:6] != b"3\0" or len(data) - 4 != int.from_bytes(data[:4], "big"):
            return False
        try:
            order_id, con_id, symbol, rest = data[6:].split(b"\0", 3)
            lane = self._lanes[con_id, symbol]
        except (ValueError, KeyError):
            return False
        found = lane.match(rest)
        if found is None or len(order_id) > 9 or not order_id.isdigit():
            return False
        side, size, limit_text, reference = found.groups()
        number, quantity, limit = int(order_id), int(size), float(limit_text)
        ticks = limit / lane.tick_size
        ledger, client_id = gateway.desk.ledger, session.client_id
        if (
            number <= ledger.high_order_id.get(client_id, 0)
            or not 0 < quantity * limit <= express.room_usd
            or ticks < 0.5  # 0 increments, within float noise
            or abs(ticks - round(ticks)) >= 1e-6
        ):
            return False
        if not session.within_pace():
            return True
        perm_id = ledger.next_perm_id
        contract, kind, middle, hours, end = lane.texts
        values = (number, contract, side, quantity, kind, price(limit).encode(), middle, reference)
        told = b"5\0%d%b%b\0%d%b%b%b%b\0" % values + b"%d\0%d%b%d%b" % (client_id, perm_id, hours, perm_id, end)
        framed = len(told).to_bytes(4, "big") + told
        try:
            ref, journal = reference.decode("ascii"), gateway.journal
            if journal.keeps:
                journal.placed(lane.line, perm_id, number, side, quantity, limit, ref, gateway.account.day)
            session.write(framed)
            order = gateway.desk.enter(
                client_id, OrderRequest(number, lane.kind, _SIDES[side], float(quantity), limit, math.nan, ref)
            )
            gateway.desk.begin(order, gateway.catch_up)
        except Exception:
            session.failed(_PLACE_ORDER)
        return True
