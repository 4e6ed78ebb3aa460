"""The events ring of one service: order states, refusals, transitions, audit, alerts."""

from __future__ import annotations

import math

from engine.domain.codes import EventKind
from engine.domain.instruments import ALL_SYMBOLS
from engine.runtime.clock import Clock
from shm.ring import RingWriter

_NAN = math.nan


class EventWriter:
    """Fills EVENT records (see ``shm.layouts``) and publishes them one at a time."""

    def __init__(self, ring: RingWriter, clock: Clock) -> None:
        self._ring = ring
        self._clock = clock

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
    ) -> int:
        """Publish one event; returns its sequence. ``text`` is cut to 176 bytes of UTF-8."""
        now_ns = now_ns or self._clock.now_ns()
        record = self._ring.record
        record[0] = (
            0, now_ns, self._clock.wall_ns(now_ns), kind, code, symbol, severity, source,
            ref_id, ref2, value, limit, qty, price, _cut(text),
        )  # fmt: skip
        return self._ring.publish_record()


def _cut(text: str) -> bytes:
    raw = text.encode()
    return raw if len(raw) <= 176 else raw[:176].decode(errors="ignore").encode()
