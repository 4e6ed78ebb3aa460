"""Once a day, after the roll: closed days are sealed by a process of its own, days past retention are removed.

The journal is kept for ever.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from engine.store.files import day_directories, day_name, days_before
from engine.store.segments import RAW


def expire_days(state_dir: Path, today: int, keep_days: int) -> list[str]:
    """Remove the ticks of days more than ``keep_days`` calendar days before ``today``; returns the days' names."""
    limit = days_before(today, keep_days)
    gone = []
    for date, path in day_directories(state_dir / "ticks"):
        if date < limit:
            shutil.rmtree(path)
            gone.append(day_name(date))
    return gone


class Caretaker:
    """Starts the sealing process when the day has rolled and looks after it. ``step`` never blocks."""

    def __init__(self, state_dir: Path, keep_days: int) -> None:
        self._state_dir = state_dir
        self._keep_days = keep_days
        self._done_for = 0
        self._child: subprocess.Popen[bytes] | None = None

    def step(self, today: int) -> tuple[str, list[str]]:
        """(problem or "", names of days just removed)."""
        if self._child is not None:
            code = self._child.poll()
            if code is None:
                return "", []
            self._child = None
            gone = expire_days(self._state_dir, today, self._keep_days)
            return ("sealing closed days failed, the raw segments are kept: see stderr" if code else ""), gone
        if self._done_for == today:
            return "", []
        self._done_for = today
        closed = (d for date, d in day_directories(self._state_dir / "ticks") if date < today)
        if not any(next(d.glob(f"*{RAW}"), None) for d in closed):
            return "", expire_days(self._state_dir, today, self._keep_days)
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "engine.store.seal", str(self._state_dir), str(today)], stdin=subprocess.DEVNULL
            )
            os.setpriority(os.PRIO_PROCESS, self._child.pid, 15)
        except OSError as error:
            return f"the sealing process can't be started: {error.strerror}", []
        return "", []

    def close(self) -> None:
        """End the child; whatever it was sealing stays raw."""
        child, self._child = self._child, None
        if child is not None:
            child.terminate()
            child.wait()
