"""How soon to look again: pure. The clock jumps to the next look, or to what is heard before that.

Right after something has happened nothing may be overlooked; the longer nothing happens, the less there is to see. A
``CLOSE`` pace looks at a fixed interval for each situation. A ``WIDE`` one lets the interval grow with the time since
something happened, and does not wake for prices alone: hours pass in seconds, and a deadline of the product is noticed
late by at most a third of the time that it has waited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

HOT_NS = 25_000_000
"""The watchdog's own slow cycle: there is nothing to see more often."""


class Situation(IntEnum):
    """What there is to watch over, the most urgent first."""

    HUNG = 0
    """A process hangs: a guard that looks less often than every 250 ms takes itself for starved and proves nothing."""
    TROUBLE = 1
    """Something is in the way, a service is not READY, the broker is lost, or the account is being made flat."""
    LINK_DOWN = 2
    KILLED = 3
    WORKING = 4
    """Orders work."""
    HELD = 5
    """Nothing works, positions are held."""
    IDLE = 6


@dataclass(frozen=True, slots=True)
class Pace:
    """``most_ns`` by situation; ``growth`` 0: the longest interval as soon as it is no longer hot."""

    most_ns: Mapping[Situation, int]
    growth: float = 0.0
    prices_wake: bool = True

    def interval_ns(self, now_ns: int, situation: Situation, hot_until_ns: int, happened_ns: int) -> int:
        """Until the next look. ``hot_until_ns`` matters to a pace without growth, ``happened_ns`` to one with it."""
        most_ns = self.most_ns[situation]
        if self.growth:
            return max(HOT_NS, min(most_ns, int(self.growth * (now_ns - happened_ns))))
        return HOT_NS if now_ns < hot_until_ns else most_ns


_MS, _S = 1_000_000, 1_000_000_000
CLOSE = Pace(
    {
        Situation.HUNG: 160 * _MS, Situation.TROUBLE: 160 * _MS, Situation.LINK_DOWN: 160 * _MS,
        Situation.KILLED: 480 * _MS, Situation.WORKING: 480 * _MS, Situation.HELD: 480 * _MS, Situation.IDLE: 4 * _S,
    }
)  # fmt: skip
WIDE = Pace(
    {
        Situation.HUNG: 160 * _MS, Situation.TROUBLE: 1 * _S, Situation.LINK_DOWN: 1 * _S,
        Situation.KILLED: 2 * _S, Situation.WORKING: 20 * _S, Situation.HELD: 20 * _S, Situation.IDLE: 30 * _S,
    },
    growth=0.34, prices_wake=False,
)  # fmt: skip
PACES = {"close": CLOSE, "wide": WIDE}
