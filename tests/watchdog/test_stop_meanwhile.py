"""A stop that comes while a release is being written holds: in memory, on disk and in the journal."""

from __future__ import annotations

import json

import pytest
from world import World

from engine.domain.codes import Badge, CommandKind, EventKind, Source, TradingState
from shm.cell import CellWriter


def on_disk(world: World) -> dict[str, object]:
    found: dict[str, object] = json.loads((world.state_dir / "latch.json").read_text())
    return found


def set_stop(world: World, cell: CellWriter, **values: int) -> None:
    for name, value in values.items():
        cell.value[0][name] = value
    cell.value[0]["stop_id"] = world.clock.now
    cell.publish()


def begin(world: World, kind: CommandKind) -> tuple[list[bool], list[str]]:
    released: list[bool] = []
    refused: list[str] = []
    stops, now = world.agent.stops, world.clock.now
    if kind == CommandKind.RESUME:
        stops.release_pause("resume", now, Source.CLI, lambda: released.append(True), refused.append)
    else:
        stops.release_kill("r", now, Source.CLI, lambda: released.append(True), refused.append, pause_after=False)
    return released, refused


@pytest.mark.parametrize("kind", [CommandKind.RESUME, CommandKind.RESET])
def test_a_stop_of_one_symbol_beats_a_release_that_is_being_written(world: World, kind: CommandKind) -> None:
    world.command(CommandKind.PAUSE if kind == CommandKind.RESUME else CommandKind.KILL)
    world.run(32, step_ms=20)
    released, refused = begin(world, kind)
    assert world.agent.stops.kill_symbols(1, "DRIFT", world.clock.now)
    world.run(0.2)
    assert not released
    assert refused == ["a new stop came meanwhile"]
    assert world.agent.stops.latch.symbol_kill == on_disk(world)["symbol_kill"] == 1


def test_a_reset_of_a_stopped_symbol_is_beaten_by_the_same_stop(world: World) -> None:
    world.agent.stops.kill_symbols(1, "DRIFT", world.clock.now)
    released, refused = begin(world, CommandKind.RESET)
    assert not world.agent.stops.kill_symbols(1, "DRIFT", world.clock.now)
    world.run(0.2)
    assert (released, refused) == ([], ["a new stop came meanwhile"])
    assert on_disk(world)["symbol_kill"] == 1


def test_a_symbol_that_is_stopped_already_does_not_hold_up_a_resume(world: World) -> None:
    world.agent.stops.kill_symbols(1, "DRIFT", world.clock.now)
    world.command(CommandKind.PAUSE)
    released, refused = begin(world, CommandKind.RESUME)
    world.agent.stops.kill_symbols(1, "DRIFT", world.clock.now)
    world.run(0.2)
    assert (released, refused) == ([True], [])
    assert on_disk(world)["symbol_kill"] == 1


def test_a_pause_in_a_cell_while_a_resume_is_being_written_is_adopted(world: World) -> None:
    world.command(CommandKind.PAUSE)
    released, _ = begin(world, CommandKind.RESUME)
    world.clock.advance(1_000)
    set_stop(world, world.operator_stop, pause=1)
    world.agent._adopt(world.clock.now)  # the change is seen while the former PAUSE holds
    world.run(0.2)
    world.run(0.2)  # the file is on its disk now
    assert released
    assert world.state == TradingState.PAUSED
    assert on_disk(world)["pause"] is True
    assert "pause set by operator" in world.said(EventKind.STOP)


def test_a_kill_in_a_cell_while_a_reset_is_being_written_is_adopted_and_gets_flat(world: World) -> None:
    world.command(CommandKind.KILL)
    world.run(32, step_ms=20)
    released, _ = begin(world, CommandKind.RESET)
    world.clock.advance(1_000)
    set_stop(world, world.operator_stop, kill=1, kill_reason=1 << Badge.KILL)
    world.agent._adopt(world.clock.now)
    world.hold(0, 5.0)
    world.run(0.2)
    world.run(1)
    assert released
    assert world.killed
    assert on_disk(world)["kill"] is True
    assert "stop set by operator" in world.said(EventKind.STOP)
    assert world.positions.value[0]["qty"] == 0.0
