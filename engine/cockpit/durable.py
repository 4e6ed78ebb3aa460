"""Durable stream events: numbered, kept in a window, replayed to a client that comes back with ``Last-Event-ID``.

An id is ``<epoch>-<number>``; the epoch is this cockpit's start, so that an id of a predecessor is never mistaken for
one of ours: such a client is told to resynchronise from a snapshot.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import orjson

from engine.cockpit.wire import frame

WINDOW = 4096


class DurableLog:
    """The last ``window`` durable events, encoded once."""

    def __init__(self, epoch: int, window: int = WINDOW) -> None:
        self.epoch = epoch
        self._kept: deque[bytes] = deque(maxlen=window)
        self.next = 1
        """Number of the next event."""

    def add(self, event: str, data: Any) -> int:
        number = self.next
        self._kept.append(frame(event, orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY), f"{self.epoch}-{number}"))
        self.next += 1
        return number

    @property
    def first(self) -> int:
        """Number of the oldest event that is still kept."""
        return self.next - len(self._kept)

    def since(self, number: int) -> list[bytes] | None:
        """Frames from event ``number`` on; None if some of them are gone."""
        if number < self.first or number > self.next:
            return None
        skip = number - self.first
        return list(self._kept)[skip:] if number < self.next else []

    def resume_at(self, last_event_id: str | None) -> int | None:
        """Number of the first event that this client has not seen; None if it must resynchronise."""
        if not last_event_id:
            return None
        epoch, dash, text = last_event_id.partition("-")
        if not dash or not text.isdigit() or epoch != str(self.epoch):
            return None
        number = int(text) + 1
        return number if self.first <= number <= self.next else None
