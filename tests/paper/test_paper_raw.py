"""The protocol as bytes: greeting, version and layout, whose orders a client sees, depth, accounts."""

from __future__ import annotations

import asyncio

import pytest
from paper_harness import AAPL, MSFT, RawClient, place_fields, running, until


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
async def test_what_is_for_financial_advisers_only_says_so_as_the_broker_does(fields, named):
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*fields)
        await client.expect_error(321, -1 if named == "requestFA" else 8)
        text = client.of(4)[-1][4]
        assert f"'{named}'" in text
        assert text.endswith("FA data operations ignored for non FA customers.")
        await client.sync()
        await client.close()
