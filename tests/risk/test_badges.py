"""Clauses of the badges that stand between two numbers: modes, boundaries, persistence, words."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from rule_facts import FINE, MS, S, quiet, with_link

from engine.config import Guardrails
from engine.domain.codes import Badge, BadgeState, BlockReason
from engine.risk.guardrails import kernels as k
from engine.risk.guardrails.blocks import Duties, blocks
from engine.risk.guardrails.dd import DdState, anchored, dd, lifted
from engine.risk.guardrails.drift import DriftState, drift
from engine.risk.guardrails.evaluate import Evaluator
from engine.risk.guardrails.facts import AccountFacts, IndexFacts
from engine.risk.guardrails.lat import LatState, lat
from engine.risk.guardrails.pos import PosState, pos
from engine.risk.guardrails.result import Breach
from engine.risk.guardrails.spread import SpreadState, held_too_long, spread

G = Guardrails()
NOW = 100 * S


def test_a_wide_spread_with_a_position_warns_after_thirty_seconds_and_names_it() -> None:
    facts, state = quiet(), SpreadState()
    facts.table[2, k.SPREAD_BPS], facts.table[2, k.QTY] = 60.0, 10.0
    result, state = spread(facts, G, state, NOW)
    assert "position open" not in result.reason
    late, state = spread(facts, G, state, NOW + 30 * S)
    assert "position open 30 s in S2" in late.reason
    assert held_too_long(state, facts, G, NOW + 30 * S) == 0b100
    facts.table[2, k.QTY] = 0.0
    assert held_too_long(state, facts, G, NOW + 30 * S) == 0, "without a position nobody is woken"


def test_a_spread_says_its_numbers_and_a_halted_or_closed_symbol_has_none() -> None:
    facts = quiet()
    facts.table[1, k.SPREAD_BPS] = 31.5
    assert "S1 31.5 bps above 25.0" in spread(facts, G, SpreadState(), NOW)[0].reason
    for flags in (FINE | k.HALTED, FINE & ~k.OPEN):
        facts.table[1, k.FLAGS] = flags
        assert spread(facts, G, SpreadState(), NOW)[0].block_symbols == 0


def test_gross_exposure_has_its_own_limit() -> None:
    facts = quiet()
    facts.table[:, k.EXPOSURE_USD] = facts.table[:, k.WORST_USD] = 70_000.0
    facts.totals[k.GROSS_USD] = facts.totals[k.GROSS_WORST_USD] = 560_000.0
    result, _ = pos(facts, G, PosState(), NOW)
    assert result.breach == Breach.KILL
    assert result.reason == "gross exposure 560,000 above 500,000 USD"


def test_the_grace_of_unknown_orders_begins_anew_when_the_excess_was_gone() -> None:
    facts, state = quiet(), PosState()
    facts.table[0, k.WORST_USD] = 110_000.0
    _, state = pos(facts, G, state, NOW)
    facts.table[0, k.WORST_USD] = 0.0
    _, state = pos(facts, G, state, NOW + 9 * S)
    facts.table[0, k.WORST_USD] = 110_000.0
    result, _ = pos(facts, G, state, NOW + 11 * S)
    assert result.breach == Breach.BLOCK


@pytest.mark.parametrize(
    ("mode", "breach"), [("start", Breach.NONE), ("peak", Breach.KILL), ("both", Breach.KILL)]
)  # fmt: skip
def test_where_a_loss_is_measured_from(mode: str, breach: Breach) -> None:
    facts, g = quiet(), Guardrails(drawdown_from=mode)  # type: ignore[arg-type]
    state = anchored(DdState(), facts, 1)
    facts.totals[k.PNL_TOTAL_USD] = 4_000.0
    for step in range(3):
        _, state = dd(facts, g, state, NOW + step * 150 * MS)
    facts.totals[k.PNL_TOTAL_USD] = -1_500.0
    result, _ = dd(facts, g, state, NOW + S)
    assert result.breach == breach


@pytest.mark.parametrize(("theirs", "warns"), [(1_001_900.0, False), (1_002_100.0, True), (997_900.0, True)])
def test_own_equity_away_from_the_brokers_warns_and_never_kills(theirs: float, warns: bool) -> None:
    facts = quiet()
    state = anchored(DdState(), facts, 1)
    apart = replace(facts, account=AccountFacts(True, theirs))
    result, _ = dd(apart, G, state, NOW)
    assert (result.state == BadgeState.WARN, result.breach) == (warns, Breach.NONE)


def test_the_binding_limit_is_shown_whichever_it_is() -> None:
    facts = replace(quiet(), account=AccountFacts(True, 80_000.0))
    state = anchored(DdState(), facts, 1)
    facts.totals[k.PNL_TOTAL_USD] = -3_500.0
    assert dd(facts, G, state, NOW)[0].limit == 4_000.0
    assert dd(quiet(), G, anchored(DdState(), quiet(), 1), NOW)[0].limit == 5_000.0


def test_a_trip_locks_the_day_and_an_override_measures_anew() -> None:
    facts = quiet()
    state = anchored(DdState(), facts, 1)
    facts.totals[k.PNL_TOTAL_USD] = -5_001.0
    result, state = dd(facts, G, state, NOW)
    assert (result.breach, result.locks_day) == (Breach.KILL, True)
    state = lifted(state, 7)
    assert dd(facts, G, state, NOW)[0].breach == Breach.NONE
    facts.totals[k.PNL_TOTAL_USD] = -10_003.0
    assert dd(facts, G, state, NOW)[0].breach == Breach.KILL


@pytest.mark.parametrize(
    ("age_s", "regular", "waited_s", "blocked"),
    [
        (14.0, True, 0, False),
        (16.0, True, 0, True),
        (16.0, False, 0, False),
        (-1, True, 14, False),
        (-1, True, 16, True),
    ],
)
def test_a_silent_index_blocks_in_regular_hours_only(age_s: float, regular: bool, waited_s: int, blocked: bool) -> None:
    index = IndexFacts(True, 40_000.0, 0.0, int(age_s * S) if age_s >= 0 else -1, regular, waited_s * S)
    result, _ = dd(replace(quiet(), index=index), G, anchored(DdState(), quiet(), 1), NOW)
    assert (result.breach == Breach.BLOCK) == blocked
    assert (result.block_reasons == 1 << BlockReason.INDEX_STALE) == blocked


def test_an_old_index_value_moves_nothing() -> None:
    index = IndexFacts(True, 40_000.0, -9.0, 16 * S, True)
    assert dd(replace(quiet(), index=index), G, anchored(DdState(), quiet(), 1), NOW)[0].breach == Breach.BLOCK


def test_unmarked_equity_kills_after_sixty_seconds_only_with_an_open_unhalted_position() -> None:
    for flags, qty, breach in (
        (FINE | k.STALE, 10.0, Breach.KILL),
        (FINE | k.STALE, 0.0, Breach.NONE),
        (FINE | k.STALE | k.HALTED, 10.0, Breach.NONE),
        ((FINE | k.STALE) & ~k.OPEN, 10.0, Breach.NONE),
    ):
        facts = quiet()
        facts.table[3, k.FLAGS], facts.table[3, k.QTY] = flags, qty
        state = anchored(DdState(), facts, 1)
        for at in (0, 59):
            result, state = dd(facts, G, state, NOW + at * S)
            assert result.breach == Breach.NONE
        assert dd(facts, G, state, NOW + 60 * S)[0].breach == breach


@pytest.mark.parametrize(("scope", "breach"), [("all", Breach.KILL), ("symbol", Breach.SYMBOL_KILL)])
def test_drift_kills_all_or_its_symbol_alone(scope: str, breach: Breach) -> None:
    facts, g = quiet(), Guardrails(drift_scope=scope)  # type: ignore[arg-type]
    facts.table[4, k.DRIFT_PCT], facts.table[4, k.QUOTES] = 2.1, 1.0
    _, state = drift(facts, g, DriftState(), NOW)
    facts.table[4, k.QUOTES] = 3.0
    result, _ = drift(facts, g, state, NOW + S)
    assert (result.breach, result.symbols) == (breach, 1 << 4)
    assert "S4 2.10 % from fair value" in result.reason


def test_a_lost_link_is_stale_and_not_slow() -> None:
    down = with_link(quiet(), link=0, rtts_ns=(900 * MS,) * 5)
    result, _ = lat(down, G, LatState(), NOW)
    assert (result.state, result.breach) == (BadgeState.STALE, Breach.NONE)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (FINE | k.STALE, BlockReason.STALE_DATA),
        (FINE & ~k.VALID, BlockReason.STALE_DATA),
        (FINE & ~k.OPEN, BlockReason.SESSION_CLOSED),
        (FINE | k.HALTED, BlockReason.HALTED),
    ],
)
def test_facts_of_one_symbol_block_it_alone(flags: int, reason: BlockReason) -> None:
    facts = quiet()
    facts.table[5, k.FLAGS] = flags
    found = blocks(facts, Duties())
    assert (found.reasons, found.symbols) == (0, 1 << 5)
    assert found.symbol_reasons >> reason & 1


@pytest.mark.parametrize(
    ("duty", "reason"),
    [
        ("recorder_behind", BlockReason.RECORDER_BEHIND), ("disk_low", BlockReason.DISK),
        ("algo_down", BlockReason.ALGO_DOWN), ("ml_down", BlockReason.ML_DOWN),
        ("evaluator_slow", BlockReason.EVALUATOR_SLOW), ("scope_unanswered", BlockReason.SCOPE_UNANSWERED),
    ],
)  # fmt: skip
def test_facts_of_the_system_block_everything(duty: str, reason: BlockReason) -> None:
    assert blocks(quiet(), Duties(**{duty: True})).reasons == 1 << reason


@pytest.mark.parametrize("badge", [Badge.POS, Badge.DD])
def test_a_value_that_is_not_a_number_kills_with_the_badges_name(badge: Badge) -> None:
    facts = quiet()
    facts.table[0, k.EXPOSURE_USD] = facts.totals[k.GROSS_USD] = math.nan
    facts.totals[k.PNL_TOTAL_USD] = math.nan
    evaluator = Evaluator(G)
    evaluator.states[Badge.DD] = replace(anchored(DdState(), quiet(), 1))
    result = evaluator.run(badge, facts, NOW)
    assert result.breach == Breach.KILL
    assert badge.name in result.reason


def test_a_worst_case_that_is_not_a_number_kills() -> None:
    facts = quiet()
    facts.table[0, k.WORST_USD] = math.nan
    assert Evaluator(G).run(Badge.POS, facts, NOW).breach == Breach.KILL


def test_equity_without_an_account_of_it_is_waited_for() -> None:
    facts = quiet()
    facts.totals[k.PNL_TOTAL_USD] = math.nan
    assert Evaluator(G).run(Badge.DD, facts, NOW).state == BadgeState.WARMING, "before the day has begun"


def test_confidence_that_is_not_a_number_is_none() -> None:
    facts = quiet()
    facts = replace(facts, models=replace(facts.models, ema=[math.nan] * len(facts.names)))
    evaluator = Evaluator(G)
    evaluator.run(Badge.CONF, facts, NOW)
    assert evaluator.run(Badge.CONF, facts, NOW + int(G.confidence_kill_s * S)).breach == Breach.KILL


def test_a_book_that_locks_for_a_moment_has_not_come_back_to_fair_value() -> None:
    facts, state = quiet(), DriftState()
    for i in range(20):
        locked = i % 9 == 8
        facts.table[0, k.DRIFT_PCT] = math.nan if locked else 3.0
        facts.table[0, k.QUOTES] += 1
        result, state = drift(facts, G, state, NOW + i * 100_000_000)
    assert result.breach == Breach.KILL
    facts.table[0, k.DRIFT_PCT] = math.nan
    facts.table[0, k.FLAGS] = int(facts.table[0, k.FLAGS]) | k.STALE
    assert not drift(facts, G, state, NOW + 3 * S)[1].since_ns[0], "of a dead book nothing is known"
