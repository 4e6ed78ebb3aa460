"""The trading desk: takes orders from clients, sends them to the market, books what comes back, tells who must know.

Sequences are those of the broker: openOrder precedes the first execution; a fill is execDetails, openOrder,
orderStatus, then commission; a cancel is PendingCancel, Cancelled and error 202. Every state change is journaled
before it is told.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from engine.paper.account import Account, commission_total
from engine.paper.catalog import Catalog, UnknownContract
from engine.paper.order_checks import (
    Refusal,
    check_active,
    check_form,
    check_margin,
    check_modify,
    rejected,
    what_if,
)
from engine.paper.order_faults import OrderFaults
from engine.paper.order_news import Audience, Client, OrderNews
from engine.paper.order_out import open_order
from engine.paper.orders import (
    CANCELLED,
    FILLED,
    INACTIVE,
    PENDING_CANCEL,
    PRE_SUBMITTED,
    SUBMITTED,
    Execution,
    Ledger,
    PaperOrder,
    corrected_id,
)
from engine.paper.place_order import OrderRequest
from engine.paper.port import MarketSource
from engine.paper.state import Journal

DONE_IOC = 2


class Desk:
    """Order entry and booking. ``pump`` moves waiting market events through the gateway (this desk included)."""

    def __init__(
        self,
        market: MarketSource,
        catalog: Catalog,
        account_id: str,
        account: Account,
        ledger: Ledger,
        journal: Journal,
        audience: Audience,
        marks: Callable[[], dict[int, float]],
        pump: Callable[[], None],
        wall_s: Callable[[], float],
    ) -> None:
        self.market = market
        self.catalog = catalog
        self.account_id = account_id
        self.account = account
        self.ledger = ledger
        self.faults = OrderFaults()
        self.news = OrderNews(catalog, audience, self.faults)
        self._journal = journal
        self._marks = marks
        self._pump = pump
        self._wall_s = wall_s
        self._forced: set[int] = set()
        self._cancel_reason = ""

    # Order entry.

    def place(self, client: Client, request: OrderRequest, now_ns: int) -> None:
        """placeOrder: a new order, a modification of a working one, or a what-if."""
        try:
            instrument = self.catalog.find(request.contract)
        except UnknownContract as error:
            client.error(request.order_id, error.code, str(error))
            return
        existing = self.ledger.find(client.client_id, request.order_id)
        refusal = check_form(request, instrument, self.account_id)
        symbol = instrument.index
        if request.what_if:
            if refusal is not None:
                client.error(request.order_id, refusal.code, refusal.message)
                return
            order = self._new_order(client.client_id, request, symbol)
            result = what_if(request, symbol, self.account, self._marks())
            client.send(open_order(order, instrument, client.version, result))
            return
        if existing is not None and existing.working:
            refusal = refusal or check_modify(request, existing, instrument)
            refusal = refusal or check_margin(request, symbol, self.account, self.ledger, self._marks(), existing)
            if refusal is not None:
                client.error(request.order_id, refusal.code, refusal.message)
                return
            self._modify(client, existing, request, now_ns)
            return
        if request.order_id > 0 and request.order_id < self.ledger.next_order_id(client.client_id):
            client.error(request.order_id, *_duplicate(existing, request, symbol))
            return
        if self.faults.fires(self.faults.lose_order):
            return
        if self.faults.fires(self.faults.drop_link_on_order):
            client.drop("fault: drop_link_on_order", abort=True)
            if not self.faults.order_taken:
                return
        if refusal is None and self.faults.fires(self.faults.reject):
            refusal = rejected(self.faults.reject_reason)
        refusal = refusal or check_active(request, symbol, self.ledger)
        refusal = refusal or check_margin(request, symbol, self.account, self.ledger, self._marks())
        if refusal is not None:
            self._refuse(client, request, symbol, refusal)
            return
        order = self._new_order(client.client_id, request, symbol)
        if not request.tif:
            client.error(request.order_id, 10349, "Order TIF was set to DAY based on order preset.")
        self.ledger.put(order)
        self._record(order)
        self.news.order(order)
        self.news.status(order)
        self.market.submit(order.perm_id, symbol, order.sign, order.quantity, order.limit, order.tif == "IOC", now_ns)
        self._pump()
        if order.status == PRE_SUBMITTED:
            order.status = SUBMITTED
            self._record(order)
            self.news.order(order)
            self.news.status(order)

    def _new_order(self, client_id: int, request: OrderRequest, symbol: int) -> PaperOrder:
        return PaperOrder(
            self.ledger.new_perm_id(),
            client_id,
            request.order_id,
            symbol,
            request.action,
            request.quantity,
            request.order_type,
            request.limit if request.order_type == "LMT" else math.nan,
            request.tif or "DAY",
            self.account_id,
            exchange=request.contract.exchange or "SMART",
            order_ref=request.order_ref,
            open_close=request.open_close,
            outside_rth=request.outside_rth,
            day=self.account.day,
        )

    def _refuse(self, client: Client, request: OrderRequest, symbol: int, refusal: Refusal) -> None:
        client.error(request.order_id, refusal.code, refusal.message)
        if refusal.recorded:
            order = self._new_order(client.client_id, request, symbol)
            order.status = INACTIVE
            self.ledger.put(order)
            self._record(order)
            self.news.order(order)
            self.news.status(order)

    def _modify(self, client: Client, order: PaperOrder, request: OrderRequest, now_ns: int) -> None:
        if not request.tif:
            client.error(request.order_id, 10349, "Order TIF was set to DAY based on order preset.")
        limit = request.limit if order.order_type == "LMT" else math.nan
        if not self.market.replace(order.perm_id, request.quantity - order.filled_before, limit, now_ns):
            # It left the book while the modification was under way; its events are waiting.
            self._pump()
            client.error(request.order_id, 104, "Can't modify a filled order.")
            return
        order.quantity = request.quantity
        order.limit = limit
        order.tif = request.tif or "DAY"
        order.order_ref = request.order_ref
        if order.status != PENDING_CANCEL:
            order.status = SUBMITTED
        self._record(order)
        self.news.order(order)
        self.news.status(order)
        self._pump()

    def cancel(self, client: Client, order_id: int, now_ns: int) -> None:
        """cancelOrder of a client's own order."""
        order = self.ledger.find(client.client_id, order_id)
        if order is None:
            client.error(order_id, 10147, f"OrderId {order_id} that needs to be cancelled is not found.")
            return
        if order.working and self.faults.fires(self.faults.fill_on_cancel):
            self.force_fill(order, math.inf, now_ns)
        elif order.working:
            self._cancel(order, now_ns)
            if order.status == CANCELLED:
                return
        client.error(
            order_id,
            10148,
            f"OrderId {order_id} that needs to be cancelled cannot be cancelled, state: {order.status}.",
        )

    def cancel_all(self, now_ns: int) -> int:
        """reqGlobalCancel: every working order of the account, whoever placed it. Returns how many there were."""
        working = list(self.ledger.working())
        for order in working:
            if order.working:
                self._cancel(order, now_ns)
        return len(working)

    def _cancel(self, order: PaperOrder, now_ns: int) -> None:
        status = order.status
        order.status = PENDING_CANCEL
        self.news.status(order)
        gone = self.market.cancel(order.perm_id, now_ns)
        self._pump()
        if not gone and order.status == PENDING_CANCEL:
            # Neither in the book nor filled: the market source lost it, which must not leave a zombie.
            order.status = status
            self.done(order.perm_id, 1)

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
        before = order.commission
        total = commission_total(order.filled + quantity, order.filled_value + quantity * price)
        commission = max(0.0, total - before)
        order.fill(quantity, price, commission)
        signed = quantity * order.sign
        result = self.account.fill(order.symbol, signed, price, commission)
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
        self.ledger.put_execution(execution)
        self._journal.execution(execution)
        self._record(order)
        self.news.execution(order, execution)

    def done(self, perm_id: int, reason: int) -> None:
        """A client order left the book unfilled. ``reason`` 1 cancelled, 2 remainder of an immediate order."""
        order = self.ledger.orders[perm_id]
        if perm_id in self._forced or not order.working:
            return
        order.status = CANCELLED
        self._record(order)
        self.news.order(order)
        self.news.status(order)
        self.news.cancelled(order, "Immediate-or-cancel remainder" if reason == DONE_IOC else self._cancel_reason)

    # Faults, restart, day.

    def force_fill(self, order: PaperOrder, quantity: float, now_ns: int) -> None:
        """Fill a resting order at its own limit (market orders at the mark), as if the market had come to it."""
        price = order.limit if math.isfinite(order.limit) else self._marks()[order.symbol]
        self._forced.add(order.perm_id)
        self.market.cancel(order.perm_id, now_ns)
        self._pump()
        self._forced.discard(order.perm_id)
        if not order.working:
            return
        self.filled(order.perm_id, price, min(quantity, order.remaining), True)
        if order.working:
            self._submit_again(order, now_ns)

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
        values = {name: getattr(old, name) for name in Execution.__slots__}
        values |= {"exec_id": corrected_id(old.exec_id), "price": new_price, "realized": math.nan}
        corrected = Execution(**values)
        order = self.ledger.orders.get(old.perm_id)
        if order is not None:
            order.filled_value += old.quantity * (new_price - old.price)
        self.account.correct(old.symbol, old.signed_quantity, old.price, new_price)
        self.ledger.put_execution(corrected)
        self._journal.correction(corrected, old.price)
        self.news.correction(corrected)
        return corrected

    def resume(self, now_ns: int) -> int:
        """After a restart: working orders go into the new market; what can't work any more is cancelled."""
        resumed = 0
        for order in self.ledger.working():
            if (
                order.tif == "IOC"
                or order.order_type == "MKT"
                or (order.tif == "DAY" and order.day != self.account.day)
            ):
                self.done(order.perm_id, 1)
                continue
            order.status = SUBMITTED
            self._record(order)
            self._submit_again(order, now_ns)
            resumed += 1
        return resumed

    def _submit_again(self, order: PaperOrder, now_ns: int) -> None:
        order.filled_before = order.filled
        self.market.submit(order.perm_id, order.symbol, order.sign, order.remaining, order.limit, False, now_ns)
        self._pump()

    def roll_day(self, day: str, now_ns: int) -> None:
        """Begin a trading day: DAY orders expire, P&L of the day and the day's executions start anew."""
        for order in self.ledger.working():
            if order.tif == "DAY" and order.working:
                self._cancel(order, now_ns)
        self.account.roll_day(day, self._marks())
        self.ledger.roll_day()
        self._journal.rolled()

    def reset_account(self, equity: float, now_ns: int) -> None:
        """Open the account anew: orders cancelled, positions and executions forgotten; order ids go on rising."""
        self.cancel_all(now_ns)
        held = [symbol for symbol, position in self.account.positions.items() if position.quantity]
        self.account.reopen(equity)
        self.ledger.roll_day()
        self._journal.rolled()
        for symbol in held:
            self.news.moved(symbol)

    def _record(self, order: PaperOrder) -> None:
        self._journal.order(order)


def _duplicate(existing: PaperOrder | None, request: OrderRequest, symbol: int) -> tuple[int, str]:
    if existing is not None and existing.status == FILLED and existing.symbol == symbol:
        same = existing.action == request.action and existing.order_type == request.order_type
        return (104, "Can't modify a filled order.") if same else (103, "Duplicate order id")
    return 103, "Duplicate order id"
