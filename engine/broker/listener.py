"""The object that the library's decoder calls: turns its arguments into news. It decides nothing and keeps nothing.

Method names and arguments are the library's. Messages without a method here are ignored, which is the library's own
rule for most of them; the rest are listed at the end.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from datetime import UTC
from types import SimpleNamespace
from typing import Any

from engine.broker import decode as d
from engine.broker import news as n
from engine.broker.ibapi_compat import UNSET_DOUBLE

_LINE_NAMES = {
    d.LINE_DEPTH: "depth",
    d.LINE_QUOTES: "quotes",
    d.LINE_INDEX: "quotes",
    d.LINE_PRINTS: "prints",
    d.LINE_DETAILS: "details",
}
TICK_HALTED, TICK_SHORTABLE = 49, 46


def _price(value: float) -> float:
    return math.nan if value == UNSET_DOUBLE or value == 0.0 else value


def _number(value: Any, name: str) -> float:
    found = float(value)
    if not math.isfinite(found):
        raise ValueError(f"{name} is {value}: a finite number is allowed")
    return found


class Listener:
    """``line_of`` maps a request id to (line, symbol). ``t_socket_ns`` is set by the link before each message."""

    def __init__(self, news: deque[n.News], line_of: Callable[[int], tuple[int, int]]) -> None:
        self._news = news
        self._line_of = line_of
        self.t_socket_ns = 0
        self.accounts: tuple[str, ...] = ()
        self.next_order_id = 0
        self.last_error = ""
        self.reset_depth: Callable[[int], None] = lambda symbol: None
        """Called for 317 at its place in the stream."""
        # The library asks its wrapper for these when a time comes without a zone.
        self.ib = SimpleNamespace(TimezoneTWS="America/New_York")
        self.defaultTimezone = UTC

    # Session.

    def connectAck(self) -> None:
        pass

    def nextValidId(self, orderId: int) -> None:
        self.next_order_id = orderId

    def managedAccounts(self, accounts: str) -> None:
        self.accounts = tuple(a for a in accounts.split(",") if a)

    def currentTime(self, epoch_s: int) -> None:
        self._news.append(n.TimeNews(epoch_s, self.t_socket_ns))

    def error(self, reqId: int, code: int, text: str, advanced: str = "") -> None:
        line, symbol = self._line_of(reqId)
        self.last_error = f"{code} {text}"
        if code == 317 and symbol >= 0:
            self.reset_depth(symbol)
        self._news.append(n.ErrorNews(reqId, code, text, symbol, _LINE_NAMES.get(line, "")))

    # Orders and executions.

    def orderStatus(
        self, orderId: int, status: str, filled: float, remaining: float, avgFillPrice: float, permId: int,
        parentId: int, lastFillPrice: float, clientId: int, whyHeld: str, mktCapPrice: float = 0.0,
    ) -> None:  # fmt: skip
        self._news.append(
            n.OrderStatusNews(
                orderId, clientId, permId, status, _number(filled, "filled"), remaining, avgFillPrice, whyHeld
            )
        )

    def openOrder(self, orderId: int, contract: Any, order: Any, state: Any) -> None:
        if order.whatIf:
            return
        side = 1 if order.action == "BUY" else -1
        limit = _price(float(order.lmtPrice or 0.0)) if order.orderType == "LMT" else math.nan
        self._news.append(
            n.OpenOrderNews(
                orderId, order.clientId, order.permId, contract.conId, contract.symbol, order.account, side,
                _number(order.totalQuantity, "totalQuantity"), order.orderType, limit, order.tif, order.orderRef,
                state.status,
            )
        )  # fmt: skip

    def openOrderEnd(self) -> None:
        self._news.append(n.OpenOrdersEnd())

    def execDetails(self, reqId: int, contract: Any, e: Any) -> None:
        self._news.append(
            n.ExecutionNews(
                reqId, e.execId, e.orderId, e.clientId, e.permId, contract.conId, contract.symbol, e.acctNumber,
                1 if e.side in ("BOT", "BUY") else -1, _number(e.shares, "shares"), _number(e.price, "price"),
                float(e.cumQty), float(e.avgPrice), int(e.time.timestamp()) * 1_000_000_000, e.orderRef,
                self.t_socket_ns,
            )
        )  # fmt: skip

    def execDetailsEnd(self, reqId: int) -> None:
        self._news.append(n.ExecutionsEnd(reqId))

    def commissionReport(self, report: Any) -> None:
        realized = float(report.realizedPNL)
        self._news.append(
            n.CommissionNews(
                report.execId, float(report.commission), report.currency, math.nan if realized >= 1e300 else realized
            )
        )

    # Account.

    def position(self, account: str, contract: Any, position: float, avgCost: float) -> None:
        self._news.append(
            n.PositionNews(
                account,
                contract.conId,
                contract.symbol,
                contract.secType,
                _number(position, "position"),
                float(avgCost),
            )
        )

    def positionEnd(self) -> None:
        self._news.append(n.PositionsEnd())

    def updateAccountValue(self, key: str, value: str, currency: str, account: str) -> None:
        self._news.append(n.AccountValueNews(key, value, currency, account))

    def accountDownloadEnd(self, account: str) -> None:
        self._news.append(n.AccountEnd(account))

    # Contracts and slow market data.

    def contractDetails(self, reqId: int, details: Any) -> None:
        c = details.contract
        exchanges = details.validExchanges.split(",") if details.validExchanges else []
        rules = details.marketRuleIds.split(",") if details.marketRuleIds else []
        _, symbol = self._line_of(reqId)
        self._news.append(
            n.ContractNews(
                symbol, c.conId, c.exchange, c.primaryExchange, float(details.minTick), details.timeZoneId,
                details.tradingHours, details.liquidHours,
                tuple((e, int(r)) for e, r in zip(exchanges, rules, strict=False) if r), details.longName,
            )
        )  # fmt: skip

    def contractDetailsEnd(self, reqId: int) -> None:
        self._news.append(n.ContractEnd(self._line_of(reqId)[1]))

    def marketRule(self, ruleId: int, increments: list[Any]) -> None:
        steps = tuple((float(i.lowEdge), float(i.increment)) for i in increments)
        self._news.append(n.MarketRuleNews(ruleId, steps))

    def marketDataType(self, reqId: int, kind: int) -> None:
        self._news.append(n.DataTypeNews(self._line_of(reqId)[1], kind))

    def tickGeneric(self, reqId: int, tickType: int, value: float) -> None:
        _, symbol = self._line_of(reqId)
        if symbol < 0:
            return
        if tickType == TICK_HALTED:
            self._news.append(n.HaltNews(symbol, value > 0.0))
        elif tickType == TICK_SHORTABLE:
            self._news.append(n.ShortableNews(symbol, value))

    # The library calls these without looking whether they exist.

    def updatePortfolio(self, *_: Any) -> None:
        pass

    def setEventsDone(self) -> None:
        pass

    def connectionClosed(self) -> None:
        pass

    def completedOrder(self, *_: Any) -> None:
        pass

    def positionMulti(self, *_: Any) -> None:
        pass

    def mktDepthExchanges(self, *_: Any) -> None:
        pass

    def smartComponents(self, *_: Any) -> None:
        pass

    def tickOptionComputation(self, *_: Any) -> None:
        pass
