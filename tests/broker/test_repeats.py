"""Cancels that the broker keeps refusing, and questions that its answers don't settle."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from scripted import CLIENT, Scripted

from engine.broker import news as n
from engine.broker.repeats import CANCELS
from engine.domain.codes import CommandKind, EventKind, OrderState


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Scripted]:
    found = Scripted(tmp_path, scope="managed")
    found.up()
    yield found
    found.close()


def cancels(world: Scripted) -> list[int]:
    return [t for t, what in world.link.sent if what == "cancel"]


def test_a_cancel_that_is_always_refused_is_repeated_seldom_and_not_for_ever(world: Scripted) -> None:
    intent = world.working(1)
    world.link.on_cancel = lambda order_id: [n.ErrorNews(order_id, 161, "Cancel attempted when not cancellable")]
    requests = world.books.efficiency.requests
    world.command(CommandKind.CANCEL_ALL)
    world.run(180.0, 50)
    sent = cancels(world)
    gaps = [(b - a) / 1e9 for a, b in pairwise(sent)]
    assert len(sent) == CANCELS
    assert all(later >= 0.9 * earlier for earlier, later in pairwise(gaps)), gaps
    assert gaps[-1] > 10.0
    assert world.books.efficiency.requests == requests + 1, "repeats are not trading"
    (told,) = [t for t in world.texts(EventKind.ALERT) if "lives on" in t]
    assert "161" in told
    assert world.state(intent) in (OrderState.WORKING, OrderState.PENDING_CANCEL)
    world.command(CommandKind.CANCEL_ALL)
    world.run(180.0, 50)
    assert len(cancels(world)) == 2 * CANCELS
    assert len([t for t in world.texts(EventKind.ALERT) if "lives on" in t]) == 2, "in vain again: told again"
    world.link.on_cancel = world.link._cancelled
    world.command(CommandKind.CANCEL_ALL)  # a person, or a flatten, asks: at once
    world.until(lambda: world.state(intent) == OrderState.CANCELLED, 2.0, "asked anew")


def test_a_cancel_that_stays_pending_is_not_asked_about_twice_a_second(world: Scripted) -> None:
    world.working(1)
    pending = [n.OrderStatusNews(1, CLIENT, 1001, "PendingCancel", 0.0, 10.0, 0.0)]

    def hold(order_id: int) -> list[n.News]:
        world.link.orders[1] = world.row(order_id=1, status="PendingCancel", order_ref=world.link.orders[1].order_ref)
        return list(pending)

    world.link.on_cancel = hold
    world.command(CommandKind.CANCEL_ALL)
    world.run(60.0, 50)
    settled = world.link.names().count("orders")
    world.run(60.0, 50)
    assert world.link.names().count("orders") - settled <= 6
