"""The stream through a real server: resume, resync, slow and vanished clients, arm leases."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from engine.cockpit.arming import ACK_LIMIT_NS, GONE_LIMIT_NS, Arming
from engine.cockpit.durable import DurableLog
from engine.domain.codes import Badge, BadgeState, Side, Source


async def open_stream(rig, events, tab: str = "t1", headers: dict[str, str] | None = None, **more: str):
    response = await rig.http.get(f"{rig.base}/api/stream?tab={tab}", headers={**(headers or rig.bearer), **more})
    return response, events(response)


async def test_a_stream_begins_with_a_snapshot_and_beats(rig, events) -> None:
    response, reader = await open_stream(rig, events)
    assert response.content_type == "text/event-stream"
    assert (response.headers["Cache-Control"], response.headers["X-Accel-Buffering"]) == ("no-store", "no")
    assert "Content-Encoding" not in response.headers
    name, event_id, data = await reader.next()
    assert (name, data["mode"]) == ("snapshot", "SIM")
    assert event_id
    _, _, beat = await reader.next("heartbeat")
    assert beat["nonce"]
    _, _, again = await reader.next("heartbeat")
    assert again["nonce"] != beat["nonce"]
    response.close()


async def test_a_cell_that_changes_is_in_the_next_frame(rig, events) -> None:
    response, reader = await open_stream(rig, events)
    await reader.next("snapshot")
    rig.plant.badge(Badge.SPREAD, BadgeState.TRIPPED, 31.5, 25, "AAPL 31.5 bps", symbols=1)
    while True:
        _, _, data = await reader.next("state")
        spread = next((g for g in data.get("guardrails", ()) if g["name"] == "SPREAD"), None)
        if spread and spread["state"] == "TRIPPED":
            break
    assert (spread["value"], spread["limit"], spread["unit"], spread["symbols"], spread["reason"]) == (
        31.5,
        25.0,
        "bps",
        ["AAPL"],
        "AAPL 31.5 bps",
    )
    response.close()


async def test_durable_events_are_resumed_exactly_once_by_last_event_id(rig, events) -> None:
    response, reader = await open_stream(rig, events)
    await reader.next("snapshot")
    first = rig.plant.execution(1, 0, int(Side.BUY), 10, 150.0)
    _, last_id, data = await reader.next("fill")
    assert data["exec_id"] == first
    response.close()
    missed = [rig.plant.execution(2 + n, 0, int(Side.SELL), 5, 150.1) for n in range(3)]
    await rig.until(
        lambda: not rig.cockpit.stream.clients and rig.cockpit.tail.drain() is not None, "the stream is closed"
    )
    response, reader = await open_stream(rig, events, **{"Last-Event-ID": last_id})
    got = [(await reader.next("fill"))[2]["exec_id"] for _ in range(3)]
    assert got == missed
    after = rig.plant.execution(9, 0, int(Side.SELL), 5, 150.1)
    assert (await reader.next("fill"))[2]["exec_id"] == after
    response.close()


@pytest.mark.parametrize("last", ["0-1", "nonsense", "99999999999999-5"])
async def test_an_unknown_id_is_told_to_resynchronise(rig, events, last: str) -> None:
    response, reader = await open_stream(rig, events, **{"Last-Event-ID": last})
    assert (await reader.next())[0] == "resync"
    assert (await reader.next())[0] == "snapshot"
    response.close()


async def test_a_fourth_stream_of_a_session_is_refused(rig, events) -> None:
    headers = await rig.browser()
    open_ones = [(await open_stream(rig, events, f"t{n}", headers))[0] for n in range(3)]
    async with rig.http.get(f"{rig.base}/api/stream?tab=t4", headers=headers) as r:
        assert r.status == 429
    open_ones[0].close()
    await rig.until(lambda: len(rig.cockpit.stream.clients) < 3, "a closed stream frees its place")
    response, _ = await open_stream(rig, events, "t4", headers)
    assert response.status == 200
    for r in (*open_ones[1:], response):
        r.close()


async def test_the_focused_book_follows_the_tab(rig, events) -> None:
    headers = await rig.browser()
    response, reader = await open_stream(rig, events, "t1", headers)
    assert (await reader.next("book"))[2]["symbol"] == "AAPL"
    assert (await rig.post("/api/stream/focus", {"tab": "t1", "symbol": "MSFT"}, headers))[0] == 200
    while (await reader.next("book"))[2]["symbol"] != "MSFT":
        pass
    response.close()


async def test_a_client_that_reads_nothing_skips_frames_and_is_dropped_while_others_go_on(rig, events) -> None:
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.connect(("127.0.0.1", rig.server.port))
    token = rig.bearer["Authorization"]
    stuck.sendall(f"GET /api/stream?tab=stuck HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {token}\r\n\r\n".encode())
    response, reader = await open_stream(rig, events, "healthy")
    await reader.next("snapshot")
    await rig.until(lambda: len(rig.cockpit.stream.clients) == 2, "both are connected")
    client = next(c for c in rig.cockpit.stream.clients if c.tab == "stuck")
    rig.cockpit.stream._period_s = 0.002  # fill its buffers quickly

    async def busy() -> None:
        for n in range(20_000):
            rig.plant.execution(1000 + n, 0, 1, 1, 150.0)
            if n % 20 == 0:
                await asyncio.sleep(0.004)
            if rig.cockpit.stream.dropped:
                return

    feeding = asyncio.create_task(busy())
    frames = 0
    while not rig.cockpit.stream.dropped:
        await reader.next("state")
        frames += 1
    feeding.cancel()
    assert client.dropped
    assert rig.cockpit.stream.skipped > 0
    assert frames > 20
    assert [c.tab for c in rig.cockpit.stream.clients] == ["healthy"]
    stuck.close()
    response.close()


async def arm_tab(rig, headers: dict[str, str], tab: str) -> None:
    status, body = await rig.post("/api/exec/arm", {"tab": tab, "mode": "SIM"}, headers)
    assert status == 200, body


async def test_an_armed_stream_that_breaks_is_measured_until_it_comes_back(rig, events) -> None:
    headers = await rig.browser()
    response, reader = await open_stream(rig, events, "t1", headers)
    await reader.next("snapshot")
    await arm_tab(rig, headers, "t1")
    cell = rig.plant.contexts["watchdog"].cell_reader("arm")
    await rig.until(lambda: cell.read()["armed"] == 1, "armed is published")
    response.close()
    await rig.until(lambda: cell.read()["stream_gone_since_ns"] > 0, "the loss is published")
    assert cell.read()["stream_gone_since_ns"] <= rig.plant.clock.now_ns()
    response, reader = await open_stream(rig, events, "t1", headers)
    await reader.next("snapshot")
    await rig.until(lambda: cell.read()["stream_gone_since_ns"] == 0, "the return is published")
    response.close()


async def test_a_page_that_says_goodbye_is_no_loss_and_disarmed(rig, events) -> None:
    headers = await rig.browser()
    response, reader = await open_stream(rig, events, "t1", headers)
    await reader.next("snapshot")
    await arm_tab(rig, headers, "t1")
    await rig.post("/api/stream/leave", {"tab": "t1"}, headers)
    response.close()
    await rig.until(lambda: not rig.cockpit.stream.clients, "closed")
    assert rig.cockpit.stream.arming.summary() == (0, 0, 0)


async def test_an_unarmed_stream_that_breaks_is_no_loss(rig, events) -> None:
    response, reader = await open_stream(rig, events)
    await reader.next("snapshot")
    response.close()
    await rig.until(lambda: not rig.cockpit.stream.clients, "closed")
    assert rig.cockpit.stream.arming.summary() == (0, 0, 0)


async def test_an_acknowledged_heartbeat_is_measured(rig, events) -> None:
    headers = await rig.browser()
    response, reader = await open_stream(rig, events, "t1", headers)
    _, _, beat = await reader.next("heartbeat")
    _, body = await rig.post("/api/stream/ack", {"tab": "t1", "nonce": beat["nonce"]}, headers)
    assert body["rtt_ms"] > 0
    assert rig.cockpit.services.counters["cockpit"].histogram("sse_ns").sum() == 1
    response.close()


async def test_with_no_client_nothing_is_encoded(rig) -> None:
    frames = rig.cockpit.stream.frames
    await asyncio.sleep(0.3)
    assert rig.cockpit.stream.frames == frames


async def test_a_restarted_cockpit_knows_the_day_from_the_rings(rig) -> None:
    rig.plant.trade()
    exec_id = rig.plant.execution(77, 2, 1, 3, 180.0, source=Source.OPERATOR)
    await rig.until(lambda: exec_id in {f.exec_id for f in rig.cockpit.tail.blotter.fills.values()}, "seen")
    from engine.cockpit.server import build

    again = build(rig.cockpit.ctx)
    assert again.tail.blotter.fill_list() == rig.cockpit.tail.blotter.fill_list()
    assert {o["order_id"] for o in again.tail.blotter.order_list()} == {
        o["order_id"] for o in rig.cockpit.tail.blotter.order_list()
    }
    assert again.tail.log.next == 1, "the past is no news"


# -- pure --------------------------------------------------------------------------------------------------------------


def test_a_durable_log_replays_exactly_what_is_missing_and_knows_what_is_gone() -> None:
    log = DurableLog(epoch=7, window=4)
    for n in range(6):
        log.add("fill", {"n": n})
    assert log.first == 3
    assert log.resume_at("7-6") == 7
    assert log.since(7) == []
    assert log.resume_at("7-2") == 3
    assert [b'"n":%d' % n in f for n, f in zip((2, 3, 4, 5), log.since(3) or [], strict=True)] == [True] * 4
    assert log.resume_at("7-1") is None
    assert log.resume_at("8-5") is None
    assert log.resume_at("7-7") is None
    assert log.resume_at(None) is None


def test_a_lease_ends_by_idleness_silence_kill_or_a_lost_stream() -> None:
    second = 10**9
    for killed, prepare, at, why in (
        (False, lambda a: a.acknowledged("s", "t", 901 * second), 901 * second, "idle"),
        (False, lambda a: None, ACK_LIMIT_NS + second, "stopped answering"),
        (True, lambda a: None, second, "KILL"),
        (False, lambda a: a.stream_lost("s", "t", second), GONE_LIMIT_NS + 2 * second, "did not come back"),
    ):
        arming = Arming(900 * second, False)
        lease = arming.arm("s", "t", 0)
        assert arming.expire(second // 2, False) == []
        prepare(arming)
        ended = arming.expire(at, killed)
        assert len(ended) == 1, why
        assert why in ended[0][1]
        assert not arming.holds("s", "t", lease.token, at)


def test_a_broken_stream_holds_no_lease_until_it_is_back() -> None:
    arming = Arming(10**12, False)
    lease = arming.arm("s", "t", 0)
    arming.stream_lost("s", "t", 5)
    assert arming.summary() == (1, 0, 5)
    assert not arming.holds("s", "t", lease.token, 6)
    arming.stream_back("s", "t", 7)
    assert arming.holds("s", "t", lease.token, 8)
    assert not arming.holds("s", "t", "wrong", 8)


def test_a_taken_port_names_its_holder(tmp_path: Path) -> None:
    from engine.cockpit.server import PortTaken, bind

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"port {port} \(cockpit\) is taken by pid \d+"):
            bind("127.0.0.1", port, "cockpit")
