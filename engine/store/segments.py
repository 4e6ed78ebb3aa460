"""Segments: append-only files of blocks, one stream (ticks, signals) in one day's directory.

    state_dir/ticks/2024-01-02/ticks-000001.seg          raw, being written or waiting to be sealed
    state_dir/ticks/2024-01-02/ticks-000001.parquet      sealed, with ticks-000001.json beside it
    state_dir/ticks/2024-01-02/quarantine/…              bytes that were damaged, kept as evidence

Invariants
1. What has not been synced yet stands in memory too, until the next successful fdatasync.
2. A failed fdatasync is never retried: the file is cut back to what is durable and the rest is written to a new file.
3. A failed write leaves no half block behind: the file is cut back to its last whole block.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.store.blocks import Block, Damage, scan
from engine.store.files import StoreError, day_directories, day_name, make_directory, replace_file, sync_directory
from engine.store.sealed import SEALED, read_index

RAW = ".seg"
SYNC_BYTES = 4 * 1024 * 1024
"""Unsynced bytes after which a sync is due, whatever the time."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was found in a segment when it was opened again."""

    path: Path
    bytes: int
    truncated_bytes: int
    quarantined: tuple[Damage, ...]

    @property
    def loud(self) -> bool:
        """Data that had been written whole is damaged: a disk or a person did that, not a crash."""
        return bool(self.quarantined)


def segment_name(stream: str, number: int) -> str:
    return f"{stream}-{number:06d}{RAW}"


def segment_number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def segments_of(directory: Path, stream: str) -> list[Path]:
    """Segments of a day in order; the raw file where raw and sealed both exist (sealing was interrupted)."""
    raw = {p.stem: p for p in directory.glob(f"{stream}-*{RAW}")}
    sealed = {p.stem: p for p in directory.glob(f"{stream}-*{SEALED}")}
    return [path for _, path in sorted({**sealed, **raw}.items())]


def recover(path: Path) -> Recovery:
    """Cut a damaged tail off a raw segment and copy every damaged whole block into ``quarantine``.

    A damaged block in the middle stays where it is: readers step over it and report it.
    """
    data = path.read_bytes()
    damaged = [found for found in scan(data) if isinstance(found, Damage)]
    loud = tuple(d for d in damaged if d.whole or not d.tail)
    for d in loud:
        _quarantine(path, data, d)
    kept = damaged[-1].offset if damaged and damaged[-1].tail else len(data)
    if kept < len(data):
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, kept)
            os.fsync(fd)
        finally:
            os.close(fd)
    return Recovery(path, kept, len(data) - kept, loud)


def _quarantine(path: Path, data: bytes, damage: Damage) -> None:
    directory = path.parent / "quarantine"
    make_directory(directory)
    target = directory / f"{path.stem}-{damage.offset:010d}.bad"
    if target.exists():
        return
    replace_file(target, data[damage.offset : damage.end])


def last_position(root: Path, stream: str) -> tuple[int, int] | None:
    """(epoch, next sequence) of the newest valid block of a stream, sealed ones included; None if there is none."""
    for _, directory in reversed(list(day_directories(root))):
        for path in reversed(segments_of(directory, stream)):
            if path.suffix == SEALED:
                index = read_index(path)
                if index.blocks:
                    return index.epoch, index.next_sequence
                continue
            blocks = [b for b in scan(path.read_bytes()) if isinstance(b, Block)]
            if blocks:
                return blocks[-1].header.epoch, blocks[-1].header.next_sequence
    return None


class SegmentWriter:
    """The one writer of a stream. Call ``append`` and ``sync`` from one thread."""

    def __init__(
        self, root: Path, stream: str, segment_bytes: int, *, fdatasync: Callable[[int], None] = os.fdatasync
    ) -> None:
        self.root = root
        self.stream = stream
        self.segment_bytes = segment_bytes
        self.written = 0
        """Bytes written since this object was made."""
        self._fdatasync = fdatasync
        self._fd = -1
        self._path = root
        self._date = 0
        self._size = 0
        self._unsynced: list[bytes] = []
        self._unsynced_bytes = 0
        self._failed = False

    def open(self, date: int) -> Recovery | None:
        """Continue the day's newest raw segment, or start its next one. Returns what recovery found, if anything.

        Raises OSError.
        """
        self.close()
        directory = self.root / day_name(date)
        make_directory(directory)
        existing = segments_of(directory, self.stream)
        self._date = date
        if existing and existing[-1].suffix == RAW:
            found = recover(existing[-1])
            if found.bytes < self.segment_bytes:
                self._attach(existing[-1], found.bytes, 0)
            else:
                self._create(segment_number(existing[-1]) + 1)
            return found
        self._create(segment_number(existing[-1]) + 1 if existing else 1)
        return None

    def _attach(self, path: Path, size: int, flags: int) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | flags, 0o600)
        self._path, self._size = path, size

    def _create(self, number: int) -> None:
        directory = self.root / day_name(self._date)
        self._attach(directory / segment_name(self.stream, number), 0, os.O_CREAT | os.O_EXCL)
        sync_directory(directory)

    @property
    def path(self) -> Path:
        return self._path

    @property
    def date(self) -> int:
        """Day of the segment that is open, 0 if none is."""
        return self._date if self._fd >= 0 or self._failed else 0

    @property
    def unsynced_bytes(self) -> int:
        return self._unsynced_bytes

    def append(self, date: int, block: bytes) -> None:
        """Write one block into the segment of ``date``. After an OSError nothing of the block is in the file, and the
        same block may be appended again.
        """
        if self._failed:
            self._rewrite()
        if self._fd < 0 or date != self._date:
            self.open(date)
        elif self._size and self._size + len(block) > self.segment_bytes:
            self.sync()
            number = segment_number(self._path) + 1
            self._release()
            self._create(number)
        self._write(block)
        self._unsynced.append(block)
        self._unsynced_bytes += len(block)

    def _write(self, block: bytes) -> None:
        done = 0
        view = memoryview(block)
        try:
            while done < len(block):
                done += os.write(self._fd, view[done:])
        except OSError:
            if done:
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(block)
        self.written += len(block)

    def sync(self) -> None:
        """Make everything that was appended durable. Raises StoreError when the disk failed to.

        After a failure the next ``append`` or ``sync`` first moves what is not durable into a new segment.
        """
        if self._failed:
            self._rewrite()
        if self._fd < 0 or not self._unsynced:
            return
        try:
            self._fdatasync(self._fd)
        except OSError as error:
            self._failed = True
            raise StoreError(
                f"fdatasync of {self._path} failed: {error.strerror}; its last {self._unsynced_bytes} bytes are not on "
                f"disk: check the disk, then restart the recorder"
            ) from error
        self._unsynced.clear()
        self._unsynced_bytes = 0

    def _rewrite(self) -> None:
        """Cut the file back to what is durable and write the rest to a new segment. Raises OSError.

        If this fails half-way it is begun anew: blocks that then stand in two files are read once.
        """
        pending = list(self._unsynced)
        if self._fd >= 0:
            os.ftruncate(self._fd, self._size - self._unsynced_bytes)
            self._release()
        existing = segments_of(self.root / day_name(self._date), self.stream)
        self._create(segment_number(existing[-1]) + 1 if existing else 1)
        for block in pending:
            self._write(block)
        self._failed = False

    def _release(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)

    def close(self) -> None:
        """Sync and close. Raises StoreError or OSError if the last bytes could not be made durable."""
        if self._fd >= 0 or self._failed:
            try:
                self.sync()
            finally:
                if self._fd >= 0:
                    self._release()
