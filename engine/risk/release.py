"""When KILL may be released, and what each refusal says. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from engine.domain.codes import Badge, BadgeState, Source

OVERRIDE_DAY = 1
"""RESET flag bit 0: the operator overrides the day's drawdown lock by name and reason."""
EXCUSE_REMAINING = 2
"""RESET flag bit 1: the operator names in the reason what remains open and keeps it."""
PEOPLE = (Source.OPERATOR, Source.CLI)
"""Only these can release a stop: a person stands behind them. Nothing that trades or guards releases itself."""


@dataclass(frozen=True, slots=True)
class ResetRequest:
    flags: int
    who: str
    reason: str
    source: int = Source.CLI


@dataclass(frozen=True, slots=True)
class ResetFacts:
    """``flat_since_ns``: confirmed flat by the broker, 0 if not. ``remaining``: what is open, in words; ``open_names``
    the symbols of it, each of which an operator must name to keep it."""

    killed: bool
    flat_since_ns: int
    flattening: bool
    remaining: str
    day_locked: bool
    states: Mapping[Badge, tuple[BadgeState, str]]
    link_up: bool
    open_names: tuple[str, ...] = ()


def cooling_until_ns(facts: ResetFacts, cooling_s: float, killed_ns: int, excused: bool) -> int:
    """End of the cooling time: it runs from confirmed flat, or from the kill when what remains is excused."""
    start = facts.flat_since_ns or (killed_ns if excused else 0)
    return start + int(cooling_s * 1e9) if start else 0


def unnamed(names: tuple[str, ...], reason: str) -> tuple[str, ...]:
    """Symbols that the reason does not name as configured, as words of their own: "it moved on" does not name ON."""
    return tuple(n for n in names if not re.search(rf"(?<![\w.-]){re.escape(n)}(?![.-]?\w)", reason))


def refusals(facts: ResetFacts, request: ResetRequest, cooling_s: float, killed_ns: int, now_ns: int) -> list[str]:
    """Every reason against a release, in words; empty: it may be released."""
    if request.source not in PEOPLE:
        return ["only an operator releases a stop, by cockpit, API or command line"]
    if not facts.killed:
        return ["nothing is latched"]
    found = []
    excused = bool(request.flags & EXCUSE_REMAINING)
    kept = excused and bool(facts.open_names)  # who names nothing excuses nothing: an order may work
    override = bool(request.flags & OVERRIDE_DAY)
    if not request.who.strip():
        found.append("a reset needs a name: who releases it")
    if (excused or override) and not request.reason.strip():
        found.append("an override needs who and why")
    elif excused and (missing := unnamed(facts.open_names, request.reason)):
        found.append(f"the reason must name what remains: {', '.join(missing)} (spelled so)")
    if facts.flattening:
        found.append("flatten is still running")
    elif not facts.flat_since_ns and not kept:
        what = f": {facts.remaining}" if facts.remaining else ""
        remedy = "nothing is held that could be named; flatten" if excused else "flatten, or name what remains"
        found.append(f"not confirmed flat{what}; {remedy}")
    until = cooling_until_ns(facts, cooling_s, killed_ns, kept)
    if until and now_ns < until:
        left = (until - now_ns) // 1_000_000_000 + 1
        found.append(f"cooling for another {left // 60}:{left % 60:02d} min")
    if not facts.link_up:
        found.append("the link to the broker is down")
    if facts.day_locked and not override:
        found.append("DD is locked until the next session; override it by name and reason")
    for badge, (state, reason) in facts.states.items():
        if badge == Badge.KILL or state == BadgeState.OK or (badge == Badge.DD and override):
            continue
        found.append(f"{badge.name} is {state.name}: {reason}")
    return found
