"""Pure accounting of one margin account: cash, positions, realized and unrealized P&L, commissions, margin.

Average cost includes the commission, as the broker reports it, so realized P&L is net. Amounts are in USD.
Invariant, checked by ``Account.check``: equity = start equity + realized + unrealized of all days.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.paper.commissions import Traded, fixed

INITIAL_MARGIN = 0.50
MAINTENANCE_MARGIN = 0.25


def commission_total(quantity: float, value: float) -> float:
    """Commission of one order that traded ``quantity`` shares for ``value`` USD (fixed US stock schedule)."""
    return fixed(Traded(quantity, value))


@dataclass(slots=True)
class Position:
    """Signed quantity and average cost per share (commission included)."""

    quantity: float = 0.0
    average_cost: float = 0.0
    realized_day: float = 0.0
    day_start_value: float = 0.0  # market value when the day began
    day_flow: float = 0.0  # cash from trading today, commissions deducted

    def unrealized(self, mark: float) -> float:
        return self.quantity * (mark - self.average_cost)


@dataclass(frozen=True, slots=True)
class FillResult:
    """What one fill did. ``realized`` is NaN-free; ``closed`` tells whether it reduced a position at all."""

    realized: float
    closed: bool


@dataclass(slots=True)
class Margins:
    equity: float
    initial: float
    maintenance: float

    @property
    def available(self) -> float:
        return self.equity - self.initial

    @property
    def excess(self) -> float:
        return self.equity - self.maintenance


@dataclass(slots=True)
class Account:
    """Mutable state of the account; every method is a pure function of it and its arguments."""

    start_equity: float
    cash: float
    positions: dict[int, Position] = field(default_factory=dict)  # by symbol index
    realized_total: float = 0.0
    day: str = ""
    day_start_equity: float = 0.0
    month_shares: float = 0.0  # what the tiered commissions of stocks count
    month_pair_usd: float = 0.0  # and those of currency pairs
    pairs: frozenset[int] = frozenset()  # symbols that are currency pairs

    @classmethod
    def opened(cls, equity: float, day: str) -> Account:
        return cls(equity, equity, day=day, day_start_equity=equity)

    def reopen(self, equity: float) -> None:
        """Begin anew with so much cash; flat positions stay known until the day ends, so that clients hear of them."""
        self.start_equity = self.cash = self.day_start_equity = equity
        self.realized_total = 0.0
        self.positions = {symbol: Position() for symbol in self.positions}

    def fill(self, symbol: int, signed_quantity: float, price: float, commission: float) -> FillResult:
        """Apply one execution. ``signed_quantity`` is positive for a buy."""
        if signed_quantity == 0:
            raise ValueError(f"fill of symbol {symbol} has quantity 0; a fill moves a position")
        position = self.positions.setdefault(symbol, Position())
        if symbol in self.pairs:
            self.month_pair_usd += abs(signed_quantity) * price
        else:
            self.month_shares += abs(signed_quantity)
        cash = -signed_quantity * price - commission
        self.cash += cash
        position.day_flow += cash
        held, cost = position.quantity, position.average_cost
        closing = 0.0
        if held * signed_quantity < 0:
            closing = min(abs(held), abs(signed_quantity))
        opening = abs(signed_quantity) - closing
        per_share = commission / abs(signed_quantity)
        direction = 1.0 if signed_quantity > 0 else -1.0
        realized = 0.0
        if closing:
            realized = closing * -direction * (price - cost) - closing * per_share
            position.realized_day += realized
            self.realized_total += realized
        after = held + signed_quantity
        if opening:
            entry = price + direction * per_share
            kept = abs(held) if not closing else 0.0
            position.average_cost = (kept * cost + opening * entry) / (kept + opening)
        position.quantity = 0.0 if abs(after) < 1e-9 else after
        if position.quantity == 0.0:
            position.average_cost = 0.0
        return FillResult(realized, closing > 0)

    def correct(self, symbol: int, signed_quantity: float, old_price: float, new_price: float) -> None:
        """Replace the price of an execution that was already applied."""
        position = self.positions.setdefault(symbol, Position())
        change = signed_quantity * (new_price - old_price)
        self.cash -= change
        position.day_flow -= change
        if position.quantity:
            position.average_cost += change / position.quantity
        else:
            position.realized_day -= change
            self.realized_total -= change

    def month_of(self, symbol: int) -> float:
        """What counts for the commission of the next order: shares of the month, of currency pairs USD."""
        return self.month_pair_usd if symbol in self.pairs else self.month_shares

    def equity(self, marks: Mapping[int, float]) -> float:
        """Net liquidation value at ``marks`` (price by symbol; every held symbol must be there)."""
        return self.cash + sum(p.quantity * marks[s] for s, p in self.positions.items() if p.quantity)

    def gross(self, marks: Mapping[int, float]) -> float:
        """Gross position value."""
        return sum(abs(p.quantity) * marks[s] for s, p in self.positions.items() if p.quantity)

    def unrealized(self, marks: Mapping[int, float]) -> float:
        return sum(p.unrealized(marks[s]) for s, p in self.positions.items() if p.quantity)

    @property
    def realized_day(self) -> float:
        return sum(p.realized_day for p in self.positions.values())

    def daily_pnl(self, marks: Mapping[int, float]) -> float:
        return self.equity(marks) - self.day_start_equity

    def daily_pnl_of(self, symbol: int, mark: float) -> float:
        position = self.positions.get(symbol)
        if position is None:
            return 0.0
        return position.quantity * mark - position.day_start_value + position.day_flow

    def margins(self, marks: Mapping[int, float]) -> Margins:
        gross = self.gross(marks)
        return Margins(self.equity(marks), INITIAL_MARGIN * gross, MAINTENANCE_MARGIN * gross)

    def margins_after(
        self, symbol: int, signed_quantity: float, price: float, marks: Mapping[int, float], commission: float
    ) -> Margins:
        """Margins as they would be if an order traded in full at ``price``."""
        held = self.positions[symbol].quantity if symbol in self.positions else 0.0
        gross, equity = 0.0, self.cash - commission
        for other, position in self.positions.items():
            if position.quantity:
                value = position.quantity * marks[other]
                gross += abs(value)
                equity += value
        gross = max(0.0, gross + (abs(held + signed_quantity) - abs(held)) * price)
        return Margins(equity, INITIAL_MARGIN * gross, MAINTENANCE_MARGIN * gross)

    def roll_day(self, day: str, marks: Mapping[int, float]) -> None:
        """Begin a new trading day: P&L of the day restarts, flat positions are forgotten."""
        if day[:6] != self.day[:6]:
            self.month_shares = self.month_pair_usd = 0.0
        self.day = day
        self.day_start_equity = self.equity(marks)
        self.positions = {s: p for s, p in self.positions.items() if p.quantity}
        for symbol, position in self.positions.items():
            position.realized_day = 0.0
            position.day_flow = 0.0
            position.day_start_value = position.quantity * marks[symbol]

    def check(self, marks: Mapping[int, float]) -> None:
        """Raises ValueError if cash and P&L disagree by more than a hundredth of a cent per million."""
        expected = self.start_equity + self.realized_total + self.unrealized(marks)
        actual = self.equity(marks)
        if abs(expected - actual) > 1e-10 * max(1.0, abs(actual)) + 1e-4:
            raise ValueError(f"equity is {actual:.6f}, P&L says {expected:.6f}; the account does not add up")
