"""What a model is worth, measured forward in time only, and the gate between a candidate and the incumbent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.market.replay import sequences
from engine.model.filter import filter_sequence
from engine.model.fit import LEAST_OCCUPANCY, FitFailed, Score, fit, score
from engine.model.params import Model

Records = npt.NDArray[np.void]
Array = npt.NDArray[np.float64]
FOLDS = (0.4, 0.6)
HOLDOUT = 0.2
LOGLIK_SLACK = 0.02
"""Per bar: a candidate may be worse by this much on the hold-out and still replace an older model."""
INVALID_LIMIT = 0.15
HONEST_NOTE = (
    "Regimes describe liquidity and volatility. They are not directional alpha: the fit is contemporaneous, "
    "and what is left for prediction is close to nothing before costs."
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of the gate: ``reasons`` against promotion in words, empty if promoted."""

    promoted: bool
    reasons: tuple[str, ...]


def split(bars: Records, low: float, high: float) -> Records:
    """Bars between two fractions of the distinct bar ends: a cut in time, the same for every symbol."""
    ends = np.unique(bars["t_end_ns"])
    first, last = int(low * len(ends)), int(high * len(ends))
    if first >= last:
        return bars[:0]
    mine = bars["t_end_ns"]
    result: Records = bars[(mine >= ends[first]) & (mine <= ends[last - 1])]
    return result


def walk_forward(
    bars: Records, bar_ns: int, states: int, seed: int, progress: Callable[[str, int, int], None] | None = None
) -> list[dict[str, float]]:
    """Expanding window: fit on the first share, score on the next fifth, with K states and with one."""
    result = []
    for n, cut in enumerate(FOLDS):
        train = sequences(split(bars, 0.0, cut), bar_ns)
        test = sequences(split(bars, cut, cut + HOLDOUT), bar_ns)
        if not train or not test:
            continue
        row = {"train_share": cut}
        for k in sorted({1, states}):
            try:
                row[f"loglik_k{k}"] = round(score(fit(train, k, restarts=1, seed=seed), test).loglik_standardised, 4)
            except FitFailed:
                row[f"loglik_k{k}"] = float("nan")
        result.append(row)
        if progress is not None:
            progress("walk-forward", n + 1, len(FOLDS))
    return result


def direction(model: Model, bars: Records, bar_ns: int) -> dict[str, float]:
    """Correlation of the regime's mean return with the return of the same and of the next bar, and lag-1 OFI R²."""
    same, after, flow_now, flow_next = [], [], [], []
    for s in np.unique(bars["symbol"]):
        mine = bars[(bars["symbol"] == s) & (bars["valid"] == 1)]
        if len(mine) < 30 or (np.diff(mine["t_end_ns"]) != bar_ns).any():
            continue
        alpha, _ = filter_sequence(model, np.ascontiguousarray(mine["x"]))
        move = mine["mid_close"] - mine["mid_open"]
        half = len(move) // 2  # the regimes' mean returns come from the first half, the correlations from the second
        mean = (alpha[:half] * move[:half, None]).sum(axis=0) / np.maximum(alpha[:half].sum(axis=0), 1e-9)
        guess = alpha @ mean
        same.append(_corr(guess[half:], move[half:]))
        after.append(_corr(guess[half:-1], move[half + 1 :]))
        flow_now.append(_corr(mine["x"][:, 0], move) ** 2)
        flow_next.append(_corr(mine["x"][:-1, 0], move[1:]) ** 2)
    return {
        "regime_return_correlation_same_bar": _mean(same),
        "regime_return_correlation_next_bar": _mean(after),
        "ofi_r2_same_bar": _mean(flow_now),
        "ofi_r2_next_bar": _mean(flow_next),
    }


def _corr(a: Array, b: Array) -> float:
    if len(a) < 3 or a.std() < 1e-12 or b.std() < 1e-12:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4) if values else 0.0


def gate(candidate: Model, candidate_score: Score, overall: Score, incumbent: Score | None) -> Verdict:
    """May the candidate replace the incumbent? Scores are of the same hold-out; ``overall`` is of all bars."""
    reasons = []
    if overall.bars and min(overall.occupancy) < LEAST_OCCUPANCY:
        reasons.append(
            f"a regime holds {min(overall.occupancy):.1%} of the bars, at least {LEAST_OCCUPANCY:.0%} are needed"
        )
    if candidate_score.invalid_share > INVALID_LIMIT:
        reasons.append(
            f"{candidate_score.invalid_share:.1%} of the hold-out does not fit, allowed are {INVALID_LIMIT:.0%}"
        )
    if not candidate.metrics.get("monotone", True):
        reasons.append("the likelihood fell during the fit")
    if incumbent is not None and candidate_score.loglik < incumbent.loglik - LOGLIK_SLACK:
        reasons.append(
            f"log-likelihood per bar {candidate_score.loglik:.3f} on the hold-out, "
            f"the incumbent has {incumbent.loglik:.3f}"
        )
    return Verdict(not reasons, tuple(reasons))


def metrics_of(
    holdout: Score, overall: Score, folds: list[dict[str, float]], worth: dict[str, float]
) -> dict[str, Any]:
    """The metrics stored in a bundle and shown on the analytics page."""
    return {
        "holdout": asdict(holdout),
        "overall": asdict(overall),
        "walk_forward": folds,
        "worth": worth,
        "note": HONEST_NOTE,
    }
