from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from watchdog_gateway import PaperThread

from engine.broker.emergency import EmergencyConnection, flatten_direct
from engine.broker.emergency_codec import (
    Accounts,
    BrokerError,
    CodecError,
    Contract,
    CurrentTime,
    EmergencyCodec,
    Handshake,
    Message,
    NextId,
    OpenOrder,
    OrderStatus,
    Position,
)  # fmt: skip
from engine.broker.emergency_link import MUTE_PATIENCE_NS
from engine.config import from_mapping

AAPL = Contract(265598, "AAPL", "STK", "USD")
MSFT = Contract(272093, "MSFT", "STK", "USD")


def frame(*fields: object) -> bytes:
    return EmergencyCodec(1).frame(*fields)


def until(
    connection: EmergencyConnection, holds: Callable[[list[Message]], bool], limit_s: float = 10.0
) -> list[Message]:
    seen: list[Message] = []
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        seen += connection.poll(time.monotonic_ns())
        if holds(seen):
            return seen
        time.sleep(0.005)
    raise AssertionError(f"not within {limit_s} s: {seen[-5:]} {connection.last_error}")


def test_messages_split_at_any_byte_are_decoded_alike() -> None:
    stream = frame("176", "20240324 21:18:59 UTC") + frame(15, 1, "DU1,DU2") + frame(9, 1, 42)
    stream += frame(61, 3, "DU1", 265598, "AAPL", "STK", "", 0.0, "", "", "NASDAQ", "USD", "AAPL", "NMS", -25, 150.5)
    stream += frame(3, 7, "Submitted", 0, 100, 0, 99, 0, 0, 11, "", 0)
    stream += frame(4, 2, -1, 1100, "lost", "") + frame(49, 1, 1_700_000_000) + frame(200, "unknown")
    whole = EmergencyCodec(1).receive(stream)
    assert whole[:3] == [Handshake(176), Accounts(("DU1", "DU2")), NextId(42)]
    assert whole[3] == Position("DU1", Contract(265598, "AAPL", "STK", "USD", "NASDAQ"), -25.0)
    assert whole[4] == OrderStatus(7, "Submitted", 0.0, 100.0, 99, 11)
    assert whole[5:] == [BrokerError(-1, 1100, "lost"), CurrentTime(1_700_000_000)]
    codec = EmergencyCodec(1)
    bytewise = [m for i in range(len(stream)) for m in codec.receive(stream[i : i + 1])]
    assert bytewise == whole


@pytest.mark.parametrize("bad", [b"\xff\xff\xff\xff", frame("999", "x"), frame("x", "y"), b"HTTP/1.1 400"])
def test_garbage_is_a_named_error(bad: bytes) -> None:
    with pytest.raises(CodecError):
        EmergencyCodec(1).receive(bad)


_ODD = st.sampled_from(["", "inf", "-inf", "nan", "1e400", "7", "-1", "x", "1.5", "9" * 30, "Inactive", "BUY"])


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["3", "5", "61", "4", "11", "1", "53", "62", "9", "15", "49", "999"]), st.lists(_ODD, max_size=40)
)
def test_whatever_a_frame_holds_it_is_a_message_or_a_named_error(kind: str, fields: list[str]) -> None:
    codec = EmergencyCodec(1)
    codec.server_version = 176
    with contextlib.suppress(CodecError):
        codec.receive(frame(kind, *fields))


@pytest.mark.parametrize("version", [157, 176])
@pytest.mark.parametrize("limit", [math.nan, 150.25])
def test_place_order_has_the_layout_of_the_reference_client(version: int, limit: float) -> None:
    asyncio.set_event_loop(asyncio.new_event_loop())  # the library asks for one when it is imported
    from ib_insync import Client, LimitOrder, MarketOrder, Stock, TagValue  # noqa: F401

    sent: list[tuple[object, ...]] = []

    class Recorder(Client):
        def send(self, *fields: object, **kwargs: object) -> None:
            sent.append(fields)

    client = Recorder(None)
    client._serverVersion = version
    order = MarketOrder("SELL", 5) if math.isnan(limit) else LimitOrder("SELL", 5, limit)
    order.tif, order.account, order.orderRef, order.openClose = "DAY", "DU1", "L2:1", ""
    contract = Stock("AAPL", "SMART", "USD", conId=265598)
    client.placeOrder(9, contract, order)
    codec = EmergencyCodec(1)
    codec.server_version = version
    ours = codec.place_order(9, AAPL, "SELL", 5.0, "DU1", "L2:1", limit)[4:].decode().split("\0")[:-1]
    reference: list[str] = []
    client2 = Client(None)
    client2._serverVersion = version

    class Socket:
        def sendMsg(self, data: bytes) -> None:
            reference.extend(data[4:].decode().split("\0")[:-1])

    client2.conn = Socket()  # type: ignore[assignment]
    client2.connState = Client.CONNECTED
    client2.setConnectOptions("")
    client2.MaxRequests = 0
    client2.placeOrder(9, contract, order)
    assert len(ours) == len(reference)
    differing = [(i, a, b) for i, (a, b) in enumerate(zip(ours, reference, strict=True)) if _value(a) != _value(b)]
    assert differing == []


def _value(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


@pytest.fixture(scope="module")
def paper() -> PaperThread:
    with PaperThread() as thread:
        yield thread


def test_direct_flatten_cancels_orders_of_other_clients_and_closes_everything(paper: PaperThread) -> None:
    trader = EmergencyConnection("127.0.0.1", paper.port, 11, messages_per_s=40)
    until(trader, lambda _: trader.ready)
    codec, first = trader.codec, trader.next_order_id
    trader.send(codec.place_order(first, AAPL, "BUY", 120.0, "DUSIM001", "L2:a"))
    trader.send(codec.place_order(first + 1, MSFT, "SELL", 40.0, "DUSIM001", "L2:b"))
    trader.send(codec.place_order(first + 2, AAPL, "BUY", 10.0, "DUSIM001", "L2:c", 100.0))

    def filled(seen: list[Message]) -> bool:
        done = {m.order_id for m in seen if isinstance(m, OrderStatus) and m.status == "Filled"}
        resting = any(isinstance(m, OpenOrder) and m.order_id == first + 2 for m in seen)
        return {first, first + 1} <= done and resting

    until(trader, filled)
    config = from_mapping({"gateway": {"port": paper.port}})
    lines: list[str] = []
    result = flatten_direct(config, lines.append, timeout_s=20.0)
    assert result.flat, (result, lines)
    assert result.closes_sent >= 2
    trader.send(codec.request_positions(), codec.request_all_open_orders())
    seen = until(trader, lambda s: any(type(m).__name__ == "PositionsEnd" for m in s))
    held = {m.contract.symbol: m.qty for m in seen if isinstance(m, Position)}
    assert all(q == 0 for q in held.values())
    trader.close()


def test_direct_flatten_says_what_to_do_when_nobody_answers() -> None:
    config = from_mapping({"gateway": {"port": 1}})
    result = flatten_direct(config, lambda _: None, timeout_s=0.5)
    assert not result.flat
    assert "no login at 127.0.0.1:1" in result.text


def test_direct_flatten_refuses_a_gateway_of_another_account(paper: PaperThread) -> None:
    config = from_mapping({"gateway": {"port": paper.port, "account": "DUSIM999"}})
    result = flatten_direct(config, lambda _: None, timeout_s=5.0)
    assert not result.flat
    assert "DUSIM999" in result.text


def test_the_connection_probes_and_measures_the_gateways_answers(paper: PaperThread) -> None:
    connection = EmergencyConnection("127.0.0.1", paper.port, 31)
    until(connection, lambda seen: any(isinstance(m, CurrentTime) for m in seen))
    assert 0 <= connection.answer_age_ns(time.monotonic_ns()) < 2_000_000_000
    connection.close()


def test_a_gateway_that_does_not_answer_any_more_is_left_and_tried_anew() -> None:
    """Half open: what is sent leaves, nothing comes back, and no error says so."""
    login = frame("176", "20240324 21:18:59 UTC") + frame(15, 1, "DU1") + frame(9, 1, 1)
    now, limit = 10**9, time.monotonic() + 10.0
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = EmergencyConnection("127.0.0.1", server.getsockname()[1], 5)
        while not connection._connected:
            connection.poll(now)
        peer, _ = server.accept()
        peer.sendall(login)
        while not connection.ready and time.monotonic() < limit:
            connection.poll(now)
        connection.poll(now := now + MUTE_PATIENCE_NS)  # it asked the time when it was ready
        assert connection.ready
        peer.sendall(frame(49, 1, 0))
        while connection.answer_age_ns(now) and time.monotonic() < limit:
            connection.poll(now)
        connection.poll(now := now + 1_500_000_000)  # asks again: this time nobody answers
        connection.poll(now := now + MUTE_PATIENCE_NS + 1)
        assert not connection.ready
        assert "mute for 5 s" in connection.last_error
        while not connection._connected and time.monotonic() < limit:
            connection.poll(now := now + 100_000_000)
        second, _ = server.accept()
        second.sendall(login)
        while not connection.ready and time.monotonic() < limit:
            connection.poll(now)
        assert connection.ready
        assert connection.incarnation == 2
        for end in (connection, peer, second):
            end.close()


def test_never_more_messages_in_a_second_than_allowed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = EmergencyConnection("127.0.0.1", server.getsockname()[1], 5, messages_per_s=5)
        now = 10**9
        while not connection._connected:
            now += 1_000_000
            connection.poll(now)
        peer, _ = server.accept()
        peer.sendall(frame("176", "20240324 21:18:59 UTC") + frame(15, 1, "DU1") + frame(9, 1, 1))
        deadline = time.monotonic() + 5
        while not connection.ready and time.monotonic() < deadline:
            connection.poll(now)
        peer.setblocking(False)
        connection.send(*[connection.codec.global_cancel() for _ in range(30)])
        times: list[int] = []
        pending = b""
        for _ in range(6_000):
            now += 1_000_000
            connection.poll(now)
            try:
                pending += peer.recv(65_536)
            except BlockingIOError:
                continue
            while (
                len(pending) >= 4 and pending[:4] != b"API\0" and len(pending) >= 4 + int.from_bytes(pending[:4], "big")
            ):
                size = int.from_bytes(pending[:4], "big")
                if pending[4:6] in (b"58", b"49"):
                    times.append(now)
                if pending[4:6] == b"49":
                    peer.sendall(frame(49, 1, 0))
                pending = pending[4 + size :]
            if pending[:4] == b"API\0":
                pending = pending[4:]
        connection.close()
        peer.close()
    assert 25 <= len(times) <= 5 * 7  # six seconds, and the one that was under way


def test_the_greeting_of_a_new_connection_is_counted_and_waits_for_room() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = EmergencyConnection("127.0.0.1", server.getsockname()[1], 5, messages_per_s=5)
        now, limit = 10**9, time.monotonic() + 10
        connection._sent_at.extend([now] * 4)
        while not connection._connected and time.monotonic() < limit:
            connection.poll(now)
        peer, _ = server.accept()
        peer.sendall(frame("176", "20240324 21:18:59 UTC"))
        while connection.sent_within(now, 0) < 5 and time.monotonic() < limit:
            connection.poll(now)
        assert connection.sent_within(now, 0) == 5
        peer.close()
        while connection._connected and time.monotonic() < limit:
            connection.poll(now)
        connection.poll(now + 1_000_000_000)
        assert connection._socket is None, "five have left within this second"
        connection.poll(now + 1_000_000_000 + 50_000_001)
        assert connection._socket is not None
        connection.close()
