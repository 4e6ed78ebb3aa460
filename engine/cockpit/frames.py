"""What the frames of the stream hold: each section encoded once, and sent only when it has changed."""

from __future__ import annotations

from typing import Any

import orjson

from engine.cockpit.services import Services
from engine.cockpit.tail import Tail
from engine.cockpit.view import View
from engine.cockpit.wire import frame

FULL_NS = 5_000_000_000
_OPTION = orjson.OPT_SERIALIZE_NUMPY
SNAPSHOT_ORDERS, SNAPSHOT_FILLS = 300, 300


def encode(data: Any) -> bytes:
    return orjson.dumps(data, option=_OPTION)


class Frames:
    """Builds frames from a view that has just been refreshed."""

    def __init__(self, view: View, services: Services, tail: Tail) -> None:
        self._view, self._services, self._tail = view, services, tail
        self._blotter = tail.blotter
        self._sections: dict[str, bytes] = {}
        self._full_ns = 0

    def state_frame(self, now_ns: int, slow: bool) -> bytes | None:
        view = self._view
        parts: dict[str, Any] = {
            "trading_state": view.trading_state(),
            "guardrails": view.guardrails(),
            "account": view.account(),
            "positions": view.positions(),
            "quotes": view.quotes(),
            "flatten": view.flatten(),
        }
        if slow:
            parts |= {
                "models": view.models(),
                "connectivity": view.connectivity(),
                "recovery": view.recovery(),
                "arm": view.arm(),
                "services": self._services.rows(now_ns),
                "latency": self._services.latency(),
            }
        full = now_ns - self._full_ns >= FULL_NS
        if full:
            self._full_ns = now_ns
        changed = []
        for name, value in parts.items():
            encoded = encode(value)
            if full or self._sections.get(name) != encoded:
                self._sections[name] = encoded
                changed.append(b'"' + name.encode() + b'":' + encoded)
        if not changed:
            return None
        clock = orjson.dumps(view.clock_section())
        return frame("state", b'{"clock":' + clock + b"," + b",".join(changed) + b"}")

    def whole_state(self) -> bytes:
        body = b",".join(b'"' + n.encode() + b'":' + v for n, v in self._sections.items())
        return frame("state", b'{"clock":' + orjson.dumps(self._view.clock_section()) + b"," + body + b"}")

    def book_frame(self, index: int) -> bytes | None:
        data = self._view.book(index) | {"own": self._blotter.own_prices(index)}
        return frame("book", encode(data))

    def snapshot(self, stream: dict[str, int]) -> dict[str, Any]:
        """What `/api/state` answers: everything, with the newest orders, fills, alerts and audit lines."""
        return {
            **self._view.state(),
            "orders": self._blotter.order_list(0, SNAPSHOT_ORDERS),
            "fills": self._blotter.fill_list(0, SNAPSHOT_FILLS),
            "latency": self._services.latency(),
            "services": self._services.rows(self._view.now_ns),
            "alerts": list(self._tail.alerts)[-100:],
            "audit": list(self._tail.audits)[-100:],
            "stream": stream,
        }
