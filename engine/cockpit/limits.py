"""Token buckets: how often one caller may do one thing. Pure; time is an argument."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """``per_s`` tokens a second into a bucket of ``burst``."""

    per_s: float
    burst: float


LOGIN = Rate(5 / 60, 5)
ORDER = Rate(5, 10)
OTHER = Rate(10, 20)

_MOST_CALLERS = 1024


class Buckets:
    """One bucket per (caller, action)."""

    def __init__(self) -> None:
        self._levels: dict[tuple[str, str], tuple[float, int]] = {}

    def take(self, caller: str, action: str, rate: Rate, now_ns: int) -> float:
        """Take a token; returns 0.0, or the seconds to wait when there is none."""
        key = (caller, action)
        level, then = self._levels.get(key, (rate.burst, now_ns))
        level = min(rate.burst, level + (now_ns - then) / 1e9 * rate.per_s)
        if level < 1.0:
            self._levels[key] = (level, now_ns)
            return (1.0 - level) / rate.per_s
        self._levels[key] = (level - 1.0, now_ns)
        if len(self._levels) > _MOST_CALLERS:
            self._forget_oldest()
        return 0.0

    def _forget_oldest(self) -> None:
        for key in sorted(self._levels, key=lambda k: self._levels[k][1])[: _MOST_CALLERS // 4]:
            del self._levels[key]
