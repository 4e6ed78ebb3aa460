"""The watchdog's beat: a cycle every millisecond, on a grid that does not drift.

A sleep of a millisecond after each cycle's work gives a period of a millisecond and the work and the wake-up; epoll
counts in whole milliseconds besides. A timer descriptor on an absolute grid wakes the loop like any other descriptor.
That needs no right that a service user lacks; who goes first once awake is ``engine.runtime.priority``'s.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct

_PR_SET_TIMERSLACK = 29
_CLOCK_MONOTONIC, _TFD_NONBLOCK, _TFD_CLOEXEC, _TFD_TIMER_ABSTIME = 1, 0o4000, 0o2000000, 1


class Pace:
    """``due(now_ns)`` once per period of the grid. ``fileno`` is -1 where there is no timer (a simulated clock)."""

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self._next_ns = 0
        self._fd = -1
        self._owed = False
        """A beat was taken before its timer had fired: that one must still be read, or the loop would not sleep."""

    def arm(self, now_ns: int) -> None:
        """Wake this thread on the grid from now on. Where the system can't, the loop's own sleeps have to do."""
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if descriptor < 0:
            return
        first = now_ns + self._period_ns
        spec = struct.pack("qqqq", 0, self._period_ns, first // 1_000_000_000, first % 1_000_000_000)
        if libc.timerfd_settime(descriptor, _TFD_TIMER_ABSTIME, spec, None):
            os.close(descriptor)
            return
        self._fd, self._next_ns = descriptor, first
        libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)

    def fileno(self) -> int:
        return self._fd

    def due(self, now_ns: int) -> bool:
        """Is a cycle due? Skipped beats are not made up for."""
        if now_ns < self._next_ns:
            if self._owed:
                self._read()
            return False
        self._next_ns += self._period_ns * ((now_ns - self._next_ns) // self._period_ns + 1)
        if self._fd >= 0:
            self._read()
        return True

    def _read(self) -> None:
        self._owed = True
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)
            self._owed = False

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
