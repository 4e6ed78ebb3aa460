"""Orders over HTTP: the ticket, the gate's verdict, cancels."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from engine.cockpit import limits
from engine.cockpit.auth import Caller
from engine.cockpit.blotter import Order
from engine.cockpit.errors import FieldError, Problem, invalid
from engine.cockpit.guard import caller_of, json_body
from engine.cockpit.parts import Parts, reason_of, reply
from engine.cockpit.ticket import Ticket, idempotency_key, parse, reduces
from engine.domain.codes import CommandKind, IntentFlag, Mode, OrderState, Refusal
from shm.ring import RingFull

MOST_KEYS = 10_000
_FIELD = {
    Refusal.UNKNOWN_SYMBOL: "symbol",
    Refusal.QUANTITY: "qty",
    Refusal.ORDER_SIZE: "qty",
    Refusal.ORDER_NOTIONAL: "qty",
    Refusal.PRICE: "limit",
    Refusal.INCREMENT: "limit",
    Refusal.COLLAR: "limit",
}
"""Refusals that name a field: 422. All others are states of the account: 409."""


class Ordering:
    """Handlers of manual orders and cancels."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/api/exec/order", self.order), web.post("/api/exec/cancel", self.cancel)]

    async def order(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "trade")
        self.parts.limit(caller.name, "order", limits.ORDER)
        body = await json_body(request)
        key = idempotency_key(request.headers.get("Idempotency-Key"))
        view = self.parts.fresh()
        mids = {i.index: m for i in view.instruments if (m := view.mid(i.index)) is not None}
        ticket = parse(body, view.instruments, self.parts.ctx.config.limits, mids)
        digest = f"{ticket.words}".encode()
        if key and key in self.parts.keys:
            known, intent_id = self.parts.keys[key]
            if known != digest:
                raise invalid(FieldError("Idempotency-Key", "was used for another order already"))
            return self._order_reply(intent_id, repeated=True)
        p = view.value("positions", ticket.instrument.index)
        same_side = float(p["working_buy_qty" if ticket.side > 0 else "working_sell_qty"])
        reducing = reduces(float(p["qty"]), same_side, ticket.side, ticket.qty)
        if caller.browser:
            self._browser_may(request, body, caller, reducing, ticket)
        flags = int(IntentFlag.REDUCE_ONLY) if reducing else 0
        try:
            intent_id = self.parts.desk.order(ticket, caller.name, key, int(Mode[view.mode]), flags)
        except RingFull as error:
            raise Problem(
                503, f"{error}: is the bridge running? The order was not sent", guardrail="RING_FULL"
            ) from None
        except RuntimeError as error:
            raise Problem(503, str(error)) from None
        if key:
            self.parts.keys[key] = (digest, intent_id)
            while len(self.parts.keys) > MOST_KEYS:
                self.parts.keys.popitem(last=False)
        result = await self.parts.desk.verdict(intent_id)
        if result is not None and not result.ok:
            return self._refused(intent_id, result.code, result.text)
        return self._order_reply(intent_id)

    def _browser_may(
        self, request: web.Request, body: dict[str, Any], caller: Caller, reducing: bool, ticket: Ticket
    ) -> None:
        """A page must have seen this mode, and be armed for what adds risk."""
        if body.get("mode") != self.parts.view.mode:
            raise Problem(
                409,
                f"the page shows mode {body.get('mode')!r}, the server runs {self.parts.view.mode}: reload the page",
                field="mode",
            )
        armed = self.parts.arming.holds(
            caller.name, str(body.get("tab", "")), str(body.get("arm", "")), self.parts.ctx.clock.now_ns()
        )
        if not reducing and not armed:
            raise Problem(409, f"not armed: {ticket.words} adds risk; arm this tab first", guardrail="ARM", field="arm")

    def _refused(self, intent_id: int, code: int, text: str) -> web.Response:
        refusal = Refusal(code) if code in list(Refusal) else Refusal.NONE
        field = _FIELD.get(refusal)
        errors = (FieldError(field, text),) if field else ()
        status = 422 if field else 409
        guardrail = refusal.name
        if refusal == Refusal.KILLED:
            guardrail = "KILL"
        raise Problem(status, text, errors=errors, guardrail=guardrail, order_id=str(intent_id), state="REFUSED")

    def _order_reply(self, intent_id: int, repeated: bool = False) -> web.Response:
        order = self.parts.tail.blotter.orders.get(intent_id)
        if order is not None and order.state == OrderState.REFUSED:
            return self._refused(intent_id, order.refusal, order.reason)
        state = OrderState(order.state).name if order is not None else "PENDING"
        body: dict[str, Any] = {"order_id": str(intent_id), "state": state}
        if repeated:
            body["repeated"] = True
        return reply(body, 202)

    async def cancel(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "trade")
        body = await json_body(request)
        if body.get("all") is True:
            sent = self.parts.command(CommandKind.CANCEL_ALL, caller, reason_of(body, "cancel all"))
            return reply({"command_id": str(sent), "state": "REQUESTED"}, 202)
        order = self._order(body.get("order_id"))
        if order.state in (OrderState.FILLED, OrderState.CANCELLED, OrderState.REJECTED, OrderState.REFUSED):
            raise Problem(
                409, f"order {order.intent_id} is {OrderState(order.state).name} already", order_id=str(order.intent_id)
            )
        try:
            intent_id = self.parts.desk.cancel(order.intent_id, max(order.symbol, 0), caller.name)
        except RingFull as error:
            raise Problem(503, f"{error}: is the bridge running? Cancel is also part of flatten") from None
        result = await self.parts.desk.verdict(intent_id)
        if result is not None and not result.ok:
            raise Problem(409, result.text, guardrail=Refusal(result.code).name, order_id=str(order.intent_id))
        return reply({"order_id": str(order.intent_id), "state": "PENDING_CANCEL"}, 202)

    def _order(self, value: Any) -> Order:
        if (
            isinstance(value, bool)
            or not isinstance(value, int | str)
            or not str(value).isascii()
            or not str(value).isdigit()
        ):
            raise invalid(FieldError("order_id", 'missing; the order_id of an order, or "all": true'))
        self.parts.tail.drain()
        order = self.parts.tail.blotter.orders.get(int(value))
        if order is None:
            raise Problem(404, f"order {value} is not in the blotter", errors=(FieldError("order_id", "not known"),))
        return order
