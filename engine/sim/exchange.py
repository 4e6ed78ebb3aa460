"""The broker's truth in a simulation: the simulated exchange with what a real broker also does.

It rejects, lets a fill cross a cancel, corrects executions, and knows two clients. Its own books are what the
invariants are checked against.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.broker import news as n
from engine.broker.link import WireOrder
from engine.replay.exchange import HeldOrder, SimExchange

REJECTED = 201


class FaultyExchange(SimExchange):
    """``rejects``: so many of the next orders are rejected. ``cross_cancel``: the next cancel meets a fill."""

    rejects = 0
    clock_shift_ns = 0
    """So much is the time wrong that reqCurrentTime tells; executions have the broker's own."""
    cross_cancel = False
    _counted = _summed = 0
    corrected_unheard = False
    """An execution of the emergency connection was corrected: the bridge learns of it at its next reconciliation."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._fills: dict[str, n.ExecutionNews] = {}
        self._sums: dict[int, float] = {}

    def place(self, wire: WireOrder, t_ns: int, client: int = 0) -> list[n.News]:
        known = self.find(wire.order_id, client)
        if known is not None and not known.working:
            return [n.ErrorNews(wire.order_id, 103, "Duplicate order id")]
        if self.rejects > 0 and known is None:
            self.rejects -= 1
            order = self._enter(wire, client)
            order.status = "Inactive"
            error = n.ErrorNews(wire.order_id, REJECTED, "Order rejected - reason: simulated")
            return [self._open(order), self._status(order), error]
        return super().place(wire, t_ns, client)

    def cancel(self, order_id: int, t_ns: int, client: int = 0) -> list[n.News]:
        order = self.find(order_id, client)
        if self.cross_cancel and order is not None and order.working:
            self.cross_cancel = False
            self.force(order, t_ns)
        return super().cancel(order_id, t_ns, client)

    def force(self, order: HeldOrder, t_ns: int) -> bool:
        """Let a working limit order trade now, by making it willing to pay what the other side asks."""
        bids, asks = self.market.snapshot(order.wire.symbol)
        rows = asks if order.wire.side > 0 else bids
        if not order.working or not len(rows):
            return False
        self._touched = True
        return self.market.replace(order.perm_id, order.wire.qty, float(rows[-1, 0]), t_ns)

    def next_id(self, client: int) -> int:
        """One above the highest order id that a client has used."""
        return 1 + max((order_id for c, order_id in self._perm_of if c == client), default=0)

    def correct_last(self, change: float) -> n.ExecutionNews | None:
        """The last execution had another price: a new revision of the same id, as the broker sends it."""
        if not self._executions:
            return None
        last = self._executions[-1]
        base, _, revision = last.exec_id.rpartition(".")
        price = round(last.price * (1.0 + change / 100.0), 2)
        self.account.cash -= last.side * last.qty * (price - last.price)
        corrected = replace(last, exec_id=f"{base}.{int(revision) + 1:02d}", price=price)
        self._executions.append(corrected)
        self.corrected_unheard |= last.client_id != self._client_id
        return corrected

    def time(self, t_ns: int) -> list[n.News]:
        return [n.TimeNews((self._wall(t_ns) + self.clock_shift_ns) // 1_000_000_000, 0)]

    def fills(self) -> dict[str, n.ExecutionNews]:
        """By the id without its revision: the newest revision of every execution. Not to be changed."""
        found = self._fills
        for e in self._executions[self._counted :]:
            found[e.exec_id.rpartition(".")[0]] = e
        self._counted = len(self._executions)
        return found

    def sums(self) -> dict[int, float]:
        """Signed sum of all fills by symbol number."""
        if self._summed != len(self._executions):
            self._summed = len(self._executions)
            by_text = {i.symbol: i.index for i in self.traded}
            self._sums.clear()
            for e in self.fills().values():
                symbol = by_text[e.symbol]
                self._sums[symbol] = self._sums.get(symbol, 0.0) + e.side * e.qty
        return self._sums
