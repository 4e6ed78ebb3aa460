"""The trading desk: takes orders from clients, accepts or refuses them, modifies and cancels them.

Sequences are those of the broker: openOrder precedes the first execution; a fill is execDetails, openOrder,
orderStatus, then commission; a cancel is PendingCancel, Cancelled and error 202. Every state change is journaled
before it is told.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from engine.domain.instruments import Instrument
from engine.paper.catalog import UnknownContract
from engine.paper.order_checks import (
    check_active,
    check_form,
    check_kind,
    check_margin,
    check_modify,
    check_parent,
    rejected,
    what_if,
)
from engine.paper.order_life import OrderLife
from engine.paper.order_news import Client
from engine.paper.order_out import open_order
from engine.paper.orders import (
    CANCELLED,
    FILLED,
    HELD,
    INACTIVE,
    MARKET,
    PENDING_CANCEL,
    PRE_SUBMITTED,
    SUBMITTED,
    PaperOrder,
)
from engine.paper.place_order import OrderKind, OrderRequest, Refusal

NO_TIF = (10349, "Order TIF was set to DAY based on order preset.")
NO_EXCHANGE = Refusal(321, "Error validating request.-'placeOrder' : cause - Please enter exchange")


class Desk(OrderLife):
    """Order entry."""

    def place(self, client: Client, request: OrderRequest, catch_up: Callable[[], int]) -> None:
        """placeOrder: a new order, a modification of a working one, or a what-if.

        ``catch_up`` brings the market to the present and returns the time. A new order is acknowledged before that.
        """
        kind, ledger = request.kind, self.ledger
        instrument = kind.instrument or self._identify(client, request)
        if instrument is None:
            return
        used = request.order_id <= ledger.high_order_id.get(client.client_id, 0)
        if (used or kind.what_if) and self._answered(client, request, instrument, catch_up):
            return
        refusal = check_form(request, instrument)
        if self.faults.armed:
            taken, refusal = self._struck(client, refusal)
            if not taken:
                return
        symbol = instrument.index
        parent = ledger.find(client.client_id, kind.parent_id) if kind.parent_id else None
        if kind.parent_id:
            refusal = refusal or check_parent(request, parent)
        refusal = refusal or check_active(request, symbol, ledger)
        refusal = refusal or check_margin(request, symbol, self.account, ledger, self._marks(), self.schedules[symbol])
        if refusal is not None:
            self._refuse(client, request, symbol, refusal)
            return
        order = self._new_order(client.client_id, request, symbol)
        if parent is not None:
            order.parent = parent.perm_id
        preset = self.faults.fires(self.faults.preset_tif)
        if preset:
            order.tif = "DAY"
        unusual = preset or not kind.tif or not kind.plain or request.aux == request.aux
        if unusual or kind.outside_rth or not self._open_now:
            self._warn(client, request, preset)
        ledger.put(order)
        if not kind.transmit:
            order.place = HELD
            self._record(order)
        elif parent is not None:
            self._transmit(order, catch_up)
        else:
            # The texts of its kind name the time in force that was asked for.
            self._announce(order, catch_up, None if preset else kind)

    def _answered(
        self, client: Client, request: OrderRequest, instrument: Instrument, catch_up: Callable[[], int]
    ) -> bool:
        """What isn't a new order: a what-if, a modification, an id used before. False for an id that can't be used."""
        symbol, kind = instrument.index, request.kind
        existing = self.ledger.find(client.client_id, request.order_id)
        refusal = check_form(request, instrument, bound=existing is not None)
        if kind.what_if:
            if refusal is not None:
                client.error(request.order_id, refusal.code, refusal.message)
                return True
            order = self._new_order(client.client_id, request, symbol)
            result = what_if(request, symbol, self.account, self._marks(), self.schedules[symbol])
            client.send(open_order(order, instrument, client.version, result))
            return True
        if existing is not None and existing.working:
            now_ns = catch_up()
            if not existing.working:
                client.error(request.order_id, *_duplicate(existing, request, symbol))
                return True
            schedule = self.schedules[symbol]
            refusal = refusal or check_modify(request, existing, instrument)
            refusal = refusal or check_margin(
                request, symbol, self.account, self.ledger, self._marks(), schedule, existing
            )
            if refusal is not None:
                client.error(request.order_id, refusal.code, refusal.message)
            else:
                self._modify(client, existing, request, now_ns)
            return True
        if request.order_id > 0:
            client.error(request.order_id, *_duplicate(existing, request, symbol))
            return True
        return False

    def _struck(self, client: Client, refusal: Refusal | None) -> tuple[bool, Refusal | None]:
        """What armed faults make of a new order: whether it arrives, and why it is refused."""
        faults = self.faults
        if faults.fires(faults.lose_order):
            return False, None
        if faults.fires(faults.drop_link_on_order):
            client.drop("fault: drop_link_on_order", abort=True)
            if not faults.order_taken:
                return False, None
        if refusal is None and faults.fires(faults.reject):
            refusal = rejected(faults.reject_reason)
        return True, refusal

    def _identify(self, client: Client, request: OrderRequest) -> Instrument | None:
        """The instrument of a kind of order, noted in it with what can be said of every such order."""
        kind = request.kind
        if not kind.contract.exchange:
            client.error(request.order_id, NO_EXCHANGE.code, NO_EXCHANGE.message)
            return None
        try:
            kind.instrument = self.catalog.find(kind.contract)
        except UnknownContract as error:
            client.error(request.order_id, error.code, str(error))
            return None
        kind.refusal = check_kind(kind, kind.instrument, self.account_id)
        return kind.instrument

    def _transmit(self, order: PaperOrder, catch_up: Callable[[], int]) -> None:
        """Tell of an order and let it begin; what it is attached to, and what else is, goes first."""
        parent = self.ledger.orders.get(order.parent)
        if parent is not None and parent.place == HELD:
            self._announce(parent, catch_up)
            for sibling in self.children(parent):
                if sibling is not order and sibling.place == HELD:
                    self._announce(sibling, catch_up)
        self._announce(order, catch_up)

    def _announce(self, order: PaperOrder, catch_up: Callable[[], int], kind: OrderKind | None = None) -> None:
        if order.place == HELD:
            order.place = MARKET  # for the moment between the news and its place
        # Written before it is told: what a client has heard of survives a kill. All else comes after it was told.
        self._record(order)
        self.news.acknowledge(order, kind)
        self.begin(order, catch_up)

    def enter(self, client_id: int, request: OrderRequest) -> PaperOrder:
        """A new order that is recorded and acknowledged already: see ``express``."""
        instrument = request.kind.instrument
        assert instrument is not None  # its kind has been seen
        order = self._new_order(client_id, request, instrument.index)
        self.ledger.put(order)
        return order

    def begin(self, order: PaperOrder, catch_up: Callable[[], int]) -> None:
        """What comes after the acknowledgement: the status, and the market."""
        self.news.status(order)
        self._audience.flush()
        self.activate(order, catch_up())

    def _warn(self, client: Client, request: OrderRequest, preset: bool = False) -> None:
        kind = request.kind
        if preset or not kind.tif:
            client.error(request.order_id, *NO_TIF)
        ignored = kind.idle(request)
        if kind.outside_rth and kind.order_type in ("MKT", "MOC"):
            ignored.append("Outside Regular Trading Hours")
        for name in ignored:
            text = f"Order Event Warning: Attribute '{name}' is ignored based on the order type."
            client.error(request.order_id, 2109, text)
        if not self._open_now and not kind.outside_rth:
            text = "Order Message: your order will not be placed at the exchange until the next regular session."
            client.error(request.order_id, 399, text)

    def _new_order(self, client_id: int, request: OrderRequest, symbol: int) -> PaperOrder:
        return self.draft(client_id, request, symbol, self.ledger.new_perm_id())

    def draft(self, client_id: int, request: OrderRequest, symbol: int, perm_id: int) -> PaperOrder:
        """The order that a request asks for, as it is before anything has happened to it."""
        kind = request.kind
        # By position: an order is acknowledged only after this, and names cost as much as all the rest.
        return PaperOrder(
            perm_id,
            client_id,
            request.order_id,
            symbol,
            request.action,
            request.quantity,
            kind.order_type,
            request.limit if kind.limited else math.nan,
            kind.tif or "DAY",
            self.account_id,
            kind.contract.exchange or "SMART",
            request.order_ref,
            kind.open_close,
            kind.outside_rth,
            PRE_SUBMITTED,
            0.0,
            0.0,
            0.0,
            0.0,
            self.good_on(kind.order_type, kind.outside_rth),
            0.0,
            request.aux,
            kind.trail_stop,
            kind.trail_percent,
            kind.oca_group,
            kind.oca_type,
            0,
            kind.parent_id,
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
        kind = request.kind
        limit = request.limit if order.order_type in ("LMT", "STP LMT") else math.nan
        in_market = order.place == MARKET
        at_once = in_market and kind.tif == "IOC"
        if at_once:
            taken = self.withdraw(order, now_ns)
        else:
            taken = not in_market or self.market.replace(
                order.perm_id, request.quantity - order.filled_before, limit, now_ns
            )
        if not taken:
            # It left the book while the modification was under way; its events are waiting.
            self._pump()
            client.error(request.order_id, 104, "Can't modify a filled order.")
            return
        self._warn(client, request)
        order.quantity = request.quantity
        order.limit = limit
        order.aux, order.trail_percent = request.aux, kind.trail_percent
        if kind.trail_stop == kind.trail_stop:
            order.trail_stop = kind.trail_stop
        order.tif = kind.tif or "DAY"
        order.outside_rth = kind.outside_rth
        order.day = self.good_on(order.order_type, order.outside_rth)
        order.order_ref = request.order_ref
        if order.place == HELD:
            if kind.transmit:
                self._transmit(order, lambda: now_ns)
            else:
                self._record(order)
            return
        if in_market and order.status != PENDING_CANCEL:
            order.status = SUBMITTED
        self._record(order)
        self.news.order(order)
        self.news.status(order)
        if in_market and not at_once:
            self._pump()
        else:
            self.activate(order, now_ns)

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

    def reset_account(self, equity: float, now_ns: int) -> None:
        """Open the account anew: orders cancelled, positions and executions forgotten; order ids go on rising."""
        self.cancel_all(now_ns)
        held = [symbol for symbol, position in self.account.positions.items() if position.quantity]
        self.account.reopen(equity)
        self.ledger.roll_day()
        self._journal.rolled()
        for symbol in held:
            self.news.moved(symbol)

    # Orders entered by hand, in the broker's own window: they belong to client 0 and have no order id until bound.

    def manual_order(self, symbol: int, action: str, quantity: float, limit: float, now_ns: int) -> PaperOrder:
        """An order that no API client placed; ``limit`` NaN: at the market."""
        kind = "MKT" if limit != limit else "LMT"
        order = PaperOrder(
            self.ledger.new_perm_id(),
            0,
            0,
            symbol,
            action,
            quantity,
            kind,
            limit,
            "DAY",
            self.account_id,
            day=self.good_on(kind),
        )
        if self._audience.binds_manual_orders():
            self._bind(order)
        self.ledger.put(order)
        self._announce(order, lambda: now_ns)
        return order

    def bind_manual_orders(self) -> None:
        """Client 0 asks for its open orders: those entered by hand get an order id of its own."""
        for order in list(self.ledger.working()):
            if order.client_id == 0 and order.order_id == 0:
                self._bind(order)
                self.ledger.put(order)
                self._record(order)

    def _bind(self, order: PaperOrder) -> None:
        order.order_id = self.ledger.new_manual_id()
        self.news.bound(order)


def _duplicate(existing: PaperOrder | None, request: OrderRequest, symbol: int) -> tuple[int, str]:
    if existing is not None and existing.status == FILLED and existing.symbol == symbol:
        same = existing.action == request.action and existing.order_type == request.kind.order_type
        return (104, "Can't modify a filled order.") if same else (103, "Duplicate order id")
    return 103, "Duplicate order id"
