"""Every condition of a release, alone: each refusal names its reason, and without any the latch opens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine.domain.codes import Badge, BadgeState, Source
from engine.risk.release import (
    EXCUSE_REMAINING,
    OVERRIDE_DAY,
    ResetFacts,
    ResetRequest,
    cooling_until_ns,
    refusals,
    unnamed,
)

S = 1_000_000_000
NOW = 1_000 * S
COOLING_S = 300.0
COOLED = ResetFacts(
    killed=True,
    flat_since_ns=NOW - 300 * S,
    flattening=False,
    remaining="",
    day_locked=False,
    states=dict.fromkeys(Badge, (BadgeState.OK, "")),
    link_up=True,
)
ASKED = ResetRequest(0, "jo", "checked")


def refused(facts: ResetFacts = COOLED, request: ResetRequest = ASKED, killed_ns: int = NOW - 400 * S) -> list[str]:
    return refusals(facts, request, COOLING_S, killed_ns, NOW)


def test_cooled_flat_and_green_is_released() -> None:
    assert refused() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"killed": False}, "nothing is latched"),
        ({"flat_since_ns": NOW - 299 * S}, "cooling for another 0:02 min"),
        ({"flat_since_ns": 0, "remaining": "AAPL +3"}, "not confirmed flat: AAPL +3"),
        ({"flattening": True}, "flatten is still running"),
        ({"link_up": False}, "the link to the broker is down"),
        ({"day_locked": True}, "DD is locked until the next session"),
    ],
)
def test_each_condition_refuses_alone_and_in_words(change: dict[str, Any], words: str) -> None:
    found = refused(replace(COOLED, **change))
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize("badge", [b for b in Badge if b != Badge.KILL])
@pytest.mark.parametrize("state", [s for s in BadgeState if s != BadgeState.OK])
def test_any_badge_that_is_not_ok_refuses_with_its_reason(badge: Badge, state: BadgeState) -> None:
    facts = replace(COOLED, states={**COOLED.states, badge: (state, "why")})
    assert refused(facts) == [f"{badge.name} is {state.name}: why"]


@pytest.mark.parametrize("source", [Source.ALGO, Source.WATCHDOG, Source.BRIDGE])
def test_nothing_that_trades_or_guards_releases_itself(source: Source) -> None:
    assert refused(request=replace(ASKED, source=source)) == [
        "only an operator releases a stop, by cockpit, API or command line"
    ]


@pytest.mark.parametrize("source", [Source.OPERATOR, Source.CLI])
def test_a_reset_needs_a_name(source: Source) -> None:
    assert refused(request=ResetRequest(0, " ", "why", source)) == ["a reset needs a name: who releases it"]
    assert refused(request=ResetRequest(0, "jo", "", source)) == []


def test_what_remains_must_be_named_symbol_by_symbol() -> None:
    open_ = replace(COOLED, flat_since_ns=0, remaining="AAPL +3, BRK B -1", open_names=("AAPL", "BRK B"))
    ask = ResetRequest(EXCUSE_REMAINING, "jo", "keep it")
    assert refused(open_, ask) == ["the reason must name what remains: AAPL, BRK B (spelled so)"]
    assert refused(open_, replace(ask, reason="keep AAPLX, BRK")) == [
        "the reason must name what remains: AAPL, BRK B (spelled so)"
    ]
    assert refused(open_, replace(ask, reason="keep AAPL and BRK B, halted")) == []
    assert refused(open_, replace(ask, reason="")) == ["an override needs who and why"]


@pytest.mark.parametrize(
    ("name", "reason", "named"),
    [
        ("ON", "MSFT moved on its own", False),
        ("ON", "MSFT moved On its own", False),
        ("ON", "MOON is halted", False),
        ("ON", "ONE is halted", False),
        ("ON", "ON is halted", True),
        ("ON", "I keep ON.", True),
        ("ON", "keep (ON)", True),
        ("BRK", "keep BRK.B", False),
        ("B", "keep BRK.B", False),
        ("B", "keep BRK-B", False),
        ("BRK.B", "keep BRK.B", True),
        ("BRK.B", "keep BRKxB", False),
    ],
)
def test_a_symbol_is_named_only_as_it_is_configured_and_as_a_word(name: str, reason: str, named: bool) -> None:
    assert unnamed((name,), reason) == (() if named else (name,))


def test_what_is_named_without_asking_to_keep_it_is_not_excused() -> None:
    open_ = replace(COOLED, flat_since_ns=0, remaining="AAPL +3", open_names=("AAPL",))
    assert refused(open_, replace(ASKED, reason="AAPL is halted")) == [
        "not confirmed flat: AAPL +3; flatten, or name what remains"
    ]


def test_who_names_nothing_excuses_nothing() -> None:
    nothing = replace(COOLED, flat_since_ns=0)
    assert refused(nothing, ResetRequest(EXCUSE_REMAINING, "jo", "trust me")) == [
        "not confirmed flat; nothing is held that could be named; flatten"
    ]
    assert refused(nothing, ResetRequest(EXCUSE_REMAINING, "jo", "trust me"), killed_ns=NOW - S) == [
        "not confirmed flat; nothing is held that could be named; flatten"
    ], "and no cooling is counted for it"
    assert refused(COOLED, ResetRequest(EXCUSE_REMAINING, "jo", "trust me")) == []


def test_what_is_excused_cools_from_the_kill() -> None:
    open_ = replace(COOLED, flat_since_ns=0, open_names=("AAPL",))
    ask = ResetRequest(EXCUSE_REMAINING, "jo", "AAPL is halted")
    assert refused(open_, ask, killed_ns=NOW - 300 * S) == []
    assert refused(open_, ask, killed_ns=NOW - 200 * S) == ["cooling for another 1:41 min"]


def test_the_day_lock_needs_a_named_override_which_excuses_dd_alone() -> None:
    states = {**COOLED.states, Badge.DD: (BadgeState.TRIPPED, "loss"), Badge.POS: (BadgeState.WARN, "near")}
    locked = replace(COOLED, day_locked=True, states=states)
    assert len(refused(locked)) == 3
    assert refused(locked, ResetRequest(OVERRIDE_DAY, "jo", "")) == [
        "an override needs who and why",
        "POS is WARN: near",
    ]
    assert refused(locked, ResetRequest(OVERRIDE_DAY, "jo", "index was right")) == ["POS is WARN: near"]


def test_every_reason_is_named_at_once() -> None:
    worst = replace(
        COOLED, flat_since_ns=0, link_up=False, day_locked=True,
        states={**COOLED.states, Badge.LAT: (BadgeState.TRIPPED, "slow")},
    )  # fmt: skip
    assert len(refused(worst, replace(ASKED, who=""))) == 5


def test_the_cooling_has_no_end_before_it_has_begun() -> None:
    open_ = replace(COOLED, flat_since_ns=0)
    assert cooling_until_ns(open_, COOLING_S, NOW, excused=False) == 0
    assert cooling_until_ns(open_, COOLING_S, NOW, excused=True) == NOW + 300 * S
    assert cooling_until_ns(COOLED, COOLING_S, NOW, excused=False) == NOW


def test_the_badge_of_the_latch_itself_and_unnamed_symbols_of_a_plain_reset_refuse_nothing() -> None:
    states = {**COOLED.states, Badge.KILL: (BadgeState.TRIPPED, "latched")}
    assert refused(replace(COOLED, states=states, open_names=("AAPL",))) == []
