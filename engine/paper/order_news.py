"""What clients are told of orders and executions, live and on request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from engine.paper import messages_out as out
from engine.paper.catalog import NEW_YORK, TIME_ZONE, Catalog
from engine.paper.client_requests import Executions
from engine.paper.fields import number
from engine.paper.order_faults import OrderFaults
from engine.paper.order_out import acknowledgement, completed_order, open_order
from engine.paper.orders import CANCELLED, FILLED, HELD, Execution, Ledger, PaperOrder
from engine.paper.place_order import OrderKind


class Client(Protocol):
    """What the desk needs to know of a connection."""

    client_id: int
    version: int

    def send(self, message: bytes) -> None: ...

    def error(self, req_id: int, code: int, message: str) -> None: ...

    def flush(self) -> None: ...

    def send_now(self, message: bytes) -> None: ...

    def drop(self, why: str, abort: bool = False) -> None: ...


class Audience(Protocol):
    """Who hears about orders and positions."""

    def of_order(self, client_id: int, order_id: int) -> list[Client]:
        """Connections that see an order: its owner and the master; the owner of none with order id 0."""

    def owner(self, client_id: int) -> Client | None:
        """The connection of a client id."""

    def traded(self, symbol: int) -> None:
        """A position changed."""

    def binds_manual_orders(self) -> bool:
        """True if client 0 wants every order entered by hand."""

    def flush(self) -> None:
        """Send what is queued, now."""

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after a while (a fault)."""


class OrderNews:
    """Tells the owner of an order, and the master, what happens to it."""

    def __init__(self, catalog: Catalog, audience: Audience, faults: OrderFaults) -> None:
        self._catalog = catalog
        self._audience = audience
        self._faults = faults

    def acknowledge(self, order: PaperOrder, kind: OrderKind | None) -> None:
        """The first openOrder of an order, which leaves at once: nothing that follows delays it."""
        if kind is None or self._faults.armed:
            self.order(order)
            for client in self._audience.of_order(order.client_id, order.order_id):
                client.flush()
            return
        instrument = kind.instrument or self._catalog[order.symbol]
        for client in self._audience.of_order(order.client_id, order.order_id):
            client.send_now(acknowledgement(order, kind, instrument, client.version))

    def order(self, order: PaperOrder) -> None:
        """openOrder."""
        instrument = self._catalog[order.symbol]
        if self._faults.fires(self._faults.zero_perm_id):
            order = replace(order, perm_id=0)
        for client in self._audience.of_order(order.client_id, order.order_id):
            client.send(open_order(order, instrument, client.version))

    def status(self, order: PaperOrder) -> None:
        """orderStatus, unless a fault drops, doubles or delays it."""
        faults = self._faults
        if faults.fires(faults.drop_status):
            return
        copies = 2 if faults.fires(faults.duplicate_status) else 1
        message = status_message(replace(order, perm_id=0) if faults.fires(faults.zero_perm_id) else order)

        def tell() -> None:
            for client in self._audience.of_order(order.client_id, order.order_id):
                for _ in range(copies):
                    client.send(message)

        if faults.fires(faults.late_status):
            self._audience.later(faults.late_s, tell)
        else:
            tell()

    def execution(self, order: PaperOrder, execution: Execution) -> None:
        """A fill: execution, order, status (the last two repeated with the commission once filled), commission."""
        audience = self._audience.of_order(order.client_id, order.order_id)
        message = out.exec_details(out.SYSTEM, self._catalog[order.symbol], execution)
        copies = 2 if self._faults.fires(self._faults.duplicate_execution) else 1
        for client in audience:
            for _ in range(copies):
                client.send(message)
        for _ in range(2 if order.status == FILLED else 1):
            self.order(order)
            self.status(order)
        for client in audience:
            for _ in range(copies):
                client.send(out.commission_report(execution))
        self._audience.traded(order.symbol)

    def correction(self, execution: Execution) -> None:
        """An execution whose price was corrected."""
        for client in self._audience.of_order(execution.client_id, execution.order_id):
            client.send(out.exec_details(out.SYSTEM, self._catalog[execution.symbol], execution))
            client.send(out.commission_report(execution))
        self._audience.traded(execution.symbol)

    def bound(self, order: PaperOrder) -> None:
        """An order entered by hand has got an order id of client 0."""
        owner = self._audience.owner(order.client_id)
        if owner is not None:
            owner.send(out.order_bound(order.perm_id, order.client_id, order.order_id))

    def moved(self, symbol: int) -> None:
        """A position changed without an execution."""
        self._audience.traded(symbol)

    def cancelled(self, order: PaperOrder, why: str) -> None:
        """Error 202, which goes to the owner only."""
        owner = self._audience.owner(order.client_id)
        if owner is not None:
            owner.error(order.order_id, 202, f"Order Canceled - reason:{why}")


def status_message(order: PaperOrder) -> bytes:
    """orderStatus of an order as it is."""
    return out.order_status(
        order.order_id,
        order.status,
        order.filled,
        order.remaining,
        order.average_price,
        order.perm_id,
        order.last_price,
        order.client_id,
        order.parent_order_id,
    )


def send_open_orders(client: Client, ledger: Ledger, catalog: Catalog, everyone: bool) -> None:
    """Open orders with their states: own ones, or all. What is not transmitted yet is nobody's business."""
    for order in ledger.working():
        if order.place != HELD and (everyone or client.client_id == order.client_id):
            client.send(open_order(order, catalog[order.symbol], client.version))
            client.send(status_message(order))
    client.send(out.open_order_end())


def send_completed_orders(client: Client, ledger: Ledger, catalog: Catalog, api_only: bool) -> None:
    """Orders that were filled or cancelled today, in the order of their ends; ``api_only``: none entered by hand."""
    ended = [o for o in ledger.orders.values() if o.ended_s and o.status in (FILLED, CANCELLED) and o.place != HELD]
    for order in sorted(ended, key=lambda o: o.ended_s):
        if api_only and order.order_id <= 0:
            continue
        when = f"{datetime.fromtimestamp(order.ended_s, NEW_YORK):%Y%m%d %H:%M:%S} {TIME_ZONE}"
        if order.status == FILLED:
            outcome = f"Filled Size: {number(order.filled)}"
        else:
            outcome = f"Cancelled: {order.end_reason}" if order.end_reason else "Cancelled by Trader"
        client.send(completed_order(order, catalog[order.symbol], client.version, when, outcome))
    client.send(out.completed_orders_end())


def send_executions(client: Client, ledger: Ledger, catalog: Catalog, request: Executions, since_s: float) -> None:
    """Executions of the day that fit the filter, each followed by its commission."""
    for e in ledger.executions:
        instrument = catalog[e.symbol]
        fits = (
            (not request.client_id or e.client_id == request.client_id)
            and (not request.account or e.account == request.account)
            and (not request.symbol or instrument.symbol == request.symbol.upper())
            and (not request.sec_type or instrument.sec_type == request.sec_type.upper())
            and (not request.exchange or request.exchange.upper() in ("SMART", e.exchange))
            and (not request.side or request.side.upper()[:1] == e.action[:1])
            and e.wall_s >= since_s
        )
        if fits:
            client.send(out.exec_details(request.req_id, instrument, e))
            client.send(out.commission_report(e))
    client.send(out.exec_details_end(request.req_id))
