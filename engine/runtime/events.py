"""The events ring of one service: order states, refusals, transitions, audit, alerts."""

from __future__ import annotations

import math
from typing import Any

from engine.domain.codes import EventKind
from engine.domain.instruments import ALL_SYMBOLS
from engine.runtime.clock import Clock
from shm.ring import RingWriter

_NAN = math.nan


class EventWriter:
    """Fills EVENT records (see ``shm.layouts``) and publishes them one at a time.

    Between ``hold`` and ``release`` they wait, in order: for whoever has something more urgent to do first.
    """

    def __init__(self, ring: RingWriter, clock: Clock) -> None:
        self._ring = ring
        self._clock = clock
        self._held: list[tuple[Any, ...]] | None = None

    def hold(self) -> None:
        self._held = []

    def release(self) -> None:
        held, self._held = self._held, None
        for fields in held or ():
            self._publish(fields)

    def emit(
        self,
        kind: EventKind,
        code: int = 0,
        *,
        symbol: int = ALL_SYMBOLS,
        severity: int = 0,
        source: int = 0,
        ref_id: int = 0,
        ref2: int = 0,
        value: float = _NAN,
        limit: float = _NAN,
        qty: float = _NAN,
        price: float = _NAN,
        text: str = "",
        now_ns: int = 0,
    ) -> None:
        """Publish one event. ``text`` is cut to 176 bytes of UTF-8."""
        now_ns = now_ns or self._clock.now_ns()
        fields = (
            0, now_ns, self._clock.wall_ns(now_ns), kind, code, symbol, severity, source,
            ref_id, ref2, value, limit, qty, price, text,
        )  # fmt: skip
        if self._held is None:
            self._publish(fields)
        else:
            self._held.append(fields)

    def _publish(self, fields: tuple[Any, ...]) -> None:
        self._ring.record[0] = (*fields[:-1], _cut(fields[-1]))
        self._ring.publish_record()


def _cut(text: str) -> bytes:
    raw = text.encode()
    return raw if len(raw) <= 176 else raw[:176].decode(errors="ignore").encode()
