"""A region: one file in /dev/shm with a self-describing header, created once and only attached afterwards.

Header (64-bit words; one page is reserved so that payload starts page-aligned)

    0 magic    1 layout version   2 kind   3 dtype hash   4 capacity   5 record words   6 bytes
    7 generation   8 creator pid   9 boot id hash   10 wall anchor ns   11 monotonic anchor ns
    16 writer pid   17 writer start ticks   18 writer incarnation
    62 ready (written last: a region without it was never finished)

Rejected: ``multiprocessing.shared_memory``, whose resource tracker unlinks segments that other processes use; memmap
of a growing file, where a full disk is SIGBUS instead of an error (creation here reserves every page).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
import time
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shm.errors import (
    RegionExists,
    RegionForeign,
    RegionFull,
    RegionMismatch,
    RegionMissing,
    WriterTaken,
)
from shm.layouts import LAYOUT_VERSION

MAGIC = 0x3148534144324C  # "L2DASH1"
PAGE = 4096
_H_MAGIC, _H_VERSION, _H_KIND, _H_DTYPE, _H_CAPACITY, _H_WORDS, _H_BYTES, _H_GENERATION = range(8)
_H_CREATOR, _H_BOOT, _H_WALL, _H_MONO = 8, 9, 10, 11
_H_WRITER, _H_WRITER_START, _H_INCARNATION = 16, 17, 18
_H_READY = 62
Words = npt.NDArray[np.int64]


class RegionKind(IntEnum):
    RING = 1
    CELL = 2
    CURSOR = 3
    COUNTER = 4


@dataclass(frozen=True, slots=True)
class RegionSpec:
    """What a region must be: attach compares every field with the header."""

    name: str
    kind: RegionKind
    dtype_hash: int
    capacity: int
    """Records of a ring, cells of a cell region, words of a cursor or counter region."""
    words: int
    """64-bit words of one record, cell payload or counter."""
    bytes: int


def boot_id_hash() -> int:
    """Signed 64-bit hash of this boot's id: a region of another boot is dead, whatever its pids say."""
    text = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def start_ticks(pid: int) -> int:
    """Start time of a process in clock ticks since boot, 0 if it is gone. Tells a reused pid apart."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rsplit(")", 1)[1].split()
    return 0 if fields[0] in ("Z", "X") else int(fields[19])


class _Address:
    """Lets numpy map read-only pages as an ordinary array, so that one compiled kernel serves readers and writers.

    A write through it faults: the pages are mapped without write permission. It keeps the mapping alive: numpy holds
    this object as the base of every view.
    """

    def __init__(self, mapping: mmap.mmap) -> None:
        self._view = np.frombuffer(mapping, dtype=np.int64)
        address = self._view.ctypes.data
        self.__array_interface__ = {"version": 3, "typestr": "<i8", "shape": self._view.shape, "data": (address, False)}


class Region:
    """A mapped region. ``words`` is the whole file as int64, read-only unless asked otherwise."""

    def __init__(self, path: Path, spec: RegionSpec, mapping: mmap.mmap, writable: bool) -> None:
        self.path = path
        self.spec = spec
        self.writable = writable
        self._mapping = mapping
        self.words: Words = np.asarray(_Address(mapping))

    @classmethod
    def create(cls, directory: Path, spec: RegionSpec, generation: int) -> Region:
        """Create the file with every page reserved; readers see it only when its header is complete.

        Raises RegionExists, RegionFull.
        """
        path = directory / spec.name
        if path.exists():
            raise RegionExists(f"region {spec.name} exists already in {directory}: another instance, or an unclean end")
        temporary = directory / f".{spec.name}.{os.getpid()}"
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                os.posix_fallocate(fd, 0, spec.bytes)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
                    raise RegionFull(f"no room for region {spec.name}: {spec.bytes} bytes in {directory}") from error
                raise
            mapping = mmap.mmap(fd, spec.bytes)
            region = cls(path, spec, mapping, True)
            header: dict[int, int] = {
                _H_MAGIC: MAGIC,
                _H_VERSION: LAYOUT_VERSION,
                _H_KIND: spec.kind,
                _H_DTYPE: spec.dtype_hash,
                _H_CAPACITY: spec.capacity,
                _H_WORDS: spec.words,
                _H_BYTES: spec.bytes,
                _H_GENERATION: generation,
                _H_CREATOR: os.getpid(),
                _H_BOOT: boot_id_hash(),
                _H_WALL: time.time_ns(),
                _H_MONO: time.monotonic_ns(),
                _H_READY: 1,
            }
            for at, value in header.items():
                region.words[at] = value
            os.link(temporary, path)  # atomic, and fails if somebody else was first
            return region
        except FileExistsError as error:
            raise RegionExists(f"region {spec.name} was created by another process just now in {directory}") from error
        finally:
            os.unlink(temporary)
            os.close(fd)

    @classmethod
    def attach(cls, directory: Path, spec: RegionSpec, *, writable: bool = False) -> Region:
        """Map an existing region after checking every header field.

        Raises RegionMissing, RegionForeign, RegionMismatch (naming the field and both values).
        """
        path = directory / spec.name
        try:
            fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise RegionMissing(f"no region {spec.name} in {directory}: the instance is not up (l2dash up)") from error
        try:
            size = os.fstat(fd).st_size
            if size < PAGE:
                raise RegionForeign(f"region {spec.name}: {size} bytes, shorter than a header of {PAGE}")
            mapping = mmap.mmap(fd, size, access=mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ)
        finally:
            os.close(fd)
        region = cls(path, spec, mapping, writable)
        w = region.words
        if int(w[_H_MAGIC]) != MAGIC or int(w[_H_READY]) != 1:
            raise RegionForeign(
                f"region {spec.name}: magic {int(w[_H_MAGIC]):#x} ready {int(w[_H_READY])}, not one of ours"
            )
        expected: tuple[tuple[str, int, int], ...] = (
            ("layout version", _H_VERSION, LAYOUT_VERSION),
            ("kind", _H_KIND, spec.kind),
            ("dtype hash", _H_DTYPE, spec.dtype_hash),
            ("capacity", _H_CAPACITY, spec.capacity),
            ("record words", _H_WORDS, spec.words),
            ("bytes", _H_BYTES, spec.bytes),
            ("boot id", _H_BOOT, boot_id_hash()),
        )
        for field, at, value in expected:
            if int(w[at]) != value:
                raise RegionMismatch(
                    f"region {spec.name}: {field} is {int(w[at])}, this program expects {value}; "
                    f"stop the instance, then `l2dash regions remove`"
                )
        if size != spec.bytes:
            raise RegionMismatch(f"region {spec.name}: file has {size} bytes, header says {spec.bytes}: truncated")
        return region

    def take_writer(self) -> int:
        """Register this process as the writer; returns its incarnation (1 for the first).

        Raises WriterTaken, naming the pid, if the registered writer is another process that lives.
        """
        pid, started = int(self.words[_H_WRITER]), int(self.words[_H_WRITER_START])
        if pid and pid != os.getpid() and start_ticks(pid) == started:
            raise WriterTaken(f"region {self.spec.name} has a living writer: pid {pid}; stop it first")
        self.words[_H_WRITER] = os.getpid()
        self.words[_H_WRITER_START] = start_ticks(os.getpid())
        self.words[_H_INCARNATION] += 1
        return int(self.words[_H_INCARNATION])

    @property
    def writer_alive(self) -> bool:
        pid = int(self.words[_H_WRITER])
        return bool(pid) and start_ticks(pid) == int(self.words[_H_WRITER_START])

    @property
    def writer_pid(self) -> int:
        return int(self.words[_H_WRITER])

    @property
    def generation(self) -> int:
        return int(self.words[_H_GENERATION])

    @property
    def anchors(self) -> tuple[int, int]:
        """Wall and monotonic time of creation, ns: one pair for the instance, so wall = anchor + elapsed."""
        return int(self.words[_H_WALL]), int(self.words[_H_MONO])

    def close(self) -> None:
        """Unmap, or leave that to the last view that is still in use."""
        self.words = np.zeros(0, np.int64)
        with contextlib.suppress(BufferError):
            self._mapping.close()

    def __enter__(self) -> Region:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
