"""Our books against the broker's: pure comparisons after a connect, after a snapshot, and while running."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TOLERANCE = 1e-6
"""Shares by which two positions may differ and still agree."""


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


def confirmed(ours: float, theirs: float) -> float:
    """The part of a position that both books have: what may be closed while they differ."""
    if ours > 0 and theirs > 0:
        return min(ours, theirs)
    if ours < 0 and theirs < 0:
        return max(ours, theirs)
    return 0.0
