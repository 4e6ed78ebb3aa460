"""A small known model and bars drawn from it."""

from __future__ import annotations

import numpy as np

from engine.market.layout import BAR, FEATURE_SCHEMA
from engine.model.fit import psi_reference
from engine.model.params import Model

BAR_NS = 10_000_000_000
F = 6


def known_model(states: int = 3, seed: int = 1, version: int = 1, provenance: str = "synthetic") -> Model:
    """Well separated Gaussian regimes in order of log realised variance (column 3)."""
    rng = np.random.default_rng(seed)
    means = rng.normal(0.0, 0.5, (states, F))
    means[:, 3] = np.linspace(-2.0, 2.0, states)
    covars = np.stack([np.eye(F) * 0.3 + 0.05 * np.ones((F, F)) for _ in range(states)])
    transmat = np.full((states, states), 0.1 / max(1, states - 1))
    np.fill_diagonal(transmat, 0.9 if states > 1 else 1.0)
    sample = rng.normal(0.0, 1.3, (2_000, F))
    edges, shares = psi_reference(sample)
    return Model(
        startprob=np.full(states, 1.0 / states), transmat=transmat, means=means, covars=covars,
        shift=np.array([0.0, 0.0, 0.2, 2.0, 7.0, 8.5]), scale=np.array([5.0, 0.2, 0.3, 1.5, 0.4, 0.3]),
        loglik_floor=-14.0, psi_edges=edges, psi_shares=shares, schema=FEATURE_SCHEMA, provenance=provenance,
        bar_s=10.0, version=version, window="test", metrics={"note": "known"},
    )  # fmt: skip


def draw(model: Model, bars: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Raw features (n, F) and hidden states (n,) of the model."""
    rng = np.random.default_rng(seed)
    path = np.zeros(bars, int)
    for t in range(1, bars):
        path[t] = rng.choice(model.states, p=model.transmat[path[t - 1]])
    lower = np.linalg.cholesky(model.covars)
    z = model.means[path] + np.einsum("nij,nj->ni", lower[path], rng.normal(size=(bars, F)))
    return z * model.scale + model.shift, path


def bars_of(model: Model, bars: int, symbols: int, seed: int = 5) -> np.ndarray:
    """Valid BAR records of several symbols, in time order."""
    records = np.zeros((bars, symbols), BAR)
    for s in range(symbols):
        x, _ = draw(model, bars, seed + s)
        records[:, s]["x"] = x
        records[:, s]["symbol"] = s
        move = np.random.default_rng(seed + 100 + s).normal(0.0, 0.02, bars)
        records[:, s]["mid_open"] = 100.0
        records[:, s]["mid_close"] = 100.0 + move
    records["t_end_ns"] = (np.arange(1, bars + 1) * BAR_NS)[:, None]
    records["valid"] = 1
    return records.reshape(-1)
