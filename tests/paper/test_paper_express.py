"""The express lane says what the long way says: the same orders, byte for byte, with the lane and without it."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paper_harness import RawClient, place_fields, running
from paper_scripted import ScriptedMarket

from engine.domain.instruments import SIM_INDEX
from engine.paper.account import Account, Position
from engine.paper.config import PaperConfig
from engine.paper.fields import payload
from engine.paper.framing import frame
from engine.paper.order_checks import check_margin, room_usd
from engine.paper.orders import MARKET, Ledger, PaperOrder
from engine.paper.place_order import ContractKey, OrderKind, OrderRequest
from engine.paper.server import Gateway
from engine.paper.session import Session
from engine.paper.trading import Desk


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""

    def get_extra_info(self, name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None: ...

    def abort(self) -> None: ...


class NoLanes:
    any = False

    def learn(self, message: bytes, request: OrderRequest) -> None: ...


def connected(with_lane: bool) -> tuple[Session, Wire]:
    config = PaperConfig(port=0, max_client_messages_per_s=0, equity_usd=60_000.0)
    gateway = Gateway(config, ScriptedMarket(), SIM_INDEX, clock_ns=lambda: 1, wall_ns=1_700_000_000_000_000_000)
    session, wire = Session(gateway), Wire()
    session.connection_made(wire)
    session.data_received(b"API\0" + frame(b"v157..176"))
    session.data_received(frame(payload(71, 2, 1, "")))
    if not with_lane:
        session._lanes = NoLanes()
    wire.written = b""
    return session, wire


ORDER = st.tuples(
    st.integers(-1, 2),  # step of the order id
    st.sampled_from(("BUY", "SELL", "buy")),
    st.sampled_from((1, 7, 100, 250, 0, -5, 1.5, 10**8, "100.0", "x", "007")),
    st.sampled_from((100.0, 99.99, 100.005, 0.01, 1e9, 150.0, "", "100.10", "-1", "nan")),
    st.sampled_from(("", "r-1", "ümlaut", "a b")),
    st.sampled_from(("DAY", "GTC", "")),
    st.sampled_from(("LMT", "MKT", "STP")),
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
@given(st.lists(ORDER, min_size=2, max_size=14))
def test_orders_are_answered_alike_with_the_lane_and_without_it(orders):
    async def told(with_lane: bool) -> list[bytes]:
        session, wire = connected(with_lane)
        order_id, answers = 0, []
        for step, action, quantity, limit, reference, tif, kind in orders:
            order_id += step
            fields = [str(f) for f in place_fields(order_id, limit=1.0, quantity=1)]
            fields[16:20] = [action, str(quantity), kind, str(limit)]
            fields[21], fields[26] = tif, reference
            session.data_received(frame(b"".join(f.encode() + b"\0" for f in fields)))
            answers.append(wire.written)
            wire.written = b""
        return answers

    assert asyncio.run(told(True)) == asyncio.run(told(False))


async def test_the_second_order_of_a_kind_takes_the_lane(monkeypatch):
    taken: list[int] = []
    enter = Desk.enter

    def note(self, client_id, request):
        taken.append(request.order_id)
        return enter(self, client_id, request)

    monkeypatch.setattr(Desk, "enter", note)
    async with running() as r:
        client = await RawClient.connect(r.port)
        for order_id in (1, 2, 3):
            client.send(*place_fields(order_id, limit=100.0 + order_id))
            await client.expect(3, 2 * order_id)
        assert taken == [2, 3]
        r.faults.apply("reject_next", {"count": 1})
        client.send(*place_fields(4, limit=100.0))
        await client.expect_error(201, 4)
        assert taken == [2, 3]
        await client.close()


async def test_an_order_of_the_lane_is_in_the_state_file_before_it_is_told(tmp_path):
    async with running(state_file=tmp_path / "state.json") as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1, limit=100.0))
        await client.expect(3, 2)
        (session,) = r.gateway.clients()
        write, recorded = session.write, []

        def note(blob: bytes) -> None:
            if blob[4:6] == b"5\0":
                logs = b"".join(p.read_bytes() for p in tmp_path.glob("state.json.log.*"))
                recorded.append(b'"order_id":2' in logs)
            write(blob)

        session.write = note
        client.send(*place_fields(2, limit=190.25, quantity=7, action="SELL", order_ref='100 % "\\'))
        await client.expect(3, 4)
        assert recorded[0]
        await client.close()
        lines = [json.loads(t) for p in tmp_path.glob("state.json.log.*") for t in p.read_text().splitlines()]
        placed = [line for line in lines if line["kind"] == "order" and line["subject"]["order_id"] == 2]
        desk = r.gateway.desk
        order = desk.ledger.find(5, 2)
        in_full = replace(order, status="PreSubmitted", place="desk")
        assert placed[0]["symbol"] == "AAPL"
        assert placed[0]["subject"] == json.loads(orjson.dumps(in_full))
        assert [line["seq"] for line in lines] == list(range(lines[0]["seq"], lines[0]["seq"] + len(lines)))


SYMBOLS = st.integers(0, 2)


@given(
    cash=st.floats(-1e5, 1e6),
    held=st.dictionaries(SYMBOLS, st.integers(-2000, 2000), max_size=3),
    working=st.lists(
        st.tuples(SYMBOLS, st.sampled_from(("BUY", "SELL")), st.integers(1, 1000), st.floats(1, 300)), max_size=5
    ),
    order=st.tuples(SYMBOLS, st.sampled_from(("BUY", "SELL")), st.floats(0.01, 1000)),
    part=st.floats(0.0, 1.0),
)
def test_what_fits_the_room_is_never_refused_for_its_margin(cash, held, working, order, part):
    marks = {0: 100.0, 1: 50.0, 2: 200.0}
    account = Account.opened(cash, "20260101")
    account.positions = {symbol: Position(quantity, 100.0) for symbol, quantity in held.items()}
    ledger = Ledger(1)
    for number, (symbol, action, quantity, limit) in enumerate(working, 1):
        resting = PaperOrder(number, 1, number, symbol, action, quantity, "LMT", limit, "DAY", "D")
        resting.place = MARKET
        ledger.put(resting)
    symbol, action, limit = order
    room = room_usd(account, ledger, marks)
    quantity = math.floor(part * room / limit)
    if quantity < 1:
        return
    kind = OrderKind(ContractKey(0, "X", "STK", "SMART", "", "USD", ""), "LMT", "DAY", "", "", True, False, False, "")
    request = OrderRequest(99, kind, action, quantity, limit, math.nan, "")
    refusal = check_margin(request, symbol, account, ledger, marks, lambda t: max(2.0, 0.01 * t.value))
    assert refusal is None


async def test_orders_of_the_lane_survive_a_kill_although_snapshots_are_written_in_between(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.paper.state.COMPACT_AFTER", 3)
    state = tmp_path / "state.json"
    async with running(state_file=state) as r:
        client = await RawClient.connect(r.port)
        for order_id in range(1, 16):
            client.send(*place_fields(order_id, limit=100.0 + order_id, quantity=order_id, order_ref=f"r{order_id}"))
            await client.expect(3, 2 * order_id)
        working = {o.order_id: o for o in r.gateway.desk.ledger.working()}
        copied = tmp_path / "copy"
        copied.mkdir()
        r.gateway.journal._join()  # the snapshot that is being written
        for path in sorted(tmp_path.glob("state.json*")):  # as a kill leaves them, at this moment
            if not path.name.endswith(".lock"):
                (copied / path.name).write_bytes(path.read_bytes())
        await client.close()
    async with running(state_file=copied / "state.json") as r:
        found = {o.order_id: o for o in r.gateway.desk.ledger.working()}
        assert sorted(found) == list(range(1, 16))
        for order_id, order in found.items():
            before = working[order_id]
            assert (order.quantity, order.limit, order.order_ref) == (before.quantity, before.limit, before.order_ref)
            assert order.perm_id == before.perm_id


async def test_a_price_of_no_increments_does_not_take_the_lane():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1, limit=140.0))
        await client.expect(3, 2)
        client.send(*place_fields(2, limit="0.000000001"))
        await client.expect_error(110, 2)
        assert [o.order_id for o in r.gateway.desk.ledger.working()] == [1]
        await client.close()
