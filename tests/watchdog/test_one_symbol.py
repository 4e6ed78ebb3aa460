"""DRIFT of scope "symbol": one symbol is closed and locked, the others trade on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from world import World

from engine.domain.codes import CommandKind, EventKind, FlattenState, Severity
from engine.domain.instruments import ALL_SYMBOLS
from engine.risk.release import EXCUSE_REMAINING


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Symbol 0 has just drifted; symbol 1 is held and an order of it works."""
    w = World(tmp_path, {"guardrails": {"drift_scope": "symbol"}})
    w.hold(0, 10.0)
    w.hold(1, 10.0)
    w.positions.value[1]["working_orders"] = 1
    w.positions.publish(1)
    w.broker.value[0]["working_orders"] = 1
    w.run(0.5)
    w.mids[0] = 103.0
    yield w
    w.close()


def trade_on(world: World, seconds: float) -> None:
    """The other symbol has a fill every 20 ms."""
    for k in range(int(seconds * 50)):
        world.hold(1, 10.0 + k % 2)
        world.run(0.02)


def test_it_is_flat_within_seconds_and_the_others_orders_are_left_alone(world: World) -> None:
    trade_on(world, 5)
    assert not world.killed
    assert world.positions.value[0]["qty"] == 0.0
    assert world.positions.value[1]["qty"] >= 10.0
    assert world.agent.flattening.state.state == FlattenState.FLAT
    assert set(world.cancels) == {0}
    pages = [e for e in world.events if e["kind"] == EventKind.ALERT and e["severity"] == Severity.P1]
    assert not any(b"FLATTEN" in bytes(e["text"]) for e in pages)
    assert world.agent.flattening.flat_since_ns == 0, "the account is not flat"


def test_an_order_of_its_own_keeps_it_from_being_flat(world: World) -> None:
    world.positions.value[0]["working_orders"] = 1
    world.positions.publish(0)
    trade_on(world, 20)
    assert world.agent.flattening.state.state != FlattenState.FLAT
    assert any("cancels are not confirmed" in t for t in world.said(EventKind.ALERT))
    assert set(world.cancels) == {0}
    world.positions.value[0]["working_orders"] = 0
    world.positions.publish(0)
    trade_on(world, 5)
    assert world.agent.flattening.state.state == FlattenState.FLAT


def test_its_reset_cools_and_asks_for_nothing_but_the_symbol(world: World) -> None:
    world.run(5)
    world.restart()
    world.books.value[0]["fair_value"] = 103.0
    code, text = world.command(CommandKind.RESET)
    assert code == 1
    assert "cooling for another" in text
    assert "flat" not in text
    world.run(31, step_ms=20)
    code, text = world.command(CommandKind.RESET)
    assert code == 0, text
    assert world.stop.read(0)["symbol_block"] == 0
    assert world.positions.value[1]["qty"] == 10.0


def test_what_is_kept_of_it_cools_too(world: World) -> None:
    world.bridge_fills = False
    world.run(3)
    world.books.value[0]["fair_value"] = 103.0
    code, text = world.command(CommandKind.RESET, flags=EXCUSE_REMAINING, reason="MSFT")
    assert code == 1
    assert "the reason must name what remains: AAPL (spelled so);" in text
    code, text = world.command(CommandKind.RESET, flags=EXCUSE_REMAINING, reason="AAPL")
    assert "what was named is excused" in text
    world.run(5)
    code, text = world.command(CommandKind.RESET, flags=EXCUSE_REMAINING, reason="AAPL")
    assert code == 1
    assert "cooling for another" in text


def test_held_again_it_is_not_flat(world: World) -> None:
    world.run(5)
    world.books.value[0]["fair_value"] = 103.0
    assert world.agent.flattening.symbol_flat_since_ns
    world.run(31, step_ms=20)
    world.hold(0, 5.0)
    world.run(0.5)
    code, text = world.command(CommandKind.RESET)
    assert code == 1
    assert "not confirmed flat: AAPL +5" in text


def test_a_late_fill_of_it_is_closed_and_paged_and_the_others_are_left_alone(world: World) -> None:
    world.run(5)
    world.books.value[0]["fair_value"] = 103.0
    assert world.agent.flattening.symbol_flat_since_ns
    world.cancels.clear()
    world.hold(0, 300.0)
    world.run(0.9)
    assert world.positions.value[0]["qty"] == 300.0, "a position that is rebuilt for a moment is no exposure"
    world.run(5)
    assert world.positions.value[0]["qty"] == 0.0
    assert world.positions.value[1]["qty"] == 10.0
    assert set(world.cancels) <= {0}
    assert world.agent.flattening.symbol_flat_since_ns
    pages = [e for e in world.events if e["kind"] == EventKind.ALERT and e["severity"] == Severity.P1]
    texts = [bytes(e["text"]).decode() for e in pages]
    assert [t for t in texts if "held again" in t] == [
        "held again after flat was confirmed, under the stop of its symbol: AAPL +300; closing"
    ]


def test_what_is_bought_after_its_release_is_left_alone(world: World) -> None:
    world.run(5)
    world.books.value[0]["fair_value"] = 103.0
    world.run(31, step_ms=20)
    assert world.command(CommandKind.RESET)[0] == 0
    world.hold(0, 300.0)
    world.run(5)
    assert world.positions.value[0]["qty"] == 300.0


def test_a_kill_wants_the_whole_account_flat(world: World) -> None:
    world.run(5)
    world.positions.value[1]["working_orders"] = world.broker.value[0]["working_orders"] = 0
    world.positions.publish(1)
    assert world.agent.flattening.symbol_flat_since_ns
    world.command(CommandKind.KILL)
    world.run(5)
    assert ALL_SYMBOLS in world.cancels
    assert world.positions.value[1]["qty"] == 0.0
    assert world.agent.flattening.flat_since_ns
    assert world.agent.flattening.symbol_flat_since_ns == 0
