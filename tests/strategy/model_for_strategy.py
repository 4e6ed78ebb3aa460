"""A quickly trained model of the paper market."""

from __future__ import annotations

from functools import lru_cache

from engine.domain.instruments import SIM_UNIVERSE
from engine.model.params import Model
from engine.model.train import train_synthetic


@lru_cache(maxsize=1)
def small_model() -> Model:
    return train_synthetic(SIM_UNIVERSE[:4], seed=5, hours=0.35, restarts=1)
