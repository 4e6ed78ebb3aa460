"""Shared memory against its own physical limit, against C and against the usual queues; all in one interleaved run.

usage: python benchmarks/bench_shm.py [--smoke]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import shm_kernels as k
from machine import describe

from shm.cell import CellReader, CellWriter, cell_spec
from shm.layouts import LEASE, TICK
from shm.region import Region
from shm.ring import RingReader, RingWriter, cursor_at, cursor_spec, ring_spec

CAPACITY = 4096
BATCH = 64


def pin(core: int) -> None:
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[core]} if core < len(os.sched_getaffinity(0)) else {0})


class Pair:
    """A directory with two rings and two cursors, and a forked partner that runs ``other`` on the second core."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="l2dash-bench-", dir="/dev/shm"))
        self.there = Region.create(self.directory, ring_spec("there", TICK, CAPACITY), 1).words
        self.back = Region.create(self.directory, ring_spec("back", TICK, CAPACITY), 1).words
        self.cursors = Region.create(self.directory, cursor_spec("cursors", 4), 1).words
        self.bare = Region.create(self.directory, cursor_spec("bare", 4), 1).words[512:]

    def together(self, mine: Callable[[], object], other: Callable[[], object]) -> float:
        """Run both at once on two cores; seconds until both are done."""
        everywhere = os.sched_getaffinity(0)
        pid = os.fork()
        if pid == 0:
            try:
                pin(1)
                other()
            finally:
                os._exit(0)
        pin(0)
        begun = time.perf_counter()
        mine()
        os.waitpid(pid, 0)
        spent = time.perf_counter() - begun
        os.sched_setaffinity(0, everywhere)
        return spent

    def close(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


def bare_round_trip_ns(count: int) -> float:
    pair = Pair()
    try:
        spent = pair.together(lambda: k.bare_ping(pair.bare, 0, count), lambda: k.bare_echo(pair.bare, 0, count))
    finally:
        pair.close()
    return spent / count * 1e9


def ring_round_trip_ns(count: int) -> float:
    pair = Pair()
    a, b = np.zeros(8, np.int64), np.zeros(8, np.int64)
    try:
        spent = pair.together(
            lambda: k.ring_ping(pair.there, pair.back, pair.cursors, cursor_at(0), a, CAPACITY, count),
            lambda: k.ring_echo(pair.there, pair.back, pair.cursors, cursor_at(1), b, CAPACITY, count),
        )
    finally:
        pair.close()
    return spent / count * 1e9


def stream_per_s(count: int) -> float:
    pair = Pair()
    batch, out = np.zeros(BATCH * 8, np.int64), np.zeros(1024 * 8, np.int64)
    try:
        spent = pair.together(
            lambda: k.stream_write(pair.there, batch, BATCH, CAPACITY, count, pair.cursors, cursor_at(0)),
            lambda: k.stream_read(pair.there, pair.cursors, cursor_at(0), out, CAPACITY, count),
        )
    finally:
        pair.close()
    return count / spent


def c_stream_per_s(program: Path, count: int) -> float:
    done = subprocess.run(
        [str(program), str(count), str(BATCH), str(CAPACITY)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def copy_per_s() -> float:
    """64-byte records that one core can copy between two buffers that fit L2."""
    a, b = np.zeros(CAPACITY * 8, np.int64), np.ones(CAPACITY * 8, np.int64)
    rounds = 400
    begun = time.perf_counter()
    for _ in range(rounds):
        np.copyto(a, b)
    return rounds * CAPACITY / (time.perf_counter() - begun)


def simple_queue_round_trip_ns(count: int) -> float:
    context = multiprocessing.get_context("fork")
    there, back = context.SimpleQueue(), context.SimpleQueue()

    def echo() -> None:
        pin(1)
        for _ in range(count):
            back.put(there.get())

    everywhere = os.sched_getaffinity(0)
    process = context.Process(target=echo)
    process.start()
    pin(0)
    record = b"x" * 64
    begun = time.perf_counter()
    for _ in range(count):
        there.put(record)
        back.get()
    spent = time.perf_counter() - begun
    process.join()
    os.sched_setaffinity(0, everywhere)
    return spent / count * 1e9


def cell_read_ns(count: int) -> float:
    """Python-side read of a 64-byte cell, per call (the compiled read is part of it)."""
    directory = Path(tempfile.mkdtemp(prefix="l2dash-bench-", dir="/dev/shm"))
    try:
        region = Region.create(directory, cell_spec("lease", LEASE), 1)
        writer, reader = CellWriter(region, LEASE), CellReader(region, LEASE)
        writer.publish()
        begun = time.perf_counter()
        for _ in range(count):
            reader.read()
        return (time.perf_counter() - begun) / count * 1e9
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def python_face_ns(count: int) -> tuple[float, float]:
    """Publish and poll of one record through the Python face."""
    directory = Path(tempfile.mkdtemp(prefix="l2dash-bench-", dir="/dev/shm"))
    try:
        region = Region.create(directory, ring_spec("r", TICK, CAPACITY), 1)
        cursors = Region.create(directory, cursor_spec("c", 1), 1)
        writer, reader = RingWriter(region, TICK), RingReader(region, TICK, cursors.words, cursor_at(0))
        begun = time.perf_counter()
        for _ in range(count):
            writer.publish_record()
        publish = (time.perf_counter() - begun) / count * 1e9
        begun = time.perf_counter()
        for _ in range(count):
            reader.poll_count()
        return publish, (time.perf_counter() - begun) / count * 1e9
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a few seconds, to see that it runs")
    smoke = parser.parse_args(arguments).smoke
    rounds, trips, records, queued = (3, 20_000, 2_000_000, 500) if smoke else (9, 500_000, 50_000_000, 5_000)
    print(f"machine: {describe()}")
    print(f"two pinned processes; {rounds} interleaved rounds; medians")
    program = Path(tempfile.mkdtemp()) / "spsc"
    have_c = (
        subprocess.run(
            ["gcc", "-O3", "-march=native", "-o", str(program), str(Path(__file__).with_name("spsc.c"))], check=False
        ).returncode
        == 0
    )
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, value in (
            ("bare", bare_round_trip_ns(trips)),
            ("ring", ring_round_trip_ns(trips)),
            ("queue", simple_queue_round_trip_ns(queued)),
            ("stream", stream_per_s(records)),
            ("c", c_stream_per_s(program, records) if have_c else float("nan")),
            ("copy", copy_per_s()),
            ("cell", cell_read_ns(50_000)),
            ("publish", python_face_ns(50_000)[0]),
        ):
            found.setdefault(name, []).append(value)
    shutil.rmtree(program.parent, ignore_errors=True)
    m = {name: statistics.median(values) for name, values in found.items()}
    print(f"round trip, bare cache line     {m['bare']:12.0f} ns")
    print(f"round trip, two rings, 64 B     {m['ring']:12.0f} ns      {m['ring'] / m['bare']:6.2f} x bare")
    print(f"round trip, SimpleQueue         {m['queue']:12.0f} ns      {m['queue'] / m['ring']:6.0f} x ours")
    print(f"stream of full 64 B records     {m['stream'] / 1e6:12.1f} M/s")
    print(f"  the same protocol in C        {m['c'] / 1e6:12.1f} M/s     {m['stream'] / m['c']:6.2f} of C")
    of_copy = m["stream"] / m["copy"]
    print(f"  copy limit of one core        {m['copy'] / 1e6:12.1f} M/s     {of_copy:6.2f} of it")
    print(f"cell read through Python        {m['cell']:12.0f} ns")
    print(f"publish through Python          {m['publish']:12.0f} ns")
    return 0


if __name__ == "__main__":
    sys.exit(main())
