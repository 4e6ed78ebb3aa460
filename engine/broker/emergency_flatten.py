"""Getting flat over the emergency connection: the pure flatten machine, fed by what the broker itself says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.broker.emergency_codec import (
    BrokerError,
    Contract,
    Message,
    OpenOrder,
    OpenOrdersEnd,
    OrderStatus,
    Position,
    PositionsEnd,
)
from engine.broker.emergency_link import SECOND_NS, EmergencyConnection
from engine.domain.codes import Source
from engine.risk import flatten as fl

ENDED = ("Filled", "Cancelled", "ApiCancelled", "Inactive")
REJECTIONS = (103, 104, 110, 200, 201, 203, 321, 10318)


@dataclass(slots=True)
class _Order:
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


Quotes = Callable[[int], tuple[float, float]]
"""(bid, ask) of a contract by its con_id, NaN where not known."""


class DirectFlatten:
    """The flatten machine over an emergency connection. Symbols are the contracts in the order they are met.

    ``only``: con_ids in scope (account scope "managed"); None: everything in the account, with global cancel.
    """

    def __init__(
        self, connection: EmergencyConnection, account: str, *, only: frozenset[int] | None, reason: str, now_ns: int,
        wall_s: int, quotes: Quotes | None = None, regular_hours: bool = True, cancel_only: bool = False,
    ) -> None:  # fmt: skip
        self._connection, self._account, self._only = connection, account, only
        self._quotes, self._regular = quotes, regular_hours
        self._config = fl.FlattenConfig()
        self.contracts: list[Contract] = []
        self._index: dict[int, int] = {}
        self._qty: list[float] = []
        self._reading: dict[int, float] = {}
        self._orders: dict[tuple[int, int], _Order] = {}
        self._listed: set[tuple[int, int]] = set()
        self._events = self._snapshots = 0
        self._begin_ns = self._asked_ns = 0
        self._ends = 0
        self._snapshot = (0, 0, 0, 0, 0)  # begin, end, events, open orders, positions
        self._rejected = 0
        self._rejecting = 0
        self._incarnation = connection.incarnation
        self._ref = int(Source.WATCHDOG) << 56 | (wall_s & 0xFFFFFFFF) << 24
        self._count = 0
        self.cancel_only = cancel_only
        """Cancel what works and read the account, but close nothing yet."""
        self.alerts: list[str] = []
        self.closed = 0
        self.state = fl.start(now_ns, 0, source=Source.WATCHDOG, reason=reason, cause_ns=now_ns, now_ns=now_ns)
        self._known = False

    @property
    def done(self) -> bool:
        return not self.state.active

    def held(self) -> list[str]:
        """What is open, in words."""
        words = [
            f"{c.symbol} {self._qty[i]:+g}" for i, c in enumerate(self.contracts) if abs(self._qty[i]) > fl.EPSILON
        ]
        words += [f"order {key[1]} of client {key[0]}" for key, o in self._orders.items() if o.status not in ENDED]
        return words

    def excuse(self, con_ids: frozenset[int]) -> None:
        """An operator keeps these contracts; the rest is still confirmed flat."""
        mask = sum(1 << at for at, c in enumerate(self.contracts) if c.con_id in con_ids)
        self.state = fl.excuse(self.state, mask)

    @property
    def known(self) -> bool:
        """The account has been read completely at least once."""
        return self._known

    def step(self, messages: list[Message], now_ns: int) -> None:
        """Take in what has arrived, advance, send."""
        connection = self._connection
        if connection.incarnation != self._incarnation:  # a new login: nothing outstanding will be answered
            self._incarnation, self._asked_ns, self._ends = connection.incarnation, 0, 0
            for order in self._orders.values():
                order.decided = True  # what was queued is gone, what was sent is told by the next read
            if self._known:
                self.state = fl.resume(self.state, now_ns, len(self.contracts))
        for message in messages:
            self._take(message, now_ns)
        if not connection.ready:
            return
        if not self._known:
            if not self._asked_ns or now_ns - self._asked_ns > 2 * SECOND_NS:
                self._cancel_all()
                self._ask(now_ns)
            return
        if self.cancel_only:
            return
        self.state, actions = fl.step(self.state, self._view(now_ns), now_ns, self._config)
        self._rejected = 0
        for action in actions:
            if isinstance(action, fl.CancelAll):
                self._cancel_all()
            elif isinstance(action, fl.Close):
                self._close(action)
            elif isinstance(action, fl.RequestSnapshot):
                self._ask(now_ns)
            elif isinstance(action, fl.Alert):
                self.alerts.append(f"{action.text}; remaining: {', '.join(self.held()) or 'unconfirmed'}")

    def _ask(self, now_ns: int) -> None:
        codec = self._connection.codec
        self._begin_ns = self._asked_ns = now_ns
        self._ends = 0
        self._reading, self._listed = {}, set()
        self._connection.send(codec.request_all_open_orders(), codec.request_positions())

    def _cancel_all(self) -> None:
        codec = self._connection.codec
        if self._only is None:
            self._connection.send(codec.global_cancel(), urgent=True)
            return
        frames = [
            codec.cancel_order(key[1])
            for key, order in self._orders.items()
            if key[0] == self._connection.client_id and order.status not in ENDED
        ]
        self._connection.send(*frames, urgent=True)

    def _close(self, close: fl.Close) -> None:
        connection = self._connection
        order_id = connection.next_order_id
        connection.next_order_id += 1
        self._count += 1
        self.closed += 1
        ref = f"L2:{self._ref | self._count:x}"
        action = "BUY" if close.side > 0 else "SELL"
        limit = close.limit if math.isnan(close.limit) else round(close.limit, 2)
        contract = self.contracts[close.symbol]
        frame = connection.codec.place_order(
            order_id, contract, action, close.qty, self._account, ref, limit, outside_hours=not math.isnan(limit)
        )
        connection.send(frame)
        self._orders[connection.client_id, order_id] = _Order(
            close.symbol, close.qty * int(close.side), close.qty, connection.client_id, ref, own=True
        )

    def _contract(self, contract: Contract) -> int:
        at = self._index.get(contract.con_id)
        if at is None:
            at = self._index[contract.con_id] = len(self.contracts)
            self.contracts.append(contract)
            self._qty.append(0.0)
            in_scope = self._only is None or contract.con_id in self._only
            s = self.state
            self.state = replace(
                s, scope=s.scope | (1 << at if in_scope else 0), retry_ns=(*s.retry_ns, 0), rejects=(*s.rejects, 0)
            )
        return at

    def _in_scope(self, order: _Order) -> bool:
        return self._only is None or bool(self.state.scope >> order.contract & 1 and order.order_ref.startswith("L2:"))

    def _take(self, m: Message, now_ns: int) -> None:
        if isinstance(m, Position):
            if m.account == self._account:
                at = self._contract(m.contract)
                self._reading[at] = m.qty
                if self._qty[at] != m.qty:
                    self._qty[at] = m.qty
                    self._events += self._known
        elif isinstance(m, OpenOrder):
            self._take_order(m)
        elif isinstance(m, OrderStatus):
            self._take_status(m)
        elif isinstance(m, BrokerError):
            order = self._orders.get((self._connection.client_id, m.request_id))
            if order is not None and m.code in REJECTIONS:
                if order.own and order.status not in ENDED:
                    self._rejected |= 1 << order.contract
                order.status, order.decided = "Inactive", True
                self._events += 1
                if m.code == 103:
                    self._connection.next_order_id += 1_000
        elif isinstance(m, OpenOrdersEnd | PositionsEnd) and self._asked_ns:
            self._ends |= 1 if isinstance(m, OpenOrdersEnd) else 2
            if self._ends == 3:
                self._complete(now_ns)

    def _take_order(self, m: OpenOrder) -> None:
        if m.account and m.account != self._account:
            return
        key = (m.client_id, m.order_id)
        self._listed.add(key)
        if key not in self._orders:
            signed = m.qty if m.action == "BUY" else -m.qty
            self._orders[key] = _Order(self._contract(m.contract), signed, m.qty, m.client_id, m.order_ref)
            self._events += 1
        self._orders[key].decided = True

    def _take_status(self, m: OrderStatus) -> None:
        order = self._orders.get((m.client_id, m.order_id))
        if order is None:
            return
        if (order.status, order.remaining) != (m.status, m.remaining):
            self._events += 1
        if order.own and m.status == "Inactive" and order.status not in ENDED:
            self._rejected |= 1 << order.contract
        order.status, order.remaining, order.decided = m.status, m.remaining, True

    def _complete(self, now_ns: int) -> None:
        """Both ends have arrived: what was not listed is gone."""
        self._ends, self._asked_ns = 0, 0
        self._snapshots += 1
        for at in range(len(self._qty)):
            if at not in self._reading and self._qty[at]:
                self._qty[at] = 0.0
                self._events += 1
        for key, order in self._orders.items():
            if key in self._listed or order.status in ENDED:
                continue
            if order.own and not order.decided and not self._connection.unsent:
                order.unlisted += 1  # a fast order may be reported by its execution alone
                order.decided = order.unlisted >= 2
            if order.decided or not order.own:
                order.status = "Cancelled"
                self._events += 1
        open_orders = sum(1 for o in self._orders.values() if o.status not in ENDED and self._in_scope(o))
        mask = sum(1 << i for i, q in enumerate(self._qty) if abs(q) > fl.EPSILON)
        self._snapshot = (self._begin_ns, now_ns, self._events, open_orders, mask)
        self._known = True

    def _view(self, now_ns: int) -> fl.View:
        n = len(self.contracts)
        closing = [0.0] * n
        undecided = working = 0
        for order in self._orders.values():
            if order.status in ENDED or not self._in_scope(order):
                continue
            working += 1
            if order.own and not order.decided:
                undecided += 1
            if order.signed * self._qty[order.contract] < 0:
                closing[order.contract] += order.remaining
        quotes = [self._quotes(c.con_id) if self._quotes else (math.nan, math.nan) for c in self.contracts]
        begin, end, events, open_orders, positions = self._snapshot
        return fl.View(
            qty=tuple(self._qty), closing=tuple(closing),
            bid=tuple(q[0] for q in quotes), ask=tuple(q[1] for q in quotes),
            halted=0, open_orders=working, undecided=undecided, rejected=self._rejected, order_events=self._events,
            snapshot_id=self._snapshots, snapshot_begin_ns=begin, snapshot_end_ns=end, snapshot_events=events,
            snapshot_open_orders=open_orders, snapshot_positions=positions,
            regular_hours=self._regular or self._quotes is None,
        )  # fmt: skip
