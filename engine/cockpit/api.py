"""The HTTP interface under /api: reading state, acting on it, logging in."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from engine import topology
from engine.cockpit import limits
from engine.cockpit.arming import Arming
from engine.cockpit.auth import COOKIE, SESSION_IDLE_NS, Authority, Caller
from engine.cockpit.desk import RESET_EXCUSE_REMAINING, RESET_OVERRIDE_DAY, Desk
from engine.cockpit.errors import FieldError, Problem, invalid
from engine.cockpit.guard import CALLER, caller_of, json_body, seal
from engine.cockpit.history import History
from engine.cockpit.limits import Buckets
from engine.cockpit.openapi import document
from engine.cockpit.stream import Stream
from engine.cockpit.tail import Tail
from engine.cockpit.ticket import Ticket, idempotency_key, parse, reduces
from engine.cockpit.view import View
from engine.domain.codes import CommandKind, IntentFlag, Mode, OrderState, Refusal, TradingState
from engine.runtime.context import Context
from shm.ring import RingFull

MOST_KEYS = 10_000
FLATTEN_COALESCE_NS = 2_000_000_000
_INVALID = frozenset(
    {
        Refusal.UNKNOWN_SYMBOL,
        Refusal.QUANTITY,
        Refusal.PRICE,
        Refusal.INCREMENT,
        Refusal.COLLAR,
        Refusal.ORDER_SIZE,
        Refusal.ORDER_NOTIONAL,
    }
)
_FIELD = {
    Refusal.UNKNOWN_SYMBOL: "symbol", Refusal.QUANTITY: "qty", Refusal.ORDER_SIZE: "qty", Refusal.ORDER_NOTIONAL: "qty",
    Refusal.PRICE: "limit", Refusal.INCREMENT: "limit", Refusal.COLLAR: "limit",
}  # fmt: skip


@dataclass(slots=True)
class Api:
    """Handlers over the parts of one cockpit."""

    ctx: Context
    view: View
    stream: Stream
    desk: Desk
    tail: Tail
    history: History
    arming: Arming
    authority: Authority
    buckets: Buckets
    keys: OrderedDict[bytes, tuple[bytes, int]]
    """Idempotency key to (request digest, intent id)."""
    flatten_id: int = 0
    flatten_ns: int = 0
    secure_cookie: bool = False

    def routes(self) -> list[web.RouteDef]:
        get, post = web.get, web.post
        return [
            get("/api/openapi.json", self.openapi),
            get("/api/state", self.state),
            get("/api/stream", self.open_stream),
            get("/api/orders", self.orders),
            get("/api/fills", self.fills),
            get("/api/positions", self.positions),
            get("/api/book/{symbol}", self.book),
            get("/api/audit", self.audit),
            get("/api/alerts", self.alerts),
            get("/api/history", self.get_history),
            get("/api/session", self.session),
            post("/api/login", self.login),
            post("/api/logout", self.logout),
            post("/api/exec/flatten-all", self.flatten),
            post("/api/exec/order", self.order),
            post("/api/exec/cancel", self.cancel),
            post("/api/exec/pause", self.pause),
            post("/api/exec/resume", self.resume),
            post("/api/exec/reset", self.reset),
            post("/api/exec/reconnect", self.reconnect),
            post("/api/exec/kill", self.kill),
            post("/api/exec/arm", self.arm),
            post("/api/exec/disarm", self.disarm),
            post("/api/exec/accept-positions", self.accept_positions),
            post("/api/stream/ack", self.ack),
            post("/api/stream/focus", self.focus),
            post("/api/stream/leave", self.leave),
            post("/api/alerts/acknowledge", self.acknowledge),
        ]

    # -- reading -------------------------------------------------------------------------------------------------

    def fresh(self) -> View:
        self.tail.drain()
        self.view.refresh(self.ctx.clock.now_ns())
        return self.view

    async def openapi(self, request: web.Request) -> web.Response:
        caller_of(request, "read")
        return reply(document(self.ctx.config))

    async def state(self, request: web.Request) -> web.Response:
        caller_of(request, "read")
        self.fresh()
        return reply(self.stream.snapshot())

    async def orders(self, request: web.Request) -> web.Response:
        caller_of(request, "read")
        self.tail.drain()
        blotter = self.tail.blotter
        return reply({"orders": blotter.order_list(*page(request)), "change": blotter.changes})

    async def fills(self, request: web.Request) -> web.Response:
        caller_of(request, "read")
        self.tail.drain()
        blotter = self.tail.blotter
        return reply({"fills": blotter.fill_list(*page(request)), "change": blotter.changes})

    async def positions(self, request: web.Request) -> web.Response:
        caller_of(request, "read")
        view = self.fresh()
        rows = view.positions()[: page(request)[1]]
        return reply(
            {"positions": rows, "gross_usd": view.account()["gross_usd"], "net_usd": view.account()["net_usd"]}
        )

    async def book(self, request: web.Request) -> web.Response:
        caller_of(request, "read")
        view = self.fresh()
        return reply(view.book(self._symbol(request.match_info["symbol"], 404)))

    async def audit(self, request: web.Request) -> web.Response:
        caller_of(request, "read")
        self.tail.drain()
        since, limit = page(request)
        return reply({"audit": [a for a in reversed(self.tail.audits) if a["id"] > since][:limit]})

    async def alerts(self, request: web.Request) -> web.Response:
        caller_of(request, "read")
        self.tail.drain()
        since, limit = page(request)
        return reply({"alerts": [a for a in reversed(self.tail.alerts) if a["id"] > since][:limit]})

    async def get_history(self, request: web.Request) -> web.Response:
        caller_of(request, "read")
        return reply(self.history.as_json())

    async def session(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "read")
        return reply({"name": caller.name, "scopes": sorted(caller.scopes), "mode": self.view.mode})

    def _symbol(self, name: Any, status: int = 422) -> int:
        index = self.view.index_of(name) if isinstance(name, str) else None
        if index is None:
            known = ", ".join(q["symbol"] for q in self.view.quotes())
            raise Problem(
                status, f"symbol {name!r} is not known; known are {known}", errors=(FieldError("symbol", "not known"),)
            )
        return index

    # -- session -------------------------------------------------------------------------------------------------

    async def login(self, request: web.Request) -> web.Response:
        self._limit(f"login:{request.remote}", "login", limits.LOGIN)
        body = await json_body(request)
        key = body.get("k")
        if not isinstance(key, str) or not key:
            raise invalid(FieldError("k", "missing; the one-time key that l2dash login prints"))
        now_wall = self.ctx.clock.wall_ns(self.ctx.clock.now_ns())
        found = await asyncio.get_running_loop().run_in_executor(None, self.authority.login, key, now_wall)
        if found is None:
            raise Problem(401, "this login key is unknown, used or expired: get a fresh one with l2dash login")
        cookie, caller = found
        response = reply({"name": caller.name, "scopes": sorted(caller.scopes)})
        response.set_cookie(
            COOKIE,
            cookie,
            max_age=SESSION_IDLE_NS // 1_000_000_000,
            httponly=True,
            samesite="Strict",
            secure=self.secure_cookie,
            path="/",
        )
        return response

    async def logout(self, request: web.Request) -> web.Response:
        caller_of(request, "read")
        self.authority.logout(request.cookies.get(COOKIE, ""))
        response = reply({"ok": True})
        response.del_cookie(COOKIE, path="/")
        return response

    # -- acting --------------------------------------------------------------------------------------------------

    async def flatten(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "trade")
        body = await lenient_body(request)
        view, now_ns = self.fresh(), self.ctx.clock.now_ns()
        if view.flattening() and view.flatten()["flatten_id"]:
            running = view.flatten()
            return reply({"flatten_id": running["flatten_id"], "state": running["state"], "repeated": True}, 202)
        if self.flatten_id and now_ns - self.flatten_ns < FLATTEN_COALESCE_NS:
            return reply({"flatten_id": str(self.flatten_id), "state": "REQUESTED", "repeated": True}, 202)
        self.desk.engage(kill=False)
        sent = self._command(CommandKind.FLATTEN, caller, reason_of(body, "flatten all"))
        self.flatten_id, self.flatten_ns = sent, now_ns
        return reply({"flatten_id": str(sent), "state": "REQUESTED", "repeated": False}, 202)

    async def pause(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "trade")
        body = await lenient_body(request)
        held = self.fresh().stops().pause
        self.desk.engage(kill=False)
        if not held:
            self._command(CommandKind.PAUSE, caller, reason_of(body, "pause"))
        return reply({"state": "PAUSED", "repeated": held}, 202)

    async def kill(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "trade")
        body = await lenient_body(request)
        self.desk.engage(kill=True)
        sent = self._command(CommandKind.KILL, caller, reason_of(body, "kill"))
        self.arming.disarm_all()
        return reply({"state": "KILLED", "command_id": str(sent)}, 202)

    async def resume(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "trade")
        self._limit(caller.name, "resume", limits.OTHER)
        body = await json_body(request)
        self._watchdog_speaks()
        if self.view.stops().kill:
            raise Problem(
                409, "KILL is latched: reset it first", guardrail="KILL", reasons=self.view.trading_state()["reasons"]
            )
        sent = self._command(CommandKind.RESUME, caller, reason_of(body, "resume"))
        await self._result(sent, "resume")
        return reply({"command_id": str(sent), "state": self.fresh().trading_state()["state"]}, 202)

    async def reset(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "admin")
        self._limit(caller.name, "reset", limits.OTHER)
        body = await json_body(request)
        override, excuse = body.get("override_day_lock", False), body.get("excuse_remaining", False)
        for name, value in (("override_day_lock", override), ("excuse_remaining", excuse)):
            if not isinstance(value, bool):
                raise invalid(FieldError(name, f"{value!r} is not true or false"))
        reason = reason_of(body, "")
        if (override or excuse) and not reason:
            raise invalid(FieldError("reason", "missing; an override is journaled with who and why"))
        reasons = self.reset_reasons(override, excuse)
        if reasons:
            raise Problem(409, f"reset refused: {'; '.join(reasons)}", reasons=reasons)
        flags = (RESET_OVERRIDE_DAY if override else 0) | (RESET_EXCUSE_REMAINING if excuse else 0)
        sent = self._command(CommandKind.RESET, caller, reason or "reset", flags=flags)
        await self._result(sent, "reset")
        note = (
            "restarting algo and ml-service alone releases nothing; this reset did"
            if not self.fresh().stops().kill
            else ""
        )
        return reply({"command_id": str(sent), "state": self.view.trading_state()["state"], "note": note}, 202)

    def reset_reasons(self, override: bool, excuse: bool) -> list[str]:
        """Why a reset would be refused now: what can be said without asking the watchdog."""
        view = self.fresh()
        if view.watchdog_silent_ns():
            return ["the watchdog does not answer: only it releases KILL; restart it (l2dash start watchdog)"]
        if not view.stops().kill:
            return ["KILL is not latched: nothing to reset"]
        recovery, reasons = view.recovery(), []
        if view.flattening():
            reasons.append(f"flatten is running: {view.flatten()['state']}")
        if recovery["flat_since"] is None and not excuse:
            held = [p["symbol"] for p in view.positions() if p["qty"]]
            reasons.append(f"not confirmed flat{': ' if held else ''}{', '.join(held)}")
        if recovery["cooling_s"] > 0:
            reasons.append(f"cooling for another {recovery['cooling_s']:.0f} s")
        for badge in view.guardrails():
            if badge["name"] != "KILL" and badge["state"] in ("TRIPPED", "STALE"):
                reasons.append(f"{badge['name']} is {badge['state']}{': ' if badge['reason'] else ''}{badge['reason']}")
        if recovery["day_locked"] and not override:
            reasons.append("the drawdown breaker locks the day: not before the next session without a named override")
        return reasons

    async def reconnect(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "trade")
        self._limit(caller.name, "reconnect", limits.OTHER)
        body = await json_body(request)
        sent = self._command(CommandKind.RECONNECT, caller, reason_of(body, "reconnect"))
        return reply({"command_id": str(sent), "state": self.fresh().connectivity()["link"]}, 202)

    async def accept_positions(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "admin")
        self._limit(caller.name, "accept", limits.OTHER)
        body = await json_body(request)
        sent = self._command(CommandKind.ACCEPT_POSITIONS, caller, reason_of(body, "accept the broker's positions"))
        return reply({"command_id": str(sent)}, 202)

    async def acknowledge(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "trade")
        self._limit(caller.name, "acknowledge", limits.OTHER)
        body = await json_body(request)
        sent = self._command(CommandKind.ACKNOWLEDGE, caller, reason_of(body, "alerts acknowledged"))
        return reply({"command_id": str(sent)}, 202)

    async def cancel(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "trade")
        body = await json_body(request)
        if body.get("all") is True:
            sent = self._command(CommandKind.CANCEL_ALL, caller, reason_of(body, "cancel all"))
            return reply({"command_id": str(sent), "state": "REQUESTED"}, 202)
        order = self._order(body.get("order_id"))
        if order.state in (OrderState.FILLED, OrderState.CANCELLED, OrderState.REJECTED, OrderState.REFUSED):
            raise Problem(
                409, f"order {order.intent_id} is {OrderState(order.state).name} already", order_id=str(order.intent_id)
            )
        try:
            intent_id = self.desk.cancel(order.intent_id, max(order.symbol, 0), caller.name)
        except RingFull as error:
            raise Problem(503, f"{error}: is the bridge running? Cancel is also part of flatten") from None
        result = await self.desk.verdict(intent_id)
        if result is not None and not result.ok:
            raise Problem(409, result.text, guardrail=Refusal(result.code).name, order_id=str(order.intent_id))
        return reply({"order_id": str(order.intent_id), "state": "PENDING_CANCEL"}, 202)

    def _order(self, value: Any) -> Any:
        if (
            isinstance(value, bool)
            or not isinstance(value, int | str)
            or not str(value).isascii()
            or not str(value).isdigit()
        ):
            raise invalid(FieldError("order_id", 'missing; the order_id of an order, or "all": true'))
        self.tail.drain()
        order = self.tail.blotter.orders.get(int(value))
        if order is None:
            raise Problem(404, f"order {value} is not in the blotter", errors=(FieldError("order_id", "not known"),))
        return order

    async def order(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "trade")
        self._limit(caller.name, "order", limits.ORDER)
        body = await json_body(request)
        key = idempotency_key(request.headers.get("Idempotency-Key"))
        view = self.fresh()
        mids = {i.index: m for i in view.instruments if (m := view.mid(i.index)) is not None}
        ticket = parse(body, view.instruments, self.ctx.config.limits, mids)
        digest = f"{ticket.words}".encode()
        if key and key in self.keys:
            known, intent_id = self.keys[key]
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
            intent_id = self.desk.order(ticket, caller.name, key, int(Mode[view.mode]), flags)
        except RingFull as error:
            raise Problem(
                503, f"{error}: is the bridge running? The order was not sent", guardrail="RING_FULL"
            ) from None
        except RuntimeError as error:
            raise Problem(503, str(error)) from None
        if key:
            self.keys[key] = (digest, intent_id)
            while len(self.keys) > MOST_KEYS:
                self.keys.popitem(last=False)
        result = await self.desk.verdict(intent_id)
        if result is not None and not result.ok:
            return self._refused(intent_id, result.code, result.text)
        return self._order_reply(intent_id)

    def _browser_may(
        self, request: web.Request, body: dict[str, Any], caller: Caller, reducing: bool, ticket: Ticket
    ) -> None:
        """A page must have seen this mode, and be armed for what adds risk."""
        if body.get("mode") != self.view.mode:
            raise Problem(
                409,
                f"the page shows mode {body.get('mode')!r}, the server runs {self.view.mode}: reload the page",
                field="mode",
            )
        armed = self.arming.holds(
            caller.name, str(body.get("tab", "")), str(body.get("arm", "")), self.ctx.clock.now_ns()
        )
        if not reducing and not armed:
            raise Problem(409, f"not armed: {ticket.words} adds risk; arm this tab first", guardrail="ARM", field="arm")

    def _refused(self, intent_id: int, code: int, text: str) -> web.Response:
        refusal = Refusal(code) if code in list(Refusal) else Refusal.NONE
        field = _FIELD.get(refusal)
        errors = (FieldError(field, text),) if field else ()
        status = 422 if refusal in _INVALID else 409
        guardrail = refusal.name
        if refusal == Refusal.KILLED:
            guardrail = "KILL"
        raise Problem(status, text, errors=errors, guardrail=guardrail, order_id=str(intent_id), state="REFUSED")

    def _order_reply(self, intent_id: int, repeated: bool = False) -> web.Response:
        order = self.tail.blotter.orders.get(intent_id)
        if order is not None and order.state == OrderState.REFUSED:
            return self._refused(intent_id, order.refusal, order.reason)
        state = OrderState(order.state).name if order is not None else "PENDING"
        body: dict[str, Any] = {"order_id": str(intent_id), "state": state}
        if repeated:
            body["repeated"] = True
        return reply(body, 202)

    # -- arming and stream ---------------------------------------------------------------------------------------

    async def arm(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "trade")
        body = await json_body(request)
        tab = tab_of(body)
        view = self.fresh()
        if body.get("mode") != view.mode:
            raise Problem(
                409,
                f"the page shows mode {body.get('mode')!r}, the server runs {view.mode}: reload the page",
                field="mode",
            )
        state = view.stops().state
        if state == TradingState.KILLED:
            raise Problem(409, "KILL is latched: arming needs a reset first", guardrail="KILL")
        if not self.stream.has_stream(caller.name, tab):
            raise Problem(409, "this tab has no open stream: arming needs one", field="tab")
        lease = self.arming.arm(caller.name, tab, self.ctx.clock.now_ns())
        idle_s = self.ctx.config.cockpit.arm_idle_s
        return reply(
            {"arm": lease.token, "tab": tab, "idle_s": idle_s, "kill_on_stream_gone": self.arming.kill_on_gone}
        )

    async def disarm(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "read")
        body = await json_body(request)
        return reply({"disarmed": self.arming.disarm(caller.name, tab_of(body))})

    async def ack(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "read")
        body = await json_body(request)
        took = self.stream.acknowledge(caller.name, tab_of(body), str(body.get("nonce", "")), self.ctx.clock.now_ns())
        return reply({"rtt_ms": round(took / 1e6, 3)})

    async def focus(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "read")
        body = await json_body(request)
        self.stream.focus(caller.name, tab_of(body), self._symbol(body.get("symbol")))
        return reply({"ok": True})

    async def leave(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "read")
        body = await json_body(request)
        self.stream.leave(caller.name, tab_of(body))
        return reply({"ok": True})

    async def open_stream(self, request: web.Request) -> web.StreamResponse:
        caller = caller_of(request, "read")
        name = request.query.get("symbol")
        focus = self._symbol(name) if name else 0
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        seal(response, request.path)
        tab = request.query.get("tab", "")[:64]
        last = request.headers.get("Last-Event-ID") or request.query.get("last_event_id")
        await self.stream.serve(request, response, caller.name, tab, focus, last)
        return response

    # -- helpers -------------------------------------------------------------------------------------------------

    def _limit(self, caller: str, action: str, rate: limits.Rate) -> None:
        wait_s = self.buckets.take(caller, action, rate, self.ctx.clock.now_ns())
        if wait_s > 0:
            raise Problem(
                429,
                f"too many {action} calls: again in {wait_s:.1f} s",
                headers={"Retry-After": str(max(1, round(wait_s)))},
            )

    def _command(self, kind: CommandKind, caller: Caller, reason: str, *, flags: int = 0) -> int:
        try:
            return self.desk.command(kind, caller.name, reason, flags=flags).ref_id
        except RingFull as error:
            held = (
                " Entries are stopped by our own stop cell all the same."
                if kind in (CommandKind.FLATTEN, CommandKind.PAUSE, CommandKind.KILL)
                else ""
            )
            raise Problem(503, f"{error}: are {topology.WATCHDOG} and {topology.BRIDGE} running?{held}") from None

    def _watchdog_speaks(self) -> None:
        if self.fresh().watchdog_silent_ns():
            raise Problem(
                409, "the watchdog does not answer: only it releases stops; restart it (l2dash start watchdog)"
            )

    async def _result(self, command_id: int, action: str) -> None:
        result = await self.desk.verdict(command_id)
        if result is not None and not result.ok:
            raise Problem(409, f"{action} refused: {result.text}", reasons=[result.text])


def reply(data: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY), status=status, content_type="application/json"
    )


def page(request: web.Request) -> tuple[int, int]:
    """``since`` and ``limit`` of a list call. Raises Problem 422."""
    out = []
    for name, default, most in (("since", 0, 2**63), ("limit", 200, 5_000)):
        text = request.query.get(name, str(default))
        if not (text.isascii() and text.isdigit()) or int(text) > most:
            raise invalid(FieldError(name, f"{text!r} is not a whole number from 0 to {most}"))
        out.append(int(text))
    return out[0], out[1]


def reason_of(body: dict[str, Any], default: str) -> str:
    value = body.get("reason", "")
    if not isinstance(value, str):
        raise invalid(FieldError("reason", f"{value!r} is not text"))
    return " ".join(value.split())[:160] or default


def tab_of(body: dict[str, Any]) -> str:
    value = body.get("tab")
    if not isinstance(value, str) or not 0 < len(value) <= 64:
        raise invalid(FieldError("tab", "missing; the tab's id of up to 64 characters"))
    return value


async def lenient_body(request: web.Request) -> dict[str, Any]:
    """Body of a stop: nothing in it may keep the stop from happening, so what can't be read counts as empty."""
    try:
        body = await json_body(request)
    except (Problem, web.HTTPException):
        return {}
    return body if isinstance(body.get("reason", ""), str) else {}


__all__ = ["CALLER", "Api"]
