"""The whole gateway as its process runs it: entry point, scenario, latency, and the synthetic market behind it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from ib_insync import Index, LimitOrder, MarketOrder, Stock
from paper_harness import RawClient, ib_client, place_fields, running, until
from paper_scripted import ScriptedMarket

from engine.domain.instruments import SIM_INDEX, SIM_UNIVERSE
from engine.paper.config import PaperConfig
from engine.paper.faults import FaultDesk
from engine.paper.main import PortTaken, build_market, serve
from engine.paper.server import Gateway, bind


@asynccontextmanager
async def served(config: PaperConfig, beats: list | None = None):
    stop, port = asyncio.Event(), asyncio.get_running_loop().create_future()
    heartbeat = None if beats is None else lambda now_ns, work: beats.append((now_ns, work))
    task = asyncio.create_task(serve(config, port.set_result, stop, heartbeat, (ScriptedMarket(), SIM_INDEX)))
    await asyncio.wait([task, port], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    try:
        yield port.result()
    finally:
        stop.set()
        await task


async def test_it_reports_its_port_beats_and_stops_when_told():
    beats: list[tuple[int, int]] = []
    async with served(PaperConfig(port=0), beats) as port:
        client = await RawClient.connect(port)
        await until(lambda: len(beats) > 2, "heartbeats")
        assert beats == sorted(beats)
    await until(lambda: client.closed, "close")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_scenario_happens_at_its_time(tmp_path):
    path = tmp_path / "faults.toml"
    path.write_text("[[faults]]\nat_s = 0.01\nfault = '1100'\n")
    async with served(PaperConfig(port=0, faults_file=path)) as port:
        client = await RawClient.connect(port)
        await client.expect_error(1100)
        await client.close()


async def test_a_taken_port_stops_it_before_it_touches_the_state(tmp_path):
    async with served(PaperConfig(port=0)) as port:
        with pytest.raises(PortTaken, match="held by"):
            async with served(PaperConfig(port=port, state_file=tmp_path / "state.json")):
                pass
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("port", 70_000), ("equity_usd", 0.0), ("account", "U123"), ("max_depth_lines", 0), ("latency_ms", -1.0)],
)
def test_impossible_settings_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        PaperConfig(**{name: value})


async def test_latency_delays_orders_and_nothing_else():
    async with running(latency_ms=200.0) as r:
        client = await RawClient.connect(r.port)
        client.messages.clear()
        client.send(*place_fields(1))
        client.send(4, 1, 1, "")
        await client.sync()
        await client.expect_error(202, 1)
        assert client.messages[0][0] == "49"
        assert [m[2] for m in client.of(3)] == ["PreSubmitted", "Submitted", "PendingCancel", "Cancelled"]
        await client.close()


@asynccontextmanager
async def synthetic(**settings):
    config = PaperConfig(port=0, max_client_messages_per_s=0, time_interval_ms=0.0, **settings)
    listener = bind("127.0.0.1", 0)
    gateway = Gateway(config, *build_market(config))
    server = await gateway.listen(listener)
    stop = asyncio.Event()
    task = asyncio.create_task(gateway.run(stop))
    faults = FaultDesk(gateway)
    try:
        yield gateway, faults, server.sockets[0].getsockname()[1]
    finally:
        stop.set()
        await task
        faults.close()
        server.close()
        gateway.close()


async def test_eight_synthetic_books_stay_exact_in_a_client_while_it_trades():
    async with synthetic(seed=3, messages_per_s=4_000.0) as (gateway, faults, port), ib_client(port) as ib:
        stocks = [Stock(i.symbol, "SMART", "USD", conId=i.con_id) for i in SIM_UNIVERSE]
        tickers = [ib.reqMktDepth(stock, 10, isSmartDepth=True) for stock in stocks]
        index = ib.reqMktData(Index("INDU", "CME", "USD"))
        await until(lambda: gateway.events > 500 and index.last == index.last, "market events")
        trades = [ib.placeOrder(stocks[0], MarketOrder("BUY", 100, tif="DAY"))]
        for number, stock in enumerate(stocks):
            limit = gateway.feed.books[number].bid
            trades.append(ib.placeOrder(stock, LimitOrder("BUY", 20, round(limit, 2), tif="DAY")))
        await until(lambda: gateway.events > 3_000 and trades[0].isDone(), "more market events")
        for name, args in (
            ("shock", {"symbol": "MSFT", "pct": -1.0}),
            ("widen", {"symbol": "TSLA", "bps": 60.0}),
            ("gap_index", {"pct": -6.0}),
            ("freeze", {"symbol": "META"}),
            ("resume", {"symbol": "META"}),
        ):
            faults.apply(name, args)
        await until(lambda: index.last < 38_500, "index gap")
        ib.reqGlobalCancel()
        await until(lambda: all(t.isDone() for t in trades), "all orders done")

        def same() -> bool:
            gateway.step()
            return all(
                [(x.price, x.size) for x in t.domBids] == gateway.feed.books[n].bids
                and [(x.price, x.size) for x in t.domAsks] == gateway.feed.books[n].asks
                for n, t in enumerate(tickers)
            )

        gateway.market.advance = lambda now_ns: None  # hold the market still to compare
        await until(same, "equal books")
        assert sum(book.bad_rows for book in gateway.feed.books.values()) == 0
        assert min(len(t.domBids) for t in tickers) >= 1
        filled = {t.contract.symbol: t.filled() for t in trades[1:]}
        filled["AAPL"] += 100
        held = {p.contract.symbol: p.position for p in ib.positions()}
        assert held == {symbol: quantity for symbol, quantity in filled.items() if quantity}
        gateway.account.check(gateway.marks())
