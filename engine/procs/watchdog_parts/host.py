"""What the watchdog has from the machine: a disk, the bridge's process, a socket. A simulation gives its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine.broker.emergency import EmergencyConnection
from engine.domain.codes import Source
from engine.procs.watchdog_parts.cells import ProcessWatch
from engine.risk.latch import FileWriter
from engine.runtime.context import Context


class Host:
    """The real one."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def files(self, on_error: Callable[[Path, OSError], None]) -> FileWriter:
        return FileWriter(on_error)

    def process(self) -> ProcessWatch:
        return ProcessWatch()

    def connection(self) -> EmergencyConnection:
        """The emergency connection under its own client id."""
        g = self._ctx.config.gateway
        return self._connect(g.emergency_client_id, g.emergency_messages_per_s)

    def canceller(self) -> EmergencyConnection:
        """A connection under the dead bridge's client id."""
        return self._connect(self._ctx.config.gateway.client_id, 1)

    def _connect(self, client_id: int, messages_per_s: int) -> EmergencyConnection:
        g = self._ctx.config.gateway
        return EmergencyConnection(
            g.host, g.port, client_id, messages_per_s=messages_per_s, probe_interval_s=g.probe_interval_s,
            reconnect_min_s=g.reconnect_min_s, reconnect_max_s=g.reconnect_max_s,
            seed=self._ctx.ids.next(Source.WATCHDOG) & 0xFFFF, others=g.others,
        )  # fmt: skip
