"""Getting flat over the emergency connection: the pure flatten machine, fed by what the broker itself says.

After a fencing the dead bridge's bytes may still be on their way. So: global cancel first, and no close before two
reads of the account, begun well apart, have agreed that nothing works any more. And after flat, and while the bridge is
only missed, the account is read on: what turns up late is cancelled and closed like everything before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from engine.broker.emergency_book import EmergencyBook, Told
from engine.broker.emergency_codec import Contract, Message
from engine.broker.emergency_link import SECOND_NS, EmergencyConnection
from engine.domain.codes import Source
from engine.risk import flatten as fl

READ_TIMEOUT_NS = 2 * SECOND_NS
SETTLE_LIMIT_NS = 5 * SECOND_NS
"""Cancels that are not confirmed for this long must not hold up the closing of what is confirmed."""
WATCH_NS = 2 * SECOND_NS
"""How often the account is read while there is nothing to do."""

Quotes = Callable[[str], tuple[float, float]]
"""(bid, ask) of a stock by its symbol, NaN where not known."""


class DirectFlatten:
    """The flatten machine over an emergency connection.

    ``only``: stock symbols in scope (account scope "managed"); None: everything in the account, with global cancel.
    ``settle``: another owner's bytes may still be on their way. ``cancel_only``: cancel and watch, close nothing yet.
    ``canceller``: a connection under the dead bridge's client id, the only one that may cancel its orders one by one.
    """

    def __init__(
        self, connection: EmergencyConnection, account: str, *, only: frozenset[str] | None, reason: str, now_ns: int,
        wall_s: int, quotes: Quotes | None = None, regular_hours: Callable[[], bool] | None = None,
        cancel_only: bool = False, settle: bool = False, canceller: EmergencyConnection | None = None,
    ) -> None:  # fmt: skip
        self._connection, self._account, self._only = connection, account, only
        self._quotes, self._regular, self._canceller = quotes, regular_hours, canceller
        self._config = fl.FlattenConfig()
        self._book = EmergencyBook(account, connection.client_id, only)
        self._incarnation = connection.incarnation
        self._ref = int(Source.WATCHDOG) << 56 | (wall_s & 0xFFFFFFFF) << 24
        self._count = 0
        self._settling = settle
        self._settle_from_ns = 0
        self._first = (0, -1)  # end and events of the read that a second one must agree with
        self._cancelled_ns = 0
        self._asked_prices: set[int] = set()
        self._kept: frozenset[str] = frozenset()
        self._outside_of: frozenset[str] | None = None
        self.cancel_only = cancel_only
        self.alerts: list[str] = []
        self.closed = 0
        self.began_ns = now_ns
        self.sent_ns = 0
        """When the last closing order of the first round had left; 0: not yet."""
        self._leaving = False
        self.state = fl.start(now_ns, 0, source=Source.WATCHDOG, reason=reason, cause_ns=now_ns, now_ns=now_ns)

    @property
    def done(self) -> bool:
        return not self.state.active

    @property
    def contracts(self) -> list[Contract]:
        return self._book.contracts

    @property
    def told(self) -> list[Told]:
        """News of our own orders; whoever journals them empties it."""
        return self._book.told

    @property
    def known(self) -> bool:
        """The account has been read completely at least once."""
        return self._book.known

    @property
    def settled(self) -> bool:
        """Nothing of the former owner's is on its way any more, as far as two reads can tell."""
        return self.known and not self._settling

    def cancels_pending(self, client_id: int, now_ns: int) -> bool:
        """May an order of this client id still have to be cancelled over its own connection? Not one that has been
        cancelled for so long without going: the cancel has arrived, and waits at the exchange."""
        return any(
            key[0] == client_id and not 0 < order.cancel_sent_ns < now_ns - SETTLE_LIMIT_NS
            for key, order in self._book.working()
        )

    def held(self) -> list[str]:
        """What is open, in words."""
        return self._book.held()

    def excuse(self, symbols: frozenset[str]) -> None:
        """An operator keeps these stocks, also those that are not met yet; the rest is still confirmed flat."""
        self._kept |= symbols
        self._apply_kept()

    def excuse_outside(self, symbols: frozenset[str]) -> None:
        """An operator keeps what is held in anything but these stocks."""
        self._outside_of = symbols
        self._apply_kept()

    def _apply_kept(self) -> None:
        mask = sum(1 << at for at in range(len(self.state.retry_ns)) if self._keeps(at))
        self.state = fl.excuse(self.state, mask)

    def _keeps(self, at: int) -> bool:
        contract = self.contracts[at]
        if self._outside_of is not None and (contract.sec_type != "STK" or contract.symbol not in self._outside_of):
            return True
        return contract.sec_type == "STK" and contract.symbol in self._kept

    def step(self, messages: list[Message], now_ns: int) -> None:
        """Take in what has arrived, advance, send."""
        connection, book = self._connection, self._book
        if self._leaving and not connection.unsent:  # what may leave in a second is little around a change of owner
            self._leaving, self.sent_ns = False, now_ns
        if connection.incarnation != self._incarnation:
            self._incarnation = connection.incarnation
            book.new_login()
            self._asked_prices.clear()
            if book.known:
                self.state = fl.resume(self.state, now_ns, len(book.contracts))
        for message in messages:
            book.take(message, now_ns, bool(connection.unsent))
        if book.duplicate_id:
            book.duplicate_id = False
            connection.next_order_id += 1_000
        self._meet()
        if not connection.ready:
            return
        if not book.known:
            if not book.asked_ns or now_ns - book.asked_ns > READ_TIMEOUT_NS:
                self._cancel_all(now_ns)
                self._ask(now_ns)
            return
        if self._settling and not self._settle(now_ns):
            return
        if self.cancel_only or self.done:
            self._watch_on(now_ns)
            return
        self.state, actions = fl.step(self.state, self._view(), now_ns, self._config)
        book.rejected = 0
        self._carry_out(actions, now_ns)

    def _meet(self) -> None:
        """The machine's state grows by the contracts that have been met."""
        for at in range(len(self.state.retry_ns), len(self._book.contracts)):
            s = self.state
            scope = s.scope | (1 << at if self._book.in_scope(at) else 0)
            excused = s.excused | (scope & 1 << at if self._keeps(at) else 0)
            self.state = replace(s, scope=scope, excused=excused, retry_ns=(*s.retry_ns, 0), rejects=(*s.rejects, 0))

    def _settle(self, now_ns: int) -> bool:
        """True once two reads, the second begun well after the first had ended, agree that nothing works."""
        snapshot, apart_ns = self._book.snapshot, self._config.apart_ns
        self._settle_from_ns = self._settle_from_ns or now_ns
        quiet = snapshot.events == self._book.events and not snapshot.open_orders
        first_end, first_events = self._first
        if quiet and first_events == snapshot.events and snapshot.begin_ns - first_end >= apart_ns:
            self._settling = False
            return True
        if now_ns - self._settle_from_ns > SETTLE_LIMIT_NS:
            what = ", ".join(self.held()) or "the account does not stand still"
            self.alerts.append(f"cancels are not confirmed: {what}")
            self._settling = False
            return True
        if self._book.asked_ns:
            if now_ns - self._book.asked_ns > READ_TIMEOUT_NS:
                self._ask(now_ns)
            return False
        if quiet and first_events != snapshot.events:
            self._first = (snapshot.end_ns, snapshot.events)
        if snapshot.open_orders and now_ns - self._cancelled_ns >= SECOND_NS:
            self._cancel_all(now_ns)
        if now_ns - snapshot.end_ns >= apart_ns:
            self._ask(now_ns)
        return False

    def _watch_on(self, now_ns: int) -> None:
        """Nothing to close: read on, cancel what turns up, and close again if flat no longer holds."""
        book = self._book
        if book.asked_ns:
            if now_ns - book.asked_ns > READ_TIMEOUT_NS:
                self._ask(now_ns)
            return
        snapshot, s = book.snapshot, self.state
        if snapshot.open_orders and now_ns - self._cancelled_ns >= SECOND_NS:
            self._cancel_all(now_ns)
        late = snapshot.positions & s.scope & ~s.excused
        if self.done and snapshot.end_ns > s.flat_ns and (late or snapshot.open_orders):
            self.alerts.append(f"open again after flat was confirmed: {', '.join(self.held())}")
            n = len(s.retry_ns)
            self.state = replace(
                fl.start(now_ns, n, source=s.source, reason=s.reason, cause_ns=now_ns, now_ns=now_ns, scope=s.scope),
                excused=s.excused,
            )
        if now_ns - snapshot.end_ns >= WATCH_NS:
            self._ask(now_ns)

    def _carry_out(self, actions: tuple[fl.Action, ...], now_ns: int) -> None:
        for action in actions:
            if isinstance(action, fl.CancelAll):
                self._cancel_all(now_ns)
            elif isinstance(action, fl.Close):
                self._close(action)
                self._leaving = self.sent_ns == 0
            elif isinstance(action, fl.RequestSnapshot):
                self._ask(now_ns)
            elif isinstance(action, fl.Alert):
                self.alerts.append(f"{action.text}; remaining: {', '.join(self.held()) or 'unconfirmed'}")

    def _ask(self, now_ns: int) -> None:
        codec = self._connection.codec
        self._book.begin_read(now_ns)
        self._connection.send(codec.request_all_open_orders(), codec.request_positions())

    def _cancel_all(self, now_ns: int) -> None:
        self._cancelled_ns = now_ns
        codec = self._connection.codec
        if self._only is None:
            self._connection.send(codec.global_cancel(), urgent=True)
            self._book.on_all_cancelled(now_ns)
            return
        for (client_id, order_id), order in self._book.working():
            hand = self._connection if client_id == self._connection.client_id else self._canceller
            if hand is not None and hand.ready and hand.client_id == client_id:
                hand.send(hand.codec.cancel_order(order_id), urgent=True)
                order.cancel_sent_ns = order.cancel_sent_ns or now_ns

    def _close(self, close: fl.Close) -> None:
        connection = self._connection
        order_id = connection.next_order_id
        connection.next_order_id += 1
        self._count += 1
        self.closed += 1
        ref = f"L2:{self._ref | self._count:x}"
        action = "BUY" if close.side > 0 else "SELL"
        limit = close.limit
        if not math.isnan(limit):  # on a whole cent, away from the touch
            cents = limit * 100.0
            limit = (math.ceil(cents - 1e-6) if close.side > 0 else math.floor(cents + 1e-6)) / 100.0
        frame = connection.codec.place_order(
            order_id, self.contracts[close.symbol], action, close.qty, self._account, ref, limit,
            outside_hours=not math.isnan(limit),
        )  # fmt: skip
        connection.send(frame)
        self._book.add_own(order_id, close.symbol, close.qty * int(close.side), ref)

    def _price(self, at: int, regular: bool) -> tuple[float, float]:
        """Bid and ask: asked for over this connection outside regular hours, as nobody else may be alive to tell."""
        contract = self.contracts[at]
        if not regular and at not in self._asked_prices and abs(self._book.qty[at]) > fl.EPSILON:
            self._asked_prices.add(at)
            self._connection.send(self._connection.codec.request_quotes(at, contract))
        bid, ask = self._book.quotes.get(at, (math.nan, math.nan))
        if math.isnan(bid) and math.isnan(ask) and self._quotes is not None:
            return self._quotes(contract.symbol)
        return bid, ask

    def _view(self) -> fl.View:
        book, snapshot = self._book, self._book.snapshot
        closing = [0.0] * len(book.contracts)
        undecided = working = busy = 0
        for _, order in book.working():
            working += 1
            busy |= 1 << order.contract
            undecided += order.own and not order.decided
            if order.signed * book.qty[order.contract] < 0:
                closing[order.contract] += order.remaining
        regular = self._regular is None or self._regular()
        quotes = [self._price(at, regular) for at in range(len(book.contracts))]
        return fl.View(
            qty=tuple(book.qty), closing=tuple(closing),
            bid=tuple(q[0] for q in quotes), ask=tuple(q[1] for q in quotes),
            halted=0, open_orders=working, undecided=undecided, busy=busy, rejected=book.rejected,
            order_events=book.events,
            snapshot_id=snapshot.number, snapshot_begin_ns=snapshot.begin_ns, snapshot_end_ns=snapshot.end_ns,
            snapshot_events=snapshot.events, snapshot_open_orders=snapshot.open_orders,
            snapshot_positions=snapshot.positions, regular_hours=regular,
        )  # fmt: skip
