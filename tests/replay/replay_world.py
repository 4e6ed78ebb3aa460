"""What the tests of backtest and replay share: a quickly trained model, and a strategy that always trades."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from engine.domain.codes import Side, TimeInForce
from engine.domain.instruments import SIM_UNIVERSE
from engine.model.params import Model
from engine.model.train import train_synthetic
from engine.strategy.protocol import Action, Place, Purpose, Situation, Working

TINY = Path(__file__).resolve().parents[1] / "data" / "TINY_2024-01-02_34200000_34500000_message_5.csv"
_EVERY_NS = 5_000_000_000


@lru_cache(maxsize=1)
def replay_model() -> Model:
    return train_synthetic(SIM_UNIVERSE[:4], seed=5, hours=0.35, restarts=1)


class InAndOut:
    """Takes ten shares, gives them back five seconds later, and begins anew: fills without any opinion."""

    def __init__(self) -> None:
        self._next_ns: dict[int, int] = {}

    def on_signal(self, now: Situation, orders: tuple[Working, ...], now_ns: int) -> tuple[Action, ...]:
        return self.on_timer(now, orders, now_ns)

    def on_timer(self, now: Situation, orders: tuple[Working, ...], now_ns: int) -> tuple[Action, ...]:
        if orders or not now.book_valid or now_ns < self._next_ns.get(now.symbol, 0) or not now.entries_allowed:
            return ()
        self._next_ns[now.symbol] = now_ns + _EVERY_NS
        if now.qty:
            return (Place(now.symbol, Side.SELL, now.qty, now.bid, Purpose.EXIT, TimeInForce.IOC, "out"),)
        return (Place(now.symbol, Side.BUY, 10.0, now.ask, Purpose.ENTRY, TimeInForce.IOC, "in"),)

    def busy(self, symbol: int) -> bool:
        return True
