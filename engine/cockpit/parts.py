"""What the handlers of /api share: the parts of one cockpit, and the checks that several of them make."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from engine import topology
from engine.cockpit.arming import Arming
from engine.cockpit.auth import Authority, Caller
from engine.cockpit.desk import Desk
from engine.cockpit.errors import FieldError, Problem, invalid
from engine.cockpit.guard import json_body
from engine.cockpit.history import History
from engine.cockpit.limits import Buckets, Rate
from engine.cockpit.stream import Stream
from engine.cockpit.tail import Tail
from engine.cockpit.view import View
from engine.domain.codes import CommandKind
from engine.runtime.context import Context
from shm.ring import RingFull


@dataclass(slots=True)
class Parts:
    """The parts of one cockpit, and what the handlers remember between calls."""

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
    """Idempotency key to (order in words, intent id)."""
    flatten_id: int = 0
    flatten_ns: int = 0
    secure_cookie: bool = False

    def fresh(self) -> View:
        self.tail.drain()
        self.view.refresh(self.ctx.clock.now_ns())
        return self.view

    def symbol(self, name: Any, status: int = 422) -> int:
        index = self.view.index_of(name) if isinstance(name, str) else None
        if index is None:
            known = ", ".join(q["symbol"] for q in self.view.quotes())
            raise Problem(
                status, f"symbol {name!r} is not known; known are {known}", errors=(FieldError("symbol", "not known"),)
            )
        return index

    def limit(self, caller: str, action: str, rate: Rate) -> None:
        wait_s = self.buckets.take(caller, action, rate, self.ctx.clock.now_ns())
        if wait_s > 0:
            raise Problem(
                429,
                f"too many {action} calls: again in {wait_s:.1f} s",
                headers={"Retry-After": str(max(1, round(wait_s)))},
            )

    def command(self, kind: CommandKind, caller: Caller, reason: str, *, flags: int = 0) -> int:
        try:
            return self.desk.command(kind, caller.name, reason, flags=flags).ref_id
        except RingFull as error:
            held = (
                " Entries are stopped by our own stop cell all the same."
                if kind in (CommandKind.FLATTEN, CommandKind.PAUSE, CommandKind.KILL)
                else ""
            )
            raise Problem(503, f"{error}: are {topology.WATCHDOG} and {topology.BRIDGE} running?{held}") from None


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
