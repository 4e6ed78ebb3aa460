"""Fitting: hmmlearn behind the checks that it does not make itself. Never imported by a service.

What is done about the library's habits: features are standardised; the start is sticky (transmat_prior = 1 + kI), so
that no transition is zero for good; the covariance prior is a matrix, because a scalar is added to every element; the
floor is an own one on eigenvalues after the fit; ``converged`` is not believed, iterations and monotonicity are looked
at; several restarts compete; states are put in order of mean log realised variance.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.model.filter import filter_sequence
from engine.model.params import PSI_BINS, Model

Array = npt.NDArray[np.float64]
STICKY = 20.0
COVARIANCE_FLOOR = 1e-3
ITERATIONS = 60
LEAST_OCCUPANCY = 0.03
LEAST_BARS = 120
LOG_RV = 3
"""Column of the log realised variance, which orders the states."""


class FitFailed(Exception):
    """No restart gave a usable model; the text says why."""


@dataclass(frozen=True, slots=True)
class Score:
    """Out-of-sample worth of a model. ``loglik`` is per bar, in units of the raw features, so models compare."""

    bars: int
    loglik: float
    loglik_standardised: float
    invalid_share: float
    confidence: float
    occupancy: tuple[float, ...]
    dwell_bars: tuple[float, ...]


def standardiser(sequences: Sequence[Array]) -> tuple[Array, Array]:
    """Mean and standard deviation per feature over all sequences; a constant feature gets scale 1."""
    x = np.concatenate(list(sequences))
    scale = x.std(axis=0)
    return x.mean(axis=0), np.where(scale > 1e-9, scale, 1.0)


def fit(
    sequences: Sequence[Array],
    states: int,
    *,
    restarts: int = 5,
    seed: int = 0,
    iterations: int = ITERATIONS,
    schema: str = "",
    bar_s: float = 10.0,
    provenance: str = "synthetic",
    window: str = "",
    progress: Callable[[str, int, int], None] | None = None,
) -> Model:
    """Fit K states to sequences of raw features, each (n, F), one per symbol and session.

    Raises FitFailed when there is too little data or no restart ends in a usable model.
    """
    from hmmlearn import hmm
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    logging.getLogger("hmmlearn").setLevel(logging.CRITICAL)  # its own convergence notes are wrong, see above
    total = sum(len(s) for s in sequences)
    if total < LEAST_BARS:
        raise FitFailed(f"{total} bars to train on, at least {LEAST_BARS} are needed: record or generate more")
    shift, scale = standardiser(sequences)
    z = np.concatenate([(s - shift) / scale for s in sequences])
    # atoms (many equal rows, as a stuck feed gives) make a density singular: a trace of noise dissolves them
    z += np.random.default_rng(seed).normal(0.0, 1e-3, z.shape)
    lengths = [len(s) for s in sequences]
    features = z.shape[1]
    best: tuple[float, Any, int, bool] | None = None
    problems = []
    for restart in range(restarts):
        model = hmm.GaussianHMM(
            n_components=states,
            covariance_type="full",
            n_iter=iterations,
            tol=2e-5 * total,
            transmat_prior=1.0 + STICKY * np.eye(states),
            covars_prior=np.broadcast_to(0.05 * np.eye(features), (states, features, features)).copy(),
            random_state=seed * 1000 + restart,
            min_covar=COVARIANCE_FLOOR,
            implementation="scaling",
        )
        try:
            # one thread: the matrices are tiny, and a pool would spin on the cores of the hot services
            with warnings.catch_warnings(), threadpool_limits(1):
                warnings.simplefilter("ignore")
                model.fit(z, lengths)
                score = float(model.score(z, lengths))
        except (ValueError, np.linalg.LinAlgError, FloatingPointError) as error:
            problems.append(f"restart {restart}: {error}")
            continue
        if progress is not None:
            progress("fit", restart + 1, restarts)
        history = np.array(model.monitor_.history)
        monotone = bool((np.diff(history) > -1e-6 * np.abs(history[1:])).all())
        if not np.isfinite(score) or not np.isfinite(model.transmat_).all():
            problems.append(f"restart {restart}: not finite")
            continue
        if best is None or score > best[0]:
            best = (score, model, int(model.monitor_.iter), monotone)
    if best is None:
        raise FitFailed(f"no restart of {restarts} gave a model: {'; '.join(problems)}")
    score, fitted, used, monotone = best
    covars = np.stack([_floored(c) for c in fitted.covars_])
    order = np.argsort(fitted.means_[:, min(LOG_RV, features - 1)])
    transmat = fitted.transmat_[np.ix_(order, order)]
    raw = np.concatenate(list(sequences))
    edges, shares = psi_reference((raw - shift) / scale)
    model = Model(
        startprob=_distribution(fitted.startprob_[order]),
        transmat=np.stack([_distribution(row) for row in transmat]),
        means=fitted.means_[order],
        covars=covars[order],
        shift=shift,
        scale=scale,
        loglik_floor=0.0,
        psi_edges=edges,
        psi_shares=shares,
        schema=schema,
        provenance=provenance,
        bar_s=bar_s,
        window=window,
        metrics={"iterations": used, "monotone": monotone, "capped": used >= iterations},
    )
    steps = np.concatenate([filter_sequence(model, s)[1] for s in sequences])
    return replace(model, loglik_floor=float(np.quantile(steps, 0.01)))


def _floored(covar: Array) -> Array:
    values, vectors = np.linalg.eigh(covar)
    result: Array = (vectors * np.maximum(values, COVARIANCE_FLOOR)) @ vectors.T
    return 0.5 * (result + result.T)


def _distribution(row: Array) -> Array:
    row = np.maximum(np.nan_to_num(row), 1e-6)
    result: Array = row / row.sum()
    return result


def psi_reference(z: Array) -> tuple[Array, Array]:
    """Decile edges (F, 9) of the training features and the shares (F, 10) that fall between them."""
    edges = np.quantile(z, np.arange(1, PSI_BINS) / PSI_BINS, axis=0).T
    shares = np.empty((z.shape[1], PSI_BINS))
    for f in range(z.shape[1]):
        counts = np.bincount(np.searchsorted(edges[f], z[:, f], side="left"), minlength=PSI_BINS)
        shares[f] = (counts + 0.5) / (len(z) + 0.5 * PSI_BINS)
    return np.ascontiguousarray(edges), shares


def score(model: Model, sequences: Sequence[Array]) -> Score:
    """Score the online filter on sequences of raw features it was not fitted on."""
    alphas, logliks, runs = [], [], []
    for s in sequences:
        alpha, loglik = filter_sequence(model, s)
        alphas.append(alpha)
        logliks.append(loglik)
        path = alpha.argmax(axis=1)
        cuts = np.flatnonzero(np.diff(path)) + 1
        runs += [(int(part[0]), len(part)) for part in np.split(path, cuts) if len(part)]
    alpha, loglik = np.concatenate(alphas), np.concatenate(logliks)
    share = np.bincount(alpha.argmax(axis=1), minlength=model.states) / len(alpha)
    dwell = [float(np.mean([n for k, n in runs if k == state] or [0])) for state in range(model.states)]
    return Score(
        bars=len(loglik),
        loglik=float(loglik.mean() - np.log(model.scale).sum()),
        loglik_standardised=float(loglik.mean()),
        invalid_share=float((loglik < model.loglik_floor).mean()),
        confidence=float(alpha.max(axis=1).mean()),
        occupancy=tuple(round(float(s), 4) for s in share),
        dwell_bars=tuple(round(d, 2) for d in dwell),
    )


def match_states(model: Model, incumbent: Model) -> Model:
    """Permute the states of ``model`` so that each keeps the incumbent's name (Hungarian assignment of raw means).

    Unchanged when the numbers of states or features differ.
    """
    if model.states != incumbent.states or model.features != incumbent.features:
        return model
    from scipy.optimize import linear_sum_assignment

    ours = model.means * model.scale + model.shift
    theirs = incumbent.means * incumbent.scale + incumbent.shift
    cost = (((theirs[:, None, :] - ours[None, :, :]) / incumbent.scale) ** 2).sum(axis=2)
    _, order = linear_sum_assignment(cost)
    return replace(
        model,
        startprob=model.startprob[order],
        transmat=model.transmat[np.ix_(order, order)],
        means=model.means[order],
        covars=model.covars[order],
    )
