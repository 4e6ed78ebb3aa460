"""The queue between a market's kernels and whoever polls it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engine.paper.market.layout import C_LOST, C_TAIL
from engine.paper.port import MARKET_EVENT

MAX_WAITING_EVENTS = 1 << 20
"""A market stops running ahead of its reader at so many unread events (40 MiB)."""

COMMAND_ROOM = 4096
"""Room kept for one client command: more than a walk over the most levels, or a repricing, can write."""


class EventQueue:
    """Events between ``head`` and the tail that the kernels move (control word C_TAIL).

    ``events`` is the array the kernels append to; it is replaced when the queue grows, so take it anew for each call.
    """

    __slots__ = ("_head", "control", "events")

    def __init__(self, control: npt.NDArray[np.int64], capacity: int = 1 << 14) -> None:
        self.control = control
        self.events: npt.NDArray[np.void] = np.zeros(capacity, MARKET_EVENT)
        self._head = 0

    @property
    def waiting(self) -> int:
        return int(self.control[C_TAIL]) - self._head

    def poll(self, out: npt.NDArray[np.void]) -> int:
        """Move up to ``len(out)`` events to ``out``; returns how many."""
        tail = int(self.control[C_TAIL])
        count = min(tail - self._head, len(out))
        if count == 0:
            return 0
        out[:count] = self.events[self._head : self._head + count]
        self._head += count
        if self._head == tail:
            self._head = 0
            self.control[C_TAIL] = 0
        return count

    def make_room(self, events: int, most: int | None = None) -> bool:
        """Make room for ``events`` more; False if more than ``most`` would then be held."""
        tail = int(self.control[C_TAIL])
        if len(self.events) - tail >= events:
            return True
        waiting = tail - self._head
        if waiting + events > len(self.events):
            if most is not None and waiting + events > most:
                return False
            longer = np.zeros(max(2 * len(self.events), waiting + events), MARKET_EVENT)
            longer[:waiting] = self.events[self._head : tail]
            self.events = longer
        else:
            self.events[:waiting] = self.events[self._head : tail].copy()
        self._head = 0
        self.control[C_TAIL] = waiting
        return True

    def write(self, **fields: float) -> None:
        """Append one event with the given MARKET_EVENT fields, the others zero."""
        self.make_room(1)
        tail = int(self.control[C_TAIL])
        row = self.events[tail : tail + 1]
        row[:] = np.zeros(1, MARKET_EVENT)
        for name, value in fields.items():
            row[name] = value
        self.control[C_TAIL] = tail + 1

    def check(self) -> None:
        """Raise RuntimeError if a kernel ever found no room: the callers' reserves would then be wrong."""
        if self.control[C_LOST]:
            raise RuntimeError(
                f"market queue lost {self.control[C_LOST]} events: the reserve of a command is too small"
            )
