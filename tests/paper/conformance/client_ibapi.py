"""The official client, 9.81 and every 10.x: the same callbacks with signatures that have grown."""

from __future__ import annotations

import inspect
import threading
import time
from typing import Any

from ibapi.client import EClient
from ibapi.contract import Contract
from ibapi.execution import ExecutionFilter
from ibapi.order import Order
from ibapi.wrapper import EWrapper

try:
    from ibapi.order_cancel import OrderCancel
except ImportError:  # before 10.30
    OrderCancel = None


class IbapiClient(EWrapper, EClient):
    """The reader thread of the library calls back; the session looks from the main thread."""

    def __init__(self, port: int, client_id: int) -> None:
        EWrapper.__init__(self)
        EClient.__init__(self, self)
        self.own_id = client_id
        self.errors: list[tuple[int, int]] = []
        self._next = 0
        self._account = ""
        self._details: dict[int, list[dict[str, Any]]] = {}
        self._ended: set[tuple[str, int]] = set()
        self._rules: dict[int, list[tuple[float, float]]] = {}
        self._summary: dict[str, str] = {}
        self._rows: dict[int, list[tuple[int, int, int, float, float]]] = {}
        self._quotes: dict[int, dict[int, float]] = {}
        self._ticks: dict[int, int] = {}
        self._bars: dict[int, list[tuple[float, float, float, float]]] = {}
        self._what_if: dict[int, tuple[float, float]] = {}
        self._status: dict[int, tuple[str, float, float, int]] = {}
        self._perms: dict[int, tuple[int, str]] = {}
        self._executions: dict[int, dict[str, float]] = {}
        self._commissions: dict[str, float] = {}
        self._daily: dict[int, float] = {}
        self._open: set[int] = set()
        self._open_done = False
        self._completed: list[tuple[int, str]] = []
        self._completed_done = False
        self.connect("127.0.0.1", port, client_id)
        self._thread = threading.Thread(target=self.run, daemon=True)
        self._thread.start()

    # What the session asks.

    def connected(self) -> bool:
        return bool(self._next and self._account)

    def close(self) -> None:
        self.disconnect()
        self._thread.join(10)

    def pump(self) -> None:
        time.sleep(0.01)

    def new_id(self) -> int:
        self._next += 1
        return self._next - 1

    def contract(self, contract: tuple[str, str, str, str]) -> Contract:
        found = Contract()
        found.symbol, found.secType, found.exchange, found.currency = contract
        return found

    def req_details(self, req_id: int, contract: Any) -> None:
        self.reqContractDetails(req_id, self.contract(contract))

    def details(self, req_id: int) -> list[dict[str, Any]]:
        return self._details.get(req_id, []) if ("details", req_id) in self._ended else []

    def req_rule(self, rule: int) -> None:
        self.reqMarketRule(rule)

    def rule(self, rule: int) -> list[tuple[float, float]]:
        return self._rules.get(rule, [])

    def req_summary(self) -> None:
        self.reqAccountSummary(9001, "All", "NetLiquidation,BuyingPower")

    def summary(self) -> dict[str, str]:
        return self._summary if ("summary", 9001) in self._ended else {}

    def req_depth(self, req_id: int, contract: Any, rows: int) -> None:
        self.reqMktDepth(req_id, self.contract(contract), rows, True, [])

    def cancel_depth(self, req_id: int) -> None:
        self.cancelMktDepth(req_id, True)

    def depth(self, req_id: int) -> list[tuple[int, int, int, float, float]]:
        return list(self._rows.get(req_id, []))

    def req_quotes(self, req_id: int, contract: Any) -> None:
        self.reqMktData(req_id, self.contract(contract), "", False, False, [])

    def cancel_quotes(self, req_id: int) -> None:
        self.cancelMktData(req_id)

    def quotes(self, req_id: int) -> dict[int, float]:
        return dict(self._quotes.get(req_id, {}))

    def req_ticks(self, req_id: int, contract: Any, kind: str) -> None:
        self.reqTickByTickData(req_id, self.contract(contract), kind, 0, False)

    def cancel_ticks(self, req_id: int) -> None:
        self.cancelTickByTickData(req_id)

    def ticks(self, req_id: int) -> int:
        return self._ticks.get(req_id, 0)

    def req_bars(self, req_id: int, contract: Any, what: str) -> None:
        self.reqHistoricalData(req_id, self.contract(contract), "", "1800 S", "1 min", what, 0, 1, False, [])

    def bars(self, req_id: int) -> list[tuple[float, float, float, float]]:
        return self._bars.get(req_id, []) if ("bars", req_id) in self._ended else []

    def req_past_ticks(self, req_id: int, contract: Any, what: str) -> None:
        self.reqHistoricalTicks(req_id, self.contract(contract), "20200101 00:00:00", "", 100, what, 0, False, [])

    def past_ticks(self, req_id: int) -> int:
        return self._ticks.get(req_id, 0)

    def _order(self, action: str, quantity: float, kind: str, limit: float) -> Order:
        order = Order()
        order.action, order.totalQuantity, order.orderType, order.tif = action, quantity, kind, "DAY"
        if kind == "LMT":
            order.lmtPrice = limit
        return order

    def what_if(self, order_id: int, contract: Any, action: str, quantity: float, limit: float) -> None:
        order = self._order(action, quantity, "LMT", limit)
        order.whatIf = True
        self.placeOrder(order_id, self.contract(contract), order)

    def what_if_result(self, order_id: int) -> tuple[float, float] | None:
        return self._what_if.get(order_id)

    def place(self, order_id: int, contract: Any, action: str, quantity: float, kind: str, limit: float) -> None:
        self.placeOrder(order_id, self.contract(contract), self._order(action, quantity, kind, limit))

    def cancel(self, order_id: int) -> None:
        parameters = inspect.signature(self.cancelOrder).parameters
        if len(parameters) == 1:
            self.cancelOrder(order_id)
        elif "manualCancelOrderTime" in parameters:
            self.cancelOrder(order_id, "")
        else:
            self.cancelOrder(order_id, OrderCancel())

    def global_cancel(self) -> None:
        if inspect.signature(self.reqGlobalCancel).parameters:
            self.reqGlobalCancel(OrderCancel())
        else:
            self.reqGlobalCancel()

    def status(self, order_id: int) -> tuple[str, float, float, int]:
        return self._status.get(order_id, ("", 0.0, 0.0, 0))

    def order_of_perm(self, perm_id: int) -> tuple[int, str] | None:
        return self._perms.get(perm_id)

    def executions(self, order_id: int) -> list[tuple[str, float, float]]:
        found = dict(self._executions.get(order_id, {}))
        return [(e, shares, self._commissions[e]) for e, shares in found.items() if e in self._commissions]

    def req_executions(self, req_id: int) -> None:
        self.reqExecutions(req_id, ExecutionFilter())

    def executions_end(self, req_id: int) -> bool:
        return ("executions", req_id) in self._ended

    def req_pnl(self, req_id: int) -> None:
        self.reqPnL(req_id, self._account, "")

    def req_open(self, everyone: bool) -> None:
        self._open, self._open_done = set(), False
        if everyone:
            self.reqAllOpenOrders()
        else:
            self.reqOpenOrders()

    def req_completed(self) -> None:
        self._completed, self._completed_done = [], False
        self.reqCompletedOrders(False)

    def completed(self) -> list[tuple[int, str]] | None:
        return self._completed if self._completed_done else None

    def auto_bind(self) -> None:
        self.reqAutoOpenOrders(True)

    def open_ids(self) -> set[int] | None:
        return self._open if self._open_done else None

    # What the library calls.

    def error(self, reqId: int, *rest: Any) -> None:
        """(code, text[, json]) up to 10.19, (time, code, text, json) from 10.30 on."""
        code = rest[0] if isinstance(rest[1], str) else rest[1]
        self.errors.append((int(reqId), int(code)))

    def nextValidId(self, orderId: int) -> None:
        self._next = max(self._next, orderId)

    def managedAccounts(self, accountsList: str) -> None:
        self._account = accountsList

    def contractDetails(self, reqId: int, contractDetails: Any) -> None:
        row = {
            "con_id": contractDetails.contract.conId,
            "min_tick": contractDetails.minTick,
            "rules": contractDetails.marketRuleIds,
        }
        self._details.setdefault(reqId, []).append(row)

    def contractDetailsEnd(self, reqId: int) -> None:
        self._ended.add(("details", reqId))

    def marketRule(self, marketRuleId: int, priceIncrements: Any) -> None:
        self._rules[marketRuleId] = [(step.lowEdge, step.increment) for step in priceIncrements]

    def accountSummary(self, reqId: int, account: str, tag: str, value: str, currency: str) -> None:
        self._summary[tag] = value

    def accountSummaryEnd(self, reqId: int) -> None:
        self._ended.add(("summary", reqId))

    def updateMktDepthL2(
        self,
        reqId: int,
        position: int,
        marketMaker: str,
        operation: int,
        side: int,
        price: float,
        size: Any,
        *rest: Any,
    ) -> None:
        self._rows.setdefault(reqId, []).append((side, operation, position, price, float(size)))

    def tickPrice(self, reqId: int, tickType: int, price: float, attrib: Any) -> None:
        self._quotes.setdefault(reqId, {})[int(tickType)] = price

    def _tick(self, reqId: int, count: int = 1) -> None:
        self._ticks[reqId] = self._ticks.get(reqId, 0) + count

    def tickByTickAllLast(self, reqId: int, *rest: Any) -> None:
        self._tick(reqId)

    def tickByTickBidAsk(self, reqId: int, *rest: Any) -> None:
        self._tick(reqId)

    def tickByTickMidPoint(self, reqId: int, *rest: Any) -> None:
        self._tick(reqId)

    def historicalData(self, reqId: int, bar: Any) -> None:
        self._bars.setdefault(reqId, []).append((bar.open, bar.high, bar.low, bar.close))

    def historicalDataEnd(self, reqId: int, start: str, end: str) -> None:
        self._ended.add(("bars", reqId))

    def historicalTicks(self, reqId: int, ticks: Any, done: bool) -> None:
        self._tick(reqId, len(ticks))

    def historicalTicksBidAsk(self, reqId: int, ticks: Any, done: bool) -> None:
        self._tick(reqId, len(ticks))

    def historicalTicksLast(self, reqId: int, ticks: Any, done: bool) -> None:
        self._tick(reqId, len(ticks))

    def openOrder(self, orderId: int, contract: Any, order: Any, orderState: Any) -> None:
        if order.whatIf:
            commission = getattr(orderState, "commission", None)
            if commission is None:
                commission = orderState.commissionAndFees
            self._what_if[orderId] = (float(orderState.initMarginAfter), float(commission))
            return
        self._open.add(order.permId)
        if order.permId not in self._perms:
            self._perms[order.permId] = (orderId, orderState.status)

    def openOrderEnd(self) -> None:
        self._open_done = True

    def completedOrder(self, contract: Any, order: Any, orderState: Any) -> None:
        self._completed.append((order.permId, orderState.status))

    def completedOrdersEnd(self) -> None:
        self._completed_done = True

    def orderStatus(
        self, orderId: int, status: str, filled: Any, remaining: Any, avgFillPrice: float, permId: int, parentId: int,
        lastFillPrice: float, clientId: int, *rest: Any,
    ) -> None:  # fmt: skip
        self._perms[permId] = (orderId, status)
        if clientId == self.own_id:
            self._status[orderId] = (status, float(filled), float(remaining), permId)

    def execDetails(self, reqId: int, contract: Any, execution: Any) -> None:
        self._executions.setdefault(execution.orderId, {})[execution.execId] = float(execution.shares)

    def execDetailsEnd(self, reqId: int) -> None:
        self._ended.add(("executions", reqId))

    def commissionReport(self, commissionReport: Any) -> None:
        self._commissions[commissionReport.execId] = commissionReport.commission

    def commissionAndFeesReport(self, commissionAndFeesReport: Any) -> None:
        self._commissions[commissionAndFeesReport.execId] = commissionAndFeesReport.commissionAndFees

    def pnl(self, reqId: int, dailyPnL: float | None = None, *rest: Any) -> float | None:  # type: ignore[override]
        """Both a callback of the library and a question of the session."""
        if dailyPnL is not None:
            self._daily[reqId] = dailyPnL
        return self._daily.get(reqId)


def connect(family: str, port: int, client_id: int) -> IbapiClient:
    return IbapiClient(port, client_id)
