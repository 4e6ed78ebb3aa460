from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine import topology
from engine.config import ConfigError, dump, from_mapping
from engine.domain.codes import EventKind, ServiceState, Source
from engine.runtime import instance as instances
from engine.runtime import universe
from engine.runtime.clock import SystemClock
from engine.runtime.ids import IdSource, intent_of, order_ref
from engine.runtime.instance import InstanceRunning
from engine.runtime.runner import Loop, Turns
from engine.runtime.supervisor import Supervisor
from engine.runtime.testing import TestInstance, instance
from shm import kernels
from shm.errors import NotDeclared, RegionMismatch
from shm.region import Region


@pytest.fixture
def inst(tmp_path: Path) -> TestInstance:
    return instance(tmp_path)


def test_a_service_gets_only_what_the_topology_gives_it(inst: TestInstance) -> None:
    with inst:
        algo = inst.context("algo")
        with pytest.raises(NotDeclared, match="written by broker-bridge"):
            algo.ring_writer("ticks")
        with pytest.raises(NotDeclared, match="not read by algo"):
            algo.ring_reader("commands.cli")
        with pytest.raises(NotDeclared, match="written by watchdog"):
            algo.cell_writer("lease")


def test_events_carry_both_clocks_and_text_is_cut_between_characters(inst: TestInstance) -> None:
    with inst:
        bridge, recorder = inst.context("broker-bridge"), inst.context("recorder")
        bridge.events.emit(EventKind.ALERT, text="ä" * 200, ref_id=5)
        (event,) = recorder.ring_reader("events.broker-bridge").poll()
        assert event["t_ns"] == inst.clock.now
        assert event["t_wall_ns"] == inst.clock.wall_ns(inst.clock.now)
        assert event["text"].decode() == "ä" * 88
        assert event["ref_id"] == 5


def test_order_ring_full_is_an_answer(inst: TestInstance) -> None:
    from shm.ring import RingFull

    with inst:
        writer = inst.context("algo").ring_writer("orders.algo")
        for _ in range(topology.ORDER_SLOTS):
            writer.publish_record()
        with pytest.raises(RingFull):
            writer.publish_record()
        reader = inst.context("broker-bridge").ring_reader("orders.algo", batch=2048)
        assert len(reader.poll()) == topology.ORDER_SLOTS
        writer.publish_record()


def test_second_instance_is_refused_with_the_pid_of_the_first(inst: TestInstance) -> None:
    with inst:
        context = inst.context("recorder")
        context.start_heartbeat(context.clock.now_ns())
        with pytest.raises(InstanceRunning, match=f"recorder has pid {os.getpid()}"):
            instances.create(inst.config)


def test_restart_continues_with_the_regions_of_the_dead(inst: TestInstance) -> None:
    with inst:
        inst.context("broker-bridge").events.emit(EventKind.ALERT, text="kept")
        instances.create(inst.config)
        assert inst.context("recorder").ring_reader("events.broker-bridge").poll()[0]["text"] == b"kept"


def test_regions_of_another_layout_are_refused_and_left_alone(inst: TestInstance) -> None:
    with inst:
        path = inst.config.shm_dir / "lease"
        raw = bytearray(path.read_bytes())
        raw[8] = 99
        path.write_bytes(raw)
        with pytest.raises(RegionMismatch, match="lease: layout version is 99"):
            instances.create(inst.config)
        assert path.read_bytes() == bytes(raw)


def test_heartbeat_tells_incarnations_and_progress(inst: TestInstance) -> None:
    with inst:
        context = inst.context("algo")
        beat = context.start_heartbeat(5)
        beat.set_state(ServiceState.READY, 7)
        beat.beat(9, 3, 10, lag=2)
        beat.beat(11, 4, 10, lag=1)
        life = instances.heartbeat(inst.config, "algo")
        assert life.alive
        assert (life.state, life.t_beat_ns, life.incarnation) == (ServiceState.READY, 11, 1)
        assert context.start_heartbeat(20).incarnation == 2


def test_a_heartbeat_caught_in_the_middle_of_a_write_is_torn_and_not_a_dead_service(inst: TestInstance) -> None:
    with inst:
        context = inst.context("algo")
        context.start_heartbeat(5).set_state(ServiceState.READY, 7)
        region = Region.attach(
            inst.config.shm_dir, topology.cell_region(topology.cell("heartbeat.algo")), writable=True
        )
        region.words[kernels.SLOTS] |= 1  # what a preempted writer leaves for a while
        life = instances.heartbeat(inst.config, "algo")
        assert life.torn
        assert life.alive
        assert life.pid == os.getpid()


def test_the_supervisor_does_not_take_a_torn_heartbeat_for_silence(inst: TestInstance) -> None:
    with inst:
        context = inst.context("algo")
        beat = context.start_heartbeat(time.monotonic_ns())
        beat.set_state(ServiceState.READY, time.monotonic_ns())
        said: list[str] = []
        supervisor = Supervisor(inst.config, said.append)
        supervisor.children = {"algo": supervisor.children["algo"]}
        supervisor.children["algo"].pid = os.getpid()
        supervisor.children["algo"].started_s = time.monotonic() - 3_600.0
        supervisor._look()
        region = Region.attach(
            inst.config.shm_dir, topology.cell_region(topology.cell("heartbeat.algo")), writable=True
        )
        region.words[kernels.SLOTS] |= 1
        supervisor._look()  # would kill this very process
        assert said == []


def test_doorbell_wakes_a_sleeper_and_costs_nothing_when_nobody_sleeps(inst: TestInstance) -> None:
    with inst:
        sleeper, producer = inst.context("ml-service"), inst.context("broker-bridge")
        bell = sleeper.doorbell()
        producer.wake("ml-service")  # nobody sleeps: no byte is left behind
        with pytest.raises(BlockingIOError):
            os.read(bell._fd, 1)
        bell.announce()
        threading.Timer(0.05, producer.wake, ("ml-service",)).start()
        bell.sleep(30.0)  # the test's own timeout fails it if the wake-up is lost


STOPPED_BEFORE_IT_STARTS = """
import signal, sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from engine.config import load
from engine.runtime import stopping
from engine.runtime.runner import run_service
stopping.hold()  # as the supervisor does over its fork
signal.raise_signal(signal.SIGTERM)
sys.exit(run_service(sys.argv[1], load(Path(sys.argv[2]))))
"""


@pytest.mark.parametrize("service", ["recorder", "cockpit"], ids=["agent", "asyncio worker"])
def test_a_stop_that_arrives_while_a_service_starts_is_orderly(tmp_path: Path, service: str) -> None:
    with instance(tmp_path, {"cockpit": {"port": 0, "health_port": 0}}) as world:
        path = tmp_path / "config.toml"
        path.write_text(dump(world.config))
        command = [sys.executable, "-c", STOPPED_BEFORE_IT_STARTS, service, str(path)]
        assert subprocess.run(command, timeout=100, check=False).returncode == 0
        assert instances.heartbeat(world.config, service).state == ServiceState.STOPPED


def test_a_service_that_waits_for_rings_only_is_woken_by_futex(inst: TestInstance) -> None:
    with inst:
        sleeper, producer = inst.context("ml-service"), inst.context("broker-bridge")
        ticks, bell = producer.ring_writer("ticks"), sleeper.doorbell(futex=True)
        bell.announce()
        ticks.publish_record()  # between the last look and the sleep: the futex is no longer what it was
        bell.sleep(30.0)
        bell.announce()
        threading.Timer(0.05, producer.wake, ("ml-service",)).start()
        bell.sleep(30.0)  # the test's own timeout fails it if the wake-up is lost
        with pytest.raises(BlockingIOError):
            os.read(bell._fd, 1)


def test_a_service_that_watches_a_socket_sleeps_on_its_doorbell(inst: TestInstance) -> None:
    with inst:
        sleeper, producer = inst.context("ml-service"), inst.context("broker-bridge")
        bell = sleeper.doorbell(futex=True)
        read, write = os.pipe()
        bell.watch((read,))
        bell.announce()
        os.write(write, b"x")
        bell.sleep(30.0)
        os.read(read, 1)
        bell.announce()
        producer.wake("ml-service")
        assert os.read(bell._fd, 1) == b"\0"
        bell.watch(())
        bell.announce()
        producer.wake("ml-service")
        with pytest.raises(BlockingIOError):
            os.read(bell._fd, 1)
        for fd in (read, write):
            os.close(fd)


def test_check_walks_every_region_and_names_what_is_broken(inst: TestInstance) -> None:
    with inst:
        bridge, recorder = inst.context("broker-bridge"), inst.context("recorder")
        bridge.events.emit(EventKind.ALERT, text="one")
        bridge.counters.record("gate_ns", 700)
        recorder.ring_reader("events.broker-bridge").poll()
        assert instances.check(inst.config) == []
        region = Region.attach(
            inst.config.shm_dir, topology.ring_region(topology.ring("events.broker-bridge")), writable=True
        )
        region.words[kernels.SLOTS] = 5
        lease = Region.attach(inst.config.shm_dir, topology.cell_region(topology.cell("lease")), writable=True)
        lease.words[kernels.SLOTS] = 3
        broken = instances.check(inst.config)
        assert any("events.broker-bridge: slot of record 0 holds 5" in text for text in broken)
        assert any(text.startswith("lease[0]: torn, version 3") for text in broken)
        assert len(broken) == 2


def test_ids_are_unique_over_sources_restarts_and_counts() -> None:
    first, second = IdSource(1_700_000_000_000_000_000), IdSource(1_700_000_001_000_000_000)
    ids = {s.next(source) for s in (first, second) for source in Source for _ in range(100)}
    assert len(ids) == 2 * len(Source) * 100
    assert all(0 < i < 2**63 for i in ids)
    assert all(intent_of(order_ref(i)) == i for i in ids)
    assert intent_of("manual") == 0
    assert intent_of("L2:xyz") == 0


def test_universe_is_indexed_in_order_with_the_index_last() -> None:
    config = from_mapping({"universe": {"stocks": [{"symbol": "AMZN"}, {"symbol": "IBM"}]}})
    found = universe.instruments(config)
    assert [i.symbol for i in found] == ["AMZN", "IBM", "INDU"]
    assert [i.index for i in found] == [0, 1, 2]
    assert found[0].con_id == 3691937
    assert universe.index_symbol(config) == 2


def test_a_symbol_named_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="AMZN is named twice"):
        universe.instruments(from_mapping({"universe": {"stocks": [{"symbol": "AMZN"}, {"symbol": "AMZN"}]}}))


class Script(Turns):
    """Turns that say what happens, with something pending and a hurry as told."""

    def __init__(self, pending: Iterable[bool], hurry: Iterable[bool]) -> None:
        self.said: list[str] = []
        self._pending, self._hurry = iter(pending), iter(hurry)

    def turn(self, now_ns: int, rest: bool) -> int:
        self.said.append("turn, may rest" if rest else "turn")
        return 1

    def pending(self) -> bool:
        return next(self._pending, False)

    def hurry(self) -> bool:
        return next(self._hurry, False)

    def disarm(self) -> None:
        self.said.append("worked")


def run_script(script: Script, count: int, every_ms: float) -> list[str]:
    """What a loop with three duties does until so much was said."""
    context: Any = SimpleNamespace(
        service=topology.ALGO, clock=SystemClock(0, 0),
        config=SimpleNamespace(runtime=SimpleNamespace(housekeeping_ms=every_ms)),
    )  # fmt: skip
    said = script.said
    seat: Any = SimpleNamespace(
        parts=("a", "b", "c"), do=lambda part, now_ns: said.append(part), beat=lambda now_ns: said.append("beat")
    )
    loop = Loop(context, SimpleNamespace(watch=lambda fds: None), "busy-spin")
    loop.run([seat], lambda: script, lambda: len(said) >= count, lambda seat, ready: None, lambda: ())
    return said


def test_duties_make_way_for_a_turn_when_something_is_pending() -> None:
    """What arrives waits for one duty at most, not for all of them; and no turn may rest while duties are left."""
    said = run_script(Script(pending=(False, True, True), hurry=()), 11, 1e9)
    assert said == ["turn, may rest", "a", "b", "worked", "turn", "c", "worked", "turn", "beat", "worked", *said[10:]]


def test_duties_come_at_once_when_they_are_in_a_hurry() -> None:
    said = run_script(Script(pending=(), hurry=(True,)), 11, 1e9)
    assert said == 2 * ["turn, may rest", "a", "b", "c", "beat", "worked"]
