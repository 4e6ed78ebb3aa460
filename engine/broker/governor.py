"""Pacing of messages to the gateway: pure, with time as an argument.

The gateway allows 50 messages in any second over both of our connections and answers more with error 100 and, in the
end, a disconnect. Invariants
1. At most ``per_s`` messages in any closed window of one second (plus a margin, because the gateway counts arrivals).
2. Of these, ``reserved`` can only be used by URGENT messages (cancels and closing orders): whatever the others did,
   that many are free whenever they are needed.
3. Waiting messages leave in order of class, then of age; within URGENT by rank (largest exposure first).
"""

from __future__ import annotations

import heapq
from collections import deque
from enum import IntEnum
from typing import Generic, TypeVar

T = TypeVar("T")

WINDOW_NS = 1_050_000_000
"""One second and the jitter that may lie between our write and the gateway's read."""
_SUBSCRIPTION_MARGIN = 5
"""Messages that bulk subscriptions leave to orders and probes."""


class Priority(IntEnum):
    URGENT = 0
    ORDER = 1
    PROBE = 2
    SUBSCRIPTION = 3


class Governor(Generic[T]):
    """Queue and budget for one connection. ``T`` is whatever the caller sends."""

    def __init__(self, per_s: int, reserved: int) -> None:
        if not 0 < reserved < per_s:
            raise ValueError(f"reserved = {reserved}: allowed is 1 to {per_s - 1}, less than per_s = {per_s}")
        self.per_s = per_s
        self.reserved = reserved
        share = per_s - reserved
        self._cap = (per_s, share, share, max(1, share - _SUBSCRIPTION_MARGIN))
        self._sent: deque[tuple[int, int]] = deque()
        self._others = 0
        self._heap: list[tuple[int, float, int, T]] = []
        self._order = 0

    def _forget(self, now_ns: int) -> None:
        sent = self._sent
        while sent and now_ns - sent[0][0] > WINDOW_NS:
            if sent.popleft()[1] != Priority.URGENT:
                self._others -= 1

    def room(self, priority: Priority, now_ns: int) -> int:
        """Messages of this class that may leave now."""
        self._forget(now_ns)
        total = self.per_s - len(self._sent)
        if priority == Priority.URGENT:
            return max(0, total)
        return max(0, min(total, self._cap[priority] - self._others))

    def spend(self, priority: Priority, now_ns: int) -> bool:
        """Account for one message that leaves now. False: it may not."""
        if self.room(priority, now_ns) < 1:
            return False
        self.charge(priority, now_ns)
        return True

    def charge(self, priority: Priority, now_ns: int) -> None:
        """Account for one message that has left by itself, whatever the budget says."""
        self._sent.append((now_ns, priority))
        if priority != Priority.URGENT:
            self._others += 1

    def submit(self, priority: Priority, message: T, rank: float = 0.0) -> None:
        """Queue a message until ``release`` lets it go. Lower ``rank`` leaves first within its class."""
        self._order += 1
        heapq.heappush(self._heap, (int(priority), rank, self._order, message))

    def release(self, now_ns: int) -> list[T]:
        """Messages that leave now, already accounted for. A class without budget does not hold up a higher one."""
        out: list[T] = []
        while self._heap and self.spend(Priority(self._heap[0][0]), now_ns):
            out.append(heapq.heappop(self._heap)[3])
        return out

    def drop(self, priority: Priority) -> int:
        """Forget the waiting messages of a class (the link they were meant for is gone); returns how many."""
        kept = [item for item in self._heap if item[0] != priority]
        dropped = len(self._heap) - len(kept)
        self._heap = kept
        heapq.heapify(self._heap)
        return dropped

    @property
    def waiting(self) -> int:
        return len(self._heap)

    @property
    def waiting_urgent(self) -> int:
        return sum(1 for item in self._heap if item[0] == Priority.URGENT)
