"""The turn of the session at 04:00 New York, with the link away: no fill is lost between two days."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from scripted import MS, S, Scripted

from engine import topology
from engine.broker import news as n
from engine.domain.codes import EventKind, ExecKind, OrderState
from engine.domain.sessions import next_roll_ns
from engine.procs.broker_bridge import BrokerBridge


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Scripted]:
    found = Scripted(tmp_path)
    yield found
    found.close()


def to_before_the_roll(world: Scripted) -> None:
    """Without a link, ten seconds before the session's end."""
    world.link.refuse = True
    world.link.disconnect("cut")
    world.turn()
    wall = world.clock.wall_ns(world.clock.now)
    world.clock.advance(next_roll_ns(wall) - wall - 10 * S)
    world.turn()


def over_the_roll(world: Scripted) -> None:
    date = world.books.date
    world.until(lambda: world.books.date != date, 20.0, "another session")
    world.link.refuse = False
    world.until(lambda: world.books.reading is not None, 60.0, "connected")
    world.up()
    world.run(0.5)


def sold_out(world: Scripted) -> n.ExecutionNews:
    """What fills the working order before the session's end; nobody hears it."""
    world.link.orders.clear()
    world.holds(0, 10.0)
    return world.fill("0a1.01", 0, 10.0, order_id=1, client_id=11, perm_id=1001)


def test_a_fill_that_was_missed_before_the_roll_is_booked_to_the_day_before(world: Scripted) -> None:
    world.up()
    intent = world.working(qty=10.0)
    to_before_the_roll(world)
    sold_out(world)
    over_the_roll(world)
    held = world.books.accounts.holdings[0]
    assert (held.qty, held.day_open_qty, held.executions, held.avg_cost) == (10.0, 10.0, 0, 10.0)
    order = world.register.by_intent[intent]
    assert (order.state, order.filled, order.booked, order.base, order.open) == (
        OrderState.FILLED, 10.0, 10.0, 10.0, False,
    )  # fmt: skip
    assert not world.books.mismatch
    assert not world.books.accounts.check()
    assert any("of the session before" in t for t in world.texts(EventKind.RECONCILE))
    world.link.disconnect("cut")  # and every later reading repeats it
    world.run(1.0)
    world.up()
    assert world.books.accounts.holdings[0].qty == 10.0
    assert world.register.by_intent[intent].filled == 10.0


def test_what_was_booked_before_the_roll_is_not_booked_again(world: Scripted) -> None:
    world.up()
    world.working(qty=20.0)
    part = world.fill("0a0.01", 0, 5.0, order_id=1, client_id=11, perm_id=1001)
    world.link.say(part, world.holds(0, 5.0))
    world.run(1.0)
    to_before_the_roll(world)
    world.fill("0a1.01", 0, 10.0, order_id=1, client_id=11, perm_id=1001)
    world.holds(0, 15.0)
    over_the_roll(world)
    assert world.books.accounts.holdings[0].qty == 15.0
    (order,) = world.register.by_intent.values()
    assert (order.state, order.filled, order.booked, order.remaining) == (OrderState.PARTIAL, 15.0, 15.0, 5.0)
    rest = world.fill("0a2.01", 0, 5.0, order_id=1, client_id=11, perm_id=1001)
    world.link.say(rest, world.holds(0, 20.0))
    world.run(0.2)
    (order,) = world.register.by_intent.values()
    assert (order.state, order.booked) == (OrderState.FILLED, 20.0)
    assert (world.books.accounts.holdings[0].qty, world.books.accounts.holdings[0].day_open_qty) == (20.0, 15.0)
    assert not world.books.mismatch


def journaled(world: Scripted) -> list[tuple[str, int, float, float]]:
    return [
        (bytes(r["exec_id"]).rstrip(b"\0").decode(), int(r["kind"]), float(r["qty"]), float(r["price"]))
        for r in world.executions.poll()
    ]


def test_a_correction_after_the_roll_is_journaled_and_moves_nothing(world: Scripted) -> None:
    world.up()
    world.working(qty=10.0)
    first = world.fill("0a1.01", 0, 10.0, order_id=1, client_id=11, perm_id=1001)
    world.link.orders.clear()
    world.link.say(first, world.holds(0, 10.0))
    world.run(1.0)
    to_before_the_roll(world)
    over_the_roll(world)
    world.executions.poll()
    corrected = replace(first, exec_id="0a1.02", price=first.price - 0.08)
    world.link.say(corrected)
    world.run(0.5)
    held = world.books.accounts.holdings[0]
    assert (held.qty, held.day_open_qty, held.executions) == (10.0, 10.0, 0)
    assert journaled(world) == [("0a1.02", ExecKind.CORRECTION, 10.0, first.price - 0.08)]
    assert any("0a1.02 of a former session was corrected" in t for t in world.texts(EventKind.RECONCILE))
    world.link.say(corrected, first)  # repeated, and out of order
    world.run(0.5)
    assert journaled(world) == []
    assert not world.books.mismatch
    assert not world.books.accounts.check()


def test_a_correction_of_a_session_that_a_new_bridge_has_not_seen_is_no_new_fill(world: Scripted) -> None:
    world.up()
    world.link.say(world.holds(0, 10.0))
    world.bridge.session.want_reading()
    world.run(1.0)
    held = world.books.accounts.holdings[0].qty
    wall = world.clock.wall_ns(world.clock.now)
    news = replace(
        world.fill("0a1.02", 0, 10.0, order_id=1, client_id=11, perm_id=1001), t_exec_wall_ns=wall - 24 * 3600 * S
    )
    world.executions.poll()
    world.link.say(news)
    world.run(0.5)
    assert world.books.accounts.holdings[0].qty == held
    assert [row[:2] for row in journaled(world)] == [("0a1.02", ExecKind.CORRECTION)]


def test_a_presumed_end_is_corrected_by_the_fill_of_the_session_before(world: Scripted) -> None:
    world.up()
    intent = world.working(qty=10.0)
    part = world.fill("0a0.01", 0, 4.0, order_id=1, client_id=11, perm_id=1001)
    world.link.say(part, world.holds(0, 4.0))
    world.run(1.0)
    world.link.orders.clear()
    world.bridge.session.want_reading()
    world.run(1.0)
    assert world.register.by_intent[intent].presumed
    to_before_the_roll(world)
    world.fill("0a1.01", 0, 6.0, order_id=1, client_id=11, perm_id=1001)
    world.holds(0, 10.0)
    over_the_roll(world)
    order = world.register.by_intent.get(intent)
    assert world.books.accounts.holdings[0].qty == 10.0
    assert order is None or (order.state, order.booked) == (OrderState.FILLED, 10.0)
    assert not world.books.mismatch


def test_after_a_restart_the_mismatch_names_the_orders_whose_end_was_not_told(world: Scripted) -> None:
    world.up()
    world.working(qty=10.0)
    world.run(2.0)
    to_before_the_roll(world)
    sold_out(world)
    world.bridge._writer.drain(5.0)
    world.bridge._writer.close()
    world.clock.advance(60 * S)  # over the roll
    world.context = world.instance.context(topology.BRIDGE)
    world.link.refuse = False
    world.bridge = BrokerBridge(world.context, world.link)
    world.books, world.register = world.bridge.books, world.bridge.register
    world.bridge.on_start(world.clock.now)
    world.until(lambda: world.books.mismatch, 20.0, "a mismatch")
    world.run(20 * MS / S)
    (told,) = [t for t in world.texts(EventKind.RECONCILE) if "last recorded position" in t]
    assert "order 1 (+10, 0 filled)" in told
