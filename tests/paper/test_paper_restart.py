"""What survives: an orderly restart, kill -9 at any moment, a torn log, a new day."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from ib_insync.decoder import Decoder
from paper_harness import RawClient, place_fields, running, start_gateway
from paper_scripted import ScriptedMarket

from engine.paper.state import StateError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


async def trade_a_little(port: int, r=None) -> RawClient:
    """A filled order, a resting one and a cancelled one."""
    client = await RawClient.connect(port, 4)
    client.send(*place_fields(1, order_type="MKT", limit="", quantity=250))
    client.send(*place_fields(2, limit=149.0, quantity=300, tif="GTC", order_ref="keep"))
    client.send(*place_fields(3, limit=148.0))
    client.send(4, 1, 3, "")
    await client.expect_error(202, 3)
    return client


async def check_recovered(port: int, market: ScriptedMarket | None) -> None:
    client = await RawClient.connect(port, 4)
    assert client.of(9)[0][2] == "4"
    client.send(16, 1)
    await client.expect(53)
    assert [(m[1], m[23], m[16]) for m in client.of(5)] == [("2", "keep", "149")]
    client.send(7, 3, 50, 0, "", "", "", "", "", "")
    await client.expect(55)
    assert [m[19] for m in client.of(11)] == ["100", "150"]
    client.send(61, 1)
    await client.expect(62)
    assert client.of(61)[0][14] == "250"
    if market is not None:
        assert [order[2:] for order in market.own.values()] == [[300, 149.0]]
    client.send(*place_fields(4, order_type="MKT", limit="", quantity=10))
    await client.expect(59, 3)
    perm_ids = {m[21] for m in client.of(11)}
    assert len({m[14] for m in client.of(11)}) == len(client.of(11))
    assert len(perm_ids) == 2
    client.send(4, 1, 2, "")
    await client.expect_error(202, 2)
    await client.close()


async def test_account_orders_executions_and_ids_survive_a_restart(tmp_path):
    state = tmp_path / "paper" / "state.json"
    async with running(state_file=state) as r:
        client = await trade_a_little(r.port)
        cash = r.gateway.account.cash
        await client.close()
    assert json.loads(state.read_text())["layout"] == 1
    assert len(list(state.parent.iterdir())) == 3  # the snapshot, its empty log, the lock
    market = ScriptedMarket()
    async with running(market, state_file=state) as r:
        assert r.gateway.account.cash == cash
        await check_recovered(r.port, market)


SERVER = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {root!r}]
from paper_scripted import ScriptedMarket
from engine.domain.instruments import SIM_INDEX
from engine.paper.main import PaperConfig, serve
config = PaperConfig(port=0, max_client_messages_per_s=0, time_interval_ms=0.0, state_file=Path({state!r}))
ready = lambda port: print(port, flush=True)
asyncio.run(serve(config, ready, asyncio.Event(), None, (ScriptedMarket(), SIM_INDEX)))
"""


async def test_everything_a_client_was_told_survives_kill_minus_nine(tmp_path):
    state = tmp_path / "state.json"
    script = SERVER.format(tests=str(HERE), root=str(ROOT), state=str(state))

    async def start() -> tuple[asyncio.subprocess.Process, int]:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        return process, int(await process.stdout.readline())

    process, port = await start()
    client = await trade_a_little(port)
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    await client.close()
    process, port = await start()
    try:
        await check_recovered(port, None)
    finally:
        process.kill()
        await process.wait()


async def test_a_torn_last_line_is_ignored_and_the_rest_is_kept(tmp_path):
    state = tmp_path / "state.json"
    gateway = start_gateway(state_file=state)
    client = _Desk(gateway)
    client.buy(1, 100)
    log = max(tmp_path.glob("state.json.log.*"))
    with log.open("ab") as file:
        file.write(b'{"seq": 99, "kind": "exec')
    gateway.journal.abandon()
    again = start_gateway(state_file=state)
    assert again.account.positions[0].quantity == 100
    assert again.account.cash == gateway.account.cash
    again.close()


async def test_the_log_is_compacted_into_snapshots_and_nothing_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.paper.state.COMPACT_AFTER", 5)
    state = tmp_path / "state.json"
    gateway = start_gateway(state_file=state)
    client = _Desk(gateway)
    for order_id in range(1, 40):
        client.buy(order_id, 1)
    gateway.journal.abandon()
    again = start_gateway(state_file=state)
    assert again.account.positions[0].quantity == 39
    assert again.desk.ledger.exec_count == 39
    assert len(again.desk.ledger.executions) == 39
    assert again.next_valid_id(8) == 40
    again.close()


def test_a_state_file_serves_one_gateway_at_a_time(tmp_path):
    first = start_gateway(state_file=tmp_path / "state.json")
    with pytest.raises(StateError, match="in use by another gateway"):
        start_gateway(state_file=tmp_path / "state.json")
    first.close()
    start_gateway(state_file=tmp_path / "state.json").close()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"layout": 99}', '{"layout": 1}'])
def test_an_unreadable_state_is_refused_with_the_remedy(tmp_path, content):
    state = tmp_path / "state.json"
    state.write_text(content)
    with pytest.raises(StateError, match="remove it"):
        start_gateway(state_file=state)


async def test_a_new_day_expires_day_orders_and_keeps_good_till_cancelled_ones(tmp_path):
    gateway = start_gateway(state_file=tmp_path / "state.json")
    client = _Desk(gateway)
    client.place(1, "LMT", 149.0, "DAY")
    client.place(2, "LMT", 148.0, "GTC")
    client.buy(3, 100)
    gateway.desk.roll_day("20990101", gateway.now_ns())
    assert [o.order_id for o in gateway.desk.ledger.working()] == [2]
    assert gateway.desk.ledger.executions == []
    assert gateway.account.positions[0].quantity == 100
    assert gateway.account.realized_day == 0
    assert len(gateway.market.own) == 1
    gateway.close()


class _Desk:
    """Places orders without a socket."""

    client_id = 8
    version = 176

    def __init__(self, gateway) -> None:
        self.gateway = gateway
        self.errors: list[int] = []

    def send(self, message: bytes) -> None: ...

    def error(self, req_id: int, code: int, message: str) -> None:
        self.errors.append(code)

    def place(self, order_id: int, kind: str, limit: object, tif: str, quantity: int = 100) -> None:
        from engine.paper.fields import FieldReader, payload
        from engine.paper.place_order import read_place_order

        fields = place_fields(order_id, order_type=kind, limit=limit, tif=tif, quantity=quantity)
        reader = FieldReader(payload(*fields))
        reader.skip("id")
        self.gateway.desk.place(self, read_place_order(reader, 176), self.gateway.catch_up)
        assert self.errors == []

    def buy(self, order_id: int, quantity: int) -> None:
        self.place(order_id, "MKT", "", "DAY", quantity)


async def test_a_log_of_the_older_form_is_read(tmp_path):
    state = tmp_path / "state.json"
    async with running(state_file=state) as r:
        client = await trade_a_little(r.port)
        await client.close()
        working = {o.order_id: o.status for o in r.gateway.desk.ledger.working()}
        cash = r.gateway.account.cash
        older = []
        for log in sorted(state.parent.glob("state.json.log.*")):
            for line in log.read_text().splitlines():
                record = json.loads(line)
                subject = {n: math.nan if v is None else v for n, v in record.pop("subject").items()}
                name = "order" if record["kind"] == "order" else "execution"
                older.append(json.dumps(record | {name: subject | {"symbol": record.pop("symbol")}}))
            log.write_text("\n".join(older) + "\n")
        copied = tmp_path / "copy"
        shutil.copytree(state.parent, copied, ignore=lambda folder, names: [n for n in names if n.endswith(".lock")])
    async with running(state_file=copied / "state.json") as r:
        assert older
        assert {o.order_id: o.status for o in r.gateway.desk.ledger.working()} == working
        assert r.gateway.account.cash == cash


async def test_completed_orders_of_the_day_are_told_and_survive_a_restart(tmp_path):
    state = tmp_path / "state.json"
    told = []
    for life in (1, 2):
        async with running(state_file=state) as r:
            client = await RawClient.connect(r.port)
            if life == 1:
                client.send(*place_fields(1, order_type="MKT", limit="", quantity=40, order_ref="mine"))
                await client.expect(59)
                client.send(*place_fields(2, limit=140.0, tif="GTC"))
                await client.expect(3, 4)
                client.send(4, 1, 2, "")
                await client.expect_error(202, 2)
                client.send(*place_fields(3, limit=141.0, tif="GTC"))
                r.faults.apply("manual_order", {"symbol": "AAPL", "quantity": 7})
                await client.sync()
            for api_only in (0, 1):
                client.messages.clear()
                client.send(99, api_only)
                await client.expect(102)
                told.append(client.of(101))
            await client.close()
    everyone, of_the_api, later, later_api = told
    assert (everyone, of_the_api) == (later, later_api)
    assert [(m[12], m[13], m[14], m[22]) for m in of_the_api] == [
        ("BUY", "40", "MKT", "mine"),
        ("BUY", "100", "LMT", ""),
    ]
    assert [m[-6] for m in of_the_api] == ["Filled Size: 40", "Cancelled by Trader"]
    assert len(everyone) == 3


@pytest.mark.parametrize("version", [157, 176])
async def test_completed_orders_are_read_by_the_library(version):
    async with running() as r:
        client = await RawClient.connect(r.port, 5, f"v157..{version}")
        client.send(*place_fields(1, order_type="MKT", limit="", quantity=40, order_ref="mine", version=version))
        await client.expect(59)
        client.send(99, 1)
        await client.expect(102)

        class Sink:
            def completedOrder(self, contract, order, state):
                self.seen = (contract.conId, order.permId, order.orderRef, order.filledQuantity, state.completedStatus)

        sink = Sink()
        Decoder(sink, version).completedOrder(client.of(101)[0])
        assert sink.seen == (265598, 1_500_000_001, "mine", 40.0, "Filled Size: 40")
        await client.close()
