"""The checks themselves: each lets the right thing pass and names the wrong one."""

from __future__ import annotations

import pytest

from engine.domain.codes import Badge, Owner
from engine.sim import invariants as rules
from engine.sim.invariants import Exposure
from engine.sim.plan import GROUPS, Kind, UnknownFaults, harmless, kinds_of, plan
from engine.sim.shrink import shrink

LONG = Exposure(100.0, 0.0, 0.0)


def test_an_order_that_adds_risk_while_a_stop_holds_is_named() -> None:
    assert rules.stopped(LONG, 1, 1, entries_allowed=False, lease_valid=True)
    assert rules.stopped(LONG, 1, 1, entries_allowed=True, lease_valid=False)
    assert not rules.stopped(LONG, 1, 1, entries_allowed=True, lease_valid=True)


def test_a_reducing_order_passes_every_stop_but_never_past_zero() -> None:
    assert not rules.stopped(LONG, -1, 100, entries_allowed=False, lease_valid=False)
    assert rules.stopped(LONG, -1, 101, entries_allowed=False, lease_valid=False)
    assert rules.stopped(Exposure(100.0, 0.0, 30.0), -1, 71, entries_allowed=False, lease_valid=False)
    assert not rules.stopped(Exposure(-50.0, 20.0, 0.0), 1, 30, entries_allowed=False, lease_valid=False)


def test_worst_exposure_counts_what_works_on_either_side() -> None:
    assert Exposure(10.0, 5.0, 40.0).worst() == 30.0
    assert Exposure(-10.0, 5.0, 40.0).worst() == 50.0


def test_positions_that_differ_are_named() -> None:
    assert not rules.agrees([10.0, 0.0], {0: 10.0}, [10.0, 0.0])
    assert "ours 10" in rules.agrees([10.0], {0: 10.0}, [9.0])
    assert rules.agrees([10.0], {0: 9.0}, [10.0])


def test_an_execution_twice_or_missing_or_different_is_named() -> None:
    assert rules.applied_once(["a", "b", "a"])
    assert not rules.applied_once(["a", "b"])
    truth = {"a": (5.0, 10.0)}
    assert not rules.same_fills(truth, truth)
    assert "never" in rules.same_fills({}, truth)
    assert rules.same_fills({"a": (5.0, 10.1)}, truth)
    assert "not the broker's" in rules.same_fills({**truth, "b": (1.0, 1.0)}, truth)


def test_what_is_left_after_kill_is_named() -> None:
    assert not rules.flat({0: 0.0}, 0)
    assert "+5" in rules.flat({0: 5.0}, 0)
    assert "1 orders" in rules.flat({0: 0.0}, 1)


def test_exposure_above_a_limit_is_named() -> None:
    assert not rules.within_limits(100.0, 500.0, 100.0, 500.0)
    assert rules.within_limits(100.1, 100.1, 100.0, 500.0)
    assert rules.within_limits(90.0, 500.1, 100.0, 500.0)


def test_only_the_owner_of_the_right_sends_and_one_an_epoch() -> None:
    assert not rules.one_owner("bridge", Owner.BRIDGE, True, "bridge")
    assert rules.one_owner("bridge", Owner.WATCHDOG, True, "")
    assert rules.one_owner("emergency", Owner.BRIDGE, False, "")
    assert rules.one_owner("emergency", Owner.WATCHDOG, False, "bridge")
    assert rules.one_owner("bridge", Owner.NOBODY, True, "")


def test_a_stop_that_goes_without_an_operator_is_named() -> None:
    assert rules.released((True, False), (False, False), False, False)
    assert not rules.released((True, False), (False, False), True, False)
    assert rules.released((False, True), (False, False), True, False)
    assert not rules.released((False, True), (False, False), False, True)


def test_more_than_fifty_messages_a_second_are_named() -> None:
    times = [k * 20_000_000 for k in range(51)]
    assert not rules.paced(times)
    assert rules.paced([t - k * 1000 for k, t in enumerate(times)])


def test_a_kill_needs_a_cause_of_its_kind() -> None:
    assert rules.caused(1 << Badge.DD, {})
    assert rules.caused(1 << Badge.DD, {Kind.NAN: 0.0})
    assert not rules.caused(1 << Badge.DD, {Kind.INDEX_MOVE: 10.0})
    assert not rules.caused(1 << Badge.DD, {}, lost_share=0.95), "the broker's own books show the loss"
    assert rules.caused(1 << Badge.DD, {}, lost_share=0.5)
    assert not rules.caused(1 << Badge.DD, {}, unmarked=True), "the market was silent in what is held"
    assert rules.caused(1 << Badge.POS, {}, unmarked=True)
    assert rules.caused(1 << Badge.DRIFT, {}, lost_share=2.0)
    assert rules.caused(1 << Badge.DD, {Kind.INDEX_MOVE: 1000.0})


def test_every_kind_has_a_group_and_every_badge_that_kills_has_causes() -> None:
    assert set(GROUPS["all"]) == set(Kind) - {Kind.RESET}, "the operator's habits reset often enough"
    assert set(rules.CAUSES) == set(Badge) - {Badge.SPREAD}


def test_faults_are_chosen_by_group_and_name_and_taken_away() -> None:
    assert kinds_of("1100,crash") == (Kind.BROKER_LOST, Kind.CRASH)
    assert Kind.CRASH not in kinds_of("all,-process")
    with pytest.raises(UnknownFaults, match="'crahs' is not known; allowed are link, orders"):
        kinds_of("crahs")


def test_a_plan_has_about_as_many_deeds_as_asked_and_harmless_ones_stay_harmless() -> None:
    deeds = plan(5, 10.0, kinds_of("all"), 100.0, 4)
    assert 850 < len(deeds) < 1150
    assert {d.kind for d in deeds} == set(GROUPS["all"])
    calm = harmless(5, 24.0, 10.0)
    assert len(calm) > 100
    assert all(d.kind in GROUPS["harmless"] and d.for_ns < 60e9 for d in calm)


def test_a_plan_is_shrunk_to_what_is_needed() -> None:
    tried = []

    def fails(deeds: tuple[int, ...]) -> bool:
        tried.append(deeds)
        return 13 in deeds and 71 in deeds

    assert shrink(range(100), fails) == (13, 71)
    assert len(tried) < 60
    assert shrink((1,), lambda _: True) == ()
