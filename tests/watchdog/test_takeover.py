from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from watchdog_gateway import PaperThread
from world import MS, World

from engine import topology
from engine.broker import emergency_flatten
from engine.broker.emergency import EmergencyConnection
from engine.broker.emergency_codec import Contract, OpenOrder, OpenOrdersEnd, OrderStatus, Position, PositionsEnd
from engine.domain.codes import Badge, CommandKind, EventKind, FlattenState, Owner, ServiceState, Source
from engine.procs.watchdog_parts import takeover
from engine.risk.release import EXCUSE_REMAINING, ResetRequest

AAPL = Contract(265598, "AAPL", "STK", "USD")


@pytest.fixture(scope="module")
def paper() -> Iterator[PaperThread]:
    with PaperThread() as thread:
        yield thread


class Trader:
    """Plays the bridge's connection at the broker."""

    def __init__(self, port: int) -> None:
        self.link = EmergencyConnection("127.0.0.1", port, 11, messages_per_s=40)
        self.seen: list[object] = []
        self.until(lambda: self.link.ready)

    def until(self, holds: Callable[[], bool], limit_s: float = 10.0) -> None:
        end = time.monotonic() + limit_s
        while not holds():
            assert time.monotonic() < end, self.seen[-5:]
            self.seen += self.link.poll(time.monotonic_ns())
            time.sleep(0.002)

    def buy_and_rest(self, qty: float) -> None:
        first = self.link.next_order_id
        self.link.next_order_id += 2
        codec = self.link.codec
        self.link.send(codec.place_order(first, AAPL, "BUY", qty, "DUSIM001", "L2:a"))
        self.link.send(codec.place_order(first + 1, AAPL, "BUY", 5.0, "DUSIM001", "L2:b", 90.0))
        self.until(
            lambda: any(isinstance(m, OrderStatus) and m.order_id == first and m.status == "Filled" for m in self.seen)
        )
        self.until(lambda: any(isinstance(m, OpenOrder) and m.order_id == first + 1 for m in self.seen))

    def sell(self, qty: float) -> None:
        before = self.account()[0]
        order_id, self.link.next_order_id = self.link.next_order_id, self.link.next_order_id + 1
        self.link.send(self.link.codec.place_order(order_id, AAPL, "SELL", qty, "DUSIM001", "L2:c"))
        self.until(lambda: self.account()[0] == before - qty)

    def account(self) -> tuple[float, int]:
        """(position in AAPL, open orders) by the broker's own word."""
        for _ in range(2):  # the first answer comes behind all news that still waited
            self.seen.clear()
            self.link.send(self.link.codec.request_all_open_orders(), self.link.codec.request_positions())
            self.until(lambda: {OpenOrdersEnd, PositionsEnd} <= {type(m) for m in self.seen})
        qty = [m.qty for m in self.seen if isinstance(m, Position) and m.contract.symbol == "AAPL"]
        return (qty[-1] if qty else 0.0), sum(isinstance(m, OpenOrder) for m in self.seen)


@pytest.fixture
def trader(paper: PaperThread) -> Iterator[Trader]:
    t = Trader(paper.port)
    yield t
    t.link.send(t.link.codec.global_cancel())
    t.until(lambda: not t.link.unsent)
    t.link.close()


class Bridge:
    """A process that stands for the bridge, so that it can be killed."""

    def __init__(self, world: World) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self._world = world
        self.start(self.process.pid)

    def start(self, pid: int) -> None:
        heartbeat = self._world.ctx[topology.BRIDGE].start_heartbeat(self._world.clock.now)
        heartbeat._beat["pid"] = pid
        heartbeat.set_state(ServiceState.READY, self._world.clock.now)

    def die(self) -> None:
        self.process.kill()
        self.process.wait()
        self._world.silent.add(topology.BRIDGE)

    def back(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self._world.silent.discard(topology.BRIDGE)
        self.start(self.process.pid)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def world(tmp_path: Path, paper: PaperThread) -> Iterator[World]:
    w = World(tmp_path, {"gateway": {"port": paper.port}, "guardrails": {"bridge_grace_s": 3.0}})
    yield w
    w.close()


@pytest.fixture
def bridge(world: World) -> Iterator[Bridge]:
    b = Bridge(world)
    connection = world.agent.takeover.connection
    live(world, lambda: connection.ready)
    yield b
    b.close()


def alerted(world: World, words: str) -> bool:
    """Has somebody been told so? Reads what is new."""
    world.settle()
    return any(words in text for text in world.said(EventKind.ALERT))


def live(world: World, holds: Callable[[], bool], limit_s: float = 20.0) -> float:
    """Run on real time, because the gateway does; returns the simulated seconds that passed."""
    began, last = world.clock.now, time.monotonic_ns()
    while not holds():
        assert world.clock.now - began < limit_s * 1e9, world.said()[-8:]
        time.sleep(0.001)
        now = time.monotonic_ns()
        world.clock.advance(min(now - last, 50 * MS))
        last = now
        world._others()
        world.serve_bridge()
        world.agent.do_work(world.clock.now)
        world.agent.stops.poll(world.clock.now)
    world.settle()
    return (world.clock.now - began) / 1e9


def test_dead_bridge_with_exposure_is_fenced_and_after_the_grace_flattened(
    world: World, bridge: Bridge, trader: Trader
) -> None:
    trader.buy_and_rest(70.0)
    world.hold(0, 70.0)
    world.run(0.3)
    epoch = int(world.lease.read(0)["epoch"])
    bridge.die()
    live(world, lambda: world.lease.read(0)["owner"] == Owner.WATCHDOG, 2.0)
    lease = world.lease.read(0)
    assert lease["fence"] > epoch
    assert lease["epoch"] > epoch
    assert lease["expires_ns"] == 0
    live(world, lambda: trader.account()[1] == 0, 3.0)
    assert trader.account()[0] == 70.0, "positions are kept during the grace"
    assert not world.killed
    live(world, lambda: world.flatten.read(0)["state"] == FlattenState.FLAT, 20.0)
    assert world.killed
    assert trader.account() == (0.0, 0)
    assert any("taking over" in t or "takes over" in t for t in world.said(EventKind.ALERT))


def test_what_an_operator_keeps_under_kill_stays_when_the_bridge_dies_and_when_it_is_back(
    world: World, bridge: Bridge, trader: Trader
) -> None:
    trader.buy_and_rest(30.0)
    world.bridge_fills = False  # AAPL is halted, say
    world.hold(0, 30.0)
    world.run(0.3)
    world.command(CommandKind.KILL)
    world.run(0.5)
    assert world.agent.excuse("alice", world.clock.now)
    world.run(10)
    assert world.flatten.read(0)["state"] == FlattenState.FLAT
    world.broker.value[0]["working_orders"] = 1  # else nobody is needed: what is kept is no exposure
    bridge.die()
    live(world, lambda: world.lease.read(0)["owner"] == Owner.WATCHDOG, 2.0)
    hand = world.agent.takeover._hand
    assert hand is not None
    live(world, lambda: hand.done, 20.0)
    assert trader.account() == (30.0, 0), "orders are cancelled, what is kept is not closed"
    world.hold(0, 30.0)
    bridge.back()
    live(world, lambda: world.lease.read(0)["owner"] == Owner.BRIDGE, 5.0)
    world.run(5)
    assert world.agent.flattening.state.excused & 1
    assert world.positions.value[0]["qty"] == 30.0
    trader.sell(30.0)  # the gateway is the next test's too


def test_while_the_emergency_hand_closes_nobody_resets_and_what_is_named_is_kept(
    world: World, bridge: Bridge, trader: Trader, monkeypatch: pytest.MonkeyPatch
) -> None:
    trader.buy_and_rest(20.0)
    world.hold(0, 20.0)
    world.run(0.3)
    # The broker was lost for long and is back: KILL, and what is held is left to a person.
    world.agent.guard.kill(1 << Badge.KILL, "broker lost", world.clock.now, flatten=False)
    monkeypatch.setattr(emergency_flatten.DirectFlatten, "_close", lambda *_: None)  # AAPL is halted
    bridge.die()
    hand = world.agent.takeover
    live(world, lambda: hand._hand is not None and hand._hand.settled, 10.0)
    assert hand.closing
    assert not world.agent.flattening.active
    request = ResetRequest(EXCUSE_REMAINING, "jo", "AAPL is kept", Source.CLI)
    world.agent._commands._reset(1, Source.CLI, request, "reset by jo", world.clock.now)
    assert world.killed
    assert world.agent.flattening.state.excused == 1
    monkeypatch.undo()  # it trades again
    assert hand._hand is not None
    live(world, lambda: hand._hand is not None and hand._hand.done, 20.0)
    results = [bytes(e["text"]).decode() for e in world.events if e["kind"] == EventKind.COMMAND_RESULT]
    assert "flatten is still running" in results[-1]
    assert "what was named is excused" in results[-1]
    assert trader.account() == (20.0, 0)
    assert world.agent.flattening.state.excused == 1, "what is kept is remembered beyond the hand"
    trader.sell(20.0)


def test_what_was_kept_in_an_earlier_kill_binds_nobody(world: World) -> None:
    world.bridge_fills = False
    world.hold(0, 10.0)
    world.command(CommandKind.KILL)
    world.run(0.5)
    assert world.agent.excuse("alice", world.clock.now)
    world.run(5)
    flattening, latch = world.agent.flattening, world.agent.stops.latch
    assert flattening.kept(latch) == 1
    assert flattening.kept(replace(latch, kill=False)) == 0
    assert flattening.kept(replace(latch, kill_id=world.clock.now)) == 0


def test_a_bridge_that_is_back_in_time_gets_the_right_under_a_new_epoch(
    world: World, bridge: Bridge, trader: Trader
) -> None:
    trader.buy_and_rest(30.0)
    world.hold(0, 30.0)
    world.run(0.3)
    bridge.die()
    live(world, lambda: world.lease.read(0)["owner"] == Owner.WATCHDOG, 2.0)
    taken = int(world.lease.read(0)["epoch"])
    world.broker.value[0]["reconciled"] = 0
    bridge.back()
    live(world, lambda: trader.account()[1] == 0, 3.0)
    assert world.lease.read(0)["owner"] == Owner.WATCHDOG, "not before it has reconciled"
    world.broker.value[0]["reconciled"] = 1
    live(world, lambda: world.lease.read(0)["owner"] == Owner.BRIDGE, 2.0)
    assert world.lease.read(0)["epoch"] > taken
    assert not world.killed
    assert trader.account()[0] == 30.0


def test_a_hung_bridge_with_exposure_is_killed_by_its_pidfd_first(world: World, bridge: Bridge) -> None:
    world.hold(0, 10.0)
    world.run(0.3)
    world.silent.add(topology.BRIDGE)
    live(world, lambda: world.lease.read(0)["owner"] == Owner.WATCHDOG, 5.0)
    assert bridge.process.wait(5) == -9


def test_a_fenced_bridge_that_does_not_exit_keeps_everybody_from_sending_and_somebody_is_told(
    world: World, bridge: Bridge, trader: Trader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "EXIT_NS", 300 * MS)
    monkeypatch.setattr(type(world.agent.senses.bridge), "kill", lambda *_: False)
    trader.buy_and_rest(10.0)
    before = trader.account()
    world.hold(0, 10.0)
    world.run(0.3)
    world.silent.add(topology.BRIDGE)
    live(world, lambda: world.agent.takeover._exit_alerted or world.agent.takeover.ownership.owner == Owner.WATCHDOG)
    assert any("has not exited" in t for t in world.said(EventKind.ALERT))
    lease = world.lease.read(0)
    assert (lease["owner"], lease["expires_ns"]) == (Owner.BRIDGE, 0), "fenced: the right is nobody's to use"
    assert trader.account() == before, "nobody has sent anything"
    monkeypatch.undo()
    bridge.die()
    live(world, lambda: world.lease.read(0)["owner"] == Owner.WATCHDOG)


def test_a_dead_bridge_of_a_flat_account_is_nobodys_business(world: World, bridge: Bridge) -> None:
    world.run(0.3)
    bridge.die()
    live(world, lambda: world.lease.read(0)["owner"] == Owner.NOBODY, 2.0)
    bridge.back()
    live(world, lambda: world.lease.read(0)["owner"] == Owner.BRIDGE, 2.0)
    assert not world.killed


def test_the_id_that_can_cancel_the_dead_bridges_orders_is_held_until_they_are_gone(
    tmp_path: Path, paper: PaperThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Managed account: the gateway still holds the dead bridge's session for longer than the hand waits for cancels."""
    monkeypatch.setattr(emergency_flatten, "SETTLE_LIMIT_NS", 300 * MS)
    settings = {"gateway": {"port": paper.port, "account_scope": "managed"}, "guardrails": {"bridge_grace_s": 60.0}}
    world, orphan = World(tmp_path, settings), Trader(paper.port)  # client 11, as the bridge
    bridge = Bridge(world)
    connection = world.agent.takeover.connection
    try:
        live(world, lambda: connection.ready)
        orphan.buy_and_rest(10.0)
        world.hold(0, 10.0)
        world.run(0.3)
        bridge.die()
        live(world, lambda: world.lease.read(0)["owner"] == Owner.WATCHDOG, 2.0)
        hand = world.agent.takeover._hand
        assert hand is not None
        live(world, lambda: hand.settled, 10.0)
        live(world, lambda: alerted(world, "are not confirmed"), 5.0)
        assert world.agent.takeover._canceller is not None
        assert hand.cancels_pending(11, world.clock.now)
        orphan.link.close()
        live(world, lambda: world.agent.takeover._canceller is None, 15.0)
        assert not [w for w in hand.held() if w.startswith("order")]
    finally:
        bridge.close()
        world.close()
        after = Trader(paper.port)
        after.sell(10.0)
        assert after.account()[1] == 0
        after.link.close()
