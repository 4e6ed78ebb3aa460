"""A flatten while our books and the broker's differ: what both have is closed, the rest waits for a person's word."""

from __future__ import annotations

import pytest
from world import World

from engine.domain.codes import CommandKind, EventKind, FlattenState, Severity


def pages(world: World) -> list[str]:
    return [
        bytes(e["text"]).decode()
        for e in world.events
        if e["kind"] == EventKind.ALERT and e["severity"] == Severity.P1 and b"FLATTEN" in bytes(e["text"])
    ]


@pytest.mark.parametrize(
    ("ours", "theirs", "sent", "left"),
    [
        (100.0, 60.0, [60.0], "ours 40, broker 0"),
        (60.0, 100.0, [60.0], "ours 0, broker 40"),
        (-100.0, -60.0, [60.0], "ours -40, broker 0"),
        (100.0, -60.0, [], "ours 100, broker -60"),
    ],
)
def test_what_both_books_have_is_closed_and_the_difference_is_named(
    world: World, ours: float, theirs: float, sent: list[float], left: str
) -> None:
    world.hold(0, ours)
    world.differ(0, theirs)
    world.run(0.1)
    world.command(CommandKind.KILL)
    world.run(10)
    assert [float(o["qty"]) for o in world.orders] == sent
    flattening = world.agent.flattening
    assert flattening.state.state == FlattenState.STUCK
    assert flattening.flat_since_ns == 0
    world.run(62, step_ms=10)
    assert left in pages(world)[-1]
    assert "AAPL" in pages(world)[-1]
    assert not any("rejected by the broker" in t for t in pages(world))
    world.commands.clear()
    world.run(10, step_ms=10)
    assert CommandKind.CANCEL_ALL not in world.commands, "there is nothing to cancel"
    world.agree(0)
    world.run(40, step_ms=10)
    assert world.positions.value[0]["qty"] == 0.0
    assert flattening.flat_since_ns > 0


def test_a_symbol_whose_books_agree_is_closed_at_once_beside_it(world: World) -> None:
    world.hold(0, 100.0)
    world.hold(1, 50.0)
    world.differ(0, 60.0)
    world.command(CommandKind.KILL)
    assert world.positions.value[1]["qty"] == 0.0
    world.run(10)
    assert world.positions.value[0]["qty"] == 40.0
