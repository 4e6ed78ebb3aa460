"""All agents in one thread: the same seed gives the same run, and no invariant breaks."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from engine.sim.run import Ask, deeds_of, simulate

pytestmark = pytest.mark.timeout(900)  # a busy host runs it a tenth as fast
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
    outcome = simulate(Ask(seed=1, hours=0.1, per_hour=2200.0, messages_per_s=220.0))
    assert not outcome.broken, [str(b) for b in outcome.broken]
    assert outcome.counts.events >= 100_000
    assert outcome.counts.deeds >= 200


@pytest.mark.stress
def test_a_million_events_with_two_thousand_faults_break_no_invariant() -> None:
    events = deeds = 0
    for seed in range(10, 18):
        outcome = simulate(Ask(seed=seed, hours=0.11, per_hour=2400.0, messages_per_s=270.0))
        assert not outcome.broken, (seed, [str(b) for b in outcome.broken])
        events, deeds = events + outcome.counts.events, deeds + outcome.counts.deeds
    assert events >= 1_000_000
    assert deeds >= 2_000


def test_link_flaps_and_planned_restarts_never_kill() -> None:
    outcome = simulate(Ask(seed=2, hours=0.2, faults="harmless", per_hour=120.0, cooling_s=300.0))
    assert not outcome.broken, [str(b) for b in outcome.broken]
    assert outcome.counts.deeds >= 3
    assert outcome.kills == ()


def test_a_plan_is_a_function_of_its_seed() -> None:
    assert deeds_of(SHORT) == deeds_of(SHORT)
    assert deeds_of(SHORT) != deeds_of(replace(SHORT, seed=4))
    assert deeds_of(replace(SHORT, deeds=())) == ()
