"""What ib_insync's own tests ask of a gateway on port 7497: the same calls, written anew.

The library's tests are not in its distribution. They connect to a paper account on TWS's usual port, ask for the
commission of a hypothetical order (a currency pair in one version, a stock in the other), expect error 321 for a stock
without an exchange, and read the account summary.
"""

from __future__ import annotations

import socket

import ib_insync as ibi
import pytest
from paper_harness import running

from engine.paper.config import PaperConfig
from engine.paper.main import build_market
from engine.paper.universe import ALONE

TWS_PAPER_PORT = 7497


def _port() -> int:
    """7497, or a free one where something else holds it: the calls are the same."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", TWS_PAPER_PORT))
        except OSError:
            return 0
    return TWS_PAPER_PORT


@pytest.fixture
async def ib():
    market, _ = build_market(PaperConfig(symbols=ALONE))
    async with running(market, port=_port()) as r:
        ib = ibi.IB()
        await ib.connectAsync("127.0.0.1", r.port, clientId=1)
        yield ib
        ib.disconnect()


@pytest.mark.parametrize("contract", [ibi.Stock("MMM", "SMART", "USD"), ibi.Forex("EURUSD")], ids=["stock", "pair"])
async def test_a_bad_contract_raises_request_error_321_and_a_good_one_has_a_commission(ib, contract):
    order = ibi.MarketOrder("BUY", 100)
    state = await ib.whatIfOrderAsync(contract, order)
    assert state.commission > 0
    ib.RaiseRequestErrors = True
    with pytest.raises(ibi.RequestError) as caught:
        await ib.whatIfOrderAsync(ibi.Stock("XXX"), order)
    assert caught.value.code == 321


async def test_the_account_summary_is_a_list_of_account_values(ib):
    summary = await ib.accountSummaryAsync()
    assert summary
    assert all(isinstance(value, ibi.AccountValue) for value in summary)


async def test_a_currency_pair_trades_like_a_stock(ib):
    (pair,) = await ib.qualifyContractsAsync(ibi.Forex("EURUSD"))
    assert pair.localSymbol == "EUR.USD"
    trade = ib.placeOrder(pair, ibi.MarketOrder("BUY", 1000, tif="DAY"))
    await trade.filledEvent
    assert trade.orderStatus.avgFillPrice == pytest.approx(1.1, rel=0.2)
