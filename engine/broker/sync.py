"""One reading of the broker's books: executions, open orders, positions, account. Pure collection with a deadline.

The requests leave together; the gateway answers in order, so every part is at least as new as the request. A part whose
end message is missing at the deadline makes the whole reading void: it is asked for again, and a gateway that does not
answer twice is disconnected.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntFlag

from engine.broker.news import OpenOrderNews


class Part(IntFlag):
    EXECUTIONS = 1
    ORDERS = 2
    POSITIONS = 4
    ACCOUNT = 8


NOTHING = Part(0)
FULL = Part.EXECUTIONS | Part.ORDERS | Part.POSITIONS | Part.ACCOUNT
SNAPSHOT = Part.EXECUTIONS | Part.ORDERS | Part.POSITIONS
"""Executions too: a position is only as good as the fills that explain it."""


@dataclass(slots=True)
class Reading:
    """``waiting``: parts whose end has not come. ``positions``: symbol -> quantity, only what is held in scope."""

    parts: Part
    begin_ns: int
    deadline_ns: int
    executions_id: int = 0
    waiting: Part = NOTHING
    open_orders: list[OpenOrderNews] = field(default_factory=list)
    positions: dict[int, float] = field(default_factory=dict)
    costs: dict[int, float] = field(default_factory=dict)
    foreign_positions: int = 0
    executions: int = 0
    commands: list[tuple[int, int]] = field(default_factory=list)
    """(command id, source) of those who asked for it."""

    def end(self, part: Part) -> bool:
        """A part has ended; True when that completes the reading."""
        if not self.waiting & part:
            return False
        self.waiting &= ~part
        return not self.waiting

    def late(self, now_ns: int) -> bool:
        return bool(self.waiting) and now_ns > self.deadline_ns

    @property
    def missing(self) -> str:
        """Names of the parts that have not come."""
        return ", ".join(p.name.lower() for p in Part if self.waiting & p and p.name)


def begin(parts: Part, now_ns: int, timeout_ns: int) -> Reading:
    return Reading(parts, now_ns, now_ns + timeout_ns, waiting=parts)
