"""Who a process is, for as long as it lives: what a pid alone does not say."""

from __future__ import annotations

import hashlib
from pathlib import Path


def boot_id_hash() -> int:
    """Signed 64-bit hash of this boot's id: a region of another boot is dead, whatever its pids say."""
    text = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def process_name(pid: int) -> str:
    """Name of a process as ps shows it; "?" if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"


def start_ticks(pid: int) -> int:
    """Start time of a process in clock ticks since boot, 0 if it is gone. Tells a reused pid apart."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rsplit(")", 1)[1].split()
    return 0 if fields[0] in ("Z", "X") else int(fields[19])
