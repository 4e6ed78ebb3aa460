"""CONF: the model does not know the market, in many symbols at once."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import Guardrails
from engine.domain.codes import BadgeState, BlockReason
from engine.risk.guardrails import kernels as k
from engine.risk.guardrails.facts import Facts
from engine.risk.guardrails.result import BadgeResult, Breach, named


@dataclass(frozen=True, slots=True)
class ConfState:
    since_ns: int = 0
    """Since when enough symbols have been low without a break; 0 not so."""
    state: BadgeState = BadgeState.WARMING


def conf(facts: Facts, g: Guardrails, state: ConfState, now_ns: int) -> tuple[BadgeResult, ConfState]:
    """BLOCK after ``confidence_block_s``, KILL after ``confidence_kill_s``; with fewer symbols BLOCK only."""
    models = facts.models
    n = len(facts.names)
    need = min(g.confidence_symbols, n)
    limit = float(need)
    if not models.loaded or not models.service_alive:
        what = "no model is loaded" if models.service_alive else "ml-service is not running"
        return BadgeResult(BadgeState.WARMING, 0.0, limit, what), ConfState(0, BadgeState.WARMING)
    low = known = blind = 0
    weakest, weakest_at = 2.0, 0
    for i in range(n):
        flags = int(facts.table[i, k.FLAGS])
        if models.warming[i] or flags & k.HALTED or not flags & k.OPEN:
            continue
        # Without a live book there is nothing to judge a model by: a link that flaps is not a strange market.
        if flags & k.STALE or not flags & k.VALID:
            blind |= 1 << i
            continue
        known += 1
        if not models.valid[i] or not models.ema[i] >= g.confidence:  # NaN is no confidence
            low |= 1 << i
        if not models.ema[i] >= weakest:
            weakest, weakest_at = models.ema[i], i
    count = low.bit_count()
    if not known and blind:
        return BadgeResult(BadgeState.STALE, 0.0, limit, "no live book to judge the models by"), ConfState(
            0, BadgeState.STALE
        )
    if not known:
        opened = any(int(f) & k.OPEN or not int(f) & k.SEEN for f in facts.table[:, k.FLAGS])
        badge = BadgeState.WARMING if opened else BadgeState.OK
        return BadgeResult(badge, 0.0, limit, "models are warming up" if opened else "session closed"), ConfState(
            0, badge
        )
    weak = f"lowest {facts.names[weakest_at]} {weakest:.2f}"
    if count < need:
        badge = BadgeState.WARN if count and count >= g.warn_share * need else BadgeState.OK
        text = f"{count} of {known} below {g.confidence:g} or invalid, {weak}"
        return BadgeResult(badge, float(count), limit, text, low), ConfState(0, badge)
    since = state.since_ns or now_ns
    age_s = (now_ns - since) / 1e9
    text = f"{named(low, facts.names)} below {g.confidence:g} or invalid for {age_s:.0f} s"
    if age_s >= g.confidence_kill_s and n >= g.confidence_symbols:
        badge, breach = BadgeState.TRIPPED, Breach.KILL
    elif age_s >= g.confidence_block_s:
        badge, breach = BadgeState.TRIPPED, Breach.BLOCK
    else:
        badge, breach = BadgeState.WARN, Breach.NONE
    reasons = 1 << BlockReason.CONFIDENCE if breach else 0
    result = BadgeResult(badge, float(count), limit, text, low, breach, block_reasons=reasons)
    return result, ConfState(since, badge)
