"""A manual order as it arrives: validated field by field, every error named. Pure.

The bridge's gate checks all of it again; this is for answers that tell a person which field to change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from engine.cockpit.errors import FieldError, invalid
from engine.config import Limits
from engine.domain.codes import OrderType, Side, TimeInForce
from engine.domain.instruments import Instrument

FIELDS = frozenset({"symbol", "qty", "side", "type", "limit", "tif", "mode", "tab", "arm"})
KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Ticket:
    """A valid order. ``limit`` is NaN for market."""

    instrument: Instrument
    side: Side
    qty: int
    order_type: OrderType
    limit: float
    tif: TimeInForce

    @property
    def words(self) -> str:
        return order_words(self.side.name, self.qty, self.instrument.symbol, self.limit, self.tif.name)


def order_words(side: str, qty: int, symbol: str, limit: float, tif: str) -> str:
    """An order in words, every digit of its price included: equal words are the same order."""
    price = f"LMT {limit:.12g}" if math.isfinite(limit) else "MKT"
    return f"{side} {qty} {symbol} {price} {tif}"


def parse(body: dict[str, Any], instruments: tuple[Instrument, ...], limits: Limits, mids: dict[int, float]) -> Ticket:
    """Raises Problem 422 naming every wrong field. ``mids``: symbol number to mid price, where known."""
    wrong: list[FieldError] = []

    def bad(field: str, reason: str) -> None:
        wrong.append(FieldError(field, reason))

    for name in sorted(set(body) - FIELDS):
        bad(str(name), f"unknown field; known are {', '.join(sorted(FIELDS))}")
    instrument = _instrument(body.get("symbol"), instruments, bad)
    qty = _quantity(body.get("qty"), limits, bad)
    side = _choice(body, "side", Side, ("BUY", "SELL"), None, bad)
    order_type = _choice(body, "type", OrderType, ("LMT", "MKT"), None, bad)
    tif = _choice(body, "tif", TimeInForce, ("DAY", "IOC", "GTC"), TimeInForce.DAY, bad)
    limit = math.nan
    if order_type == OrderType.MKT and body.get("limit") is not None:
        bad("limit", "a market order has none: leave it out or use type LMT")
    elif order_type == OrderType.LMT:
        limit = _limit(body.get("limit"), instrument, bad)
    if instrument is not None and qty and side is not None and not wrong:
        mid = mids.get(instrument.index, math.nan)
        _against_market(limit, mid, side, qty, limits, bad)
    if wrong or instrument is None or side is None or order_type is None or tif is None:
        raise invalid(*wrong)
    return Ticket(instrument, side, qty, order_type, limit, tif)


def _instrument(value: Any, instruments: tuple[Instrument, ...], bad: Any) -> Instrument | None:
    tradable = [i for i in instruments if i.tradable]
    for i in tradable:
        if value == i.symbol:
            return i
    names = ", ".join(i.symbol for i in tradable)
    bad(
        "symbol",
        f"{value!r} is not traded here; known are {names}" if value is not None else f"missing; one of {names}",
    )
    return None


def _quantity(value: Any, limits: Limits, bad: Any) -> int:
    if value is None:
        bad("qty", "missing; a positive whole number of shares")
    elif isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        bad("qty", f"{value!r} is not a positive whole number of shares")
    elif value > limits.order_qty:
        bad("qty", f"{value} is above limits.order_qty {limits.order_qty:g}")
    else:
        return value
    return 0


def _choice(body: dict[str, Any], field: str, kind: Any, allowed: tuple[str, ...], default: Any, bad: Any) -> Any:
    value = body.get(field)
    if value is None and default is not None:
        return default
    if value not in allowed:
        bad(field, f"{'missing' if value is None else repr(value)}; allowed are {', '.join(allowed)}")
        return None
    return kind[value]


def _limit(value: Any, instrument: Instrument | None, bad: Any) -> float:
    if value is None:
        bad("limit", "missing; an order of type LMT needs its price")
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        bad("limit", f"{value!r} is not a positive price")
        return math.nan
    price = float(value)
    if instrument is not None:
        ticks = price / instrument.tick_size
        if abs(ticks - round(ticks)) > 1e-6 * max(1.0, ticks):
            bad("limit", f"{price:g} is not on the price increment {instrument.tick_size:g}")
    return price


def _against_market(limit: float, mid: float, side: Side, qty: int, limits: Limits, bad: Any) -> None:
    price = limit if math.isfinite(limit) else mid
    if math.isfinite(price) and price * qty > limits.order_notional_usd:
        most = int(limits.order_notional_usd // price)
        bad(
            "qty",
            f"{qty} × {price:.2f} = {price * qty:,.0f} USD is above limits.order_notional_usd "
            f"{limits.order_notional_usd:,.0f}: at most {most}",
        )
    if math.isfinite(limit) and math.isfinite(mid):
        away_pct = (limit / mid - 1.0) * 100.0 * int(side)
        if away_pct > limits.collar_pct:
            bad(
                "limit", f"{limit:g} is {away_pct:.1f} % through the mid {mid:.2f}, allowed are {limits.collar_pct:g} %"
            )


def reduces(qty_now: float, working_same_side: float, side: Side, qty: int) -> bool:
    """Does this order only bring a confirmed position towards zero, what already works on its side included?"""
    return qty_now * int(side) < 0 and qty + working_same_side <= abs(qty_now)


def idempotency_key(header: str | None) -> bytes:
    """Raises Problem 422 if the key does not fit the intent's field."""
    if not header:
        return b""
    raw = header.encode("utf-8", "replace")
    if len(raw) > KEY_BYTES or not header.isprintable() or not header.isascii():
        raise invalid(
            FieldError("Idempotency-Key", f"{len(raw)} bytes; at most {KEY_BYTES} printable ASCII characters")
        )
    return raw
