"""What the broker itself says over the emergency connection: contracts, positions, orders, complete reads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from engine.broker.emergency_codec import (
    BrokerError,
    Contract,
    Execution,
    Message,
    OpenOrder,
    OpenOrdersEnd,
    OrderStatus,
    Position,
    PositionsEnd,
    TickPrice,
)
from engine.domain.codes import OrderState
from engine.risk.flatten import EPSILON

REJECTED = "Rejected"
"""No word of the broker's: a final error has ended the order."""
ENDED = ("Filled", "Cancelled", "ApiCancelled", REJECTED)
PARKED = "Inactive"
"""Ends nothing by itself: the broker may take the order up again, so it is cancelled and waited for."""
CANCELLING = "PendingCancel"
REJECTIONS = (103, 104, 110, 200, 201, 203, 321, 10318)
BID, ASK = 1, 2
_STATES = {
    "Submitted": OrderState.WORKING, "PreSubmitted": OrderState.WORKING, "Filled": OrderState.FILLED,
    "Cancelled": OrderState.CANCELLED, "ApiCancelled": OrderState.CANCELLED, "Inactive": OrderState.UNKNOWN,
}  # fmt: skip
DUPLICATE_ID = 103
PARKED_NS = 1_000_000_000
"""A read that was begun this long after a cancel and still calls the order inactive shows what is left of it."""


@dataclass(slots=True)
class Order:
    contract: int
    signed: float
    remaining: float
    client_id: int
    order_ref: str
    status: str = ""
    own: bool = False
    decided: bool = False
    unlisted: int = 0
    """Complete reads that did not show it while it had no answer."""
    filled: float = 0.0
    avg_price: float = math.nan
    cancel_sent_ns: int = 0
    """When it was first cancelled since it last worked; 0: not yet."""
    cancelling: bool = False
    """Inactive, and the broker's last word is that it is being cancelled."""
    over: bool = False
    """Cancelled, and nothing is left of it but its line in the broker's list, which stays there for a day."""

    @property
    def working(self) -> bool:
        return not self.over and self.status not in ENDED


@dataclass(frozen=True, slots=True)
class Told:
    """News of one of our own orders, for the journal. ``signed``: its whole quantity, + buys."""

    ref: str
    order_id: int
    name: str
    state: OrderState
    signed: float
    filled: float
    avg_price: float
    text: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A complete read of all open orders and positions. Counts are of what is in scope; ``positions`` is a mask."""

    number: int = 0
    begin_ns: int = 0
    end_ns: int = 0
    events: int = 0
    open_orders: int = 0
    positions: int = 0


class EmergencyBook:
    """Fed with messages; symbols are the contracts in the order they are met.

    ``only``: stock symbols in scope (account scope "managed": those, and orders with our reference); None: everything.
    By symbol, not by contract id: the ids of the broker are not known before a bridge has asked for them.
    """

    def __init__(self, account: str, client_id: int, only: frozenset[str] | None) -> None:
        self._account, self._client_id, self._only = account, client_id, only
        self.contracts: list[Contract] = []
        self.qty: list[float] = []
        self.quotes: dict[int, list[float]] = {}
        """By symbol: bid and ask that the emergency connection has asked for, NaN where not known."""
        self.orders: dict[tuple[int, int], Order] = {}
        self.events = 0
        self.rejected = 0
        """Mask of symbols whose close was rejected since it was last cleared."""
        self.duplicate_id = False
        """An order id was in use: higher ones are needed."""
        self.told: list[Told] = []
        self.snapshot = Snapshot()
        self.asked_ns = 0
        """When the outstanding read was asked for; 0 none."""
        self._begin_ns = 0
        self._ends = 0
        self._index: dict[int, int] = {}
        self._reading: dict[int, float] = {}
        self._listed: set[tuple[int, int]] = set()

    @property
    def known(self) -> bool:
        """The account has been read completely at least once."""
        return self.snapshot.number > 0

    def begin_read(self, now_ns: int) -> None:
        self._begin_ns = self.asked_ns = now_ns
        self._ends = 0
        self._reading, self._listed = {}, set()

    def new_login(self) -> None:
        """Nothing outstanding will be answered: what was queued is gone, what was sent is told by the next read."""
        self.asked_ns = self._ends = 0
        for order in self.orders.values():
            order.decided = True

    def in_scope(self, contract: int) -> bool:
        c = self.contracts[contract]
        return self._only is None or (c.sec_type == "STK" and c.currency == "USD" and c.symbol in self._only)

    def ours(self, order: Order) -> bool:
        """May this order be cancelled, and must it be gone before the account counts as flat?"""
        return self._only is None or (self.in_scope(order.contract) and order.order_ref.startswith("L2:"))

    def working(self) -> Iterator[tuple[tuple[int, int], Order]]:
        """Working orders in scope."""
        return ((key, o) for key, o in self.orders.items() if o.working and self.ours(o))

    def add_own(self, order_id: int, contract: int, signed: float, ref: str) -> None:
        order = Order(contract, signed, abs(signed), self._client_id, ref, own=True)
        self.orders[self._client_id, order_id] = order
        self._tell(order_id, order, OrderState.SENT, "sent over the emergency connection")

    def _tell(self, order_id: int, o: Order, state: OrderState, text: str = "") -> None:
        name = self.contracts[o.contract].symbol
        self.told.append(Told(o.order_ref, order_id, name, state, o.signed, o.filled, o.avg_price, text))

    def on_all_cancelled(self, now_ns: int) -> None:
        """A global cancel has been written."""
        for _, order in self.working():
            order.cancel_sent_ns = order.cancel_sent_ns or now_ns

    def held(self) -> list[str]:
        """What is open in scope, in words."""
        words = [
            f"{c.symbol} {self.qty[i]:+g}"
            for i, c in enumerate(self.contracts)
            if abs(self.qty[i]) > EPSILON and self.in_scope(i)
        ]
        return words + [f"order {key[1]} of client {key[0]}" for key, _ in self.working()]

    def take(self, m: Message, now_ns: int, unsent: bool) -> None:
        """Take in one message. ``unsent``: own messages still wait, so a read can't know them yet."""
        if isinstance(m, Position):
            if m.account == self._account:
                at = self._contract(m.contract)
                self._reading[at] = m.qty
                if self.qty[at] != m.qty:
                    self.qty[at] = m.qty
                    self.events += self.known
        elif isinstance(m, OpenOrder):
            self._take_order(m)
        elif isinstance(m, OrderStatus):
            self._take_status(m)
        elif isinstance(m, BrokerError):
            self._take_error(m)
        elif isinstance(m, Execution):
            self._take_execution(m)
        elif isinstance(m, TickPrice):
            quote = self.quotes.setdefault(m.request_id, [math.nan, math.nan])
            if m.tick_type in (BID, ASK):
                quote[m.tick_type - BID] = m.price if m.price > 0.0 else math.nan
        elif isinstance(m, OpenOrdersEnd | PositionsEnd) and self.asked_ns:
            self._ends |= 1 if isinstance(m, OpenOrdersEnd) else 2
            if self._ends == 3:
                self._complete(now_ns, unsent)

    def _contract(self, contract: Contract) -> int:
        at = self._index.get(contract.con_id)
        if at is None:
            at = self._index[contract.con_id] = len(self.contracts)
            self.contracts.append(contract)
            self.qty.append(0.0)
        return at

    def _take_order(self, m: OpenOrder) -> None:
        if m.account and m.account != self._account:
            return
        key = (m.client_id, m.order_id)
        self._listed.add(key)
        if key not in self.orders:
            signed = m.qty if m.action == "BUY" else -m.qty
            self.orders[key] = Order(self._contract(m.contract), signed, m.qty, m.client_id, m.order_ref)
            self.events += 1
        self.orders[key].decided = True

    def _take_status(self, m: OrderStatus) -> None:
        order = self.orders.get((m.client_id, m.order_id))
        if order is None or (m.status == PARKED and order.status in ENDED):
            return
        # A cancel's echo takes nothing up: each cancel of an inactive order may be answered so, and be no news.
        order.cancelling = order.status == PARKED and m.status == CANCELLING
        status = PARKED if order.cancelling else m.status
        if (order.status, order.remaining) != (status, m.remaining):
            self.events += 1
        changed = order.status != status
        if order.own and m.status == PARKED and changed:
            self.rejected |= 1 << order.contract  # not tried again at once: the reason may last
        if order.status == PARKED and changed:  # taken up again
            order.cancel_sent_ns, order.over = 0, False
        order.status, order.remaining, order.decided = status, m.remaining, True
        if order.own and changed and m.status in _STATES:
            order.filled = max(order.filled, m.filled)
            self._tell(m.order_id, order, _STATES[m.status])

    def _take_execution(self, m: Execution) -> None:
        order = self.orders.get((m.client_id, m.order_id))
        if order is None or not order.own or m.cum_qty <= order.filled:
            return
        order.filled, order.avg_price, order.decided = m.cum_qty, m.avg_price, True
        whole = order.filled >= abs(order.signed) - EPSILON
        self._tell(m.order_id, order, OrderState.FILLED if whole else OrderState.PARTIAL, f"execution {m.exec_id}")

    def _take_error(self, m: BrokerError) -> None:
        order = self.orders.get((self._client_id, m.request_id))
        if order is None or m.code not in REJECTIONS:
            return
        if order.own and order.working:
            self.rejected |= 1 << order.contract
        order.status, order.decided = REJECTED, True
        self.events += 1
        self._tell(m.request_id, order, OrderState.REJECTED, f"{m.code} {m.text}")
        self.duplicate_id |= m.code == DUPLICATE_ID

    def _complete(self, now_ns: int, unsent: bool) -> None:
        """Both ends have arrived: what was not listed is gone."""
        self._ends, self.asked_ns = 0, 0
        for at in range(len(self.qty)):
            if at not in self._reading and self.qty[at]:
                self.qty[at] = 0.0
                self.events += 1
        for key, order in self.orders.items():
            settled = order.status == PARKED and not order.cancelling
            if order.working and settled and 0 < order.cancel_sent_ns <= self._begin_ns - PARKED_NS:
                order.over = True
                self.events += 1
                if order.own:
                    self._tell(key[1], order, OrderState.REJECTED, "cancelled while inactive")
            if key in self._listed or not order.working:
                continue
            if order.own and not order.decided and not unsent:
                order.unlisted += 1  # a fast order may be reported by its execution alone
                order.decided = order.unlisted >= 2
            if order.decided or not order.own:
                order.status = "Cancelled"
                self.events += 1
                if order.own and order.filled < abs(order.signed) - EPSILON:
                    self._tell(key[1], order, OrderState.UNKNOWN, "gone from the broker's list; executions will tell")
        open_orders = sum(1 for _ in self.working())
        mask = sum(1 << i for i, q in enumerate(self.qty) if abs(q) > EPSILON)
        self.snapshot = Snapshot(self.snapshot.number + 1, self._begin_ns, now_ns, self.events, open_orders, mask)
