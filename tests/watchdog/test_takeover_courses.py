"""The watchdog in the bridge's place against a real gateway: mute, lost, second gateway, restarts half-way."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_takeover import Bridge, Trader, alerted, live
from watchdog_gateway import PaperThread
from world import MS, World

from engine import topology
from engine.domain.codes import Badge, EventKind, FlattenState, LinkState, Owner, Source
from engine.drill.hands import Faults
from engine.drill.instance import free_ports
from engine.risk import flatten as fl


@pytest.fixture(scope="module")
def paper() -> Iterator[PaperThread]:
    with PaperThread() as thread:
        yield thread


@pytest.fixture
def trader(paper: PaperThread) -> Iterator[Trader]:
    t = Trader(paper.port)
    yield t
    t.link.send(t.link.codec.global_cancel())
    t.until(lambda: not t.link.unsent)
    t.link.close()


@pytest.fixture
def world(tmp_path: Path, paper: PaperThread) -> Iterator[World]:
    w = World(tmp_path, {"gateway": {"port": paper.port}, "guardrails": {"bridge_grace_s": 3.0}})
    yield w
    w.close()


@pytest.fixture
def bridge(world: World) -> Iterator[Bridge]:
    b = Bridge(world)
    live(world, lambda: world.agent.takeover.connection.ready)
    yield b
    b.close()


def mute(world: World, silent_s: float = 2.5) -> None:
    """The bridge's own connection has said nothing although asked."""
    b = world.broker.value[0]
    b["probe_sent_ns"] = world.clock.now - int(1.8e9)
    silent_ns = world.clock.now - int(silent_s * 1e9)
    publish = world.broker.publish

    def keep() -> None:
        world.broker.value[0]["last_message_ns"] = silent_ns
        publish()

    world.broker.publish = keep  # type: ignore[method-assign]
    world.bridge_drains = False


def test_a_live_but_mute_bridge_is_fenced_and_its_positions_closed_over_the_emergency_connection(
    world: World, bridge: Bridge, trader: Trader
) -> None:
    trader.buy_and_rest(70.0)
    world.hold(0, 70.0)
    world.run(0.3)
    live(world, lambda: 0 <= world.agent.takeover.connection.answer_age_ns(world.clock.now) < 1_000 * MS)
    mute(world)
    live(world, lambda: world.killed, 5.0)
    assert world.agent.stops.latch.kill_reasons >> Badge.LAT & 1
    live(world, lambda: world.lease.read(0)["owner"] == Owner.WATCHDOG, 2.0)
    assert bridge.process.wait(5) == -signal.SIGKILL
    assert any("has no working connection" in t for t in world.said(EventKind.ALERT))
    live(world, lambda: world.flatten.read(0)["state"] == FlattenState.FLAT, 20.0)
    assert trader.account() == (0.0, 0)
    flatten = world.flatten.read(0)
    assert flatten["cause_ns"] < flatten["sent_ns"] < flatten["flat_ns"], "its closes have a time too"
    assert world.agent.flattening.flat_since_ns, "the dead bridge's cells don't count any more"


def test_a_takeover_under_kill_has_times_of_its_own_and_not_those_of_an_earlier_flatten(
    world: World, bridge: Bridge, trader: Trader
) -> None:
    world.agent.flattening.state = fl.Flatten(7, FlattenState.FLAT, cause_ns=1, started_ns=1, sent_ns=2, flat_ns=3)
    trader.buy_and_rest(20.0)
    world.hold(0, 20.0)
    world.run(0.3)
    world.agent.guard.kill(1 << Badge.KILL, "broker lost", world.clock.now, awaits_link=True)
    assert not world.agent.flattening.active
    died_ns = world.clock.now
    bridge.die()
    live(world, lambda: world.flatten.read(0)["flat_ns"] > died_ns, 20.0)
    assert trader.account() == (0.0, 0)
    flatten = world.flatten.read(0)
    assert flatten["flatten_id"] != 7
    assert died_ns <= flatten["cause_ns"] <= flatten["sent_ns"] < flatten["flat_ns"]


def test_a_dead_bridge_in_a_long_outage_waits_for_a_person_and_a_flatten_is_obeyed(
    world: World, bridge: Bridge, trader: Trader
) -> None:
    trader.buy_and_rest(20.0)
    world.hold(0, 20.0)
    world.run(0.3)
    lost_ns = world.clock.now - 11 * 60_000 * MS
    world.agent.guard.kill(1 << Badge.KILL, "broker lost", world.clock.now, awaits_link=True, lost_since_ns=lost_ns)
    bridge.die()
    live(world, lambda: alerted(world, "nothing is closed by itself"), 10.0)
    live(world, lambda: trader.account()[1] == 0, 5.0)
    began = world.clock.now
    live(world, lambda: world.clock.now - began > 4_000 * MS, 10.0)  # the grace of 3 s is over
    assert trader.account() == (20.0, 0), "orders are cancelled, positions are a person's"
    assert world.agent.stops.latch.awaits_link
    world.agent.flattening.start("by hand", Source.OPERATOR, world.clock.now)
    live(world, lambda: trader.account()[0] == 0.0, 10.0)


def test_a_flatten_of_one_symbol_is_not_made_one_of_all_by_a_dead_bridge(
    world: World, bridge: Bridge, trader: Trader
) -> None:
    trader.buy_and_rest(20.0)
    world.hold(0, 20.0)
    world.run(0.3)
    world.bridge_fills = False
    world.agent.flattening.start("drift of another", Source.WATCHDOG, world.clock.now, scope=0b10)
    bridge.die()
    live(world, lambda: world.lease.read(0)["owner"] == Owner.WATCHDOG, 5.0)
    hand = world.agent.takeover._hand
    assert hand is not None
    live(world, lambda: hand.settled, 5.0)
    assert hand.cancel_only, "the bridge has its grace to come back"
    assert trader.account()[0] == 20.0
    world.agent.flattening.start("of all", Source.OPERATOR, world.clock.now)
    live(world, lambda: trader.account()[0] == 0.0, 10.0)


@pytest.mark.stress
def test_without_an_answer_on_the_emergency_connection_nobody_is_fenced(world: World, bridge: Bridge) -> None:
    world.hold(0, 70.0)
    world.run(0.3)
    world.agent.takeover.connection.close()
    world.agent.takeover.connection._retry_ns = 1 << 62
    mute(world)
    live(world, lambda: world.agent.senses.facts.link.both_mute, 3.0)
    assert bridge.process.poll() is None
    assert not world.killed
    assert world.lease.read(0)["owner"] == Owner.BRIDGE


@pytest.mark.stress
def test_a_link_that_only_the_bridge_has_lost_is_made_up_for_by_the_emergency_connection(
    world: World, bridge: Bridge, trader: Trader
) -> None:
    """KILL after the outage; ours serves: fenced and flattened, without waiting for the bridge's link."""
    trader.buy_and_rest(40.0)
    world.hold(0, 40.0)
    world.run(0.3)
    b = world.broker.value[0]
    b["link"], b["down_since_ns"] = LinkState.DOWN, world.clock.now - 58 * 1_000 * MS
    live(world, lambda: world.killed, 5.0)
    live(world, lambda: world.flatten.read(0)["state"] == FlattenState.FLAT, 20.0)
    assert bridge.process.wait(5) == -signal.SIGKILL
    assert trader.account() == (0.0, 0)


@pytest.mark.stress
def test_a_link_flap_fences_nobody(world: World, bridge: Bridge) -> None:
    world.hold(0, 40.0)
    world.run(0.3)
    b = world.broker.value[0]
    b["link"], b["down_since_ns"] = LinkState.DOWN, world.clock.now
    live(world, lambda: world.clock.now - int(b["down_since_ns"]) > 8 * 1_000 * MS, 10.0)
    assert bridge.process.poll() is None
    assert not world.killed


@pytest.mark.stress
def test_a_stopped_bridge_and_everything_else_stopped_is_still_flattened(
    world: World, bridge: Bridge, trader: Trader
) -> None:
    trader.buy_and_rest(25.0)
    world.hold(0, 25.0)
    world.run(0.3)
    os.kill(bridge.process.pid, signal.SIGSTOP)
    for name in (topology.BRIDGE, topology.ML, topology.ALGO, topology.RECORDER, topology.COCKPIT):
        world.silent.add(name)
    live(world, lambda: world.flatten.read(0)["state"] == FlattenState.FLAT, 25.0)
    assert bridge.process.wait(5) == -signal.SIGKILL
    assert trader.account() == (0.0, 0)


@pytest.mark.stress
@pytest.mark.parametrize("state", ["fencing", "settling", "grace", "closing", "flat"])
def test_a_watchdog_killed_at_any_moment_of_a_takeover_is_continued_by_the_next(
    world: World, bridge: Bridge, trader: Trader, state: str
) -> None:
    trader.buy_and_rest(30.0)
    world.hold(0, 30.0)
    world.run(0.3)
    bridge.die()
    takeover = world.agent.takeover
    reached = {
        "fencing": lambda: takeover.ownership.fencing,
        "settling": lambda: takeover._hand is not None and not takeover._hand.settled,
        "grace": lambda: takeover._hand is not None and takeover._hand.settled,
        "closing": lambda: takeover._hand is not None and takeover._hand.closed > 0,
        "flat": lambda: world.flatten.read(0)["state"] == FlattenState.FLAT,
    }[state]
    live(world, reached, 20.0)
    epoch = int(world.lease.read(0)["epoch"])
    world.restart()
    live(world, lambda: world.agent.takeover.connection.ready)
    live(world, lambda: trader.account() == (0.0, 0), 25.0)
    live(world, lambda: bool(world.agent.flattening.flat_since_ns), 20.0)
    assert world.killed
    assert int(world.lease.read(0)["epoch"]) > epoch


@pytest.mark.stress
def test_the_right_is_not_handed_back_while_our_messages_still_count(
    world: World, bridge: Bridge, trader: Trader
) -> None:
    trader.buy_and_rest(30.0)
    world.hold(0, 30.0)
    world.run(0.3)
    bridge.die()
    live(world, lambda: world.lease.read(0)["owner"] == Owner.WATCHDOG, 2.0)
    connection = world.agent.takeover.connection
    assert connection.messages_per_s == 5, "the dead bridge's last second still counts"
    live(world, lambda: connection.messages_per_s == 45, 3.0)
    bridge.back()
    world.broker.value[0]["reconciled"] = 0
    live(world, lambda: connection.messages_per_s == 20, 3.0)
    connection._sent_at.extend([world.clock.now] * 6)
    world.broker.value[0]["reconciled"] = 1
    since = world.clock.now
    live(world, lambda: world.lease.read(0)["owner"] == Owner.BRIDGE, 5.0)
    assert world.clock.now - since >= 1_000 * MS
    assert connection.messages_per_s == 5


@pytest.mark.stress
def test_a_bridge_that_hangs_while_leaving_is_killed_when_its_time_is_over(tmp_path: Path, paper: PaperThread) -> None:
    world = World(tmp_path, {"gateway": {"port": paper.port}, "guardrails": {"leaving_s": 1.0}})
    bridge = Bridge(world)
    try:
        world.hold(0, 10.0)
        world.run(0.3)
        world.broker.value[0]["leaving"] = 1
        live(world, lambda: world.lease.read(0)["owner"] == Owner.LEAVING, 2.0)
        live(world, lambda: world.lease.read(0)["owner"] == Owner.WATCHDOG, 5.0)
        assert bridge.process.wait(5) == -signal.SIGKILL
    finally:
        bridge.close()
        world.close()


def test_the_second_gateway_is_used_when_the_first_is_gone(tmp_path: Path) -> None:
    """Two gateways: the first ends with its process, the second holds the account."""
    with PaperThread() as second:
        holder = Trader(second.port)
        first = PaperThread()
        first.__enter__()
        gateway = {"port": first.port, "second_host": "127.0.0.1", "second_port": second.port, "reconnect_max_s": 0.5}
        world = World(tmp_path, {"gateway": gateway, "guardrails": {"bridge_grace_s": 1.0}})
        bridge = Bridge(world)
        connection = world.agent.takeover.connection
        try:
            live(world, lambda: connection.ready)
            assert connection.address == ("127.0.0.1", first.port), "the first is tried first"
            holder.buy_and_rest(60.0)
            world.hold(0, 60.0)
            world.run(0.2)
            first.__exit__()
            bridge.die()
            live(world, lambda: connection.ready and connection.address[1] == second.port, 10.0)
            live(world, lambda: world.flatten.read(0)["state"] == FlattenState.FLAT, 25.0)
            assert holder.account() == (0.0, 0)
        finally:
            bridge.close()
            holder.link.close()
            world.close()


@pytest.mark.parametrize("said", ["1100", "2110"])
def test_a_gateway_that_has_lost_the_broker_is_left_for_the_second(tmp_path: Path, said: str) -> None:
    control = free_ports(1)[0]
    with PaperThread(control_port=control) as first, PaperThread() as second:
        gateway = {"port": first.port, "second_host": "127.0.0.1", "second_port": second.port}
        world = World(tmp_path, {"gateway": gateway})
        connection = world.agent.takeover.connection
        try:
            live(world, lambda: connection.ready)
            assert connection.serves(world.clock.now)
            Faults(control)(said)
            live(world, lambda: bool(connection.broker_lost_ns), 5.0)
            assert not connection.serves(world.clock.now)
            live(world, lambda: connection.ready and connection.address[1] == second.port, 10.0)
        finally:
            world.close()


@pytest.mark.stress
def test_everything_that_the_hand_did_stands_in_the_journal_rings(world: World, bridge: Bridge, trader: Trader) -> None:
    trader.buy_and_rest(30.0)
    world.hold(0, 30.0)
    world.run(0.3)
    bridge.die()
    live(world, lambda: world.flatten.read(0)["state"] == FlattenState.FLAT, 25.0)
    said = world.said()
    for words in ("takes over", "not back within 3 s", "over the emergency connection"):
        assert any(words in t for t in said), words
    state = json.loads((world.state_dir / "flatten.json").read_text())
    assert state["state"] == FlattenState.FLAT
