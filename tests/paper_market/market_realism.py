"""Order-flow statistics of an event stream, written for the tests and independent of the product's features.

OFI after Cont, Kukanov and Stoikov (2014); queue-imbalance AUC after Gould and Bonart (2016).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.paper.port import MarketEventKind

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class QuoteTape:
    """Best quotes after every change: times in s, prices and sizes, all shape (n,)."""

    t_s: Floats
    bid: Floats
    bid_size: Floats
    ask: Floats
    ask_size: Floats

    @property
    def mid(self) -> Floats:
        return 0.5 * (self.bid + self.ask)


def tape_of(events: npt.NDArray[np.void], symbol: int) -> QuoteTape:
    """Quote tape of one symbol; changes with one time stamp count once."""
    q = events[(events["symbol"] == symbol) & (events["kind"] == MarketEventKind.QUOTE)]
    n = len(q)
    columns = []
    for side in (1, 0):
        at = np.where(q["side"] == side, np.arange(n), -1)
        at = np.maximum.accumulate(at)
        columns.append((at, np.where(at >= 0, q["price"][at], np.nan), np.where(at >= 0, q["size"][at], np.nan)))
    good = (columns[0][0] >= 0) & (columns[1][0] >= 0)
    good[:-1] &= q["t_ns"][:-1] != q["t_ns"][1:]
    return QuoteTape(
        q["t_ns"][good] * 1e-9, columns[0][1][good], columns[0][2][good], columns[1][1][good], columns[1][2][good]
    )


def ofi_events(tape: QuoteTape) -> Floats:
    """Signed order-flow contribution of every quote change, shape (n - 1,)."""
    b, bs, a, as_ = tape.bid, tape.bid_size, tape.ask, tape.ask_size
    e = (b[1:] >= b[:-1]) * bs[1:] - (b[1:] <= b[:-1]) * bs[:-1]
    return np.asarray(e - (a[1:] <= a[:-1]) * as_[1:] + (a[1:] >= a[:-1]) * as_[:-1], float)


def r_squared(x: Floats, y: Floats) -> float:
    return float(np.corrcoef(x, y)[0, 1] ** 2)


def ofi_r2(tape: QuoteTape, window_s: float = 10.0, block_s: float = 1800.0) -> tuple[float, float]:
    """Contemporaneous and lag-1 R2 of the mid change on OFI, each the mean over blocks."""
    e = ofi_events(tape)
    t0 = tape.t_s[0]
    k = ((tape.t_s[1:] - t0) / window_s).astype(int)
    n = int(k[-1])
    flow = np.bincount(k, weights=e, minlength=n + 1)[:n]
    edges = np.searchsorted(tape.t_s, t0 + window_s * np.arange(n + 1), side="right") - 1
    move = np.diff(tape.mid[edges])
    per = int(block_s / window_s)
    now, lag = [], []
    for i in range(0, max(1, n - per + 1), per):
        f, m = flow[i : i + per], move[i : i + per]
        now.append(r_squared(f, m))
        lag.append(r_squared(f[:-1], m[1:]))
    return float(np.mean(now)), float(np.mean(lag))


def auc(score: Floats, up: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve, ties counted half."""
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - 0.5 * (counts - 1))[inverse]
    n_up, n_down = int(up.sum()), int((~up).sum())
    return float((rank[up].sum() - n_up * (n_up + 1) / 2) / (n_up * n_down))


def imbalance_auc(tape: QuoteTape, seed: int = 0, *, one_tick: bool = False) -> tuple[float, float]:
    """AUC of queue imbalance for the next mid move: (state just before the move, random moment since the last one).

    ``one_tick`` counts only states whose spread is the smallest of the tape.
    """
    mid = tape.mid
    spread = tape.ask - tape.bid
    tight = spread < spread[spread > 0].min() * 1.5
    moved = np.flatnonzero(np.diff(mid) != 0)  # state i is the last before a move
    imbalance = (tape.bid_size - tape.ask_size) / (tape.bid_size + tape.ask_size)
    up = mid[moved + 1] > mid[moved]
    first = moved[:-1] + 1
    rng = np.random.default_rng(seed)
    t = tape.t_s[first] + rng.random(len(first)) * (tape.t_s[moved[1:] + 1] - tape.t_s[first])
    at = np.searchsorted(tape.t_s, t, side="right") - 1
    before, between = (tight[moved], tight[at]) if one_tick else (np.ones(len(moved), bool), np.ones(len(at), bool))
    return auc(imbalance[moved][before], up[before]), auc(imbalance[at][between], up[1:][between])
