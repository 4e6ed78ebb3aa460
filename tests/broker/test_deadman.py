"""The bridge's dead-man: what it closes, and when it is flat."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted import Scripted

from engine.broker import news as n
from engine.broker.deadman import DeadMan
from engine.broker.register import Register
from engine.domain.codes import EventKind, FlattenState
from engine.risk import flatten as machine
from engine.risk.accounting import Accounts

MS, S = 1_000_000, 1_000_000_000


class Course:
    """One dead-man over two symbols and a broker that answers every snapshot at once."""

    def __init__(self, ours: float, theirs: float | None = None) -> None:
        self.accounts = Accounts(2)
        self.accounts.set_open(0, ours, 10.0)
        self.theirs = ours if theirs is None else theirs
        self.foreign = 0
        self.alerts: list[str] = []
        self.closes: list[float] = []
        self.snapshots = self.cancels = 0
        self.now_ns = S
        self.man = DeadMan(
            Register(),
            self.accounts,
            self._close,
            self._cancel,
            self._snapshot,
            lambda text, _: self.alerts.append(text),
        )
        self.man.start(2, 0b11, 4, "no watchdog", S)

    def _snapshot(self) -> None:
        self.snapshots += 1

    def _cancel(self) -> None:
        self.cancels += 1

    def _close(self, close: machine.Close) -> None:
        """As the gate: no more than both books have."""
        held = self.accounts.holdings[0].qty
        if close.qty > min(held, self.theirs):
            self.man.rejected |= 1
            return
        self.closes.append(close.qty)
        self.accounts.set_open(0, held - close.qty, 10.0)
        self.theirs -= close.qty

    def run(self, seconds: float) -> bool:
        done = False
        for _ in range(int(seconds * 200)):
            self.now_ns += 5 * MS
            broker: dict[str, Any] = {
                "snapshot_id": self.snapshots, "snapshot_begin_ns": self.now_ns, "snapshot_end_ns": self.now_ns,
                "snapshot_events": 0, "snapshot_open_orders": 0, "snapshot_positions": int(self.theirs != 0.0),
                "order_events": 0, "last_close_sent_ns": 0, "foreign": self.foreign,
            }  # fmt: skip
            done |= self.man.step(
                self.now_ns, quotes=lambda _: (math.nan, math.nan), halted=0, broker=broker,
                theirs=lambda symbol: 0.0 if symbol else self.theirs, regular_hours=True, can_send=True,
            )  # fmt: skip
        return done


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Scripted]:
    found = Scripted(tmp_path)
    yield found
    found.close()


def test_it_is_not_flat_while_something_is_held_outside_the_symbols() -> None:
    course = Course(30.0)
    course.foreign = 1
    assert not course.run(10)
    assert course.closes == [30.0]
    assert course.man.state.state == FlattenState.STUCK
    assert machine.FOREIGN in course.alerts[0]
    course.foreign = 0
    assert course.run(7)
    assert course.man.state.state == FlattenState.FLAT


@pytest.mark.parametrize(
    ("ours", "theirs", "left"), [(100.0, 60.0, "ours 40, broker 0"), (60.0, 100.0, "ours 0, broker 40")]
)
def test_while_the_books_differ_it_closes_what_both_have_and_names_the_rest(
    ours: float, theirs: float, left: str
) -> None:
    course = Course(ours, theirs)
    assert not course.run(70)
    assert course.closes == [60.0]
    assert course.man.state.state == FlattenState.STUCK
    assert left in course.alerts[-1]
    before = course.cancels
    course.run(20)
    assert course.cancels == before, "there is nothing to cancel"


def test_it_knows_the_brokers_figure_only_where_it_differs(world: Scripted) -> None:
    world.holds(1, 5.0)
    world.up()
    world.link.say(world.holds(0, 25.0))
    world.until(lambda: world.books.mismatch, what="a mismatch")
    guard = world.bridge.guard
    assert [guard._theirs(symbol) for symbol in range(2)] == [25.0, 5.0]
    world.bridge.cells.positions[1]["broker_qty"] = 7.0  # never judged to differ
    assert guard._theirs(1) == 5.0


@pytest.mark.parametrize(("scope", "counts"), [("dedicated", 1), ("managed", 0)])
def test_other_holdings_count_where_the_account_is_ours(tmp_path: Path, scope: str, counts: int) -> None:
    world = Scripted(tmp_path, scope=scope)
    world.bridge.cells.broker["foreign_positions"] = 1
    assert world.bridge.guard._foreign() == counts
    world.close()


def test_it_stands_down_when_an_operator_has_released_its_stop(
    world: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never got flat, because of what the operator keeps: what is bought after the release is not its business."""

    def alone(w: Scripted) -> None:
        w.bridge.do_work(w.clock.now)
        w.bridge.housekeeping(w.clock.now)
        w.seen.extend(w.events.poll().copy())

    world.link.positions[7] = n.PositionNews("DUSIM001", 77, "TSLA", "OPT", 2.0, 2.0)
    world.holds(0, 10.0)
    world.up()
    man = world.bridge.guard.deadman
    with monkeypatch.context() as gone:
        gone.setattr(Scripted, "turn", alone)
        world.run(6)
        close = world.link.placed[-1]
        world.link.say(
            world.fill("0001.01.01.01", 0, -10.0, order_id=close.order_id, client_id=11), world.holds(0, 0.0)
        )
        world.run(8)
    assert man.state.state == FlattenState.STUCK
    world.run(1)
    assert man.active, "a watchdog that is back releases nothing"
    stop = world.watchdog.cell_writer("stop.watchdog")
    stop.value[0]["released_kill_id"] = world.clock.now
    stop.publish()
    world.run(1)
    assert not man.active
    assert any("KILL was released by an operator" in t for t in world.texts(EventKind.ALERT))
    placed, sent = len(world.link.placed), len(world.link.sent)
    world.link.say(world.fill("0002.01.01.01", 0, 50.0), world.holds(0, 50.0))
    world.run(12)
    assert world.link.placed[placed:] == []
    assert "global_cancel" not in world.link.names(sent)
