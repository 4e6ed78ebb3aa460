"""Identifiers that are unique for ever without a shared counter."""

from __future__ import annotations

from engine.domain.codes import Source


class IdSource:
    """63-bit ids: source (7 bits), second of the writer's start (32 bits), counter (24 bits).

    Unique over restarts as long as a writer starts at most once a second, which the supervisor's back-off guarantees;
    after 2^24 ids the second advances.
    """

    def __init__(self, start_wall_ns: int) -> None:
        self._base = start_wall_ns // 1_000_000_000
        self._count = 0

    def next(self, source: Source) -> int:
        self._count += 1
        return self._id(source, self._count)

    def peek(self, source: Source) -> int:
        """What ``next`` will return."""
        return self._id(source, self._count + 1)

    def _id(self, source: Source, count: int) -> int:
        second = (self._base + (count >> 24)) & 0xFFFFFFFF
        return int(source) << 56 | second << 24 | count & 0xFFFFFF


def order_ref(intent_id: int) -> str:
    """Our durable key at the broker."""
    return f"L2:{intent_id:x}"


def intent_of(order_ref_text: str) -> int:
    """Intent id of an orderRef, 0 if it is not ours."""
    if not order_ref_text.startswith("L2:"):
        return 0
    try:
        return int(order_ref_text[3:], 16)
    except ValueError:
        return 0
