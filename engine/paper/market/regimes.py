"""Rates of the hidden regimes: Cont, Stoikov and Talreja's base rates, scaled per regime.

Distances are counted in ticks from the opposite best price, as in their 2010 paper. Beyond the five published
distances limit rates go on as a power law and cancel rates stay at the last value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.domain.codes import Regime
from engine.paper.market.layout import HEAT_TAU_S, P_HEAT, P_LEAN, P_LIMIT, P_MARKET, P_SIZE, P_TILT, PARAMETERS

BASE_LIMIT_PER_S = (1.85, 1.51, 1.09, 0.88, 0.77)
BASE_CANCEL_PER_S = (0.71, 0.81, 0.68, 0.56, 0.47)
BASE_MARKET_PER_S = 0.94
DISTANCES = 20
LOT = 100.0

LOT_SHARES = (0.60, 0.85, 0.95)
"""Cumulative shares of orders of 1, 2 and 3 lots; the rest has 5."""
MEAN_LOTS = 0.60 * 1 + 0.25 * 2 + 0.10 * 3 + 0.05 * 5

HEAT_BRANCHING = 0.2
LEAN_BRANCHING = 0.05
"""Expected further market orders (and further net sign) that one market order causes, at any speed and regime."""


@dataclass(frozen=True, slots=True)
class RegimeRates:
    """Multipliers on the base rates. ``near`` scales limit orders at the three distances that set the spread."""

    limit: float
    cancel: float
    market: float
    near: tuple[float, float, float]
    tilt: float
    size: float


REGIMES: dict[Regime, RegimeRates] = {
    Regime.CALM: RegimeRates(0.60, 0.50, 0.40, (1.0, 1.0, 1.0), 0.0, 1.0),
    Regime.ACTIVE: RegimeRates(1.50, 1.30, 1.60, (1.0, 1.0, 1.0), 0.0, 1.0),
    Regime.STRESSED: RegimeRates(1.00, 1.70, 1.60, (0.25, 0.45, 0.70), 0.0, 0.8),
    Regime.DIRECTIONAL: RegimeRates(1.00, 1.00, 1.40, (0.8, 1.0, 1.0), 0.12, 1.2),
}

DWELL_MIN_S, DWELL_MAX_S = 30.0, 300.0
"""Dwell times are log-uniform between these: not geometric, hence semi-Markov."""

NEXT_REGIME: tuple[tuple[float, ...], ...] = (
    (0.00, 0.60, 0.15, 0.25),
    (0.45, 0.00, 0.25, 0.30),
    (0.20, 0.55, 0.00, 0.25),
    (0.40, 0.40, 0.20, 0.00),
)
"""Probability of the next regime given the one that ends."""


@dataclass(frozen=True, slots=True)
class RateTables:
    """Arrays for the kernel, indexed by regime first.

    ``parameters`` (regimes, PARAMETERS); ``limit`` (regimes, DISTANCES), cumulative shares in 0..1; ``cancel``
    (regimes, DISTANCES), per share and second; ``jump`` (regimes, regimes), cumulative probabilities.
    """

    parameters: npt.NDArray[np.float64]
    limit: npt.NDArray[np.float64]
    cancel: npt.NDArray[np.float64]
    jump: npt.NDArray[np.float64]


def rate_tables(scale: float) -> RateTables:
    """Tables for a market ``scale`` times as fast as the published one.

    Slower is plain slow motion. Faster is the heavy-traffic scaling: flows grow with the scale but cancels per order
    only with its root, so that queues deepen and the price moves about as far per minute at any message rate.
    """
    if not scale > 0:
        raise ValueError(f"scale = {scale}: must be above 0")
    flow = scale
    per_order = scale if scale < 1 else scale**0.5
    regimes = len(Regime)
    parameters = np.zeros((regimes, PARAMETERS))
    limit = np.zeros((regimes, DISTANCES))
    cancel = np.zeros((regimes, DISTANCES))
    distance = np.arange(1, DISTANCES + 1)
    base_limit = BASE_LIMIT_PER_S[-1] * (distance / 5.0) ** -0.52
    base_limit[:5] = BASE_LIMIT_PER_S
    base_cancel = np.full(DISTANCES, BASE_CANCEL_PER_S[-1])
    base_cancel[:5] = BASE_CANCEL_PER_S
    for regime, rates in REGIMES.items():
        row = base_limit * rates.limit
        row[:3] *= rates.near
        parameters[regime, P_MARKET] = 2.0 * BASE_MARKET_PER_S * rates.market * flow
        parameters[regime, P_LIMIT] = row.sum() * flow
        parameters[regime, P_TILT] = rates.tilt / max(1.0, per_order)
        parameters[regime, P_SIZE] = rates.size
        per_tau = HEAT_TAU_S * parameters[regime, P_MARKET]
        parameters[regime, P_HEAT] = HEAT_BRANCHING / per_tau
        parameters[regime, P_LEAN] = LEAN_BRANCHING / per_tau
        limit[regime] = np.cumsum(row) / row.sum()
        cancel[regime] = base_cancel * rates.cancel * per_order / (LOT * MEAN_LOTS)
    return RateTables(parameters, limit, cancel, np.cumsum(np.array(NEXT_REGIME), axis=1))
