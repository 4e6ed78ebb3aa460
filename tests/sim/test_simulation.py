"""All agents in one thread: the same seed gives the same run, and no invariant breaks."""

from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from engine.sim.plan import Deed, Kind
from engine.sim.run import Ask, deeds_of, simulate

pytestmark = pytest.mark.timeout(900)  # a busy host runs it a tenth as fast
S = 1_000_000_000
SHORT = Ask(seed=3, hours=0.02, per_hour=900.0)


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def test_the_same_seed_gives_the_same_digest_in_this_and_in_another_process() -> None:
    program = (
        "import logging; logging.disable(logging.WARNING); from engine.sim.run import Ask, simulate; "
        f"o = simulate({SHORT!r}); print(o.digest, o.counts.events)"
    )
    env = {**os.environ, "PYTHONHASHSEED": "77"}
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env, timeout=300)
    mine = simulate(SHORT)
    assert other.stdout.split() == [mine.digest, str(mine.counts.events)], other.stderr
    assert simulate(replace(SHORT, seed=4)).digest != mine.digest


def test_a_hundred_thousand_events_with_two_hundred_faults_break_no_invariant() -> None:
    outcome = simulate(Ask(seed=1, hours=0.045, per_hour=6200.0, messages_per_s=200.0))
    assert not outcome.broken, [str(b) for b in outcome.broken]
    assert outcome.counts.events >= 100_000
    assert outcome.counts.deeds >= 200


@pytest.mark.stress
def test_a_million_events_with_two_thousand_faults_break_no_invariant() -> None:
    asks = [Ask(seed=seed, hours=0.05, per_hour=6200.0, messages_per_s=240.0) for seed in range(10, 18)]
    with multiprocessing.get_context("spawn").Pool(2, logging.disable, (logging.WARNING,)) as pool:
        outcomes = pool.map(simulate, asks, 1)
    for outcome in outcomes:
        assert not outcome.broken, (outcome.seed, [str(b) for b in outcome.broken])
    assert sum(o.counts.events for o in outcomes) >= 1_000_000
    assert sum(o.counts.deeds for o in outcomes) >= 2_000


def test_link_flaps_and_planned_restarts_never_kill() -> None:
    outcome = simulate(Ask(seed=2, hours=0.2, faults="harmless", per_hour=120.0, cooling_s=300.0))
    assert not outcome.broken, [str(b) for b in outcome.broken]
    assert outcome.counts.deeds >= 3
    assert outcome.kills == ()


@pytest.mark.parametrize("seed", [4, 6])
def test_a_short_restart_of_the_watchdog_finds_its_lease_fresh_however_long_nobody_had_looked(seed: int) -> None:
    """3.7 s are less than the bridge's patience, which must not begin at the last look before a jump of the clock."""
    deeds = tuple(Deed(t * S, Kind.PLANNED_STOP, "watchdog", 3_700_000_000) for t in (333, 777, 1_333, 1_555))
    ask = Ask(
        seed, 0.5, faults="harmless", deeds=deeds, messages_per_s=1.0, every_s=1800.0, cooling_s=300.0, pace="wide"
    )
    outcome = simulate(ask)
    assert not outcome.broken, [str(b) for b in outcome.broken]
    assert outcome.kills == ()


def test_any_kill_among_harmless_faults_is_a_broken_invariant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.sim.run.deeds_of", lambda _: (Deed(20 * S, Kind.KILL, "cli"),))
    assert [b.number for b in simulate(Ask(3, 0.02, faults="harmless")).broken] == [11]
    assert not simulate(Ask(3, 0.02)).broken, "an operator may do that"


def test_a_plan_is_a_function_of_its_seed() -> None:
    assert deeds_of(SHORT) == deeds_of(SHORT)
    assert deeds_of(SHORT) != deeds_of(replace(SHORT, seed=4))
    assert deeds_of(replace(SHORT, deeds=())) == ()


def test_a_cancel_that_waited_for_a_dead_bridge_leaves_no_bridge_without_the_right_to_send() -> None:
    """The new bridge finds the command in its ring before it has a connection, and while the watchdog still closes."""
    deeds = (
        Deed(20 * S, Kind.CRASH, "algo", 30 * S), Deed(22 * S, Kind.CRASH, "broker-bridge", 8 * S),
        Deed(25 * S, Kind.CANCEL_ALL, "cli"),
    )  # fmt: skip
    outcome = simulate(Ask(6, 0.012, faults="harmless", deeds=deeds, every_s=1.5))
    assert not outcome.broken, [str(b) for b in outcome.broken]


def test_a_half_open_emergency_connection_is_given_up_before_it_is_needed() -> None:
    """Nothing sent over it arrives, and nothing says so: a takeover would cancel into the void for ever."""
    deeds = (
        Deed(12 * S, Kind.HALF_OPEN, "emergency"), Deed(20 * S, Kind.CRASH, "algo", 200 * S),
        Deed(25 * S, Kind.CRASH, "broker-bridge", 170 * S),
    )  # fmt: skip
    outcome = simulate(Ask(6, 0.05, faults="harmless", deeds=deeds, every_s=1.5))
    assert not outcome.broken, [str(b) for b in outcome.broken]
    assert outcome.kills


def test_a_release_waits_for_a_fair_value_that_learns_slowly_in_a_thin_market() -> None:
    """Half a message a second: minutes of fresh data take longer than minutes, and DRIFT keeps KILL meanwhile."""
    deeds = (Deed(420 * S, Kind.SHOCK, value=8.0, symbol=2, for_ns=S),)
    ask = Ask(501, 0.125, deeds=deeds, messages_per_s=0.5, every_s=30.0, pace="wide")
    outcome = simulate(ask)
    assert not outcome.broken, [str(b) for b in outcome.broken]
    assert len(outcome.kills) == 1
    assert "DRIFT" in outcome.kills[0]


def test_hours_with_a_fault_every_ten_minutes_take_seconds() -> None:
    """Faster than real time by 100 x and more, also on a host that is busy with other things."""
    outcome = simulate(Ask(7, 2.0, per_hour=6.0, messages_per_s=1.0, every_s=1800.0, pace="wide"))
    assert not outcome.broken, [str(b) for b in outcome.broken]
    assert outcome.counts.deeds >= 6
    assert outcome.speed >= 100.0


@pytest.mark.stress
def test_a_bridge_that_read_before_the_watchdog_closed_gets_no_right_until_it_has_read_again() -> None:
    """Its books still hold what is closed already: a flatten through it would open the opposite."""
    deeds = (
        Deed(20 * S, Kind.CRASH, "algo", 60 * S), Deed(21 * S, Kind.SLOW_API, "bridge", 25 * S, value=2.0),
        Deed(21_300_000_000, Kind.CRASH, "broker-bridge", S), Deed(24_600_000_000, Kind.KILL, "cli"),
        Deed(27_200_000_000, Kind.FLATTEN, "cli"),
    )  # fmt: skip
    outcome = simulate(Ask(6, 0.012, faults="harmless", deeds=deeds, every_s=1.5))
    assert not outcome.broken, [str(b) for b in outcome.broken]


@pytest.mark.stress
@pytest.mark.parametrize("disk_full_s", [0, 60])
def test_a_flatten_begun_while_the_watchdog_had_the_right_is_continued_by_the_next_watchdog(disk_full_s: int) -> None:
    """Its closes are rejected, the bridge is back meanwhile, and the watchdog dies; also if the disk was full."""
    deeds = (
        Deed(20 * S, Kind.CRASH, "algo", 60 * S), Deed(22 * S, Kind.CRASH, "broker-bridge", 3 * S),
        Deed(22_400_000_000, Kind.DISK_FULL, "", disk_full_s * S), Deed(22_500_000_000, Kind.KILL, "cli"),
        Deed(22_500_000_001, Kind.REJECT, value=40.0), Deed(28 * S, Kind.CRASH, "watchdog", S),
        Deed(30 * S, Kind.REJECT, value=-40.0),
    )  # fmt: skip
    outcome = simulate(Ask(6, 0.012, faults="harmless", deeds=deeds, every_s=1.5))
    assert not outcome.broken, [str(b) for b in outcome.broken]
