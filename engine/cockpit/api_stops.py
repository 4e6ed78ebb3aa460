"""Stops and releases over HTTP. Stops are coalesced and never limited, and nothing in a body can prevent one."""

from __future__ import annotations

from aiohttp import web

from engine.cockpit import limits
from engine.cockpit.desk import RELEASE_S
from engine.cockpit.errors import FieldError, Problem, invalid
from engine.cockpit.guard import caller_of, json_body
from engine.cockpit.parts import Parts, lenient_body, reason_of, reply
from engine.domain.codes import CommandKind
from engine.risk.release import EXCUSE_REMAINING, OVERRIDE_DAY

FLATTEN_COALESCE_NS = 2_000_000_000


class Stops:
    """Handlers of flatten, pause, kill and what releases them; reconnect and acknowledgements."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def routes(self) -> list[web.RouteDef]:
        post = web.post
        return [
            post("/api/exec/flatten-all", self.flatten),
            post("/api/exec/pause", self.pause),
            post("/api/exec/kill", self.kill),
            post("/api/exec/resume", self.resume),
            post("/api/exec/reset", self.reset),
            post("/api/exec/reconnect", self.reconnect),
            post("/api/exec/accept-positions", self.accept_positions),
            post("/api/alerts/acknowledge", self.acknowledge),
        ]

    async def flatten(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "trade")
        body = await lenient_body(request)
        view, now_ns = self.parts.fresh(), self.parts.ctx.clock.now_ns()
        if view.flattening() and view.flatten()["flatten_id"]:
            running = view.flatten()
            return reply({"flatten_id": running["flatten_id"], "state": running["state"], "repeated": True}, 202)
        if self.parts.flatten_id and now_ns - self.parts.flatten_ns < FLATTEN_COALESCE_NS:
            return reply({"flatten_id": str(self.parts.flatten_id), "state": "REQUESTED", "repeated": True}, 202)
        self.parts.desk.engage(kill=False)
        sent = self.parts.command(CommandKind.FLATTEN, caller, reason_of(body, "flatten all"))
        self.parts.flatten_id, self.parts.flatten_ns = sent, now_ns
        return reply({"flatten_id": str(sent), "state": "REQUESTED", "repeated": False}, 202)

    async def pause(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "trade")
        body = await lenient_body(request)
        held = self.parts.fresh().stops().pause
        self.parts.desk.engage(kill=False)
        if not held:
            self.parts.command(CommandKind.PAUSE, caller, reason_of(body, "pause"))
        return reply({"state": "PAUSED", "repeated": held}, 202)

    async def kill(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "trade")
        body = await lenient_body(request)
        self.parts.desk.engage(kill=True)
        sent = self.parts.command(CommandKind.KILL, caller, reason_of(body, "kill"))
        self.parts.arming.disarm_all()
        return reply({"state": "KILLED", "command_id": str(sent)}, 202)

    async def resume(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "trade")
        self.parts.limit(caller.name, "resume", limits.OTHER)
        body = await json_body(request)
        self._watchdog_speaks()
        if self.parts.view.stops().kill:
            raise Problem(
                409,
                "KILL is latched: reset it first",
                guardrail="KILL",
                reasons=self.parts.view.trading_state()["reasons"],
            )
        sent = self.parts.command(CommandKind.RESUME, caller, reason_of(body, "resume"))
        await self._result(sent, "resume")
        return reply({"command_id": str(sent), "state": self.parts.fresh().trading_state()["state"]}, 202)

    async def reset(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "admin")
        self.parts.limit(caller.name, "reset", limits.OTHER)
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
        flags = (OVERRIDE_DAY if override else 0) | (EXCUSE_REMAINING if excuse else 0)
        sent = self.parts.command(CommandKind.RESET, caller, reason or "reset", flags=flags)
        await self._result(sent, "reset")
        note = (
            "restarting algo and ml-service alone releases nothing; this reset did"
            if not self.parts.fresh().stops().kill
            else ""
        )
        return reply({"command_id": str(sent), "state": self.parts.view.trading_state()["state"], "note": note}, 202)

    def reset_reasons(self, override: bool, excuse: bool) -> list[str]:
        """Why a reset would be refused now: what can be said without asking the watchdog."""
        view = self.parts.fresh()
        if view.watchdog_silent_ns():
            return ["the watchdog does not answer: only it releases KILL; restart it (l2dash start watchdog)"]
        if not view.stops().kill:  # a flatten under PAUSE ends by keeping what can't be closed: the watchdog's to judge
            return [] if excuse and view.flattening() else ["KILL is not latched: nothing to reset"]
        recovery, reasons = view.recovery(), []
        if view.flattening() and not excuse:  # an excuse of what can't be closed ends it: for the watchdog to judge
            reasons.append(f"flatten is running: {view.flatten()['state']}")
        if recovery["flat_since"] is None and not excuse:
            held = [p["symbol"] for p in view.positions() if p["qty"]]
            reasons.append(f"not confirmed flat{': ' if held else ''}{', '.join(held)}")
        if recovery["cooling_s"] > 0:
            reasons.append(f"cooling for another {recovery['cooling_s']:.0f} s")
        for badge in view.guardrails():
            overridden = badge["name"] == "KILL" or (badge["name"] == "DD" and override)
            if not overridden and badge["state"] != "OK":
                reasons.append(f"{badge['name']} is {badge['state']}{': ' if badge['reason'] else ''}{badge['reason']}")
        if recovery["day_locked"] and not override:
            reasons.append("the drawdown breaker locks the day: not before the next session without a named override")
        return reasons

    async def reconnect(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "trade")
        self.parts.limit(caller.name, "reconnect", limits.OTHER)
        body = await json_body(request)
        sent = self.parts.command(CommandKind.RECONNECT, caller, reason_of(body, "reconnect"))
        return reply({"command_id": str(sent), "state": self.parts.fresh().connectivity()["link"]}, 202)

    async def accept_positions(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "admin")
        self.parts.limit(caller.name, "accept", limits.OTHER)
        body = await json_body(request)
        sent = self.parts.command(
            CommandKind.ACCEPT_POSITIONS, caller, reason_of(body, "accept the broker's positions")
        )
        return reply({"command_id": str(sent)}, 202)

    async def acknowledge(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "trade")
        self.parts.limit(caller.name, "acknowledge", limits.OTHER)
        body = await json_body(request)
        sent = self.parts.command(CommandKind.ACKNOWLEDGE, caller, reason_of(body, "alerts acknowledged"))
        return reply({"command_id": str(sent)}, 202)

    def _watchdog_speaks(self) -> None:
        if self.parts.fresh().watchdog_silent_ns():
            raise Problem(
                409, "the watchdog does not answer: only it releases stops; restart it (l2dash start watchdog)"
            )

    async def _result(self, command_id: int, action: str) -> None:
        result = await self.parts.desk.verdict(command_id, RELEASE_S)
        if result is not None and not result.ok:
            raise Problem(409, f"{action} refused: {result.text}", reasons=[result.text])
