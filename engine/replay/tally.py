"""From fills to figures: positions, P&L, drawdown, round trips. Pure; times and marks are arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

_EPS = 1e-9


@dataclass(frozen=True, slots=True)
class Filled:
    """One fill. ``signed`` shares, + bought; ``t_ns`` when it was heard of."""

    exec_id: bytes
    symbol: int
    signed: float
    price: float
    t_ns: int


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """From flat to flat. ``gross_usd`` before and ``net_usd`` after commissions."""

    symbol: int
    opened_ns: int
    closed_ns: int
    gross_usd: float
    net_usd: float


@dataclass(slots=True)
class _Open:
    qty: float = 0.0
    cash: float = 0.0
    commissions: float = 0.0
    since_ns: int = 0


class Tally:
    """Invariant (``check``): gross P&L of all round trips and of what is open is the cash flow plus the marked rest."""

    def __init__(self) -> None:
        self.fills: list[Filled] = []
        self.commissions: dict[bytes, float] = {}
        self._qty: dict[int, float] = {}
        self._cash_usd = 0.0
        self._marks: dict[int, float] = {}
        self._commissions_usd = 0.0
        self._peak_usd = 0.0
        self.max_drawdown_usd = 0.0

    def fill(self, exec_id: bytes, symbol: int, signed: float, price: float, t_ns: int) -> None:
        self.fills.append(Filled(exec_id, symbol, signed, price, t_ns))
        self._qty[symbol] = self._qty.get(symbol, 0.0) + signed
        self._cash_usd -= signed * price
        self._marks.setdefault(symbol, price)

    def commission(self, exec_id: bytes, usd: float) -> None:
        self._commissions_usd += usd - self.commissions.get(exec_id, 0.0)
        self.commissions[exec_id] = usd

    def mark(self, marks: Mapping[int, float], now_ns: int) -> None:
        """New mids, USD; the drawdown is that of the equity after commissions, from its peak or the start."""
        self._marks.update(marks)
        net = self.net_usd
        self._peak_usd = max(self._peak_usd, net)
        self.max_drawdown_usd = max(self.max_drawdown_usd, self._peak_usd - net)

    def position(self, symbol: int) -> float:
        qty = self._qty.get(symbol, 0.0)
        return qty if abs(qty) > _EPS else 0.0

    @property
    def gross_usd(self) -> float:
        """P&L before costs, what is open at its last mid."""
        return self._cash_usd + sum(q * self._marks[s] for s, q in self._qty.items() if abs(q) > _EPS)

    @property
    def commissions_usd(self) -> float:
        return self._commissions_usd

    @property
    def net_usd(self) -> float:
        return self.gross_usd - self._commissions_usd

    def trips(self) -> list[RoundTrip]:
        """Every way from flat to flat; a fill that turns the position round closes one and opens the next."""
        found: list[RoundTrip] = []
        held: dict[int, _Open] = {}
        for f in self.fills:
            o = held.setdefault(f.symbol, _Open(since_ns=f.t_ns))
            fee = self.commissions.get(f.exec_id, 0.0)
            closing = math.copysign(min(abs(f.signed), abs(o.qty)), f.signed) if o.qty * f.signed < -_EPS else 0.0
            for part in (closing, f.signed - closing):
                if abs(part) <= _EPS:
                    continue
                if abs(o.qty) <= _EPS:
                    o.since_ns = f.t_ns
                o.qty += part
                o.cash -= part * f.price
                o.commissions += fee * abs(part / f.signed)
                if abs(o.qty) <= _EPS:
                    found.append(RoundTrip(f.symbol, o.since_ns, f.t_ns, o.cash, o.cash - o.commissions))
                    o = held[f.symbol] = _Open()
        return found

    def check(self) -> list[str]:
        """Every broken invariant in words; empty if sound."""
        broken = []
        for symbol, qty in self._qty.items():
            total = sum(f.signed for f in self.fills if f.symbol == symbol)
            if abs(total - qty) > 1e-6:
                broken.append(f"symbol {symbol}: position {qty:g}, its fills sum to {total:g}")
        fees = sum(self.commissions.values())
        if abs(fees - self._commissions_usd) > 1e-6:
            broken.append(f"commissions are {self._commissions_usd:.4f}, their sum is {fees:.4f}")
        return broken
