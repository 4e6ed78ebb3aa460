"""What an account holds outside the configured symbols: told once per change."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripted import ACCOUNT, Scripted

from engine.broker import news as n
from engine.broker.sync import FULL, LOOK
from engine.domain.codes import EventKind, Severity


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
