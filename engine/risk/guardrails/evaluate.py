"""Runs the rules so that none fails silently: one that raises or returns NaN is a KILL, one that is slow a BLOCK."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from engine.config import Guardrails
from engine.domain.codes import Badge, BadgeState
from engine.risk.guardrails.conf import ConfState, conf
from engine.risk.guardrails.cool import CoolState, cool
from engine.risk.guardrails.dd import DdState, dd
from engine.risk.guardrails.drift import DriftState, drift
from engine.risk.guardrails.facts import Facts
from engine.risk.guardrails.lat import LatState, lat
from engine.risk.guardrails.pos import PosState, pos
from engine.risk.guardrails.result import BadgeResult, Breach
from engine.risk.guardrails.spread import SpreadState, spread

Rule = Callable[[Facts, Guardrails, Any, int], tuple[BadgeResult, Any]]

RULES: dict[Badge, tuple[Rule, Any]] = {
    Badge.SPREAD: (spread, SpreadState()),
    Badge.POS: (pos, PosState()),
    Badge.COOL: (cool, CoolState()),
    Badge.LAT: (lat, LatState()),
    Badge.DD: (dd, DdState()),
    Badge.CONF: (conf, ConfState()),
    Badge.DRIFT: (drift, DriftState()),
}
"""Every badge but KILL, which reports the latch and is not measured."""

FAST = (Badge.POS, Badge.DD)
"""Evaluated on every change of a book or position."""
SLOW = (Badge.SPREAD, Badge.COOL, Badge.LAT, Badge.CONF, Badge.DRIFT)

MAY_BE_NAN = (BadgeState.WARMING, BadgeState.STALE)


class Evaluator:
    """The rules' states, and the latest result of each."""

    def __init__(self, guardrails: Guardrails, rules: dict[Badge, tuple[Rule, Any]] | None = None) -> None:
        self._guardrails = guardrails
        table = rules or RULES
        self._rules = {badge: rule for badge, (rule, _) in table.items()}
        self.states: dict[Badge, Any] = {badge: state for badge, (_, state) in table.items()}
        self.results: dict[Badge, BadgeResult] = {
            badge: BadgeResult(BadgeState.WARMING, 0.0, 0.0, "not evaluated yet") for badge in table
        }

    def run(self, badge: Badge, facts: Facts, now_ns: int) -> BadgeResult:
        """Evaluate one rule. A failure of the rule itself is reported as KILL in its result."""
        try:
            result, self.states[badge] = self._rules[badge](facts, self._guardrails, self.states[badge], now_ns)
            if (math.isnan(result.value) or math.isnan(result.limit)) and result.state not in MAY_BE_NAN:
                result = _failed(f"{badge.name} returned NaN ({result.reason})")
        except Exception as error:  # a guard that can't see must stop trading, whatever the cause
            result = _failed(f"{badge.name} failed: {type(error).__name__}: {error}")
        self.results[badge] = result
        return result


def _failed(text: str) -> BadgeResult:
    return BadgeResult(BadgeState.TRIPPED, 0.0, 0.0, text, breach=Breach.KILL)
