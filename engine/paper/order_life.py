"""The life of orders after they were accepted: where they wait, how they trade, what a fill does to those around them.

Where an order may be: HELD (not transmitted), WAITING (its parent has not filled), DESK (watched: stops, trailing
stops, members of one-cancels-all groups, market-on-close, orders for the next open), MARKET (in the market source).

Invariants. 1. At most one member of a group is in the market, so a group never trades more than its largest member.
2. A fill takes at once from the other members what it traded. 3. Children begin when their parent has filled, or ended
with a part filled. 4. What the market reports is booked in the order in which it happened: nothing that changes the
market is done between two events of one batch, but put off to ``work``.

A member of a group is not shown in the book: it takes the other side's quote when that reaches its limit.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from engine.paper.account import Account
from engine.paper.catalog import Catalog, trading_day
from engine.paper.commissions import Traded, schedule_of
from engine.paper.order_faults import OrderFaults
from engine.paper.order_news import Audience, OrderNews
from engine.paper.orders import (
    CANCELLED,
    DESK,
    FILLED,
    HELD,
    MARKET,
    PENDING_CANCEL,
    PRE_SUBMITTED,
    SUBMITTED,
    WAITING,
    Execution,
    Ledger,
    PaperOrder,
    corrected_id,
)
from engine.paper.port import MarketSource
from engine.paper.state import Journal
from engine.paper.watch import STOPS, next_close, reached, regular, trailed, triggers

DONE_IOC = 2
IOC_REMAINDER = "Immediate-or-cancel remainder"
CANCEL_ALL_REMAINING = 1


class OrderLife:
    """Accepted orders. ``pump`` moves waiting market events through the gateway (this desk included).

    ``quote`` gives bid, ask and last of a symbol; ``hours`` is ``24/7`` or ``regular``.
    """

    def __init__(
        self,
        market: MarketSource,
        catalog: Catalog,
        account_id: str,
        account: Account,
        ledger: Ledger,
        journal: Journal,
        audience: Audience,
        marks: Callable[[], Mapping[int, float]],
        quote: Callable[[int], tuple[float, float, float]],
        pump: Callable[[], None],
        wall_s: Callable[[], float],
        commissions: str = "fixed",
        hours: str = "24/7",
        seed: int = 0,
    ) -> None:
        self.market = market
        self.catalog = catalog
        self.account_id = account_id
        self.account = account
        self.ledger = ledger
        self.faults = OrderFaults(seed)
        self.news = OrderNews(catalog, audience, self.faults)
        self.schedules = {s: schedule_of(commissions, i.sec_type) for s, i in catalog.instruments.items()}
        self._journal = journal
        self._audience = audience
        self._marks = marks
        self._quote = quote
        self._pump = pump
        self._wall_s = wall_s
        self._hours = hours
        self._open_now = self._trading(wall_s())
        self._close_s = next_close(wall_s())
        self._forced: set[int] = set()
        self._taking: set[int] = set()
        self._cancel_reason = ""
        self._todo: deque[Callable[[int], None]] = deque()
        self._due: set[int] = set()
        self.watched: dict[int, dict[int, PaperOrder]] = {}  # by symbol, by permId; stale entries are dropped on sight

    @property
    def open_now(self) -> bool:
        """True while orders trade at once."""
        return self._open_now

    # Where an order goes.

    def activate(self, order: PaperOrder, now_ns: int) -> None:
        """Bring a transmitted order to where it belongs now, and tell when it begins to work."""
        parent = self.ledger.orders.get(order.parent) if order.parent else None
        if parent is not None and parent.working:
            order.place = WAITING
            self._record(order)
            return
        waits = order.order_type == "MOC" or not self._may_trade(order)
        if order.order_type in STOPS and not order.triggered:
            waits = True
            self._trail(order, self._quote(order.symbol)[2])
        elif not waits and not order.group:
            self._submit(order, now_ns)
            return
        order.place = DESK
        self.watched.setdefault(order.symbol, {})[order.perm_id] = order
        if waits:
            self._record(order)
        else:
            self._begin(order)
        self._look(order, traded=True)
        self.work(now_ns)
        if order.tif == "IOC" and not waits and order.working and order.place == DESK:
            self._end(order, IOC_REMAINDER)  # a member of a group is not in the market, which would end it
            self.work(now_ns)

    def _may_trade(self, order: PaperOrder) -> bool:
        return self._open_now or (order.outside_rth and order.order_type != "MKT")

    def good_on(self, order_type: str, outside_rth: bool = False) -> str:
        """The trading day that a DAY order lives for: that of its session, which after the close is a later one."""
        if order_type != "MOC" and (self._open_now or (outside_rth and order_type != "MKT")):
            return self.account.day
        return max(self.account.day, trading_day(next_close(self._wall_s())))

    def _submit(self, order: PaperOrder, now_ns: int) -> None:
        order.place = MARKET
        order.filled_before = order.filled
        ioc = order.tif == "IOC"
        self.market.submit(order.perm_id, order.symbol, order.sign, order.remaining, order.limit_now, ioc, now_ns)
        self._pump()
        self._begin(order)

    def _begin(self, order: PaperOrder) -> None:
        """PreSubmitted becomes Submitted."""
        if order.status == PRE_SUBMITTED:
            order.status = SUBMITTED
            self._record(order)
            self.news.order(order)
            self.news.status(order)

    # What the desk watches.

    def market_moved(self, symbol: int, traded: bool) -> None:
        """A trade or a quote of a symbol with watched orders: note which of them are due."""
        for order in list(self.watched[symbol].values()):
            if order.working and order.place == DESK:
                self._look(order, traded)
            else:
                del self.watched[symbol][order.perm_id]

    def _look(self, order: PaperOrder, traded: bool) -> None:
        if order.perm_id in self._due or order.order_type == "MOC":
            return
        bid, ask, last = self._quote(order.symbol)
        if order.order_type in STOPS and not order.triggered:
            if not traded or last != last:
                return
            self._trail(order, last)
            due = triggers(order, last) and self._may_trade(order)
        else:
            due = self._may_trade(order) and reached(order, bid, ask)
        if due:
            self._due.add(order.perm_id)
            self._todo.append(partial(self._carry_out, order))

    def _trail(self, order: PaperOrder, last: float) -> None:
        if order.order_type != "TRAIL" or last != last:
            return
        stop = trailed(order, last)
        if stop != order.trail_stop:
            order.trail_stop = stop
            self._record(order)

    def _carry_out(self, order: PaperOrder, now_ns: int) -> None:
        """A watched order is due: trigger it, or let it take what the other side shows."""
        self._due.discard(order.perm_id)
        if not order.working or order.place != DESK or self._group_is_in_market(order):
            return
        if order.order_type in STOPS and not order.triggered:
            order.triggered = True
            self._begin(order)
        if order.group and order.limit_now == order.limit_now:
            self._take(order, now_ns)
        else:
            self._submit(order, now_ns)

    def _take(self, order: PaperOrder, now_ns: int) -> None:
        """Trade against what the book shows within the limit, and go on watching with the rest."""
        self._taking.add(order.perm_id)
        order.place = MARKET
        order.filled_before = order.filled
        self.market.submit(order.perm_id, order.symbol, order.sign, order.remaining, order.limit_now, True, now_ns)
        self._pump()
        self._taking.discard(order.perm_id)
        self._begin(order)
        if order.working:
            order.place = DESK

    def work(self, now_ns: int) -> None:
        """Do what the last events made due."""
        while self._todo:
            self._todo.popleft()(now_ns)

    def tick(self, now_ns: int) -> None:
        """Once a second: the close for market-on-close orders, and the session for all others."""
        wall_s = self._wall_s()
        if wall_s >= self._close_s:
            self.close_auction(now_ns)
            self._close_s = next_close(wall_s)
        is_open = self._trading(wall_s)
        if is_open == self._open_now:
            return
        self._open_now = is_open
        for order in list(self.ledger.working()):
            if not order.working:
                continue
            if is_open and order.place == DESK:
                self.activate(order, now_ns)
            elif not is_open and order.tif == "DAY" and not order.outside_rth and order.place != HELD:
                self._cancel(order, now_ns)

    def _trading(self, wall_s: float) -> bool:
        return self._hours == "24/7" or regular(wall_s)

    def close_auction(self, now_ns: int) -> int:
        """Market-on-close orders become market orders; returns how many."""
        closing = [o for o in self.ledger.working() if o.order_type == "MOC" and o.place == DESK]
        for order in closing:
            if order.working and not self._group_is_in_market(order):
                self._submit(order, now_ns)
        return len(closing)

    # Orders around an order.

    def _others(self, order: PaperOrder) -> Iterator[PaperOrder]:
        """The other working members of its group; named groups are those of one client."""
        group = order.group
        if not group:
            return
        for other in self.ledger.working():
            if other is not order and other.group == group and other.working and other.client_id == order.client_id:
                yield other

    def _group_is_in_market(self, order: PaperOrder) -> bool:
        return any(other.place == MARKET for other in self._others(order))

    def children(self, order: PaperOrder) -> list[PaperOrder]:
        """Working orders attached to an order."""
        return [o for o in self.ledger.working() if o.parent == order.perm_id and o.working]

    def _after_fill(self, order: PaperOrder, quantity: float) -> None:
        for other in list(self._others(order)):
            left = other.remaining - quantity
            if left <= 1e-9 or (order.oca_group and order.oca_type == CANCEL_ALL_REMAINING):
                self._end(other, "One-cancels-all: another order of the group traded")
                continue
            other.quantity -= quantity
            self._record(other)
            self.news.order(other)
            self.news.status(other)
        if order.status == FILLED:
            self._release_children(order)

    def _release_children(self, order: PaperOrder) -> None:
        for child in self.children(order):
            if child.place == WAITING:
                self._todo.append(partial(self._release, child))

    def _release(self, child: PaperOrder, now_ns: int) -> None:
        if child.working and child.place == WAITING:
            self.activate(child, now_ns)

    def _after_end(self, order: PaperOrder) -> None:
        """Children of an order that ended: what was filled stays protected, the rest of them ends too."""
        for child in self.children(order):
            if order.filled <= 0:
                self._end(child, "its parent order ended")
            else:
                child.quantity = min(child.quantity, child.filled + order.filled)
        if order.filled > 0:
            self._release_children(order)

    # How an order ends.

    def _cancel(self, order: PaperOrder, now_ns: int) -> None:
        status = order.status
        if order.place == HELD:
            self._end(order, self._cancel_reason)
            return
        order.status = PENDING_CANCEL
        self.news.status(order)
        if order.place != MARKET:
            self._end(order, self._cancel_reason)
            self.work(now_ns)
            return
        gone = self.market.cancel(order.perm_id, now_ns)
        self._pump()
        if not gone and order.status == PENDING_CANCEL:
            # Neither in the book nor filled: the market source lost it, which must not leave a zombie.
            order.status = status
            self.done(order.perm_id, 1)

    def _end(self, order: PaperOrder, reason: str) -> None:
        order.status = CANCELLED
        order.ended_s, order.end_reason = self._wall_s(), reason
        self._record(order)
        if order.place != HELD:
            self.news.order(order)
            self.news.status(order)
        self.news.cancelled(order, reason)
        self._after_end(order)

    # What the market reports.

    def filled(self, perm_id: int, price: float, quantity: float, added_liquidity: bool) -> None:
        """An execution of a client order; a fault may have it told in parts."""
        whole = quantity == int(quantity)
        if whole and quantity >= 2 and self.faults.fires(self.faults.split):
            parts = min(self.faults.parts, int(quantity))
            each = quantity // parts
            for part in range(parts):
                self._filled(perm_id, price, each if part < parts - 1 else quantity - each * part, added_liquidity)
            return
        self._filled(perm_id, price, quantity, added_liquidity)

    def _filled(self, perm_id: int, price: float, quantity: float, added_liquidity: bool) -> None:
        order = self.ledger.orders[perm_id]
        order.added += quantity if added_liquidity else 0.0
        before = order.filled_value if order.symbol in self.account.pairs else order.filled
        traded = Traded(
            order.filled + quantity,
            order.filled_value + quantity * price,
            order.sign < 0,
            order.added,
            max(0.0, self.account.month_of(order.symbol) - before),
        )
        commission = self.schedules[order.symbol](traded) - order.commission
        order.fill(quantity, price, commission)
        result = self.account.fill(order.symbol, quantity * order.sign, price, commission)
        execution = Execution(
            self.ledger.new_exec_id(),
            order.perm_id,
            order.client_id,
            order.order_id,
            order.symbol,
            order.action,
            quantity,
            price,
            order.filled,
            order.average_price,
            self.catalog[order.symbol].primary_exchange,
            order.order_ref,
            self.account_id,
            self._wall_s(),
            1 if added_liquidity else 2,
            commission,
            result.realized if result.closed else math.nan,
        )
        if order.status == FILLED:
            order.ended_s = execution.wall_s
        self.ledger.put_execution(execution)
        self._journal.execution(execution)
        self._record(order)
        self.news.execution(order, execution)
        if order.group or order.status == FILLED:
            self._after_fill(order, quantity)

    def done(self, perm_id: int, reason: int) -> None:
        """A client order left the book unfilled. ``reason`` 1 cancelled, 2 remainder of an immediate order."""
        order = self.ledger.orders[perm_id]
        if perm_id in self._forced or perm_id in self._taking or not order.working:
            return
        self._end(order, IOC_REMAINDER if reason == DONE_IOC else self._cancel_reason)

    # Faults.

    def could_trade(self, order: PaperOrder) -> bool:
        """True for an order that only waits for its price."""
        return order.place == MARKET or (
            order.place == DESK and order.order_type != "MOC" and (order.triggered or order.order_type not in STOPS)
        )

    def withdraw(self, order: PaperOrder, now_ns: int) -> bool:
        """Take an order out of the market without ending it; False if it has ended there."""
        self._forced.add(order.perm_id)
        self.market.cancel(order.perm_id, now_ns)
        self._pump()
        self._forced.discard(order.perm_id)
        return order.working

    def force_fill(self, order: PaperOrder, quantity: float, now_ns: int) -> None:
        """Fill an order at its own limit (others at the mark), as if the market had come to it."""
        if not self.could_trade(order):
            return
        in_market = order.place == MARKET
        price = order.limit if math.isfinite(order.limit) else round(self._marks()[order.symbol], 2)
        if in_market:
            self.withdraw(order, now_ns)
        if not order.working:
            return
        self.filled(order.perm_id, price, min(quantity, order.remaining), True)
        if order.working and in_market:
            self._submit(order, now_ns)
        self.work(now_ns)

    def broker_cancels(self, order: PaperOrder, reason: str, now_ns: int) -> None:
        """A cancel that no client asked for."""
        self._cancel_reason = reason
        self._cancel(order, now_ns)
        self._cancel_reason = ""

    def correct_last(self, price_change: float) -> Execution | None:
        """Correct the price of the last execution; None if there is none."""
        if not self.ledger.executions:
            return None
        old = self.ledger.executions[-1]
        new_price = round(old.price + price_change, 4)
        corrected = replace(old, exec_id=corrected_id(old.exec_id), price=new_price, realized=math.nan)
        order = self.ledger.orders.get(old.perm_id)
        if order is not None:
            order.filled_value += old.quantity * (new_price - old.price)
        self.account.correct(old.symbol, old.signed_quantity, old.price, new_price)
        self.ledger.put_execution(corrected)
        self._journal.correction(corrected, old.price)
        self.news.correction(corrected)
        return corrected

    # Restart, day.

    def resume(self, now_ns: int) -> int:
        """After a restart: working orders go where they were; what can't work any more is cancelled."""
        resumed = 0
        for order in list(self.ledger.working()):
            if not order.working or order.place == HELD:
                continue
            at_any_price = order.place == MARKET and order.limit_now != order.limit_now
            if order.tif == "IOC" or at_any_price or (order.tif == "DAY" and order.day < self.account.day):
                self._end(order, "")
                continue
            if order.status == PENDING_CANCEL:
                order.status = SUBMITTED
            self.activate(order, now_ns)
            resumed += 1
        return resumed

    def roll_day(self, day: str, now_ns: int) -> None:
        """Begin a trading day: DAY orders expire, P&L of the day and the day's executions start anew."""
        for order in self.ledger.working():
            if order.tif == "DAY" and order.day < day and order.working:
                self._cancel(order, now_ns)
        self.account.roll_day(day, self._marks())
        self.ledger.roll_day()
        self._journal.rolled()

    def _record(self, order: PaperOrder) -> None:
        self._journal.order(order)
