from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_facts import FINE, MS, S, quiet, with_link

from engine.config import Guardrails
from engine.domain.codes import Badge, BadgeState, BlockReason, TickKind
from engine.risk.guardrails import kernels as k
from engine.risk.guardrails.blocks import Duties, blocks
from engine.risk.guardrails.conf import ConfState, conf
from engine.risk.guardrails.cool import CoolState, cool
from engine.risk.guardrails.dd import DdState, anchored, dd
from engine.risk.guardrails.drift import DriftState, drift
from engine.risk.guardrails.evaluate import RULES, Evaluator
from engine.risk.guardrails.facts import AccountFacts, IndexFacts, StreamFacts
from engine.risk.guardrails.lat import LatState, both_mute, lat
from engine.risk.guardrails.pos import PosState, pos
from engine.risk.guardrails.result import BadgeResult, Breach
from engine.risk.guardrails.spread import SpreadState, spread
from shm.layouts import BOOK, POSITION, TICK

G = Guardrails()
NOW = 100 * S
some = settings(max_examples=60, deadline=None)


@some
@given(st.floats(0.1, 200.0), st.floats(0.1, 20.0), st.integers(0, 7))
def test_spread_blocks_exactly_above_its_limit(value: float, median: float, symbol: int) -> None:
    facts = quiet()
    limit = max(25.0, 4 * median)
    facts.table[symbol, k.SPREAD_BPS], facts.table[symbol, k.SPREAD_LIMIT_BPS] = value, limit
    result, _ = spread(facts, G, SpreadState(), NOW)
    assert (result.block_symbols == 1 << symbol) == (value > limit)
    assert (result.breach == Breach.BLOCK) == (value > limit)


def test_spread_of_an_empty_or_long_crossed_book_blocks_it() -> None:
    for flag in (k.EMPTY, k.CROSSED):
        facts = quiet()
        facts.table[3, k.FLAGS], facts.table[3, k.SPREAD_BPS] = FINE | flag, math.nan
        facts.table[3, k.MARK_AGE_NS] = 501 * MS
        assert spread(facts, G, SpreadState(), NOW)[0].block_symbols == 0b1000


def test_a_book_that_is_being_rebuilt_is_stale_data_and_not_a_wide_spread() -> None:
    facts = quiet()
    facts.table[3, k.FLAGS], facts.table[3, k.SPREAD_BPS], facts.table[3, k.MARK_AGE_NS] = FINE | k.EMPTY, math.nan, MS
    result, _ = spread(facts, G, SpreadState(), NOW)
    assert (result.state, result.block_symbols) == (BadgeState.STALE, 0)
    assert blocks(facts, Duties()).symbols == 0b1000


def test_spread_block_does_not_flicker() -> None:
    facts, state = quiet(), SpreadState()
    facts.table[0, k.SPREAD_BPS] = 30.0
    _, state = spread(facts, G, state, NOW)
    facts.table[0, k.SPREAD_BPS] = 24.0
    held, state = spread(facts, G, state, NOW + 499 * MS)
    freed, _ = spread(facts, G, state, NOW + 501 * MS)
    assert (held.block_symbols, freed.block_symbols) == (1, 0)


@some
@given(st.lists(st.floats(0, 150_000), min_size=8, max_size=8))
def test_position_kills_exactly_above_a_limit(exposures: list[float]) -> None:
    facts = quiet()
    facts.table[:, k.EXPOSURE_USD] = facts.table[:, k.WORST_USD] = exposures
    facts.totals[k.GROSS_USD] = facts.totals[k.GROSS_WORST_USD] = sum(exposures)
    result, _ = pos(facts, G, PosState(), NOW)
    assert (result.breach == Breach.KILL) == (max(exposures) > 100_000.0 or sum(exposures) > 500_000.0)
    assert (result.state == BadgeState.TRIPPED) == (result.value > result.limit)


def test_excess_through_unknown_orders_blocks_ten_seconds_before_it_kills() -> None:
    facts = quiet()
    facts.table[1, k.WORST_USD], facts.table[1, k.EXPOSURE_USD] = 100_001.0, 90_000.0
    first, state = pos(facts, G, PosState(), NOW)
    later, state = pos(facts, G, state, NOW + 10 * S - 1)
    last, _ = pos(facts, G, state, NOW + 10 * S)
    assert [r.breach for r in (first, later, last)] == [Breach.BLOCK, Breach.BLOCK, Breach.KILL]
    assert first.block_reasons == 1 << BlockReason.UNKNOWN_EXPOSURE


def test_warning_begins_at_eighty_percent_and_does_not_flicker() -> None:
    facts, state, states = quiet(), PosState(), []
    for exposure in (79_999.0, 80_000.0, 79_000.0, 75_001.0, 74_999.0):
        facts.table[0, k.EXPOSURE_USD] = exposure
        result, state = pos(facts, G, state, NOW)
        states.append(result.state)
    assert states == [BadgeState.OK, BadgeState.WARN, BadgeState.WARN, BadgeState.WARN, BadgeState.OK]


def rate_of(per_s: float, seconds: float, field: str, step_ms: int = 20) -> bool:
    state, killed = CoolState(), False
    for step in range(int(seconds * 1000 / step_ms)):
        t = step * step_ms
        count = int(per_s * t / 1000)
        account = (
            AccountFacts(True, 1e6, trades=count)
            if field == "trades"
            else AccountFacts(True, 1e6, intents=(count, 0, 0, 0, 0))
        )
        result, state = cool(replace(quiet(), account=account), G, state, NOW + t * MS)
        killed |= result.breach == Breach.KILL
    return killed


@pytest.mark.parametrize("field", ["trades", "intents"])
def test_a_runaway_of_three_seconds_kills_and_fifty_a_second_for_ever_does_not(field: str) -> None:
    assert rate_of(55.0, 4.5, field)
    assert not rate_of(50.0, 20.0, field)
    assert not rate_of(500.0, 2.0, field)


@some
@given(st.lists(st.integers(1, 1_000), max_size=5))
def test_api_kills_exactly_when_three_of_the_last_five_are_over(samples_ms: list[int]) -> None:
    facts = with_link(quiet(), rtts_ns=tuple(ms * MS for ms in samples_ms))
    result, _ = lat(facts, G, LatState(), NOW)
    assert (result.breach == Breach.KILL) == (sum(ms > 500 for ms in samples_ms) >= 3)
    if not samples_ms:
        assert result.state == BadgeState.WARMING


def test_an_outstanding_probe_counts_once_it_is_too_old() -> None:
    slow = (1 * MS, 1 * MS, 1 * MS, 600 * MS, 700 * MS)
    assert lat(with_link(quiet(), rtts_ns=slow, probe_age_ns=499 * MS), G, LatState(), NOW)[0].breach == Breach.NONE
    assert lat(with_link(quiet(), rtts_ns=slow, probe_age_ns=501 * MS), G, LatState(), NOW)[0].breach == Breach.KILL


def test_a_mute_connection_kills_only_while_the_emergency_connection_answers() -> None:
    mute = with_link(quiet(), silent_ns=2 * S, probe_age_ns=600 * MS)
    assert lat(mute, G, LatState(), NOW)[0].breach == Breach.NONE
    answers = with_link(mute, emergency_answer_age_ns=500 * MS)
    assert lat(answers, G, LatState(), NOW)[0].breach == Breach.KILL
    assert lat(with_link(answers, silent_ns=S), G, LatState(), NOW)[0].breach == Breach.NONE
    assert lat(with_link(answers, probe_age_ns=-1), G, LatState(), NOW)[0].breach == Breach.NONE, "nothing was asked"
    older = with_link(mute, emergency_answer_age_ns=700 * MS)
    assert lat(older, G, LatState(), NOW)[0].breach == Breach.NONE, "an answer from before the question proves nothing"


@pytest.mark.parametrize(("answer_age_ns", "lost"), [(-1, True), (2 * S, True), (S, False), (0, False)])
def test_a_gateway_silent_on_both_connections_is_a_lost_broker_and_not_a_mute_connection(
    answer_age_ns: int, lost: bool
) -> None:
    link = with_link(quiet(), silent_ns=2 * S, probe_age_ns=600 * MS, emergency_answer_age_ns=answer_age_ns).link
    assert both_mute(link, G) == lost
    facts = replace(quiet(), link=replace(link, both_mute=lost))
    assert facts.link.up != lost
    assert bool(blocks(facts, Duties()).reasons >> BlockReason.LINK_DOWN & 1) == lost


@pytest.mark.parametrize(
    ("gone_s", "alive", "chosen", "breach"),
    [
        (3.0, True, False, Breach.NONE),
        (3.1, True, False, Breach.PAUSE),
        (3.1, True, True, Breach.KILL),
        (60.0, False, True, Breach.NONE),
    ],
)
def test_stream_rule(gone_s: float, alive: bool, chosen: bool, breach: Breach) -> None:
    facts = replace(quiet(), stream=StreamFacts(int(gone_s * S), alive, chosen))
    assert lat(facts, G, LatState(), NOW)[0].breach == breach


def run_dd(pnl: list[float], **guardrails: object) -> BadgeResult:
    facts = quiet()
    g = Guardrails(**guardrails)  # type: ignore[arg-type]
    state = anchored(DdState(), facts, 20240102)
    for i, value in enumerate(pnl):
        facts.totals[k.PNL_TOTAL_USD] = value
        facts = replace(facts, account=replace(facts.account, net_liquidation_usd=1_000_000.0 + value))
        for repeat in range(3):
            result, state = dd(facts, g, state, NOW + i * S + repeat * 150 * MS)
    return result


@some
@given(st.floats(-20_000, 20_000))
def test_drawdown_from_the_start_kills_exactly_beyond_five_thousand(pnl: float) -> None:
    result = run_dd([pnl], drawdown_from="start")
    equity = 1_000_000.0 + pnl
    assert (result.breach == Breach.KILL) == (1_000_000.0 - equity > 5_000.0)


def test_drawdown_from_the_peak_binds_when_start_does_not() -> None:
    assert run_dd([3_000.0, -1_999.0]).breach == Breach.NONE
    result = run_dd([3_000.0, -2_001.0])
    assert result.breach == Breach.KILL
    assert "peak" in result.reason
    assert run_dd([3_000.0, -2_001.0], drawdown_from="start").breach == Breach.NONE


def test_five_percent_binds_on_a_small_account() -> None:
    facts = replace(quiet(), account=AccountFacts(True, 50_000.0))
    state = anchored(DdState(), facts, 1)
    facts.totals[k.PNL_TOTAL_USD] = -2_501.0
    result, _ = dd(facts, G, state, NOW)
    assert (result.breach, result.limit) == (Breach.KILL, 2_500.0)


def test_commissions_count_and_a_deposit_does_not() -> None:
    facts = quiet()
    state = anchored(DdState(), facts, 1)
    paid = replace(facts, account=AccountFacts(True, 1_500_000.0, commissions_usd=100.0))
    result, state = dd(paid, G, state, NOW)
    assert state.equity_usd == 999_900.0
    assert result.state == BadgeState.WARN
    assert "from the broker's" in result.reason


def test_a_height_that_does_not_last_is_no_peak() -> None:
    facts, _ = quiet(), None
    state = anchored(DdState(), facts, 1)
    facts.totals[k.PNL_TOTAL_USD] = 8_000.0
    _, state = dd(facts, G, state, NOW)
    facts.totals[k.PNL_TOTAL_USD] = 0.0
    result, state = dd(facts, G, state, NOW + MS)
    assert result.breach == Breach.NONE
    assert state.day.peak_usd == 1_000_000.0


@some
@given(st.floats(-10, 10))
def test_index_kills_exactly_beyond_five_percent_in_regular_hours(move: float) -> None:
    for regular in (True, False):
        facts = replace(quiet(), index=IndexFacts(True, 1.0, move, S, regular))
        state = anchored(DdState(), facts, 1)
        assert (dd(facts, G, state, NOW)[0].breach == Breach.KILL) == (regular and abs(move) > 5.0)


def test_confidence_needs_five_symbols_ten_seconds_to_block_and_sixty_to_kill() -> None:
    for low, n, at_kill in ((4, 8, Breach.NONE), (5, 8, Breach.KILL), (3, 3, Breach.BLOCK)):
        facts = quiet(n)
        facts = replace(facts, models=replace(facts.models, ema=[0.69] * low + [0.9] * (n - low)))
        state, found = ConfState(), []
        for at in (0, 9, 10, 59, 60):
            result, state = conf(facts, G, state, NOW + at * S)
            found.append(result.breach)
        expected = [Breach.NONE, Breach.NONE, Breach.BLOCK, Breach.BLOCK, at_kill] if at_kill else [Breach.NONE] * 5
        assert found == expected


def test_warming_symbols_do_not_count_for_confidence() -> None:
    facts = quiet()
    facts = replace(facts, models=replace(facts.models, ema=[0.1] * 8, warming=[True] * 4 + [False] * 4))
    result, _ = conf(facts, G, ConfState(), NOW)
    assert (result.state, result.value) == (BadgeState.WARN, 4.0)


def test_failing_validity_counts_like_low_confidence() -> None:
    facts = quiet()
    facts = replace(facts, models=replace(facts.models, valid=[False] * 5 + [True] * 3))
    state = conf(facts, G, ConfState(), NOW)[1]
    assert conf(facts, G, state, NOW + 60 * S)[0].breach == Breach.KILL


def test_models_without_a_live_book_are_no_verdict_however_long_the_outage() -> None:
    facts = quiet()
    facts = replace(facts, models=replace(facts.models, valid=[False] * 8))
    for broken in (k.SEEN | k.OPEN | k.WARMED, k.SEEN | k.OPEN | k.WARMED | k.VALID | k.STALE):
        facts.table[:, k.FLAGS] = broken
        state = ConfState()
        for at in (0, 10, 59):
            result, state = conf(facts, G, state, NOW + at * S)
            assert (result.state, result.breach) == (BadgeState.STALE, Breach.NONE)


@some
@given(st.floats(0, 6), st.integers(0, 3), st.integers(0, 3_000))
def test_drift_needs_the_distance_the_time_and_a_second_quote(distance: float, quotes: int, ms: int) -> None:
    facts = quiet()
    facts.table[2, k.DRIFT_PCT] = distance
    _, state = drift(facts, G, DriftState(), NOW)
    facts.table[2, k.QUOTES] += quotes
    result, _ = drift(facts, G, state, NOW + ms * MS)
    assert (result.breach == Breach.KILL) == (distance > 2.0 and quotes >= 1 and ms >= 1_000)


def test_one_bad_print_forgets_itself() -> None:
    facts, state = quiet(), DriftState()
    for i in range(20):
        facts.table[0, k.DRIFT_PCT] = 9.0 if i % 2 else 0.0
        facts.table[0, k.QUOTES] += 1
        result, state = drift(facts, G, state, NOW + i * 900 * MS)
        assert result.breach == Breach.NONE


@pytest.mark.parametrize("badge", list(RULES))
def test_quiet_facts_are_ok_for_every_rule_over_an_hour(badge: Badge) -> None:
    facts = quiet()
    evaluator = Evaluator(G)
    evaluator.states[Badge.DD] = anchored(DdState(), facts, 1)
    states = {evaluator.run(badge, facts, NOW + i * S).state for i in range(3_600)}
    assert states == {BadgeState.OK}


@pytest.mark.parametrize("badge", list(RULES))
def test_an_evaluator_that_raises_or_returns_nan_is_a_kill(badge: Badge) -> None:
    nan = BadgeResult(BadgeState.OK, math.nan, 1.0, "")
    for rule in (lambda *_: 1 / 0, lambda *_: (nan, None)):
        evaluator = Evaluator(G, {badge: (rule, None)})  # type: ignore[dict-item]
        assert evaluator.run(badge, quiet(), NOW).breach == Breach.KILL


def books(n: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    b, p = np.zeros(n, BOOK), np.zeros(n, POSITION)
    b["t_socket_ns"], b["updates"], b["valid"], b["session_open"] = NOW, 1, 1, 1
    b["bid_rows"] = b["ask_rows"] = 10
    b["bid_price"][:, 0], b["ask_price"][:, 0], b["spread_bps"] = 99.99, 100.01, 2.0
    b["spread_median_bps"] = b["gap_median_ns"] = b["fair_value"] = math.nan
    return b, p, np.array([25.0, 4.0, 0.5e9, 5e9, 20.0, 1.0])


@pytest.mark.parametrize("compiled", [True, False])
def test_measure_agrees_with_hand_computed_values(compiled: bool) -> None:
    b, p, parameters = books()
    p["qty"], p["cash_flow_usd"], p["unknown_buy_qty"] = [10.0, -5.0], [-990.0, 510.0], [3.0, 0.0]
    memory, table, totals = k.new_memory(2), np.zeros((2, k.COLUMNS)), np.zeros(k.TOTALS)
    function = k.measure if compiled else k.measure.py_func

    def look(array: np.ndarray) -> np.ndarray:
        return array if compiled else array.view(np.recarray)

    function(look(b), look(p), 2, NOW, parameters, memory, table, totals)
    assert table[0, k.EXPOSURE_USD] == pytest.approx(1_000.0)
    assert table[0, k.WORST_USD] == pytest.approx(1_300.0)
    assert totals[k.GROSS_USD] == pytest.approx(1_500.0)
    assert totals[k.NET_USD] == pytest.approx(500.0)
    assert totals[k.PNL_TOTAL_USD] == pytest.approx(20.0)
    b["t_socket_ns"][1] = NOW - 5 * S - 1
    b["halted"][0] = 1
    function(look(b), look(p), 2, NOW, parameters, memory, table, totals)
    assert int(table[1, k.FLAGS]) & k.STALE
    assert not int(table[0, k.FLAGS]) & k.STALE
    assert table[0, k.MARK] == pytest.approx(100.0)


def test_a_single_quote_moves_no_mark_and_the_second_one_does() -> None:
    b, p, parameters = books(1)
    memory, table, totals = k.new_memory(1), np.zeros((1, k.COLUMNS)), np.zeros(k.TOTALS)
    marks = []
    for i, mid in enumerate((100.0, 90.0, 90.0, 100.0)):
        b["quotes"], b["bid_price"][:, 0], b["ask_price"][:, 0] = i + 1, mid - 0.01, mid + 0.01
        b["t_socket_ns"] = b["top_ns"] = NOW + i * MS
        k.measure(b, p, 1, NOW + i * MS, parameters, memory, table, totals)
        marks.append(round(float(table[0, k.MARK]), 2))
    assert marks == [100.0, 100.0, 90.0, 90.0]
    k.measure(b, p, 1, NOW + 300 * MS, parameters, memory, table, totals)
    assert table[0, k.MARK] == pytest.approx(100.0)


@pytest.mark.parametrize("compiled", [True, False])
def test_index_scan_finds_the_tick_that_moves_it_beyond_the_limit_either_way(compiled: bool) -> None:
    scan = k.scan_index if compiled else k.scan_index.py_func
    for sign in (1, -1):
        ticks = np.zeros(7, TICK)
        ticks["kind"], ticks["symbol"] = TickKind.INDEX, 8
        ticks["t_socket_ns"] = NOW + np.arange(7) * 10 * S
        ticks["price"] = 100.0 * (1 + sign * np.array([0, 0.01, 0.049, np.nan, -1e9 * sign, 0.0501, 0.0]))
        stamps, buckets, out = np.full(k.BUCKETS, k.NO_STAMP, np.int64), np.zeros((k.BUCKETS, 2)), np.zeros(3)
        breach = scan(ticks if compiled else ticks.view(np.recarray), 7, 8, 300 * S, 5.0, stamps, buckets, out)
        assert breach == NOW + 50 * S


def test_index_scan_forgets_what_is_older_than_the_window() -> None:
    ticks = np.zeros(2, TICK)
    ticks["kind"], ticks["symbol"], ticks["price"] = TickKind.INDEX, 8, [100.0, 106.0]
    for apart_s, found in ((300, True), (301, False)):
        ticks["t_socket_ns"] = [NOW, NOW + apart_s * S]
        stamps, buckets, out = np.full(k.BUCKETS, k.NO_STAMP, np.int64), np.zeros((k.BUCKETS, 2)), np.zeros(3)
        assert bool(k.scan_index(ticks, 2, 8, 300 * S, 5.0, stamps, buckets, out)) == found
