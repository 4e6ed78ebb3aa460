"""SIGTERM and SIGINT as a wish that is remembered from a service's first instruction on."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """``asked`` turns True with the first SIGTERM or SIGINT.

    Installed before a service imports or attaches anything: a stop that arrives while it starts is then as orderly as
    one that arrives later. A parent that forks services keeps the signals blocked over the fork (``hold``), so that
    none of them meets the parent's handlers in the child.
    """

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.asked = False
        self._then = then

    def install(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _note(self, *_: Any) -> None:
        self.asked = True
        self._then()


def hold() -> None:
    """Keep SIGTERM and SIGINT pending until ``release`` or ``StopRequest.install``."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def release() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
