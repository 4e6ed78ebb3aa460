"""A region: one file in /dev/shm with a self-describing header, created once and only attached afterwards.

Header (64-bit words; one page is reserved so that payload starts page-aligned)

    0 magic    1 layout version   2 kind   3 dtype hash   4 capacity   5 record words   6 bytes
    7 generation   8 creator pid   9 boot id hash   10 wall anchor ns   11 monotonic anchor ns
    16 writer pid   17 writer start ticks   18 writer incarnation
    62 ready (written last: a region without it was never finished)

Invariants
1. A name in the directory is a whole region: the file gets it when its header is complete and every page is there.
2. The header never changes while the region lives, but for the writer's words (16 to 18).
3. Generation: incarnation of the region, above 0. It becomes ``RETIRED`` when the region is removed, so that whoever
   still maps it learns that nothing more will come (``verify_generation``).
4. Writer: alive means that its pid has the start time of word 17; a reused pid is a dead writer. Taking the place of a
   dead one happens under a lock of the file, so that of two heirs one is refused.
5. Files are 0600. Readers' pages are mapped without write permission: a write by a reader faults.

Rejected: ``multiprocessing.shared_memory``, whose resource tracker unlinks segments that other processes use; memmap
of a growing file, where a full disk is SIGBUS instead of an error (creation here reserves every page).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shm import memory
from shm.errors import (
    RegionExists,
    RegionForeign,
    RegionFull,
    RegionMismatch,
    RegionMissing,
    RegionReadOnly,
    RegionReplaced,
    WriterTaken,
)
from shm.layouts import LAYOUT_VERSION, dtype_hash
from shm.process import boot_id_hash as boot_id_hash
from shm.process import process_name
from shm.process import start_ticks as start_ticks

MAGIC = 0x3148534144324C  # "L2DASH1"
PAGE = 4096
_H_MAGIC, _H_VERSION, _H_KIND, _H_DTYPE, _H_CAPACITY, _H_WORDS, _H_BYTES, H_GENERATION = range(8)
_H_CREATOR, H_BOOT, _H_WALL, _H_MONO = 8, 9, 10, 11
H_WRITER, _H_WRITER_START, _H_INCARNATION = 16, 17, 18
_H_READY = 62
RETIRED = -1
"""Generation of a region that has been removed."""
_NO_ROOM = (errno.ENOSPC, errno.ENOMEM, errno.EFBIG, errno.EDQUOT)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
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
    initial: tuple[tuple[int, int], ...] = ()
    """Words that are not zero at birth: (offset, value)."""


def _refused(error: OSError, what: str, directory: Path, spec: RegionSpec) -> Exception:
    """The named error for what the operating system said; the error itself if it is none of the expected ones."""
    if error.errno in _NO_ROOM:
        free = shutil.disk_usage(directory).free
        return RegionFull(f"{what}: {spec.bytes} bytes needed, {free} free in {directory} ({error.strerror})")
    if error.errno in _READ_ONLY:
        return RegionReadOnly(f"{what}: {error.strerror}; it must belong to user {os.getuid()} and be writable")
    return error


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

    def __init__(
        self, path: Path, spec: RegionSpec, mapping: mmap.mmap, writable: bool, generation: int | None = None
    ) -> None:
        self.path = path
        self.spec = spec
        self.writable = writable
        self._mapping = mapping
        self.words: Words = np.asarray(_Address(mapping))
        self.generation = int(self.words[H_GENERATION]) if generation is None else generation
        """Incarnation of the region as it was when mapped."""

    @classmethod
    def create(cls, directory: Path, spec: RegionSpec, generation: int) -> Region:
        """Create the file with every page reserved; readers see it only when its header is complete.

        Raises RegionExists, RegionFull, RegionReadOnly, RegionMissing (no such directory).
        """
        path = directory / spec.name
        if path.exists():
            raise RegionExists(f"region {spec.name} exists already in {directory}: another instance, or an unclean end")
        temporary = directory / f".{spec.name}.{os.getpid()}"
        try:
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileNotFoundError as error:
            raise RegionMissing(f"no directory {directory} for region {spec.name}: `l2dash up` makes it") from error
        except OSError as error:
            raise _refused(error, f"region {spec.name} can't be made in {directory}", directory, spec) from error
        try:
            try:
                os.ftruncate(fd, spec.bytes)
                mapping = mmap.mmap(fd, spec.bytes)
                memory.advise_huge(mapping, spec.bytes, fill=True)
                os.posix_fallocate(fd, 0, spec.bytes)
            except OSError as error:
                raise _refused(error, f"no room for region {spec.name}", directory, spec) from error
            region = cls(path, spec, mapping, True, generation)
            header: dict[int, int] = {
                _H_MAGIC: MAGIC,
                _H_VERSION: LAYOUT_VERSION,
                _H_KIND: spec.kind,
                _H_DTYPE: spec.dtype_hash,
                _H_CAPACITY: spec.capacity,
                _H_WORDS: spec.words,
                _H_BYTES: spec.bytes,
                H_GENERATION: generation,
                _H_CREATOR: os.getpid(),
                H_BOOT: boot_id_hash(),
                _H_WALL: time.time_ns(),
                _H_MONO: time.monotonic_ns(),
                **dict(spec.initial),
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

        Raises RegionMissing, RegionForeign, RegionReadOnly, RegionMismatch (naming the field and both values).
        """
        path = directory / spec.name
        try:
            fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise RegionMissing(f"no region {spec.name} in {directory}: the instance is not up (l2dash up)") from error
        except OSError as error:
            access = "written" if writable else "read"
            raise _refused(error, f"region {spec.name} in {directory} can't be {access}", directory, spec) from error
        try:
            size = os.fstat(fd).st_size
            if size < PAGE:
                raise RegionForeign(f"region {spec.name}: {size} bytes, shorter than a header of {PAGE}")
            # Populated, so that no access on a hot path is the first one to its page.
            prot = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
            mapping = mmap.mmap(fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=prot)
        finally:
            os.close(fd)
        memory.advise_huge(mapping, size)
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
            ("boot id", H_BOOT, boot_id_hash()),
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

        Raises WriterTaken, naming process and pid, if the registered writer is another process that lives;
        RegionReplaced if the region is no longer the one of its name.
        """
        with self._locked():
            pid, started = int(self.words[H_WRITER]), int(self.words[_H_WRITER_START])
            if pid and pid != os.getpid() and start_ticks(pid) == started:
                raise WriterTaken(
                    f"region {self.spec.name} has a living writer, {process_name(pid)} with pid {pid}; "
                    f"this process ({process_name(os.getpid())}, pid {os.getpid()}) may not write: stop the first one"
                )
            self.words[H_WRITER] = os.getpid()
            self.words[_H_WRITER_START] = start_ticks(os.getpid())
            self.words[_H_INCARNATION] += 1
            return int(self.words[_H_INCARNATION])

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among processes, as long as the region is the one of its name."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise RegionReplaced(f"region {self.spec.name} was removed from {self.path.parent}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            self.verify_generation()
            yield
        finally:
            os.close(fd)

    def expect(self, kind: RegionKind, dtype: np.dtype[np.void]) -> None:
        """Raise RegionMismatch unless the region holds that kind of structure with records of ``dtype``."""
        if self.spec.kind != kind:
            raise RegionMismatch(
                f"region {self.spec.name} is a {self.spec.kind.name}, this program wants a {kind.name}"
            )
        if self.spec.dtype_hash != dtype_hash(dtype):
            raise RegionMismatch(
                f"region {self.spec.name}: records have dtype hash {self.spec.dtype_hash} and {self.spec.words * 8} "
                f"bytes, this program wants {dtype_hash(dtype)} and {dtype.itemsize}"
            )

    def verify_generation(self) -> None:
        """Raise RegionReplaced if the region was removed or made anew since it was mapped."""
        now = int(self.words[H_GENERATION])
        if now != self.generation:
            state = "was removed" if now == RETIRED else f"is of generation {now}"
            raise RegionReplaced(f"region {self.spec.name} {state}; this process mapped generation {self.generation}")

    def retire(self) -> None:
        """Tell every process that maps the region that nothing more will come. The caller then unlinks it."""
        self.words[H_GENERATION] = RETIRED

    def lock_pages(self) -> str:
        """Pin the pages in memory (``mlock``). Returns "" or the reason why the kernel refused."""
        return memory.lock(self.words.ctypes.data, self.words.nbytes)

    @property
    def writer_alive(self) -> bool:
        pid = int(self.words[H_WRITER])
        return bool(pid) and start_ticks(pid) == int(self.words[_H_WRITER_START])

    @property
    def writer_pid(self) -> int:
        return int(self.words[H_WRITER])

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


def check_region(region: Region) -> list[str]:
    """Every broken invariant of a region's header, in words; empty if sound."""
    w, name, spec = region.words, region.spec.name, region.spec
    found = {"magic": (int(w[_H_MAGIC]), MAGIC), "layout version": (int(w[_H_VERSION]), LAYOUT_VERSION)}
    found |= {"kind": (int(w[_H_KIND]), spec.kind), "dtype hash": (int(w[_H_DTYPE]), spec.dtype_hash)}
    found |= {"capacity": (int(w[_H_CAPACITY]), spec.capacity), "record words": (int(w[_H_WORDS]), spec.words)}
    found |= {
        "bytes": (int(w[_H_BYTES]), spec.bytes),
        "file size": (w.nbytes, spec.bytes),
        "ready": (int(w[_H_READY]), 1),
    }
    found |= {"generation": (int(w[H_GENERATION]), region.generation)}
    broken = [f"{name}: {field} is {is_}, not {want}" for field, (is_, want) in found.items() if is_ != want]
    if (int(w[H_WRITER]) != 0) != (int(w[_H_INCARNATION]) > 0):
        broken.append(f"{name}: writer pid {int(w[H_WRITER])} with incarnation {int(w[_H_INCARNATION])}")
    if region.path.exists() and stat.S_IMODE(region.path.stat().st_mode) != 0o600:
        broken.append(f"{name}: mode {stat.S_IMODE(region.path.stat().st_mode):o}, not 600")
    return broken
