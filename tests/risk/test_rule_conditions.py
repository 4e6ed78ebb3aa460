"""Each condition of the rules by itself: what the mutation check leans on. Plain cases, no search."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from rule_facts import FINE, MS, S, quiet, with_link

from engine.config import Guardrails
from engine.domain.codes import BadgeState, LinkState
from engine.risk.guardrails import kernels as k
from engine.risk.guardrails.conf import ConfState, conf
from engine.risk.guardrails.cool import CoolState, cool
from engine.risk.guardrails.dd import Day, DdState, anchored, dd
from engine.risk.guardrails.drift import DriftState, drift
from engine.risk.guardrails.facts import AccountFacts, Facts, IndexFacts
from engine.risk.guardrails.lat import LatState, both_mute, lat
from engine.risk.guardrails.result import BadgeResult, Breach
from engine.risk.guardrails.spread import SpreadState, held_too_long, spread

G = Guardrails()
NOW = 100 * S


def flagged(flags: int, at: int | slice = slice(None)) -> Facts:
    facts = quiet()
    facts.table[at, k.FLAGS] = flags
    return facts


# What all rules say about books that are closed, halted, or not there yet.

CLOSED, HALTED, NOTHING = FINE & ~k.OPEN, FINE | k.HALTED, 0


@pytest.mark.parametrize(
    ("flags", "state"),
    [(CLOSED, BadgeState.OK), (HALTED, BadgeState.WARMING), (NOTHING, BadgeState.WARMING),
     (k.OPEN | k.VALID, BadgeState.WARMING)],
)  # fmt: skip
def test_without_a_book_to_judge_a_rule_waits_or_the_session_is_closed(flags: int, state: BadgeState) -> None:
    facts = flagged(flags)
    facts.table[:, k.SPREAD_BPS], facts.table[:, k.DRIFT_PCT] = 60.0, math.nan
    wide, _ = spread(facts, G, SpreadState(), NOW)
    assert (wide.state, wide.block_symbols, wide.value) == (state, 0, 0.0)
    assert drift(facts, G, DriftState(), NOW)[0].state == state
    if flags & k.SEEN:
        assert conf(facts, G, ConfState(), NOW)[0].state == state


# SPREAD


@pytest.mark.parametrize(
    "changes", [{"link": int(LinkState.DOWN)}, {"reconciled": False}], ids=["link down", "not reconciled"]
)
def test_a_spread_is_no_news_while_the_link_is_away(changes: dict[str, Any]) -> None:
    facts = with_link(quiet(), **changes)
    facts.table[1, k.SPREAD_BPS] = 60.0
    found, _ = spread(facts, G, SpreadState(), NOW)
    assert (found.state, found.block_symbols, found.breach) == (BadgeState.STALE, 0, Breach.NONE)


def test_a_stale_book_has_no_spread() -> None:
    facts = flagged(FINE | k.STALE, 1)
    facts.table[1, k.SPREAD_BPS] = 60.0
    found, _ = spread(facts, G, SpreadState(), NOW)
    assert (found.state, found.block_symbols, found.symbols) == (BadgeState.STALE, 0, 0b10)


def test_what_a_spread_result_carries() -> None:
    facts = quiet()
    calm, _ = spread(facts, G, SpreadState(), NOW)
    assert (calm.value, calm.limit, calm.block_reasons, calm.symbols) == (2.0, 25.0, 0, 0)
    facts.table[1, k.SPREAD_BPS] = 60.0
    _, state = spread(facts, G, SpreadState(), NOW)
    late, state = spread(facts, G, state, NOW + 31 * S)
    assert (late.symbols, late.value) == (0b10, 60.0)
    assert "position open" not in late.reason, "nothing is held"
    facts.table[1, k.SPREAD_BPS] = 2.0
    held, _ = spread(facts, G, state, NOW + 31 * S + MS)
    assert held.reason == "blocked: S1", "it is held for a moment, and says which"


def test_nobody_is_woken_for_a_spread_that_is_not_or_not_yet_too_long() -> None:
    facts = quiet()
    facts.table[:, k.QTY] = 10.0
    state = SpreadState((0, NOW, *(0,) * 6), (0,) * 8)
    assert held_too_long(state, facts, G, NOW + 29 * S) == 0
    assert held_too_long(state, facts, G, NOW + 30 * S) == 0b10
    facts.table[:, k.QTY] = 0.0
    assert held_too_long(state, facts, G, NOW + 30 * S) == 0


# COOL


def rate(samples: list[tuple[float, int, int]]) -> BadgeResult:
    """Feed (seconds, trades, intents of the second source); the last result."""
    state = CoolState()
    for at_s, trades, intents in samples:
        account = AccountFacts(True, 1e6, trades=trades, intents=(0, intents, 0, 0, 0))
        result, state = cool(replace(quiet(), account=account), G, state, NOW + int(at_s * S))
    return result


def test_counters_that_begin_anew_are_counted_anew() -> None:
    before = [(t / 10, 1_000, 0) for t in range(10)]
    assert rate([*before, (1.0, 0, 0), (1.5, 60, 0)]).value > 50.0


def test_a_rate_forgets_what_is_older_than_a_second() -> None:
    assert rate([(t / 10, 4 * t, 0) for t in range(11)] + [(1.0 + t / 10, 40, 0) for t in range(1, 50)]).value == 0.0


def test_the_sample_nearest_to_a_second_ago_is_the_base() -> None:
    assert rate([(0.0, 0, 0), (0.95, 100, 0), (1.9, 100, 0)]).value == 0.0


def test_the_worst_counter_is_shown_and_the_one_that_tripped_before_it() -> None:
    calm = rate([(t / 10, 5 * t // 10, 3 * t) for t in range(21)])
    assert "intents" in calm.reason
    assert calm.value == pytest.approx(30.0)
    tripped = rate([(t / 10, 0 if t < 45 else 5_000, 6 * t) for t in range(46)])
    assert tripped.breach == Breach.KILL
    assert "intents" in tripped.reason


# LAT

MUTE = {"silent_ns": 2 * S, "probe_age_ns": 600 * MS, "emergency_answer_age_ns": 100 * MS}


@pytest.mark.parametrize(
    ("changes", "breach"),
    [
        ({}, Breach.KILL),
        ({"link": int(LinkState.DOWN)}, Breach.NONE),
        ({"silent_ns": 2 * S - 1}, Breach.NONE),
        ({"probe_age_ns": 499 * MS}, Breach.NONE),
        ({"emergency_answer_age_ns": -1}, Breach.NONE),
        ({"emergency_answer_age_ns": 600 * MS}, Breach.NONE),
    ],
)
def test_each_condition_of_a_mute_connection(changes: dict[str, Any], breach: Breach) -> None:
    assert lat(with_link(quiet(), **(MUTE | changes)), G, LatState(), NOW)[0].breach == breach


def test_a_connection_that_speaks_is_not_mute_because_the_other_one_is() -> None:
    link = with_link(quiet(), silent_ns=MS, probe_age_ns=600 * MS, emergency_answer_age_ns=-1).link
    assert not both_mute(link, G)


@pytest.mark.parametrize(
    ("rtts_ms", "value", "state"),
    [
        ((300, 100), 100.0, BadgeState.OK),
        ((10, 20, 30, 40, 50), 30.0, BadgeState.OK),
        ((600, 600, 1, 1, 1), 1.0, BadgeState.WARN),
    ],
)
def test_which_round_trip_is_shown(rtts_ms: tuple[int, ...], value: float, state: BadgeState) -> None:
    found, _ = lat(with_link(quiet(), rtts_ns=tuple(ms * MS for ms in rtts_ms)), G, LatState(), NOW)
    assert (found.value, found.state) == (value, state)


def test_before_the_first_connection_lat_warms_and_after_it_is_stale() -> None:
    down = with_link(quiet(), link=int(LinkState.DOWN))
    assert lat(down, G, LatState(), NOW)[0].state == BadgeState.STALE
    assert lat(with_link(down, ever_up=False), G, LatState(), NOW)[0].state == BadgeState.WARMING


# DD


def begun(facts: Facts | None = None) -> DdState:
    return anchored(DdState(), facts or quiet(), 20240102)


def test_a_day_is_anchored_once_and_only_to_a_number_of_a_ready_account() -> None:
    state, richer = begun(), replace(quiet(), account=AccountFacts(True, 2e6))
    assert anchored(state, richer, 20240102) is state
    assert anchored(state, richer, 20240103).day.start_usd == 2e6
    for account in (AccountFacts(False, 2e6), AccountFacts(True, math.nan), AccountFacts(True, math.inf)):
        assert anchored(state, replace(quiet(), account=account), 20240103) is state


@pytest.mark.parametrize(
    ("index", "breach"),
    [
        (IndexFacts(True, 1.0, 6.0, S, True), Breach.KILL),
        (IndexFacts(False, 1.0, 6.0, S, True), Breach.NONE),
        (IndexFacts(True, 1.0, 6.0, -1, True), Breach.NONE),
        (IndexFacts(True, 1.0, 6.0, S, False), Breach.NONE),
        (IndexFacts(True, 1.0, 0.0, S, True, breach_ns=NOW), Breach.KILL),
        (IndexFacts(False, 1.0, 0.0, 16 * S, True), Breach.NONE),
    ],
)
def test_each_condition_of_the_index(index: IndexFacts, breach: Breach) -> None:
    assert dd(replace(quiet(), index=index), G, begun(), NOW)[0].breach == breach


@pytest.mark.parametrize(
    ("index", "state"),
    [
        (IndexFacts(True, 1.0, -4.5, S, True), BadgeState.WARN),
        (IndexFacts(False, 1.0, -4.5, S, True), BadgeState.OK),
        (IndexFacts(True, 1.0, -4.5, -1, True), BadgeState.OK),
        (IndexFacts(True, 1.0, -3.9, S, True), BadgeState.OK),
    ],
)
def test_an_index_near_its_limit_warns(index: IndexFacts, state: BadgeState) -> None:
    assert dd(replace(quiet(), index=index), G, begun(), NOW)[0].state == state


@pytest.mark.parametrize(
    "away",
    [
        {"account": AccountFacts(False, 900_000.0)},
        {"link": {"bridge_alive": False}},
        {"link": {"reconciled": False}},
    ],
    ids=["account", "bridge", "reconciled"],
)
def test_equity_stands_while_its_parts_do_not_belong_together(away: dict[str, Any]) -> None:
    facts = quiet()
    facts.totals[k.PNL_TOTAL_USD] = -9_000.0
    facts = replace(facts, account=AccountFacts(True, 900_000.0))
    link = away.get("link", {})
    facts = with_link(facts, **link) if link else replace(facts, **away)
    result, state = dd(facts, G, begun(), NOW)
    assert (state.equity_usd, result.breach, result.state) == (1_000_000.0, Breach.NONE, BadgeState.OK)
    recalled = DdState(day=begun().day)
    assert dd(facts, G, recalled, NOW)[0].state == BadgeState.WARMING, "no equity yet, and no number made of it"


def test_before_the_first_day_there_is_no_equity() -> None:
    _, state = dd(quiet(), G, DdState(day=Day()), NOW)
    assert (state.candidate_ns, state.day.session) == (0, 0)
    assert math.isnan(state.equity_usd)


def test_an_account_without_value_may_lose_nothing() -> None:
    facts = replace(quiet(), account=AccountFacts(True, 0.0))
    state = begun(facts)
    assert dd(facts, G, state, NOW)[0].state == BadgeState.OK
    facts.totals[k.PNL_TOTAL_USD] = -2.0
    assert dd(facts, G, state, NOW)[0].breach == Breach.KILL


@pytest.mark.parametrize(
    ("qty", "flags", "mark_age_s", "regular", "state"),
    [
        (10.0, FINE, 0.0, True, BadgeState.OK),
        (10.0, FINE, 6.0, True, BadgeState.STALE),
        (0.0, FINE, 6.0, True, BadgeState.OK),
        (10.0, FINE & ~k.SEEN & ~k.OPEN, 0.0, True, BadgeState.STALE),
        (0.0, FINE & ~k.SEEN & ~k.OPEN, 0.0, True, BadgeState.OK),
        (10.0, FINE & ~k.SEEN & ~k.OPEN, 0.0, False, BadgeState.OK),
    ],
)
def test_each_condition_of_a_position_without_a_mark(
    qty: float, flags: int, mark_age_s: float, regular: bool, state: BadgeState
) -> None:
    facts = flagged(flags, 3)
    facts.table[3, k.QTY], facts.table[3, k.MARK_AGE_NS] = qty, mark_age_s * S
    facts = replace(facts, index=replace(facts.index, regular_hours=regular))
    assert dd(facts, G, begun(), NOW)[0].state == state


def test_equity_that_lacks_a_mark_is_waited_for_and_not_taken_for_a_broken_rule() -> None:
    facts = flagged(FINE & ~k.SEEN & ~k.OPEN, 3)
    facts.table[3, k.QTY], facts.totals[k.PNL_TOTAL_USD] = 10.0, math.nan
    assert dd(facts, G, begun(), NOW)[0].state == BadgeState.WARMING


# CONF


def models(**changes: Any) -> Facts:
    facts = quiet()
    return replace(facts, models=replace(facts.models, **changes))


@pytest.mark.parametrize("changes", [{"loaded": False}, {"service_alive": False}])
def test_without_a_model_or_its_service_there_is_no_verdict(changes: dict[str, Any]) -> None:
    found, state = conf(models(ema=[0.1] * 8, **changes), G, ConfState(NOW - 70 * S), NOW)
    assert (found.state, found.breach, state.since_ns) == (BadgeState.WARMING, Breach.NONE, 0)


@pytest.mark.parametrize("flags", [HALTED, CLOSED])
def test_symbols_that_do_not_trade_are_not_counted(flags: int) -> None:
    facts = models(ema=[0.1] * 8)
    facts.table[:4, k.FLAGS] = flags
    assert conf(facts, G, ConfState(), NOW)[0].value == 4.0


def test_the_states_of_conf_between_its_numbers() -> None:
    three, _ = conf(models(ema=[0.1] * 3 + [0.9] * 5), G, ConfState(), NOW)
    assert three.state == BadgeState.OK
    five, _ = conf(models(ema=[0.1] * 5 + [0.9] * 3), G, ConfState(), NOW)
    assert (five.state, five.block_reasons) == (BadgeState.WARN, 0)
    lowest, _ = conf(models(ema=[0.9, 0.8, 0.95] + [0.9] * 5), G, ConfState(), NOW)
    assert "lowest S1 0.80" in lowest.reason
    assert conf(models(warming=[True] * 8), G, ConfState(), NOW)[0].state == BadgeState.WARMING
    facts = models()
    facts.table[0, k.FLAGS] = FINE | k.STALE
    assert conf(facts, G, ConfState(), NOW)[0].state == BadgeState.OK, "one blind symbol blinds nobody else"
    facts = models(warming=[True] * 8)
    facts.table[:, k.FLAGS] = k.VALID
    assert conf(facts, G, ConfState(), NOW)[0].state == BadgeState.WARMING, "never seen is not closed"


# DRIFT


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        (FINE, True),
        (FINE & ~k.SEEN, False),
        (FINE & ~k.OPEN, False),
        (FINE | k.STALE, False),
        (FINE | k.STALE | k.CROSSED, True),
    ],
)
def test_which_book_without_a_mid_keeps_what_was_seen(flags: int, kept: bool) -> None:
    facts = flagged(flags, 0)
    facts.table[0, k.DRIFT_PCT] = math.nan
    _, state = drift(facts, G, DriftState((NOW, *(0,) * 7), (1.0,) * 8), NOW + S)
    assert bool(state.since_ns[0]) == kept


def test_a_drift_needs_a_quote_after_the_first_one() -> None:
    facts = quiet()
    facts.table[2, k.DRIFT_PCT], facts.table[2, k.QUOTES] = 3.0, 5.0
    first, state = drift(facts, G, DriftState(), NOW)
    assert (first.state, first.symbols) == (BadgeState.WARN, 0b100)
    assert drift(facts, G, state, NOW + 2 * S)[0].breach == Breach.NONE, "the same quote, only older"
    facts.table[2, k.QUOTES] = 6.0
    assert drift(facts, G, state, NOW + 2 * S)[0].breach == Breach.KILL
    calm, _ = drift(quiet(), G, DriftState(), NOW)
    assert (calm.state, calm.symbols) == (BadgeState.OK, 0)
