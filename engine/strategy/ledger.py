"""The strategy's own working orders and its own part of each position, from the bridge's events and executions.

Invariants
1. An order is here from the moment its intent is written until its end is known: refused, filled, cancelled,
   rejected, or unknown to the gate when its cancel is asked for.
2. The own position is the sum of own executions, never larger than and never against the account's: when somebody
   else (a flatten, a person) closes it, it is gone.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.domain.codes import TERMINAL_STATES, OrderState, Refusal, Side
from engine.strategy.protocol import Purpose, Working

_TERMINAL = frozenset(int(s) for s in TERMINAL_STATES)
_EPS = 1e-9


@dataclass(slots=True)
class _Order:
    symbol: int
    side: Side
    qty: float
    filled: float
    limit_price: float
    purpose: Purpose
    sent_ns: int
    acknowledged: bool = False
    cancel_ns: int = 0


class OrderLedger:
    """Own working orders by intent id. ``changed`` gets the symbols whose orders are not what they were."""

    def __init__(self, changed: set[int] | None = None) -> None:
        self._changed = set[int]() if changed is None else changed
        self._orders: dict[int, _Order] = {}
        self._cancels: dict[int, int] = {}
        """Cancel intent id -> intent id of the order it is for."""

    def __len__(self) -> int:
        return len(self._orders)

    def placed(
        self, intent_id: int, symbol: int, side: Side, qty: float, limit_price: float, purpose: Purpose, now_ns: int
    ) -> None:
        self._changed.add(symbol)
        self._orders[intent_id] = _Order(symbol, side, qty, 0.0, limit_price, purpose, now_ns)

    def cancelling(self, cancel_id: int, target_id: int, now_ns: int) -> None:
        order = self._orders.get(target_id)
        if order is not None:
            order.cancel_ns = now_ns
            self._changed.add(order.symbol)
            self._cancels[cancel_id] = target_id

    def on_state(self, intent_id: int, state: int, filled: float) -> int:
        """An ORDER_STATE event. Returns the symbol whose order ended by it, else -1."""
        self._cancels.pop(intent_id, None)
        order = self._orders.get(intent_id)
        if order is None:
            return -1
        order.acknowledged = True
        self._changed.add(order.symbol)
        if filled == filled:
            order.filled = max(order.filled, filled)
        if state in _TERMINAL:
            del self._orders[intent_id]
            return order.symbol
        if state == OrderState.UNKNOWN:
            order.cancel_ns = 0  # ask again as soon as the strategy wants
        return -1

    def on_refused(self, intent_id: int, code: int) -> int:
        """A REFUSED event. Returns the symbol of a refused new order, else -1."""
        target = self._cancels.pop(intent_id, 0)
        if target:
            if code == Refusal.UNKNOWN_ORDER:
                self._pop(target)
            return -1
        return self._pop(intent_id)

    def _pop(self, intent_id: int) -> int:
        order = self._orders.pop(intent_id, None)
        if order is None:
            return -1
        self._changed.add(order.symbol)
        return order.symbol

    def of(self, symbol: int) -> tuple[Working, ...]:
        """Working orders of a symbol, as the strategy sees them."""
        return tuple(
            Working(i, o.side, max(0.0, o.qty - o.filled), o.limit_price, o.purpose, o.sent_ns, o.cancel_ns)
            for i, o in self._orders.items()
            if o.symbol == symbol
        )

    def symbols(self) -> set[int]:
        return {o.symbol for o in self._orders.values()}

    def quantities(self, symbol: int) -> tuple[float, float, float, float]:
        """Shares (buy, sell) of all own orders, and (buy, sell) of those the bridge has not acknowledged yet."""
        buy = sell = new_buy = new_sell = 0.0
        for o in self._orders.values():
            if o.symbol != symbol:
                continue
            left = max(0.0, o.qty - o.filled)
            if o.side == Side.BUY:
                buy += left
                new_buy += 0.0 if o.acknowledged else left
            else:
                sell += left
                new_sell += 0.0 if o.acknowledged else left
        return buy, sell, new_buy, new_sell


class OwnPositions:
    """The strategy's part of each position. ``changed`` gets the symbols in which it is not what it was."""

    def __init__(self, changed: set[int] | None = None) -> None:
        self._changed = set[int]() if changed is None else changed
        self._own: dict[int, float] = {}
        self._seen: dict[int, float] = {}

    def on_execution(self, symbol: int, signed_qty: float, ours: bool) -> None:
        """A fill in time order, of any source."""
        self._changed.add(symbol)
        total = self._seen.get(symbol, 0.0) + signed_qty
        self._seen[symbol] = total
        own = self._own.get(symbol, 0.0) + (signed_qty if ours else 0.0)
        self._own[symbol] = own if ours else _within(own, total)

    def of(self, symbol: int, held_qty: float) -> float:
        """Own part of a confirmed position; 0 where that is flat or on the other side."""
        return _within(self._own.get(symbol, 0.0), held_qty)

    def settle(self, symbol: int, held_qty: float) -> None:
        """Forget what the confirmed position no longer holds. Call only when no own order or fill is under way."""
        self._changed.add(symbol)
        own = self._own.get(symbol, 0.0)
        if own:
            self._own[symbol] = _within(own, held_qty)
        self._seen[symbol] = held_qty


def _within(own: float, total: float) -> float:
    if own * total <= 0:
        return 0.0
    return own if abs(own) <= abs(total) + _EPS else total
