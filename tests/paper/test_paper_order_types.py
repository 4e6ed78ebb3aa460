"""Stops, trailing stops, market-on-close, brackets, one-cancels-all, hours and commissions, as a client sees them."""

from __future__ import annotations

from datetime import datetime

import pytest
from paper_harness import RawClient, Running, place_fields, running, start_gateway, until
from paper_scripted import ScriptedMarket

from engine.paper import server
from engine.paper.catalog import NEW_YORK
from engine.paper.commissions import Traded, tiered
from engine.paper.orders import DESK, HELD, WAITING, PaperOrder
from engine.paper.universe import stocks
from engine.paper.watch import next_close, reached, regular, trailed, triggers


def order_of(r: Running, order_id: int, client_id: int = 5) -> PaperOrder:
    found = r.gateway.desk.ledger.find(client_id, order_id)
    assert found is not None
    return found


def statuses(client: RawClient, order_id: int) -> list[str]:
    return [m[2] for m in client.of(3) if m[1] == str(order_id)]


async def trade(r: Running, price: float, client: RawClient) -> None:
    r.market.trade(0, price, 1.0)
    r.step()
    await client.sync()


async def quote(r: Running, side: int, price: float, client: RawClient) -> None:
    """Move the best row of a side of AAPL (0 ask, 1 bid)."""
    size = r.market.sides[0][side][0][1]
    r.market.set_row(0, side, 0, price, size)
    r.step()
    await client.sync()


@pytest.mark.parametrize(
    ("action", "stop", "spared", "hit"), [("SELL", 149.0, 149.01, 149.0), ("BUY", 151.0, 150.99, 151.0)]
)
async def test_a_stop_waits_for_a_trade_at_its_price_and_then_takes_the_market(action, stop, spared, hit):
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1, action, 50, "STP", "", aux=stop))
        await client.sync()
        assert statuses(client, 1) == ["PreSubmitted"]
        assert client.of(5)[0][17] == f"{stop:g}"
        await trade(r, spared, client)
        assert order_of(r, 1).working
        await trade(r, hit, client)
        assert statuses(client, 1)[-1] == "Filled"
        assert "Submitted" in statuses(client, 1)
        await client.close()


async def test_a_stop_limit_rests_at_its_limit_once_triggered():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1, "SELL", 50, "STP LMT", 150.5, aux=149.0))
        await client.sync()
        assert r.market.own == {}
        await trade(r, 148.99, client)
        assert statuses(client, 1) == ["PreSubmitted", "Submitted"]
        assert [o[3] for o in r.market.own.values()] == [150.5]
        await client.close()


async def test_a_stop_whose_price_has_passed_already_triggers_at_once():
    async with running() as r:
        client = await RawClient.connect(r.port)
        await trade(r, 148.0, client)
        client.send(*place_fields(1, "SELL", 50, "STP", "", aux=149.0))
        await until(lambda: "Filled" in statuses(client, 1), "fill")
        await client.close()


@pytest.mark.parametrize(("how", "stop"), [({"aux": 1.0}, 150.0), ({"trail_percent": 2.0}, 147.98)])
async def test_a_trailing_stop_follows_one_way_and_triggers_on_the_way_back(how, stop):
    async with running() as r:
        client = await RawClient.connect(r.port)
        await trade(r, 150.0, client)
        client.send(*place_fields(1, "SELL", 50, "TRAIL", "", **how))
        await client.sync()
        await trade(r, 151.0, client)
        assert order_of(r, 1).trail_stop == pytest.approx(stop)
        await trade(r, stop + 0.02, client)
        assert order_of(r, 1).trail_stop == pytest.approx(stop)
        assert order_of(r, 1).working
        await trade(r, stop, client)
        assert statuses(client, 1)[-1] == "Filled"
        await client.close()


async def test_a_modified_stop_has_its_new_price():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1, "SELL", 50, "STP", "", aux=149.0))
        client.send(*place_fields(1, "SELL", 40, "STP", "", aux=148.0))
        await client.sync()
        await trade(r, 148.5, client)
        assert order_of(r, 1).working
        await trade(r, 148.0, client)
        assert r.gateway.account.positions[0].quantity == -40
        await client.close()


async def test_market_on_close_waits_for_the_close():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1, "BUY", 50, "MOC", ""))
        await trade(r, 150.0, client)
        assert statuses(client, 1) == ["PreSubmitted"]
        r.faults.apply("close_auction", {})
        await until(lambda: "Filled" in statuses(client, 1), "fill")
        await client.close()


async def bracket(client: RawClient, quantity: int = 100) -> None:
    """Entry 1 with take-profit 2 and stop 3, sent as programs do: only the last is transmitted."""
    client.send(*place_fields(1, "BUY", quantity, "LMT", 140.0, transmit=False))
    client.send(*place_fields(2, "SELL", quantity, "LMT", 160.0, parent=1, transmit=False))
    client.send(*place_fields(3, "SELL", quantity, "STP", "", aux=130.0, parent=1))
    await client.expect(3, 4)


async def test_nothing_is_told_of_an_untransmitted_order_until_its_bracket_is_complete():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1, transmit=False))
        client.send(16, 1)
        await client.expect(53)
        assert client.of(3) == client.of(5) == []
        assert order_of(r, 1).place == HELD
        client.send(*place_fields(1))
        await client.expect(3, 2)
        assert len(r.market.own) == 1
        await client.close()


async def test_children_of_a_bracket_wait_for_their_parent_and_one_cancels_the_other():
    async with running() as r:
        client = await RawClient.connect(r.port)
        await bracket(client)
        assert statuses(client, 1) == ["PreSubmitted", "Submitted"]
        assert statuses(client, 2) == statuses(client, 3) == ["PreSubmitted"]
        assert [m[7] for m in client.of(3) if m[1] == "2"] == ["1"]
        assert order_of(r, 2).place == order_of(r, 3).place == WAITING
        r.faults.apply("fill", {"symbol": "AAPL"})
        await until(lambda: statuses(client, 2)[-1] == "Submitted", "take-profit works")
        assert order_of(r, 3).place == DESK
        await quote(r, 1, 160.0, client)
        await until(lambda: statuses(client, 2)[-1] == "Filled", "take-profit")
        assert statuses(client, 3)[-1] == "Cancelled"
        assert 202 in client.errors(3)
        assert r.gateway.account.positions[0].quantity == 0
        await client.close()


async def test_a_stopped_bracket_cancels_its_take_profit():
    async with running() as r:
        client = await RawClient.connect(r.port)
        await bracket(client, 50)
        r.faults.apply("fill", {"symbol": "AAPL"})
        await trade(r, 129.0, client)
        assert statuses(client, 3)[-1] == "Filled"
        assert statuses(client, 2)[-1] == "Cancelled"
        assert r.gateway.account.positions[0].quantity == 0
        await client.close()


async def test_a_partly_filled_take_profit_shrinks_the_stop():
    async with running() as r:
        client = await RawClient.connect(r.port)
        await bracket(client)
        r.faults.apply("fill", {"symbol": "AAPL"})
        await until(lambda: statuses(client, 2)[-1] == "Submitted", "take-profit works")
        r.market.set_row(0, 1, 0, 160.0, 30.0)
        r.step()
        await client.sync()
        assert order_of(r, 2).filled == 30
        assert order_of(r, 3).remaining == 70
        assert [m[4] for m in client.of(3) if m[1] == "3"][-1] == "70"
        await client.close()


async def test_children_die_with_an_unfilled_parent_and_protect_what_a_partly_filled_one_left():
    async with running() as r:
        client = await RawClient.connect(r.port)
        await bracket(client)
        client.send(4, 1, 1, "")
        await until(lambda: 202 in client.errors(3), "stop ends")
        assert 202 in client.errors(2)
        client.send(*place_fields(4, "BUY", 100, "LMT", 140.0, transmit=False))
        client.send(*place_fields(5, "SELL", 100, "STP", "", aux=130.0, parent=4))
        await client.sync()
        r.faults.apply("fill", {"symbol": "AAPL", "quantity": 40})
        client.send(4, 1, 4, "")
        await until(lambda: 202 in client.errors(4), "parent ends")
        await client.sync()
        child = order_of(r, 5)
        assert (child.working, child.place, child.remaining) == (True, DESK, 40)
        await client.close()


async def test_an_order_attached_to_a_filled_parent_works_at_once():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1, "BUY", 10, "MKT", ""))
        client.send(*place_fields(2, "SELL", 10, "LMT", 160.0, parent=1))
        await until(lambda: "Submitted" in statuses(client, 2), "child works")
        await client.close()


@pytest.mark.parametrize(("oca_type", "left"), [(1, None), (2, 70), (3, 70)])
async def test_a_fill_in_a_group_cancels_or_reduces_the_others_by_its_type(oca_type, left):
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1, "BUY", 100, "LMT", 149.0, oca_group="g", oca_type=oca_type))
        client.send(*place_fields(2, "BUY", 100, "LMT", 148.0, oca_group="g", oca_type=oca_type))
        client.send(*place_fields(3, "BUY", 100, "LMT", 148.0, oca_group="other", oca_type=oca_type))
        await client.expect(3, 6)
        assert r.market.own == {}
        r.market.set_row(0, 0, 0, 149.0, 30.0)
        r.step()
        await client.sync()
        assert order_of(r, 1).filled == 30
        assert order_of(r, 1).remaining == 70
        assert order_of(r, 3).remaining == 100
        if left is None:
            assert statuses(client, 2)[-1] == "Cancelled"
        else:
            assert order_of(r, 2).remaining == left
        await client.close()


async def test_orders_of_a_group_that_are_reached_together_do_not_both_trade():
    async with running() as r:
        client = await RawClient.connect(r.port)
        for order_id in (1, 2, 3):
            client.send(*place_fields(order_id, "BUY", 100, "LMT", 149.0, oca_group="g", oca_type=1))
        await client.expect(3, 6)
        await quote(r, 0, 148.5, client)
        assert r.gateway.account.positions[0].quantity == 100
        assert [order_of(r, n).status for n in (1, 2, 3)] == ["Filled", "Cancelled", "Cancelled"]
        await client.close()


async def test_stops_brackets_and_held_orders_survive_a_restart(tmp_path):
    path = tmp_path / "state.json"
    async with running(state_file=path) as r:
        client = await RawClient.connect(r.port)
        await bracket(client)
        client.send(*place_fields(9, "SELL", 10, "TRAIL", "", aux=1.0, tif="GTC"))
        client.send(*place_fields(10, transmit=False))
        await trade(r, 150.0, client)
        await client.close()
    async with running(state_file=path) as r:
        assert [order_of(r, n).place for n in (2, 3, 9, 10)] == [WAITING, WAITING, DESK, HELD]
        assert order_of(r, 9).trail_stop == 149.0
        r.market.trade(0, 148.9, 1.0)
        r.step()
        assert order_of(r, 9).status == "Filled"


def test_outside_regular_hours_orders_wait_unless_they_say_otherwise():
    opens = datetime(2026, 3, 3, 9, 30, tzinfo=NEW_YORK).timestamp()
    now = [0]
    gateway = server.Gateway(
        start_gateway(hours="regular").config, ScriptedMarket(), None, lambda: now[0], int((opens - 3600) * 1e9)
    )
    desk = gateway.desk
    asleep = desk.manual_order(0, "BUY", 10, 150.01, 0)
    assert asleep.place == DESK
    assert asleep.filled == 0
    now[0] = int(3601e9)
    gateway.step()
    assert asleep.status == "Filled"


def test_a_day_has_its_regular_hours_and_its_close():
    def at(*moment: int) -> float:
        return datetime(*moment, tzinfo=NEW_YORK).timestamp()

    assert [regular(at(2026, 3, 3, h, m)) for h, m in ((9, 29), (9, 30), (15, 59), (16, 0))] == [
        False,
        True,
        True,
        False,
    ]
    assert not regular(at(2026, 3, 7, 12, 0))
    assert next_close(at(2026, 3, 3, 15, 0)) == at(2026, 3, 3, 16, 0)
    assert next_close(at(2026, 3, 6, 16, 0)) == at(2026, 3, 9, 16, 0)


def test_stops_and_limits_are_symmetric_for_buys_and_sells():
    def order(action: str, kind: str, **fields: float) -> PaperOrder:
        return PaperOrder(1, 1, 1, 0, action, 10, kind, fields.pop("limit", float("nan")), "DAY", "DU1", **fields)

    assert triggers(order("BUY", "STP", aux=10.0), 10.0)
    assert not triggers(order("BUY", "STP", aux=10.0), 9.99)
    assert triggers(order("SELL", "STP", aux=10.0), 10.0)
    assert not triggers(order("SELL", "STP", aux=10.0), 10.01)
    assert reached(order("BUY", "LMT", limit=10.0), 9.0, 10.0)
    assert not reached(order("BUY", "LMT", limit=10.0), 9.0, 10.01)
    assert reached(order("SELL", "LMT", limit=9.0), 9.0, 10.0)
    assert not reached(order("SELL", "LMT", limit=9.0), 0.0, 10.0)
    assert trailed(order("BUY", "TRAIL", aux=1.0, trail_stop=11.0), 12.0) == 11.0
    assert trailed(order("BUY", "TRAIL", aux=1.0, trail_stop=11.0), 9.0) == 10.0


def test_tiered_commissions_follow_the_month_and_pass_on_fees():
    assert tiered(Traded(100, 10_000)) == pytest.approx(0.35 + 0.30 + 0.02)
    assert tiered(Traded(1_000, 100_000)) == pytest.approx(3.5 + 3.0 + 0.2)
    assert tiered(Traded(1_000, 100_000, added=1_000)) == pytest.approx(3.5 - 2.0 + 0.2)
    assert tiered(Traded(1_000, 100_000, month_before=299_500)) == pytest.approx(0.5 * 3.5 + 0.5 * 2.0 + 3.2)
    assert tiered(Traded(1_000, 100_000, sells=True)) == pytest.approx(6.7 + 2.78 + 0.166)
    assert tiered(Traded(10, 1.0)) == pytest.approx(0.01 + 0.03 + 0.002)
    assert tiered(Traded(0, 0)) == 0


async def test_the_tiered_table_is_charged_when_it_is_asked_for():
    async with running(commissions="tiered") as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1, "BUY", 100, "MKT", ""))
        await client.expect(59)
        assert float(client.of(59)[0][3]) == pytest.approx(0.67)
        await client.close()


@pytest.mark.parametrize("table", ["fixed", "tiered"])
async def test_a_pair_is_charged_as_currencies_are_whatever_the_table_of_stocks(table, tmp_path):
    (pair,) = stocks(("EUR.USD",))
    euro = (str(pair.con_id), "EUR", "CASH", "", "0.0", "", "", pair.exchange, "", "USD", "", "")
    state = tmp_path / "state.json"
    async with running(ScriptedMarket((pair,)), commissions=table, state_file=state, equity_usd=1e9) as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1, order_type="MKT", limit="", quantity=1, contract=euro, what_if=True))
        await client.expect(5)
        client.send(*place_fields(2, order_type="MKT", limit="", quantity=100, contract=euro))
        report = await client.expect(59)
        assert float(report[0][3]) == 2.0
        client.send(7, 3, 50, 0, "", "", "", "", "", "")
        await client.expect(55)
        value = sum(float(m[19]) * float(m[20]) for m in client.of(11)[:1])
        assert r.gateway.account.month_pair_usd == pytest.approx(value)
        await client.close()
    async with running(ScriptedMarket((pair,)), commissions=table, state_file=state) as r:
        assert r.gateway.account.month_pair_usd == pytest.approx(value)
        assert r.gateway.account.month_shares == 0.0


def gateway_at(start: datetime, **settings: object) -> tuple[server.Gateway, list[int]]:
    now = [0]
    config = start_gateway(**settings).config
    return server.Gateway(config, ScriptedMarket(), None, lambda: now[0], int(start.timestamp() * 1e9)), now


@pytest.mark.parametrize(("hours", "order_type"), [("regular", "LMT"), ("regular", "MOC"), ("24/7", "MOC")])
def test_an_order_of_after_the_close_lives_until_its_session_has_ended(hours, order_type):
    evening = datetime(2026, 3, 6, 17, 0, tzinfo=NEW_YORK)  # a Friday
    gateway, now = gateway_at(evening, hours=hours)
    desk = gateway.desk
    order = desk.manual_order(0, "BUY", 10, 140.0, 0)
    order.order_type = order_type
    order.day = desk.good_on(order_type)
    assert order.day == "20260309"
    for hour in (12, 36, 60, 63):  # the days roll; it is Monday morning
        now[0] = int(hour * 3600e9)
        gateway.step()
        assert order.working, hour
    now[0] = int(84 * 3600e9)  # Tuesday
    gateway.step()
    assert not order.working


async def test_a_modification_may_let_an_order_trade_outside_regular_hours():
    async with running(hours="regular") as r:
        r.gateway.desk._open_now = False
        r.gateway.desk._trading = lambda wall_s: False
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1, limit=140.0))
        await client.expect_error(399, 1)
        client.send(*place_fields(1, limit=150.01, outside_rth=True))
        await until(lambda: statuses(client, 1)[-1:] == ["Filled"], "filled")
        await client.close()


@pytest.mark.parametrize(("limit", "filled"), [(140.0, "0"), (150.01, "100")])
async def test_a_resting_order_made_immediate_takes_what_there_is_and_ends(limit, filled):
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1, quantity=500, limit=140.0, tif="GTC"))
        await client.expect(3, 2)
        client.send(*place_fields(1, quantity=500, limit=limit, tif="IOC"))
        await client.expect_error(202, 1)
        assert client.of(3)[-1][2:4] == ["Cancelled", filled]
        assert r.market.own == {}
        assert list(r.gateway.desk.ledger.working()) == []
        await client.close()


@pytest.mark.parametrize("first", ["GTC", "IOC"])
async def test_an_immediate_member_of_a_group_does_not_go_on_waiting(first):
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*place_fields(1, limit=140.0, tif=first, oca_group="g", oca_type=1))
        if first == "GTC":
            await client.expect(3, 2)
            client.send(*place_fields(1, limit=140.0, tif="IOC", oca_group="g", oca_type=1))
        await client.expect_error(202, 1)
        assert client.of(3)[-1][2] == "Cancelled"
        await client.close()
