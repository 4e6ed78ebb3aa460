"""Distortions of order messages: each is armed for a number of events, and hits each of them with a probability."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(slots=True)
class Armed:
    """Hits the next ``left`` chances, each with ``probability``; a chance that is spared doesn't count."""

    left: int = 0
    probability: float = 1.0
    rng: random.Random | None = None  # of a command that came with a seed; None: the one of all

    def arm(self, count: int, probability: float, rng: random.Random | None = None) -> None:
        self.left, self.probability, self.rng = count, probability, rng

    def fires(self, rng: random.Random) -> bool:
        if not self.left or (self.probability < 1.0 and rng.random() >= self.probability):
            return False
        self.left -= 1
        return True


class OrderFaults:
    """What is armed; one generator decides all chances, so that a seed reproduces them."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = random.Random(seed)
        self.reset()

    def reset(self) -> None:
        """Disarm everything."""
        self.armed = False  # True once anything was armed: without faults no order asks for each of them
        self.drop_status = Armed()
        self.duplicate_status = Armed()
        self.late_status = Armed()
        self.late_s = 0.0
        self.duplicate_execution = Armed()
        self.zero_perm_id = Armed()
        self.preset_tif = Armed()
        self.reject = Armed()
        self.reject_reason = ""
        self.fill_on_cancel = Armed()
        self.lose_order = Armed()
        self.drop_link_on_order = Armed()
        self.order_taken = True
        self.split = Armed()
        self.parts = 2

    def fires(self, armed: Armed) -> bool:
        return self.armed and armed.left > 0 and armed.fires(armed.rng or self.rng)
