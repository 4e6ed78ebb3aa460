"""Faults that come at times, by chance, and on the events of their kind; the command line that asks for them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from paper_harness import AAPL, RawClient, place_fields, running, until

from engine.cli.gateway import paper_gateway
from engine.paper.books import SymbolBook
from engine.paper.config import PaperConfig
from engine.paper.control import start_control
from engine.paper.faults import FAULTS, FaultDesk, FaultError, Plan
from engine.paper.faults.scenario import load_scenario
from engine.paper.main import build_market
from engine.paper.order_faults import Armed


@given(
    after_s=st.floats(0, 100),
    every_s=st.floats(0.01, 10),
    jitter_s=st.floats(0, 5),
    times=st.integers(1, 20),
    probability=st.floats(0, 1),
    seed=st.integers(0, 100),
)
def test_a_plan_is_reproduced_by_its_seed_and_never_exceeds_it(after_s, every_s, jitter_s, times, probability, seed):
    plan = Plan(after_s, every_s, jitter_s, times, probability)
    found = list(plan.occurrences(random.Random(seed)))
    assert found == list(plan.occurrences(random.Random(seed)))
    assert found == sorted(found)
    assert len(found) <= times
    assert all(after_s <= t <= after_s + (times - 1) * every_s + jitter_s + 1e-9 for t in found)
    if probability == 1:
        assert len(found) == times
    if probability == 0:
        assert found == []


def test_half_the_chances_are_taken_with_probability_one_half():
    rng = random.Random(1)
    armed = Armed(1000, 0.5)
    hits = sum(armed.fires(rng) for _ in range(400))
    assert 160 < hits < 240
    assert armed.left == 1000 - hits


async def test_a_planned_fault_happens_as_often_as_asked_and_clear_drops_the_rest():
    async with running() as r:
        client = await RawClient.connect(r.port)
        told = r.faults.plan("error", {"code": 7777}, Plan(after_s=0.01, every_s=0.01, times=3))
        assert "3 times" in told
        await until(lambda: client.errors().count(7777) == 3, "three errors")
        r.faults.plan("error", {"code": 8888}, Plan(after_s=3600))
        r.faults.plan("error", {"code": 8889}, Plan(every_s=0.01, times=0))
        await client.expect_error(8889)
        r.faults.apply("clear", {})
        await client.sync()
        seen = client.errors().count(8889)
        await asyncio.sleep(0.05)
        await client.sync()
        assert client.errors().count(8889) == seen
        assert 8888 not in client.errors()
        await client.close()


async def test_a_half_open_socket_stays_open_and_its_client_id_is_free():
    async with running() as r:
        old = await RawClient.connect(r.port, 7)
        r.faults.apply("half_open", {})
        old.send(49, 1)
        new = await RawClient.connect(r.port, 7)
        await new.sync()
        assert new.errors() == [2104, 2106, 2158]
        assert old.of(49) == []
        assert not old.closed
        r.faults.apply("clear", {})
        await until(lambda: old.closed, "reset")
        await new.close()


async def test_an_id_stays_in_use_after_its_connection_is_gone():
    async with running() as r:
        old = await RawClient.connect(r.port, 7)
        r.faults.apply("id_in_use", {"seconds": 3600})
        await until(lambda: old.closed, "close")
        again = await RawClient.connect(r.port, 7)
        await until(lambda: again.closed, "refusal")
        assert again.errors() == [326]
        other = await RawClient.connect(r.port, 8)
        await other.sync()
        r.faults.apply("clear", {})
        third = await RawClient.connect(r.port, 7)
        await third.sync()
        for client in (other, third):
            await client.close()


@pytest.mark.parametrize(("lost", "working"), [(True, 0), (False, 1)])
async def test_a_connection_can_die_before_its_order_is_acknowledged(lost, working):
    async with running() as r:
        client = await RawClient.connect(r.port, 7)
        r.faults.apply("drop_link_on_order", {"lost": lost})
        client.send(*place_fields(1))
        await until(lambda: client.closed, "reset")
        assert client.of(3) == []
        assert len(list(r.gateway.desk.ledger.working())) == working
        again = await RawClient.connect(r.port, 7)
        again.send(5, 1)
        await again.expect(53)
        assert len(again.of(5)) == working
        await again.close()


async def test_an_order_can_vanish_without_a_word():
    async with running() as r:
        client = await RawClient.connect(r.port)
        r.faults.apply("lose_order", {})
        client.send(*place_fields(1))
        client.send(*place_fields(2))
        await client.expect(3, 2)
        assert {m[1] for m in client.of(3)} == {"2"}
        assert client.errors(1) == []
        await client.close()


async def test_a_late_status_comes_after_what_followed_it():
    async with running() as r:
        client = await RawClient.connect(r.port)
        r.faults.apply("late_status", {"ms": 30})
        client.send(*place_fields(1))
        await client.expect(3, 2)
        assert [m[2] for m in client.of(3)] == ["Submitted", "PreSubmitted"]
        await client.close()


async def test_executions_can_come_in_parts_and_twice_and_quantities_still_add_up():
    async with running() as r:
        client = await RawClient.connect(r.port)
        r.faults.apply("partial_fills", {"parts": 3})
        r.faults.apply("duplicate_execution", {})
        client.send(*place_fields(1, order_type="MKT", limit="", quantity=100))
        await client.expect(59, 4)
        fills = client.of(11)
        assert [m[19] for m in fills] == ["33", "33", "33", "34"]
        assert len({m[14] for m in fills}) == 3
        assert r.gateway.account.positions[0].quantity == 100
        await client.close()


async def test_a_perm_id_may_not_be_known_yet():
    async with running() as r:
        client = await RawClient.connect(r.port)
        r.faults.apply("zero_perm_id", {"count": 2})
        client.send(*place_fields(1))
        await client.expect(3, 2)
        assert client.of(3)[0][6] == "0"
        assert client.of(3)[1][6] != "0"
        await client.close()


async def test_a_preset_makes_orders_day_and_they_live():
    async with running() as r:
        client = await RawClient.connect(r.port)
        r.faults.apply("preset_tif", {"count": 1})
        client.send(*place_fields(1, tif="GTC"))
        client.send(*place_fields(2, tif="GTC"))
        await client.expect(3, 4)
        assert client.errors(1) == [10349]
        assert client.errors(2) == []
        assert [m[18] for m in client.of(5) if m[1] == "1"][-1] == "DAY"
        assert {m[18] for m in client.of(5) if m[1] == "2"} == {"GTC"}
        assert [o.tif for o in r.gateway.desk.ledger.working()] == ["DAY", "GTC"]
        assert {m[2] for m in client.of(3)} <= {"PreSubmitted", "Submitted"}
        await client.close()


async def test_the_broker_can_cancel_unasked():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1))
        await client.expect(3, 2)
        r.faults.apply("cancel_working", {"reason": "closing only"})
        await client.expect_error(202, 1)
        assert client.of(4)[-1][4].endswith("closing only")
        await client.close()


async def test_a_stalled_symbol_is_silent_while_others_go_on_and_returns_with_what_has_changed():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(10, 5, 1, *AAPL, 10, 1, "")
        await client.sync()
        r.faults.apply("stall", {"symbol": "AAPL"})
        before = len(client.of(13))
        r.market.set_row(0, 1, 0, 149.99, 5.0)
        r.step()
        await client.sync()
        assert len(client.of(13)) == before
        r.faults.apply("unstall", {})
        await client.expect(13, before + 1)
        await client.sync()
        assert [m[3:9] for m in client.of(13)[before:]] == [["0", "NASDAQ", "1", "1", "149.99", "5"]]
        assert 317 not in client.errors()
        await client.close()


@pytest.mark.parametrize(("then", "code", "lines"), [("1102", 1102, 1), ("1101", 1101, 0), ("1102-dead", 1102, 1)])
async def test_a_link_that_flaps_returns_by_itself(then, code, lines):
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(10, 5, 1, *AAPL, 10, 1, "")
        await client.sync()
        r.faults.apply("link_flap", {"seconds": 0.02, "then": then})
        await client.expect_error(code)
        assert client.errors().index(1100) < client.errors().index(code)
        assert len(r.gateway.feed.depth) == lines
        assert r.gateway.feed.silent == (then == "1102-dead")
        with pytest.raises(FaultError, match="allowed are 1101, 1102, 1102-dead"):
            r.faults.apply("link_flap", {"then": "1103"})
        await client.close()


@pytest.mark.parametrize(("lost", "back"), [("1100", "1102"), ("2103", "2104"), ("competing_session", "clear")])
async def test_data_that_was_kept_goes_on_with_ordinary_changes(lost, back):
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(10, 5, 1, *AAPL, 10, 1, "")
        client.send(10, 5, 2, *AAPL, 3, 1, "")
        await client.sync()
        r.faults.apply(lost, {})
        r.market.set_row(0, 1, 0, 149.99, 5.0)  # another size
        r.market.set_row(0, 0, 0, 150.005, 7.0)  # another price
        r.step()
        client.send(10, 5, 3, *AAPL, 10, 1, "")  # asked for meanwhile: rows as they are, changes later
        await client.sync()
        r.market.set_row(0, 0, 1, 150.015, 8.0)
        r.step()
        quiet = len(client.of(13))
        r.faults.apply(back, {})
        await client.sync()
        assert len(client.of(13)) > quiet
        assert 317 not in client.errors()
        for req_id, rows in ((1, 10), (2, 3), (3, 10)):
            book = SymbolBook()
            for m in client.of(13):
                if m[2] == str(req_id):
                    assert book.apply(int(m[6]), (int(m[5]), int(m[3]), float(m[7]), float(m[8])))
            now = r.gateway.feed.books[0]
            assert (book.asks, book.bids) == (now.asks[:rows], now.bids[:rows])
        await client.close()


async def test_data_that_were_lost_must_be_asked_for_anew():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(10, 5, 1, *AAPL, 10, 1, "")
        await client.sync()
        r.faults.apply("1100", {})
        r.faults.apply("1101", {})
        before = len(client.of(13))
        r.market.set_row(0, 1, 0, 149.99, 5.0)
        r.step()
        await client.sync()
        assert len(client.of(13)) == before
        client.send(10, 5, 1, *AAPL, 10, 1, "")
        await client.expect(13, before + 20)
        assert 322 not in client.errors()
        await client.close()


async def test_a_farm_that_flaps_sends_2103_then_2104():
    async with running() as r:
        client = await RawClient.connect(r.port)
        r.faults.apply("farm_flap", {"seconds": 0.02})
        await until(lambda: client.errors().count(2104) == 2, "2104")
        assert 2103 in client.errors()
        assert not r.gateway.feed.silent
        await client.close()


class Impossible(Exception):
    """A fault that this market or this moment doesn't offer."""


def _attempt(faults: FaultDesk, name: str) -> str:
    try:
        return faults.apply(name, {})
    except FaultError as error:
        if "use the synthetic market" in str(error) or "trade first" in str(error):
            raise Impossible from error
        raise


async def test_every_fault_without_required_arguments_can_be_carried_out_and_cleared():
    for name, fault in FAULTS.items():
        if any(arg.default is None for arg in fault.args.values()):
            continue
        async with running() as r:
            client = await RawClient.connect(r.port)
            client.send(10, 5, 1, *AAPL, 10, 1, "")
            client.send(*place_fields(1))
            await client.expect(3, 2)
            with contextlib.suppress(Impossible):
                assert _attempt(r.faults, name)
            r.faults.apply("clear", {})
            again = await RawClient.connect(r.port, 99)
            await again.sync()
            assert again.errors() == [2104, 2106, 2158], name
            for one in (client, again):
                await one.close()


SCENARIOS = sorted((Path(__file__).parents[2] / "config" / "scenarios").glob("*.toml"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda p: p.stem)
async def test_a_shipped_scenario_can_be_carried_out_from_beginning_to_end(path):
    scenario = load_scenario(path)
    assert scenario.title
    market, _ = build_market(PaperConfig(port=0))
    async with running(market) as r:
        for number, timed in enumerate(scenario.faults):
            client = await RawClient.connect(r.port, 10 + number)
            if not client.closed:
                client.send(*place_fields(1, order_type="MKT", limit="", quantity=1))
                client.send(10, 5, 1, *AAPL, 5, 1, "")
            await asyncio.sleep(0)
            try:
                assert r.faults.apply(timed.fault, timed.args)
            except FaultError as error:
                assert "trade first" in str(error)  # noqa: PT017
            await client.close()
        r.faults.apply("clear", {})
        last = await RawClient.connect(r.port, 99)
        await last.sync()
        assert last.errors() == [2104, 2106, 2158]
        await last.close()


def test_there_is_a_scenario_for_every_complaint_of_users():
    used = {timed.fault for path in SCENARIOS for timed in load_scenario(path).faults}
    assert {
        "link_flap", "farm_flap", "half_open", "mute", "id_in_use", "id_rollback", "fill_during_disconnect",
        "fill_on_cancel", "duplicate_status", "drop_status", "correct_execution", "reject_next", "pacing",
        "depth_reset", "depth_malformed", "depth_after_cancel", "competing_session", "delay", "daily_restart",
        "partial_fills", "halt", "preset_tif",
    } <= used  # fmt: skip


async def test_the_same_seed_gives_the_same_chances(tmp_path):
    path = tmp_path / "scenario.toml"
    path.write_text('seed = 5\n[[faults]]\nat_s = 3600\nfault = "disconnect"\nprobability = 0.5\n')
    scenario = load_scenario(path)
    async with running() as r:
        chances = []
        for _ in range(2):
            desk = FaultDesk(r.gateway)
            scenario.start(desk)
            chances.append([r.gateway.desk.faults.rng.random() for _ in range(5)])
            desk.close()
        assert chances[0] == chances[1]


async def test_the_command_line_carries_out_faults_resets_the_account_and_passes_on_what_is_wrong():
    async with running() as r:
        runner = await start_control(r.gateway, r.faults, 0)
        control = str(runner.addresses[0][1])

        async def cli(*words: str):
            return await asyncio.to_thread(CliRunner().invoke, paper_gateway, [*words, "--control-port", control])

        try:
            client = await RawClient.connect(r.port)
            client.send(*place_fields(1, order_type="MKT", limit="", quantity=50))
            await client.expect(59)
            client.send(*place_fields(2))
            await client.expect(3, 5)
            assert (await cli("fault", "delay", "ms=1", "seconds=1")).output == "all replies are late by 1 ms\n"
            planned = await cli("fault", "error", "code=5555", "--after", "0.01", "--every", "0.01", "--times", "2")
            assert "2 times" in planned.output
            await until(lambda: client.errors().count(5555) == 2, "two errors")
            wrong = await cli("fault", "delay", "ms=-4")
            assert "'ms' is -4" in wrong.output
            assert (await cli("fault", "link_flap", "then=1101", "seconds=0.05")).exit_code == 0
            await until(lambda: client.errors().count(1101) == 1, "a text of digits")
            assert '"AAPL": 50.0' in (await cli("state")).output
            assert "250,000.00 USD" in (await cli("reset", "--equity", "250000")).output
            await client.expect_error(202, 2)
            assert r.gateway.account.equity(r.gateway.marks()) == 250_000
            assert list(r.gateway.desk.ledger.working()) == []
            assert r.gateway.desk.ledger.executions == []
            await client.close()
        finally:
            await runner.cleanup()
    nobody = CliRunner().invoke(paper_gateway, ["fault", "clear", "--control-port", control])
    assert f"start the gateway with --control-port {control}" in nobody.output


async def test_a_command_with_a_seed_has_chances_of_its_own():
    patterns = []
    for others in (0, 3):
        async with running(seed=others) as r:
            client = await RawClient.connect(r.port)
            for _ in range(others):
                r.gateway.desk.faults.rng.random()
            r.faults.plan("reject_next", {"count": 1000, "probability": 0.5}, Plan.read({"seed": 7}))
            for order_id in range(1, 17):
                client.send(*place_fields(order_id, quantity=1))
            await client.sync()
            patterns.append([201 in client.errors(i) for i in range(1, 17)])
            await client.close()
    assert patterns[0] == patterns[1]
    assert 0 < sum(patterns[0]) < 16


def test_a_scenario_entry_may_have_a_seed_of_its_own(tmp_path):
    path = tmp_path / "seeded.toml"
    path.write_text('[[faults]]\nat_s = 1\nfault = "stall"\nseed = 7\n')
    assert load_scenario(path).faults[0].plan.seed == 7


async def test_the_jitter_of_a_delay_draws_from_the_seed_of_its_command():
    found = []
    for seed, draws in ((7, 0), (7, 3), (8, 0)):
        async with running() as r:
            r.faults.plan("delay", {"ms": 10, "jitter_ms": 100}, Plan.read({"seed": seed}))
            for _ in range(draws):
                r.gateway.desk.faults.rng.random()
            found.append([r.gateway.reply_delay() for _ in range(5)])
            r.faults.apply("clear", {})
            assert r.gateway.reply_delay() == 0.0
    assert found[0] == found[1] != found[2]
    assert all(0.01 <= late_s < 0.11 for late_s in found[0])
    assert len(set(found[0])) == 5


async def test_a_delay_without_a_seed_draws_from_the_generator_of_all_again():
    async with running(seed=3) as r:
        r.faults.plan("delay", {"jitter_ms": 100}, Plan.read({"seed": 7}))
        r.faults.apply("delay", {"ms": 0, "jitter_ms": 1000})
        r.gateway.desk.faults.rng.seed(3)
        assert r.gateway.reply_delay() == random.Random(3).random()


async def test_the_seed_of_a_fault_command_comes_from_the_command_line():
    patterns = []
    for seed, draws in (("7", 0), ("7", 3), ("8", 0)):
        async with running() as r:
            runner = await start_control(r.gateway, r.faults, 0)
            words = ["fault", "reject_next", "count=1000", "probability=0.5", "--seed", seed]
            words += ["--control-port", str(runner.addresses[0][1])]
            try:
                client = await RawClient.connect(r.port)
                for _ in range(draws):
                    r.gateway.desk.faults.rng.random()
                assert (await asyncio.to_thread(CliRunner().invoke, paper_gateway, words)).exit_code == 0
                for order_id in range(1, 17):
                    client.send(*place_fields(order_id, quantity=1))
                await client.sync()
                patterns.append([201 in client.errors(i) for i in range(1, 17)])
                await client.close()
            finally:
                await runner.cleanup()
    assert patterns[0] == patterns[1] != patterns[2]
    assert CliRunner().invoke(paper_gateway, ["fault", "stall", "--seed", "-2"]).exit_code == 2
