"""A small exchange behind a bridge, for the flatten machine: partial fills, rejects, delays, crossing cancels."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from engine.domain.codes import Side
from engine.risk.flatten import Action, Alert, CancelAll, Close, Done, RequestSnapshot, View


@dataclass(slots=True)
class Order:
    symbol: int
    signed: float
    remaining: float
    cancel_pending: bool = False
    undecided: int = 1  # ticks until the bridge has seen it
    closes: bool = True  # else an entry from before: what that does is not the flatten's doing


@dataclass(slots=True)
class Exchange:
    """Positions and orders; ``tick`` moves it on by one millisecond."""

    seed: int
    qty: list[float]
    reject_share: float = 0.0
    rejects_until_ns: int = 1 << 62
    fill_share: float = 0.5
    halted: int = 0
    hangs: int = 0
    """Mask of symbols whose orders neither fill nor go."""
    orders: list[Order] = field(default_factory=list)
    events: int = 0
    snapshot: tuple[int, int, int, int, int, int] = (0, 0, 0, 0, 0, 0)  # id, begin, end, events, orders, positions
    asked: list[int] = field(default_factory=list)
    rejected: int = 0
    over_closed: list[str] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    done: bool = False
    closes: int = 0
    _random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def carry_out(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            if isinstance(action, CancelAll):
                for order in self.orders:
                    order.cancel_pending = True
            elif isinstance(action, Close):
                self.closes += 1
                signed = action.qty * int(action.side)
                before = self.qty[action.symbol]
                working = sum(o.remaining for o in self.orders if o.symbol == action.symbol and o.signed * before < 0)
                if before == 0 or signed * before > 0 or action.qty > abs(before) + 1e-9:
                    self.over_closed.append(f"{action} at position {before}, {working} working")
                self.orders.append(Order(action.symbol, signed, action.qty))
            elif isinstance(action, RequestSnapshot):
                self.asked.append(self._random.randint(1, 20))
            elif isinstance(action, Alert):
                self.alerts.append(action)
            elif isinstance(action, Done):
                self.done = True
                if self.orders:
                    self.over_closed.append(f"done with {self.qty} and {len(self.orders)} orders")

    def tick(self, now_ns: int) -> None:
        rnd = self._random
        for order in list(self.orders):
            if order.undecided:
                order.undecided = max(0, order.undecided - 1)
                if not order.undecided and now_ns < self.rejects_until_ns and rnd.random() < self.reject_share:
                    self.orders.remove(order)
                    self.rejected |= 1 << order.symbol
                    self.events += 1
                continue
            if self.hangs >> order.symbol & 1:
                continue
            halted = self.halted >> order.symbol & 1
            if not halted and rnd.random() < self.fill_share:
                size = order.remaining if rnd.random() < 0.5 else float(rnd.randint(1, max(1, int(order.remaining))))
                size = min(size, order.remaining)
                sign = math.copysign(1.0, order.signed)
                before = self.qty[order.symbol]
                self.qty[order.symbol] = before + sign * size
                if order.closes and before and self.qty[order.symbol] * before < 0:
                    self.over_closed.append(f"position {before} crossed zero to {self.qty[order.symbol]}")
                order.remaining -= size
                self.events += 1
                if order.remaining <= 1e-9:
                    self.orders.remove(order)
                    continue
            if order.cancel_pending and rnd.random() < 0.3:
                self.orders.remove(order)
                self.events += 1
        self.asked = [ticks - 1 for ticks in self.asked]
        if any(ticks <= 0 for ticks in self.asked):
            self.asked = [ticks for ticks in self.asked if ticks > 0]
            mask = sum(1 << i for i, q in enumerate(self.qty) if q)
            number = self.snapshot[0] + 1
            self.snapshot = (number, now_ns, now_ns, self.events, len(self.orders), mask)

    def view(self, *, regular: bool = True) -> View:
        n = len(self.qty)
        closing = [0.0] * n
        for order in self.orders:
            if order.signed * self.qty[order.symbol] < 0:
                closing[order.symbol] += order.remaining
        number, begin, end, events, orders, mask = self.snapshot
        rejected, self.rejected = self.rejected, 0
        busy = 0
        for order in self.orders:
            busy |= 1 << order.symbol
        return View(
            busy=busy,
            qty=tuple(self.qty), closing=tuple(closing), bid=(99.99,) * n, ask=(100.01,) * n, halted=self.halted,
            open_orders=len(self.orders), undecided=sum(1 for o in self.orders if o.undecided), rejected=rejected,
            order_events=self.events, snapshot_id=number, snapshot_begin_ns=begin, snapshot_end_ns=end,
            snapshot_events=events, snapshot_open_orders=orders, snapshot_positions=mask, regular_hours=regular,
        )  # fmt: skip


def entry(symbol: int, side: Side, qty: float) -> Order:
    """An order that works when the flatten begins."""
    return Order(symbol, int(side) * qty, qty, undecided=0, closes=False)
