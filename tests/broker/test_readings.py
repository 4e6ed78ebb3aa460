"""Readings of the broker's books: whose end it is, how often they are read, and what a mismatch leads to."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from scripted import S, Scripted

from engine.broker import news as n
from engine.broker.sync import Ends, Part
from engine.domain.codes import BlockReason, CommandKind, EventKind, LinkState, OrderState, Source


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


def test_a_status_that_was_lost_without_a_question_is_found_by_the_next_look(world: Scripted) -> None:
    world.up()
    intent = world.working()
    world.bridge.session.want_reading()
    world.run(1.0)
    asked = world.link.names().count("orders")
    world.link.orders.clear()  # cancelled there; nothing is said
    world.run(20.0, 50)
    assert world.link.names().count("orders") == asked
    world.run(12.0, 50)
    assert world.state(intent) == OrderState.CANCELLED
    (told,) = [t for t in world.texts(EventKind.RECONCILE) if "does not list" in t]
    assert "ours WORKING" in told
    calm = world.link.names().count("orders")
    world.run(110.0, 50)
    assert world.link.names().count("orders") - calm <= 1, "seldom when nothing works"
    world.run(20.0, 50)
    assert world.link.names().count("orders") - calm >= 1


def test_a_mismatch_is_read_again_by_itself_more_and_more_seldom_until_the_books_agree(world: Scripted) -> None:
    world.up()
    world.link.say(world.holds(0, 25.0))
    world.until(lambda: world.books.mismatch, what="a mismatch")
    blocked = 1 << BlockReason.POSITION_MISMATCH
    world.run(0.1)
    assert int(world.bridge.cells.stop["block_reasons"]) & blocked
    assert any("ours 0, broker 25" in t for t in world.texts(EventKind.RECONCILE))
    begin = len(world.link.sent)
    world.run(100.0, 50)
    times = [t for t, what in world.link.sent[begin:] if what == "positions"]
    gaps = [(b - a) / 1e9 for a, b in pairwise(times)]
    assert gaps[0] < 4.0
    assert all(later >= earlier - 0.1 for earlier, later in pairwise(gaps)), gaps
    assert 20.0 < gaps[-1] <= 31.0
    world.fill("00c.01", 0, 25.0, perm_id=31)  # the broker finds the execution late, and pushes nothing
    world.until(lambda: not world.books.mismatch, 40.0, "the books agree")
    world.run(0.1)
    assert not int(world.bridge.cells.stop["block_reasons"]) & blocked
    assert "positions agree again" in world.texts(EventKind.RECONCILE)


def test_an_operator_ends_the_looking(world: Scripted) -> None:
    world.up()
    world.link.say(world.holds(0, 25.0))
    world.until(lambda: world.books.mismatch, what="a mismatch")
    world.command(CommandKind.ACCEPT_POSITIONS)
    world.run(1.0)
    assert not world.books.mismatch
    count = world.link.names().count("positions")
    world.run(20.0, 50)
    assert world.link.names().count("positions") == count


@pytest.mark.parametrize("how", ["1100", "link"])
def test_snapshots_that_wait_when_the_link_is_lost_are_refused(world: Scripted, how: str) -> None:
    world.up()
    world.link.held = {"orders"}
    first = world.command(CommandKind.SNAPSHOT)
    world.run(0.1)
    second = world.command(CommandKind.SNAPSHOT)  # waits for the reading of the first to end
    world.run(0.1)
    if how == "1100":
        world.link.say(n.ErrorNews(-1, 1100, "lost"))
    else:
        world.link.disconnect("cut")
    world.run(0.2)
    results = {int(e["ref_id"]): e for e in world.events_of(EventKind.COMMAND_RESULT)}
    for command in (first, second):
        assert int(results[command]["code"]) == 1
        assert b"lost" in results[command]["text"]


def test_after_a_reconnect_the_requests_leave_in_order_and_entries_wait_for_the_comparison(world: Scripted) -> None:
    world.up()
    world.link.held = {"positions"}
    begin = len(world.link.sent)
    world.link.disconnect("cut")
    world.run(3.0)
    names = [x for x in world.link.names(begin) if x in ("executions", "orders", "positions", "account")]
    assert names[:4] == ["executions", "orders", "positions", "account"]
    open_reasons = 1 << BlockReason.RECONCILIATION_OPEN
    assert int(world.bridge.cells.stop["block_reasons"]) & open_reasons
    assert world.bridge.conn.state == LinkState.SYNCING
    world.link.release("positions")
    world.up()
    world.run(0.1)
    assert not int(world.bridge.cells.stop["block_reasons"]) & open_reasons
    assert world.bridge.conn.state == LinkState.UP
    (told,) = [e for e in world.events_of(EventKind.RECONCILE) if b"reconciled" in e["text"]][1:]
    (connected,) = [e for e in world.events_of(EventKind.CONNECTIVITY) if b"connected to" in e["text"]][1:]
    assert told["t_ns"] > connected["t_ns"]


def test_the_burst_after_reconnects_stays_within_what_the_gateway_allows(world: Scripted) -> None:
    world.up()
    for k in range(12):
        world.working(k + 1)
    for _ in range(4):
        world.link.disconnect("cut")
        world.bridge.session.reconnect(world.clock.now)
        world.command(CommandKind.CANCEL_ALL)
        world.run(0.3)
    world.run(3.0)
    times = [t for t, _ in world.link.sent]
    worst = max(sum(begin <= t <= begin + S for t in times) for begin in times)
    assert worst <= 50
    assert worst > 20, "there was something to hold back"


def test_a_look_asks_for_executions_only_if_something_differs(world: Scripted) -> None:
    world.up()
    world.working()
    world.bridge.session.want_reading()
    world.run(1.0)
    begin = len(world.link.sent)
    world.run(95.0, 50)
    looks = world.link.names(begin)
    assert looks.count("orders") == looks.count("positions") == 3
    assert "executions" not in looks, "a long list that nobody needs"
    begin = len(world.link.sent)
    world.holds(0, 10.0)  # filled; neither the execution nor the status was told
    world.fill("00f.01", 0, 10.0, order_id=1, client_id=11, perm_id=1001)
    world.link.orders.clear()
    world.run(35.0, 50)
    assert world.link.names(begin).count("executions") == 1
    assert world.state(int(Source.OPERATOR) << 56 | 1) == OrderState.FILLED
    assert world.books.reconciled
    assert not world.books.mismatch


def test_details_that_do_not_come_are_asked_for_more_and_more_seldom(world: Scripted) -> None:
    world.up()
    begin = len(world.link.sent)
    world.run(120.0, 50)
    times = [t for t, what in world.link.sent[begin:] if what == "details"]
    assert 3 * 4 <= len(times) <= 3 * 6, "three symbols, after 2, 4, 8, 16, 32, 64 s"


def test_an_inactive_order_is_parked_counts_and_is_no_matter_to_ask_about(world: Scripted) -> None:
    world.up()
    intent = world.working()
    world.link.orders[1] = world.row(status="Inactive", order_ref=world.link.orders[1].order_ref)
    world.link.say(n.OrderStatusNews(1, 11, 1001, "Inactive", 0.0, 10.0, 0.0))
    world.run(2.0)
    order = world.register.by_intent[intent]
    assert (order.state, order.parked, order.question_ns) == (OrderState.UNKNOWN, True, 0)
    assert float(world.bridge.cells.positions[0]["unknown_buy_qty"]) == 10.0
    assert int(world.bridge.cells.broker["snapshot_open_orders"]) == 1
    count = world.link.names().count("orders")
    world.run(20.0, 50)
    assert world.link.names().count("orders") == count
    world.link.disconnect("cut")
    world.run(0.1)
    assert world.register.by_intent[intent].question_ns, "what became of it meanwhile?"
    world.up()
    assert world.register.by_intent[intent].parked
    world.link.orders.clear()
    world.bridge.session.want_reading()
    world.run(1.0)
    assert world.state(intent) == OrderState.CANCELLED


def test_everything_is_flat_when_a_parked_order_stays_listed_after_its_cancel(world: Scripted) -> None:
    world.up()
    intent = world.working()
    world.link.orders[1] = world.row(status="Inactive", order_ref=world.link.orders[1].order_ref)
    world.link.say(n.OrderStatusNews(1, 11, 1001, "Inactive", 0.0, 10.0, 0.0))
    world.run(1.0)
    world.link.on_cancel = lambda order_id: []  # nothing is said, and it stays in the list
    world.link.held = {"global_cancel"}  # the first one is lost
    world.command(CommandKind.CANCEL_ALL)
    world.run(0.1)
    assert world.state(intent) == OrderState.PENDING_CANCEL
    world.link.disconnect("cut")
    world.run(5.0)
    assert world.link.names().count("cancel") >= 1, "asked for again"
    world.until(lambda: world.state(intent) == OrderState.CANCELLED, what="it is over")
    world.command(CommandKind.SNAPSHOT)
    world.run(0.5)
    assert int(world.bridge.cells.broker["snapshot_open_orders"]) == 0
    assert world.register.active_count == 0


@pytest.mark.parametrize("how", ["1102", "link"])
@pytest.mark.parametrize("lives", [True, False])
def test_the_first_list_after_an_outage_may_not_know_every_order_yet(world: Scripted, how: str, lives: bool) -> None:
    world.up()
    intent = world.working()
    world.run(2.0)
    row = world.link.orders.pop(1)  # the gateway is still collecting its own
    if how == "link":
        world.link.disconnect("cut")
    else:
        world.link.say(n.ErrorNews(-1, 1100, "lost"))
        world.run(0.1)
        world.link.say(n.ErrorNews(-1, 1102, "back"))
    world.run(0.1)
    world.up()
    world.run(1.0)
    order = world.register.by_intent[intent]
    assert (order.state, order.remaining) == (OrderState.UNKNOWN, 10.0), "it counts, and is asked about"
    if lives:
        world.link.orders[1] = row
        world.until(lambda: world.state(intent) == OrderState.WORKING, 3.0, "listed after all")
        return
    asked = world.link.names().count("orders")
    world.run(1.2)
    assert world.state(intent) == OrderState.UNKNOWN
    world.until(lambda: world.state(intent) == OrderState.CANCELLED, 4.0, "believed")
    assert world.link.names().count("orders") > asked, "by a later list"


@pytest.mark.parametrize("how", ["1100", "link"])
def test_what_one_outage_has_left_in_doubt_is_not_believed_at_once_after_the_next(world: Scripted, how: str) -> None:
    world.up()
    intent = world.working()
    row = world.link.orders.pop(1)
    world.link.disconnect("cut")
    world.run(0.1)
    world.up()
    if how == "link":
        world.link.refuse = True
        world.link.disconnect("cut again")
        world.run(10.0)
        world.link.refuse = False
    else:
        world.link.say(n.ErrorNews(-1, 1100, "lost"))
        world.run(10.0)
        world.link.say(n.ErrorNews(-1, 1102, "back"))
        world.run(0.1)
    world.up()
    world.run(0.5)
    assert world.state(intent) == OrderState.UNKNOWN
    world.link.orders[1] = row
    world.until(lambda: world.state(intent) == OrderState.WORKING, 3.0, "listed after all")
