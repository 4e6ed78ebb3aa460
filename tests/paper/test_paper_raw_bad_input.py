"""What malformed, surplus or unanswerable input costs: an error on its id, at most its own connection."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paper_harness import AAPL, RawClient, place_fields, running, until

from engine.paper.framing import MAX_FRAME_BYTES, frame
from engine.paper.messages_in import READERS

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
    (21, [2, 7], 7),
    (22, [7, 10], 7),
    (52, [2, 7], 7),
    (54, [3, 7], 7),
    (67, [1, 7], 7),
    (84, [7, "BRFG", "x", ""], 7),
    (86, [7, 8314, "BRFG", "", "", 10, ""], 7),
    (88, [7, *AAPL, 0, 0, "1 day"], 7),
    (100, [7], 7),
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
