"""Executions to positions, each applied exactly once, corrections replacing what they correct.

Invariants
1. ``qty = day_open_qty + sum of signed fills`` and ``cash_flow_usd = -sum(signed qty * price)``, over the latest
   revision of every execution, in whatever order and however often they arrived.
2. An execution is known by its id without the digits after the last dot; those are its revision. A higher revision
   replaces, an equal or lower one is a repetition.
3. Average cost and realized profit follow the fills in the order of their execution time, not of their arrival.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, replace
from enum import IntEnum

_EPS = 1e-9


class Applied(IntEnum):
    DUPLICATE = 0
    NEW = 1
    CORRECTED = 2


@dataclass(frozen=True, slots=True)
class Fill:
    """``side`` +1 or -1, ``qty`` > 0 shares, ``price`` USD."""

    exec_id: str
    symbol: int
    side: int
    qty: float
    price: float
    t_exec_wall_ns: int
    order_key: int = 0
    """Intent id of the order, or a key of the caller's for orders that are not ours."""

    @property
    def signed(self) -> float:
        return self.side * self.qty


@dataclass(frozen=True, slots=True)
class Holding:
    """Position of one symbol and what the day did to it, USD."""

    qty: float = 0.0
    avg_cost: float = 0.0
    realized_pnl_usd: float = 0.0
    cash_flow_usd: float = 0.0
    commissions_usd: float = 0.0
    day_open_qty: float = 0.0
    executions: int = 0


def split_exec_id(exec_id: str) -> tuple[str, int]:
    """(identity, revision). An id without a numeric last part is its own identity, revision 0."""
    base, dot, last = exec_id.rpartition(".")
    return (base, int(last)) if dot and last.isdigit() else (exec_id, 0)


def step(holding: Holding, fill: Fill) -> Holding:
    """Apply one fill to quantity, average cost and realized profit (average-cost method)."""
    qty, cost, realized = holding.qty, holding.avg_cost, holding.realized_pnl_usd
    signed = fill.signed
    if qty * signed >= 0:
        total = qty + signed
        cost = (abs(qty) * cost + fill.qty * fill.price) / abs(total) if abs(total) > _EPS else 0.0
    else:
        closed = min(abs(qty), fill.qty)
        realized += closed * (fill.price - cost) * (1 if qty > 0 else -1)
        total = qty + signed
        if abs(total) <= _EPS:
            total, cost = 0.0, 0.0
        elif total * qty < 0:
            cost = fill.price
    return replace(
        holding,
        qty=total,
        avg_cost=cost,
        realized_pnl_usd=realized,
        cash_flow_usd=holding.cash_flow_usd - signed * fill.price,
        executions=holding.executions + 1,
    )


class Accounts:
    """Holdings of all symbols for one trading day."""

    def __init__(self, symbols: int) -> None:
        self.symbols = symbols
        self._open: list[tuple[float, float]] = [(0.0, 0.0)] * symbols
        self.holdings: list[Holding] = [Holding() for _ in range(symbols)]
        self._fills: dict[str, tuple[int, Fill]] = {}
        self._order: list[list[tuple[int, str]]] = [[] for _ in range(symbols)]
        self._commissions: dict[str, tuple[int, float]] = {}
        self._past: dict[str, int] = {}
        """Revision of every execution of the day before."""
        self._of_order: dict[int, set[str]] = {}

    def set_open(self, symbol: int, qty: float, avg_cost: float = 0.0) -> None:
        """The position that the day began with."""
        self._open[symbol] = (qty, avg_cost)
        self._rebuild(symbol)

    def openings(self) -> list[tuple[float, float]]:
        """(quantity, average cost) that the day began with, per symbol."""
        return list(self._open)

    def apply(self, fill: Fill) -> Applied:
        """Take one execution; what was known already changes nothing."""
        base, revision = split_exec_id(fill.exec_id)
        known = self._fills.get(base)
        if known is None:
            if base in self._past:
                return Applied.DUPLICATE
            self._fills[base] = (revision, fill)
            self._of_order.setdefault(fill.order_key, set()).add(base)
            key = (fill.t_exec_wall_ns, base)
            order = self._order[fill.symbol]
            if order and key < order[-1]:
                insort(order, key)
                self._rebuild(fill.symbol)
            else:
                order.append(key)
                held = step(self.holdings[fill.symbol], fill)
                commission = self._commissions.get(base, (0, 0.0))[1]
                self.holdings[fill.symbol] = replace(held, commissions_usd=held.commissions_usd + commission)
            return Applied.NEW
        if revision <= known[0]:
            return Applied.DUPLICATE
        old = known[1]
        self._order[old.symbol].remove((old.t_exec_wall_ns, base))
        self._of_order.get(old.order_key, set()).discard(base)
        self._fills[base] = (revision, fill)
        self._of_order.setdefault(fill.order_key, set()).add(base)
        insort(self._order[fill.symbol], (fill.t_exec_wall_ns, base))
        self._rebuild(fill.symbol)
        if old.symbol != fill.symbol:
            self._rebuild(old.symbol)
        return Applied.CORRECTED

    def commission(self, exec_id: str, usd: float) -> int:
        """A commission report, before or after its execution. Returns the symbol it changed, -1 for none."""
        base, revision = split_exec_id(exec_id)
        known = self._commissions.get(base)
        if base in self._past or (known is not None and revision < known[0]):
            return -1
        self._commissions[base] = (revision, usd)
        entry = self._fills.get(base)
        if entry is None:
            return -1
        symbol = entry[1].symbol
        former = known[1] if known is not None else 0.0
        held = self.holdings[symbol]
        if usd == former:
            return -1
        self.holdings[symbol] = replace(held, commissions_usd=held.commissions_usd + usd - former)
        return symbol

    def fill_of(self, exec_id: str) -> Fill | None:
        entry = self._fills.get(split_exec_id(exec_id)[0])
        return entry[1] if entry else None

    def executed(self, order_key: int) -> tuple[float, float]:
        """(quantity, average price) of all executions of one order."""
        qty = value = 0.0
        for base in self._of_order.get(order_key, ()):
            fill = self._fills[base][1]
            qty += fill.qty
            value += fill.qty * fill.price
        return qty, value / qty if qty else 0.0

    def day_fills(self, symbol: int) -> float:
        """Signed sum of the day's fills."""
        return sum(self._fills[base][1].signed for _, base in self._order[symbol])

    def _rebuild(self, symbol: int) -> None:
        qty, cost = self._open[symbol]
        held = Holding(qty=qty, avg_cost=cost, day_open_qty=qty)
        commissions = 0.0
        for _, base in self._order[symbol]:
            held = step(held, self._fills[base][1])
            commissions += self._commissions.get(base, (0, 0.0))[1]
        self.holdings[symbol] = replace(held, commissions_usd=commissions)

    def apply_past(self, fill: Fill) -> Applied:
        """An execution of the day before that is learnt of only now: part of what the day began with.

        A correction of one changes no position: whether the broker's opening position has it, its books tell.
        """
        base, revision = split_exec_id(fill.exec_id)
        if base in self._fills:
            return Applied.DUPLICATE
        known = self._past.get(base)
        if known is not None and revision <= known:
            return Applied.DUPLICATE
        self._past[base] = revision
        if known is not None:
            return Applied.CORRECTED
        qty, cost = self._open[fill.symbol]
        opening = step(Holding(qty=qty, avg_cost=cost), fill)
        self.set_open(fill.symbol, opening.qty, opening.avg_cost)
        return Applied.NEW

    def note_past(self, exec_id: str) -> Applied:
        """A correction of an execution that we do not have, of a session that we do not know: it is in the opening."""
        base, revision = split_exec_id(exec_id)
        if self._past.get(base, -1) >= revision:
            return Applied.DUPLICATE
        self._past[base] = revision
        return Applied.CORRECTED

    def is_past(self, exec_id: str) -> bool:
        """Is it an execution of the day before, or a revision of one?"""
        return split_exec_id(exec_id)[0] in self._past

    def begin_day(self) -> None:
        """A new trading day: today's positions are its opening ones; yesterday's executions stay known as applied."""
        self._past = {base: revision for base, (revision, _) in self._fills.items()}
        self._fills.clear()
        self._commissions.clear()
        self._of_order.clear()
        self._order = [[] for _ in range(self.symbols)]
        for symbol in range(self.symbols):
            held = self.holdings[symbol]
            self._open[symbol] = (held.qty, held.avg_cost)
            self._rebuild(symbol)

    def check(self) -> list[str]:
        """Every broken invariant, in words; empty if sound."""
        broken = []
        for symbol, held in enumerate(self.holdings):
            expected = self._open[symbol][0] + self.day_fills(symbol)
            if abs(expected - held.qty) > 1e-6:
                broken.append(f"symbol {symbol}: position {held.qty}, opening and fills give {expected}")
            flow = -sum(self._fills[b][1].signed * self._fills[b][1].price for _, b in self._order[symbol])
            if abs(flow - held.cash_flow_usd) > 1e-4:
                broken.append(f"symbol {symbol}: cash flow {held.cash_flow_usd}, fills give {flow}")
        return broken
