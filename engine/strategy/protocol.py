"""What a strategy sees and what it may ask for. A strategy does no I/O and reads no clock."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from engine.domain.codes import Side, TimeInForce

EXPIRY_NS = 500_000_000
"""An intent older than this is refused by the gate: the market it was meant for is gone."""
OWN_ORDERS = 4
"""Own working orders of a symbol that the fused hot path looks at; with more of them the agent decides."""


class Purpose(IntEnum):
    """Why an order is there."""

    ENTRY = 1
    EXIT = 2


@dataclass(frozen=True, slots=True)
class Working:
    """An own order that is, or may still be, alive. ``left`` shares are not yet filled."""

    intent_id: int
    side: Side
    left: float
    limit_price: float
    purpose: Purpose
    sent_ns: int
    cancel_ns: int = 0
    """When its cancel was asked for; 0 not asked."""


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything a strategy may know about one symbol at one instant. Prices USD, sizes and ``qty`` shares.

    ``held_qty`` is the broker-confirmed position of the account and ``qty`` the part of it that the strategy itself
    opened: what a person bought is not the strategy's to sell. ``working_buy_qty`` and ``working_sell_qty`` count every
    order in the symbol that may still fill, whoever sent it. ``gross_usd`` is the worst-case exposure of all symbols,
    working orders included, and ``day_pnl_usd`` the day's profit after commissions.
    """

    symbol: int
    tick_size: float
    bid: float
    ask: float
    bid_size: float
    ask_size: float
    micro_price: float
    spread_median_bps: float
    book_valid: bool
    model_valid: bool
    warming: bool
    regime: int
    states: int
    confidence_ema: float
    qty: float
    held_qty: float
    working_buy_qty: float
    working_sell_qty: float
    gross_usd: float
    day_pnl_usd: float
    entries_allowed: bool
    exits_allowed: bool

    @property
    def mid(self) -> float:
        return 0.5 * (self.bid + self.ask)


@dataclass(frozen=True, slots=True)
class Place:
    """Send a limit order. ``qty`` shares, positive; an EXIT never goes past flat."""

    symbol: int
    side: Side
    qty: float
    limit_price: float
    purpose: Purpose
    tif: TimeInForce
    why: str


@dataclass(frozen=True, slots=True)
class Cancel:
    intent_id: int
    why: str


Action = Place | Cancel


class Strategy(Protocol):
    """Decisions depend on the arguments and on earlier calls only."""

    def on_signal(self, now: Situation, orders: tuple[Working, ...], now_ns: int) -> tuple[Action, ...]:
        """The market of one symbol moved."""

    def on_timer(self, now: Situation, orders: tuple[Working, ...], now_ns: int) -> tuple[Action, ...]:
        """Time passed: what waits for time alone (time-outs, the longest hold) happens here."""

    def busy(self, symbol: int) -> bool:
        """Does this symbol need ``on_timer`` although its market is silent?"""
