"""The OpenAPI 3.1 description of /api, built from the same limits that the server applies."""

from __future__ import annotations

from typing import Any

from engine.config import Config

_PROBLEM = {"$ref": "#/components/schemas/Problem"}
_TEXT = {"type": "string"}
_ID = {"type": "string", "pattern": "^[0-9]+$", "description": "a 63-bit id as text"}


def _answer(words: str, properties: dict[str, Any] | None = None) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    if properties:
        schema["properties"] = properties
    return {"description": words, "content": {"application/json": {"schema": schema}}}


def _refusals(*codes: int) -> dict[str, Any]:
    words = {
        400: "The body is not JSON",
        401: "No valid bearer token or session; names the header",
        403: "Another origin, or a scope is missing",
        404: "Not known",
        409: "Refused by a guardrail or the state, which is named",
        421: "Host is not served here",
        422: "Invalid, with the field named",
        429: "Too many calls",
        503: "A ring is full",
    }
    return {
        str(c): {"description": words[c], "content": {"application/problem+json": {"schema": _PROBLEM}}} for c in codes
    }


def _get(words: str, answer: dict[str, Any], *parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "get": {
            "summary": words,
            "parameters": list(parameters),
            "responses": {"200": answer, **_refusals(401, 403, 421)},
        }
    }


def _post(
    words: str, answer: dict[str, Any], body: dict[str, Any] | None, *codes: int, ok: str = "202", **more: Any
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": words,
        "responses": {ok: answer, **_refusals(401, 403, 421, *codes)},
        **more,
    }
    if body is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": body}}}
    return {"post": operation}


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    out: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        out["required"] = list(required)
    return out


def _query(name: str, words: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": words, "schema": schema}


_SINCE = _query("since", "only what changed after this number", {"type": "integer", "minimum": 0})
_LIMIT = _query("limit", "at most so many", {"type": "integer", "minimum": 0, "maximum": 5000, "default": 200})
_REASON = _object(reason=_TEXT)


def document(config: Config) -> dict[str, Any]:
    """The document of ``/api/openapi.json``."""
    limits = config.limits
    order = _object(
        ("symbol", "qty", "side", "type"),
        symbol=_TEXT,
        qty={"type": "integer", "minimum": 1, "maximum": int(limits.order_qty)},
        side={"enum": ["BUY", "SELL"]},
        type={"enum": ["LMT", "MKT"]},
        limit={"type": "number", "exclusiveMinimum": 0, "description": "needed for LMT, on the price increment"},
        tif={"enum": ["DAY", "IOC", "GTC"], "default": "DAY"},
        mode={"enum": ["SIM", "PAPER", "LIVE"], "description": "browsers: the mode that the page shows"},
        tab={"type": "string", "description": "browsers: the tab's id"},
        arm={"type": "string", "description": "browsers: the arm lease, for what adds risk"},
    )
    key = {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 32}}
    tab = _object(("tab",), tab=_TEXT)
    paths: dict[str, Any] = {
        "/api/state": _get(
            "Everything, once", _answer("mode, trading_state, guardrails[], positions[], orders[], fills[] and more")
        ),
        "/api/stream": _get(
            "Events: snapshot, book, state, order, fill, guardrail, alert, audit, heartbeat, resync, disarm",
            {"description": "the stream", "content": {"text/event-stream": {"schema": _TEXT}}},
            _query("symbol", "whose book is sent", _TEXT),
            _query("tab", "id of the tab", _TEXT),
            {"name": "Last-Event-ID", "in": "header", "schema": _TEXT},
        ),
        "/api/orders": _get("Orders, the latest change first", _answer("orders and the change number"), _SINCE, _LIMIT),
        "/api/fills": _get("Fills, the latest first", _answer("fills and the change number"), _SINCE, _LIMIT),
        "/api/positions": _get("Positions with exposure by symbol", _answer("positions, gross, net"), _LIMIT),
        "/api/book/{symbol}": _get(
            "Depth of one symbol",
            _answer("bids and asks as [price, size], best first"),
            {"name": "symbol", "in": "path", "required": True, "schema": _TEXT},
        ),
        "/api/audit": _get("Operator actions, newest first", _answer("audit"), _SINCE, _LIMIT),
        "/api/incident/{id}": _get(
            "Report of an incident: what tripped, every closing order, times, what is left. `latest` is the newest",
            _answer("the report; with ?text as plain text"),
            {"name": "id", "in": "path", "required": True, "schema": _TEXT},
        ),
        "/api/alerts": _get("Alerts, newest first", _answer("alerts"), _SINCE, _LIMIT),
        "/api/history": _get("Equity curve and regimes of the last hours", _answer("columns")),
        "/api/models": _get("Model versions with their scores, newest first", _answer("models")),
        "/api/session": _get("Who am I", _answer("name and scopes")),
        "/api/login": _post(
            "Trade a one-time key for a session cookie",
            _answer("logged in"),
            _object(("k",), k=_TEXT),
            422,
            429,
            ok="200",
            security=[],
        ),
        "/api/logout": _post("End this session", _answer("logged out"), None, ok="200"),
        "/api/exec/flatten-all": _post(
            "Pause and get flat; idempotent while one runs; never rate-limited",
            _answer("taken", {"flatten_id": _ID, "state": _TEXT}),
            _REASON,
            503,
        ),
        "/api/exec/order": _post(
            "A manual order; waits up to 250 ms for the gate",
            _answer("taken", {"order_id": _ID, "state": _TEXT}),
            order,
            400,
            409,
            422,
            429,
            503,
            parameters=[key],
        ),
        "/api/exec/cancel": _post(
            "Cancel one order, or all",
            _answer("asked for"),
            _object(order_id=_ID, all={"type": "boolean"}),
            404,
            409,
            422,
            503,
        ),
        "/api/exec/pause": _post("Stop entries now", _answer("paused"), _REASON, 503),
        "/api/exec/resume": _post("Release a pause", _answer("asked for"), _REASON, 409, 429, 503),
        "/api/exec/reset": _post(
            "Release KILL",
            _answer("asked for"),
            _object(reason=_TEXT, override_day_lock={"type": "boolean"}, excuse_remaining={"type": "boolean"}),
            409,
            422,
            429,
            503,
        ),
        "/api/exec/reconnect": _post("Reconnect the broker", _answer("asked for"), _REASON, 429, 503),
        "/api/exec/kill": _post("Latch KILL and flatten", _answer("killed"), _REASON, 503),
        "/api/exec/accept-positions": _post("Accept the broker's positions", _answer("asked for"), _REASON, 429, 503),
        "/api/exec/arm": _post(
            "Arm this tab for orders that add risk",
            _answer("the lease"),
            _object(("tab", "mode"), tab=_TEXT, mode=_TEXT),
            409,
            422,
            ok="200",
        ),
        "/api/exec/disarm": _post("Give the lease back", _answer("disarmed"), tab, 422, ok="200"),
        "/api/stream/ack": _post(
            "Answer a heartbeat",
            _answer("round trip"),
            _object(("tab", "nonce"), tab=_TEXT, nonce=_TEXT),
            422,
            ok="200",
        ),
        "/api/stream/focus": _post(
            "Send the book of another symbol",
            _answer("done"),
            _object(("tab", "symbol"), tab=_TEXT, symbol=_TEXT),
            422,
            ok="200",
        ),
        "/api/stream/leave": _post("The page leaves in order", _answer("done"), tab, 422, ok="200"),
        "/api/alerts/acknowledge": _post("Acknowledge alerts", _answer("asked for"), _REASON, 429, 503),
    }
    problem = _object(
        ("title", "status", "detail"),
        type=_TEXT,
        title=_TEXT,
        status={"type": "integer"},
        detail=_TEXT,
        field=_TEXT,
        guardrail=_TEXT,
        reasons={"type": "array", "items": _TEXT},
        errors={"type": "array", "items": _object(("field", "reason"), field=_TEXT, reason=_TEXT)},
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "L2 DASH",
            "version": "1",
            "description": "Cockpit interface. Browsers send X-L2Dash: 1 with every POST.",
        },
        "security": [{"bearer": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": {"Problem": problem},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "l2dash_session"},
            },
        },
    }
