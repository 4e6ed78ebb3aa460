"""What the kernel can give a mapping, and what it really gave: huge pages, locked pages, mapped pages.

The kernel refuses both silently more often than not: advice is ignored where the tmpfs was mounted without ``huge=``,
and limits on locked memory clamp. So what counts is read back from ``/proc/<pid>/smaps``.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

HUGE_PAGE = 2 * 1024 * 1024
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, since Linux 5.14; an error, never SIGBUS, where there is no room
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


@dataclass(frozen=True, slots=True)
class Granted:
    """Bytes of a process's mappings of some files, as the kernel accounts for them."""

    mapped: int = 0
    resident: int = 0
    huge: int = 0
    locked: int = 0

    def __add__(self, other: Granted) -> Granted:
        return Granted(
            self.mapped + other.mapped,
            self.resident + other.resident,
            self.huge + other.huge,
            self.locked + other.locked,
        )


def advise_huge(mapping: mmap.mmap, size: int, *, fill: bool = False) -> None:
    """Ask for huge pages where one would fit. ``fill``: also make the pages now, while the advice can be heeded."""
    if size < HUGE_PAGE:
        return
    with contextlib.suppress(OSError):
        mapping.madvise(mmap.MADV_HUGEPAGE)
        if fill:
            mapping.madvise(_POPULATE_WRITE)


def lock(address: int, size: int) -> str:
    """Pin the pages of a mapping in memory. Returns "" or the kernel's reason for refusing."""
    if _libc.mlock(address, size) == 0:
        return ""
    return os.strerror(ctypes.get_errno())


def granted(path: Path, pid: int | str = "self") -> Granted:
    """What ``pid`` holds of the file, or of the files below the directory, ``path``. Zeroes if it may not be read."""
    total, inside, wanted = Granted(), False, str(path)
    try:
        text = Path(f"/proc/{pid}/smaps").read_text()
    except OSError:
        return total
    sums = dict.fromkeys(("Size", "Rss", "ShmemPmdMapped", "Locked"), 0)
    for line in text.splitlines():
        first = line.split(None, 1)[0]
        if not first.endswith(":"):
            name = line.split(None, 5)[5].removesuffix(" (deleted)") if "/" in line else ""
            inside = name == wanted or name.startswith(wanted + "/")
        elif inside and first[:-1] in sums:
            sums[first[:-1]] += int(line.split()[1]) * 1024
    return Granted(sums["Size"], sums["Rss"], sums["ShmemPmdMapped"], sums["Locked"])


def trial(directory: Path) -> Granted:
    """Map a nameless file of four huge pages in ``directory`` the way regions are mapped; what was given. OSError."""
    size = 4 * HUGE_PAGE
    fd = os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size)
        with mmap.mmap(fd, size) as mapping:
            advise_huge(mapping, size, fill=True)
            os.posix_fallocate(fd, 0, size)
            return granted(Path(f"{directory}/#{os.fstat(fd).st_ino}"))
    finally:
        os.close(fd)
