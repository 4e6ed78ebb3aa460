"""The forward filter: filtered regime probabilities bar by bar, with confidence, validity and drift.

Per step p = a·A, l = log-density of each state, m = max l, w = p·exp(l - m), a = w / sum w, and the step's
log-likelihood is m + log sum w: hmmlearn's forward pass without its backward one. Smoothed probabilities would use the
future. Confidence is the largest filtered probability: how sure the model is given itself, not whether it fits. Whether
it fits is the share of steps whose log-likelihood lies below the 1 % quantile of training.
"""

# ruff: noqa: I001
from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from shm.jit import kernel, rec
from numba import types

from engine.model.params import PSI_BINS, Model
from shm.layouts import MAX_STATES, MODEL

MAX_FEATURES = 8
VALIDITY_RING = 64
PSI_RING = 180
"""Bars behind the drift figure: half an hour of 10-second bars."""
PSI_LEAST = 60
STUCK_BARS = 6
"""So many bars without a change of any feature are a stuck feed, however well they fit."""
_FLOOR = 1e-13  # of a predicted probability: a state given up for good could never come back
_LEAST_LOG = -1e6
_FARTHEST = 1e6
"""Standard deviations: farther out is the same, and squares stay finite."""

FILTER = np.dtype(
    [
        ("alpha", "<f8", (MAX_STATES,)),
        ("steps", "<i8"),  # since the last reset
        ("bars", "<i8"),  # ever
        ("ema", "<f8"),
        ("loglik", "<f8"),
        ("ring_n", "<i8"),
        ("ring", "u1", (VALIDITY_RING,)),
        ("same", "<i8"),
        ("last", "<f8", (MAX_FEATURES,)),
        ("psi_n", "<i8"),
        ("psi_ring", "u1", (PSI_RING, MAX_FEATURES)),
        ("psi_count", "<i8", (MAX_FEATURES, PSI_BINS)),
    ]
)
"""Filter state of one symbol."""

_void, _i8, _f8 = types.void, types.int64, types.float64
_F1, _F2, _F3, _I1 = _f8[::1], _f8[:, ::1], _f8[:, :, ::1], _i8[::1]
_FILTERS, _MODELS = rec(FILTER), rec(MODEL)


@kernel(_f8(_F1, _F1, _i8, _F1, _F2, _F2, _F3, _F1))
def forward(alpha: Any, z: Any, first: int, start: Any, trans: Any, means: Any, white: Any, constant: Any) -> float:
    """One step with standardised features ``z``; updates ``alpha`` in place and returns the step's log-likelihood.

    ``alpha`` is left alone and NaN returned when ``z`` is not finite.
    """
    states, features = means.shape
    log_density = np.empty(states)
    predicted = np.empty(states)
    best = -math.inf
    for k in range(states):
        distance = 0.0
        for i in range(features):
            y = 0.0
            for j in range(i + 1):
                y += white[k, i, j] * (z[j] - means[k, j])
            distance += y * y
        value = constant[k] - 0.5 * distance
        if math.isnan(value):
            return math.nan
        log_density[k] = max(value, _LEAST_LOG)
        best = max(best, log_density[k])
        p = start[k]
        if first == 0:
            p = 0.0
            for j in range(states):
                p += alpha[j] * trans[j, k]
        predicted[k] = max(p, _FLOOR)
    total = 0.0
    for k in range(states):
        predicted[k] *= math.exp(log_density[k] - best)
        total += predicted[k]
    for k in range(states):
        alpha[k] = predicted[k] / total
    return best + math.log(total)


@kernel(_f8(_FILTERS, _i8, _F1, _F2, _F2))
def drift(filters: Any, s: int, z: Any, edges: Any, shares: Any) -> float:
    """Count the features of one bar and return the largest population stability index; NaN with too few bars."""
    me = filters[s]
    features = edges.shape[0]
    slot = me["psi_n"] % PSI_RING
    worst = 0.0
    for f in range(features):
        b = 0
        while b < PSI_BINS - 1 and z[f] > edges[f, b]:
            b += 1
        if me["psi_n"] >= PSI_RING:
            me["psi_count"][f, me["psi_ring"][slot, f]] -= 1
        me["psi_ring"][slot, f] = b
        me["psi_count"][f, b] += 1
    me["psi_n"] += 1
    n = min(me["psi_n"], PSI_RING)
    for f in range(features):
        index = 0.0
        for b in range(PSI_BINS):
            # half a bar more in every bin: an empty bin is not infinite evidence
            share = (me["psi_count"][f, b] + 0.5) / (n + 0.5 * PSI_BINS)
            index += (share - shares[f, b]) * math.log(share / shares[f, b])
        worst = max(worst, index)
    return worst if n >= PSI_LEAST else math.nan


@kernel(
    _void(_FILTERS, _MODELS, _I1, _F2, _I1, _i8, _F1, _F2, _F2, _F3, _F1, _F1, _F1, _F2, _F2, _f8, _f8, _f8, _i8, _i8)
)
def step_bars(
    filters: Any,
    models: Any,
    symbols: Any,
    x: Any,
    valid: Any,
    t_ns: int,
    start: Any,
    trans: Any,
    means: Any,
    white: Any,
    constant: Any,
    shift: Any,
    scale: Any,
    edges: Any,
    shares: Any,
    loglik_floor: float,
    ema_weight: float,
    invalid_limit: float,
    window: int,
    warm_bars: int,
) -> None:
    """One bar of each listed symbol: step its filter and fill its model record.

    ``x`` (n, F) raw features; ``valid`` (n,) 0 for a bar without a usable book: the filter rests, and the model is not
    valid until the next good bar. Validity is a share of ``window`` bars that had something to judge: bars without a
    book or without any change are a missing feed, not a market that the model does not know, and an outage must leave
    no verdict behind that outlives it.
    """
    states, features = means.shape
    z = np.empty(features)
    alpha = np.empty(states)
    for n in range(len(symbols)):
        s = symbols[n]
        me, out = filters[s], models[s]
        finite = valid[n] == 1
        changed = False
        for f in range(features):
            z[f] = (x[n, f] - shift[f]) / scale[f]
            z[f] = min(_FARTHEST, max(-_FARTHEST, z[f]))
            if not math.isfinite(x[n, f]):
                finite = False
            elif x[n, f] != me["last"][f]:
                changed = True
                me["last"][f] = x[n, f]
        me["same"] = 0 if changed else me["same"] + 1
        if finite:
            for k in range(states):
                alpha[k] = me["alpha"][k]
            me["loglik"] = forward(alpha, z, 1 if me["steps"] == 0 else 0, start, trans, means, white, constant)
            for k in range(states):
                me["alpha"][k] = alpha[k]
            confidence = 0.0
            regime = 0
            for k in range(states):
                if alpha[k] > confidence:
                    confidence = alpha[k]
                    regime = k
            me["ema"] = confidence if me["steps"] == 0 else me["ema"] + ema_weight * (confidence - me["ema"])
            me["steps"] += 1
            me["bars"] += 1
            if changed:
                me["ring"][me["ring_n"] % window] = 1 if me["loglik"] < loglik_floor else 0
                me["ring_n"] += 1
            out["psi"] = drift(filters, s, z, edges, shares)
            out["confidence"] = confidence
            out["confidence_ema"] = me["ema"]
            out["step_loglik"] = me["loglik"]
            out["regime"] = regime
            for k in range(MAX_STATES):
                out["probability"][k] = alpha[k] if k < states else 0.0
        seen = min(me["ring_n"], window)
        total = 0
        for i in range(seen):
            total += me["ring"][i]
        # a single odd bar among the first few is no verdict: the share counts at least half a window
        share = total / max(seen, (window + 1) // 2)
        out["t_ns"] = t_ns
        out["bars"] = me["bars"]
        out["states"] = states
        out["invalid_share"] = share
        out["warming"] = 1 if me["bars"] < warm_bars else 0
        fits = share <= invalid_limit and me["same"] < STUCK_BARS and finite
        out["valid"] = 1 if fits and me["bars"] >= warm_bars else 0


class RegimeFilter:
    """The filters of all symbols under one model.

    ``models`` (dtype MODEL) is filled in place: a cell writer's values. ``ema_s``, ``bar_s``, ``warmup_s`` in seconds;
    ``invalid_limit`` is the share of ill-fitting steps over five minutes above which a symbol's model is invalid.
    """

    def __init__(
        self,
        models: npt.NDArray[np.void],
        *,
        bar_s: float = 10.0,
        ema_s: float = 60.0,
        warmup_s: float = 30.0,
        invalid_limit: float = 0.15,
        window_s: float = 300.0,
    ) -> None:
        self.models = models
        self.filters: npt.NDArray[np.void] = np.zeros(len(models), FILTER)
        self.model: Model | None = None
        self._arrays: tuple[Any, ...] = ()
        self._weight = 1.0 - math.exp(-bar_s / ema_s)
        self._limit = invalid_limit
        self._window = int(min(VALIDITY_RING, max(1, round(window_s / bar_s))))
        self._warm_bars = max(1, math.ceil(warmup_s / bar_s))
        models["psi"] = np.nan
        models["expected_move_bps"] = np.nan
        models["warming"] = 1
        models["valid"] = 0

    def load(self, model: Model) -> None:
        """Take over a model. States of another number start anew; otherwise the probabilities are kept (states are
        matched by name at training). Drift and validity start anew: they are measured against the new training."""
        model.check()
        keep = self.model is not None and self.model.states == model.states
        for name in ("ring_n", "psi_n", "psi_count", "same"):
            self.filters[name] = 0
        if not keep:
            self.filters["steps"] = 0
        self.model = model
        arrays = (*model.compiled(), np.ascontiguousarray(model.psi_edges), np.ascontiguousarray(model.psi_shares))
        self._arrays = (*arrays, float(model.loglik_floor))
        self.models["model_id"] = model.version
        self.models["states"] = model.states

    def reset(self) -> None:
        """Forget the past of every symbol: after a session gap the last regime says nothing."""
        self.filters["steps"] = 0

    def step(
        self,
        symbols: npt.NDArray[np.int64],
        x: npt.NDArray[np.float64],
        valid: npt.NDArray[np.int64],
        t_ns: int,
    ) -> None:
        """One bar of each symbol: ``symbols`` (n,), ``x`` (n, F), ``valid`` (n,), end of the bar. Needs a model."""
        step_bars(
            self.filters,
            self.models,
            np.ascontiguousarray(symbols, np.int64),
            np.ascontiguousarray(x, np.float64),
            np.ascontiguousarray(valid, np.int64),
            t_ns,
            *self._arrays,
            self._weight,
            self._limit,
            self._window,
            self._warm_bars,
        )


def filter_sequence(
    model: Model, x: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Filtered probabilities (n, K) and step log-likelihoods (n,) of a whole sequence of raw features (n, F)."""
    start, trans, means, white, constant, shift, scale = model.compiled()
    z = np.ascontiguousarray((x - shift) / scale)
    alpha = np.zeros(model.states)
    out, loglik = np.zeros((len(z), model.states)), np.zeros(len(z))
    for t in range(len(z)):
        loglik[t] = forward(alpha, z[t], int(t == 0), start, trans, means, white, constant)
        out[t] = alpha
    return out, loglik
