"""When a fault happens: after a while, again and again, with jitter, with a probability. Pure; the seed decides."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.paper.faults.args import Arg, FaultError, Values, number

WHEN: Mapping[str, Arg] = {
    "after_s": number("seconds until the first time", 0.0),
    "every_s": number("seconds between one time and the next; 0: once only", 0.0),
    "jitter_s": number("up to so many seconds later, anew each time", 0.0),
    "times": number("how often at most; 0 with every_s: for ever", 0.0, 0, 1e6),
    "probability": number("chance that it happens, anew each time", 1.0, 0.0, 1.0),
    "seed": number("decides the chances of this command alone; -1: the gateway's seed does", -1, -1, 2**53),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """See ``WHEN``. Raises FaultError for a plan that could never mean anything."""

    after_s: float = 0.0
    every_s: float = 0.0
    jitter_s: float = 0.0
    times: int = 1
    probability: float = 1.0
    seed: int | None = None

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Plan:
        values = Values(WHEN, given)
        every_s, times = values.number("every_s"), values.count("times")
        if times > 1 and every_s <= 0:
            raise FaultError(f"argument 'times' is {times} without every_s; say how many seconds lie between")
        if 0 < every_s < 0.001:
            raise FaultError(f"argument 'every_s' is {every_s:g}, expected 0 or at least 0.001")
        return cls(
            values.number("after_s"),
            every_s,
            values.number("jitter_s"),
            times if every_s > 0 else 1,
            values.number("probability"),
            values.count("seed") if values.count("seed") >= 0 else None,
        )

    @property
    def at_once(self) -> bool:
        """True if it says nothing about time and chance: at most a seed."""
        return self == Plan(seed=self.seed)

    def occurrences(self, rng: random.Random) -> Iterator[float]:
        """Seconds from now at which it happens, rising; endless for ``times`` 0."""
        turn = 0
        last_s = 0.0
        while self.times == 0 or turn < self.times:
            at_s = self.after_s + turn * self.every_s
            if self.jitter_s:
                at_s += rng.random() * self.jitter_s
            turn += 1
            if self.probability >= 1.0 or rng.random() < self.probability:
                last_s = max(last_s, at_s)
                yield last_s
            elif self.probability <= 0.0:
                return
