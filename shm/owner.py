"""Whose a directory is that was made for one run: a file in it names the process.

A run that ends removes its directory; one that was killed can't. Pid and start time tell later that it is an orphan.
"""

from __future__ import annotations

import os
from pathlib import Path

from shm.process import boot_id_hash, start_ticks

OWNER = ".owner"


def own(directory: Path) -> None:
    """Name this process as the owner of a directory that exists."""
    temporary = directory / f"{OWNER}.{os.getpid()}"
    temporary.write_text(f"{os.getpid()} {start_ticks(os.getpid())} {boot_id_hash()}\n")
    temporary.replace(directory / OWNER)


def dead_owner(directory: Path) -> int:
    """Pid of an owner that is gone; 0 if it lives or the directory names none."""
    try:
        words = (directory / OWNER).read_text().split()
        pid, ticks, boot = (int(word) for word in words)
    except (OSError, ValueError):
        return 0
    return pid if boot != boot_id_hash() or start_ticks(pid) != ticks else 0
