"""Rings: one writer, many readers, records of whole cache lines. The protocol stands in ``shm.kernels``.

A broadcast ring never waits for a reader; a lapped reader learns exactly how many records it lost. A gated ring
(orders, commands) has gating readers whose cursors the writer respects: when it is full the writer is told so.
Batches cross between a mapped region and ordinary numpy buffers that the caller owns.

A cursor is one cache line of its reader's own region: word 0 position, word 1 generation of the ring it belongs to.

Invariants
1. One ``RingWriter`` per ring in the whole machine; the second is refused by name and pid of the first.
2. A cursor is written by its reader alone; it only rises while the ring's generation stays.
3. A position is meaningful only for the generation it was made in: in another one the reader begins at record 0.
4. ``publish`` of a gated ring writes the whole batch or nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shm import kernels, lines
from shm.kernels import SLOTS
from shm.layouts import CACHE_LINE, dtype_hash
from shm.region import Region, RegionKind, RegionSpec, Words

Records = npt.NDArray[np.void]


def ring_spec(name: str, dtype: np.dtype[np.void], capacity: int) -> RegionSpec:
    """Region of a ring. ``capacity`` records, a power of two; ``dtype`` of whole cache lines."""
    if capacity & (capacity - 1) or capacity < 2:
        raise ValueError(f"ring {name}: capacity {capacity} is not a power of two")
    if dtype.itemsize % CACHE_LINE or not dtype.itemsize:
        raise ValueError(f"ring {name}: records of {dtype.itemsize} bytes are not whole cache lines of {CACHE_LINE}")
    words = dtype.itemsize // 8
    size = (SLOTS + capacity * words) * 8
    # A slot of zeroes would be a finished record 0.
    return RegionSpec(name, RegionKind.RING, dtype_hash(dtype), capacity, words, size, ((SLOTS, kernels.WRITING),))


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
    """The one writer of a ring. Raises WriterTaken, RegionMismatch (the region holds other records)."""

    def __init__(self, region: Region, dtype: np.dtype[np.void], gates: tuple[Gate, ...] = ()) -> None:
        region.expect(RegionKind.RING, dtype)
        self.dtype = dtype
        self.capacity = region.spec.capacity
        self._region = region
        self._words = dtype.itemsize // 8
        self._gates = gates
        self.incarnation = region.take_writer()
        tail = int(kernels.ring_recover(region.words, self.capacity, self._words))
        self._limit = tail
        """Sequence up to which all gating readers, as last looked at, leave room."""
        self.record: Records = lines.zeros(1, dtype)
        """A scratch record for ``publish_record``; the caller fills it."""
        self._record_words = self.record.view(np.int64).reshape(-1)

    @property
    def words(self) -> Words:
        """The whole region, for kernels that publish by themselves (one writer all the same)."""
        return self._region.words

    def room(self) -> int:
        """Records that fit now; the capacity for a broadcast ring."""
        tail = self.tail
        used = max((tail - int(kernels.word_load(g.words, g.at)) for g in self._gates), default=0)
        self._limit = tail - used + self.capacity
        return self.capacity - used

    def _claim(self, count: int) -> None:
        """Raise RingFull unless ``count`` records fit. Looks at the readers only if the last look does not suffice."""
        if self._gates and self.tail + count > self._limit and self.room() < count:
            raise RingFull(f"ring {self._region.spec.name} is full: {self.capacity} records wait for their reader")

    def publish(self, records: Records) -> int:
        """Publish a batch; returns the sequence after its last record. Raises RingFull if gated and without room."""
        self._claim(len(records))
        flat = np.ascontiguousarray(records).view(np.int64).reshape(-1)
        return int(kernels.ring_publish(self._region.words, flat, len(records), self.capacity, self._words))

    def publish_record(self) -> int:
        """Publish ``self.record``; returns its sequence. Raises RingFull."""
        self._claim(1)
        return int(kernels.ring_publish(self._region.words, self._record_words, 1, self.capacity, self._words)) - 1

    @property
    def tail(self) -> int:
        return int(kernels.ring_tail(self._region.words))


class RingReader:
    """One reader of a ring with its own persistent cursor; resumes where its predecessor stopped."""

    def __init__(self, region: Region, dtype: np.dtype[np.void], cursor: Words, at: int, *, batch: int = 1024) -> None:
        region.expect(RegionKind.RING, dtype)
        self.dtype = dtype
        self.capacity = region.spec.capacity
        self._region = region
        self._ring = region.words
        self._cursor = cursor
        self._at = at
        self._words = dtype.itemsize // 8
        self.buffer: Records = lines.zeros(batch, dtype)
        self._flat = self.buffer.view(np.int64).reshape(-1)
        self._peeked = np.zeros(1, np.int64)
        self.lost = 0
        """Records lost by being lapped, in total."""
        self.last_gap = 0
        """Records lost immediately before the batch that ``poll`` returned last."""
        self.restarted = False
        """The cursor belonged to another generation of the ring: reading began at record 0."""
        if len(cursor) > at + 1 and int(cursor[at + 1]) != region.generation:
            self.restarted = int(cursor[at + 1]) != 0
            kernels.word_store(cursor, at, 0)
            kernels.word_store(cursor, at + 1, region.generation)

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
        return max(0, int(kernels.ring_tail(self._ring)) - self.position)

    def seek(self, sequence: int) -> None:
        kernels.word_store(self._cursor, self._at, sequence)

    def skip_to_end(self) -> int:
        """Forget what waits; returns how many records that were."""
        waiting = self.waiting
        self.seek(self.position + waiting)
        return waiting

    def poll_count(self) -> int:
        """Copy waiting records into ``buffer``; returns how many. Sets ``last_gap`` when lapped on the way.

        Raises RegionReplaced once the ring has been removed or made anew and nothing more can come.
        """
        self.last_gap = 0
        count = int(kernels.ring_poll(self._ring, self._cursor, self._at, self._flat, self.capacity, self._words))
        while count < 0:
            self.last_gap += kernels.LAPPED - count
            count = int(kernels.ring_poll(self._ring, self._cursor, self._at, self._flat, self.capacity, self._words))
        self.lost += self.last_gap
        if count == 0:
            self._region.verify_generation()
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
    """Every broken invariant of a ring at rest (its writer idle or dead), in words; empty if sound."""
    words, capacity, size = region.words, region.spec.capacity, region.spec.words
    name, tail = region.spec.name, int(words[kernels.TAIL])
    if tail < 0:
        return [f"{name}: tail {tail} is negative"]
    slots = np.arange(capacity)
    marks = np.array(words[SLOTS::size][:capacity])
    records = np.where(marks < 0, kernels.WRITING - marks, marks)
    newest = tail - 1 - (tail - 1 - slots) % capacity  # youngest record below the tail; negative: none was ever there
    whole = marks == newest
    virgin = (newest < 0) & (marks == 0) & (slots > 0)
    claimed = (records >= tail) & (records < tail + (capacity >> 1)) & (records & (capacity - 1) == slots)
    broken = np.flatnonzero(~(whole | virgin | claimed))
    return [f"{name}: slot of record {newest[i]} holds {marks[i]} (tail {tail})" for i in broken[:3]]


def check_cursor(words: Words, at: int, ring: Region) -> list[str]:
    """Every broken invariant of a reader's cursor against its ring; empty if sound."""
    position, generation = int(words[at]), int(words[at + 1])
    name, tail = ring.spec.name, int(ring.words[kernels.TAIL])
    broken = []
    if position < 0:
        broken.append(f"cursor of {name}: position {position} is negative")
    if generation not in (0, ring.generation):
        broken.append(f"cursor of {name}: of generation {generation}, the ring is of {ring.generation}")
    elif position > tail + ring.spec.capacity // 2:
        broken.append(f"cursor of {name}: position {position} is beyond the tail {tail}")
    return broken
