"""The last hours in memory, one sample a second: equity curve, drawdown, regime ribbon and confidence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine.cockpit.view import View
from engine.cockpit.words import display

EQUITY_SAMPLES = 7 * 3600
REGIME_SAMPLES = 900
WARMING = 255
_MOST_POINTS = 2_000


class History:
    """Fixed arrays used as rings; ``sample`` costs a few µs per symbol."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._symbols = [i for i in view.instruments if i.tradable]
        self._equity = np.full((EQUITY_SAMPLES, 4), np.nan)  # wall s, equity, day P&L, drawdown
        self._regime = np.full((REGIME_SAMPLES, len(self._symbols)), WARMING, np.uint8)
        self._confidence = np.full((REGIME_SAMPLES, len(self._symbols)), np.nan, np.float32)
        self._regime_t = np.zeros(REGIME_SAMPLES, np.int64)
        self._count = 0

    def sample(self) -> None:
        """Take one sample from a view that has just been refreshed."""
        view, n = self._view, self._count
        account = view.account()
        wall_ns = view.clock.wall_ns(view.now_ns)
        values = (account["equity_usd"], account["day_pnl_usd"], account["drawdown_usd"])
        self._equity[n % EQUITY_SAMPLES] = (wall_ns / 1e9, *(math.nan if v is None else v for v in values))
        at = n % REGIME_SAMPLES
        self._regime_t[at] = wall_ns // 1_000_000_000
        for column, i in enumerate(self._symbols):
            m = view.value("model", i.index)
            known = view.known("model", i.index) and not m["warming"]
            self._regime[at, column] = int(m["regime"]) if known else WARMING
            self._confidence[at, column] = float(m["confidence_ema"]) if known else math.nan
        self._count += 1

    def as_json(self) -> dict[str, Any]:
        """Columns, oldest first. Equity is thinned to about 2,000 points, the last one always included."""
        size = min(self._count, EQUITY_SAMPLES)
        order = (np.arange(self._count - size, self._count)) % EQUITY_SAMPLES
        step = max(1, -(-size // _MOST_POINTS))
        kept = self._equity[order][::-1][::step][::-1]
        size = min(self._count, REGIME_SAMPLES)
        recent = (np.arange(self._count - size, self._count)) % REGIME_SAMPLES
        return {
            "equity": {
                "t": kept[:, 0].round().tolist(),
                "equity_usd": _nullable(kept[:, 1]),
                "day_pnl_usd": _nullable(kept[:, 2]),
                "drawdown_usd": _nullable(kept[:, 3]),
            },
            "regimes": {
                "t": self._regime_t[recent].tolist(),
                "warming": WARMING,
                "symbols": {
                    display(i.symbol): {
                        "regime": self._regime[recent, c].tolist(),
                        "confidence": _nullable(self._confidence[recent, c].astype(np.float64).round(3)),
                    }
                    for c, i in enumerate(self._symbols)
                },
            },
        }


def _nullable(column: np.ndarray[Any, np.dtype[np.float64]]) -> list[float | None]:
    return [None if math.isnan(v) else v for v in column.tolist()]
