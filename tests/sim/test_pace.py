"""How soon a simulation looks again, and that hours pass quickly when nothing happens."""

from __future__ import annotations

import math

import pytest

from engine.sim.pace import CLOSE, HOT_NS, WIDE, Pace, Situation
from engine.sim.run import Fading

S = 1_000_000_000
LEASE_STARVED_NS = 250_000_000


@pytest.mark.parametrize("pace", [CLOSE, WIDE])
def test_right_after_something_has_happened_it_looks_as_often_as_the_watchdog(pace: Pace) -> None:
    for situation in Situation:
        assert pace.interval_ns(100 * S, situation, 101 * S, 100 * S) == HOT_NS


def test_the_longer_nothing_happens_the_less_often_a_wide_pace_looks() -> None:
    found = [WIDE.interval_ns(t, Situation.IDLE, 0, 0) for t in (S, 10 * S, 60 * S, 1000 * S)]
    assert found == sorted(found)
    assert found[-1] == WIDE.most_ns[Situation.IDLE]
    assert found[1] <= 4 * S, "a deadline is noticed late by at most a third of its time"


@pytest.mark.parametrize("pace", [CLOSE, WIDE])
def test_a_hanging_process_is_watched_so_often_that_the_watchdog_is_not_starved(pace: Pace) -> None:
    assert pace.interval_ns(1000 * S, Situation.HUNG, 0, 0) < LEASE_STARVED_NS


@pytest.mark.parametrize("pace", [CLOSE, WIDE])
def test_every_situation_has_a_longest_interval_that_grows_with_its_calm(pace: Pace) -> None:
    found = [pace.most_ns[situation] for situation in Situation]
    assert found == sorted(found)


def test_a_value_that_goes_down_is_waited_for_and_one_that_stands_still_is_not() -> None:
    fading = Fading(0)
    assert fading.fades(4.0, 10 * S)
    assert fading.fades(3.0, 65 * S)
    assert fading.fades(3.0, 120 * S)
    assert not fading.fades(3.0, 126 * S)
    assert fading.fades(2.9, 130 * S)
    assert not fading.fades(0.0, 131 * S)
    assert not fading.fades(math.nan, 132 * S)


def test_nothing_is_waited_for_longer_than_half_an_hour() -> None:
    fading = Fading(0)
    assert fading.fades(4.0, 1799 * S)
    assert not fading.fades(3.0, 1801 * S)
