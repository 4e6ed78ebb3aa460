"""Our books against the broker's: pure comparisons after a connect, after a snapshot, and while running."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TOLERANCE = 1e-6
"""Shares by which two positions may differ and still agree."""
STEADY_NS = 1_000_000_000
"""Differing by the same number of shares for this long is no delay of one of two messages: somebody else has traded."""
DRIFT_NS = 5_000_000_000
"""Differing at all for this long is read anew, however much the difference moves."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    symbol: int
    ours: float
    theirs: float


@dataclass(frozen=True, slots=True)
class Opening:
    """The position a day began with, and whether it contradicts what was recorded."""

    qty: float
    mismatch: Mismatch | None


def mismatches(ours: Sequence[float], theirs: Mapping[int, float]) -> tuple[Mismatch, ...]:
    """Symbols whose positions differ. ``theirs`` lacks symbols in which the broker holds nothing."""
    return tuple(
        Mismatch(symbol, qty, theirs.get(symbol, 0.0))
        for symbol, qty in enumerate(ours)
        if abs(qty - theirs.get(symbol, 0.0)) > TOLERANCE
    )


def opening(
    symbol: int, broker_qty: float, day_fills: float, recorded_open: float | None, recorded_close: float | None
) -> Opening:
    """Position at the start of the day for a symbol.

    ``recorded_open``: kept from earlier today; then that is the opening; a difference is for ``mismatches`` to find.
    ``recorded_close``: kept from an earlier day; then what the broker implies must equal it.
    Neither: nothing is known, and the broker's word is taken.
    """
    implied = broker_qty - day_fills
    if recorded_open is not None:
        return Opening(recorded_open, None)
    if recorded_close is not None and abs(recorded_close - implied) > TOLERANCE:
        return Opening(implied, Mismatch(symbol, recorded_close, implied))
    return Opening(implied, None)


class Differences:
    """Since when the broker's pushed positions differ from ours, and since when by the same number of shares.

    A push that follows its execution late makes a difference that moves with every fill and ends by itself. One that
    stays as it is comes from an order that is not ours: it is worth a reading of the books at once.
    """

    def __init__(self, symbols: int) -> None:
        self._shares = [0.0] * symbols
        self._steady_ns = [0] * symbols
        self._since_ns = [0] * symbols

    def note(self, symbol: int, ours: float, theirs: float, now_ns: int) -> int:
        """What both say now; returns since when they differ, 0 if they agree."""
        shares = theirs - ours
        if abs(shares) <= TOLERANCE:
            self._steady_ns[symbol] = self._since_ns[symbol] = 0
        else:
            if not self._since_ns[symbol] or abs(shares - self._shares[symbol]) > TOLERANCE:
                self._steady_ns[symbol] = now_ns
            self._since_ns[symbol] = self._since_ns[symbol] or now_ns
        self._shares[symbol] = shares
        return self._since_ns[symbol]

    def due(self, now_ns: int) -> bool:
        """Is some difference worth a reading?"""
        steady = any(0 < t <= now_ns - STEADY_NS for t in self._steady_ns)
        return steady or any(0 < t <= now_ns - DRIFT_NS for t in self._since_ns)


def confirmed(ours: float, theirs: float) -> float:
    """The part of a position that both books have: what may be closed while they differ."""
    if ours > 0 and theirs > 0:
        return min(ours, theirs)
    if ours < 0 and theirs < 0:
        return max(ours, theirs)
    return 0.0
