"""Broker lost, decision by decision: when it becomes KILL, who is paged, and what follows when the link is back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine.config import Guardrails
from engine.domain.codes import LinkState
from engine.risk.guardrails.facts import LinkFacts
from engine.risk.guardrails.link import LinkAction, LinkRule, link_rule

S = 1_000_000_000
G = Guardrails()
UP = LinkFacts(link=int(LinkState.UP), bridge_alive=True, reconciled=True, ever_up=True)
DOWN = replace(UP, link=int(LinkState.DOWN), reconciled=False)
WELL: dict[str, Any] = {"awaits": False, "held": True, "session_open": True, "books_fresh_ns": S}


def decide(link: LinkFacts, state: LinkRule, at_s: float, **changes: Any) -> tuple[LinkRule, LinkAction]:
    return link_rule(link, G, state, int(at_s * S), **WELL | changes)


def test_a_link_that_is_up_asks_for_nothing() -> None:
    assert decide(UP, LinkRule(), 100) == (LinkRule(), LinkAction.NONE)


def test_an_outage_of_sixty_seconds_kills_once_and_a_shorter_one_never() -> None:
    state, action = decide(DOWN, LinkRule(), 100)
    assert (state.down_since_ns, action) == (100 * S, LinkAction.NONE)
    state, action = decide(DOWN, state, 159.9)
    assert (state.down_since_ns, state.killed, action) == (100 * S, False, LinkAction.NONE)
    state, action = decide(DOWN, state, 160)
    assert (state.killed, state.in_window, action) == (True, False, LinkAction.KILL_P1)
    assert decide(DOWN, state, 500) == (state, LinkAction.NONE), "once"


def test_flaps_do_not_add_up() -> None:
    state = LinkRule()
    for minute in range(5):
        state, action = decide(DOWN, state, 100 + 60 * minute)
        state, later = decide(DOWN, state, 150 + 60 * minute)
        assert (action, later) == (LinkAction.NONE, LinkAction.NONE)
        state, action = decide(UP, state, 151 + 60 * minute)
        assert (state.down_since_ns, action) == (0, LinkAction.NONE)


def test_the_outage_counts_from_when_the_bridge_lost_it_and_never_from_the_future() -> None:
    state, _ = decide(replace(DOWN, down_since_ns=70 * S), LinkRule(), 100)
    assert state.down_since_ns == 70 * S
    state, _ = decide(replace(DOWN, down_since_ns=110 * S), LinkRule(), 100)
    assert state.down_since_ns == 100 * S
    state, _ = decide(replace(DOWN, down_since_ns=20 * S), LinkRule(down_since_ns=50 * S), 100)
    assert state.down_since_ns == 50 * S, "what is known already stays"


def test_a_system_that_was_never_connected_has_nothing_to_lose_unless_it_holds_something() -> None:
    never = replace(DOWN, ever_up=False)
    assert decide(never, LinkRule(), 1_000, held=False) == (LinkRule(), LinkAction.NONE)
    assert decide(never, LinkRule(), 1_000)[0].down_since_ns == 1_000 * S
    assert decide(DOWN, LinkRule(), 1_000, held=False)[0].down_since_ns == 1_000 * S


def test_inside_a_reset_window_the_page_is_a_lesser_one_until_the_window_is_over() -> None:
    night = replace(DOWN, reset_window=True)
    state, action = decide(night, LinkRule(down_since_ns=100 * S), 160)
    assert (state.killed, state.in_window, action) == (True, True, LinkAction.KILL_P2)
    assert decide(night, state, 170) == (state, LinkAction.NONE)
    state, action = decide(DOWN, state, 180)
    assert (state.in_window, action) == (False, LinkAction.ESCALATE_P1)
    assert decide(DOWN, state, 190) == (state, LinkAction.NONE), "escalated once"
    assert decide(DOWN, LinkRule(down_since_ns=100 * S, in_window=True), 110)[1] == LinkAction.NONE


def test_the_end_of_an_outage_is_noted_with_its_length() -> None:
    state, action = decide(UP, LinkRule(down_since_ns=100 * S, killed=True), 170)
    assert (state, action) == (LinkRule(outage_ns=70 * S, back_since_ns=170 * S), LinkAction.NONE)
    assert decide(UP, state, 180)[0] == state, "it has ended once"
    assert decide(DOWN, state, 190)[0].back_since_ns == 0


BACK = LinkRule(outage_ns=70 * S, back_since_ns=170 * S)


@pytest.mark.parametrize(
    ("changes", "state", "action"),
    [
        ({}, BACK, LinkAction.FLATTEN),
        ({"awaits": False}, BACK, LinkAction.NONE),
        ({"books_fresh_ns": S - 1}, BACK, LinkAction.NONE),
        ({"books_fresh_ns": -1}, BACK, LinkAction.NONE),
        ({"session_open": False}, BACK, LinkAction.PAGE),
        ({"held": False}, BACK, LinkAction.FLATTEN),
        ({"held": False, "session_open": False, "books_fresh_ns": -1}, BACK, LinkAction.FLATTEN),
        ({}, replace(BACK, outage_ns=599 * S), LinkAction.FLATTEN),
        ({}, replace(BACK, outage_ns=600 * S), LinkAction.PAGE),
    ],
)
def test_after_an_outage_that_killed(changes: dict[str, Any], state: LinkRule, action: LinkAction) -> None:
    """Flatten if the session is open, it was short, and books are fresh; else the operator decides."""
    assert decide(UP, state, 180, **{"awaits": True} | changes) == (state, action)


def test_nothing_is_decided_before_the_books_have_been_compared() -> None:
    assert decide(replace(UP, reconciled=False), BACK, 180, awaits=True)[1] == LinkAction.NONE


@pytest.mark.parametrize("changes", [{"books_fresh_ns": -1}, {"books_fresh_ns": S - 1}])
def test_books_that_do_not_get_fresh_page_after_a_minute_instead_of_waiting_for_ever(changes: dict[str, Any]) -> None:
    assert decide(UP, BACK, 229.9, **{"awaits": True} | changes)[1] == LinkAction.NONE
    assert decide(UP, BACK, 230, **{"awaits": True} | changes)[1] == LinkAction.PAGE


def test_a_reconciliation_without_end_pages_after_a_minute() -> None:
    never = replace(UP, reconciled=False)
    assert decide(never, BACK, 229.9, awaits=True)[1] == LinkAction.NONE
    assert decide(never, BACK, 230, awaits=True)[1] == LinkAction.PAGE
    assert decide(never, BACK, 230, awaits=True, held=False)[1] == LinkAction.NONE
    state, action = decide(never, LinkRule(killed=True), 500, awaits=True)
    assert (state.back_since_ns, action) == (500 * S, LinkAction.NONE), "a successor waits anew"
