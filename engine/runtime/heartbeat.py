"""Heartbeats: monotonic time plus work count, so that they mean progress and not merely life."""

from __future__ import annotations

import os

from engine.domain.codes import ServiceState
from shm.cell import CellWriter
from shm.region import start_ticks

DEGRADED = 1
"""Flag bit: the service runs but can't do all of its duty (recorder: disk low or a failed fsync)."""


class Heartbeat:
    """The heartbeat cell of this process."""

    def __init__(self, cell: CellWriter, now_ns: int, pid: int = 0) -> None:
        self._cell = cell
        self._beat = cell.value[0]
        incarnation = int(self._beat["incarnation"]) + 1
        cell.value[0] = 0
        self._beat["pid"] = pid or os.getpid()
        self._beat["start_ticks"] = 0 if pid else start_ticks(os.getpid())
        self._beat["incarnation"] = incarnation
        self._beat["t_started_ns"] = now_ns
        self._beat["core"] = -1
        self.incarnation = incarnation
        self.state = ServiceState.STARTING
        self.set_state(ServiceState.STARTING, now_ns)

    def set_state(self, state: ServiceState, now_ns: int) -> None:
        self.state = state
        self._beat["state"] = int(state)
        if state == ServiceState.READY and not self._beat["t_ready_ns"]:
            self._beat["t_ready_ns"] = now_ns
        self._beat["t_beat_ns"] = now_ns
        self._cell.publish()

    def set_core(self, core: int) -> None:
        self._beat["core"] = core

    def set_flag(self, flags: int) -> None:
        self._beat["flags"] = flags

    def beat(
        self, now_ns: int, work: int, loops: int, lag: int, lost: int = 0, errors: int = 0, busy_ns: int = 0
    ) -> None:
        """Publish progress; counts are increments except for lag and lost."""
        b = self._beat
        b["t_beat_ns"] = now_ns
        b["work_count"] += work
        b["loops"] += loops
        b["lag"] = lag
        b["lost"] = lost
        b["errors"] += errors
        b["busy_ns"] += busy_ns
        self._cell.publish()
