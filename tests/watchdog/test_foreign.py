"""A position outside the configured symbols: in a dedicated account it is ours, and it is not flat while it is open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from world import World

from engine.domain.codes import CommandKind, EventKind, FlattenState, Severity, TradingState
from engine.risk.release import EXCUSE_REMAINING


@pytest.fixture
def dedicated(tmp_path: Path) -> Iterator[World]:
    w = World(tmp_path, {"gateway": {"port": 1, "account_scope": "dedicated"}})
    w.run(0.5)
    yield w
    w.close()


def pages(world: World) -> list[str]:
    return [
        bytes(e["text"]).decode()
        for e in world.events
        if e["kind"] == EventKind.ALERT and e["severity"] == Severity.P1 and b"FOREIGN" in bytes(e["text"])
    ]


def test_a_kill_closes_the_rest_at_once_and_is_not_flat_before_somebody_has_closed_it(dedicated: World) -> None:
    world, flattening = dedicated, dedicated.agent.flattening
    world.hold(0, 10.0)
    world.broker.value[0]["foreign_positions"] = 1
    world.command(CommandKind.KILL)
    assert world.positions.value[0]["qty"] == 0.0
    world.run(10)
    assert flattening.flat_since_ns == 0
    assert flattening.state.state == FlattenState.STUCK
    assert pages(world) == [
        "FLATTEN 1 position outside the configured symbols (FOREIGN): close it by hand or with "
        "`l2dash flatten --direct`; remaining: FOREIGN (1 position)"
    ]
    code, text = world.command(CommandKind.RESET)
    assert code == 1
    assert "flatten is still running" in text
    world.commands.clear()
    world.run(10)
    assert CommandKind.CANCEL_ALL not in world.commands, "an order of whoever closes it is left alone"
    assert 1 <= world.commands.count(CommandKind.SNAPSHOT) <= 3
    world.broker.value[0]["foreign_positions"] = 0
    world.run(2)
    assert flattening.flat_since_ns > 0


def test_flat_is_lost_when_the_account_holds_something_outside(dedicated: World) -> None:
    world = dedicated
    world.command(CommandKind.KILL)
    world.run(5)
    assert world.agent.flattening.flat_since_ns
    world.broker.value[0]["foreign_positions"] = 2
    world.run(5)
    assert world.agent.flattening.flat_since_ns == 0
    assert "2 positions outside" in pages(world)[0]


def test_an_operator_keeps_it_by_its_name(dedicated: World) -> None:
    world, flattening = dedicated, dedicated.agent.flattening
    world.broker.value[0]["foreign_positions"] = 1
    world.command(CommandKind.KILL)
    world.run(5)
    code, text = world.command(CommandKind.RESET, flags=EXCUSE_REMAINING, reason="it is nothing")
    assert code == 1
    assert "the reason must name what remains: FOREIGN" in text
    code, text = world.command(CommandKind.RESET, flags=EXCUSE_REMAINING, reason="FOREIGN: one option is kept")
    assert code == 1
    assert "what was named is excused" in text
    assert any("excused FOREIGN (1 position)" in t for t in world.said(EventKind.FLATTEN))
    world.run(3)
    assert flattening.flat_since_ns > 0
    world.run(31, step_ms=20)
    code, text = world.command(CommandKind.RESET, flags=EXCUSE_REMAINING, reason="FOREIGN: one option is kept")
    assert code == 0, text


def keep_one(world: World) -> None:
    """KILL with a position outside, which an operator keeps by name; the rest is confirmed flat."""
    world.broker.value[0]["foreign_positions"] = 1
    world.command(CommandKind.KILL)
    world.run(5)
    world.command(CommandKind.RESET, flags=EXCUSE_REMAINING, reason="FOREIGN: one option is kept")
    world.run(3)
    assert world.agent.flattening.flat_since_ns > 0


def test_what_is_kept_stays_kept_when_something_else_is_held_again(dedicated: World) -> None:
    world, flattening = dedicated, dedicated.agent.flattening
    keep_one(world)
    assert flattening.kept_foreign(world.agent.stops.latch) == 1
    world.hold(0, 10.0)
    world.run(10)
    assert world.positions.value[0]["qty"] == 0.0
    assert flattening.flat_since_ns > 0


def test_a_look_that_confirms_flat_anew_keeps_it_too(dedicated: World) -> None:
    world, flattening = dedicated, dedicated.agent.flattening
    keep_one(world)
    for working in (1, 0):  # an order of a moment
        world.positions.value[1]["working_orders"] = world.broker.value[0]["working_orders"] = working
        world.positions.publish(1)
        world.broker.value[0]["order_events"] += 1
        world.run(0.5)
    world.run(8)
    assert flattening.flat_since_ns > 0
    assert flattening.state.reason == "confirm that the account is flat"
    assert flattening.kept_foreign(world.agent.stops.latch) == 1


def test_nobody_resumes_while_a_flatten_would_close_what_is_opened(dedicated: World) -> None:
    world = dedicated
    world.broker.value[0]["foreign_positions"] = 1
    world.command(CommandKind.FLATTEN)
    world.run(10)
    assert world.agent.flattening.state.state == FlattenState.STUCK
    code, text = world.command(CommandKind.RESUME)
    assert code == 1
    assert "a flatten is running" in text
    assert "FOREIGN (1 position)" in text
    assert world.state == TradingState.PAUSED
    code, text = world.command(CommandKind.RESET, flags=EXCUSE_REMAINING, reason="FOREIGN: one option is kept")
    assert code == 1
    assert "what was named is excused: the rest is being confirmed flat, resume after that" in text
    world.run(3)
    assert world.agent.flattening.state.state == FlattenState.FLAT
    assert world.command(CommandKind.RESUME) == (0, "resumed")
    assert world.state == TradingState.ACTIVE


def test_a_managed_account_leaves_other_holdings_alone(tmp_path: Path) -> None:
    world = World(tmp_path, {"gateway": {"port": 1, "account_scope": "managed"}})
    world.run(0.5)
    world.hold(0, 10.0)
    world.broker.value[0]["foreign_positions"] = 1
    world.command(CommandKind.KILL)
    world.run(10)
    assert world.agent.flattening.flat_since_ns > 0
    assert pages(world) == []
    world.close()
