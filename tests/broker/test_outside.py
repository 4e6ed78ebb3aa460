"""What an account holds outside the configured symbols: told once per change, and not flat for the dead-man."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from scripted import ACCOUNT, Scripted

from engine.broker import news as n
from engine.broker.deadman import DeadMan
from engine.broker.register import Register
from engine.broker.sync import FULL, LOOK
from engine.domain.codes import EventKind, FlattenState, Severity
from engine.risk import flatten as machine
from engine.risk.accounting import Accounts

MS, S = 1_000_000, 1_000_000_000


def told(world: Scripted) -> list[tuple[int, str]]:
    rows = world.events_of(EventKind.RECONCILE)
    return [(int(e["severity"]), e["text"].decode()) for e in rows if b"outside the configured" in e["text"]]


def outside(con_id: int, qty: float) -> n.PositionNews:
    return n.PositionNews(ACCOUNT, con_id, "TSLA", "OPT", qty, 2.0)


@pytest.mark.parametrize("scope", ["dedicated", "managed"])
def test_it_is_told_once_per_change(tmp_path: Path, scope: str) -> None:
    world = Scripted(tmp_path, scope=scope)
    world.link.positions[7] = outside(77, 2.0)
    world.up()
    world.run(0.2)
    dedicated = scope == "dedicated"
    assert int(world.books.cells.broker["foreign_positions"]) == 1
    remedy = "close it by hand or with `l2dash flatten --direct`"
    held = f"held outside the configured symbols, unguarded; {remedy}: TSLA OPT +2"
    assert told(world) == ([(Severity.P2, held)] if dedicated else [])
    world.books.begin(FULL, world.clock.now)
    world.run(0.2)
    assert len(told(world)) == dedicated, "nothing has changed"
    world.link.positions[8] = outside(78, -1.0)
    world.books.begin(LOOK, world.clock.now)
    world.run(0.2)
    assert int(world.books.cells.broker["foreign_positions"]) == 2
    world.link.positions.clear()
    world.books.begin(FULL, world.clock.now)
    world.run(0.2)
    assert int(world.books.cells.broker["foreign_positions"]) == 0
    over = (Severity.ROUTINE, "nothing is held outside the configured symbols any more")
    if dedicated:
        assert told(world)[1][1].endswith(": TSLA OPT +2, TSLA OPT -1")
        assert told(world)[2:] == [over]
    world.close()


def test_the_dead_man_is_not_flat_while_it_is_open() -> None:
    alerts: list[tuple[str, int]] = []
    snapshots: list[int] = []
    accounts = Accounts(2)
    man = DeadMan(
        Register(), accounts, lambda _: None, lambda: None, lambda: snapshots.append(1),
        lambda text, mask: alerts.append((text, mask)),
    )  # fmt: skip
    man.start(2, 0b11, 4, "no watchdog", S)
    for foreign, flat in ((1, False), (0, True)):
        done = False
        for k in range(7_000):
            now_ns = S + (k + 7_000 * (1 - foreign)) * MS
            broker = {
                "snapshot_id": len(snapshots), "snapshot_begin_ns": now_ns, "snapshot_end_ns": now_ns,
                "snapshot_events": 0, "snapshot_open_orders": 0, "snapshot_positions": 0, "order_events": 0,
                "last_close_sent_ns": 0, "foreign": foreign,
            }  # fmt: skip
            done |= man.step(
                now_ns,
                quotes=lambda _: (math.nan, math.nan),
                halted=0,
                broker=broker,
                regular_hours=True,
                can_send=True,
            )
        assert done is flat
        assert man.state.state == (FlattenState.FLAT if flat else FlattenState.STUCK)
    assert len(alerts) == 1
    assert machine.FOREIGN in alerts[0][0]
