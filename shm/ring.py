"""Rings: one writer, many readers, records of whole cache lines. The protocol stands in ``shm.kernels``.

A broadcast ring never waits for a reader; a lapped reader learns exactly how many records it lost. A gated ring
(orders, commands) has gating readers whose cursors the writer respects: when it is full the writer is told so.
Batches cross between a mapped region and ordinary numpy buffers that the caller owns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shm import kernels
from shm.kernels import SLOTS
from shm.layouts import dtype_hash
from shm.region import Region, RegionKind, RegionSpec, Words

Records = npt.NDArray[np.void]


def ring_spec(name: str, dtype: np.dtype[np.void], capacity: int) -> RegionSpec:
    """Region of a ring. ``capacity`` records, a power of two; ``dtype`` of whole cache lines."""
    if capacity & (capacity - 1) or capacity < 2:
        raise ValueError(f"ring {name}: capacity {capacity} is not a power of two")
    words = dtype.itemsize // 8
    return RegionSpec(name, RegionKind.RING, dtype_hash(dtype), capacity, words, (SLOTS + capacity * words) * 8)


def cursor_spec(name: str, lines: int) -> RegionSpec:
    """Region of a service's own reader cursors: one cache line each."""
    return RegionSpec(name, RegionKind.CURSOR, 0, lines * 8, 1, (SLOTS + lines * 8) * 8)


def cursor_at(line: int) -> int:
    """Word offset of cursor ``line`` in a cursor region."""
    return SLOTS + line * 8


@dataclass(frozen=True, slots=True)
class Gate:
    """A gating reader's cursor: the writer overwrites nothing that it has not passed."""

    words: Words
    at: int


class RingFull(Exception):
    """A gated ring has no room for the batch: nothing was written."""


class RingWriter:
    """The one writer of a ring."""

    def __init__(self, region: Region, dtype: np.dtype[np.void], gates: tuple[Gate, ...] = ()) -> None:
        self.dtype = dtype
        self.capacity = region.spec.capacity
        self._region = region
        self._words = dtype.itemsize // 8
        self._gates = gates
        self.incarnation = region.take_writer()
        self.record: Records = np.zeros(1, dtype)
        """A scratch record for ``publish_record``; the caller fills it."""
        self._record_words = self.record.view(np.int64).reshape(-1)

    @property
    def words(self) -> Words:
        """The whole region, for kernels that publish by themselves (one writer all the same)."""
        return self._region.words

    def room(self) -> int:
        """Records that fit now; the capacity for a broadcast ring."""
        tail = int(kernels.ring_tail(self._region.words))
        used = max((tail - int(kernels.word_load(g.words, g.at)) for g in self._gates), default=0)
        return self.capacity - used

    def publish(self, records: Records) -> int:
        """Publish a batch; returns the sequence after its last record. Raises RingFull if gated and without room."""
        if self._gates and self.room() < len(records):
            raise RingFull(f"ring {self._region.spec.name} is full: {self.capacity} records wait for their reader")
        flat = np.ascontiguousarray(records).view(np.int64).reshape(-1)
        return int(kernels.ring_publish(self._region.words, flat, len(records), self.capacity, self._words))

    def publish_record(self) -> int:
        """Publish ``self.record``; returns its sequence. Raises RingFull."""
        if self._gates and self.room() < 1:
            raise RingFull(f"ring {self._region.spec.name} is full: {self.capacity} records wait for their reader")
        return int(kernels.ring_publish(self._region.words, self._record_words, 1, self.capacity, self._words)) - 1

    @property
    def tail(self) -> int:
        return int(kernels.ring_tail(self._region.words))


class RingReader:
    """One reader of a ring with its own persistent cursor; resumes where its predecessor stopped."""

    def __init__(self, region: Region, dtype: np.dtype[np.void], cursor: Words, at: int, *, batch: int = 1024) -> None:
        self.dtype = dtype
        self.capacity = region.spec.capacity
        self._region = region
        self._ring = region.words
        self._cursor = cursor
        self._at = at
        self._words = dtype.itemsize // 8
        self.buffer: Records = np.zeros(batch, dtype)
        self._flat = self.buffer.view(np.int64).reshape(-1)
        self._peeked = np.zeros(1, np.int64)
        self.lost = 0
        """Records lost by being lapped, in total."""
        self.last_gap = 0
        """Records lost immediately before the batch that ``poll`` returned last."""

    @property
    def position(self) -> int:
        return int(kernels.word_load(self._cursor, self._at))

    @property
    def addresses(self) -> tuple[int, int]:
        """Addresses of the ring's tail word and of this reader's cursor, for kernels."""
        return self._ring.ctypes.data + kernels.TAIL * 8, self._cursor.ctypes.data + self._at * 8

    @property
    def waiting(self) -> int:
        """Records published and not yet read."""
        return int(kernels.ring_tail(self._ring)) - self.position

    def seek(self, sequence: int) -> None:
        kernels.word_store(self._cursor, self._at, sequence)

    def skip_to_end(self) -> int:
        """Forget what waits; returns how many records that were."""
        waiting = self.waiting
        self.seek(self.position + waiting)
        return waiting

    def poll_count(self) -> int:
        """Copy waiting records into ``buffer``; returns how many. Sets ``last_gap`` when lapped on the way."""
        self.last_gap = 0
        count = int(kernels.ring_poll(self._ring, self._cursor, self._at, self._flat, self.capacity, self._words))
        while count < 0:
            self.last_gap += kernels.LAPPED - count
            count = int(kernels.ring_poll(self._ring, self._cursor, self._at, self._flat, self.capacity, self._words))
        self.lost += self.last_gap
        return count

    def peek_count(self) -> int:
        """Like ``poll_count``, but the cursor stays: the records count as read when ``commit`` says so.

        For what must not be lost with a process that dies while it handles them: its successor gets them again.
        """
        self._peeked[0] = self.position
        self.last_gap = 0
        count = int(kernels.ring_poll(self._ring, self._peeked, 0, self._flat, self.capacity, self._words))
        while count < 0:
            self.last_gap += kernels.LAPPED - count
            count = int(kernels.ring_poll(self._ring, self._peeked, 0, self._flat, self.capacity, self._words))
        self.lost += self.last_gap
        self._peeked[0] -= count
        return count

    def commit(self, count: int = 1) -> None:
        """The next ``count`` records that were peeked at are done."""
        self._peeked[0] += count
        kernels.word_store(self._cursor, self._at, self._peeked[0])

    def poll(self) -> Records:
        """Waiting records as a view of ``buffer``, valid until the next poll."""
        return self.buffer[: self.poll_count()]


def check_ring(region: Region) -> list[str]:
    """Every broken invariant of a ring at rest, in words; empty if sound."""
    words, capacity, size = region.words, region.spec.capacity, region.spec.words
    tail, intent = int(words[kernels.TAIL]), int(words[kernels.INTENT])
    broken = []
    if tail < 0 or intent < tail:
        broken.append(f"{region.spec.name}: tail {tail} and intent {intent} are out of order")
    first = max(0, intent - capacity)
    for n in range(first, tail):
        found = int(words[SLOTS + (n & (capacity - 1)) * size])
        if found != n:
            broken.append(f"{region.spec.name}: slot of record {n} holds {found}")
            break
    return broken
