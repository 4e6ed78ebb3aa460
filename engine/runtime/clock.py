"""Clocks. Decisions use monotonic nanoseconds; wall time is anchored once and advanced by the monotonic clock."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now_ns(self) -> int:
        """CLOCK_MONOTONIC, ns."""

    def wall_ns(self, now_ns: int) -> int:
        """Wall time of a monotonic time, ns since the epoch: never jumps while the instance lives."""

    def cpu_ns(self) -> int:
        """CPU time that this thread has used: what a computation cost, however busy the host is."""

    def pause(self, ns: int) -> None:
        """Let time pass. Never in a hot loop: for what waits for others while it closes."""


class SystemClock:
    """The machine's clock, with the wall anchored at creation of the instance."""

    def __init__(self, wall_anchor_ns: int, mono_anchor_ns: int) -> None:
        self._offset_ns = wall_anchor_ns - mono_anchor_ns

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def wall_ns(self, now_ns: int) -> int:
        return now_ns + self._offset_ns

    def cpu_ns(self) -> int:
        return time.thread_time_ns()

    def pause(self, ns: int) -> None:
        time.sleep(ns / 1e9)


class ManualClock:
    """A clock that stands still until told otherwise: for tests, replay and simulation."""

    def __init__(self, now_ns: int = 1_000_000_000, wall_ns: int = 1_704_205_800_000_000_000) -> None:
        self.now = now_ns
        self._offset_ns = wall_ns - now_ns

    def now_ns(self) -> int:
        return self.now

    def wall_ns(self, now_ns: int) -> int:
        return now_ns + self._offset_ns

    def cpu_ns(self) -> int:
        return 0  # computing takes no time here

    def pause(self, ns: int) -> None:
        self.now += ns

    def advance(self, by_ns: int) -> int:
        self.now += by_ns
        return self.now
