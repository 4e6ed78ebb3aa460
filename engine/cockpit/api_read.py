"""Reading over HTTP: state, lists, history, the interface's own description."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp import web

from engine.cockpit.errors import FieldError, Problem, invalid
from engine.cockpit.guard import caller_of
from engine.cockpit.openapi import document
from engine.cockpit.parts import Parts, page, reply
from engine.cockpit.versions import model_versions
from engine.store.incident import Incident, as_dict, incidents, report
from engine.store.incident_text import as_text
from engine.store.journal import journal_path
from engine.store.journal_read import JournalReader


def _report(path: Path, number: int, cooling_s: float) -> Incident | None:
    """0 means the newest; None if there is none, or no journal yet."""
    if not path.exists():
        return None
    with JournalReader(path) as journal:
        known = [] if number else incidents(journal)
        if not number and not known:
            return None
        return report(journal, number or int(known[-1]["id"]), cooling_s)


class Reading:
    """Handlers that change nothing; scope read."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def routes(self) -> list[web.RouteDef]:
        get = web.get
        return [
            get("/api/openapi.json", self.openapi),
            get("/api/state", self.state),
            get("/api/orders", self.orders),
            get("/api/fills", self.fills),
            get("/api/positions", self.positions),
            get("/api/book/{symbol}", self.book),
            get("/api/audit", self.audit),
            get("/api/alerts", self.alerts),
            get("/api/incident/{id}", self.incident),
            get("/api/history", self.get_history),
            get("/api/models", self.models),
            get("/api/session", self.session),
        ]

    async def openapi(self, request: web.Request) -> web.Response:
        caller_of(request, "read")
        return reply(document(self.parts.ctx.config))

    async def state(self, request: web.Request) -> web.Response:
        caller_of(request, "read")
        self.parts.fresh()
        return reply(self.parts.stream.snapshot())

    async def orders(self, request: web.Request) -> web.Response:
        caller_of(request, "read")
        self.parts.tail.drain()
        blotter = self.parts.tail.blotter
        return reply({"orders": blotter.order_list(*page(request)), "change": blotter.changes})

    async def fills(self, request: web.Request) -> web.Response:
        caller_of(request, "read")
        self.parts.tail.drain()
        blotter = self.parts.tail.blotter
        return reply({"fills": blotter.fill_list(*page(request)), "change": blotter.changes})

    async def positions(self, request: web.Request) -> web.Response:
        caller_of(request, "read")
        view = self.parts.fresh()
        rows = view.positions()[: page(request)[1]]
        return reply(
            {"positions": rows, "gross_usd": view.account()["gross_usd"], "net_usd": view.account()["net_usd"]}
        )

    async def book(self, request: web.Request) -> web.Response:
        caller_of(request, "read")
        view = self.parts.fresh()
        return reply(view.book(self.parts.symbol(request.match_info["symbol"], 404)))

    async def audit(self, request: web.Request) -> web.Response:
        caller_of(request, "read")
        self.parts.tail.drain()
        since, limit = page(request)
        return reply({"audit": [a for a in reversed(self.parts.tail.audits) if a["id"] > since][:limit]})

    async def alerts(self, request: web.Request) -> web.Response:
        caller_of(request, "read")
        self.parts.tail.drain()
        since, limit = page(request)
        return reply({"alerts": [a for a in reversed(self.parts.tail.alerts) if a["id"] > since][:limit]})

    async def incident(self, request: web.Request) -> web.Response:
        """Report of one incident, or of the newest (``latest``); ``?text`` for people."""
        caller_of(request, "read")
        word = request.match_info["id"]
        if word != "latest" and not (word.isdigit() and len(word) <= 19):
            raise invalid(FieldError("id", f"{word!r} is neither a number nor latest"))
        config = self.parts.ctx.config
        number = 0 if word == "latest" else int(word)
        cooling_s = config.guardrails.cooling_s
        found = await asyncio.to_thread(_report, journal_path(config.state_dir), number, cooling_s)
        if found is None:
            raise Problem(404, f"no incident {word}: `l2dash incident` lists them")
        if "text" in request.query:
            return web.Response(text=as_text(found), headers={"Cache-Control": "no-store"})
        return reply(as_dict(found))

    async def get_history(self, request: web.Request) -> web.Response:
        caller_of(request, "read")
        return reply(self.parts.history.as_json())

    async def models(self, request: web.Request) -> web.Response:
        caller_of(request, "read")
        state_dir = self.parts.ctx.state_dir
        return reply({"models": await asyncio.get_running_loop().run_in_executor(None, model_versions, state_dir)})

    async def session(self, request: web.Request) -> web.Response:
        caller = caller_of(request, "read")
        return reply({"name": caller.name, "scopes": sorted(caller.scopes), "mode": self.parts.view.mode})
