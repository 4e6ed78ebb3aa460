"""CANCEL_ALL at the bridge: everything in scope, or the orders of one symbol."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripted import Scripted

from engine.domain.codes import ONE_SYMBOL, CommandKind, OrderState


@pytest.mark.parametrize("scope", ["dedicated", "managed"])
def test_the_orders_of_one_symbol_are_cancelled_one_by_one_and_no_other(tmp_path: Path, scope: str) -> None:
    world = Scripted(tmp_path, scope=scope)
    world.up()
    other, own = world.working(1, symbol=0), world.working(2, symbol=1)
    world.run(0.1)
    world.command(CommandKind.CANCEL_ALL, flags=ONE_SYMBOL, symbol=1)
    world.until(lambda: world.state(own) == OrderState.CANCELLED, what="cancelled")
    world.run(1.0)
    assert world.state(other) == OrderState.WORKING
    assert "global_cancel" not in world.link.names()
    world.command(CommandKind.CANCEL_ALL)  # without the flag a symbol means nothing
    world.until(lambda: world.state(other) == OrderState.CANCELLED, what="cancelled")
    world.close()
