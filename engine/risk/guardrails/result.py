"""What a rule says, and how it is put into words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from engine.domain.codes import Badge, BadgeState


class Breach(IntEnum):
    """What must follow. The larger one wins."""

    NONE = 0
    BLOCK = 1
    PAUSE = 2
    SYMBOL_KILL = 3
    KILL = 4


@dataclass(frozen=True, slots=True)
class BadgeResult:
    """``symbols``: mask of those concerned. ``block_symbols``/``block_reasons`` apply while the result stands.

    ``value`` and ``limit`` carry the badge's own unit; NaN only while WARMING or STALE.
    """

    state: BadgeState
    value: float
    limit: float
    reason: str
    symbols: int = 0
    breach: Breach = Breach.NONE
    block_symbols: int = 0
    block_reasons: int = 0
    cause_ns: int = 0
    """Time of the tick that made the rule true, if one did."""
    locks_day: bool = False
    """No release before the next session without a named override: a loss, or the index."""


UNITS = ("bps", "USD", "per s", "ms", "USD", "", "symbols", "%")
"""Units of value and limit in the order of ``Badge``; DD has another one while it speaks of the index."""
INDEX_MOVED = "index moved"
"""In DD's words while its value is the index's move."""


def unit_of(badge: int, reason: str) -> str:
    """The unit of a badge's value and limit under these words of its own."""
    return "%" if badge == Badge.DD and INDEX_MOVED in reason else UNITS[badge]


def warned(value: float, limit: float, before: BadgeState, share: float) -> BadgeState:
    """OK or WARN for a value below its limit. WARN begins at ``share`` and ends 5 points lower."""
    edge = share - 0.05 if before == BadgeState.WARN else share
    return BadgeState.WARN if value >= edge * limit else BadgeState.OK


def named(mask: int, names: Sequence[str], most: int = 3) -> str:
    """Symbols of a mask in words: ``AAPL, MSFT, AMZN and 2 more``."""
    found = [name for i, name in enumerate(names) if mask >> i & 1]
    if len(found) <= most:
        return ", ".join(found)
    return f"{', '.join(found[:most])} and {len(found) - most} more"
