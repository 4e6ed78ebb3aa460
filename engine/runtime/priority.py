"""Who runs first on a host that is shared: the hot services before others, the watchdog before everything.

The watchdog works for a fraction of a millisecond and sleeps again, so it may have real-time turns (SCHED_RR) where
they are granted: whatever computes is put aside the moment its tick or timer comes. A fault that made it spin must not
starve the host: after ``TURN_US`` without a sleep the kernel's SIGXCPU takes it back to an ordinary priority. Other
hot services, which may spin, get a nice value only: in real time they would starve the kernel's own threads. Who has
no real-time turns asks for short ones: where the kernel knows them (Linux 6.12), whoever wakes up with a shorter turn
goes before a neighbour that is in the middle of a longer one, which a better nice value alone has to wait for.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import struct
import threading

from engine import topology
from engine.runtime.context import Context

TURN_US = 200_000
LEVEL = 1
SLICE_NS = 300_000
"""Longest work of a cycle, with room: what the scheduler is told that one turn takes."""
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}


def prioritise(context: Context, *, sleeps: bool) -> None:
    """Take the priority that the settings allow and the host grants. Logs what was not granted.

    ``sleeps``: this process sleeps between its turns, rather than owning a core that it spins on.
    """
    runtime = context.config.runtime
    if context.service == topology.WATCHDOG and runtime.realtime and sleeps:
        refused = go_first()
        if not refused:
            return
        context.log.info("no real-time turn (%s): running at nice %d if that is permitted", refused, runtime.hot_nice)
    if topology.service(context.service).hot and runtime.hot_nice:
        try:
            for (
                thread
            ) in own_threads():  # a helper that waits for the processor with the interpreter's lock holds up all
                os.setpriority(os.PRIO_PROCESS, thread, runtime.hot_nice)
        except PermissionError:
            context.log.info("no permission to set priority %d: running at 0", runtime.hot_nice)
    if topology.service(context.service).hot:
        ask_for_short_turns()


def ask_for_short_turns() -> bool:
    """Tell the scheduler that the calling thread works in short turns. False where it does not know about that."""
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = struct.pack("IIQiIQQQ", 48, 0, 0, nice, 0, SLICE_NS, 0, 0)
    return not ctypes.CDLL(None).syscall(number, 0, attributes, 0)


def go_first() -> str:
    """Real-time turns for this process, called by its main thread; why not, if they are not granted."""
    _, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
    resource.setrlimit(resource.RLIMIT_RTTIME, (TURN_US, hard))
    signal.signal(signal.SIGXCPU, _step_back)
    return _take(own_threads())


def own_threads() -> list[int]:
    """Ids of the threads of this process."""
    return [int(name) for name in os.listdir("/proc/self/task")]


def _take(threads: list[int]) -> str:
    try:
        for thread in threads:
            os.sched_setscheduler(thread, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(LEVEL))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _step_back(*_: object) -> None:
    for thread in own_threads():
        with contextlib.suppress(OSError):
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def trial() -> str:
    """Why a process of this user would not be granted real-time turns; empty if it would. Tried by a short thread."""
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(_take([0])))
    thread.start()
    thread.join()
    return found[0]


def is_first(pid: int) -> bool:
    """Does a process's main thread have real-time turns? False if it is gone."""
    try:
        return os.sched_getscheduler(pid) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR
    except OSError:
        return False
