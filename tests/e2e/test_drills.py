"""Every guardrail on a whole running system, tripped by its real cause: the course that `l2dash drill` must see."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.drill.breakdowns import BREAKDOWNS
from engine.drill.catalogue import ALL, chosen
from engine.drill.scenarios import COMMON, SCENARIOS
from engine.drill.timeline import Timeline, figures_ms

ROOT = Path(__file__).resolve().parents[2]
KILLS = ("positions", "cause", "KILL latched", "flatten sent", "confirmed flat", "blotter", "reset", "ACTIVE")
QUIET = {"SPREAD", "FLAP"}


def drill(*arguments: str, timeout_s: float) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "engine.cli", "drill", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)
    return done.returncode, done.stdout, done.stderr


def steps(outcome: dict[str, Any]) -> list[str]:
    return [row["step"] for row in outcome["timeline"] if row["step"]]


def left_behind() -> list[Path]:
    return [p for p in Path("/dev/shm").glob("l2dash-drill-*") if p.is_dir()]


def check(outcome: dict[str, Any]) -> None:
    name, seen = outcome["name"], steps(outcome)
    assert outcome["passed"], f"{name}: {outcome['reason']}"
    if name in QUIET:
        assert "KILL latched" not in seen
        return
    order = [step for step in seen if step in KILLS]
    assert order == list(KILLS), f"{name}: {order}"
    assert {"cooling", "stays ACTIVE"} <= set(seen)


def test_every_badge_has_a_drill_and_each_name_is_known() -> None:
    badges = {"SPREAD", "POS", "COOL", "LAT", "DD", "KILL", "CONF", "DRIFT"}
    assert all(chosen(badge) for badge in badges)
    assert chosen("dd") == ("DD-LOSS", "DD-INDEX")
    assert chosen("all") == tuple(SCENARIOS)
    assert chosen("processes") == tuple(BREAKDOWNS)
    assert chosen("nothing") == ()


def test_each_process_has_a_drill_in_which_it_dies_and_one_in_which_it_hangs() -> None:
    alone = {"KILL-BRIDGE", "STOP-BRIDGE", "KILL-WATCHDOG", "WATCHDOG-HUNG", "KILL-SERVICES", "STOP-SERVICES"}
    assert alone <= set(BREAKDOWNS)
    for name in ("KILL-SERVICES", "STOP-SERVICES"):
        assert BREAKDOWNS[name].settings["runtime"] == {"placement": "dedicated"}, "guests of one process hang together"


def test_the_first_of_several_causes_is_time_zero_and_each_step_is_measured_from_its_own() -> None:
    course, s = Timeline(), 1_000_000_000
    course.add(9 * s, "drill", "holding", "positions")
    course.cause(10 * s, "drill", "kill -9 of algo")
    course.add(12 * s, "drill", "kept", "guarded without algo")
    course.cause(20 * s, "drill", "kill -9 of cockpit")
    course.add(23 * s, "drill", "kept", "guarded without cockpit")
    course.add(11 * s, "watchdog", "told late", "")
    assert [(row["t_s"], row["since_s"]) for row in course.shown()] == [
        (-1.0, None), (0.0, 0.0), (1.0, 1.0), (2.0, 2.0), (10.0, 0.0), (13.0, 3.0),
    ]  # fmt: skip
    assert figures_ms(course) == {"cause": 0.0, "guarded without algo": 2_000.0, "guarded without cockpit": 3_000.0}


@pytest.mark.parametrize("name", list(ALL))
def test_the_settings_of_a_drill_are_a_valid_configuration(name: str) -> None:
    from engine.config import from_mapping
    from engine.drill.instance import merged

    config = from_mapping(merged(COMMON, ALL[name].settings))
    assert config.instance.mode == "sim"


def test_an_unknown_drill_is_named_with_those_that_exist() -> None:
    code, _, err = drill("NOPE", timeout_s=30)
    assert code == 2
    assert "NOPE" in err
    assert "DD-INDEX" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.system
@pytest.mark.timeout(280)
def test_index_alert_sends_the_closes_within_100_ms_and_locks_the_day() -> None:
    before = set(left_behind())
    code, out, err = drill("DD-INDEX", "--json", timeout_s=260)
    outcomes = json.loads(out)
    assert code == 0, outcomes[0]["reason"] if outcomes else err
    check(outcomes[0])
    assert {"day lock", "DD TRIPPED"} <= set(steps(outcomes[0]))
    assert set(left_behind()) <= before


@pytest.mark.system
@pytest.mark.stress
@pytest.mark.timeout(900)
def test_every_drill_takes_the_course_of_the_runbook() -> None:
    before = set(left_behind())
    names = [name for name in SCENARIOS if name != "DD-INDEX"]
    code, out, err = drill(*names, "--json", timeout_s=880)
    outcomes = json.loads(out)
    assert [o["name"] for o in outcomes] == names, err
    for outcome in outcomes:
        check(outcome)
    assert code == 0
    assert set(left_behind()) <= before


@pytest.mark.system
@pytest.mark.stress
@pytest.mark.timeout(300)
def test_with_everything_else_hung_or_mute_the_watchdog_gets_flat_by_itself() -> None:
    """Real processes: SIGSTOP of all but the watchdog; a bridge that lives but is mute; nobody restarts the bridge."""
    before = set(left_behind())
    names = ["BRIDGE-GONE", "STOP-ALL", "MUTE"]
    code, out, err = drill(*names, "--json", timeout_s=280)
    outcomes = json.loads(out)
    assert [o["name"] for o in outcomes] == names, err
    for outcome in outcomes:
        assert outcome["passed"], f"{outcome['name']}: {outcome['reason']}"
        assert {"fenced", "watchdog"} & set(steps(outcome))
        assert "gateway" in steps(outcome), "the gateway's own word"
    cancelled = next(row["t_s"] for row in outcomes[0]["timeline"] if row["step"] == "cancelled")
    assert cancelled < 1.0
    assert code == 0
    assert set(left_behind()) <= before


@pytest.mark.system
@pytest.mark.stress
@pytest.mark.timeout(300)
def test_random_kills_lose_double_and_leave_open_nothing() -> None:
    code, out, err = drill("chaos", "--kills", "5", "--seed", "3", "--json", timeout_s=280)
    found = json.loads(out)
    assert found["wrong"] == [], err
    assert found["reached"] == 5
    assert code == 0
