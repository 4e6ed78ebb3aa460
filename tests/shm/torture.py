"""The sides of the torture, as functions for forked processes, and the compiled loops that they run.

Record n: words 1 to 6 are derived from n and the word's place, word 7 is the checksum of all others. So a mix of two
records, of any words, is seen, and so is a word that was left out.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shm.atomics import cpu_pause, load_acquire, load_relaxed, store_release
from shm.jit import kernel
from shm.kernels import LAPPED, TAIL, ring_poll, ring_publish
from shm.layouts import TICK
from shm.region import Region
from shm.ring import RingReader, RingWriter, cursor_at, cursor_spec, ring_spec

CAPACITY, BATCH, SLICE = 4096, 64, 200_000
GOLDEN = 0x1E3779B97F4A7C15
SEEN, LOST, TORN = 4, 5, 6
"""Words of a reader's cursor line, besides the position: what it saw, was told to have lost, and found torn."""


@kernel("int64(int64[::1], int64[::1], int64, int64[::1], int64, int64)")
def write_some(ring, batch, upto, gate, at, polls):  # type: ignore[no-untyped-def]
    """Publish batches up to record ``upto``. ``at`` >= 0: never beyond the reader there; gives up after ``polls``."""
    tail = load_relaxed(ring, TAIL)
    limit = tail if at >= 0 else upto + CAPACITY
    while tail < upto:
        size = min(BATCH, upto - tail)
        while limit < tail + size:
            limit = load_acquire(gate, at) + CAPACITY
            if limit < tail + size:
                polls -= 1
                if polls < 0:
                    return tail
                cpu_pause()
        for i in range(size):
            check = tail + i
            for w in range(1, 7):
                value = (tail + i + w) * GOLDEN
                batch[i * 8 + w] = value
                check ^= value
            batch[i * 8 + 7] = check
        tail = ring_publish(ring, batch, size, CAPACITY, 8)
    return tail


@kernel("int64(int64[::1], int64[::1], int64, int64[::1], int64[::1], int64, int64)")
def read_some(ring, cursor, at, mine, out, upto, polls):  # type: ignore[no-untyped-def]
    """Verify records until ``upto`` or ``polls`` vain looks. The shared cursor moves last: a killed one reads again."""
    mine[0] = load_relaxed(cursor, at)
    while mine[0] < upto and polls > 0:
        got = ring_poll(ring, mine, 0, out, CAPACITY, 8)
        if got == 0:
            polls -= 1
            cpu_pause()
            continue
        if got < 0:
            store_release(cursor, at + LOST, load_relaxed(cursor, at + LOST) + LAPPED - got)
            store_release(cursor, at, mine[0])
            continue
        first = mine[0] - got
        for i in range(got):
            n = first + i
            check = n
            torn = out[i * 8] != n
            for w in range(1, 7):
                torn |= out[i * 8 + w] != (n + w) * GOLDEN
                check ^= out[i * 8 + w]
            if torn or out[i * 8 + 7] != check:
                store_release(cursor, at + TORN, load_relaxed(cursor, at + TORN) + 1)
        store_release(cursor, at + SEEN, load_relaxed(cursor, at + SEEN) + got)
        store_release(cursor, at, mine[0])
    return mine[0]


def create(directory: Path, readers: int) -> None:
    Region.create(directory, ring_spec("ring", TICK, CAPACITY), 1).close()
    Region.create(directory, cursor_spec("cursors", readers), 1).close()


def write(directory: Path, count: int, gated: bool, leave: NDArray[np.int64]) -> None:
    """Publish ``count`` records, never beyond ``leave[0]``, which the killer moves on: no kill comes too late."""
    ring = Region.attach(directory, ring_spec("ring", TICK, CAPACITY), writable=True)
    cursors = Region.attach(directory, cursor_spec("cursors", 1)).words if gated else np.zeros(8, np.int64)
    RingWriter(ring, TICK)
    batch, done = np.zeros(BATCH * 8, np.int64), 0
    while done < count:
        upto = min(count, int(ring.words[TAIL]) + SLICE, int(leave[0]))
        done = int(write_some(ring.words, batch, upto, cursors, cursor_at(0) if gated else -1, 100_000))
        if done < upto or done == leave[0]:
            os.sched_yield()


def read(directory: Path, count: int, line: int, readers: int) -> None:
    ring = Region.attach(directory, ring_spec("ring", TICK, CAPACITY))
    cursors = Region.attach(directory, cursor_spec("cursors", readers), writable=True)
    at, mine, out = cursor_at(line), np.zeros(8, np.int64), np.zeros(512 * 8, np.int64)
    RingReader(ring, TICK, cursors.words, at)
    while int(read_some(ring.words, cursors.words, at, mine, out, count, 20_000)) < count:
        time.sleep(0)
