"""How often the strategy may speak: far below the breaker that counts a runaway's messages."""

from __future__ import annotations

NS = 1_000_000_000
RATE_PER_S = 4.0
BURST = 6.0
BACKOFF_FIRST_NS = 1 * NS
BACKOFF_MOST_NS = 30 * NS


class Pace:
    """A token bucket for all intents, and a growing pause per symbol after refusals. Time is an argument."""

    def __init__(self, rate_per_s: float = RATE_PER_S, burst: float = BURST) -> None:
        self._rate, self._burst = rate_per_s, burst
        self._tokens, self._filled_ns = burst, 0
        self._until: dict[int, int] = {}
        self._pause: dict[int, int] = {}

    def take(self, now_ns: int) -> bool:
        """Spend one message; False if there is none to spend."""
        gained = max(0, now_ns - self._filled_ns) / NS * self._rate
        self._tokens = min(self._burst, self._tokens + gained)
        self._filled_ns = max(now_ns, self._filled_ns)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def refused(self, symbol: int, now_ns: int) -> None:
        """A new order was refused: pause the symbol, twice as long each time."""
        pause = min(BACKOFF_MOST_NS, 2 * self._pause.get(symbol, BACKOFF_FIRST_NS // 2))
        self._pause[symbol] = pause
        self._until[symbol] = now_ns + pause

    def accepted(self, symbol: int) -> None:
        """A new order was sent: the next refusal starts with the short pause again."""
        self._pause.pop(symbol, None)

    def paused(self, symbol: int, now_ns: int) -> bool:
        return now_ns < self._until.get(symbol, 0)
