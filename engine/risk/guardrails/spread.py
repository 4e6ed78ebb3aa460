"""SPREAD: a spread too wide to trade across blocks its symbol."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.config import Guardrails
from engine.domain.codes import BadgeState, BlockReason
from engine.risk.guardrails import kernels as k
from engine.risk.guardrails.facts import Facts
from engine.risk.guardrails.result import BadgeResult, Breach, named, warned

HOLD_NS = 500_000_000
"""A symbol stays blocked this long after its spread was last too wide, so that the block does not flicker."""


@dataclass(frozen=True, slots=True)
class SpreadState:
    """``since_ns``/``last_ns``: per symbol, when the breach began and was last seen; 0 none."""

    since_ns: tuple[int, ...] = ()
    last_ns: tuple[int, ...] = ()
    state: BadgeState = BadgeState.WARMING


def spread(facts: Facts, g: Guardrails, state: SpreadState, now_ns: int) -> tuple[BadgeResult, SpreadState]:
    """Breach: wider than max(spread_bps, factor × median), or one-sided or crossed for over ``crossed_s``."""
    n = len(facts.names)
    since, last = list(state.since_ns or (0,) * n), list(state.last_ns or (0,) * n)
    empty_ns = g.crossed_s * 1e9
    blocked = stale = seen = held_long = 0
    worst, worst_limit, worst_symbol, words = -1.0, g.spread_bps, -1, ""
    for i, row in enumerate(facts.table.tolist()):
        flags = int(row[k.FLAGS])
        if not flags & k.OPEN or not flags & k.SEEN or flags & k.HALTED:
            since[i] = last[i] = 0
            continue
        seen += 1
        # A book that is being rebuilt is empty for a moment: no data rather than a wide market. Entries are held
        # back at once either way (STALE_DATA, see blocks).
        rebuilt = flags & k.EMPTY and not empty_ns <= row[k.MARK_AGE_NS] < math.inf
        if flags & k.STALE or rebuilt or not facts.link.up or not facts.link.reconciled:
            stale |= 1 << i
            since[i] = last[i] = 0
            continue
        value, limit = row[k.SPREAD_BPS], row[k.SPREAD_LIMIT_BPS]
        wide = value > limit
        if wide or flags & (k.EMPTY | k.CROSSED):
            since[i] = since[i] or now_ns
            last[i] = now_ns
            if not words:
                words = (
                    f"{facts.names[i]} has an empty side" if flags & k.EMPTY
                    else f"{facts.names[i]} crossed over {g.crossed_s:g} s" if flags & k.CROSSED
                    else f"{facts.names[i]} {value:.1f} bps above {limit:.1f}"
                )  # fmt: skip
        elif since[i] and now_ns - last[i] >= HOLD_NS:
            since[i] = last[i] = 0
        if since[i]:
            blocked |= 1 << i
            if row[k.QTY] and now_ns - since[i] >= g.spread_warn_s * 1e9:
                held_long |= 1 << i
        if value / limit > worst:  # NaN (one side empty) compares false
            worst, worst_limit, worst_symbol = value / limit, limit, i
    value = worst * worst_limit if worst >= 0 else 0.0
    if blocked:
        text = f"blocked: {words or named(blocked, facts.names)}"
        if held_long:
            text = f"position open {g.spread_warn_s:g} s in {named(held_long, facts.names)}; {text}"
        badge, breach = BadgeState.TRIPPED, Breach.BLOCK
    elif stale:
        text, badge, breach = f"no data from {named(stale, facts.names)}", BadgeState.STALE, Breach.NONE
    elif not seen:
        opened = any(int(f) & k.OPEN or not int(f) & k.SEEN for f in facts.table[:, k.FLAGS])
        text = "waiting for the first books" if opened else "session closed"
        badge, breach = (BadgeState.WARMING if opened else BadgeState.OK), Breach.NONE
    else:
        badge, breach = warned(value, worst_limit, state.state, g.warn_share), Breach.NONE
        text = (
            f"widest {facts.names[worst_symbol]} {value:.1f} of {worst_limit:.1f} bps"
            if worst_symbol >= 0
            else "no quote"
        )
    result = BadgeResult(
        badge, value, worst_limit, text, symbols=blocked or stale, breach=breach, block_symbols=blocked,
        block_reasons=1 << BlockReason.SPREAD if blocked else 0,
    )  # fmt: skip
    return result, SpreadState(tuple(since), tuple(last), badge)


def held_too_long(state: SpreadState, facts: Facts, g: Guardrails, now_ns: int) -> int:
    """Mask of symbols with a position whose spread has been too wide for ``spread_warn_s``: an alert is due."""
    mask = 0
    for i, begun in enumerate(state.since_ns):
        if begun and facts.table[i, k.QTY] and now_ns - begun >= g.spread_warn_s * 1e9:
            mask |= 1 << i
    return mask
