"""Orders as bytes: acknowledgement, change, cancel, fills in the broker's order, and every refusal by its code."""

from __future__ import annotations

import pytest
from paper_harness import AAPL, MSFT, RawClient, place_fields, running, until


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
