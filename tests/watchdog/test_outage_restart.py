"""The broker is lost, KILL is latched, and the watchdog and the bridge die too: the outage is as long as it is."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
from world import MS, S, World

from engine import topology
from engine.domain.codes import EventKind, FlattenState, LinkState, ServiceState, Severity
from engine.risk import latch as latches

LIMIT_S = 90.0


def lose_the_broker(tmp_path: Path) -> World:
    world = World(tmp_path, {"guardrails": {"reconnect_flatten_outage_s": LIMIT_S}})
    world.run(0.5)
    world.hold(0, 100.0)
    world.run(0.5)
    b = world.broker.value[0]
    b["link"], b["reconciled"], b["down_since_ns"] = LinkState.DOWN, 0, world.clock.now
    world.quiet_symbols, world.index_silent = set(range(world.n)), True
    world.run(61, step_ms=50)
    assert world.killed
    return world


def both_die_and_return(world: World, seconds: float, wall_jump_s: float = 0.0) -> None:
    """Nobody is there for a while; then both are, and the new bridge knows only its own attempts."""
    world.agent._files.flush(5.0)
    world.agent.takeover.close()
    world.clock.advance(int(seconds * S))
    world.clock._offset_ns += int(wall_jump_s * S)
    world.ctx[topology.BRIDGE].start_heartbeat(world.clock.now).set_state(ServiceState.READY, world.clock.now)
    world.broker.value[0]["down_since_ns"] = world.clock.now
    world.agent = world.new_watchdog()
    world.run(2, step_ms=20)


def link_returns(world: World) -> None:
    b = world.broker.value[0]
    b["link"], b["reconciled"], b["down_since_ns"] = LinkState.UP, 1, 0
    world.quiet_symbols, world.index_silent = set(), False
    world.run(4)


def page(world: World) -> str:
    said = [e for e in world.events if e["kind"] == EventKind.ALERT and b"NOT flattened" in bytes(e["text"])]
    assert all(e["severity"] == Severity.P1 for e in said)
    return bytes(said[-1]["text"]).decode() if said else ""


@pytest.mark.parametrize(
    ("away_s", "wall_jump_s", "flattens"), [(10.0, 7_200.0, True), (60.0, 0.0, False), (60.0, -7_200.0, False)]
)
def test_a_restart_of_both_in_an_outage_forgets_nothing_of_its_length(
    tmp_path: Path, away_s: float, wall_jump_s: float, flattens: bool
) -> None:
    """61 s and 2 s of it are seen, the rest nobody saw. A clock on the wall that jumps makes no difference."""
    world = lose_the_broker(tmp_path)
    both_die_and_return(world, away_s, wall_jump_s)
    link_returns(world)
    assert world.killed
    if flattens:
        assert world.flatten.read(0)["state"] == FlattenState.FLAT
        assert not page(world)
    else:
        assert world.positions.value[0]["qty"] == 100.0
        assert not world.orders
        assert f"broker back after {61 + away_s + 2:.0f} s" in page(world)
        assert "AAPL +100" in page(world)
    world.close()


@pytest.mark.parametrize(
    ("away_s", "wall_jump_s", "length"),
    [(10.0, 0.0, ""), (10.0, 3_600.0, "broker back after 3673 s"), (10.0, -3_600.0, "of unknown length")],
)
def test_after_a_reboot_the_wall_tells_the_length_and_one_that_went_back_means_unknown(
    tmp_path: Path, away_s: float, wall_jump_s: float, length: str
) -> None:
    world = lose_the_broker(tmp_path)
    with mock.patch.object(latches, "boot_id", return_value="another boot"):
        both_die_and_return(world, away_s, wall_jump_s)
        link_returns(world)
        if not length:
            assert world.flatten.read(0)["state"] == FlattenState.FLAT
        assert length in page(world)
    world.close()


def test_a_bridge_that_lost_the_broker_again_is_not_made_up_for_when_the_whole_outage_was_too_long(
    tmp_path: Path,
) -> None:
    """The emergency connection follows the same clock: the newcomer's own outage is a short one."""
    world = lose_the_broker(tmp_path)
    assert world.agent.takeover._in_time(world.clock.now)
    both_die_and_return(world, 60.0)
    assert not world.agent.takeover._in_time(world.clock.now)
    world.close()


def test_the_next_outage_has_a_length_of_its_own(tmp_path: Path) -> None:
    world = lose_the_broker(tmp_path)
    first = world.agent.stops.latch.lost_since_ns
    link_returns(world)
    world.agent.stops.release_kill("test", world.clock.now, 3, lambda: None, print, pause_after=False)
    world.run(0.2)
    assert not world.killed
    world.hold(0, 100.0)
    b = world.broker.value[0]
    b["link"], b["reconciled"], b["down_since_ns"] = LinkState.DOWN, 0, world.clock.now
    begun_ns = world.clock.now
    world.quiet_symbols, world.index_silent = set(range(world.n)), True
    world.run(61, step_ms=50)
    assert world.agent.stops.latch.lost_since_ns > first
    assert abs(world.agent.stops.latch.lost_since_ns - begun_ns) < 100 * MS
    world.close()


def test_a_restart_inside_the_reset_window_still_pages_when_the_window_is_over(tmp_path: Path) -> None:
    world = lose_the_broker(tmp_path)
    with mock.patch.object(type(world.agent.senses), "_hours", return_value=(True, True)):
        both_die_and_return(world, 1.0)
    world.run(1, step_ms=20)
    assert any("the reset window is over" in text for text in world.said(EventKind.ALERT))
    world.close()
