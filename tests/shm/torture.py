"""One side of the torture test, run as a process of its own: ``torture.py write|read DIR COUNT``.

A record of number n carries words derived from n, so any mix of two records is seen. The reader prints, as its last
line, how many records it saw and how many it was told to have lost; a tear ends it with exit code 1.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from shm.layouts import TICK
from shm.region import Region
from shm.ring import RingReader, RingWriter, cursor_at, cursor_spec, ring_spec

CAPACITY, BATCH = 1024, 64
GOLDEN = np.int64(0x9E3779B97F4A7C15 - (1 << 64))


def fill(numbers: np.ndarray, flat: np.ndarray) -> None:
    with np.errstate(over="ignore"):
        for word in range(1, 8):
            flat[:, word] = (numbers + word) * GOLDEN


def write(directory: Path, count: int) -> int:
    region = Region.attach(directory, ring_spec("ring", TICK, CAPACITY), writable=True)
    writer = RingWriter(region, TICK)
    records = np.zeros(BATCH, TICK)
    flat = records.view(np.int64).reshape(BATCH, 8)
    while writer.tail < count:
        size = min(BATCH, count - writer.tail)
        fill(np.arange(writer.tail, writer.tail + size, dtype=np.int64), flat[:size])
        writer.publish(records[:size])
    return 0


def read(directory: Path, count: int) -> int:
    region = Region.attach(directory, ring_spec("ring", TICK, CAPACITY))
    cursors = Region.attach(directory, cursor_spec("cursors", 1), writable=True)
    reader = RingReader(region, TICK, cursors.words, cursor_at(0), batch=512)
    expected = np.zeros((512, 8), np.int64)
    seen = 0
    quiet_until = time.monotonic() + 30.0
    while reader.position < count:
        start = reader.position
        got = reader.poll()
        if not len(got):
            if time.monotonic() > quiet_until:
                print("no progress for 30 s", flush=True)
                return 1
            continue
        quiet_until = time.monotonic() + 30.0
        numbers = np.arange(start + reader.last_gap, start + reader.last_gap + len(got), dtype=np.int64)
        expected[: len(got), 0] = numbers
        fill(numbers, expected[: len(got)])
        flat = got.view(np.int64).reshape(len(got), 8)
        if not np.array_equal(flat, expected[: len(got)]):
            print(f"torn record near {start}", flush=True)
            return 1
        seen += len(got)
    print(seen, reader.lost, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit({"write": write, "read": read}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3])))
