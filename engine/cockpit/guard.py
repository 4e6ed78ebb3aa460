"""The door: every request passes these checks in this order, before any handler sees it.

1. Host is one of ours (421): stops DNS rebinding. 2. Requests from a browser come from this very origin; another port
on localhost is same-site and refused. 3. A caller is known (401). 4. A browser's body is JSON and carries our own
header, which no form and no cross-origin page can send without a preflight that is never granted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import orjson
from aiohttp import web

from engine.cockpit.auth import COOKIE, Authority, Caller
from engine.cockpit.errors import Problem

OWN_HEADER = "X-L2Dash"
CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Server": "l2dash",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_SAFE = ("GET", "HEAD")
_NAMED_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def host_name(host_header: str) -> str:
    """Host without port, lower case; empty if malformed."""
    try:
        return (urlsplit(f"//{host_header}").hostname or "").rstrip(".").lower()
    except ValueError:
        return ""


def allowed_hosts(bound: str, extra: tuple[str, ...]) -> frozenset[str]:
    wild = ("0.0.0.0", "::", "")
    return _NAMED_LOOPBACK | {h.lower() for h in extra} | (frozenset() if bound in wild else {bound.lower()})


def origin_matches(origin: str, scheme: str, host_header: str) -> bool:
    """Is ``Origin`` the page's own origin? Scheme, host and port must all agree."""
    return origin.lower() == f"{scheme}://{host_header}".lower()


def own_origin(request: web.Request, trusted_proxy: bool) -> bool | None:
    """True: from this very origin. False: from elsewhere. None: the request says nothing (not a browser)."""
    fetch_site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    scheme = request.headers.get("X-Forwarded-Proto", request.scheme) if trusted_proxy else request.scheme
    if origin is not None and not origin_matches(origin, scheme, request.headers.get("Host", "")):
        return False
    if fetch_site is not None:
        if fetch_site == "same-origin":
            return True
        # "none" is a typed address or a bookmark: fine to read, never a way to act
        return fetch_site == "none" and request.method in _SAFE
    return True if origin is not None else None


def door(
    hosts: frozenset[str],
    authority: Authority,
    wall_ns: Callable[[], int],
    trusted_proxy: bool,
    replay: bool = False,
) -> Any:
    """Middleware with the checks above. Pages, static files and the login itself need no caller.

    In a ``replay`` nothing can be done: there is only a past to look at.
    """

    def identify(request: web.Request) -> Caller:
        header = request.headers.get("Authorization")
        cookie = request.cookies.get(COOKIE)
        caller = None
        if header is not None:
            caller = authority.bearer(header)
        elif cookie:
            caller = authority.session(cookie, wall_ns())
        if caller is None:
            raise Problem(
                401,
                "not authorised: send the header Authorization: Bearer <TRADING_TOKEN>, or log in with l2dash login",
                headers={"WWW-Authenticate": 'Bearer realm="l2dash"'},
            )
        return caller

    def check(request: web.Request) -> None:
        host = host_name(request.headers.get("Host", ""))
        if host not in hosts:
            raise Problem(421, f"Host {host or 'missing'!r} is not served here; name it in cockpit.allowed_hosts")
        if not request.path.startswith("/api/"):
            if request.method not in _SAFE:
                raise Problem(405, f"{request.method} is not allowed on {request.path}", headers={"Allow": "GET, HEAD"})
            return
        own = own_origin(request, trusted_proxy)
        if own is False:
            raise Problem(403, "the request comes from another origin; only this page's own origin may call the API")
        login = request.path == "/api/login"
        by_browser = own is True and request.method not in _SAFE
        if not login:
            caller = identify(request)
            request[CALLER] = caller
            if caller.browser and request.method not in _SAFE and own is None:
                raise Problem(403, "a session cookie alone may not act: Origin or Sec-Fetch-Site is missing")
        if replay and request.method not in _SAFE and request.path.startswith(("/api/exec/", "/api/alerts/")):
            raise Problem(409, "this is the replay of a recorded session: nothing is sent", guardrail="REPLAY")
        if by_browser or (login and request.method not in _SAFE):
            if request.content_type != "application/json":
                raise Problem(415, f"Content-Type is {request.content_type}, allowed is application/json")
            if request.headers.get(OWN_HEADER) != "1":
                raise Problem(403, f"the header {OWN_HEADER}: 1 is missing")

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            check(request)
            response = await handler(request)
        except Problem as problem:
            response = problem.response()
        except web.HTTPException as error:
            if error.status < 400:
                raise
            response = Problem(error.status, error.reason, headers=_allow(error)).response()
        if not response.prepared:
            seal(response, request.path)
        return response

    return middleware


def seal(response: web.StreamResponse, path: str) -> None:
    """Lay the security headers on a response; nothing under /api may be cached."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store" if not path.startswith("/static/") else "no-cache")


def _allow(error: web.HTTPException) -> dict[str, str]:
    return {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}


def caller_of(request: web.Request, scope: str) -> Caller:
    """The caller, who must have ``scope``; raises Problem 403."""
    caller = request[CALLER]
    if scope not in caller.scopes:
        raise Problem(403, f"this needs the scope {scope}; yours are {', '.join(sorted(caller.scopes))}")
    return caller


async def json_body(request: web.Request) -> dict[str, Any]:
    """The body as a JSON object, whatever its content type says (browsers were checked at the door); {} when empty.

    Raises Problem 400 if it is not JSON, 422 if it is not an object.
    """
    raw = await request.read()
    if not raw.strip():
        return {}
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise Problem(422, f"the body is a JSON {type(body).__name__}, allowed is an object")
    return body
