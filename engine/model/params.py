"""A fitted regime model as plain arrays: what a bundle stores and what the compiled filter reads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from shm.layouts import MAX_STATES

Array = npt.NDArray[np.float64]
PSI_BINS = 10


class ModelInvalid(Exception):
    """The arrays are no model; the text names the array, what it is and what is allowed."""


def schema_hash(schema: str) -> str:
    """16 hex digits of a feature schema (version and names in order)."""
    return hashlib.blake2b(schema.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Model:
    """Gaussian HMM with K states over F features, states in order of mean log realised variance.

    ``startprob`` (K,), ``transmat`` (K, K) rows sum to 1, ``means`` (K, F) and ``covars`` (K, F, F) of the standardised
    features (x - ``shift``) / ``scale``, each (F,). ``loglik_floor`` is the 1 % quantile of the step log-likelihood in
    training; ``psi_edges`` (F, PSI_BINS - 1) and ``psi_shares`` (F, PSI_BINS) describe the training distribution.
    ``provenance`` is "synthetic", "recorded" or "recording" (an order-book file).
    """

    startprob: Array
    transmat: Array
    means: Array
    covars: Array
    shift: Array
    scale: Array
    loglik_floor: float
    psi_edges: Array
    psi_shares: Array
    schema: str
    provenance: str
    bar_s: float
    version: int = 0
    created_wall_ns: int = 0
    window: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def states(self) -> int:
        return len(self.startprob)

    @property
    def features(self) -> int:
        return len(self.shift)

    def check(self) -> None:
        """Raises ModelInvalid naming the first broken rule."""
        k, f = self.states, self.features
        if not 1 <= k <= MAX_STATES:
            raise ModelInvalid(f"model has {k} states, allowed are 1 to {MAX_STATES}")
        shapes = {
            "transmat": (k, k),
            "means": (k, f),
            "covars": (k, f, f),
            "scale": (f,),
            "psi_edges": (f, PSI_BINS - 1),
            "psi_shares": (f, PSI_BINS),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ModelInvalid(f"model array {name} has shape {getattr(self, name).shape}, expected {shape}")
        for name in ("startprob", "shift", *shapes):
            if not np.isfinite(getattr(self, name)).all():
                raise ModelInvalid(f"model array {name} holds a value that is not finite")
        if not (self.scale > 0).all():
            raise ModelInvalid(f"model array scale has minimum {self.scale.min()}, must be above 0")
        for name, rows in (("startprob", self.startprob[None]), ("transmat", self.transmat)):
            if (rows < 0).any() or np.abs(rows.sum(axis=1) - 1.0).max() > 1e-6:
                raise ModelInvalid(f"model array {name} holds a row that is no probability distribution")
        for i, covar in enumerate(self.covars):
            least = float(np.linalg.eigvalsh(covar).min())
            if not least > 0:
                raise ModelInvalid(f"covariance of state {i} has eigenvalue {least:g}, must be above 0")
        if not np.isfinite(self.loglik_floor):
            raise ModelInvalid(f"loglik_floor is {self.loglik_floor}, must be finite")

    def compiled(self) -> tuple[Array, ...]:
        """Arrays for the filter kernel: start, transition, means, whitening (K, F, F), log constants, shift, scale."""
        lower = np.linalg.cholesky(self.covars)
        white = np.linalg.inv(lower)
        constant = -0.5 * self.features * np.log(2 * np.pi) - np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1)
        arrays = (self.startprob, self.transmat, self.means, white, constant, self.shift, self.scale)
        return tuple(np.ascontiguousarray(a, np.float64) for a in arrays)
