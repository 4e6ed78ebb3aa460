"""A strategy that trades for trading's sake: orders of every kind, so that there is something to go wrong with."""

from __future__ import annotations

import random

from engine.domain.codes import Side, TimeInForce
from engine.strategy.protocol import Action, Cancel, Place, Purpose, Situation, Working

SECOND_NS = 1_000_000_000


class Churn:
    """Opens, rests, cancels and closes by chance; a flat symbol waits for about ``every_s`` seconds."""

    def __init__(self, seed: int, every_s: float = 4.0) -> None:
        self._chance = random.Random(seed)
        self._every_ns = every_s * SECOND_NS
        self._next_ns: dict[int, int] = {}

    def on_signal(self, now: Situation, orders: tuple[Working, ...], now_ns: int) -> tuple[Action, ...]:
        return self.on_timer(now, orders, now_ns)

    def on_timer(self, now: Situation, orders: tuple[Working, ...], now_ns: int) -> tuple[Action, ...]:
        if not now.book_valid or now_ns < self._next_ns.get(now.symbol, 0):
            return ()
        chance = self._chance
        busy = bool(orders or now.qty)
        wait_ns = min(2.0 * SECOND_NS, self._every_ns) if busy else self._every_ns
        self._next_ns[now.symbol] = now_ns + int(chance.uniform(0.2, 1.8) * wait_ns)
        if orders:
            order = orders[0]
            return (Cancel(order.intent_id, "churn"),) if not order.cancel_ns else ()
        if now.qty and now.exits_allowed and chance.random() < 0.6:
            side = Side.SELL if now.qty > 0 else Side.BUY
            qty = abs(now.qty) if chance.random() < 0.7 else max(1.0, abs(now.qty) // 2)
            return (self._place(now, side, qty, Purpose.EXIT),)
        if not now.entries_allowed:
            return ()
        side = Side.BUY if chance.random() < 0.55 else Side.SELL
        room = 38_000.0 / now.ask - abs(now.held_qty) - now.working_buy_qty - now.working_sell_qty
        qty = float(int(min(room, chance.choice((1, 7, 20, 60, 150)))))
        return (self._place(now, side, qty, Purpose.ENTRY),) if qty >= 1 else ()

    def _place(self, now: Situation, side: Side, qty: float, purpose: Purpose) -> Place:
        style = self._chance.random()
        far, near = (now.ask, now.bid) if side == Side.BUY else (now.bid, now.ask)
        if style < 0.45:
            return Place(
                now.symbol, side, qty, round(far + int(side) * 2 * now.tick_size, 6), purpose, TimeInForce.IOC, "take"
            )
        price = near if style < 0.8 else round(near - int(side) * 3 * now.tick_size, 6)
        return Place(now.symbol, side, qty, price, purpose, TimeInForce.DAY, "rest")

    def busy(self, symbol: int) -> bool:
        return True
