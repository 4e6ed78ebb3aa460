"""Every fault on command, as a client feels it; the control port; timed scenarios."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from paper_harness import AAPL, RawClient, ib_client, place_fields, running, until

from engine.paper.control import start_control
from engine.paper.faults import FAULTS, FaultError
from engine.paper.faults.scenario import load_scenario


async def test_disconnect_refuse_and_daily_restart_end_connections_and_keep_orders():
    async with running() as r:
        one, two = await RawClient.connect(r.port, 1), await RawClient.connect(r.port, 2)
        one.send(*place_fields(1))
        await one.expect(3, 2)
        r.faults.apply("disconnect", {"client": 2})
        await until(lambda: two.closed, "close")
        assert not one.closed
        r.faults.apply("daily_restart", {"seconds": 1000})
        await until(lambda: one.closed, "close")
        refused = await RawClient.connect(r.port, None)
        await until(lambda: refused.closed, "refusal")
        r.faults.apply("clear", {})
        again = await RawClient.connect(r.port, 1)
        again.send(5, 1)
        await again.expect(53)
        assert len(again.of(5)) == 1
        await again.close()


async def test_a_mute_gateway_accepts_and_never_answers():
    async with running() as r:
        before = await RawClient.connect(r.port, 1)
        r.faults.apply("mute", {})
        before.send(8, 1, 1)
        silent = await RawClient.connect(r.port, None)
        await asyncio.sleep(0.05)
        assert silent.messages == []
        assert not silent.closed
        assert len(before.of(9)) == 1
        r.faults.apply("unmute", {})
        after = await RawClient.connect(r.port, 3)
        await after.sync()
        for client in (before, silent, after):
            await client.close()


async def test_lost_link_holds_orders_and_1101_loses_subscriptions():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(10, 5, 1, *AAPL, 10, 1, "")
        await client.sync()
        r.faults.apply("1100", {})
        r.market.set_row(0, 1, 0, 149.99, 5.0)
        client.send(*place_fields(1))
        await client.sync()
        assert client.of(3) == []
        assert len(client.of(13)) == 20
        r.faults.apply("1101", {})
        await client.expect(3, 2)
        r.market.set_row(0, 1, 0, 149.99, 6.0)
        r.step()
        await client.sync()
        assert len(client.of(13)) == 20
        assert [c for c in client.errors() if c in (1100, 1101)] == [1100, 1101]
        await client.close()


async def test_1102_keeps_subscriptions_and_tells_what_has_changed_unless_the_ticks_stay_dead():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(10, 5, 1, *AAPL, 10, 1, "")
        await client.sync()
        r.faults.apply("1100", {})
        r.faults.apply("1102", {"dead": True})
        r.market.set_row(0, 1, 0, 149.99, 5.0)
        r.step()
        await client.sync()
        assert len(client.of(13)) == 20
        r.faults.apply("2104", {})
        await client.expect(13, 21)
        assert [m[7:9] for m in client.of(13)[20:]] == [["149.99", "5"]]
        r.faults.apply("2103", {})
        r.faults.apply("2104", {})
        await client.sync()
        assert client.errors()[-2:] == [2103, 2104]
        assert len(client.of(13)) == 21
        await client.close()


async def test_replies_can_be_delayed_and_stay_in_order():
    async with running() as r:
        client = await RawClient.connect(r.port)
        loop = asyncio.get_running_loop()
        r.faults.apply("delay", {"ms": 60})
        start = loop.time()
        client.send(8, 1, 1)
        await until(lambda: next(iter(r.gateway.sessions))._write_at > 0, "a delayed reply")
        r.faults.apply("delay", {"ms": 0})
        client.send(49, 1)
        await client.expect(49)
        assert loop.time() - start >= 0.06
        ids = [m[0] for m in client.messages if m[0] in ("9", "49")]
        assert ids == ["9", "9", "49"]
        await client.close()


async def test_the_next_order_can_be_rejected():
    async with running() as r:
        client = await RawClient.connect(r.port)
        r.faults.apply("reject_next", {"reason": "margin"})
        client.send(*place_fields(1))
        await client.expect_error(201, 1)
        await client.expect(3)
        assert client.of(3)[0][2] == "Inactive"
        assert client.of(4)[-1][4] == "Order rejected - reason:margin"
        client.send(*place_fields(2))
        await client.expect(3, 3)
        assert client.of(3)[-1][2] == "Submitted"
        await client.close()


async def test_order_status_can_be_dropped_or_doubled():
    async with running() as r:
        client = await RawClient.connect(r.port)
        r.faults.apply("drop_status", {"count": 3})
        client.send(*place_fields(1, order_type="MKT", limit="", quantity=10))
        await client.expect(59)
        await client.sync()
        assert client.of(3) == []
        assert len(client.of(11)) == 1
        r.faults.apply("duplicate_status", {})
        client.send(*place_fields(2))
        await client.expect(3, 3)
        assert [m[2] for m in client.of(3)] == ["PreSubmitted", "PreSubmitted", "Submitted"]
        await client.close()


async def test_a_cancel_can_cross_a_fill():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1, limit=149.0))
        await client.expect(3, 2)
        r.faults.apply("fill_on_cancel", {})
        client.send(4, 1, 1, "")
        await client.expect_error(10148, 1)
        assert client.of(3)[-1][2] == "Filled"
        assert client.of(11)[0][20] == "149"
        assert "state: Filled" in client.of(4)[-1][4]
        assert r.market.own == {}
        await client.close()


async def test_a_fill_during_a_disconnect_is_found_in_the_executions_afterwards():
    async with running() as r:
        async with ib_client(r.port) as ib:
            from ib_insync import LimitOrder, Stock

            order = LimitOrder("BUY", 100, 149.0, tif="GTC")
            trade = ib.placeOrder(Stock("AAPL", "SMART", "USD", conId=265598), order)
            await until(lambda: trade.orderStatus.status == "Submitted", "resting")
            r.faults.apply("fill_during_disconnect", {"seconds": 0})
            await until(lambda: not ib.isConnected(), "disconnect")
        async with ib_client(r.port) as ib:
            assert [f.execution.price for f in ib.fills()] == [149.0]
            assert ib.positions()[0].position == 100


async def test_part_of_a_resting_order_can_be_filled_and_the_rest_goes_on_working():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1, limit=149.0, quantity=300))
        await client.expect(3, 2)
        r.faults.apply("fill", {"symbol": "AAPL", "quantity": 100})
        await client.expect(59)
        assert client.of(3)[-1][2:5] == ["Submitted", "100", "200"]
        client.send(*place_fields(1, limit=149.5, quantity=400))
        await client.sync()
        assert [order[2:] for order in r.market.own.values()] == [[300, 149.5]]
        assert client.errors(1) == []
        await client.close()


async def test_an_execution_can_be_corrected():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1, order_type="MKT", limit="", quantity=100))
        await client.expect(59)
        r.faults.apply("correct_execution", {"change": -0.5})
        await client.expect(11, 2)
        first, second = client.of(11)
        assert first[14].rpartition(".")[0] == second[14].rpartition(".")[0]
        assert second[14].endswith(".02")
        assert second[20] == "149.51"
        client.send(7, 3, 50, 0, "", "", "", "", "", "")
        await client.expect(55)
        assert [m[14] for m in client.of(11) if m[1] == "50"] == [second[14]]
        r.gateway.account.check(r.gateway.marks())
        await client.close()


async def test_order_ids_can_roll_back():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(500))
        await client.expect(3, 2)
        r.faults.apply("id_rollback", {"by": 100})
        client.send(8, 1, 1)
        assert (await client.expect(9, 2))[-1][2] == "401"
        client.send(*place_fields(401))
        await client.expect_error(103, 401)
        await client.close()


async def test_depth_can_be_reset_malformed_and_late():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(10, 5, 1, *AAPL, 10, 1, "")
        await client.sync()
        r.faults.apply("depth_reset", {"symbol": "AAPL"})
        await client.expect(13, 40)
        assert 317 in client.errors(1)
        r.faults.apply("depth_malformed", {"symbol": "AAPL"})
        assert (await client.expect(13, 41))[-1][3] == "99"
        client.send(11, 1, 1, 1)
        await client.sync()
        r.faults.apply("depth_after_cancel", {})
        await client.expect(13, 42)
        await client.close()


async def test_a_symbol_can_be_halted_and_resumed():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(1, 11, 2, *AAPL, 0, "", 0, 0, "")
        await client.sync()
        r.faults.apply("halt", {"symbol": "AAPL"})
        r.faults.apply("resume", {"symbol": "AAPL"})
        await client.expect(45, 3)
        assert [m[4] for m in client.of(45)] == ["0", "1", "0"]
        await client.close()


async def test_competing_session_pacing_and_free_errors_reach_the_client():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(1, 11, 2, *AAPL, 0, "", 0, 0, "")
        await client.sync()
        r.faults.apply("competing_session", {})
        await client.expect_error(10197, 2)
        r.faults.apply("error", {"code": 2110, "message": "broken"})
        await client.expect_error(2110, -1)
        r.faults.apply("pacing", {})
        await until(lambda: client.closed, "close")
        assert client.errors()[-1] == 100


@pytest.mark.parametrize(
    ("name", "args", "text"),
    [
        ("explode", {}, "allowed are disconnect"),
        ("delay", {"ms": -1}, "'ms' is -1"),
        ("delay", {"ms": True}, "'ms' is True"),
        ("delay", {"milliseconds": 5}, "unknown arguments ['milliseconds']"),
        ("halt", {"symbol": "XXX"}, "allowed are AAPL"),
        ("shock", {"pct": 5}, "use the synthetic market"),
        ("correct_execution", {}, "trade first"),
    ],
)
async def test_a_wrong_command_says_what_is_allowed(name, args, text):
    async with running() as r:
        with pytest.raises(FaultError) as error:
            r.faults.apply(name, args)
        assert text in str(error.value)


async def test_the_control_port_carries_out_faults_and_shows_the_state():
    async with running() as r:
        runner = await start_control(r.gateway, r.faults, 0)
        try:
            address = runner.addresses[0]
            assert address[0] == "127.0.0.1"
            base = f"http://127.0.0.1:{address[1]}"
            client = await RawClient.connect(r.port, 6)
            client.send(*place_fields(1))
            await client.expect(3, 2)
            async with aiohttp.ClientSession() as http:
                async with http.get(f"{base}/faults") as response:
                    assert (await response.json())["faults"] == list(FAULTS)
                async with http.get(f"{base}/state") as response:
                    state = await response.json()
                    assert state["clients"] == [6]
                    assert state["working_orders"][0]["limit"] == 140.0
                async with http.post(f"{base}/faults", json={"fault": "disconnect"}) as response:
                    assert response.status == 200
                await until(lambda: client.closed, "close")
                async with http.post(f"{base}/faults", json={"fault": "nope"}) as response:
                    assert response.status == 422
                    assert "nope" in (await response.json())["detail"]
                async with http.post(f"{base}/faults", data='{"fault": "disconnect"}') as response:
                    assert response.status == 415
                async with http.get(f"{base}/state", headers={"Host": "evil.example:1"}) as response:
                    assert response.status == 403
        finally:
            await runner.cleanup()


def test_a_scenario_is_read_and_its_mistakes_are_named(tmp_path):
    path = tmp_path / "scenario.toml"
    path.write_text(
        '[[faults]]\nat_s = 1.5\nfault = "delay"\nargs = { ms = 5 }\n[[faults]]\nat_s = 0\nfault = "1100"\n'
    )
    assert [(f.at_s, f.fault, dict(f.args)) for f in load_scenario(path).faults] == [
        (1.5, "delay", {"ms": 5}),
        (0.0, "1100", {}),
    ]
    for text, problem in (
        ("faults = 3", "one list named 'faults'"),
        ("[[faults]]\nat_s = -1\nfault = '1100'", "at_s is -1"),
        ("[[faults]]\nat_s = 1\nfault = 'x'", "fault is 'x'"),
        ("[[faults]]\nat_s = 1\nfault = '1100'\nwhen = 2", "expected a table"),
        ("[[", "can't be read"),
        ("[[faults]]\nat_s = 1\nfault = 'delay'\nargs = {ms = -1}", "fault 1: delay: argument 'ms' is -1"),
        ("[[faults]]\nat_s = 1\nfault = '1100'\nprobability = 2", "'probability' is 2"),
        ("[[faults]]\nat_s = 1\nfault = '1100'\ntimes = 2", "without every_s"),
        ("seed = 'x'\nfaults = []", "seed is 'x'"),
    ):
        path.write_text(text)
        with pytest.raises(FaultError, match=problem):
            load_scenario(path)
