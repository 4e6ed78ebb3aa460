"""Puts the parts together: the application on port 3000, the health application on 8080, and their sockets."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from engine.cockpit import health, metrics
from engine.cockpit.api import routes
from engine.cockpit.arming import Arming
from engine.cockpit.auth import Authority, ensure_token
from engine.cockpit.blotter import Blotter
from engine.cockpit.desk import Desk
from engine.cockpit.durable import DurableLog
from engine.cockpit.guard import HEADERS, allowed_hosts, door, host_name
from engine.cockpit.history import History
from engine.cockpit.limits import Buckets
from engine.cockpit.parts import Parts
from engine.cockpit.prime import Keys, from_journal
from engine.cockpit.services import Services
from engine.cockpit.stream import Stream
from engine.cockpit.tail import Tail
from engine.cockpit.view import View
from engine.domain.sessions import session_date
from engine.runtime.context import Context
from engine.runtime.ports import holder
from engine.runtime.secrets import secret

STATIC = Path(__file__).parent / "static"
PAGES = {"/cockpit": "cockpit.html", "/analytics": "analytics.html"}
MAX_BODY = 16 * 1024


class PortTaken(Exception):
    """A port is in use; the text names who holds it and what to do."""


@dataclass(slots=True)
class Cockpit:
    """All parts of one cockpit."""

    ctx: Context
    view: View
    services: Services
    tail: Tail
    stream: Stream
    api: Parts


def build(ctx: Context) -> Cockpit:
    """Attach, prime the blotter from the rings, make every part. Raises ValueError for an unusable token."""
    config, state_dir = ctx.config, ctx.state_dir
    view, services = View(ctx), Services(ctx)
    log = DurableLog(epoch=ctx.clock.wall_ns(ctx.clock.now_ns()) // 1_000_000)
    blotter, keys, now_ns = Blotter(ctx.instruments, ctx.clock.wall_ns), Keys(), ctx.clock.now_ns()
    day = session_date(ctx.clock.wall_ns(now_ns), config.instance.mode == "sim")
    from_journal(state_dir / "journal.db", day, blotter, keys, ctx.instruments, ctx.log)
    tail = Tail(ctx, blotter, log)
    tail.prime()
    tokens = {ensure_token(state_dir, secret("TRADING_TOKEN")): "admin"}
    for name, scope in (("L2DASH_TRADE_TOKEN", "trade"), ("L2DASH_READ_TOKEN", "read")):
        extra = secret(name)
        if extra:
            if len(extra) < 32:
                raise ValueError(f"{name} has {len(extra)} characters, at least 32 are needed")
            tokens[extra] = scope
    history, authority = History(view), Authority(state_dir, tokens)
    arming = Arming(int(config.cockpit.arm_idle_s * 1e9), config.cockpit.kill_on_stream_gone)
    stream = Stream(ctx, view, services, tail, log, history, arming)
    view.refresh(ctx.clock.now_ns())
    api = Parts(
        ctx, view, stream, Desk(ctx, tail), tail, history, arming, authority, Buckets(), keys,
        secure_cookie=bool(config.cockpit.tls_cert) or config.cockpit.trusted_proxy,
    )  # fmt: skip
    return Cockpit(ctx, view, services, tail, stream, api)


def make_app(cockpit: Cockpit) -> web.Application:
    """Pages, API and stream."""
    ctx, config = cockpit.ctx, cockpit.ctx.config.cockpit
    hosts = allowed_hosts(config.host, config.allowed_hosts)

    def wall_ns() -> int:
        return ctx.clock.wall_ns(ctx.clock.now_ns())

    app = web.Application(
        middlewares=[_count(ctx), door(hosts, cockpit.api.authority, wall_ns, config.trusted_proxy, ctx.replay)],
        client_max_size=MAX_BODY,
    )
    app.add_routes(routes(cockpit.api))
    for path, file in PAGES.items():
        app.router.add_get(path, _page(STATIC / file))
    app.router.add_get("/", _home)
    app.router.add_get("/favicon.ico", _file(STATIC / "favicon.svg", "image/svg+xml"))
    app.router.add_static("/static/", STATIC)
    return app


def make_health_app(cockpit: Cockpit) -> web.Application:
    """Health and metrics: numbers about the service, no secrets, no way to act."""
    view, services = cockpit.view, cockpit.services
    config = cockpit.ctx.config.cockpit
    hosts = allowed_hosts(config.health_host, config.allowed_hosts)

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if host_name(request.headers.get("Host", "")) not in hosts:
            raise web.HTTPMisdirectedRequest(text="Host is not served here; name it in cockpit.allowed_hosts")
        response = await handler(request)
        response.headers.update(HEADERS)
        response.headers["Cache-Control"] = "no-store"
        return response

    def answer(data: object, fail: bool) -> web.Response:
        return web.Response(
            body=orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY),
            status=503 if fail else 200,
            content_type=health.CONTENT,
        )

    async def live(_: web.Request) -> web.Response:
        return answer({"status": "pass", "description": "the cockpit answers"}, False)

    async def ready(_: web.Request) -> web.Response:
        view.refresh(view.clock.now_ns())
        is_ready, reason = health.ready(view, services)
        return answer({"status": "pass" if is_ready else "fail", "output": reason}, not is_ready)

    async def everything(_: web.Request) -> web.Response:
        view.refresh(view.clock.now_ns())
        report = health.report(view, services)
        return answer(report, report["status"] == "fail")

    async def prometheus(_: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(view, services), headers={"Content-Type": metrics.CONTENT})

    app = web.Application(middlewares=[guard], client_max_size=MAX_BODY)
    app.add_routes(
        [
            web.get("/health/live", live),
            web.get("/health/ready", ready),
            web.get("/health/all", everything),
            web.get("/metrics", prometheus),
        ]
    )
    return app


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _count(ctx: Context) -> Any:
    counters = ctx.counters

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        counters.add("requests")
        response = await handler(request)
        if response.status >= 400:
            counters.add("refused")
        return response

    return middleware


def _page(path: Path) -> Handler:
    return _file(path, "text/html")


def _file(path: Path, content_type: str) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(body=path.read_bytes(), content_type=content_type, charset="utf-8")

    return handler


async def _home(_: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("/cockpit")


def bind(host: str, port: int, what: str) -> socket.socket:
    """A listening socket. Raises PortTaken naming the process that holds the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(128)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(
                f"port {port} ({what}) is taken by {holder(port, host)}: stop it, or choose another port in [cockpit]"
            ) from None
        raise PortTaken(
            f"{host}:{port} ({what}) can't be bound: {error.strerror}; check [cockpit] in the configuration"
        ) from None
    sock.setblocking(False)
    return sock


def tls_context(cert: str, key: str) -> ssl.SSLContext | None:
    """TLS if the configuration names a certificate. Raises ValueError if it can't be loaded."""
    if not cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key or None)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"cockpit.tls_cert {cert}: can't be loaded: {error}") from error
    return context


class Server:
    """Both applications on their sockets. Ports are bound at construction, so that a taken one is known at once."""

    def __init__(self, cockpit: Cockpit) -> None:
        config = cockpit.ctx.config.cockpit
        self._cockpit = cockpit
        self._ssl = tls_context(config.tls_cert, config.tls_key)
        self._sockets = [bind(config.host, config.port, "cockpit")]
        try:
            self._sockets.append(bind(config.health_host, config.health_port, "health"))
        except PortTaken:
            self._sockets[0].close()
            raise
        self._runners: list[web.AppRunner] = []

    @property
    def port(self) -> int:
        return int(self._sockets[0].getsockname()[1])

    @property
    def health_port(self) -> int:
        return int(self._sockets[1].getsockname()[1])

    async def start(self) -> None:
        for app, sock, context in (
            (make_app(self._cockpit), self._sockets[0], self._ssl),
            (make_health_app(self._cockpit), self._sockets[1], None),
        ):
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, keepalive_timeout=30.0)
            await runner.setup()
            await web.SockSite(runner, sock, ssl_context=context).start()
            self._runners.append(runner)

    async def close(self) -> None:
        self._cockpit.stream.close()
        await asyncio.sleep(0)
        for runner in self._runners:
            await runner.cleanup()
        for sock in self._sockets:
            sock.close()
