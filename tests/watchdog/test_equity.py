"""The day's equity over the lives of the bridge: what is regrouped, or not yet read, must not move it."""

from __future__ import annotations

from typing import Any

import pytest
from world import MS, S, World

from engine import topology
from engine.domain.codes import LinkState, ServiceState


def equity(world: World) -> float:
    return float(world.guardrails.read(0)["equity_usd"])


def traded(world: World) -> None:
    """Ten shares bought at 100 and sold at 90: 100 USD are lost in two executions, and five shares are held."""
    p = world.positions.value[0]
    p["qty"], p["cash_flow_usd"], p["executions"], p["avg_cost"] = 5.0, -1_000.0 + 900.0 - 500.0, 3, 100.0
    world.positions.publish(0)
    world.run(0.2)
    assert equity(world) == pytest.approx(999_900.0)


def die_and_return(world: World) -> None:
    """The bridge is gone for a while and begins a new life; the broker's cell is still the dead one's."""
    beat = world.ctx[topology.BRIDGE].heartbeat
    assert beat is not None
    beat.set_state(ServiceState.DOWN, world.clock.now)
    world.silent.add(topology.BRIDGE)
    world.run(1.1)
    world.clock.advance(MS)
    world.ctx[topology.BRIDGE].start_heartbeat(world.clock.now).set_state(ServiceState.WARMING, world.clock.now)


def position(world: World, **fields: Any) -> None:
    for name, value in fields.items():
        world.positions.value[0][name] = value
    world.positions.publish(0)


def test_a_bridge_that_has_not_read_its_executions_yet_does_not_move_the_equity(world: World) -> None:
    traded(world)
    whole = {name: world.positions.value[0][name] for name in ("qty", "cash_flow_usd", "executions", "avg_cost")}
    die_and_return(world)
    for _ in range(40):  # it shows its orders before it has read anything; nobody else has written a cell
        position(world, qty=0.0, cash_flow_usd=0.0, executions=0, avg_cost=0.0)
        world.agent.do_work(world.clock.advance(MS))
    b = world.broker.value[0]
    b["reconciled"], b["link"], b["updated_ns"] = 0, LinkState.SYNCING, world.clock.now
    world.broker.publish()
    for _ in range(40):
        world.agent.do_work(world.clock.advance(MS))
    position(world, **whole)
    b["reconciled"], b["link"], b["updated_ns"] = 1, LinkState.UP, world.clock.now
    world.broker.publish()
    world.silent.clear()
    world.run(0.5)
    assert equity(world) == pytest.approx(999_900.0)


def test_a_new_life_between_two_looks_of_the_watchdog_does_not_move_the_equity(world: World) -> None:
    """The watchdog was stopped meanwhile: what it knows of the bridge is a life old."""
    traded(world)
    whole = {name: world.positions.value[0][name] for name in ("qty", "cash_flow_usd", "executions", "avg_cost")}
    world.clock.advance(3 * S)
    world.ctx[topology.BRIDGE].start_heartbeat(world.clock.now).set_state(ServiceState.READY, world.clock.now)
    position(world, qty=0.0, cash_flow_usd=0.0, executions=0, avg_cost=0.0)
    senses = world.agent.senses
    senses.refresh_market()  # the fast cycle comes first, with the facts of a life before
    senses.measure(world.clock.now)
    position(world, **whole)
    world.broker.value[0]["updated_ns"] = world.clock.now
    world.broker.publish()
    world.run(0.5)
    assert equity(world) == pytest.approx(999_900.0)


def test_a_new_day_of_the_same_bridge_keeps_the_equity(world: World) -> None:
    traded(world)
    position(world, cash_flow_usd=0.0, executions=0, day_open_qty=5.0)
    world.run(0.2)
    assert equity(world) == pytest.approx(999_900.0)
    world.mids[0] = 90.0
    world.run(0.5)
    assert equity(world) == pytest.approx(999_850.0), "five shares, ten dollars each"
