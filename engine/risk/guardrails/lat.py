"""LAT: an order might not get through in time. API round trip, a mute connection, or the armed cockpit's stream."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import Guardrails
from engine.domain.codes import BadgeState
from engine.risk.guardrails.facts import Facts, LinkFacts
from engine.risk.guardrails.result import BadgeResult, Breach, warned


@dataclass(frozen=True, slots=True)
class LatState:
    state: BadgeState = BadgeState.WARMING


def samples_ms(link: LinkFacts, g: Guardrails) -> list[float]:
    """Round trips that count. A probe that has been out for longer than the limit is one already."""
    samples = [rtt / 1e6 for rtt in link.rtts_ns]
    if link.probe_age_ns > g.rtt_ms * 1e6:
        samples.append(link.probe_age_ns / 1e6)
    return samples[-5:]


def is_mute(link: LinkFacts, g: Guardrails) -> bool:
    """Nothing from the trading connection although asked, while the emergency connection gets answers.

    An answer counts if it came after the unanswered question was put: an older one says nothing about now, and a
    gateway that has fallen silent altogether is a lost broker, not a mute connection.
    """
    return link.up and _unanswered(link, g) and _answers(link, g)


def both_mute(link: LinkFacts, g: Guardrails) -> bool:
    """The same silence, and the emergency connection gets no answers either, or is not there."""
    age_ns = link.emergency_answer_age_ns
    return _unanswered(link, g) and (age_ns < 0 or age_ns >= g.mute_s * 1e9)


def _unanswered(link: LinkFacts, g: Guardrails) -> bool:
    return link.silent_ns >= g.mute_s * 1e9 and link.probe_age_ns >= g.rtt_ms * 1e6


def _answers(link: LinkFacts, g: Guardrails) -> bool:
    return 0 <= link.emergency_answer_age_ns < min(g.mute_s * 1e9, link.probe_age_ns)


def lat(facts: Facts, g: Guardrails, state: LatState, now_ns: int) -> tuple[BadgeResult, LatState]:
    """KILL for the API, PAUSE (or KILL, if the operator chose so when arming) for the stream."""
    result = _evaluate(facts, g, state)
    return result, LatState(result.state)


def _evaluate(facts: Facts, g: Guardrails, state: LatState) -> BadgeResult:
    link, stream = facts.link, facts.stream
    samples = samples_ms(link, g)
    bad = sorted(samples, reverse=True)
    # The rule holds exactly when the k-th worst sample is over the limit: that one is shown.
    need = g.rtt_bad_samples
    value = bad[need - 1] if len(bad) >= need else bad[-1] if bad else 0.0
    over = sum(1 for s in samples if s > g.rtt_ms)
    if link.up and over >= need:
        text = f"API round trip over {g.rtt_ms:.0f} ms in {over} of the last {len(samples)}: {value:.0f} ms"
        return BadgeResult(BadgeState.TRIPPED, value, g.rtt_ms, text, breach=Breach.KILL)
    if is_mute(link, g):
        silent_ms = link.silent_ns / 1e6
        text = f"gateway mute for {silent_ms / 1e3:.1f} s, emergency connection answers"
        return BadgeResult(BadgeState.TRIPPED, silent_ms, g.mute_s * 1e3, text, breach=Breach.KILL)
    if stream.cockpit_alive and stream.gone_ns > g.stream_gone_s * 1e9:
        gone_ms = stream.gone_ns / 1e6
        breach = Breach.KILL if stream.kill_on_gone else Breach.PAUSE
        text = f"armed cockpit's stream gone for {gone_ms / 1e3:.1f} s, limit {g.stream_gone_s:g} s"
        return BadgeResult(BadgeState.TRIPPED, gone_ms, g.stream_gone_s * 1e3, text, breach=breach)
    if not link.up:
        state_text = "link to the broker is down" if link.ever_up else "waiting for the first connection"
        badge = BadgeState.STALE if link.ever_up else BadgeState.WARMING
        return BadgeResult(badge, value, g.rtt_ms, state_text)
    if not samples:
        return BadgeResult(BadgeState.WARMING, 0.0, g.rtt_ms, "waiting for the first round trip")
    latest = samples[-1]
    if over:
        text = f"API round trip over {g.rtt_ms:.0f} ms in {over} of the last {len(samples)}, latest {latest:.1f} ms"
        return BadgeResult(BadgeState.WARN, max(value, latest), g.rtt_ms, text)
    badge = warned(value, g.rtt_ms, state.state, g.warn_share)
    return BadgeResult(badge, value, g.rtt_ms, f"API round trip {latest:.1f} ms of {g.rtt_ms:.0f}")
