"""The watchdog before everything else, where the host grants it; and never for longer than a turn."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine import topology
from engine.cli import doctor
from engine.runtime import priority
from engine.runtime.testing import instance

SPINS = """
import os, sys, threading, time
from engine.runtime import priority
helper = threading.Thread(target=time.sleep, args=(60,), daemon=True)
helper.start()
refused = priority.go_first()
plain = [os.sched_getscheduler(t) & ~os.SCHED_RESET_ON_FORK for t in (0, helper.native_id)]
print(refused or "first", *plain, flush=True)
late = threading.Thread(target=time.sleep, args=(60,), daemon=True)
late.start()
print(os.sched_getscheduler(late.native_id), flush=True)
until = time.monotonic() + 20
while priority.is_first(os.getpid()) and time.monotonic() < until:
    pass  # a fault: it never sleeps
print(os.sched_getscheduler(0), os.sched_getscheduler(helper.native_id), flush=True)
"""


def test_a_watchdog_that_spins_falls_back_to_an_ordinary_priority() -> None:
    done = subprocess.run([sys.executable, "-c", SPINS], capture_output=True, text=True, timeout=60, check=True)
    granted, started, after = (line.split(" ") for line in done.stdout.splitlines())
    if priority.trial():  # this host grants nothing: then it says so and stays as it was
        assert granted[0] != "first"
        return
    assert granted == ["first", str(os.SCHED_RR), str(os.SCHED_RR)], "helper threads hold the interpreter's lock, too"
    assert started == [str(os.SCHED_OTHER)], "what it starts has no such turns"
    assert after == [str(os.SCHED_OTHER), str(os.SCHED_OTHER)]


def test_the_trial_leaves_this_process_as_it_is() -> None:
    before = os.sched_getscheduler(0)
    priority.trial()
    assert os.sched_getscheduler(0) == before
    assert not priority.is_first(os.getpid())
    assert not priority.is_first(4_194_304 + 1)


def test_doctor_says_whether_the_watchdog_goes_first(tmp_path: Path) -> None:
    with instance(tmp_path) as inst:
        found = doctor.scheduling(inst.config)
        assert (found.status == doctor.OK) == (not priority.trial())
        assert "SCHED_RR" in found.found or "LimitRTPRIO" in found.fix
    with instance(tmp_path / "off", {"runtime": {"realtime": False}}) as inst:
        assert "not asked for" in doctor.scheduling(inst.config).found


def test_asking_for_short_turns_changes_nothing_else() -> None:
    before = (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0))
    priority.ask_for_short_turns()
    assert (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)) == before


def test_who_spins_gets_no_real_time_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(priority, "go_first", lambda: asked.append("first") or "")
    monkeypatch.setattr(priority, "ask_for_short_turns", lambda: asked.append("short"))
    monkeypatch.setattr(os, "setpriority", lambda *_: None)
    with instance(tmp_path) as inst:
        for service, sleeps in ((topology.WATCHDOG, True), (topology.WATCHDOG, False), (topology.BRIDGE, True)):
            priority.prioritise(inst.context(service), sleeps=sleeps)
    assert asked == ["first", "short", "short"], "one that spins, or is not the watchdog, has short turns alone"
