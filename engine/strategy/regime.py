"""The regime strategy: short queue-imbalance trades, sized and gated by the filtered regime.

What it does. When one side of the best quotes outweighs the other and the micro-price leans with it, it joins the
heavier side with a limit order (one tick better where the spread has room). A filled entry is offered at the other
touch; it is taken out with a marketable limit after ``hold_s``, when the imbalance turns against it, or when the loss
exceeds a few spreads. In the most volatile regime nothing is opened and exits are not left to rest.

What it is worth. The filtered regime describes liquidity and volatility; it is **not directional alpha** (correlation
with the next return is about nil), and queue imbalance predicts the next tick, not more than the spread and the
commission cost. Expect to lose about the commissions. It is here so that the whole chain from tick to fill is in use,
within limits that can't hurt, and as the example that a better strategy replaces. Every figure it stops on includes
costs.

Invariants (asserted in tests over arbitrary histories)
1. Confirmed position plus everything that works never exceeds ``symbol_usd`` by an entry, nor ``gross_usd`` in sum.
2. An exit is never larger than the own position, nor than the account's less what works on its side.
3. Nothing but cancels is asked for while a stop holds for it, after the daily stop, or with an invalid book.
4. At most one order per symbol works at a time.

``decide`` is the decision in words and the oracle in tests; ``RegimeStrategy`` runs its compiled form, which the fused
hot path calls as well (``engine.strategy.regime_kernel``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from engine.domain.codes import Side, TimeInForce
from engine.domain.instruments import MAX_SYMBOLS
from engine.strategy import regime_kernel as k
from engine.strategy.protocol import Action, Cancel, Place, Purpose, Situation, Working
from engine.strategy.regime_kernel import (
    ENTRY_GAP_NS,
    NS,
    RECANCEL_NS,
    SIDE_GAP_NS,
    STOP_SPREADS,
    TAKE_TICKS,
    WIDE_FACTOR,
)

_EPS = k.EPS
_MOST_ORDERS = 32
__all__ = ["ENTRY_GAP_NS", "FLAT", "NS", "Memory", "Parameters", "PlainRegimeStrategy", "RegimeStrategy", "decide"]


@dataclass(frozen=True, slots=True)
class Parameters:
    """``config.strategy``, in USD and ns."""

    symbol_usd: float
    gross_usd: float
    order_usd: float
    daily_stop_usd: float
    min_confidence: float
    entry_imbalance: float
    hold_ns: int
    order_ttl_ns: int
    cooldown_ns: int


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered about one symbol between decisions."""

    opened_ns: int = 0
    """Since when there is a position; 0 flat."""
    entry_price: float = math.nan
    calm_until_ns: int = 0


FLAT = Memory()


def imbalance(s: Situation) -> float:
    """Queue imbalance of the best quotes, -1 to 1."""
    total = s.bid_size + s.ask_size
    return (s.bid_size - s.ask_size) / total if total > 0 else 0.0


def entry_qty(s: Situation, p: Parameters) -> float:
    """Whole shares of the next entry within every limit; 0 if none fits. The same for both sides: it counts the worst
    case, as if all that works were filled on the side that hurts."""
    mid = s.mid
    if not mid > 0:
        return 0.0
    worst = max(abs(s.held_qty + s.working_buy_qty), abs(s.held_qty - s.working_sell_qty)) * s.ask
    room = min(p.order_usd, p.symbol_usd - worst, p.gross_usd - s.gross_usd)
    return float(math.floor(room / s.ask)) if room > 0 else 0.0


def exit_qty(s: Situation) -> float:
    """Whole shares that may still be closed: own position, within the account's less what works on the closing side."""
    if s.qty * s.held_qty <= 0:
        return 0.0
    works = s.working_sell_qty if s.qty > 0 else s.working_buy_qty
    return max(0.0, float(math.floor(min(abs(s.qty), abs(s.held_qty) - works) + _EPS)))


def _take_price(s: Situation, side: Side) -> float:
    touch = s.ask if side == Side.BUY else s.bid
    return _on_tick(touch + int(side) * TAKE_TICKS * s.tick_size, s.tick_size)


def _on_tick(price: float, tick: float) -> float:
    return round(round(price / tick) * tick, 6)


def decide(
    s: Situation, orders: tuple[Working, ...], m: Memory, p: Parameters, now_ns: int
) -> tuple[Action | None, Memory]:
    """The next action for one symbol, if any. Pure."""
    m = _remember(s, m, p, now_ns)
    lean = imbalance(s) if s.book_valid else 0.0
    for order in orders:
        why = _cancel_reason(s, order, m, p, lean, now_ns)
        if why and (order.cancel_ns == 0 or now_ns - order.cancel_ns >= RECANCEL_NS):
            return Cancel(order.intent_id, why), m
    if orders or not s.book_valid:
        return None, m
    if s.qty != 0:
        return (_exit(s, m, p, lean, now_ns) if s.exits_allowed else None), m
    return _entry(s, m, p, lean, now_ns), m


def _remember(s: Situation, m: Memory, p: Parameters, now_ns: int) -> Memory:
    if s.qty == 0 and m.opened_ns:
        return Memory(calm_until_ns=now_ns + p.cooldown_ns)
    if s.qty != 0 and not m.opened_ns:
        return replace(m, opened_ns=now_ns, entry_price=s.mid if s.book_valid else math.nan)
    return m


def _must_take(s: Situation, m: Memory, p: Parameters, lean: float, now_ns: int) -> str:
    """Why a position has to go now, or ''."""
    if now_ns - m.opened_ns >= p.hold_ns:
        return "longest hold"
    sign = 1.0 if s.qty > 0 else -1.0
    if sign * lean < -p.entry_imbalance:
        return "imbalance turned"
    limit = STOP_SPREADS * max(s.ask - s.bid, s.tick_size)
    if m.entry_price == m.entry_price and sign * (s.mid - m.entry_price) < -limit:
        return "loss limit"
    if s.states > 1 and s.regime == s.states - 1 and s.model_valid:
        return "volatile regime"
    return ""


def _cancel_reason(s: Situation, o: Working, m: Memory, p: Parameters, lean: float, now_ns: int) -> str:
    age = now_ns - o.sent_ns
    if o.purpose == Purpose.ENTRY:
        if not s.entries_allowed:
            return "a stop holds"
        if not s.book_valid:
            return "book invalid"
        if age >= p.order_ttl_ns:
            return "time to live"
        if age >= SIDE_GAP_NS and int(o.side) * lean < -p.entry_imbalance:
            return "imbalance turned"
        return ""
    if not s.exits_allowed:
        return "a stop holds"
    if not s.book_valid:
        return ""
    if age >= p.order_ttl_ns and o.limit_price != (s.ask if o.side == Side.SELL else s.bid):
        return "the touch moved"
    if s.qty != 0 and age >= SIDE_GAP_NS and _must_take(s, m, p, lean, now_ns):
        return "take instead"
    return ""


def _exit(s: Situation, m: Memory, p: Parameters, lean: float, now_ns: int) -> Place | None:
    qty = exit_qty(s)
    if qty < 1:
        return None
    side = Side.SELL if s.qty > 0 else Side.BUY
    why = _must_take(s, m, p, lean, now_ns)
    if why:
        return Place(s.symbol, side, qty, _take_price(s, side), Purpose.EXIT, TimeInForce.IOC, why)
    price = s.ask if side == Side.SELL else s.bid
    return Place(s.symbol, side, qty, price, Purpose.EXIT, TimeInForce.DAY, "offer at the touch")


def _entry(s: Situation, m: Memory, p: Parameters, lean: float, now_ns: int) -> Place | None:
    if not (s.entries_allowed and s.model_valid) or s.warming or now_ns < m.calm_until_ns:
        return None
    if s.day_pnl_usd <= -p.daily_stop_usd or not s.confidence_ema >= p.min_confidence:
        return None
    if s.states > 1 and s.regime == s.states - 1:
        return None
    if abs(lean) < p.entry_imbalance:
        return None
    spread_bps = (s.ask - s.bid) / s.mid * 1e4
    if spread_bps > WIDE_FACTOR * s.spread_median_bps:
        return None
    side = Side.BUY if lean > 0 else Side.SELL
    if int(side) * (s.micro_price - s.mid) <= 0:
        return None
    qty = entry_qty(s, p)
    if qty < 1:
        return None
    room = s.ask - s.bid >= 1.5 * s.tick_size
    touch = s.bid if side == Side.BUY else s.ask
    price = _on_tick(touch + int(side) * s.tick_size, s.tick_size) if room else touch
    return Place(s.symbol, side, qty, price, Purpose.ENTRY, TimeInForce.DAY, f"imbalance {lean:+.2f}")


class PlainRegimeStrategy:
    """``decide`` with a memory per symbol and one pace of entries for all (see ``strategy.protocol.Strategy``)."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self._memory: dict[int, Memory] = {}
        self._next_entry_ns = 0

    def on_signal(self, now: Situation, orders: tuple[Working, ...], now_ns: int) -> tuple[Action, ...]:
        action, memory = decide(now, orders, self._memory.get(now.symbol, FLAT), self.parameters, now_ns)
        self._memory[now.symbol] = memory
        if action is None:
            return ()
        if isinstance(action, Place) and action.purpose == Purpose.ENTRY:
            if now_ns < self._next_entry_ns:
                return ()
            self._next_entry_ns = now_ns + ENTRY_GAP_NS
        return (action,)

    def on_timer(self, now: Situation, orders: tuple[Working, ...], now_ns: int) -> tuple[Action, ...]:
        return self.on_signal(now, orders, now_ns)

    def busy(self, symbol: int) -> bool:
        """True while there was a position at the last look."""
        return self._memory.get(symbol, FLAT).opened_ns != 0


class RegimeStrategy:
    """The same over records that the compiled decision reads and keeps: what ``algo`` runs.

    ``memory`` (dtype MEMORY, one per symbol) and ``parameters`` (dtype PARAMETERS) are the whole state.
    """

    def __init__(self, parameters: Parameters) -> None:
        self.memory: npt.NDArray[np.void] = np.zeros(MAX_SYMBOLS, k.MEMORY)
        self.memory["entry_price"] = math.nan
        self.parameters: npt.NDArray[np.void] = np.zeros(1, k.PARAMETERS)
        for name in parameters.__slots__:
            self.parameters[name] = getattr(parameters, name)
        self.parameters["entry_gap_ns"] = ENTRY_GAP_NS
        self._situation = np.zeros(1, k.SITUATION)
        self._orders = np.zeros(_MOST_ORDERS, k.WORKING)
        self._decision = np.zeros(1, k.DECISION)

    def on_signal(self, now: Situation, orders: tuple[Working, ...], now_ns: int) -> tuple[Action, ...]:
        self._situation[0] = (
            now.symbol, now.tick_size, now.bid, now.ask, now.bid_size, now.ask_size, now.micro_price,
            now.spread_median_bps, now.book_valid, now.model_valid, now.warming, now.regime, now.states,
            now.confidence_ema, now.qty, now.held_qty, now.working_buy_qty, now.working_sell_qty, now.gross_usd,
            now.day_pnl_usd, now.entries_allowed, now.exits_allowed,
        )  # fmt: skip
        for i, o in enumerate(orders[:_MOST_ORDERS]):
            self._orders[i] = (o.intent_id, o.side, o.limit_price, o.purpose, o.sent_ns, o.cancel_ns)
        count = min(len(orders), _MOST_ORDERS)
        k.decide(self._situation, self._orders, count, self.memory, now.symbol, self.parameters, now_ns, self._decision)
        return action_of(self._decision[0], now.symbol)

    def on_timer(self, now: Situation, orders: tuple[Working, ...], now_ns: int) -> tuple[Action, ...]:
        return self.on_signal(now, orders, now_ns)

    def busy(self, symbol: int) -> bool:
        """True while there was a position at the last look."""
        return bool(self.memory["opened_ns"][symbol])


def action_of(d: np.void, symbol: int) -> tuple[Action, ...]:
    """A decision record in the protocol's words."""
    if d["action"] == k.NOTHING:
        return ()
    why = k.WHY[int(d["why"])]
    if d["action"] == k.CANCEL:
        return (Cancel(int(d["intent_id"]), why),)
    purpose = Purpose(int(d["purpose"]))
    if purpose == Purpose.ENTRY:
        why = f"{why} {float(d['lean']):+.2f}"
    return (
        Place(
            symbol, Side(int(d["side"])), float(d["qty"]), float(d["limit_price"]), purpose, TimeInForce(int(d["tif"])),
            why,
        ),
    )  # fmt: skip
