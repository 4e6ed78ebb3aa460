"""An unmodified ib_insync against the gateway: everything a trader's program asks for."""

from __future__ import annotations

import asyncio
import math

import pytest
from ib_insync import ContFuture, Index, LimitOrder, MarketOrder, Order, Stock
from paper_harness import ib_client, running, until

AAPL = Stock("AAPL", "SMART", "USD")


def aapl() -> Stock:
    return Stock("AAPL", "SMART", "USD", conId=265598)


async def test_it_connects_and_finds_an_empty_account():
    async with running() as r, ib_client(r.port) as ib:
        assert ib.client.serverVersion() == 176
        assert ib.managedAccounts() == ["DUSIM001"]
        assert ib.positions() == []
        assert ib.trades() == []
        values = {v.tag: v.value for v in ib.accountValues() if v.account == "DUSIM001"}
        assert values["NetLiquidation"] == "1000000.00"


async def test_it_qualifies_the_stocks_and_the_index_and_is_told_what_is_unknown():
    async with running() as r, ib_client(r.port) as ib:
        names = ["AAPL", "MSFT", "AMZN", "GOOGL", "NVDA", "META", "TSLA", "JPM"]
        stocks = await ib.qualifyContractsAsync(*(Stock(n, "SMART", "USD") for n in names))
        assert [s.symbol for s in stocks] == names
        assert all(s.conId for s in stocks)
        index = (await ib.qualifyContractsAsync(Index("INDU", "CME", "USD")))[0]
        assert index.conId == 1935181
        codes = []
        ib.errorEvent += lambda req_id, code, text, contract: codes.append(code)
        assert await ib.qualifyContractsAsync(Stock("NOPE", "SMART", "USD"), ContFuture("AAPL", "SMART")) == []
        assert codes == [200, 200]
        details = (await ib.reqContractDetailsAsync(AAPL))[0]
        assert details.minTick == 0.01
        assert len(details.marketRuleIds.split(",")) == len(details.validExchanges.split(","))
        rule = await ib.reqMarketRuleAsync(int(details.marketRuleIds.split(",")[0]))
        assert [(step.lowEdge, step.increment) for step in rule] == [(0.0, 0.01)]
        assert all(span.count(":") == 2 for span in details.tradingHours.split(";"))
        assert {d.exchange for d in await ib.reqMktDepthExchangesAsync()} >= {"SMART", "NASDAQ", "NYSE"}
        assert [d.contract.symbol for d in await ib.reqMatchingSymbolsAsync("AAP")] == ["AAPL"]


async def test_its_book_follows_the_market_row_by_row():
    async with running() as r, ib_client(r.port) as ib:
        ticker = ib.reqMktDepth(aapl(), 10, isSmartDepth=True)
        await until(lambda: len(ticker.domBids) == 10 and len(ticker.domAsks) == 10, "full book")
        m = r.market
        m.insert_row(0, 1, 0, 150.0, 700.0)
        m.set_row(0, 0, 3, 150.04, 77.0)
        m.set_row(0, 0, 0, 0.0, 0.0)
        m.set_row(0, 1, 5, 0.0, 0.0)
        r.step()
        await until(lambda: len(ticker.domBids) == 9 and len(ticker.domAsks) == 9, "changed book")
        assert [(x.price, x.size) for x in ticker.domBids] == m.sides[0][1]
        assert [(x.price, x.size) for x in ticker.domAsks] == m.sides[0][0]
        m.reset(0)
        r.step()
        await until(lambda: len(ticker.domBids) == 9 and len(ticker.domAsks) == 9, "book after the reset")
        assert [(x.price, x.size) for x in ticker.domAsks] == m.sides[0][0]
        ib.cancelMktDepth(ticker.contract, isSmartDepth=True)
        await until(lambda: not len(r.gateway.feed.depth), "end of subscription")


async def test_its_ticker_has_quotes_last_volume_shortable_and_the_index_value():
    async with running() as r, ib_client(r.port) as ib:
        ticker = ib.reqMktData(aapl(), "233,236")
        index = ib.reqMktData(Index("INDU", "CME", "USD"))
        await until(lambda: ticker.bid == 149.99 and ticker.ask == 150.01, "quote")
        assert (ticker.bidSize, ticker.askSize) == (100.0, 100.0)
        assert ticker.minTick == 0.01
        assert ticker.shortableShares > 1000
        assert ticker.marketDataType == 1
        r.market.trade(0, 150.01, 300.0)
        r.market.set_row(0, 1, 0, 149.99, 900.0)
        r.market.set_index(40_123.5)
        await until(lambda: ticker.last == 150.01 and ticker.volume == 300 and ticker.bidSize == 900, "changes")
        assert ticker.rtVolume == 300
        await until(lambda: index.last == 40_123.5, "index")
        assert math.isnan(index.bid)
        snapshot = (await ib.reqTickersAsync(aapl()))[0]
        assert snapshot.bid == 149.99
        ib.cancelMktData(ticker.contract)


async def test_every_kind_of_tick_by_tick_data_arrives():
    async with running() as r, ib_client(r.port) as ib:
        tickers = {kind: ib.reqTickByTickData(aapl(), kind) for kind in ("Last", "AllLast", "BidAsk", "MidPoint")}
        await until(lambda: len(r.gateway.feed.prints.lines) == 4, "subscriptions")
        seen = {kind: [] for kind in tickers}
        for kind, ticker in tickers.items():
            ticker.updateEvent += lambda t, k=kind: seen[k].extend(t.tickByTicks)
        r.market.trade(0, 150.01, 300.0)
        r.market.set_row(0, 1, 0, 0.0, 0.0)
        r.step()
        await until(lambda: all(seen.values()), "prints of all kinds")
        assert (seen["Last"][0].price, seen["Last"][0].size) == (150.01, 300.0)
        assert seen["AllLast"][0].exchange == "NASDAQ"
        assert seen["BidAsk"][-1].bidPrice == 149.98
        assert seen["MidPoint"][-1].midPoint == pytest.approx(149.995)


async def test_a_market_order_fills_and_reaches_position_portfolio_and_executions():
    async with running() as r, ib_client(r.port) as ib:
        reports = []
        ib.commissionReportEvent += lambda trade, fill, report: reports.append(report)
        trade = ib.placeOrder(aapl(), MarketOrder("BUY", 250, tif="DAY", orderRef="key-1"))
        await until(lambda: len(reports) == 2 and trade.isDone(), "fills")
        assert trade.orderStatus.status == "Filled"
        assert [f.execution.shares for f in trade.fills] == [100, 150]
        assert [f.execution.cumQty for f in trade.fills] == [100, 250]
        assert trade.orderStatus.avgFillPrice == pytest.approx((100 * 150.01 + 150 * 150.02) / 250)
        assert sum(report.commission for report in reports) == pytest.approx(1.25)
        assert {f.execution.orderRef for f in trade.fills} == {"key-1"}
        position = (await until(ib.positions, "position"))[0]
        assert position.position == 250
        assert position.avgCost == pytest.approx((100 * 150.01 + 150 * 150.02 + 1.25) / 250)
        item = (await until(ib.portfolio, "portfolio"))[0]
        assert item.unrealizedPNL == pytest.approx(250 * (item.marketPrice - item.averageCost), abs=1e-3)
        fills = await ib.reqExecutionsAsync()
        assert [f.execution.execId for f in fills] == [f.execution.execId for f in trade.fills]


async def test_a_limit_order_rests_is_modified_fills_in_parts_and_its_rest_is_cancelled():
    async with running() as r, ib_client(r.port) as ib:
        order = LimitOrder("BUY", 300, 149.5, tif="GTC")
        trade = ib.placeOrder(aapl(), order)
        await until(lambda: trade.orderStatus.status == "Submitted", "resting")
        key = next(iter(r.market.own))
        order.lmtPrice, order.totalQuantity = 149.6, 400
        ib.placeOrder(trade.contract, order)
        await until(lambda: trade.orderStatus.remaining == 400, "modification")
        assert r.market.own[key][2:] == [400, 149.6]
        r.market.fill_own(key, 100)
        await until(lambda: trade.orderStatus.filled == 100, "partial fill")
        assert trade.orderStatus.status == "Submitted"
        assert trade.orderStatus.remaining == 300
        assert trade.fills[0].execution.lastLiquidity == 1
        ib.cancelOrder(order)
        await until(lambda: trade.orderStatus.status == "Cancelled", "cancel")
        assert trade.orderStatus.filled == 100
        states = list(dict.fromkeys(entry.status for entry in trade.log))
        assert states == ["PendingSubmit", "PreSubmitted", "Submitted", "PendingCancel", "Cancelled"]


async def test_what_if_shows_margins_and_commission():
    async with running() as r, ib_client(r.port) as ib:
        state = await ib.whatIfOrderAsync(aapl(), LimitOrder("BUY", 1000, 100.0, tif="DAY"))
        assert float(state.initMarginChange) == 50_000
        assert float(state.maintMarginChange) == 25_000
        assert state.commission == 5.0
        assert r.market.own == {}


async def test_closing_a_position_realizes_what_was_earned_less_commissions():
    async with running() as r, ib_client(r.port) as ib:
        reports = []
        ib.commissionReportEvent += lambda trade, fill, report: reports.append(report)
        pnl = ib.reqPnL("DUSIM001")
        single = ib.reqPnLSingle("DUSIM001", "", 265598)
        ib.placeOrder(aapl(), MarketOrder("BUY", 100, tif="DAY"))
        await until(lambda: len(reports) == 1, "buy")
        assert reports[0].realizedPNL == 0
        ib.placeOrder(aapl(), MarketOrder("SELL", 100, tif="DAY"))
        await until(lambda: len(reports) == 2, "sell")
        assert reports[1].realizedPNL == pytest.approx(-0.02 * 100 - 2.0)
        await until(lambda: ib.positions() == [], "flat")
        await until(lambda: pnl.realizedPnL == pytest.approx(-4.0), "P&L")
        assert pnl.dailyPnL == pytest.approx(-4.0)
        await until(lambda: single.realizedPnL == pytest.approx(-4.0), "single P&L")
        assert single.position == 0


async def test_account_summary_and_history_come_from_what_really_happened():
    async with running() as r, ib_client(r.port) as ib:
        for price in (150.01, 150.05, 149.95, 150.02):
            r.market.trade(0, price, 100.0)
        r.market.set_row(0, 1, 0, 149.99, 900.0)
        r.step()
        summary = {v.tag: v.value for v in await ib.accountSummaryAsync()}
        assert summary["NetLiquidation"] == "1000000.00"
        bars = await ib.reqHistoricalDataAsync(aapl(), "", "60 S", "1 min", "TRADES", False, formatDate=2)
        assert sum(b.volume for b in bars) == 400
        assert max(b.high for b in bars) == 150.05
        assert min(b.low for b in bars) == 149.95
        assert bars[-1].close == 150.02
        mid = await ib.reqHistoricalDataAsync(aapl(), "", "60 S", "5 secs", "MIDPOINT", False)
        assert mid[-1].close == pytest.approx(150.0)
        ticks = await ib.reqHistoricalTicksAsync(aapl(), "", "", 3, "TRADES", False)
        assert [t.price for t in ticks] == [150.05, 149.95, 150.02]
        quotes = await ib.reqHistoricalTicksAsync(aapl(), "", "", 3, "BID_ASK", False)
        assert quotes[-1].sizeBid == 900
        assert (await ib.reqHeadTimeStampAsync(aapl(), "TRADES", False, 2)) is not None
        none = await ib.reqHistoricalDataAsync(aapl(), "20010101 00:00:00 UTC", "60 S", "1 min", "TRADES", False)
        assert len(none) == 0


async def test_real_time_bars_close_every_five_seconds():
    async with running() as r, ib_client(r.port) as ib:
        live = ib.reqRealTimeBars(aapl(), 5, "TRADES", False)
        await until(lambda: r.gateway.bars._lines, "subscription")
        wall_s = r.gateway.wall_s()
        r.market.trade(0, 151.0, 10.0)
        r.step()
        r.gateway.bars.tick(wall_s + 5)
        r.gateway.flush_all()
        bar = (await until(lambda: live, "bar"))[0]
        assert (bar.close, bar.volume) == (151.0, 10.0)


async def test_executions_can_be_filtered():
    async with running() as r, ib_client(r.port, 1) as ib:
        from ib_insync import ExecutionFilter

        ib.placeOrder(aapl(), MarketOrder("BUY", 10, tif="DAY"))
        ib.placeOrder(Stock("JPM", "SMART", "USD", conId=1520593), MarketOrder("SELL", 10, tif="DAY"))
        await until(lambda: len(ib.fills()) == 2, "fills")
        for chosen, expected in (
            (ExecutionFilter(symbol="JPM"), ["JPM"]),
            (ExecutionFilter(side="BUY"), ["AAPL"]),
            (ExecutionFilter(clientId=77), []),
            (ExecutionFilter(time="20990101 00:00:00 UTC"), []),
            (ExecutionFilter(), ["AAPL", "JPM"]),
        ):
            assert [f.contract.symbol for f in await ib.reqExecutionsAsync(chosen)] == expected


async def test_a_program_of_two_clients_sees_open_orders_of_both_on_request_only():
    async with running() as r, ib_client(r.port, 1) as one, ib_client(r.port, 2) as two:
        trade = one.placeOrder(aapl(), LimitOrder("SELL", 50, 151.5, tif="DAY"))
        await until(lambda: trade.orderStatus.status == "Submitted", "resting")
        assert await two.reqOpenOrdersAsync() == []
        assert len(await two.reqAllOpenOrdersAsync()) == 1
        two.reqGlobalCancel()
        await until(lambda: trade.orderStatus.status == "Cancelled", "global cancel")


async def test_an_order_sent_as_the_link_drops_is_found_after_reconnecting():
    async with running() as r:
        async with ib_client(r.port, 1) as ib:
            ib.placeOrder(aapl(), LimitOrder("BUY", 50, 149.0, tif="GTC", orderRef="k"))
            await asyncio.sleep(0)
        async with ib_client(r.port, 1) as ib:
            await until(lambda: [t.order.orderRef for t in ib.openTrades()] == ["k"], "order found again")


async def test_another_client_sees_where_a_trailing_stop_stands():
    async with running() as r, ib_client(r.port) as ib:
        (contract,) = await ib.qualifyContractsAsync(Stock("AAPL", "SMART", "USD"))
        stop = Order(action="SELL", totalQuantity=10, orderType="TRAIL", auxPrice=1.0, trailStopPrice=140.0, tif="GTC")
        trade = ib.placeOrder(contract, stop)
        await until(lambda: trade.orderStatus.status == "PreSubmitted", "a stop that waits")
        async with ib_client(r.port, 2) as other:
            await other.reqAllOpenOrdersAsync()
            (seen,) = other.openTrades()
            assert seen.order.trailStopPrice == 140.0
