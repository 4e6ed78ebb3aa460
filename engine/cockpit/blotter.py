"""The blotter: a view of orders and fills, built from events and executions, never an owner of state.

Applying the same event twice changes nothing, so that rings can be read again from their oldest record at start and
the journal may have said it before. An order never leaves a terminal state, except that a fill that crosses a cancel
still raises its filled quantity.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.cockpit.words import display, iso, name_of, number, text_of
from engine.domain.codes import (
    TERMINAL_STATES,
    EventKind,
    ExecFlag,
    ExecKind,
    IntentKind,
    OrderState,
    Refusal,
    Source,
)
from engine.domain.instruments import Instrument
from engine.runtime.ids import order_ref

MOST_ORDERS = 5_000
MOST_FILLS = 10_000
TERMINAL = frozenset(int(s) for s in TERMINAL_STATES)


@dataclass(slots=True)
class Order:
    """One order as last heard of. ``qty`` is unsigned; ``limit`` NaN for market; times are wall ns."""

    intent_id: int
    symbol: int = -1
    source: int = 0
    side: int = 0
    qty: float = math.nan
    limit: float = math.nan
    state: int = OrderState.PENDING
    filled: float = 0.0
    avg_price: float = math.nan
    broker_id: int = 0
    reason: str = ""
    refusal: int = 0
    created_wall_ns: int = 0
    updated_wall_ns: int = 0
    change: int = 0


@dataclass(slots=True)
class Fill:
    """One execution. A correction replaces it; its commission arrives later."""

    exec_id: str
    symbol: int
    side: int
    qty: float
    price: float
    source: int
    flags: int
    order_id: int
    perm_id: int
    intent_id: int
    wall_ns: int
    commission_usd: float = math.nan
    realized_pnl_usd: float = math.nan
    corrected: bool = False
    change: int = 0


def fill_key(exec_id: str) -> str:
    """Identity of an execution: its id without the last part, which numbers its corrections."""
    head, dot, tail = exec_id.rpartition(".")
    return head if dot and tail.isdigit() else exec_id


def reason_of(text: str) -> str:
    """What of an order event's text tells a person something: not "sent", not the broker's permanent id."""
    if text == "sent" or text.startswith("permId "):
        return ""
    return text.removesuffix(" - reason:")


class Blotter:
    """Newest orders and fills of an instance."""

    def __init__(self, instruments: tuple[Instrument, ...], wall_ns: Callable[[int], int]) -> None:
        self._instruments = instruments
        self._wall_ns = wall_ns
        self.orders: OrderedDict[int, Order] = OrderedDict()
        self.fills: OrderedDict[str, Fill] = OrderedDict()
        self.cancels: OrderedDict[int, int] = OrderedDict()
        """Cancel requests to the order they aim at: they get verdicts like orders and are none."""
        self.changes = 0
        """Rises with every change: the ``since`` of the list calls."""

    # -- what happens -------------------------------------------------------------------------------------------

    def pending(
        self, intent_id: int, symbol: int, source: int, side: int, qty: float, limit: float, wall_ns: int
    ) -> Order:
        """Our own intent, before any verdict."""
        order = self._order(intent_id, wall_ns)
        if order.updated_wall_ns == 0:
            order.symbol, order.source, order.side, order.qty, order.limit = symbol, source, side, qty, limit
            self._touch(order, wall_ns)
        return order

    def cancel_request(self, intent_id: int, target_id: int) -> None:
        self.cancels[intent_id] = target_id
        if len(self.cancels) > MOST_ORDERS:
            self.cancels.popitem(last=False)

    def intent_event(self, e: np.void) -> None:
        """Apply an INTENT event: what the gate has seen, before its verdict."""
        if int(e["code"]) == IntentKind.CANCEL:
            self.cancel_request(int(e["ref_id"]), int(e["ref2"]))
            return
        qty = float(e["qty"])
        self.pending(
            int(e["ref_id"]), int(e["symbol"]), int(e["source"]), 1 if qty > 0 else -1, abs(qty), float(e["price"]),
            int(e["t_wall_ns"]),
        )  # fmt: skip

    def order_event(self, e: np.void) -> Order | None:
        """Apply an ORDER_STATE or REFUSED event; returns the order if it changed."""
        if int(e["ref_id"]) in self.cancels:
            return None
        kind, code, wall_ns = int(e["kind"]), int(e["code"]), int(e["t_wall_ns"])
        order = self._order(int(e["ref_id"]), wall_ns)
        before = (order.state, order.filled, order.avg_price, order.reason, order.broker_id, order.limit, order.qty)
        if int(e["symbol"]) < len(self._instruments):
            order.symbol = int(e["symbol"])
        order.source = int(e["source"]) or order.source
        qty = float(e["qty"])
        if math.isfinite(qty) and qty != 0:
            order.side, order.qty = (1 if qty > 0 else -1), abs(qty)
        text = text_of(e["text"])
        if kind == EventKind.REFUSED:
            if order.state == OrderState.PENDING:
                order.state, order.refusal = OrderState.REFUSED, code
            order.reason = text or name_of(Refusal, code)
            price = float(e["price"])
            order.limit = price if math.isfinite(price) else order.limit
        else:
            order.broker_id = int(e["ref2"]) or order.broker_id
            if order.state not in TERMINAL or code in TERMINAL:
                order.state = code
            filled, average, limit = float(e["value"]), float(e["price"]), float(e["limit"])
            if math.isfinite(filled):
                order.filled = max(order.filled, filled)
            if math.isfinite(average) and average > 0:
                order.avg_price = average
            order.limit = limit if math.isfinite(limit) else order.limit
            order.reason = reason_of(text) or order.reason
        after = (order.state, order.filled, order.avg_price, order.reason, order.broker_id, order.limit, order.qty)
        if repr(before) == repr(after):  # repr: NaN equals itself there
            return None
        self._touch(order, wall_ns)
        return order

    def execution(self, x: np.void) -> Fill | None:
        """Apply an execution record; returns the fill if it changed anything."""
        exec_id, kind = text_of(x["exec_id"]), int(x["kind"])
        key = fill_key(exec_id)
        known = self.fills.get(key)
        if kind == ExecKind.COMMISSION:
            if known is None:
                return None
            commission, realized = float(x["commission_usd"]), float(x["realized_pnl_usd"])
            if repr((known.commission_usd, known.realized_pnl_usd)) == repr((commission, realized)):
                return None
            known.commission_usd, known.realized_pnl_usd = commission, realized
        elif known is not None and (known.exec_id == exec_id or kind != ExecKind.CORRECTION):
            return None
        else:
            wall_ns = int(x["t_exec_wall_ns"]) or self._wall_ns(int(x["t_socket_ns"]))
            fresh = Fill(
                exec_id, int(x["symbol"]), int(x["side"]), abs(float(x["qty"])), float(x["price"]), int(x["source"]),
                int(x["flags"]), int(x["order_id"]), int(x["perm_id"]), int(x["intent_id"]), wall_ns,
                corrected=known is not None,
            )  # fmt: skip
            if known is not None:
                fresh.commission_usd, fresh.realized_pnl_usd = known.commission_usd, known.realized_pnl_usd
            self.fills[key] = known = fresh
            while len(self.fills) > MOST_FILLS:
                self.fills.popitem(last=False)
        self.changes += 1
        known.change = self.changes
        return known

    def _order(self, intent_id: int, wall_ns: int) -> Order:
        order = self.orders.get(intent_id)
        if order is None:
            order = self.orders[intent_id] = Order(intent_id, created_wall_ns=wall_ns)
            if len(self.orders) > MOST_ORDERS:
                self._forget_oldest()
        return order

    def _forget_oldest(self) -> None:
        for intent_id, order in self.orders.items():
            if order.state in TERMINAL:
                del self.orders[intent_id]
                return
        self.orders.popitem(last=False)

    def _touch(self, order: Order, wall_ns: int) -> None:
        self.changes += 1
        order.change = self.changes
        order.updated_wall_ns = wall_ns

    # -- what is shown ------------------------------------------------------------------------------------------

    def _symbol(self, index: int) -> str | None:
        return display(self._instruments[index].symbol) if 0 <= index < len(self._instruments) else None

    def order_json(self, o: Order) -> dict[str, Any]:
        return {
            "order_id": str(o.intent_id),
            "ref": order_ref(o.intent_id),
            "broker_id": o.broker_id or None,
            "symbol": self._symbol(o.symbol),
            "source": name_of(Source, o.source) if o.source else None,
            "side": {1: "BUY", -1: "SELL"}.get(o.side),
            "qty": number(o.qty),
            "type": "LMT" if math.isfinite(o.limit) else "MKT",
            "limit": number(o.limit),
            "state": name_of(OrderState, o.state),
            "open": o.state not in TERMINAL,
            "filled": o.filled,
            "avg_price": number(o.avg_price),
            "reason": o.reason,
            "guardrail": name_of(Refusal, o.refusal) if o.refusal else None,
            "created": iso(o.created_wall_ns),
            "updated": iso(o.updated_wall_ns),
            "change": o.change,
        }

    def fill_json(self, f: Fill) -> dict[str, Any]:
        return {
            "exec_id": f.exec_id,
            "order_id": str(f.intent_id) if f.intent_id else None,
            "broker_id": f.order_id or None,
            "perm_id": f.perm_id or None,
            "symbol": self._symbol(f.symbol),
            "source": name_of(Source, f.source) if f.source else "MANUAL",
            "side": {1: "BUY", -1: "SELL"}.get(f.side),
            "qty": number(f.qty),
            "price": number(f.price),
            "commission_usd": number(f.commission_usd),
            "realized_pnl_usd": number(f.realized_pnl_usd),
            "flatten": bool(f.flags & ExecFlag.FLATTEN),
            "replayed": bool(f.flags & ExecFlag.REPLAYED),
            "corrected": f.corrected,
            "time": iso(f.wall_ns),
            "change": f.change,
        }

    def order_list(self, since: int = 0, limit: int = 200) -> list[dict[str, Any]]:
        """Orders changed after ``since``, the latest change first."""
        found = sorted((o for o in self.orders.values() if o.change > since), key=lambda o: -o.change)
        return [self.order_json(o) for o in found[:limit]]

    def fill_list(self, since: int = 0, limit: int = 200) -> list[dict[str, Any]]:
        found = sorted((f for f in self.fills.values() if f.change > since), key=lambda f: -f.change)
        return [self.fill_json(f) for f in found[:limit]]

    def own_prices(self, symbol: int) -> list[list[float]]:
        """``[price, remaining signed quantity]`` of our open limit orders in a symbol: what the ladder marks."""
        return [
            [o.limit, o.side * (o.qty - o.filled)]
            for o in self.orders.values()
            if o.symbol == symbol and o.state not in TERMINAL and math.isfinite(o.limit) and math.isfinite(o.qty)
        ]
