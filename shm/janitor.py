"""What dead boots, crashed processes and killed runs left in the shared-memory root, and its removal.

Invariants
1. Nothing of this boot's instances is touched but files that were never finished and whose creator is gone: regions of
   a crashed instance hold intents that its next start must still see. What a run for once has made (a simulation, a
   drill, a benchmark) names its owner and goes when that one and every writer in it are gone.
2. A region of another boot is dead whatever its pids say: they belong to other processes now.
3. Whoever still maps a region that is removed learns it: it is retired before it is unlinked.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shm.owner import dead_owner
from shm.region import H_BOOT, H_GENERATION, H_WRITER, MAGIC, RETIRED, boot_id_hash, start_ticks

PREFIX = "l2dash-"


@dataclass(frozen=True, slots=True)
class Leftover:
    """A directory of a dead boot or a dead run, or a file that was never finished."""

    path: Path
    why: str


def of_dead_boot(directory: Path) -> bool:
    """True if some region in the directory was made before this boot."""
    return any(boot not in (0, boot_id_hash()) for boot in map(_boot, _files(directory)))


def leftovers(root: Path, prefix: str = PREFIX) -> list[Leftover]:
    """What ``sweep`` would remove below ``root``: only directories of this user whose name begins with ``prefix``."""
    found = []
    for directory in sorted(root.glob(f"{prefix}*")):
        with contextlib.suppress(FileNotFoundError):  # its owner, or another sweep, was faster
            if not directory.is_symlink() and directory.is_dir() and directory.stat().st_uid == os.getuid():
                found += _of(directory)
    return found


def _of(directory: Path) -> list[Leftover]:
    if of_dead_boot(directory):
        return [Leftover(directory, "regions of an earlier boot")]
    owner = dead_owner(directory)
    if owner and not any(map(_written, directory.rglob("*"))):
        return [Leftover(directory, f"of a run that was killed (pid {owner})")]
    found = []
    for file in _files(directory, hidden=True):
        pid = file.name.rsplit(".", 1)[1]
        if pid.isdigit() and not start_ticks(int(pid)):
            found.append(Leftover(file, f"never finished, its creator (pid {pid}) is gone"))
    return found


def sweep(root: Path, prefix: str = PREFIX) -> list[Leftover]:
    """Remove them; returns what was removed."""
    found = leftovers(root, prefix)
    for left in found:
        if left.path.is_dir():
            remove(left.path)
        else:
            left.path.unlink(missing_ok=True)
    return found


def remove(directory: Path) -> None:
    """Remove an instance's directory; processes that still map its regions learn that nothing more will come."""
    for file in _files(directory):
        if _boot(file) == boot_id_hash():
            with contextlib.suppress(OSError):
                np.memmap(file, np.int64, "r+", shape=(H_GENERATION + 1,))[H_GENERATION] = RETIRED
    shutil.rmtree(directory, ignore_errors=True)


def _files(directory: Path, *, hidden: bool = False) -> list[Path]:
    if not directory.is_dir():
        return []
    return [f for f in directory.iterdir() if f.is_file() and not f.is_symlink() and f.name.startswith(".") == hidden]


def _head(file: Path) -> tuple[int, ...]:
    """First words of a region; nothing if the file is none."""
    count = H_WRITER + 2
    with contextlib.suppress(OSError), file.open("rb") as opened:
        head = opened.read(count * 8)
        if len(head) == count * 8 and int.from_bytes(head[:8], "little") == MAGIC:
            return struct.unpack(f"<{count}q", head)
    return ()


def _boot(file: Path) -> int:
    """Boot of a region; 0 if the file is none."""
    head = _head(file)
    return head[H_BOOT] if head else 0


def _written(file: Path) -> bool:
    """Is it a region whose writer lives?"""
    head = _head(file) if file.is_file() and not file.is_symlink() else ()
    return bool(head) and head[H_WRITER] > 0 and start_ticks(head[H_WRITER]) == head[H_WRITER + 1]
