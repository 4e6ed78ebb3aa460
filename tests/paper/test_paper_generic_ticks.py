"""Generic ticks: those that have data, those that only the broker has, and those that nobody knows."""

from __future__ import annotations

import pytest
from paper_harness import AAPL, RawClient, running


def quotes(req_id: int, generic: str, snapshot: int = 0) -> tuple[object, ...]:
    return (1, 11, req_id, *AAPL, 0, generic, snapshot, 0, "")


async def test_a_mark_price_comes_with_generic_tick_221_only():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*quotes(5, "221"))
        client.send(*quotes(6, ""))
        await client.sync()
        book = next(book for symbol, book in r.gateway.feed.books.items() if r.gateway.catalog[symbol].symbol == "AAPL")
        assert [(m[2], float(m[4])) for m in client.of(1) if m[3] == "37"] == [("5", book.mark())]
        assert client.errors() == [2104, 2106, 2158]
        await client.close()


async def test_what_only_the_broker_has_data_of_is_named_and_the_rest_is_sent():
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*quotes(5, "106,233,292:BRFG"))
        await client.expect_error(10090, 5)
        assert client.of(4)[-1][4].endswith("Not simulated: 106(impvolat),292:BRFG(Wide_news)")
        assert any(m[2:4] == ["5", "1"] for m in client.of(1))
        client.send(2, 2, 5)
        await client.sync()
        assert client.errors(5) == [10090]
        await client.close()


@pytest.mark.parametrize(
    ("generic", "snapshot", "named"),
    [("233,999", 0, "Incorrect generic tick list of 999."), ("233", 1, "not applicable to generic ticks")],
)
async def test_what_the_broker_refuses_is_refused_and_nothing_is_sent(generic, snapshot, named):
    async with running() as r:
        client = await RawClient.connect(r.port)
        client.send(*quotes(5, generic, snapshot))
        await client.expect_error(321, 5)
        assert named in client.of(4)[-1][4]
        await client.sync()
        assert client.of(1) == []
        client.send(2, 2, 5)
        await client.expect_error(300, 5)
        await client.close()
