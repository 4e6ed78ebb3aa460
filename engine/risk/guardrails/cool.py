"""COOL: a runaway. Too many trades, or too many intents from one source, in every second for three seconds."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import Guardrails
from engine.domain.codes import BadgeState, Source
from engine.risk.guardrails.facts import Facts
from engine.risk.guardrails.result import BadgeResult, Breach, warned

SECOND_NS = 1_000_000_000
GRID_NS = 20_000_000
"""Counts are remembered at this distance; a rate is taken over the sample nearest to one second ago."""


@dataclass(frozen=True, slots=True)
class CoolState:
    """``samples``: (time, trades, intents per source...), oldest first. ``over_ns``: per counter, since when its
    one-second rate has been above the limit without a break; 0 when it is not."""

    samples: tuple[tuple[int, ...], ...] = ()
    over_ns: tuple[int, ...] = (0, 0, 0, 0, 0, 0)
    state: BadgeState = BadgeState.OK


def cool(facts: Facts, g: Guardrails, state: CoolState, now_ns: int) -> tuple[BadgeResult, CoolState]:
    """KILL when a one-second rate was above its limit in every window of ``rate_sustained_s``.

    The first window of the span ends one second after it began, so the rate must hold for the span less one second.
    """
    sample = (now_ns, facts.account.trades, *facts.account.intents)
    samples = state.samples
    over = list(state.over_ns)
    if samples and any(new < old for new, old in zip(sample[1:], samples[-1][1:], strict=True)):
        samples, over = (), [0] * len(over)  # the bridge has started anew: its counters too
    if not samples or now_ns - samples[-1][0] >= GRID_NS:
        first = 0
        while first + 1 < len(samples) and samples[first + 1][0] <= now_ns - SECOND_NS:
            first += 1
        samples = (*samples[first:], sample)
    rates = _rates(samples, sample)
    limits = (g.trades_per_s,) + (g.intents_per_s,) * len(facts.account.intents)
    worst, worst_at, tripped = -1.0, 0, -1
    for i, (rate, limit) in enumerate(zip(rates, limits, strict=True)):
        if rate > limit:
            over[i] = over[i] or now_ns
            if now_ns - over[i] >= g.rate_sustained_s * 1e9 - SECOND_NS:
                tripped = i
        else:
            over[i] = 0
        if rate / limit > worst:
            worst, worst_at = rate / limit, i
    shown = tripped if tripped >= 0 else worst_at
    what = "trades" if shown == 0 else f"intents from {Source(shown).name.lower()}"
    value, limit = rates[shown], limits[shown]
    if tripped >= 0:
        text = f"{value:.0f} {what} per second for {g.rate_sustained_s:g} s, limit {limit:.0f}"
        result = BadgeResult(BadgeState.TRIPPED, value, limit, text, breach=Breach.KILL)
    else:
        badge = BadgeState.WARN if value > limit else warned(value, limit, state.state, g.warn_share)
        result = BadgeResult(badge, value, limit, f"{value:.0f} {what} per second of {limit:.0f}")
    return result, CoolState(samples, tuple(over), result.state)


def _rates(samples: tuple[tuple[int, ...], ...], now: tuple[int, ...]) -> list[float]:
    """Counts per second over the sample nearest to one second ago; over a full second while there is none so old."""
    target = now[0] - SECOND_NS
    base = samples[0]
    for candidate in samples[:3]:
        if abs(candidate[0] - target) < abs(base[0] - target):
            base = candidate
    span_s = max(now[0] - base[0], SECOND_NS - GRID_NS) / SECOND_NS
    return [(b - a) / span_s for a, b in zip(base[1:], now[1:], strict=True)]
