"""Is a symbol's feed alive? Pure: what silence is usual for it, when it is in doubt, how often to ask anew.

A farm can flap for three seconds and leave a feed dead for hours, and nobody says so. So the age of a symbol's data is
held against what is usual for that symbol: with a share ``usual`` of seconds in which it ticks, n seconds of silence
come by chance with probability (1 - usual)^n; what should happen once in a million seconds is taken for a dead feed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SECOND_NS = 1_000_000_000
SHORTEST_NS, LONGEST_NS = 5 * SECOND_NS, 60 * SECOND_NS
SUSPECT_NS = 4 * SECOND_NS
"""Patience after the broker said that data flow again: feeds may have died silently."""
SETTLE_NS = 250_000_000
"""Rows that come this soon after a request are its answer, a picture of now. Later ones prove that it lives."""
RENEW_NS, RENEW_MAX_NS = 15 * SECOND_NS, 120 * SECOND_NS
"""Tick-by-tick data may be asked for once in 15 s per instrument; without effect it is asked for ever more rarely."""
_CHANCE = math.log(1e-6)
_MEMORY = 60.0
"""Looks, one a second, over which the usual share is averaged."""


@dataclass(slots=True)
class Pulse:
    """One symbol. Times CLOCK_MONOTONIC ns, 0 never."""

    usual: float = 0.0
    doubt_ns: int = 0
    """Since when its data may be dead; 0 they are alive."""
    renewed_ns: int = 0
    renewals: int = 0
    """In a row, without effect."""

    def looked(self, ticked: bool) -> None:
        """A second has passed in which it ticked or not."""
        self.usual += (float(ticked) - self.usual) / _MEMORY

    @property
    def limit_ns(self) -> int:
        """Silence that is not usual any more."""
        if self.usual <= 1e-3:
            return LONGEST_NS
        seconds = _CHANCE / math.log1p(-min(self.usual, 0.999))
        return min(LONGEST_NS, max(SHORTEST_NS, int(seconds * 1e9)))

    def doubt(self, now_ns: int) -> None:
        self.doubt_ns = self.doubt_ns or now_ns

    def heard(self, t_ns: int) -> None:
        """A tick came: proof of life unless it is the answer to a request."""
        if t_ns > max(self.doubt_ns, self.renewed_ns) + SETTLE_NS:
            self.doubt_ns = 0
            self.renewals = 0

    def may_renew(self, now_ns: int) -> bool:
        """Is it time to ask anew?"""
        pause_ns = min(RENEW_MAX_NS, RENEW_NS << min(max(0, self.renewals - 1), 4)) if self.renewals else 0
        return not self.renewed_ns or now_ns - self.renewed_ns >= pause_ns

    def renew(self, now_ns: int) -> None:
        self.doubt(now_ns)
        self.renewed_ns = now_ns
        self.renewals += 1
