"""The control port: faults on command and a look inside, as JSON over HTTP on the loopback interface only.

``GET /faults`` lists the faults with their arguments, ``POST /faults`` with ``{"fault": name, "args": {...}}`` carries
one out (with ``"when": {...}`` at the times of a plan), ``POST /reset`` with ``{"equity_usd": ...}`` opens the account
anew, ``GET /state`` shows connections, orders, positions and counters. There is no authentication: whoever may open a
loopback connection may disturb a paper account. A web page may not, so JSON content type and a loopback Host are
demanded.
"""

from __future__ import annotations

import errno
import json
from typing import Any

from aiohttp import web

from engine.paper.faults import FAULTS, FaultDesk, FaultError, Plan
from engine.paper.server import Gateway, PortTaken, port_holder

HOST = "127.0.0.1"


def _state(gateway: Gateway) -> dict[str, Any]:
    marks = gateway.marks()
    account = gateway.account
    return {
        "account": gateway.config.account,
        "equity_usd": round(account.equity(marks), 2),
        "clients": sorted(s.client_id for s in gateway.clients()),
        "connections": len(gateway.sessions),
        "link_up": gateway.link_up,
        "market_events": gateway.events,
        "market_lag_ms": round(max(0, gateway.now_ns() - gateway.market.next_ns()) / 1e6, 3),
        "depth_messages": gateway.feed.depth.messages,
        "positions": {gateway.catalog[s].symbol: p.quantity for s, p in account.positions.items() if p.quantity},
        "working_orders": [
            {
                "perm_id": o.perm_id,
                "client_id": o.client_id,
                "order_id": o.order_id,
                "symbol": gateway.catalog[o.symbol].symbol,
                "action": o.action,
                "quantity": o.quantity,
                "filled": o.filled,
                "limit": o.limit if o.limit == o.limit else None,
                "status": o.status,
            }
            for o in gateway.desk.ledger.working()
        ],
        "executions_today": len(gateway.desk.ledger.executions),
    }


def _plain(value: float | str | bool | None) -> float | str | bool | None:
    """JSON has no infinity."""
    return "inf" if value == float("inf") else value


def _problem(status: int, detail: str) -> web.Response:
    body = {"type": "about:blank", "status": status, "detail": detail}
    return web.json_response(body, status=status, content_type="application/problem+json")


def application(gateway: Gateway, faults: FaultDesk) -> web.Application:
    """The HTTP application of the control port."""

    @web.middleware
    async def local_only(request: web.Request, handler: Any) -> web.StreamResponse:
        host = request.host.rpartition(":")[0] or request.host
        if host not in ("127.0.0.1", "localhost"):
            return _problem(403, f"host {host[:60]!r} is not the loopback interface")
        response: web.StreamResponse = await handler(request)
        return response

    async def list_faults(request: web.Request) -> web.Response:
        rows = [
            {
                "name": name,
                "help": fault.help,
                "args": {
                    n: {"help": a.help, "default": _plain(a.default), "allowed": a.allowed}
                    for n, a in fault.args.items()
                },
            }
            for name, fault in FAULTS.items()
        ]
        return web.json_response({"faults": list(FAULTS), "table": rows})

    async def post_fault(request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            return _problem(415, f"content type is {request.content_type!r}, expected 'application/json'")
        try:
            body = await request.json()
        except (json.JSONDecodeError, UnicodeDecodeError):
            return _problem(400, "the body is not JSON")
        if (
            not isinstance(body, dict)
            or not set(body) <= {"fault", "args", "when"}
            or not isinstance(body.get("args", {}), dict)
            or not isinstance(body.get("when", {}), dict)
        ):
            return _problem(400, 'expected {"fault": name, "args": {...}, "when": {...}}')
        name, args = str(body.get("fault")), body.get("args", {})
        try:
            if body.get("when"):
                result = faults.plan(name, args, Plan.read(body["when"]))
            else:
                result = faults.apply(name, args)
        except FaultError as error:
            return _problem(422, str(error))
        return web.json_response({"result": result})

    async def reset(request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            return _problem(415, f"content type is {request.content_type!r}, expected 'application/json'")
        try:
            body = await request.json()
        except (json.JSONDecodeError, UnicodeDecodeError):
            return _problem(400, "the body is not JSON")
        if not isinstance(body, dict) or not set(body) <= {"equity_usd"}:
            return _problem(400, 'expected {"equity_usd": amount} or {}')
        equity = body.get("equity_usd", gateway.config.equity_usd)
        if isinstance(equity, bool) or not isinstance(equity, (int, float)) or not 1.0 <= equity <= 1e12:
            return _problem(422, f"equity_usd is {equity!r}, allowed is 1..1e+12")
        gateway.desk.reset_account(float(equity), gateway.catch_up())
        gateway.flush_all()
        return web.json_response({"result": f"account {gateway.config.account} has {equity:,.2f} USD and no positions"})

    async def get_state(request: web.Request) -> web.Response:
        return web.json_response(_state(gateway))

    app = web.Application(middlewares=[local_only], client_max_size=64 * 1024)
    app.router.add_get("/faults", list_faults)
    app.router.add_post("/faults", post_fault)
    app.router.add_post("/reset", reset)
    app.router.add_get("/state", get_state)
    return app


async def start_control(gateway: Gateway, faults: FaultDesk, port: int) -> web.AppRunner:
    """Serve the control port until the runner is cleaned up. Raises PortTaken."""
    runner = web.AppRunner(application(gateway, faults), access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port).start()
    except OSError as error:
        await runner.cleanup()
        if error.errno != errno.EADDRINUSE:
            raise
        holder = port_holder(port)
        raise PortTaken(f"control port {port} is held by {holder}; stop it or set control_port = 0") from None
    return runner
