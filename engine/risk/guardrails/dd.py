"""DD: the day's loss, the fall from the day's peak, or a jump of the index."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from engine.config import Guardrails
from engine.domain.codes import BadgeState, BlockReason
from engine.domain.words import duration
from engine.risk.guardrails import kernels as k
from engine.risk.guardrails.facts import Facts
from engine.risk.guardrails.result import INDEX_MOVED, BadgeResult, Breach, named, warned

PEAK_STANDS_NS = 100_000_000
"""Equity must have held a height for this long before it counts as the peak that falls are measured from."""


@dataclass(frozen=True, slots=True)
class Day:
    """Persisted in ``risk.json``. ``base_usd``: equity = base_usd + P&L at marks - commissions.

    ``session``: YYYYMMDD. ``tripped``: session date of the last trip; no release before the next without an override.
    ``lifted_usd``: equity at which an override lifted that lock; the limits apply anew from there, NaN without one.
    ``lifted_wall_ns``: when that was, 0 never.
    """

    session: int = 0
    base_usd: float = math.nan
    start_usd: float = math.nan
    peak_usd: float = math.nan
    tripped: int = 0
    lifted_usd: float = math.nan
    lifted_wall_ns: int = 0

    @property
    def from_usd(self) -> float:
        """What a loss is measured from: the day's start, or the equity when an override lifted the lock."""
        return self.start_usd if math.isnan(self.lifted_usd) else self.lifted_usd


@dataclass(frozen=True, slots=True)
class DdState:
    day: Day = Day()
    equity_usd: float = math.nan
    candidate_usd: float = math.nan
    """Lowest equity since ``candidate_ns``: becomes the peak if it is above it when the time is over."""
    candidate_ns: int = 0
    unmarked_since_ns: int = 0
    state: BadgeState = BadgeState.WARMING


def anchored(state: DdState, facts: Facts, session: int) -> DdState:
    """Begin a session: the broker's NetLiquidation is the day's start, and what the day earns is added to it.

    Called when the session date changes, and at the very first start; does nothing without an account value.
    """
    if state.day.session == session or not facts.account.ready or not math.isfinite(facts.account.net_liquidation_usd):
        return state
    start = facts.account.net_liquidation_usd
    base = start - float(facts.totals[k.PNL_TOTAL_USD]) + facts.account.commissions_usd
    day = Day(session, base, start, start, state.day.tripped)
    return DdState(day=day, equity_usd=start)


def lifted(state: DdState, wall_ns: int) -> DdState:
    """A named override: the day may go on, and both limits apply anew from the present equity.

    Without this the loss that tripped the rule would trip it again in the cycle after the release.
    """
    day = replace(state.day, tripped=0, lifted_wall_ns=wall_ns)
    if math.isfinite(state.equity_usd):
        day = replace(day, lifted_usd=state.equity_usd, peak_usd=state.equity_usd)
    return replace(state, day=day, candidate_usd=math.nan, candidate_ns=0)


def dd(facts: Facts, g: Guardrails, state: DdState, now_ns: int) -> tuple[BadgeResult, DdState]:
    """KILL on a drawdown beyond min(drawdown_usd, drawdown_pct) from start or peak, or on the index."""
    index = facts.index
    if index.breach_ns or (index.watched and index.regular_hours and index.age_ns >= 0 and _moved(facts, g)):
        window = duration(g.index_window_s)
        text = f"{INDEX_MOVED} {index.move_pct:+.2f} % within {window}, limit {g.index_move_pct:g} %"
        result = BadgeResult(
            BadgeState.TRIPPED,
            abs(index.move_pct),
            g.index_move_pct,
            text,
            breach=Breach.KILL,
            cause_ns=index.breach_ns,
            locks_day=True,
        )
        return result, replace(_equity(facts, state, now_ns), state=result.state)
    state = _equity(facts, state, now_ns)
    result, state = _drawdown(facts, g, state, now_ns)
    return result, replace(state, state=result.state)


def _moved(facts: Facts, g: Guardrails) -> bool:
    return facts.index.age_ns <= g.index_stale_s * 1e9 and abs(facts.index.move_pct) > g.index_move_pct


def _accounted(facts: Facts) -> bool:
    """Quantities, cash and commissions belong together: not while the bridge is away or rebuilds them."""
    return facts.account.ready and facts.link.bridge_alive and facts.link.reconciled


def _equity(facts: Facts, state: DdState, now_ns: int) -> DdState:
    day = state.day
    if math.isnan(day.base_usd) or not _accounted(facts):
        return state
    equity = day.base_usd + float(facts.totals[k.PNL_TOTAL_USD]) - facts.account.commissions_usd
    candidate, since = state.candidate_usd, state.candidate_ns
    if not equity > day.peak_usd:
        candidate, since = math.nan, 0
    elif not since:
        candidate, since = equity, now_ns
    else:
        candidate = min(candidate, equity)
        if now_ns - since >= PEAK_STANDS_NS:
            day = replace(day, peak_usd=candidate)
            candidate, since = equity, now_ns
    return replace(state, day=day, equity_usd=equity, candidate_usd=candidate, candidate_ns=since)


def _drawdown(facts: Facts, g: Guardrails, state: DdState, now_ns: int) -> tuple[BadgeResult, DdState]:
    day, equity = state.day, state.equity_usd
    if _accounted(facts) and math.isfinite(day.base_usd) and not math.isfinite(equity) and not _unmarked(facts):
        raise ValueError("equity is not a number although the books are complete and every position has its mark")
    if math.isnan(day.base_usd) or math.isnan(equity):
        return BadgeResult(BadgeState.WARMING, 0.0, g.drawdown_usd, "waiting for the account's values"), state
    refs = {"start": (day.from_usd,), "peak": (day.peak_usd,), "both": (day.from_usd, day.peak_usd)}[g.drawdown_from]
    start = "start" if math.isnan(day.lifted_usd) else "override"
    names = {"start": (start,), "peak": ("peak",), "both": (start, "peak")}[g.drawdown_from]
    fall, limit, name = -math.inf, g.drawdown_usd, names[0]
    for ref, ref_name in zip(refs, names, strict=True):
        ref_limit = min(g.drawdown_usd, g.drawdown_pct / 100.0 * ref)
        if not ref_limit > 0.0:  # an account without value: any loss is too much
            ref_limit = 1.0
        if (ref - equity) / ref_limit > fall / limit:
            fall, limit, name = ref - equity, ref_limit, ref_name
    if fall > limit:
        text = f"equity {equity:,.0f} is {fall:,.0f} below the day's {name}, limit {limit:,.0f} USD"
        return BadgeResult(BadgeState.TRIPPED, fall, limit, text, breach=Breach.KILL, locks_day=True), state
    unmarked = _unmarked(facts)
    if unmarked:
        since = state.unmarked_since_ns or now_ns
        age_s = (now_ns - since) / 1e9
        state = replace(state, unmarked_since_ns=since)
        how_long = f" for {age_s:.0f} s" if age_s >= 1.0 else ""
        text = f"equity can't be marked{how_long}: {named(unmarked, facts.names)} stale"
        if age_s >= g.unmarked_kill_s:
            return BadgeResult(BadgeState.TRIPPED, max(fall, 0.0), limit, text, unmarked, Breach.KILL), state
        return BadgeResult(BadgeState.STALE, max(fall, 0.0), limit, text, unmarked), state
    state = replace(state, unmarked_since_ns=0)
    stale, text = _index_stale(facts, g)
    if stale:
        reasons = 1 << BlockReason.INDEX_STALE
        return BadgeResult(
            BadgeState.STALE, max(fall, 0.0), limit, text, breach=Breach.BLOCK, block_reasons=reasons
        ), state
    theirs = facts.account.net_liquidation_usd
    apart_pct = 100.0 * abs(equity - theirs) / theirs if theirs > 0.0 else 0.0
    if apart_pct > g.equity_divergence_pct and _accounted(facts):
        text = f"equity {equity:,.0f} is {apart_pct:.2f} % from the broker's {theirs:,.0f} USD"
        return BadgeResult(BadgeState.WARN, max(fall, 0.0), limit, text), state
    if facts.index.watched and abs(facts.index.move_pct) >= g.warn_share * g.index_move_pct and facts.index.age_ns >= 0:
        text = f"{INDEX_MOVED} {facts.index.move_pct:+.2f} % of {g.index_move_pct:g} %"
        return BadgeResult(BadgeState.WARN, abs(facts.index.move_pct), g.index_move_pct, text), state
    badge = warned(fall, limit, state.state, g.warn_share)
    return BadgeResult(
        badge, max(fall, 0.0), limit, f"{max(fall, 0.0):,.0f} below {name}, limit {limit:,.0f} USD"
    ), state


def _unmarked(facts: Facts) -> int:
    """Symbols with a position whose mark is older than allowed although their session is open."""
    mask = 0
    for i, row in enumerate(facts.table.tolist()):
        flags = int(row[k.FLAGS])
        held = row[k.QTY] != 0.0
        old = flags & k.STALE or row[k.MARK_AGE_NS] > row[k.STALE_LIMIT_NS]
        if (held and flags & k.OPEN and not flags & k.HALTED and old) or (
            held and not flags & k.SEEN and facts.index.regular_hours
        ):
            mask |= 1 << i
    return mask


def _index_stale(facts: Facts, g: Guardrails) -> tuple[bool, str]:
    index = facts.index
    if not index.watched or not index.regular_hours:
        return False, ""
    limit_ns = g.index_stale_s * 1e9
    if index.age_ns < 0:
        return index.waited_ns > limit_ns, "no value of the index yet: check its data entitlement, or use DIA"
    return index.age_ns > limit_ns, f"index silent for {index.age_ns / 1e9:.0f} s, limit {g.index_stale_s:g} s"
