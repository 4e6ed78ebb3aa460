"""How often the same thing is asked for again: pure. At once while that may help, then more and more seldom."""

from __future__ import annotations

from collections.abc import Iterable

from engine.broker.orders import Order

CANCEL_AGAIN_NS = 1_000_000_000
"""A cancel without effect may be repeated after this; after every further one in twice the time, up to ``_MOST_NS``."""
CANCELS = 7
"""Without effect, this many in a row are enough: a person has to look. About a minute."""
_QUESTION_NS = 500_000_000
_PROMPT = 4
_MOST_NS = 15_000_000_000


def cancel_after_ns(sent: int) -> int:
    """How long after the last of ``sent`` cancels in a row without effect the next one may leave."""
    return min(CANCEL_AGAIN_NS << max(0, sent - 1), _MOST_NS)


class Doubts:
    """Orders that the broker is asked about. Four answers that change nothing are waited for half a second each, later
    ones up to 15 s: a cancel may stay pending for a whole night."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[tuple[object, ...], int, int]] = {}

    @staticmethod
    def _known(o: Order) -> tuple[object, ...]:
        return o.filled, o.booked, o.qty, bool(o.acked_ns), o.cancel_sent_ns, o.replace_sent_ns

    def due(self, order: Order, now_ns: int) -> bool:
        """Is the question of this order worth a reading now?"""
        known, _, next_ns = self._of.get(order.intent_id, ((), 0, 0))
        return now_ns >= next_ns or known != self._known(order)

    def asked(self, orders: Iterable[Order], now_ns: int) -> None:
        """The books are read now; ``orders``: all that count."""
        former, self._of = self._of, {}
        for order in orders:
            entry = former.get(order.intent_id)
            if order.question_ns:
                known = self._known(order)
                count = entry[1] + 1 if entry is not None and entry[0] == known else 1
                wait_ns = min(_QUESTION_NS << max(0, count - _PROMPT), _MOST_NS)
                entry = (known, count, now_ns + wait_ns)
            if entry is not None:
                self._of[order.intent_id] = entry
