"""What the market looks like: quotes with their freshness, depth, and what the models make of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from engine.cockpit.words import display, number
from engine.domain.instruments import Instrument

if TYPE_CHECKING:
    from engine.cockpit.view import View

Json = dict[str, Any]


def quotes(view: View) -> list[Json]:
    """One line per symbol: prices, freshness, session."""
    out = []
    for i in view.instruments:
        b = view.value("book", i.index)
        seen = view.known("book", i.index)
        out.append({
            "symbol": display(i.symbol),
            "tradable": i.tradable,
            "bid": number(float(b["bid_price"][0])) if seen and b["bid_rows"] else None,
            "ask": number(float(b["ask_price"][0])) if seen and b["ask_rows"] else None,
            "mid": view.mid(i.index),
            "last": number(float(b["last_price"])) if seen and b["last_price"] > 0 else None,
            "spread_bps": number(float(b["spread_bps"])) if seen and b["bid_rows"] and b["ask_rows"] else None,
            "fair_value": number(float(b["fair_value"])) if seen and b["fair_value"] > 0 else None,
            "age_s": view.age_s(int(b["t_socket_ns"])) if seen else None,
            "stale_after_s": stale_after_s(view, i),
            "valid": bool(b["valid"]),
            "halted": bool(b["halted"]),
            "session_open": bool(b["session_open"]),
            "updates": int(b["updates"]),
            "traded_qty": number(float(b["traded_qty"])),
        })  # fmt: skip
    return out


def stale_after_s(view: View, instrument: Instrument) -> float:
    g = view.config.guardrails
    if not instrument.tradable:
        return g.index_stale_s
    gap = float(view.value("book", instrument.index)["gap_median_ns"]) / 1e9
    return max(g.stale_min_s, g.stale_factor * gap) if np.isfinite(gap) else g.stale_min_s


def book(view: View, index: int) -> Json:
    """Depth of one symbol: best first, ``[price, size]`` rows."""
    b = view.value("book", index)
    bids, asks = int(b["bid_rows"]), int(b["ask_rows"])
    return {
        "symbol": display(view.instruments[index].symbol),
        "tick_size": view.instruments[index].tick_size,
        "bids": np.column_stack((b["bid_price"][:bids], b["bid_size"][:bids])).tolist(),
        "asks": np.column_stack((b["ask_price"][:asks], b["ask_size"][:asks])).tolist(),
        "mid": view.mid(index),
        "micro_price": number(float(b["micro_price"])) if b["micro_price"] > 0 else None,
        "fair_value": number(float(b["fair_value"])) if b["fair_value"] > 0 else None,
        "last": number(float(b["last_price"])) if b["last_price"] > 0 else None,
        "valid": bool(b["valid"]),
        "halted": bool(b["halted"]),
        "crossed": bool(b["crossed_since_ns"]),
        "updates": int(b["updates"]),
        "age_s": view.age_s(int(b["t_socket_ns"])),
        "t": view.clock.wall_ns(int(b["t_socket_ns"])) // 1_000_000 if b["t_socket_ns"] else None,
    }


def models(view: View) -> list[Json]:
    out = []
    for i in view.instruments:
        if not i.tradable:
            continue
        m = view.value("model", i.index)
        seen, states = view.known("model", i.index), int(m["states"])
        out.append({
            "symbol": display(i.symbol),
            "regime": int(m["regime"]) if seen else None,
            "states": states,
            "probability": [round(float(p), 4) for p in m["probability"][:states]],
            "confidence": number(float(m["confidence"])) if seen else None,
            "confidence_ema": number(float(m["confidence_ema"])) if seen else None,
            "warming": bool(m["warming"]) or not seen,
            "valid": bool(m["valid"]),
            "invalid_share": number(float(m["invalid_share"])),
            "psi": number(float(m["psi"])),
            "expected_move_bps": number(float(m["expected_move_bps"])),
            "bars": int(m["bars"]),
            "model_id": int(m["model_id"]),
            "age_s": view.age_s(int(m["t_ns"])),
        })  # fmt: skip
    return out
