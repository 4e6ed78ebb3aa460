"""Flat was confirmed under KILL, and then it is not flat any more: it is closed again, and somebody is told."""

from __future__ import annotations

from world import MS, World

from engine.domain.codes import Badge, CommandKind, EventKind, Severity
from engine.risk import latch


def pages(world: World, words: bytes = b"held again") -> list[str]:
    return [
        bytes(e["text"]).decode()
        for e in world.events
        if e["kind"] == EventKind.ALERT and e["severity"] == Severity.P1 and words in bytes(e["text"])
    ]


LOOSE = b"nothing held that could be reduced"


def work(world: World, count: int, symbol: int = 1) -> None:
    """So many orders work in a symbol, and in all."""
    world.positions.value[symbol]["working_orders"] = count
    world.positions.publish(symbol)
    world.broker.value[0]["working_orders"] = count
    world.broker.value[0]["order_events"] += 1


def keep_symbol_0(world: World) -> None:
    """KILL, with a position that can't be closed and that an operator keeps by name; the rest is confirmed flat."""
    world.bridge_fills = False
    world.hold(0, 10.0)
    world.command(CommandKind.KILL)
    world.run(0.5)
    assert world.agent.excuse("alice", world.clock.now)
    world.bridge_fills = True
    world.run(10)


def late(world: World) -> None:
    """LAT trips: every reply comes 800 ms late."""
    b = world.broker.value[0]
    for _ in range(6):
        count = int(b["rtt_count"])
        b["rtt_ns"][count % len(b["rtt_ns"])] = 800 * MS
        b["rtt_count"] = count + 1
        world.run(0.3)
    world.run(3)
    assert world.guardrails.read(0)["kill_reasons"] & 1 << Badge.LAT


def test_a_further_cause_sells_nothing_that_an_operator_keeps(world: World) -> None:
    keep_symbol_0(world)
    late(world)
    assert world.positions.value[0]["qty"] == 10.0
    assert world.agent.flattening.kept(world.agent.stops.latch) == 1
    world.command(CommandKind.KILL)
    world.run(5)
    assert world.positions.value[0]["qty"] == 0.0, "the last word of a person counts"


def cancels(world: World) -> int:
    return world.commands.count(CommandKind.CANCEL_ALL)


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
    keep_symbol_0(world)
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


def test_an_order_that_works_after_flat_is_cancelled_and_told(world: World) -> None:
    flat_under_kill(world)
    before = cancels(world)
    work(world, 1)
    world.run(0.9)
    assert cancels(world) == before, "a close that has filled is not over at once"
    world.run(0.5)
    assert cancels(world) > before
    assert pages(world, LOOSE) == [
        "1 order works under KILL with nothing held that could be reduced: cancelling; see who or what sends them"
    ]
    work(world, 0)
    world.run(3)
    assert world.agent.flattening.flat_since_ns > 0
    assert len(pages(world, LOOSE)) == 1


def test_an_order_of_a_moment_after_flat_is_only_confirmed_anew(world: World) -> None:
    flat_under_kill(world)
    for _ in range(3):
        work(world, 1)
        world.run(0.6)
        work(world, 0)
        world.run(0.5)
    world.run(2)
    assert not pages(world, LOOSE)
    assert world.agent.flattening.flat_since_ns > 0


def test_orders_that_work_at_a_start_that_is_latched_are_cancelled(world: World) -> None:
    latch.save(world.state_dir, latch.Latch(kill=True, kill_id=world.clock.now, boot_id=latch.boot_id()))
    work(world, 2)
    world.restart()
    world.run(1.5)
    assert cancels(world) > 0
    assert pages(world, LOOSE)[0].startswith("2 orders work under KILL")


def test_books_that_have_not_been_compared_prove_no_order_loose(world: World) -> None:
    flat_under_kill(world)
    before = cancels(world)
    work(world, 1)
    world.broker.value[0]["reconciled"] = 0
    world.run(3)
    assert cancels(world) == before
    world.broker.value[0]["reconciled"] = 1
    world.run(1.5)
    assert cancels(world) > before


def test_the_bridges_own_flatten_is_left_alone_with_its_orders(world: World) -> None:
    stop = world.bridge_stop.value[0]
    work(world, 1)
    stop["kill"], stop["kill_reason"], stop["stop_id"] = 1, 1 << Badge.KILL, world.clock.now
    world.bridge_stop.publish()
    world.run(5)
    assert world.killed
    assert not cancels(world)
    assert not pages(world, LOOSE)


def test_an_order_in_what_an_operator_keeps_may_rest_and_another_is_cancelled(world: World) -> None:
    keep_symbol_0(world)
    assert world.agent.flattening.flat_since_ns > 0
    before = cancels(world)
    work(world, 1, symbol=0)
    world.run(3)
    assert cancels(world) == before
    assert not pages(world, LOOSE)
    world.broker.value[0]["working_orders"] = 2  # and one that reduces nothing
    world.run(1.5)
    assert cancels(world) > before
    assert len(pages(world, LOOSE)) == 1
    assert world.positions.value[0]["qty"] == 10.0
