"""One reading of the broker's books: executions, open orders, positions, account. Pure collection with a deadline.

The requests leave together; the gateway answers in order, so every part is at least as new as the request. A part whose
end message is missing at the deadline makes the whole reading void: it is asked for again, and a gateway that does not
answer twice is disconnected.

Only executions name the request that they answer. The ends of the other lists do not: each is the oldest one's that is
still out on that connection (``Ends``), so that the late end of a reading that was given up completes none.
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
LOOK = Part.ORDERS | Part.POSITIONS
"""Nothing is in question. The day's executions are a long list, and ticks wait while it is read: they are asked for
only if these two do not say what our books say."""

WORKING_NS, CALM_NS = 30_000_000_000, 120_000_000_000
"""How often the books are read although nothing is in question: while orders are held to be working, and else."""


def look_due(read_ns: int, working: bool, now_ns: int) -> bool:
    """Was the last reading, of ``read_ns``, long ago?"""
    return now_ns - read_ns >= (WORKING_NS if working else CALM_NS)


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
    foreign: dict[int, str] = field(default_factory=dict)
    """Contract id -> what is held of it, in words: contracts that are none of the instruments."""
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


class Ends:
    """Lists that were asked for on this connection and have not ended yet. An end that never comes makes the readings
    after it late, which ends the connection; a new one starts from nothing."""

    def __init__(self) -> None:
        self._out: dict[Part, int] = {Part.ORDERS: 0, Part.POSITIONS: 0}

    def asked(self, parts: Part) -> None:
        for part in self._out:
            self._out[part] += bool(parts & part)

    def came(self, part: Part) -> bool:
        """A list has ended; True if it is the one that was asked for last."""
        if part not in self._out:
            return True
        self._out[part] -= self._out[part] > 0
        return self._out[part] == 0

    def newest(self, part: Part) -> bool:
        """Do rows that come now belong to the list that was asked for last?"""
        return self._out[part] == 1

    def forget(self) -> None:
        """The connection is another one."""
        for part in self._out:
            self._out[part] = 0
