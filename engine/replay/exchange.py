"""A broker in memory: a market that fills orders, one margin account, and the news that the broker would tell of them.

It knows no latency: every method is called at the exchange's time and returns what is told, in the order
in which a gateway tells it. Positions, cash and commissions are those of the embedded gateway (``engine.paper``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt

from engine.broker import news as n
from engine.broker.link import WireOrder
from engine.domain.instruments import Instrument
from engine.paper.account import INITIAL_MARGIN, Account, commission_total
from engine.paper.catalog import NEW_YORK, TIME_ZONE, trading_day
from engine.paper.port import MARKET_EVENT, MarketEventKind, MarketSource
from engine.paper.watch import session_hours

_NS = 1_000_000_000
_IOC_REST = 2
Events = npt.NDArray[np.void]


@dataclass(slots=True)
class HeldOrder:
    """An order as the broker holds it. ``limit`` NaN for market orders."""

    perm_id: int
    wire: WireOrder
    status: str = "PreSubmitted"
    filled: float = 0.0
    value: float = 0.0
    client: int = 0

    @property
    def working(self) -> bool:
        return self.status in ("PreSubmitted", "Submitted", "PendingCancel")

    @property
    def average(self) -> float:
        return self.value / self.filled if self.filled else 0.0


class SimExchange:
    """``wall`` turns the exchange's time into wall time, ns. ``instruments`` are those of the instance."""

    def __init__(
        self,
        market: MarketSource,
        instruments: tuple[Instrument, ...],
        account_id: str,
        equity_usd: float,
        client_id: int,
        wall: Callable[[int], int],
        now_ns: int,
    ) -> None:
        self.market = market
        self.account_id = account_id
        traded = {i.index: i for i in market.instruments}  # the index is shown there, not traded
        self.instruments = tuple(traded.get(i.index, i) for i in instruments)
        self.traded = tuple(i for i in self.instruments if i.index in traded)
        self._client_id = client_id
        self._wall = wall
        self.account = Account.opened(equity_usd, trading_day(wall(now_ns) / 1e9))
        self._orders: dict[int, HeldOrder] = {}
        self._alive: dict[int, HeldOrder] = {}
        """Those that worked when last asked: an order that has ended never works again."""
        self._perm_of: dict[tuple[int, int], int] = {}
        self._executions: list[n.ExecutionNews] = []
        self._out: Events = np.zeros(8192, MARKET_EVENT)
        self._now_ns = now_ns - 1  # what happens at ``now_ns`` itself has not been played
        self._touched = True
        """A request has changed the market since it was last asked what happened."""
        self.next_order_id = 1

    def find(self, order_id: int, client: int = 0) -> HeldOrder | None:
        """An order by the id that its client gave it; client 0 is the one of the exchange's constructor."""
        return self._orders.get(self._perm_of.get((client or self._client_id, order_id), 0))

    def order(self, perm_id: int) -> HeldOrder:
        return self._orders[perm_id]

    # Time.

    def advance(self, now_ns: int) -> Iterator[Events]:
        """Run the market to ``now_ns``; yields what happened in time order (MARKET_EVENT, owned by the caller)."""
        if now_ns > self._now_ns:
            self._now_ns = now_ns
            self.market.advance(now_ns)
        elif not self._touched:
            return
        self._touched = False
        while count := self.market.poll(self._out):
            yield self._out[:count].copy()

    def marks(self) -> dict[int, float]:
        """Mid of every symbol that has both sides, else the side that is left."""
        found = {}
        for i in self.traded:
            bids, asks = self.market.snapshot(i.index)
            best = [float(rows[0, 0]) for rows in (bids, asks) if len(rows)]
            found[i.index] = sum(best) / len(best) if best else i.start_price
        return found

    # What the market reports.

    def own(self, event: np.void, t_ns: int) -> list[n.News]:
        """News of an event that concerns one of our orders."""
        order = self._orders[int(event["order_key"])]
        if event["kind"] == MarketEventKind.OWN_FILL:
            return self._filled(order, float(event["size"]), float(event["price"]), t_ns)
        if not order.working:
            return []
        order.status = "Cancelled"
        words = "Immediate-or-cancel remainder" if event["flag"] == _IOC_REST else ""
        error = n.ErrorNews(order.wire.order_id, 202, f"Order Canceled - reason:{words}")
        return [self._open(order), self._status(order), error]

    def _filled(self, order: HeldOrder, qty: float, price: float, t_ns: int) -> list[n.News]:
        w = order.wire
        before = commission_total(order.filled, order.value)
        order.filled += qty
        order.value += qty * price
        commission = max(0.0, commission_total(order.filled, order.value) - before)
        result = self.account.fill(w.symbol, w.side * qty, price, commission)
        if order.filled >= w.qty - 1e-9:
            order.status = "Filled"
        elif order.status == "PreSubmitted":
            order.status = "Submitted"
        instrument = self.instruments[w.symbol]
        exec_id = f"0000e0d5.{len(self._executions) + 1:08x}.01.01"
        execution = n.ExecutionNews(
            -1, exec_id, w.order_id, order.client, order.perm_id, instrument.con_id, instrument.symbol,
            self.account_id, w.side, qty, price, order.filled, order.average, self._wall(t_ns) // _NS * _NS,
            w.order_ref, 0,
        )  # fmt: skip
        self._executions.append(execution)
        realized = result.realized if result.closed else math.nan
        report = n.CommissionNews(exec_id, commission, "USD", realized)
        told: list[n.News] = [execution, self._open(order), self._status(order), report, self._position(w.symbol)]
        return told + self.account_values()

    # Requests.

    def place(self, wire: WireOrder, t_ns: int, client: int = 0) -> list[n.News]:
        """A new order, or a change of a working one."""
        known = self.find(wire.order_id, client)
        if known is not None:
            return self._change(known, wire, t_ns)
        order = self._enter(wire, client)
        self.next_order_id = max(self.next_order_id, wire.order_id + 1)
        told: list[n.News] = [self._open(order), self._status(order)]
        self._touched = True
        self.market.submit(
            order.perm_id, wire.symbol, wire.side, wire.qty, wire.limit_price, wire.tif == "IOC", t_ns
        )  # fmt: skip
        return told

    def _enter(self, wire: WireOrder, client: int) -> HeldOrder:
        order = HeldOrder(1_000_001 + len(self._orders), wire, client=client or self._client_id)
        self._orders[order.perm_id] = self._alive[order.perm_id] = order
        self._perm_of[order.client, wire.order_id] = order.perm_id
        return order

    def settle(self, order_id: int, client: int = 0) -> list[n.News]:
        """After the market has answered a new order: what rests is Submitted."""
        order = self.find(order_id, client)
        if order is None or order.status != "PreSubmitted":
            return []
        order.status = "Submitted"
        return [self._open(order), self._status(order)]

    def _change(self, order: HeldOrder, wire: WireOrder, t_ns: int) -> list[n.News]:
        self._touched = True
        if not order.working or not self.market.replace(order.perm_id, wire.qty, wire.limit_price, t_ns):
            return [n.ErrorNews(wire.order_id, 104, "Cannot modify a filled order.")]
        order.wire = wire
        return [self._open(order), self._status(order)]

    def cancel(self, order_id: int, t_ns: int, client: int = 0) -> list[n.News]:
        """Begin a cancel: the market's answer follows as an event."""
        order = self.find(order_id, client)
        if order is None:
            return [n.ErrorNews(order_id, 10147, f"OrderId {order_id} that needs to be cancelled is not found.")]
        self._touched = True
        if not order.working or not self.market.cancel(order.perm_id, t_ns):
            text = f"OrderId {order_id} that needs to be cancelled cannot be cancelled, state: {order.status}."
            return [n.ErrorNews(order_id, 10148, text)]
        order.status = "PendingCancel"
        return [self._status(order)]

    def held(self, symbol: int) -> float:
        """Position of a symbol by the broker's books."""
        position = self.account.positions.get(symbol)
        return position.quantity if position is not None else 0.0

    def working(self) -> list[HeldOrder]:
        for ended in [o.perm_id for o in self._alive.values() if not o.working]:
            del self._alive[ended]
        return list(self._alive.values())

    def open_orders(self) -> list[n.News]:
        return [*(self._open(o) for o in self.working()), n.OpenOrdersEnd()]

    def executions(self, req_id: int) -> list[n.News]:
        return [*(replace(e, req_id=req_id) for e in self._executions), n.ExecutionsEnd(req_id)]

    def positions(self) -> list[n.News]:
        held = [self._position(s) for s, p in self.account.positions.items() if p.quantity]
        return [*held, n.PositionsEnd()]

    def account_values(self) -> list[n.News]:
        margins = self.account.margins(self.marks())
        values = (
            ("NetLiquidation", margins.equity),
            ("TotalCashValue", self.account.cash),
            ("BuyingPower", max(0.0, margins.available) / INITIAL_MARGIN),
        )
        return [n.AccountValueNews(key, f"{value:.2f}", "USD", self.account_id) for key, value in values]

    def time(self, t_ns: int) -> list[n.News]:
        return [n.TimeNews(self._wall(t_ns) // _NS, 0)]

    def details(self, symbol: int, t_ns: int) -> list[n.News]:
        """Contract details, with the hours of a market that is open as long as its file lasts."""
        i = self.instruments[symbol]
        hours = session_hours(datetime.fromtimestamp(self._wall(t_ns) / 1e9, NEW_YORK).date(), "24/7")
        found = n.ContractNews(
            symbol, i.con_id, i.exchange, i.primary_exchange, i.tick_size, TIME_ZONE, hours, hours, (), i.long_name
        )
        return [found, n.ContractEnd(symbol)]

    # Words.

    def _open(self, o: HeldOrder) -> n.OpenOrderNews:
        w, i = o.wire, self.instruments[o.wire.symbol]
        return n.OpenOrderNews(
            w.order_id, o.client, o.perm_id, i.con_id, i.symbol, self.account_id, w.side, w.qty, w.order_type,
            w.limit_price, w.tif, w.order_ref, o.status,
        )  # fmt: skip

    def _status(self, o: HeldOrder) -> n.OrderStatusNews:
        left = o.wire.qty - o.filled
        return n.OrderStatusNews(o.wire.order_id, o.client, o.perm_id, o.status, o.filled, left, o.average)

    def _position(self, symbol: int) -> n.PositionNews:
        i, held = self.instruments[symbol], self.account.positions[symbol]
        return n.PositionNews(self.account_id, i.con_id, i.symbol, i.sec_type, held.quantity, held.average_cost)
