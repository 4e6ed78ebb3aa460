"""Browser sessions over HTTP: logging in, the stream, arming a tab."""

from __future__ import annotations

import asyncio

from aiohttp import web

from engine.cockpit import limits
from engine.cockpit.auth import COOKIE, SESSION_IDLE_NS
from engine.cockpit.errors import FieldError, Problem, invalid
from engine.cockpit.guard import caller_of, json_body, seal
from engine.cockpit.parts import Parts, reply, tab_of
from engine.domain.codes import TradingState


class Sessions:
    """Handlers of what belongs to one browser tab."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def routes(self) -> list[web.RouteDef]:
        post = web.post
        return [
            post("/api/login", self.login),
            post("/api/logout", self.logout),
            web.get("/api/stream", self.open_stream),
            post("/api/stream/ack", self.ack),
            post("/api/stream/focus", self.focus),
            post("/api/stream/leave", self.leave),
            post("/api/exec/arm", self.arm),
            post("/api/exec/disarm", self.disarm),
        ]

    async def login(self, request: web.Request) -> web.Response:
        self.parts.limit(f"login:{request.remote}", "login", limits.LOGIN)
        body = await json_body(request)
        key = body.get("k")
        if not isinstance(key, str) or not key:
            raise invalid(FieldError("k", "missing; the one-time key that l2dash login prints"))
        now_wall = self.parts.ctx.clock.wall_ns(self.parts.ctx.clock.now_ns())
        found = await asyncio.get_running_loop().run_in_executor(None, self.parts.authority.login, key, now_wall)
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
            secure=self.parts.secure_cookie,
            path="/",
        )
        return response

    async def logout(self, request: web.Request) -> web.Response:
        caller_of(request, "read")
        self.parts.authority.logout(request.cookies.get(COOKIE, ""))
        response = reply({"ok": True})
        response.del_cookie(COOKIE, path="/")
        return response

    async def open_stream(self, request: web.Request) -> web.StreamResponse:
        caller = caller_of(request, "read")
        name = request.query.get("symbol")
        focus = self.parts.symbol(name) if name else 0
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        seal(response, request.path)
        tab = request.query.get("tab", "")[:64]
        last = request.headers.get("Last-Event-ID") or request.query.get("last_event_id")
        await self.parts.stream.serve(request, response, caller.name, tab, focus, last)
        return response

    async def ack(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "read")
        body = await json_body(request)
        took = self.parts.stream.acknowledge(
            caller.name, tab_of(body), str(body.get("nonce", "")), self.parts.ctx.clock.now_ns()
        )
        return reply({"rtt_ms": round(took / 1e6, 3)})

    async def focus(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "read")
        body = await json_body(request)
        self.parts.stream.focus(caller.name, tab_of(body), self.parts.symbol(body.get("symbol")))
        return reply({"ok": True})

    async def leave(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "read")
        body = await json_body(request)
        self.parts.stream.leave(caller.name, tab_of(body))
        return reply({"ok": True})

    async def arm(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "trade")
        body = await json_body(request)
        tab = tab_of(body)
        view = self.parts.fresh()
        if body.get("mode") != view.mode:
            raise Problem(
                409,
                f"the page shows mode {body.get('mode')!r}, the server runs {view.mode}: reload the page",
                field="mode",
            )
        state = view.stops().state
        if state == TradingState.KILLED:
            raise Problem(409, "KILL is latched: arming needs a reset first", guardrail="KILL")
        if not self.parts.stream.has_stream(caller.name, tab):
            raise Problem(409, "this tab has no open stream: arming needs one", field="tab")
        lease = self.parts.arming.arm(caller.name, tab, self.parts.ctx.clock.now_ns())
        idle_s = self.parts.ctx.config.cockpit.arm_idle_s
        return reply(
            {"arm": lease.token, "tab": tab, "idle_s": idle_s, "kill_on_stream_gone": self.parts.arming.kill_on_gone}
        )

    async def disarm(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "read")
        body = await json_body(request)
        return reply({"disarmed": self.parts.arming.disarm(caller.name, tab_of(body))})
