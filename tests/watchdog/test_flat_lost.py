"""Flat was confirmed under KILL, and then it is not flat any more: it is closed again, and somebody is told."""

from __future__ import annotations

from world import World

from engine.domain.codes import Badge, CommandKind, EventKind, Severity


def pages(world: World) -> list[str]:
    return [
        bytes(e["text"]).decode()
        for e in world.events
        if e["kind"] == EventKind.ALERT and e["severity"] == Severity.P1 and b"held again" in bytes(e["text"])
    ]


def flat_under_kill(world: World) -> None:
    world.hold(2, 1_001.0)
    world.run(2)
    assert world.killed
    assert world.agent.flattening.flat_since_ns
    assert world.guardrails.read(0)["kill_reasons"] == 1 << Badge.POS


def test_a_late_fill_is_closed_paged_and_flat_is_confirmed_anew(world: World) -> None:
    flat_under_kill(world)
    world.hold(2, 300.0)
    world.run(0.9)
    assert not pages(world), "a position that is rebuilt for a moment is no exposure"
    world.run(3)
    assert world.positions.value[2]["qty"] == 0.0
    assert world.agent.flattening.flat_since_ns > 0
    assert len(pages(world)) == 1
    assert "300" in pages(world)[0]


def test_a_position_of_a_moment_does_not_begin_a_flatten(world: World) -> None:
    flat_under_kill(world)
    number = world.agent.flattening.state.flatten_id
    for _ in range(4):
        world.hold(2, 300.0)
        world.run(0.5)
        world.hold(2, 0.0)
        world.run(0.2)
    assert not pages(world)
    world.run(3)
    assert world.agent.flattening.flat_since_ns > 0, "and flat is confirmed anew"
    assert world.agent.flattening.state.flatten_id != number


def test_what_an_operator_has_excused_stays(world: World) -> None:
    world.bridge_fills = False
    world.hold(0, 10.0)
    world.command(CommandKind.KILL)
    world.run(0.5)
    assert world.agent.excuse("alice", world.clock.now)
    world.bridge_fills = True
    world.run(10)
    flattening = world.agent.flattening
    flattening.flat_lost = True  # as after a fill in another symbol
    world.hold(2, 50.0)
    world.run(5)
    assert world.positions.value[2]["qty"] == 0.0
    assert flattening.state.excused & 1


def test_after_a_release_positions_are_nobodys_loss(world: World) -> None:
    flat_under_kill(world)
    world.run(32, step_ms=20)
    code, text = world.command(CommandKind.RESET)
    assert code == 0, text
    world.hold(1, 10.0)
    world.run(3)
    assert not pages(world)
    assert world.positions.value[1]["qty"] == 10.0
