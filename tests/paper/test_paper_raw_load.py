"""Many clients, slow clients, too many messages, a taken port: nobody disturbs the others."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from paper_harness import AAPL, RawClient, place_fields, running, until
from paper_scripted import ScriptedMarket

from engine.paper.framing import frame
from engine.paper.server import PortTaken


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


async def test_a_taken_port_is_explained_with_its_holder():
    async with running() as r:
        with pytest.raises(PortTaken, match=rf"port {r.port} is held by pid \d+ \("):
            async with running(ScriptedMarket(), port=r.port):
                pass
