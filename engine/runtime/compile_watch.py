"""Counts what is compiled after READY: it must be nothing, and if it is not, the heartbeat says so.

A compilation in the hot loop takes seconds in which nobody guards and nobody sells. Kernels declare their signatures,
so that none can happen; this watches that none does.
"""

from __future__ import annotations

from typing import Any

import shm.jit  # noqa: F401  isort: skip  (before numba)
from numba.core import event


class CompileWatch(event.Listener):  # type: ignore[misc]
    """Listens from ``start`` on. ``take`` returns how many compilations there were since the last look."""

    def __init__(self) -> None:
        self._count = 0
        self.names: list[str] = []

    def start(self) -> CompileWatch:
        event.register("numba:compile", self)
        return self

    def stop(self) -> None:
        event.unregister("numba:compile", self)

    def on_start(self, event: Any) -> None:
        self._count += 1
        dispatcher = (event.data or {}).get("dispatcher")
        self.names.append(getattr(getattr(dispatcher, "py_func", None), "__qualname__", "?"))

    def on_end(self, event: Any) -> None:
        pass

    def take(self) -> int:
        count, self._count = self._count, 0
        return count
