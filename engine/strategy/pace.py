"""How often the strategy may speak: far below the breaker that counts a runaway's messages."""

# ruff: noqa: I001  (shm.jit sets the kernel cache before numba is imported)
from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shm.jit import kernel

from engine.domain.instruments import MAX_SYMBOLS

NS = 1_000_000_000
RATE_PER_S = 4.0
BURST = 6.0
BACKOFF_FIRST_NS = 1 * NS
BACKOFF_MOST_NS = 30 * NS
TOKENS, RATE, BURST_AT = 0, 1, 2


@kernel("int64(float64[::1], int64[::1], int64)")
def take_token(bucket, filled, now_ns):  # type: ignore[no-untyped-def]
    """Spend one message of a token bucket (TOKENS, RATE per s, BURST_AT; ``filled[0]`` when it was filled last).

    Returns 1, or 0 if there is none to spend.
    """
    gained = max(0, now_ns - filled[0]) / 1e9 * bucket[RATE]
    bucket[TOKENS] = min(bucket[BURST_AT], bucket[TOKENS] + gained)
    filled[0] = max(now_ns, filled[0])
    if bucket[TOKENS] < 1.0:
        return 0
    bucket[TOKENS] -= 1.0
    return 1


class Pace:
    """A token bucket for all intents, and a growing pause per symbol after refusals. Time is an argument.

    ``bucket``, ``filled`` and ``until`` (ns, per symbol) are the state that the fused hot path shares.
    """

    def __init__(self, rate_per_s: float = RATE_PER_S, burst: float = BURST) -> None:
        self.bucket: npt.NDArray[np.float64] = np.array([burst, rate_per_s, burst])
        self.filled: npt.NDArray[np.int64] = np.zeros(1, np.int64)
        self.until: npt.NDArray[np.int64] = np.zeros(MAX_SYMBOLS, np.int64)
        self._pause: dict[int, int] = {}

    def take(self, now_ns: int) -> bool:
        """Spend one message; False if there is none to spend."""
        return bool(take_token(self.bucket, self.filled, now_ns))

    def refused(self, symbol: int, now_ns: int) -> None:
        """A new order was refused: pause the symbol, twice as long each time."""
        pause = min(BACKOFF_MOST_NS, 2 * self._pause.get(symbol, BACKOFF_FIRST_NS // 2))
        self._pause[symbol] = pause
        self.until[symbol] = now_ns + pause

    def accepted(self, symbol: int) -> None:
        """A new order was sent: the next refusal starts with the short pause again."""
        self._pause.pop(symbol, None)

    def paused(self, symbol: int, now_ns: int) -> bool:
        return now_ns < int(self.until[symbol])
