"""What a cockpit knows after a start: the day from the journal, the rest from the rings, nothing twice."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from cockpit_plant import Plant

from engine.cockpit.blotter import Blotter
from engine.cockpit.durable import DurableLog
from engine.cockpit.prime import Keys, from_journal
from engine.cockpit.tail import Tail
from engine.cockpit.ticket import order_words
from engine.domain.codes import OrderState, Source
from engine.domain.sessions import session_date
from engine.store.journal import Journal, journal_path
from engine.store.rows import Batch, Names
from shm.layouts import INTENT

LOG = logging.getLogger("test")


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    plant = Plant(tmp_path / "state")
    yield plant
    plant.close()


def journal_of(plant: Plant) -> int:
    """Record what the plant's rings hold, as the recorder would; returns the day."""
    import numpy as np

    recorder = plant.contexts["recorder"]
    offset = plant.clock.wall_ns(0)
    names = Names(tuple(i.symbol for i in plant.instruments), offset, lambda wall: session_date(wall, True))
    journal = Journal(journal_path(plant.instance.config.state_dir))
    intent = np.zeros(1, INTENT)
    intent["t_intent_ns"], intent["intent_id"], intent["kind"], intent["source"] = (
        plant.clock.now_ns(),
        5,
        1,
        Source.OPERATOR,
    )
    intent["side"], intent["order_type"], intent["tif"], intent["qty"], intent["limit_price"] = -1, 2, 1, 100, 150.5
    intent["key"] = b"mine"
    batches = [Batch("orders.operator", 1, intent, 0, 1, plant.clock.now_ns())]
    for name in ("events.broker-bridge", "executions"):
        records = recorder.ring_reader(name).poll().copy()
        batches.append(Batch(name, 1, records, 0, len(records), plant.clock.now_ns()))
    journal.append(batches, names)
    journal.close()
    return session_date(plant.clock.wall_ns(plant.clock.now_ns()), True)


def test_the_day_comes_from_the_journal_and_the_rings_add_nothing_twice(plant: Plant) -> None:
    plant.order_state(5, OrderState.FILLED, qty=-100, limit=150.5, filled=100, price=150.6, source=Source.OPERATOR)
    exec_id = plant.execution(5, 0, -1, 100, 150.6, source=Source.OPERATOR)
    day = journal_of(plant)
    ctx = plant.instance.context("cockpit")
    blotter, keys = Blotter(ctx.instruments, ctx.clock.wall_ns), Keys()
    path = journal_path(plant.instance.config.state_dir)
    assert from_journal(path, day, blotter, keys, ctx.instruments, LOG) == 2
    order, fill = blotter.order_list()[0], blotter.fill_list()[0]
    assert (order["order_id"], order["symbol"], order["side"], order["state"]) == ("5", "AAPL", "SELL", "FILLED")
    assert (order["qty"], order["filled"], order["avg_price"], order["limit"]) == (100.0, 100.0, 150.6, 150.5)
    assert (fill["exec_id"], fill["qty"], fill["price"], fill["side"]) == (exec_id, 100.0, 150.6, "SELL")
    assert keys[b"mine"] == (order_words("SELL", 100, "AAPL", 150.5, "DAY").encode(), 5)
    tail = Tail(ctx, blotter, DurableLog(1))
    tail.prime()
    assert len(blotter.order_list()) == len(blotter.fill_list()) == 1
    assert blotter.order_list()[0]["state"] == "FILLED"


def test_another_day_is_not_shown(plant: Plant) -> None:
    plant.order_state(5, OrderState.WORKING)
    day = journal_of(plant)
    ctx = plant.instance.context("cockpit")
    blotter = Blotter(ctx.instruments, ctx.clock.wall_ns)
    path = journal_path(plant.instance.config.state_dir)
    assert from_journal(path, day + 1, blotter, Keys(), ctx.instruments, LOG) == 0


@pytest.mark.parametrize("content", [None, b"", b"not a database at all, but long enough to look like something"])
def test_a_missing_or_broken_journal_does_not_keep_the_cockpit_down(
    plant: Plant, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "journal.db"
    if content is not None:
        path.write_bytes(content)
    blotter = Blotter(plant.instruments, plant.clock.wall_ns)
    assert from_journal(path, 20240102, blotter, Keys(), plant.instruments, LOG) == 0
