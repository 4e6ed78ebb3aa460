"""What machine a figure was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def describe() -> str:
    """CPU model, cores, topology, kernel and Python: one line."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    siblings = Path("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list")
    smt = "SMT" if siblings.exists() and any(c in siblings.read_text() for c in ",-") else "no SMT"
    virtual = ", virtual" if "hypervisor" in Path("/proc/cpuinfo").read_text() else ""
    host = f"{model}, {os.cpu_count()} cores ({smt}{virtual})"
    return f"{host}, Linux {platform.release()}, Python {platform.python_version()}"
