"""Which order the broker means: copies with our reference, orders without a key, another client id, other contracts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted import CLIENT, Scripted

from engine.broker import news as n
from engine.domain.codes import CommandKind, EventKind, OrderState
from engine.runtime.ids import order_ref


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Scripted]:
    found = Scripted(tmp_path)
    found.up()
    yield found
    found.close()


def exposure(world: Scripted, symbol: int = 0) -> float:
    return sum(o.remaining for o in world.register.active() if o.symbol == symbol)


def read(world: Scripted) -> None:
    before = int(world.bridge.cells.broker["snapshot_id"])
    world.bridge.session.want_reading()
    world.until(lambda: int(world.bridge.cells.broker["snapshot_id"]) > before, what="a reading")


@pytest.mark.parametrize("client", [0, CLIENT])
def test_a_copy_with_our_reference_is_an_order_of_its_own(world: Scripted, client: int) -> None:
    """Client 0: duplicated in TWS; our own client id: sent twice."""
    intent = world.working(1)
    read(world)
    number = 0 if client == 0 else 9
    copy = world.row(order_id=number, client_id=client, perm_id=4242, qty=30.0, order_ref=order_ref(intent))
    world.link.orders[99] = copy
    world.link.say(copy)
    world.run(0.1)
    assert exposure(world) == 40.0, "both count"
    mine = world.register.by_intent[intent]
    assert (mine.order_id, mine.perm_id, mine.qty) == (1, 1001, 10.0)
    told = [t for t in world.texts(EventKind.RECONCILE) if "4242" in t]
    assert len(told) == 1
    assert "1001" in told[0], "both sides are named"
    second = world.register.find(perm_id=4242)
    assert second is not None
    assert (second.own, second.source) == (client == CLIENT, 0)
    world.link.say(world.fill("00a.01", 0, 30.0, order_id=number, client_id=client, perm_id=4242,
                              order_ref=order_ref(intent)))  # fmt: skip
    world.holds(0, 30.0)
    del world.link.orders[99]
    read(world)
    assert world.register.by_intent[intent].filled == 0.0
    assert world.state(intent) == OrderState.WORKING
    assert exposure(world) == 10.0
    assert world.register.by_intent[second.intent_id].state == OrderState.FILLED


def test_an_execution_of_a_copy_that_was_never_seen_is_not_booked_to_our_order(world: Scripted) -> None:
    intent = world.working(1)
    world.holds(0, 10.0)
    world.link.say(world.fill("00b.01", 0, 10.0, perm_id=4243, order_ref=order_ref(intent)))
    world.run(0.1)
    assert world.state(intent) == OrderState.WORKING
    assert exposure(world) == 10.0


def test_orders_of_others_without_any_key_are_told_apart_and_found_again(world: Scripted) -> None:
    first = world.row(order_id=0, client_id=0, perm_id=0, qty=7.0)
    second = world.row(order_id=0, client_id=0, perm_id=0, qty=8.0)
    third = world.row(order_id=5, client_id=3, perm_id=0, qty=9.0)
    for k, row in enumerate((first, second, third)):
        world.link.orders[100 + k] = row
    read(world)
    read(world)
    assert exposure(world) == 24.0
    world.link.orders[102] = world.row(order_id=5, client_id=3, perm_id=777, qty=9.0)
    read(world)
    read(world)
    assert exposure(world) == 24.0, "its permId has come: it is no other order"
    world.link.orders.clear()
    read(world)
    read(world)
    assert exposure(world) == 0.0


def test_orders_of_another_client_id_of_ours_count_but_are_not_cancelled_from_here(tmp_path: Path) -> None:
    first = Scripted(tmp_path, client=CLIENT)
    first.up()
    intent = first.working(1)
    first.close()
    world = Scripted(tmp_path, client=CLIENT + 30, scope="managed")
    try:
        world.link.orders[1] = world.row(order_id=1, order_ref=order_ref(intent))
        world.up()
        assert world.state(intent) == OrderState.WORKING
        assert exposure(world) == 10.0
        assert any(f"client id {CLIENT}" in t for t in world.texts(EventKind.ALERT))
        world.command(CommandKind.CANCEL_ALL)
        world.run(5.0)
        assert "cancel" not in world.link.names()
    finally:
        world.close()
    back = Scripted(tmp_path, client=CLIENT)
    try:
        back.link.orders[1] = back.row(order_id=1, order_ref=order_ref(intent))
        back.up()
        back.command(CommandKind.CANCEL_ALL)
        back.until(lambda: back.state(intent) == OrderState.CANCELLED, what="cancelled by whom it belongs to")
    finally:
        back.close()


def test_an_option_or_a_foreign_listing_is_not_the_stock_once_its_contract_is_learnt(world: Scripted) -> None:
    books = world.books
    learnt = 987_654
    books._instruments = tuple(
        type(i)(**{**{f: getattr(i, f) for f in i.__dataclass_fields__}, "con_id": 0}) for i in books._instruments
    )
    books._by_con.clear()
    assert books.symbol_of(learnt, "AAPL") == 0, "nothing is learnt yet: its name is all there is"
    books.learn_contract(0, learnt)
    assert books.symbol_of(learnt, "AAPL") == 0
    assert books.symbol_of(learnt, "anything") == 0
    assert books.symbol_of(learnt + 1, "AAPL") == -1
    before = books.gate.broker_qty.get(0, 0.0)
    world.link.say(n.PositionNews("DUSIM001", learnt + 1, "AAPL", "OPT", 500.0, 1.0))
    world.run(0.1)
    assert books.gate.broker_qty.get(0, 0.0) == before
