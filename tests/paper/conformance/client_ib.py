"""ib_insync and ib_async, which share their interface, as clients of the session.

Orders, contracts, tickers, bars, P&L and what-if go through ``IB``; requests whose ids the session chooses go through
its ``client``, as programs do that want an error instead of an exception.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from typing import Any


class IbClient:
    def __init__(self, library: Any, port: int, client_id: int) -> None:
        self.library = library
        self.ib = library.IB()
        self.errors: list[tuple[int, int]] = []
        self.ib.errorEvent += lambda req_id, code, *rest: self.errors.append((req_id, code))
        self._details: dict[int, Any] = {}
        self._con_ids: dict[str, int] = {}
        self._rules: dict[int, Any] = {}
        self._rows: dict[int, list[tuple[int, int, int, float, float]]] = {}
        self._tickers: dict[int, Any] = {}
        self._contracts: dict[int, Any] = {}
        self._ticks: dict[int, Any] = {}
        self._bars: dict[int, Any] = {}
        self._past: dict[int, Any] = {}
        self._what_if: dict[int, Any] = {}
        self._trades: dict[int, Any] = {}
        self._ended: set[int] = set()
        self._pnl: dict[int, Any] = {}
        self._open: Any = None
        self._completed: Any = None
        self._watch_depth()
        # A refusal shows itself as error 326, which the session looks for.
        with contextlib.suppress(OSError, TimeoutError):
            self.ib.connect("127.0.0.1", port, clientId=client_id, timeout=10)

    def _watch_depth(self) -> None:
        """Raw rows, in front of the library's own book."""
        wrapper = self.ib.wrapper
        original = wrapper.updateMktDepthL2

        def rows(
            req_id: int, row: int, maker: str, operation: int, side: int, price: float, size: float, *smart: Any
        ) -> None:
            self._rows.setdefault(req_id, []).append((side, operation, row, price, size))
            original(req_id, row, maker, operation, side, price, size, *smart)

        wrapper.updateMktDepthL2 = rows

    def connected(self) -> bool:
        return bool(self.ib.isConnected() and self.ib.client.isReady())

    def close(self) -> None:
        self.ib.disconnect()

    def pump(self) -> None:
        self.ib.sleep(0.01)

    def new_id(self) -> int:
        return int(self.ib.client.getReqId())

    def contract(self, contract: tuple[str, str, str, str]) -> Any:
        symbol, kind, exchange, currency = contract
        # ib_async keys its tickers by contract id: programs qualify their contracts first, and so does the session.
        con_id = self._con_ids.get(symbol, 0) if kind == "STK" else 0
        known = {"conId": con_id} if con_id else {}
        return self.library.Contract(symbol=symbol, secType=kind, exchange=exchange, currency=currency, **known)

    def _ask(self, coroutine: Any) -> Any:
        return asyncio.ensure_future(coroutine)

    def _done(self, future: Any) -> Any:
        return future.result() if future is not None and future.done() else None

    def req_details(self, req_id: int, contract: Any) -> None:
        if contract[0] == "NOSUCH" or contract[1] == "XXX":
            self.ib.client.reqContractDetails(req_id, self.contract(contract))
            return
        self._details[req_id] = self._ask(self.ib.reqContractDetailsAsync(self.contract(contract)))

    def details(self, req_id: int) -> list[dict[str, Any]]:
        rows = self._done(self._details.get(req_id)) or []
        self._con_ids.update({d.contract.symbol: d.contract.conId for d in rows})
        return [{"con_id": d.contract.conId, "min_tick": d.minTick, "rules": d.marketRuleIds} for d in rows]

    def req_rule(self, rule: int) -> None:
        self._rules[rule] = self._ask(self.ib.reqMarketRuleAsync(rule))

    def rule(self, rule: int) -> list[tuple[float, float]]:
        return [(step.lowEdge, step.increment) for step in self._done(self._rules.get(rule)) or []]

    def req_summary(self) -> None:
        self._summary = self._ask(self.ib.accountSummaryAsync())

    def summary(self) -> dict[str, str]:
        return {value.tag: value.value for value in self._done(self._summary) or []}

    def req_depth(self, req_id: int, contract: Any, rows: int) -> None:
        known = self.contract(contract)
        if req_id not in self._rows:
            self._rows[req_id] = []
            self.ib.wrapper.startTicker(req_id, known, "mktDepth")
        self.ib.client.reqMktDepth(req_id, known, rows, True, [])

    def cancel_depth(self, req_id: int) -> None:
        self.ib.client.cancelMktDepth(req_id, True)

    def depth(self, req_id: int) -> list[tuple[int, int, int, float, float]]:
        return self._rows.get(req_id, [])

    def req_quotes(self, req_id: int, contract: Any) -> None:
        known = self.contract(contract)
        self._tickers[req_id] = self.ib.wrapper.startTicker(req_id, known, "mktData")
        self.ib.client.reqMktData(req_id, known, "", False, False, [])

    def cancel_quotes(self, req_id: int) -> None:
        self.ib.client.cancelMktData(req_id)

    def quotes(self, req_id: int) -> dict[int, float]:
        ticker = self._tickers[req_id]
        return {kind: value for kind, value in ((1, ticker.bid), (2, ticker.ask)) if value == value and value > 0}

    def req_ticks(self, req_id: int, contract: Any, kind: str) -> None:
        self._contracts[req_id] = (self.contract(contract), kind)
        counted = [0]
        self._ticks[req_id] = counted
        ticker = self.ib.reqTickByTickData(self._contracts[req_id][0], kind)

        def count(updated: Any) -> None:
            counted[0] += len(updated.tickByTicks)

        self._contracts[req_id] += (ticker, count)
        ticker.updateEvent += count

    def cancel_ticks(self, req_id: int) -> None:
        contract, kind, ticker, count = self._contracts[req_id]
        ticker.updateEvent -= count
        self.ib.cancelTickByTickData(contract, kind)

    def ticks(self, req_id: int) -> int:
        return int(self._ticks[req_id][0])

    def req_bars(self, req_id: int, contract: Any, what: str) -> None:
        known = self.contract(contract)
        self._bars[req_id] = self._ask(self.ib.reqHistoricalDataAsync(known, "", "1800 S", "1 min", what, False))

    def bars(self, req_id: int) -> list[tuple[float, float, float, float]]:
        return [(bar.open, bar.high, bar.low, bar.close) for bar in self._done(self._bars[req_id]) or []]

    def req_past_ticks(self, req_id: int, contract: Any, what: str) -> None:
        known = self.contract(contract)
        self._past[req_id] = self._ask(
            self.ib.reqHistoricalTicksAsync(known, "20200101 00:00:00", "", 100, what, False)
        )

    def past_ticks(self, req_id: int) -> int:
        return len(self._done(self._past[req_id]) or [])

    def _order(self, order_id: int, action: str, quantity: float, kind: str, limit: float) -> Any:
        order = self.library.Order(orderId=order_id, action=action, totalQuantity=quantity, orderType=kind, tif="DAY")
        if kind == "LMT":
            order.lmtPrice = limit
        return order

    def what_if(self, order_id: int, contract: Any, action: str, quantity: float, limit: float) -> None:
        order = self._order(order_id, action, quantity, "LMT", limit)
        self._what_if[order_id] = self._ask(self.ib.whatIfOrderAsync(self.contract(contract), order))

    def what_if_result(self, order_id: int) -> tuple[float, float] | None:
        state = self._done(self._what_if[order_id])
        return None if not state else (float(state.initMarginAfter), float(state.commission))

    def place(self, order_id: int, contract: Any, action: str, quantity: float, kind: str, limit: float) -> None:
        known = self._trades.get(order_id)
        if known is not None:
            known.order.totalQuantity, known.order.lmtPrice = quantity, limit
            self.ib.placeOrder(known.contract, known.order)
            return
        order = self._order(order_id, action, quantity, kind, limit)
        self._trades[order_id] = self.ib.placeOrder(self.contract(contract), order)

    def cancel(self, order_id: int) -> None:
        self.ib.client.cancelOrder(order_id, "")

    def global_cancel(self) -> None:
        self.ib.reqGlobalCancel()

    def status(self, order_id: int) -> tuple[str, float, float, int]:
        status = self._trades[order_id].orderStatus
        return status.status, status.filled, status.remaining, status.permId

    def order_of_perm(self, perm_id: int) -> tuple[int, str] | None:
        for trade in self.ib.trades():
            if perm_id in (trade.order.permId, trade.orderStatus.permId):
                return trade.order.orderId, trade.orderStatus.status
        return None

    def executions(self, order_id: int) -> list[tuple[str, float, float]]:
        fills = self._trades[order_id].fills
        return [
            (f.execution.execId, f.execution.shares, f.commissionReport.commission)
            for f in fills
            if f.commissionReport.execId
        ]

    def req_executions(self, req_id: int) -> None:
        future = self._ask(self.ib.reqExecutionsAsync())
        future.add_done_callback(lambda _: self._ended.add(req_id))

    def executions_end(self, req_id: int) -> bool:
        return req_id in self._ended

    def req_pnl(self, req_id: int) -> None:
        self._pnl[req_id] = self.ib.reqPnL("DUSIM001")

    def pnl(self, req_id: int) -> float | None:
        value = self._pnl[req_id].dailyPnL
        return value if value == value else None

    def req_open(self, everyone: bool) -> None:
        coroutine = self.ib.reqAllOpenOrdersAsync() if everyone else self.ib.reqOpenOrdersAsync()
        self._open = self._ask(coroutine)

    def req_completed(self) -> None:
        self._completed = self._ask(self.ib.reqCompletedOrdersAsync(False))

    def completed(self) -> list[tuple[int, str]] | None:
        answer = self._done(self._completed)
        return None if answer is None else [(trade.order.permId, trade.orderStatus.status) for trade in answer]

    def auto_bind(self) -> None:
        self.ib.reqAutoOpenOrders(True)

    def open_ids(self) -> set[int] | None:
        answer = self._done(self._open)
        return None if answer is None else {trade.order.permId for trade in answer}


def connect(family: str, port: int, client_id: int) -> IbClient:
    return IbClient(importlib.import_module(family), port, client_id)
