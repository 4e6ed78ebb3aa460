"""POS: exposure of one symbol, or of all, above the account's limits."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import Guardrails
from engine.domain.codes import BadgeState, BlockReason
from engine.risk.guardrails import kernels as k
from engine.risk.guardrails.facts import Facts
from engine.risk.guardrails.result import BadgeResult, Breach, warned


@dataclass(frozen=True, slots=True)
class PosState:
    unknown_since_ns: int = 0
    """Since when a limit is passed only because of orders whose fate is not known; 0 not so."""
    state: BadgeState = BadgeState.OK


def pos(facts: Facts, g: Guardrails, state: PosState, now_ns: int) -> tuple[BadgeResult, PosState]:
    """KILL when confirmed exposure passes a limit; an excess through UNKNOWN orders alone blocks first."""
    exposure = facts.table[:, k.EXPOSURE_USD]
    worst = facts.table[:, k.WORST_USD]
    symbol, worst_symbol = int(exposure.argmax()), int(worst.argmax())
    gross, gross_worst = float(facts.totals[k.GROSS_USD]), float(facts.totals[k.GROSS_WORST_USD])

    def larger(by_symbol: float, total: float, at: int) -> tuple[float, float, str, int]:
        if total / facts.gross_limit_usd > by_symbol / facts.symbol_limit_usd:
            return total, facts.gross_limit_usd, "gross", 0
        return by_symbol, facts.symbol_limit_usd, facts.names[at], 1 << at

    value, limit, name, mask = larger(float(exposure[symbol]), gross, symbol)
    high, high_limit, high_name, high_mask = larger(float(worst[worst_symbol]), gross_worst, worst_symbol)
    if value > limit:
        text = f"{name} exposure {value:,.0f} above {limit:,.0f} USD"
        return BadgeResult(BadgeState.TRIPPED, value, limit, text, mask, Breach.KILL), PosState(0, BadgeState.TRIPPED)
    if not high <= high_limit:  # NaN: the evaluator makes a KILL of it
        since = state.unknown_since_ns or now_ns
        text = f"{high_name} {high:,.0f} above {high_limit:,.0f} USD if unknown orders fill"
        kill = now_ns - since >= g.unknown_grace_s * 1e9
        result = BadgeResult(
            BadgeState.TRIPPED, high, high_limit, text, high_mask, Breach.KILL if kill else Breach.BLOCK,
            block_reasons=1 << BlockReason.UNKNOWN_EXPOSURE,
        )  # fmt: skip
        return result, PosState(since, BadgeState.TRIPPED)
    badge = warned(value, limit, state.state, g.warn_share)
    return BadgeResult(badge, value, limit, f"{name} {value:,.0f} of {limit:,.0f} USD", mask), PosState(0, badge)
