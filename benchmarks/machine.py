"""What machine a figure was measured on."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path

_CPU = Path("/sys/devices/system/cpu")


def describe() -> str:
    """CPU model, cores, topology, kernel and Python: one line."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    siblings = _CPU / "cpu0/topology/thread_siblings_list"
    smt = "SMT" if siblings.exists() and any(c in siblings.read_text() for c in ",-") else "no SMT"
    virtual = ", virtual" if "hypervisor" in Path("/proc/cpuinfo").read_text() else ""
    host = f"{model}, {os.cpu_count()} cores ({smt}{virtual})"
    return f"{host}, Linux {platform.release()}, Python {platform.python_version()}"


def topology() -> str:
    """Caches, each with the cores that share it, and memory nodes: one line."""
    parts = []
    for index in sorted((_CPU / "cpu0/cache").glob("index*")):
        kind = (index / "type").read_text().strip()
        if kind != "Instruction":
            level, size = (index / "level").read_text().strip(), (index / "size").read_text().strip()
            parts.append(f"L{level} {size} shared by cores {(index / 'shared_cpu_list').read_text().strip()}")
    nodes = len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or 1
    return ", ".join([*parts, f"{nodes} memory node{'s' if nodes > 1 else ''}"])


def l2_bytes() -> int:
    """Second-level cache of a core; 256 KiB where the kernel does not tell."""
    for index in (_CPU / "cpu0/cache").glob("index*"):
        if (index / "level").read_text().strip() == "2":
            text = (index / "size").read_text().strip()
            return int(text.rstrip("KM")) * (1 << 20 if text.endswith("M") else 1 << 10)
    return 256 << 10


def first() -> None:
    """Before everything else on this core, where that is permitted: both sides alike.

    Where the kernel groups processes by session, a nice value counts within the session only, and the session has one.
    """
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("-20")


def as_before() -> None:
    """The session's processes as important as others again."""
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("0")
