"""The protocol as bytes: both layouts, ownership between clients, limits, and what malformed input costs."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paper_harness import AAPL, MSFT, RawClient, place_fields, running, until
from paper_scripted import ScriptedMarket

from engine.paper import server
from engine.paper.catalog import NEW_YORK
from engine.paper.framing import MAX_FRAME_BYTES, frame
from engine.paper.history import SymbolHistory
from engine.paper.messages_in import READERS
from engine.paper.server import PortTaken
from engine.paper.watch import regular


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [
        ("v157..176", "176"),
        ("v100..157", "157"),
        ("v100..158", "157"),
        ("v157..178", "176"),
        ("v100..225 +PACEAPI", "176"),
        ("v163..163", "163"),
    ],
)
async def test_the_highest_common_version_is_announced_and_nothing_else_before_start_api(offered, agreed):
    async with running() as r:
        client = await RawClient.connect(r.port, None, offered)
        await until(lambda: client.messages, "greeting")
        await asyncio.sleep(0.02)
        assert len(client.messages) == 1
        version, stamp = client.messages[0]
        assert version == agreed
        assert len(stamp.split(" ")) == 3
        await client.close()


@pytest.mark.parametrize("offered", ["v100..150", "v213..230", "hello", "v", "v9999999..1"])
async def test_a_client_without_a_common_version_is_let_go(offered):
    async with running() as r:
        client = await RawClient.connect(r.port, None, offered)
        await until(lambda: client.closed, "close")
        assert client.messages == []


async def test_accounts_come_before_the_next_order_id_and_farm_notices_after():
    async with running() as r:
        client = await RawClient.connect(r.port)
        await client.sync()
        ids = [m[0] for m in client.messages[1:6]]
        assert ids == ["15", "9", "4", "4", "4"]
        assert client.of(15) == [["15", "1", "DUSIM001"]]
        assert client.of(9) == [["9", "1", "1"]]
        assert client.errors() == [2104, 2106, 2158]
        await client.close()


@pytest.mark.parametrize("version", [157, 176])
async def test_a_resting_order_is_acknowledged_modified_and_cancelled(version):
    async with running() as r:
        client = await RawClient.connect(r.port, 3, f"v157..{version}")
        client.send(*place_fields(1, version=version, order_ref="mine"))
        await client.expect(3, 2)
        assert [m[2] for m in client.of(3)] == ["PreSubmitted", "Submitted"]
        assert len(client.of(5)[0]) == (136 if version == 176 else 128)
        opened = client.messages.index(client.of(5)[0])
        assert opened < client.messages.index(client.of(3)[0])
        client.send(*place_fields(1, quantity=200, limit=141.0, version=version))
        await client.sync()
        assert client.of(5)[-1][13:18] == ["BUY", "200", "LMT", "141", "0.0"]
        client.send(*([4, 1, 1, ""] if version == 176 else [4, 1, 1]))
        await client.expect_error(202, 1)
        assert [m[2] for m in client.of(3)][-2:] == ["PendingCancel", "Cancelled"]
        assert all(int(m[6]) != 0 for m in client.of(3))
        await client.close()


@pytest.mark.parametrize("version", [157, 163, 164, 176])
async def test_contract_details_have_the_layout_of_the_version(version):
    async with running() as r:
        client = await RawClient.connect(r.port, 3, f"v157..{version}")
        tail = [""] if version >= 176 else []
        client.send(9, 8, 77, *AAPL, 0, "", "", *tail)
        await client.expect(52)
        row = client.of(10)[0]
        assert row[1:3] == (["77", "AAPL"] if version >= 164 else ["8", "77"])
        # Fields after the id: 36 common ones, version and multiplier before 164, one size at 163, three from 164.
        assert len(row) == {157: 39, 163: 40, 164: 40, 176: 40}[version]
        await client.close()


async def test_a_fill_is_told_in_the_brokers_order():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.messages.clear()
        client.send(*place_fields(1, order_type="MKT", limit="", quantity=100))
        await client.expect(59)
        assert [m[0] for m in client.messages] == ["5", "3", "11", "5", "3", "5", "3", "59"]
        execution = client.of(11)[0]
        assert len(execution) == 31
        assert execution[1] == "-1"
        assert execution[18:21] == ["BOT", "100", "150.01"]
        assert len(client.of(59)[0]) == 8
        assert client.of(59)[0][3:6] == ["1", "USD", "1.7976931348623157E308"]
        await client.close()


async def test_partial_fills_have_rising_cumulative_quantity_and_one_commission_minimum():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1, limit=150.03, quantity=1000))
        await client.expect(59, 3)
        await client.sync()
        assert [m[24] for m in client.of(11)] == ["100", "300", "600"]
        assert client.of(3)[-1][2:5] == ["Submitted", "600", "400"]
        assert sum(float(m[3]) for m in client.of(59)) == pytest.approx(600 * 0.005)
        await client.close()


async def test_the_remainder_of_an_immediate_order_is_cancelled():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1, limit=150.01, quantity=500, tif="IOC"))
        await client.expect_error(202, 1)
        assert client.of(3)[-1][2:5] == ["Cancelled", "100", "400"]
        await client.close()


async def test_what_if_answers_with_margins_and_leaves_no_order():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(9, limit=100.0, quantity=1000, what_if=True))
        order = (await client.expect(5))[0]
        state = order.index("PreSubmitted")
        assert order[state - 1] == "1"
        margins = order[state + 1 : state + 10]
        assert [float(x) for x in margins] == [0, 0, 1e6, 50_000, 25_000, -5, 50_000, 25_000, 999_995]
        assert order[state + 10] == "5"
        client.send(16, 1)
        await client.expect(53)
        assert len(client.of(5)) == 1
        assert client.of(3) == []
        await client.close()


REFUSALS = [
    ({"limit": 140.005}, 110, "Inactive"),
    ({"limit": "1e-300"}, 110, "Inactive"),
    ({"limit": "1e-9"}, 110, "Inactive"),
    ({"order_type": "STP", "aux": "1e-300"}, 110, "Inactive"),
    ({"quantity": 0}, 321, None),
    ({"quantity": "1e300"}, 321, None),
    ({"quantity": "nan"}, 321, None),
    ({"quantity": "Infinite"}, 321, None),
    ({"quantity": -5}, 321, None),
    ({"quantity": 1.5}, 10243, None),
    ({"quantity": 1_000_000}, 201, "Inactive"),
    ({"limit": ""}, 321, None),
    ({"limit": -1}, 321, None),
    ({"limit": "inf"}, 321, None),
    ({"limit": 1e307}, 321, None),
    ({"order_type": "STP", "aux": 1e307}, 321, None),
    ({"order_type": "REL"}, 387, None),
    ({"order_type": "STP"}, 321, None),
    ({"order_type": "STP", "aux": 140.005}, 110, "Inactive"),
    ({"order_type": "STP LMT", "aux": -1}, 321, None),
    ({"order_type": "TRAIL"}, 321, None),
    ({"order_type": "TRAIL", "aux": 1.0, "trail_percent": 2.0}, 321, None),
    ({"order_type": "TRAIL", "trail_percent": 100.0}, 321, None),
    ({"order_type": "STP", "aux": 150.0, "tif": "IOC"}, 321, None),
    ({"oca_group": "g", "oca_type": 7}, 321, None),
    ({"parent": 77}, 201, "Inactive"),
    ({"contract": ("265598", "AAPL", "STK", "", "0.0", "", "", "", "", "USD", "", "")}, 321, None),
    ({"action": "HOLD"}, 321, None),
    ({"tif": "OPG"}, 321, None),
    ({"contract": ("1", *AAPL[1:])}, 200, None),
    ({"contract": ("0", "ZZZZ", *AAPL[2:])}, 200, None),
    ({"contract": ("0", "AAPL", "XXX", *AAPL[3:])}, 321, None),
    ({"contract": ("1935181", "INDU", "IND", "", "", "", "", "CME", "", "USD", "", "")}, 201, "Inactive"),
]


@pytest.mark.parametrize(("change", "code", "status"), REFUSALS)
async def test_a_refused_order_gets_its_code_and_does_not_work(change, code, status):
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1, **change))
        await client.expect_error(code, 1)
        await client.sync()
        assert [m[2] for m in client.of(3)] == ([status] if status else [])
        assert list(r.gateway.desk.ledger.working()) == []
        assert r.market.own == {}
        await client.close()


async def test_an_empty_time_in_force_becomes_day_with_a_warning():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1, tif=""))
        await client.expect_error(10349, 1)
        await client.expect(3, 2)
        assert client.of(5)[0][18] == "DAY"
        await client.close()


async def test_order_ids_are_not_reused_and_unknown_ids_are_named():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(5, order_type="MKT", limit="", quantity=10))
        client.send(*place_fields(4))
        await client.expect_error(103, 4)
        client.send(*place_fields(5, order_type="MKT", limit="", quantity=20))
        await client.expect_error(104, 5)
        client.send(*place_fields(5, action="SELL"))
        await client.expect_error(103, 5)
        client.send(4, 1, 5, "")
        await client.expect_error(10148, 5)
        client.send(4, 1, 99, "")
        await client.expect_error(10147, 99)
        client.send(8, 1, 1)
        assert (await client.expect(9, 2))[-1][2] == "6"
        await client.close()


async def test_a_modification_may_not_change_side_or_contract():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1))
        client.send(*place_fields(1, action="SELL", limit=160.0))
        client.send(*place_fields(1, contract=MSFT))
        await until(lambda: client.errors(1).count(105) == 2, "two errors 105")
        assert len(r.market.own) == 1
        await client.close()


async def test_a_second_client_with_the_same_id_is_refused_and_the_first_stays():
    async with running() as r:
        first = await RawClient.connect(r.port, 5)
        second = await RawClient.connect(r.port, 5)
        await until(lambda: second.closed, "close")
        assert second.errors() == [326]
        await first.sync()
        assert not first.closed
        await first.close()


async def test_only_the_owner_cancels_the_master_sees_all_and_a_global_cancel_takes_everything():
    async with running(master_client_id=77) as r:
        owner = await RawClient.connect(r.port, 1)
        other = await RawClient.connect(r.port, 2)
        master = await RawClient.connect(r.port, 77)
        zero = await RawClient.connect(r.port, 0)
        owner.send(*place_fields(7))
        await owner.expect(3, 2)
        other.send(4, 1, 7, "")
        await other.expect_error(10147, 7)
        other.send(5, 1)
        await other.expect(53)
        assert other.of(5) == []
        other.send(16, 1)
        await other.expect(53, 2)
        assert [(m[1], m[24]) for m in other.of(5)] == [("7", "1")]
        await master.sync()
        assert [m[2] for m in master.of(3)] == ["PreSubmitted", "Submitted"]
        other.send(*place_fields(1, limit=139.0))
        await other.expect(3, 2)
        master.send(58, 1)
        await owner.expect_error(202, 7)
        await other.expect_error(202, 1)
        assert r.market.own == {}
        assert master.errors(7) == []
        await zero.sync()
        assert zero.of(3) == zero.of(5) == []
        for client in (owner, other, master, zero):
            await client.close()


async def test_orders_outlive_their_connection_and_return_to_their_owner():
    async with running() as r:
        client = await RawClient.connect(r.port, 4)
        client.send(*place_fields(1))
        await client.expect(3, 2)
        await client.close()
        await until(lambda: not r.gateway.sessions, "disconnect")
        again = await RawClient.connect(r.port, 4)
        assert again.of(9)[0][2] == "2"
        again.send(5, 1)
        await again.expect(53)
        assert [m[1] for m in again.of(5)] == ["1"]
        again.send(4, 1, 1, "")
        await again.expect_error(202, 1)
        await again.close()


async def test_twenty_working_orders_per_side_are_the_limit():
    async with running() as r:
        client = await RawClient.connect(r.port)
        for order_id in range(1, 22):
            client.send(*place_fields(order_id, quantity=1))
        await client.expect_error(201, 21)
        assert client.errors(20) == []
        client.send(*place_fields(22, action="SELL", limit=160.0, quantity=1))
        await client.sync()
        assert client.errors(22) == []
        await client.close()


async def test_depth_lines_are_limited_and_unknown_ones_are_named():
    async with running(max_depth_lines=2) as r:
        client = await RawClient.connect(r.port)
        for req_id in (1, 2, 3):
            client.send(10, 5, req_id, *(AAPL if req_id < 3 else MSFT), 10, 1, "")
        await client.expect_error(309, 3)
        client.send(10, 5, 1, *AAPL, 10, 1, "")
        client.send(11, 1, 9, 1)
        await client.expect_error(310, 9)
        client.send(11, 1, 2, 1)
        client.send(10, 5, 3, *MSFT, 5, 0, "")
        await client.sync()
        smart = [m for m in client.of(13) if m[2] == "1"]
        plain = [m for m in client.of(12) if m[2] == "3"]
        assert len(smart) == 20
        assert len(plain) == 10
        assert smart[0] == ["13", "1", "1", "0", "NASDAQ", "0", "0", "150.01", "100", "1"]
        assert plain[0] == ["12", "1", "3", "0", "0", "0", "410.01", "100"]
        await client.close()


def _book_of(client: RawClient, req_id: int) -> dict[str, list[tuple[str, str]]]:
    """Depth rows as a client builds them: inserts shift."""
    book: dict[str, list[tuple[str, str]]] = {"0": [], "1": []}
    for m in client.of(12):
        if m[2] != str(req_id):
            continue
        rows, level, row = book[m[5]], int(m[3]), (m[6], m[7])
        if m[4] == "0":
            assert level <= len(rows)
            rows.insert(level, row)
        elif m[4] == "1":
            rows[level] = row
        else:
            del rows[level]
    return book


async def test_a_subscriber_of_few_rows_always_has_the_best_of_the_full_book():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(10, 5, 1, *AAPL, 3, 0, "")
        await client.sync()
        m = r.market
        m.insert_row(0, 1, 0, 150.0, 700.0)
        m.set_row(0, 1, 1, 0.0, 0.0)
        m.set_row(0, 0, 0, 0.0, 0.0)
        m.set_row(0, 0, 2, 150.04, 5.0)
        m.insert_row(0, 0, 1, 150.025, 50.0)
        m.set_row(0, 0, 7, 0.0, 0.0)
        r.step()
        await client.sync()
        book = _book_of(client, 1)
        for side in (0, 1):
            expected = [(f"{p:.10g}", f"{s:.10g}") for p, s in m.sides[0][side][:3]]
            assert book[str(side)] == expected
        await client.close()


async def test_a_halt_ends_depth_with_316_and_sets_the_halted_tick():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(10, 5, 1, *AAPL, 10, 1, "")
        client.send(1, 11, 2, *AAPL, 0, "", 0, 0, "")
        await client.sync()
        r.market.halt(0)
        r.step()
        await client.expect_error(316, 1)
        assert client.of(45)[-1] == ["45", "6", "2", "49", "1"]
        client.send(11, 1, 1, 1)
        await client.expect_error(310, 1)
        await client.close()


GARBAGE = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"IPA\0" + frame(b"v157..176"),
    b"API\0" + (2**31).to_bytes(4, "big"),
    b"API\0" + (0).to_bytes(4, "big"),
    b"API\0" + frame(b"\xff\xfe\xfd"),
]


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_before_the_handshake_closes_only_that_connection(garbage):
    async with running() as r:
        good = await RawClient.connect(r.port, 1)
        reader, writer = await asyncio.open_connection("127.0.0.1", r.port)
        writer.write(garbage)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        await good.sync()
        assert len(r.gateway.sessions) == 1
        await good.close()


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (frame(b"9\0008\000\x80\x81\0"), 320),
        (frame(b"49\0001"), 320),
        (frame(b"hello\0"), 320),
        (frame(b"\0"), 321),
        (frame(b"4711\0001\0"), 321),
        (frame(b"10\0005\0"), 320),
        (frame(b"3\0001\0AAPL\0"), 320),
        (frame(b"97\0007\0" + b"\0".join(f.encode() for f in AAPL) + b"\0Everything\0000\0000\0"), 320),
    ],
)
async def test_a_malformed_request_is_an_error_and_the_connection_goes_on(message, code):
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.write(message)
        await client.expect_error(code)
        await client.sync()
        assert not client.closed
        await client.close()


def _requests(version: int) -> dict[int, tuple[list[object], int]]:
    """Every request but startApi and placeOrder in the layout of a version, with the id on which an error comes."""
    issuer = [""] if version >= 176 else []
    manual = [""] if version >= 169 else []
    return {
        1: ([11, 7, *AAPL, 0, "", 0, 0, ""], 7),
        2: ([2, 7], 7),
        4: ([1, 7, *manual], 7),
        5: ([1], -1),
        6: ([2, 1, ""], -1),
        7: ([3, 7, 0, "", "", "", "", "", ""], 7),
        8: ([1, 1], -1),
        9: ([8, 7, *AAPL, 0, "", "", *issuer], 7),
        10: ([5, 7, *AAPL, 5, 1, ""], 7),
        11: ([1, 7, 1], 7),
        12: ([1, 1], -1),
        13: ([1], -1),
        14: ([1, 5], -1),
        15: ([1, 1], -1),
        16: ([1], -1),
        17: ([1], -1),
        20: ([7, *AAPL, 0, "", "5 secs", "60 S", 0, "MIDPOINT", 1, 0, ""], 7),
        24: ([1], -1),
        25: ([1, 7], 7),
        49: ([1], -1),
        50: ([3, 7, *AAPL, 5, "TRADES", 0, ""], 7),
        51: ([1, 7], 7),
        58: ([1], -1),
        59: ([1, 1], -1),
        61: ([1], -1),
        62: ([1, 7, "All", "NetLiquidation"], 7),
        63: ([1, 7], 7),
        64: ([1], -1),
        74: ([1, 7, "", ""], 7),
        75: ([1, 7], 7),
        76: ([1, 7, "", "", 0], 7),
        77: ([1, 7], 7),
        78: ([7, "AAPL", "", "STK", 265598], 7),
        79: ([7], 7),
        80: ([], -1),
        81: ([7, "AA"], 7),
        82: ([], -1),
        83: ([7, "9c0001"], 7),
        85: ([], -1),
        87: ([7, *AAPL, 0, 0, "TRADES", 1], 7),
        90: ([7], 7),
        91: ([26], -1),
        92: ([7, "", ""], 7),
        93: ([7], 7),
        94: ([7, "", "", 265598], 7),
        95: ([7], 7),
        96: ([7, *AAPL, 0, "", "", 10, "TRADES", 0, 0, ""], 7),
        97: ([7, *AAPL, "Last", 0, 0], 7),
        98: ([7], 7),
        99: ([0], -1),
        104: ([7], 7),
    }


@pytest.mark.parametrize("version", [157, 176])
async def test_a_field_too_many_or_too_few_is_noticed_in_every_request_and_harms_nobody(version):
    requests = _requests(version)
    assert set(requests) == set(READERS) - {3, 71}
    async with running() as r:
        good = await RawClient.connect(r.port, 1)
        client = await RawClient.connect(r.port, 5, f"v157..{version}")
        for message_id, (fields, req_id) in requests.items():
            for wrong in ([*fields, 0], fields[:-1]):
                if wrong == fields:
                    continue
                told = req_id if req_id in wrong else -1
                before = client.errors(told).count(320)
                client.send(message_id, *wrong)
                await until(lambda b=before, i=told: client.errors(i).count(320) > b, f"320 of {message_id} {wrong}")
            before = client.errors().count(320)
            client.send(message_id, *fields)
            await client.sync()
            assert client.errors().count(320) == before, message_id
        await good.sync()
        assert good.errors() == [2104, 2106, 2158]
        await client.close()
        await good.close()


UNANSWERED = [
    (19, [1, 1, "<xml/>", 7], 7),
    (21, [2, 7], 7),
    (22, [7, 10], 7),
    (52, [2, 7], 7),
    (54, [3, 7], 7),
    (67, [1, 7], 7),
    (84, [7, "BRFG", "x", ""], 7),
    (86, [7, 8314, "BRFG", "", "", 10, ""], 7),
    (88, [7, *AAPL, 0, 0, "1 day"], 7),
    (100, [7], 7),
    (18, [1, 1], -1),
]


@pytest.mark.parametrize(("message_id", "fields", "req_id"), UNANSWERED)
async def test_what_is_not_answered_is_an_error_on_the_id_of_its_request(message_id, fields, req_id):
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(message_id, *fields)
        await client.expect_error(322, req_id)
        await client.close()


async def test_an_order_with_a_field_too_many_or_too_few_is_refused_on_its_own_id():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1), 0)
        await client.expect_error(320, 1)
        client.send(*place_fields(2)[:-1])
        await client.expect_error(320, 2)
        assert r.market.own == {}
        await client.close()


async def test_an_oversized_frame_ends_the_connection_with_a_reason():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.write((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
        await until(lambda: client.closed, "close")
        assert client.errors()[-1] == 320


async def test_a_request_before_start_api_ends_the_connection():
    async with running() as r:
        client = await RawClient.connect(r.port, None)
        client.send(49, 1)
        await until(lambda: client.closed, "close")


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.binary(min_size=1, max_size=60), max_size=8), st.lists(st.text(max_size=6), max_size=30))
def test_no_input_whatever_stops_the_gateway(frames, texts):
    async def scene() -> None:
        async with running() as r:
            bad = await RawClient.connect(r.port, 1)
            for body in frames:
                bad.write(frame(body))
            for message_id in (1, 3, 4, 6, 7, 9, 10, 20, 62, 71, 96, 97):
                bad.write(frame("\0".join([str(message_id), *texts, ""]).encode()))
            good = await RawClient.connect(r.port, 2)
            await good.sync()
            assert not good.closed
            await good.close()
            await bad.close()

    asyncio.run(scene())


async def test_a_client_that_never_reads_is_dropped_and_others_go_on(monkeypatch):
    monkeypatch.setattr("engine.paper.session.MAX_BACKLOG_BYTES", 256 * 1024)
    async with running() as r:
        good = await RawClient.connect(r.port, 1)
        reader, writer = await asyncio.open_connection("127.0.0.1", r.port, limit=1024)
        writer.write(b"API\0" + frame(b"v157..176"))
        await reader.read(10)
        writer.write(frame(b"71\x002\x009\x00\x00"))
        await until(lambda: len(r.gateway.clients()) == 2, "second client")
        deaf = next(s for s in r.gateway.clients() if s.client_id == 9)
        for _ in range(400):
            if deaf.closed:
                break
            for _ in range(100):
                deaf.send(b"x" * 1000)
            deaf.flush()
            await asyncio.sleep(0)
        assert deaf.closed
        await good.sync()
        assert [s.client_id for s in r.gateway.clients()] == [1]
        writer.close()
        await good.close()


async def test_a_hundred_connections_of_every_kind_do_not_disturb_one_that_trades():
    async with running() as r:
        good = await RawClient.connect(r.port, 1)
        silent = [await asyncio.open_connection("127.0.0.1", r.port) for _ in range(33)]
        half = [await RawClient.connect(r.port, None) for _ in range(33)]
        full = [await RawClient.connect(r.port, 100 + n) for n in range(34)]
        for n, client in enumerate(full):
            client.send(10, 5, n, *AAPL, 5, 1, "")
        await full[0].expect(13)
        await full[-1].expect_error(309, 33)  # each is told its own limit
        good.send(*place_fields(1))
        await good.expect(5)
        await good.expect(3)
        assert r.gateway.desk.ledger.find(1, 1).working
        assert len(r.gateway.sessions) == 101
        for _, writer in silent:
            writer.close()
        for client in half + full:
            await client.close()
        await until(lambda: len(r.gateway.sessions) == 1, "the others to be gone")
        await good.sync()
        await good.close()


async def test_one_connection_too_many_is_closed_and_those_there_are_go_on(monkeypatch):
    monkeypatch.setattr("engine.paper.server.MAX_CONNECTIONS", 2)
    async with running() as r:
        good = await RawClient.connect(r.port, 1)
        other = await RawClient.connect(r.port, 2)
        reader, writer = await asyncio.open_connection("127.0.0.1", r.port)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        await good.sync()
        await other.close()
        await until(lambda: len(r.gateway.sessions) == 1, "a free place")
        third = await RawClient.connect(r.port, 3)
        await third.sync()
        await third.close()
        await good.close()


async def test_too_many_messages_are_error_100_and_then_a_disconnect():
    now = 0
    async with running(max_client_messages_per_s=50) as r:
        client = await RawClient.connect(r.port)
        r.gateway.now_ns = lambda: now  # the messages of a simulated second
        for strike in range(1, 4):
            now += 2_000_000_000
            for _ in range(51):
                client.send(8, 1, 1)
            await until(lambda n=strike: client.errors().count(100) == n, "error 100")
        await until(lambda: client.closed, "close")


async def test_current_time_asked_again_within_a_second_stays_unanswered():
    now = 5_000_000_000
    async with running(time_interval_ms=1000.0) as r:
        client = await RawClient.connect(r.port)
        r.gateway.now_ns = lambda: now
        client.send(49, 1)
        client.send(49, 1)
        client.send(8, 1, 1)
        await client.expect(9, 2)
        assert len(client.of(49)) == 1
        now += 1_000_000_000
        client.send(49, 1)
        await client.expect(49, 2)
        await client.close()


async def test_a_taken_port_is_explained_with_its_holder():
    async with running() as r:
        with pytest.raises(PortTaken, match=rf"port {r.port} is held by pid \d+ \("):
            async with running(ScriptedMarket(), port=r.port):
                pass


async def test_working_orders_count_towards_buying_power_but_a_modified_one_only_once():
    async with running(equity_usd=100_000.0) as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1, limit=140.0, quantity=1000))
        await client.expect(3, 2)
        client.send(*place_fields(2, limit=140.0, quantity=1000))
        await client.expect_error(201, 2)
        client.send(*place_fields(1, limit=141.0, quantity=1000))
        await client.sync()
        assert client.errors(1) == []
        assert [order[2:] for order in r.market.own.values()] == [[1000, 141.0]]
        await client.close()


async def test_a_new_order_is_acknowledged_before_the_market_moves():
    async with running() as r:
        client = await RawClient.connect(r.port)
        told: list[list[str]] = []
        submit = r.market.submit

        def watched(*arguments) -> None:
            told.extend(list(m) for m in sent)
            submit(*arguments)

        (session,) = r.gateway.clients()
        sent: list[list[str]] = []
        write = session.write

        def note(blob: bytes) -> None:
            sent.append([blob[4:6].decode()])
            write(blob)

        session.write = note
        r.market.submit = watched
        client.send(*place_fields(1))
        await client.expect(3, 2)
        assert told == [["5\0"], ["3\0"]]
        await client.close()


async def test_absurd_history_is_an_error_and_the_connection_goes_on():
    async with running() as r:
        client = await RawClient.connect(r.port)
        for req_id, (end, size, duration, keep) in enumerate(
            [
                ("", "5 secs", "9999 Y", 0),
                ("", "9" * 30 + " secs", "60 S", 0),
                ("20260101 00:00:00", "5 secs", "60 S", 1),
            ]
        ):
            client.send(20, req_id, *AAPL, 0, end, size, duration, 0, "MIDPOINT", 1, keep, "")
            await client.expect_error(321, req_id)
        await client.sync()
        assert not client.closed
        await client.close()


async def test_account_values_of_the_multi_request_follow_what_happens():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(76, 1, 3, "", "", 0)
        await client.expect(74)
        before = len(client.of(73))
        client.send(*place_fields(1, order_type="MKT", limit="", quantity=10))
        await until(lambda: any(m[5] == "CashBalance" for m in client.of(73)[before:]), "changed cash")
        assert {m[2] for m in client.of(73)} == {"3"}
        client.send(77, 1, 3)
        await client.sync()
        after = len(client.of(73))
        client.send(*place_fields(2, order_type="MKT", limit="", quantity=10))
        await until(lambda: len(client.of(59)) == 2, "the second fill")
        assert len(client.of(73)) == after
        await client.close()


async def test_what_has_traded_of_an_order_does_not_count_twice_when_it_is_modified():
    async with running(equity_usd=10_000.0) as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1))  # 100 at 140.00 need 7,000 USD
        await client.expect(3, 2)
        order = r.gateway.desk.ledger.find(5, 1)
        r.market.fill_own(order.perm_id, 60.0)
        await client.expect(59)
        client.send(*place_fields(1, limit=140.5))
        await client.sync()
        assert client.errors(1) == []
        assert order.limit == 140.5
        await client.close()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"order_type": "MKT", "limit": 140.0}, "lmtPrice"),
        ({"aux": 1.0}, "auxPrice"),
        ({"trail_percent": 1.0}, "trailingPercent"),
    ],
)
async def test_a_price_that_the_order_type_has_no_use_for_is_named_in_a_warning(change, named):
    async with running() as r:
        client = await RawClient.connect(r.port)
        for order_id in (1, 2, 3):  # the later ones are read faster
            client.send(*place_fields(order_id, quantity=1, **change))
            await client.expect_error(2109, order_id)
        assert all(f"'{named}'" in m[4] for m in client.of(4) if m[3] == "2109")
        await client.close()


@pytest.mark.parametrize(("field", "value", "named"), [(31, 10, "displaySize"), (73, 0.5, "scale"), (77, "D", "hedge")])
async def test_what_is_not_simulated_is_refused_by_name(field, value, named):
    async with running() as r:
        client = await RawClient.connect(r.port)
        fields = place_fields(1)
        fields[field] = value
        if named == "scale":
            fields[field + 1 : field + 1] = ["", "", "", 0, "", "", 0]
        if named == "hedge":
            fields.insert(field + 1, "")
        client.send(*fields)
        await client.expect_error(321, 1)
        assert f"not simulated by the paper gateway: {named}" in client.of(4)[-1][4]
        assert r.market.own == {}
        await client.close()


async def test_a_tick_by_tick_request_may_begin_with_the_past_and_leave_sizes_out():
    async with running() as r:
        client = await RawClient.connect(r.port)
        r.market.trade(0, 150.0, 10.0)
        r.market.trade(0, 150.01, 20.0)
        r.step()
        client.send(97, 7, *AAPL, "Last", 1, 0)
        client.send(97, 8, *AAPL, "BidAsk", 0, 1)
        await client.expect(99)
        assert client.of(98)[0][1:3] == ["7", "1"]
        assert client.of(98)[0][5] == "150.01"
        r.market.set_row(0, 1, 0, 149.99, 55.0)
        r.step()
        await client.sync()
        assert len(client.of(99)) == 1
        r.market.set_row(0, 1, 0, 149.98, 55.0)
        r.step()
        await client.expect(99, 2)
        await client.close()


@pytest.mark.parametrize(
    ("size", "what", "end", "keep"),
    [
        ("3 secs", "TRADES", "", 0),
        ("1 secs", "MIDPOINT", "", 1),
        ("5 secs", "BID_ASK", "", 1),
        ("5 secs", "BID", "20260101 00:00:00", 1),
        ("5 secs", "NONSENSE", "", 0),
    ],
)
async def test_bars_that_the_broker_refuses_are_refused(size, what, end, keep):
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(20, 7, *AAPL, 0, end, size, "60 S", 0, what, 1, keep, "")
        await client.expect_error(321, 7)
        await client.close()


@pytest.mark.parametrize("what", ["TRADES", "MIDPOINT", "BID", "ASK", "BID_ASK"])
async def test_bars_outside_regular_hours_are_left_out_if_asked(what, monkeypatch):
    monkeypatch.setattr(server, "regular", lambda wall_s: False)
    for hours, found in (("24/7", True), ("regular", False)):
        async with running(hours=hours) as r:
            client = await RawClient.connect(r.port)
            r.market.trade(0, 150.0, 10.0)
            r.market.set_row(0, 1, 0, 149.98, 55.0)
            r.step()
            client.send(20, 6, *AAPL, 0, "", "5 secs", "60 S", 0, what, 1, 0, "")
            await client.expect(17)
            client.send(20, 7, *AAPL, 0, "", "5 secs", "60 S", 1, what, 1, 0, "")
            await until(lambda c=client: len(c.of(17)) == 2 or 162 in c.errors(7), "an answer")
            assert (len(client.of(17)) == 2) == found
            await client.close()


async def test_contract_details_say_the_hours_in_which_orders_trade(monkeypatch):
    thursday = datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp()
    expected = {
        "24/7": "20261126:0000-20261127:0000;20261127:0000-20261128:0000;20261128:0000-20261129:0000",
        "regular": "20261126:0930-20261126:1600;20261127:0930-20261127:1600;20261128:CLOSED;20261129:CLOSED",
    }
    for hours, said in expected.items():
        async with running(hours=hours) as r:
            client = await RawClient.connect(r.port)
            monkeypatch.setattr(r.gateway, "wall_s", lambda: thursday)
            client.send(9, 8, 7, *AAPL, 0, "", "", "")
            await client.expect(52)
            details = client.of(10)[0]
            at = details.index("US/Eastern")
            assert details[at + 1] == details[at + 2]
            assert details[at + 1].startswith(said)
            for span in details[at + 1].split(";"):
                begin, _, end = span.partition("-")
                if hours == "regular" and end:
                    opened, closed = (
                        datetime.strptime(text, "%Y%m%d:%H%M").replace(tzinfo=NEW_YORK).timestamp()
                        for text in (begin, end)
                    )
                    inside = [regular(at_s) for at_s in (opened - 1, opened, closed - 1, closed)]
                    assert inside == [False, True, True, False]
            await client.close()


async def test_the_head_timestamp_is_that_of_the_series_and_hours_asked_for_in_the_format_asked_for(monkeypatch):
    quoted = int(datetime(2026, 11, 25, 14, 29, 10, tzinfo=UTC).timestamp())  # 09:29:10 New York
    traded, opened = quoted + 30, quoted + 55
    async with running(hours="regular") as r:
        client = await RawClient.connect(r.port)
        history = r.gateway.feed.history[0] = SymbolHistory()
        history.quote(quoted, 149.99, 150.01, 1.0, 1.0)
        history.trade(traded, 150.0, 10.0)
        history.quote(opened, 149.98, 150.01, 1.0, 1.0)

        async def head(req_id: int, use_rth: int, what: str, date_format: int) -> str:
            client.send(87, req_id, *AAPL, 0, use_rth, what, date_format)
            await until(lambda: client.errors(req_id) or [m for m in client.of(88) if m[1] == str(req_id)], "an answer")
            codes = client.errors(req_id)
            return str(codes[0]) if codes else next(m[2] for m in client.of(88) if m[1] == str(req_id))

        for req_id, what in enumerate(("MIDPOINT", "BID", "ASK", "BID_ASK"), 10):
            assert await head(req_id, 0, what, 2) == str(quoted)
        assert await head(20, 0, "TRADES", 2) == await head(21, 0, "ADJUSTED_LAST", 2) == str(traded)
        assert await head(22, 0, "TRADES", 1) == "20261125-14:29:40"
        assert await head(23, 1, "TRADES", 2) == "162"
        # A bid that stood over the opening is in its first second; the midpoint is told when it changes.
        assert await head(24, 1, "BID", 2) == str(quoted + 50)
        assert await head(25, 1, "MIDPOINT", 2) == str(opened)
        assert await head(26, 0, "NONSENSE", 2) == "321"
        assert await head(27, 0, "TRADES", 3) == "320"
        r.faults.apply("2105", {})
        assert await head(28, 0, "TRADES", 2) == "162"
        await client.close()


async def test_a_surplus_field_of_start_api_is_an_error_and_the_next_one_is_taken():
    async with running() as r:
        client = await RawClient.connect(r.port, None)
        client.send(71, 2, 5, "", "surplus")
        await client.expect_error(320, -1)
        assert "1 fields too many" in client.of(4)[-1][4]
        assert client.of(9) == []
        client.send(71, 2, 5, "")
        await client.expect(9)
        await client.close()


@pytest.mark.parametrize(("fields", "named"), [((18, 1, 1), "requestFA"), ((19, 1, 1, "<x/>", 8), "replaceFA")])
async def test_what_is_for_financial_advisers_only_says_so(fields, named):
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*fields)
        await client.expect_error(322, -1 if named == "requestFA" else 8)
        text = client.of(4)[-1][4]
        assert f"'{named}'" in text
        assert "not simulated by the paper gateway: its account is not that of a financial adviser" in text
        await client.sync()
        await client.close()
