"""Messages that can't be read: counted, told, and never taken for silence."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from scripted import Scripted
from test_decode_fuzz import Wire, frame

from engine.broker import news as n
from engine.domain.codes import BlockReason, CommandKind, EventKind, OrderState

CONTRACT = (265598, "AAPL", "STK", "", 0, "", "", "NASDAQ", "USD", "AAPL", "NMS")


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    made.link._client._apiReady = True
    yield made
    made.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Scripted]:
    found = Scripted(tmp_path)
    yield found
    found.close()


def status(order_id: object = 5, filled: object = 0) -> bytes:
    return frame(3, order_id, "Submitted", filled, 100, 0, 77, 0, 0, 7, "", 0)


def position(qty: object) -> bytes:
    return frame(61, 3, "DU1", 265598, "AAPL", "STK", "", 0, "", "", "NASDAQ", "USD", "AAPL", "NMS", qty, 10)


def execution(when: str = "20261126 10:00:00 America/New_York", shares: object = 10) -> bytes:
    return frame(11, -1, 5, *CONTRACT[:4], *CONTRACT[4:], "0001.01.01", when, "DU1", "ISLAND", "BOT", shares, 10.5, 77,
                 7, 0, 10, 10.5, "L2:1", "", "", "", 1)  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        (status("five"), "orderStatus"),
        (status(5, "nan"), "orderStatus"),
        (frame(3, 5), "orderStatus"),
        (frame(5, 5, 265598), "openOrder"),
        (execution("yesterday"), "execDetails"),
        (execution(shares="inf"), "execDetails"),
        (frame(11, 7, "x"), "execDetails"),
        (position("many"), "position"),
        (position("nan"), "position"),
        (frame(61, 3), "position"),
        (frame(59, 1, "e", "free", "USD", 0, 0, 0), "commissionReport"),
        (frame(4, 2, "x", 201, "words", ""), "error"),
        (frame(4711, 1), "message 4711"),
        (frame("abc", 1), "message 0"),
    ],
)
def test_what_cannot_be_read_is_counted_and_told_at_its_place(wire: Wire, bad: bytes, name: str) -> None:
    wire.send(status(4) + bad + status(6))
    first, told, last = wire.link.news
    assert isinstance(first, n.OrderStatusNews)
    assert isinstance(last, n.OrderStatusNews)
    assert (first.order_id, last.order_id) == (4, 6), "what comes before and after it is heard"
    assert isinstance(told, n.UnreadableNews)
    assert told.name == name
    assert told.why
    assert wire.link.bad_frames == 1


def test_what_can_be_read_is_no_complaint(wire: Wire) -> None:
    wire.send(status() + position(5) + execution() + frame(61, 3, *["DU1", *CONTRACT], -7.5, 10))
    assert [type(x) for x in wire.link.news] == [n.OrderStatusNews, n.PositionNews, n.ExecutionNews, n.PositionNews]
    assert wire.link.bad_frames == 0


def test_an_order_whose_row_cannot_be_read_is_not_missing(world: Scripted) -> None:
    world.up()
    intent = world.working()
    world.run(2.0)
    world.link.held = {"orders"}
    world.bridge.session.want_reading()
    world.run(0.1)
    world.link.late["orders"] = [n.UnreadableNews(5, "openOrder", "ValueError: x"), n.OpenOrdersEnd()]
    asked = world.link.names().count("orders")
    world.link.release("orders")
    world.run(0.1)
    assert world.state(intent) == OrderState.WORKING, "only the row is lost"
    world.until(lambda: world.link.names().count("orders") > asked, 2.0, "read again")
    world.run(0.2)
    assert world.state(intent) == OrderState.WORKING
    assert world.books.reading is None
    (told,) = [t for t in world.texts(EventKind.CONNECTIVITY) if "can't be read" in t]
    assert "openOrder" in told
    assert "ValueError: x" in told


@pytest.mark.parametrize("message", [0, 3, 4, 5, 11, 59, 61])
def test_a_message_that_is_lost_to_garbage_makes_the_books_be_read(world: Scripted, message: int) -> None:
    world.up()
    world.run(2.0)
    begin, events = len(world.link.sent), int(world.bridge.cells.broker["order_events"])
    world.link.say(*[n.UnreadableNews(message, "x", "y")] * 30)
    world.run(5.0)
    asked = world.link.names(begin)
    assert 1 <= asked.count("executions") <= 2, "once at once, and once for what came after it"
    assert asked.count("orders") == asked.count("positions") == asked.count("executions")
    assert int(world.bridge.cells.broker["order_events"]) > events, "what was read before is not the last word"
    assert len([t for t in world.texts() if "can't be read" in t]) == 1


def test_garbage_that_concerns_no_book_is_told_and_nothing_else(world: Scripted) -> None:
    world.up()
    world.run(2.0)
    begin = len(world.link.sent)
    world.link.say(n.UnreadableNews(4711, "message 4711", "no such message is known"))
    world.run(2.0)
    assert "executions" not in world.link.names(begin)
    assert any("message 4711" in t for t in world.texts())


def test_books_that_can_never_be_read_block_entries_and_are_asked_for_more_and_more_seldom(world: Scripted) -> None:
    world.link._told.clear()
    garbage = n.UnreadableNews(61, "position", "z")
    world.link.positions[7] = garbage  # type: ignore[assignment]
    world.run(60.0, 50)
    assert not world.books.reconciled
    assert int(world.bridge.cells.stop["block_reasons"]) & 1 << BlockReason.RECONCILIATION_OPEN
    times = [t for t, what in world.link.sent if what == "positions"]
    gaps = [(b - a) / 1e9 for a, b in pairwise(times)]
    assert gaps[0] < 1.5
    assert gaps[-1] >= 14.0
    command = world.command(CommandKind.SNAPSHOT)
    world.run(20.0, 50)
    (answer,) = [e for e in world.events_of(EventKind.COMMAND_RESULT) if int(e["ref_id"]) == command]
    assert int(answer["code"]) == 1
    assert b"position" in answer["text"]
    del world.link.positions[7]
    world.until(lambda: world.books.reconciled, 20.0, "readable again")
