"""What is the machine's in a simulation: the clock, the disk, the processes."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from pathlib import Path

from engine.procs.watchdog_parts.cells import ProcessWatch
from engine.risk.latch import FileWriter, replace_file
from engine.runtime.clock import ManualClock

WRITE_NS = 3_000_000
"""What a write with its two fsyncs takes on a disk that is well."""
NEVER = (1 << 62) - 1


class Killed(BaseException):
    """The process in whose turn it is raised is gone, at this very instruction. Not an Exception: nobody handles it."""


class SimClock(ManualClock):
    """``pause`` lets the rest of the world go on: ``while_paused`` runs it up to a time."""

    while_paused: Callable[[int], None] | None = None

    def pause(self, ns: int) -> None:
        if self.while_paused is None:
            self.now += ns
        else:
            self.while_paused(self.now + ns)


class Disk:
    """One disk for all. ``full_until_ns``: writes fail with ENOSPC; ``slow_ns`` until ``slow_until_ns``: they take so
    long."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.full_until_ns = self.slow_until_ns = self.slow_ns = 0
        self.failures = 0

    @property
    def full(self) -> bool:
        return self.clock.now < self.full_until_ns

    def delay_ns(self) -> int:
        return self.slow_ns if self.clock.now < self.slow_until_ns else WRITE_NS

    def check(self, path: Path) -> None:
        """Raises OSError while the disk is full."""
        if self.full:
            self.failures += 1
            raise OSError(28, "No space left on device", path.name)


class SimFiles(FileWriter):
    """The helper thread of a process, without a thread: a write is done when its time has come, or never if the
    process dies before. Serves the watchdog (``FileWriter``) and the bridge (``StateFiles``)."""

    def __init__(self, disk: Disk, on_error: Callable[[Path, OSError], None] | None = None) -> None:
        self._disk, self._report = disk, on_error
        self._pending: dict[Path, tuple[int, bytes]] = {}
        self._broken: set[Path] = set()
        self._number: dict[Path, int] = {}
        self._written: dict[Path, int] = {}
        self.error = ""

    def write(self, path: Path, data: bytes) -> None:
        due, _ = self._pending.get(path, (self._disk.clock.now + self._disk.delay_ns(), b""))
        self._pending[path] = (due, data)

    def submit(self, path: Path, data: bytes) -> int:
        self.write(path, data)
        self._number[path] = self._number.get(path, 0) + 1
        return self._number[path]

    def written(self, path: Path) -> int:
        return self._written.get(path, 0)

    def settle(self, now_ns: int) -> None:
        """Do what is due."""
        for path in [p for p, (due, _) in self._pending.items() if due <= now_ns]:
            self._do(path)

    def _do(self, path: Path) -> None:
        _, data = self._pending.pop(path)
        try:
            self._disk.check(path)
            replace_file(path, data)
            self._written[path] = self._number.get(path, 0)
            self._broken.discard(path)
            self.error = ""
        except OSError as error:
            self._broken.add(path)
            self.error = f"{path.name}: {error.strerror}"
            if self._report is not None:
                self._report(path, error)

    def next_ns(self) -> int:
        return min((due for due, _ in self._pending.values()), default=NEVER)

    def flush(self, timeout_s: float) -> bool:
        for path in list(self._pending):
            self._do(path)
        return True

    drain = flush

    @property
    def idle(self) -> bool:
        return not self._pending

    def failed(self, path: Path) -> bool:
        return path in self._broken

    def lose(self) -> None:
        """The process is gone: what was not done never will be."""
        self._pending.clear()

    def close(self, timeout_s: float = 5.0) -> None:
        self.flush(timeout_s)


class Processes:
    """Process ids and who lives. ``kill`` is called with the pid of a process that gets SIGKILL."""

    def __init__(self, kill: Callable[[int], None]) -> None:
        self._next = 1_000
        self._kill = kill
        self.living: set[int] = set()

    def born(self) -> int:
        self._next += 1
        self.living.add(self._next)
        return self._next

    def gone(self, pid: int) -> None:
        self.living.discard(pid)

    def kill(self, pid: int) -> None:
        self._kill(pid)


class SimProcessWatch(ProcessWatch):
    """Sees the exit of a simulated process."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self.pid = 0
        self.exited = False

    def follow(self, pid: int) -> None:
        if pid != self.pid:
            self.pid, self.exited = pid, False

    def check(self) -> bool:
        if not self.exited and self.pid > 0 and self.pid not in self._processes.living:
            self.exited = True
        return self.exited

    def kill(self) -> bool:
        if self.exited or self.pid not in self._processes.living:
            return False
        self._processes.kill(self.pid)
        return True

    def close(self) -> None:
        self.pid = 0


class Agenda:
    """Things to do at a time, in order of time and of entry."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    def add(self, t_ns: int, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (t_ns, self._count, what))

    def next_ns(self) -> int:
        return self._heap[0][0] if self._heap else NEVER

    def due(self, now_ns: int) -> int:
        """Do what is due; returns how much that was."""
        done = 0
        while self._heap and self._heap[0][0] <= now_ns:
            heapq.heappop(self._heap)[2]()
            done += 1
        return done
