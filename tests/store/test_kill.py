"""kill -9 of the real recorder process at random moments: nothing that stood in a ring is lost or doubled."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.config import dump
from engine.domain.codes import EventKind, ServiceState
from engine.runtime.instance import heartbeat
from engine.runtime.testing import TestInstance, instance
from engine.store.blocks import Records
from engine.store.files import StoreError
from engine.store.journal import journal_path, read_only, verify
from engine.store.read import day_gaps, iter_blocks, read_day, recorded_days

from .conftest import intent, ticks, until

ROUNDS, STRESS_ROUNDS = 4, 40
SERVICE = """
import sys
from pathlib import Path
from engine.config import load
from engine.runtime.runner import run_service
sys.exit(run_service("recorder", load(Path(sys.argv[1]))))
"""


def launch(world: TestInstance) -> subprocess.Popen[bytes]:
    path = world.config.state_dir.parent / "config.toml"
    path.write_text(dump(world.config))
    return subprocess.Popen([sys.executable, "-c", SERVICE, str(path)])


def ready(world: TestInstance, pid: int) -> bool:
    life = heartbeat(world.config, "recorder")
    return life.pid == pid and life.state == ServiceState.READY


def committed(state: Path, table: str) -> list[int]:
    where = "WHERE ring = 'events.algo'" if table == "events" else ""
    with contextlib.suppress(StoreError), read_only(journal_path(state)) as db:
        return [r[0] for r in db.execute(f"SELECT sequence FROM {table} {where} ORDER BY id")]
    return []  # killed before the journal was there


def torment(tmp_path: Path, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    with instance(tmp_path / "state") as world:
        state = world.config.state_dir
        algo, bridge = world.context("algo"), world.context("broker-bridge")
        orders, tick_ring = algo.ring_writer("orders.algo"), bridge.ring_writer("ticks")
        watched = world.context("recorder")
        seen_events, seen_ticks = watched.ring_reader("events.algo"), watched.ring_reader("ticks")
        produced = asked = traded = 0
        for _ in range(rounds):
            process = launch(world)
            # Mostly while it works, sometimes while it starts.
            end = time.monotonic() + chance.uniform(0.0, 0.8) if chance.random() < 0.2 else float("inf")
            while time.monotonic() < end:
                if end == float("inf") and ready(world, process.pid):
                    end = time.monotonic() + chance.uniform(0.0, 0.4)
                asked += publish(orders, asked)
                if seen_events.waiting < 1_000:  # however slowly the machine starts it, the rings are not lapped
                    algo.events.emit(EventKind.MODEL, 1, ref_id=produced)
                    produced += 1
                if seen_ticks.waiting < 60_000:
                    tick_ring.publish(ticks(400, first=traded))
                    traded += 400
                time.sleep(0.004)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            before = committed(state, "events")
            assert before == list(range(len(before)))
        process = launch(world)
        try:
            # Until then the interpreter itself may still be starting, and a SIGTERM would simply end it.
            until(lambda: ready(world, process.pid), 60)
            until(lambda: len(committed(state, "events")) >= produced and len(committed(state, "orders")) >= asked, 30)
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()
        assert committed(state, "events") == list(range(produced))
        assert committed(state, "orders") == list(range(asked))
        assert verify(journal_path(state)).sound
        days = recorded_days(state)
        found: list[Records] = [read_day(state, d) for d in days]
        assert [int(s) for f in found for s in f["sequence"]] == list(range(traded))
        raw = [int(r["sequence"]) for d in days for _, records in iter_blocks(state, d) for r in records]
        assert len(raw) == traded
        assert [g for d in days for g in day_gaps(state, d)] == []


def publish(orders: object, asked: int) -> int:
    """One intent, unless the ring is full: nobody plays the bridge that would drain it."""
    if asked >= 1_000:
        return 0
    orders.publish(intent(asked + 1))  # type: ignore[attr-defined]
    return 1


def test_a_recorder_killed_at_random_loses_and_doubles_nothing(tmp_path: Path) -> None:
    torment(tmp_path, ROUNDS, seed=1)


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_a_recorder_killed_dozens_of_times_loses_and_doubles_nothing(tmp_path: Path) -> None:
    torment(tmp_path, int(os.environ.get("L2DASH_KILL_ROUNDS", STRESS_ROUNDS)), seed=2)
