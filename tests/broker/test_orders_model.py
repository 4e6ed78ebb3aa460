"""The order machine against a broker that is known in full: every interleaving of a small world, random ones of a
larger one. Two things hold: what may still reach the position is never understated, and in the end both agree."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from order_world import Bounds, World, begin, moves, settle, unsafe, wrong

SMALL = (
    Bounds(qty=1.0, cancels=1, replaces=(), losses=1, errors=0, readings=0, tricks=1),
    Bounds(qty=1.0, cancels=1, replaces=(), losses=0, kills=1, errors=0, readings=0, tricks=0),
    Bounds(qty=1.0, cancels=1, replaces=(2.0,), losses=0, errors=0, readings=0, tricks=0),
    Bounds(qty=2.0, cancels=0, replaces=(1.0,), losses=0, errors=0, readings=0, tricks=1),
    Bounds(qty=1.0, cancels=0, replaces=(2.0,), losses=1, errors=0, readings=0, tricks=0),
    Bounds(qty=1.0, cancels=1, replaces=(), losses=0, errors=0, readings=1, tricks=0, parks=1),
    Bounds(qty=2.0, cancels=0, replaces=(1.0,), losses=0, errors=0, readings=0, tricks=0, parks=1),
)
LARGE = (
    Bounds(qty=1.0, cancels=1, replaces=(), losses=0, errors=1, readings=1, tricks=0),
    Bounds(qty=1.0, cancels=1, replaces=(), losses=0, errors=1, readings=0, tricks=1),
    Bounds(qty=2.0, cancels=0, replaces=(1.0,), losses=1, errors=0, readings=0, tricks=1),
    Bounds(qty=2.0, cancels=1, replaces=(), losses=1, errors=0, readings=0, tricks=0),
    Bounds(qty=1.0, cancels=0, replaces=(), losses=1, kills=1, errors=0, readings=1, tricks=0),
    Bounds(qty=1.0, cancels=1, replaces=(), losses=1, errors=0, readings=0, tricks=1, parks=1),
    Bounds(qty=1.0, cancels=1, replaces=(), losses=0, kills=1, errors=0, readings=0, tricks=0, parks=2),
)


def explore(bounds: Bounds, limit: int) -> int:
    """Every world that can be reached; each is safe and settles to the truth. Returns how many."""
    first = begin(bounds)
    came_from: dict[World, tuple[World | None, str]] = {first: (None, "begin")}
    frontier = [first]
    settled: dict[tuple[object, ...], str] = {}

    def story(w: World) -> str:
        steps = []
        at: World | None = w
        while at is not None:
            at, name = came_from[at]
            steps.append(name)
        return " -> ".join(reversed(steps))

    while frontier:
        world = frontier.pop()
        assert not unsafe(world), f"{unsafe(world)}\n{story(world)}\n{world}"
        key = (world.order, world.truth, world.requests, world.messages, world.booked, world.reading, world.connected)
        if key not in settled:
            settled[key] = wrong(settle(world))
            assert not settled[key], f"{settled[key]}\n{story(world)}\n{world}\n{settle(world)}"
        for name, found in moves(world, bounds):
            if found not in came_from:
                came_from[found] = (world, name)
                frontier.append(found)
        assert len(came_from) < limit, f"more than {limit} worlds: tighten the bounds"
    return len(came_from)


@pytest.mark.parametrize("bounds", SMALL, ids=str)
def test_every_interleaving_of_a_small_world_is_safe_and_ends_right(bounds: Bounds) -> None:
    assert explore(bounds, 10_000) > 500


@pytest.mark.stress
@pytest.mark.parametrize("bounds", LARGE, ids=str)
def test_every_interleaving_of_a_larger_world_is_safe_and_ends_right(bounds: Bounds) -> None:
    assert explore(bounds, 60_000) > 5_000


BIG = Bounds(qty=4.0, cancels=3, replaces=(6.0, 3.0, 5.0), losses=3, kills=2, readings=3, errors=3, tricks=8, parks=3)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_walk_through_a_large_world_is_safe_and_ends_right(data: st.DataObject) -> None:
    world, names = begin(BIG), []
    for _ in range(data.draw(st.integers(1, 60), "steps")):
        options = list(moves(world, BIG))
        if not options:
            break
        name, world = options[data.draw(st.integers(0, len(options) - 1), "move")]
        names.append(name)
        assert not unsafe(world), f"{unsafe(world)}: {names}"
    end = settle(world)
    assert not wrong(end), f"{wrong(end)}: {names}\n{end}"
