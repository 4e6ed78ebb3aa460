"""The contract of every worker. An agent does not own its loop: the runner does, or a test, or a simulation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol


class Agent(Protocol):
    def on_start(self, now_ns: int) -> None:
        """Warm up; may take seconds. Nothing compiles after it."""

    def do_work(self, now_ns: int) -> int:
        """Drain what waits; returns how much was done, 0 when idle. Never blocks."""

    def housekeeping(self, now_ns: int) -> None:
        """Slow duties, every ``runtime.housekeeping_ms``. An agent with an attribute ``duties``, a tuple of functions
        of the time, has them done one by one instead, with a look for work in between."""

    def on_close(self, now_ns: int) -> None:
        """Orderly handover."""

    def ready(self) -> bool:
        """May this service count as READY?"""

    def lag(self) -> int:
        """Records that wait for it."""

    def wait_fds(self) -> tuple[int, ...]:
        """Descriptors besides the doorbell that wake it."""


class AsyncAgent(Protocol):
    """A worker that lives in asyncio (servers). It must call ``Context.beat`` at least every half second."""

    async def run(self, ready: Callable[[], None], stop: asyncio.Event) -> None: ...
