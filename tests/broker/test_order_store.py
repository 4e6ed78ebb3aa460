"""The order store: what a process that was killed knew, its successor knows."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from engine.broker.order_store import HALF, SLOTS, OrderStore
from engine.broker.orders import Order
from engine.broker.register import Register
from engine.domain.codes import OrderState

SYMBOLS = ("AAPL", "MSFT")


def store(path: Path, boot: int = 7, key: str = "sim:DUSIM001", symbols: tuple[str, ...] = SYMBOLS) -> OrderStore:
    return OrderStore(path, symbols, key, boot)


def order(intent: int = 7, **more: object) -> Order:
    base = Order(
        intent_id=intent, order_id=3, symbol=1, source=2, side=-1, qty=100.0, order_type=2, limit_price=10.25, tif=3,
        flags=5, entry=True, state=OrderState.SENT, sent_ns=1_000, t_socket_ns=9, filled=0.0, perm_id=55, acked_ns=4,
        changed_ns=5, cancel_sent_ns=6, question_ns=7, next_qty=120.0, next_limit=10.5, own=True, booked=1.0, base=2.0,
        replace_sent_ns=8, cancel_wanted=True, presumed=True, key=b"key of 32 bytes, of which all ar",
        inactive=True, turned_down=True,
    )  # fmt: skip
    return replace(base, **more)  # type: ignore[arg-type]


def same(a: Order, b: Order) -> bool:
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(Order) if f.name != "text"]
    return all(x == y or (x != x and y != y) for x, y in pairs)


def test_every_field_but_the_words_comes_back(tmp_path: Path) -> None:
    written = [order(k, symbol=k % 2, side=1 if k % 2 else -1, state=OrderState(1 + k % 10)) for k in range(1, 30)]
    first = store(tmp_path / "orders")
    for o in written:
        first.write(replace(o, qty=1.0))
        first.write(o)
    found = list(store(tmp_path / "orders").read())
    assert len(found) == len(written)
    assert all(same(a, b) for a, (b, _) in zip(written, found, strict=True))
    assert all(same_boot for _, same_boot in found)
    assert not any(same_boot for _, same_boot in store(tmp_path / "orders", boot=8).read())


def test_a_write_that_was_cut_short_leaves_the_order_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "orders"
    first = store(path)
    first.write(order(limit_price=1.0))
    first.write(order(limit_price=2.0))
    raw = bytearray(path.read_bytes())
    written = [at for at in range(4096, len(raw), HALF) if any(raw[at : at + HALF])]
    assert len(written) == 2
    newest = max(written, key=lambda at: int.from_bytes(raw[at : at + 8], "little"))
    for cut in range(0, 250, 31):
        torn = raw.copy()
        torn[newest + cut : newest + 250] = os.urandom(250 - cut)
        path.write_bytes(torn)
        (found, _), *_ = store(path).read()
        assert found.limit_price == 1.0


def test_slots_are_given_away_only_when_their_order_is_done(tmp_path: Path) -> None:
    s = store(tmp_path / "orders")
    for k in range(SLOTS):
        s.write(order(1 + k, state=OrderState.WORKING))
    with pytest.raises(RuntimeError, match="live at once"):
        s.write(order(9_000))
    for k in (5, 3):
        s.write(order(1 + k, state=OrderState.CANCELLED))
    s.write(order(9_001))
    s.write(order(9_002))
    found = {o.intent_id for o, _ in store(tmp_path / "orders").read()}
    assert {9_001, 9_002} <= found
    assert not {4, 6} & found
    assert len(found) == SLOTS


def test_file_of_another_account_or_of_something_else_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "orders"
    store(path).write(order())
    with pytest.raises(ValueError, match=r"orders: holds the orders of 'sim:DUSIM001', not of 'live:U1'"):
        store(path, key="live:U1")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="not the size"):
        store(path)
    path.write_bytes(b"x" * (4096 + SLOTS * 2 * HALF))
    with pytest.raises(ValueError, match="not an order store"):
        store(path)


def test_living_order_of_a_symbol_that_is_gone_from_the_universe_is_counted(tmp_path: Path) -> None:
    store(tmp_path / "orders").write(order(state=OrderState.WORKING))
    other = store(tmp_path / "orders", symbols=("AAPL",))
    assert list(other.read()) == []
    assert other.strangers == 1


def test_register_restores_what_its_predecessor_had_and_finds_it_by_every_key(tmp_path: Path) -> None:
    first = Register(store(tmp_path / "orders"))
    first.put(order(1, order_id=11, perm_id=21, state=OrderState.WORKING, filled=0.0, booked=0.0))
    first.put(order(2, order_id=12, perm_id=22, state=OrderState.PENDING))
    first.put(order(3, order_id=13, perm_id=23, state=OrderState.FILLED, filled=100.0, booked=100.0))
    second = Register(store(tmp_path / "orders"))
    living = second.restore(9_000)
    assert [(o.intent_id, o.state) for o in living] == [(1, OrderState.UNKNOWN), (2, OrderState.REFUSED)]
    assert second.find(order_id=11) is second.find(perm_id=21) is second.by_intent[1]
    assert second.by_intent[2].state == OrderState.REFUSED
    assert second.active_count == 1
    third = Register(store(tmp_path / "orders"))
    third.restore(9_001)
    assert third.by_intent[2].state == OrderState.REFUSED, "what was found is kept as well"


CHILD = """
import random, sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_order_store import order, store
from engine.broker.register import Register
from engine.domain.codes import OrderState

register = Register(store(Path(sys.argv[1])))
chance = random.Random(int(sys.argv[2]))
step = 0
while True:
    intent = chance.randrange(1, 200)
    step += 1
    register.put(order(intent, filled=float(step), state=OrderState(chance.randrange(1, 11))))
    sys.stdout.write(f"{{intent}} {{step}}\\n")
    sys.stdout.flush()
"""


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_moment_everything_that_was_put_is_there(tmp_path: Path, seed: int) -> None:
    code = CHILD.format(tests=str(Path(__file__).parent))
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "orders"), str(seed)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    told: dict[int, int] = {}
    for _ in range(random.Random(seed).randrange(200, 3_000)):
        intent, step = map(int, child.stdout.readline().split())
        told[intent] = step
    os.kill(child.pid, signal.SIGKILL)
    for line in child.stdout.read().splitlines():
        if len(line.split()) == 2 and line.split()[1]:
            told[int(line.split()[0])] = int(line.split()[1])
    child.wait()
    found = {o.intent_id: o for o, _ in store(tmp_path / "orders").read()}
    ahead = 0
    for intent, step in told.items():
        assert found[intent].filled >= step, "what was told is there"
        ahead += found[intent].filled > step
    assert ahead <= 1, "at most the write after the last word"
    assert not any(math.isnan(o.qty) for o in found.values())
