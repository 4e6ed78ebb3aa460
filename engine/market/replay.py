"""From ticks to bars off line: the same kernels as the live service, for training, replay and tests."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from engine.market.layout import BAR
from engine.market.state import Market

Records = npt.NDArray[np.void]


def collect_bars(market: Market, batches: Iterable[Records]) -> Records:
    """Bars (dtype BAR, time order) of all ticks; the bar that is open at the end is left out."""
    found = [bars.copy() for ticks in batches for bars in market.drain(ticks)]
    return np.concatenate(found) if found else np.zeros(0, BAR)


def sequences(bars: Records, bar_ns: int, least: int = 12) -> list[npt.NDArray[np.float64]]:
    """Features (n, F) of each unbroken run of valid bars of one symbol, at least ``least`` long."""
    result = []
    for s in np.unique(bars["symbol"]):
        mine = bars[(bars["symbol"] == s) & (bars["valid"] == 1)]
        cuts = np.flatnonzero(np.diff(mine["t_end_ns"]) != bar_ns) + 1
        result += [np.ascontiguousarray(part["x"]) for part in np.split(mine, cuts) if len(part) >= least]
    return result
