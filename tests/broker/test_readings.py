"""Readings of the broker's books: whose end it is, how often they are read, and what a mismatch leads to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted import Scripted

from engine.broker import news as n
from engine.broker.sync import Ends, Part
from engine.domain.codes import OrderState


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Scripted]:
    found = Scripted(tmp_path)
    yield found
    found.close()


def test_an_end_belongs_to_the_oldest_list_that_is_out() -> None:
    ends = Ends()
    ends.asked(Part.ORDERS | Part.POSITIONS)
    ends.asked(Part.ORDERS)
    assert not ends.newest(Part.ORDERS)
    assert not ends.came(Part.ORDERS)
    assert ends.newest(Part.ORDERS)
    assert ends.came(Part.ORDERS)
    assert ends.came(Part.POSITIONS)
    ends.asked(Part.ORDERS)
    ends.forget()
    ends.asked(Part.ORDERS)
    assert ends.came(Part.ORDERS), "another connection owes nothing"


@pytest.mark.parametrize("how", ["too late", "the broker was lost"])
def test_the_late_end_of_a_reading_that_was_given_up_ends_no_other(world: Scripted, how: str) -> None:
    world.up()
    intent = world.working()
    world.run(2.0)
    world.link.held = {"orders", "positions"}
    world.bridge.session.want_reading()
    world.run(0.1)
    asked = world.link.names().count("orders")
    abandoned = {what: list(news) for what, news in world.link.late.items()}
    world.link.late.clear()
    if how == "too late":
        world.until(lambda: world.link.names().count("orders") > asked, what="asked anew")
    else:
        world.link.say(n.ErrorNews(-1, 1100, "lost"))
        world.run(0.1)
        world.link.say(n.ErrorNews(-1, 1102, "back"))
        world.until(lambda: world.link.names().count("orders") > asked, what="asked anew")
    world.holds(1, 40.0)  # bought elsewhere since: the first list does not know it
    world.link.late["positions"] = [*world.link.positions.values(), n.PositionsEnd()]
    world.link.say(n.OpenOrdersEnd(), *abandoned["positions"])  # the first list, without a row: as before the order
    world.run(0.2)
    assert world.books.reading is not None, "ours has not ended"
    assert world.state(intent) in (OrderState.WORKING, OrderState.UNKNOWN), "it lives"
    world.link.release("orders")
    world.link.release("positions")
    world.up()
    assert world.state(intent) == OrderState.WORKING
    assert float(world.bridge.cells.positions[1]["broker_qty"]) == 40.0


def test_a_gateway_that_owes_an_end_for_ever_is_left_and_owes_nothing_afterwards(world: Scripted) -> None:
    world.up()
    intent = world.working()
    world.link.held = {"orders"}
    world.bridge.session.want_reading()
    world.run(0.1)
    world.link.late.clear()  # never answered
    world.link.held.clear()
    world.until(lambda: int(world.bridge.cells.broker["reconnects"]) >= 2, 20.0, "another connection")
    world.up()
    assert world.state(intent) == OrderState.WORKING
