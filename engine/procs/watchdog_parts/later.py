"""The wire comes first: what a cycle tells and writes waits until its decisions are on their way.

Encoding the latch and waking the helper thread took longer than everything else between the tick that breaks a rule and
the closing orders. A watchdog that dies in between has latched in memory already, and its successor goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine.risk.latch import FileWriter


class LateFiles:
    """Files of ``FileWriter``, encoded and handed over at ``release``; at once outside ``hold`` and ``release``."""

    def __init__(self, files: FileWriter) -> None:
        self._files = files
        self._held: dict[Path, Callable[[], bytes]] | None = None

    def hold(self) -> None:
        self._held = {}

    def release(self) -> None:
        held, self._held = self._held, None
        for path, encode in (held or {}).items():
            self._files.write(path, encode())

    def write(self, path: Path, encode: Callable[[], bytes]) -> None:
        """Queue the whole content of ``path``; an older version that still waits is dropped."""
        if self._held is None:
            self._files.write(path, encode())
            return
        self._held.pop(path, None)  # in the order of the newest versions
        self._held[path] = encode

    @property
    def idle(self) -> bool:
        return not self._held and self._files.idle

    def failed(self, path: Path) -> bool:
        return self._files.failed(path)

    def flush(self, timeout_s: float) -> bool:
        return self._files.flush(timeout_s)

    def close(self) -> None:
        self.release()
        self._files.close()
