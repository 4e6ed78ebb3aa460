"""A named override lifts the day's lock: trading may go on, and the limits apply anew from there."""

from __future__ import annotations

from world import World

from engine.domain.codes import Badge, BadgeState, CommandKind, EventKind, LinkState, TradingState


def lose(world: World, usd_a_share: float) -> None:
    """Hold 500 shares of symbol 0 and let them fall; the watchdog closes them."""
    world.hold(0, 500.0)
    world.run(1)
    world.mids[0] -= usd_a_share
    world.books.value[0]["fair_value"] = world.mids[0]
    world.run(2)
    world.account.value[0]["net_liquidation_usd"] -= 500.0 * usd_a_share


def override(world: World) -> None:
    world.run(31, step_ms=20)
    code, text = world.command(CommandKind.RESET, flags=1, who="jo", reason="checked with risk")
    assert code == 0, text


def test_after_an_override_the_loss_that_tripped_does_not_trip_again(world: World) -> None:
    lose(world, 11.0)
    assert world.killed
    override(world)
    world.run(3)
    assert not world.killed, world.said(EventKind.STOP)[-1]
    assert world.badge(Badge.DD)["state"] == BadgeState.OK
    assert not world.guardrails.read(0)["day_locked"]


def test_after_an_override_a_further_loss_of_the_limit_kills_and_locks_the_day_again(world: World) -> None:
    lose(world, 11.0)
    override(world)
    lose(world, 11.0)
    assert world.killed
    assert "5,500 below the day's override, limit 5,000 USD" in world.said(EventKind.STOP)[-1]
    assert world.guardrails.read(0)["day_locked"]


def test_an_override_survives_a_restart_of_the_watchdog(world: World) -> None:
    lose(world, 11.0)
    override(world)
    world.run(1.5)
    world.restart()
    world.run(1)
    assert not world.killed, world.said(EventKind.STOP)[-1]


def test_after_an_override_the_move_of_the_index_is_measured_anew_also_by_a_restarted_watchdog(world: World) -> None:
    world.index *= 0.94
    world.run(2)
    assert world.killed
    world.run(31, step_ms=20)
    refused, _ = world.command(CommandKind.RESET)
    assert refused == 1
    override(world)
    world.run(3)
    assert world.state == TradingState.ACTIVE, world.said(EventKind.STOP)[-1]
    world.restart()
    world.run(3)
    assert not world.killed, world.said(EventKind.STOP)[-1]
    world.index *= 0.94
    world.run(2)
    assert world.killed


def test_after_an_override_the_very_next_value_of_the_index_can_break_the_limit(world: World) -> None:
    world.index *= 0.94
    world.run(2)
    override(world)
    world.index *= 0.94  # the index has said nothing in between
    world.run(2)
    assert world.killed, "measured from how it stood at the override"


def test_a_later_kill_for_another_reason_needs_no_override(world: World) -> None:
    lose(world, 11.0)
    override(world)
    world.run(1)
    code, text = world.command(CommandKind.KILL)
    assert code == 0, text
    world.run(32, step_ms=20)
    assert world.command(CommandKind.RESET)[0] == 0


def test_equity_that_can_not_be_marked_during_an_outage_kills_but_does_not_lock_the_day(world: World) -> None:
    world.hold(0, 100.0)
    world.run(1)
    broker = world.broker.value[0]
    broker["link"], broker["reconciled"], broker["down_since_ns"] = LinkState.DOWN, 0, world.clock.now
    world.quiet_symbols, world.index_silent = set(range(world.n)), True
    world.run(75, step_ms=20)
    assert world.badge(Badge.DD)["state"] == BadgeState.TRIPPED
    assert world.killed
    assert not world.guardrails.read(0)["day_locked"]
