"""Folding journal rows: rows about an order into one order, fills into positions. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from engine.domain.codes import IntentKind, OrderState

Record = dict[str, Any]
_STATIC = ("symbol", "source", "intent_kind", "side", "order_type", "tif", "flags", "limit_price", "target_id", "key")


@dataclass(frozen=True, slots=True)
class Position:
    """What a symbol's fills add up to. Quantities are signed shares, money is USD.

    ``realized_pnl_usd`` is by average cost, before commissions; ``cash_flow_usd`` = -sum(signed qty × price).
    """

    qty: float = 0.0
    avg_cost: float = 0.0
    realized_pnl_usd: float = 0.0
    cash_flow_usd: float = 0.0
    commissions_usd: float = 0.0
    fills: int = 0


def fold_orders(rows: Iterable[Record]) -> list[Record]:
    """One record per new or replacing intent, from all rows about it in order; sorted by its newest row."""
    orders: dict[int, Record] = {}
    for row in rows:
        order = orders.setdefault(
            row["intent_id"],
            {
                "id": 0,
                "intent_id": row["intent_id"],
                "order_id": 0,
                "wall_ns": row["wall_ns"],
                "day": row["day"],
                **dict.fromkeys(_STATIC),
                "qty": None,
                "state": int(OrderState.PENDING),
                "refusal": None,
                "filled_qty": 0.0,
                "avg_price": None,
                "text": "",
            },
        )
        order["id"] = row["id"]
        order["updated_wall_ns"] = row["wall_ns"]
        for name in _STATIC:
            if row["row"] == "INTENT" or order[name] in (None, 0, ""):
                order[name] = row[name] if row[name] is not None else order[name]
        if row["row"] == "INTENT" or order["qty"] is None:
            order["qty"] = None if row["qty"] is None else abs(row["qty"])
        if row["row"] == "REFUSED":
            order["state"], order["refusal"] = int(OrderState.REFUSED), row["refusal"]
        elif row["row"] == "STATE":
            order["state"] = row["state"]
            order["order_id"] = row["order_id"] or order["order_id"]
            order["filled_qty"] = order["filled_qty"] if row["filled_qty"] is None else row["filled_qty"]
            order["avg_price"] = row["avg_price"] if row["avg_price"] is not None else order["avg_price"]
        order["text"] = row["text"] or order["text"]
    kept = (o for o in orders.values() if o["intent_kind"] != IntentKind.CANCEL)
    return sorted(kept, key=lambda o: int(o["id"]))


def positions(fills: Iterable[Record]) -> dict[str, Position]:
    """Positions from fills in the order of their execution; ``side`` is "BUY" or "SELL"."""
    found: dict[str, Position] = {}
    for fill in sorted(fills, key=lambda f: (f["exec_wall_ns"], f["id"])):
        signed = float(fill["qty"]) * (1.0 if fill["side"] == "BUY" else -1.0)
        known = found.get(fill["symbol"], Position())
        found[fill["symbol"]] = _apply(known, signed, float(fill["price"]), float(fill["commission_usd"]))
    return found


def _apply(p: Position, signed: float, price: float, commission: float) -> Position:
    qty = p.qty + signed
    realized, cost = p.realized_pnl_usd, p.avg_cost
    if p.qty * signed >= 0:
        cost = (p.avg_cost * abs(p.qty) + price * abs(signed)) / abs(qty) if qty else 0.0
    else:
        closed = min(abs(signed), abs(p.qty))
        realized += closed * (price - p.avg_cost) * (1.0 if p.qty > 0 else -1.0)
        if abs(signed) > abs(p.qty):
            cost = price
        elif abs(qty) < 1e-9:
            qty, cost = 0.0, 0.0
    return Position(qty, cost, realized, p.cash_flow_usd - signed * price, p.commissions_usd + commission, p.fills + 1)
