"""The past as bytes: bars, ticks, hours, the first time there is data for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from paper_harness import AAPL, RawClient, running, until

from engine.paper import server
from engine.paper.catalog import NEW_YORK
from engine.paper.history import SymbolHistory
from engine.paper.watch import regular


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
