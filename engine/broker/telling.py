"""Verdicts of the desk as events and measurements, after the bytes have left."""

from __future__ import annotations

import math
from collections.abc import Iterable

from engine.broker.bookkeeper import Bookkeeper
from engine.broker.desk import Verdict
from engine.domain.codes import EventKind, IntentKind, OrderState, Refusal, Severity
from engine.domain.instruments import Instrument
from engine.risk.refusal_text import refusal_text
from engine.runtime.events import EventWriter
from shm.counters import Counters


class Teller:
    def __init__(
        self, events: EventWriter, counters: Counters, instruments: tuple[Instrument, ...], books: Bookkeeper
    ) -> None:
        self._events = events
        self._counters = counters
        self._instruments = instruments
        self._books = books

    def _name(self, symbol: int) -> str:
        return self._instruments[symbol].symbol if symbol < len(self._instruments) else str(symbol)

    def tell(self, verdicts: Iterable[Verdict], written_ns: int) -> None:
        for v in verdicts:
            self._tell_one(v, written_ns)

    def _tell_one(self, v: Verdict, written_ns: int) -> None:
        i = v.intent[0]
        kind, intent_id, source = int(i["kind"]), int(i["intent_id"]), int(i["source"])
        symbol = int(i["symbol"])
        if v.gate_ns and not v.fused:
            self._counters.record("gate_ns", v.gate_ns)
            if i["t_intent_ns"] > 0:
                self._counters.record("intent_to_gate_ns", max(0, v.gated_ns - int(i["t_intent_ns"])))
            if v.order is not None and kind == IntentKind.NEW:
                self._counters.record("gate_to_wire_ns", max(0, written_ns - v.gated_ns))
        if kind:
            self._events.emit(
                EventKind.INTENT, kind, symbol=symbol, source=source, ref_id=intent_id, ref2=int(i["target_id"]),
                value=float(i["t_socket_ns"]), limit=float(i["order_type"]), qty=float(i["qty"]) * int(i["side"]),
                price=float(i["limit_price"]), text=bytes(i["key"]).decode(errors="replace"),
            )  # fmt: skip
        if v.refusal != Refusal.NONE:
            self._counters.add("orders_refused")
            self._counters.add(f"refused:{Refusal(v.refusal).name.lower()}")
            text = v.text or refusal_text(v.refusal, self._name(symbol), v.value, v.limit)
            self._events.emit(
                EventKind.REFUSED, int(v.refusal), symbol=symbol, severity=Severity.ROUTINE, source=source,
                ref_id=intent_id, ref2=int(i["target_id"]), value=v.value, limit=v.limit,
                qty=float(i["qty"]) * int(i["side"]), price=float(i["limit_price"]), text=text,
            )  # fmt: skip
            return
        order = v.order
        assert order is not None
        if kind == IntentKind.CANCEL:
            self._counters.add("cancels_sent")
            words = f"cancel sent for {order.intent_id:x}"
        elif kind == IntentKind.REPLACE:
            words = f"replacement of {order.intent_id:x} sent"
        else:
            self._counters.add("orders_sent")
            words = "sent"
            if i["t_socket_ns"] > 0 and not v.fused:
                self._counters.record("tick_to_order_ns", max(0, written_ns - int(i["t_socket_ns"])))
        self._events.emit(
            EventKind.ORDER_STATE, int(OrderState.SENT), symbol=order.symbol, source=source, ref_id=intent_id,
            ref2=order.order_id, value=order.filled, limit=order.limit_price, qty=order.signed_qty, price=math.nan,
            text=words,
        )  # fmt: skip
        self._books.dirty.add(order.symbol)
