"""DRIFT: a price far from its own recent fair value. One bad print is not enough."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.config import Guardrails
from engine.domain.codes import BadgeState
from engine.risk.guardrails import kernels as k
from engine.risk.guardrails.facts import Facts
from engine.risk.guardrails.result import BadgeResult, Breach, named, warned


@dataclass(frozen=True, slots=True)
class DriftState:
    """Per symbol: since when beyond the limit (0 not so), and the count of quotes when that began."""

    since_ns: tuple[int, ...] = ()
    quotes: tuple[float, ...] = ()
    state: BadgeState = BadgeState.WARMING


def _merely_locked(flags: int) -> bool:
    """A live book without a price between its sides: what was far from fair value has not come back by that."""
    live = flags & k.SEEN and flags & k.OPEN and not flags & (k.EMPTY | k.STALE | k.HALTED)
    return bool(live or flags & k.CROSSED)


def drift(facts: Facts, g: Guardrails, state: DriftState, now_ns: int) -> tuple[BadgeResult, DriftState]:
    """KILL (or of the symbol alone, by ``drift_scope``) after ``drift_s`` beyond ``drift_pct`` with two quotes."""
    n = len(facts.names)
    since, quotes = list(state.since_ns or (0,) * n), list(state.quotes or (0.0,) * n)
    tripped = known = beyond = opened = 0
    worst, worst_at = 0.0, 0
    for i, row in enumerate(facts.table.tolist()):
        opened |= int(row[k.FLAGS]) & k.OPEN or not int(row[k.FLAGS]) & k.SEEN
        value = row[k.DRIFT_PCT]
        if math.isnan(value):
            if not _merely_locked(int(row[k.FLAGS])):
                since[i] = 0
            continue
        known += 1
        if value > worst:
            worst, worst_at = value, i
        if value <= g.drift_pct:
            since[i] = 0
            continue
        beyond |= 1 << i
        if not since[i]:
            since[i], quotes[i] = now_ns, row[k.QUOTES]
        elif now_ns - since[i] >= g.drift_s * 1e9 and row[k.QUOTES] > quotes[i]:
            tripped |= 1 << i
    name = facts.names[worst_at]
    if tripped:
        text = (
            f"{named(tripped, facts.names)} {worst:.2f} % from fair value for {g.drift_s:g} s, limit {g.drift_pct:g} %"
        )
        breach = Breach.SYMBOL_KILL if g.drift_scope == "symbol" else Breach.KILL
        result = BadgeResult(BadgeState.TRIPPED, worst, g.drift_pct, text, tripped, breach)
    elif not known:
        badge = BadgeState.WARMING if opened else BadgeState.OK
        text = "waiting for fair values" if opened else "session closed"
        result = BadgeResult(badge, 0.0, g.drift_pct, text)
    else:
        badge = BadgeState.WARN if beyond else warned(worst, g.drift_pct, state.state, g.warn_share)
        result = BadgeResult(badge, worst, g.drift_pct, f"largest {name} {worst:.2f} of {g.drift_pct:g} %", beyond or 0)
    return result, DriftState(tuple(since), tuple(quotes), result.state)
