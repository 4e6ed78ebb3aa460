"""Shared memory against its own physical limit, against C and against the usual queues; all in one interleaved run.

Topology: two processes pinned to the first two cores of this process's set; nothing else should run. Every round
measures everything once, so that a machine that changes its mind (virtual cores move between clusters of cores, and a
line then travels three times as long) changes all sides of a ratio. Figures are medians over the rounds.

usage: python benchmarks/bench_shm.py [--smoke]
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import ctypes
import math
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import shm_kernels as k
from machine import as_before, describe, first, l2_bytes, topology

from shm import lines, scratch
from shm.cell import RETRIES, CellWriter, cell_spec
from shm.layouts import LEASE, TICK
from shm.region import Region, Words
from shm.ring import RingReader, RingWriter, cursor_at, cursor_spec, ring_spec
from shm.wait import FUTEX, Waiter, Waker

PING_CAPACITY = 64
BATCH = 64
CORES = sorted(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class Size:
    rounds: int
    trips: int
    queued: int
    records: int
    samples: int


FULL = Size(rounds=9, trips=200_000, queued=2_000, records=16_000_000, samples=100_000)
SMOKE = Size(rounds=3, trips=5_000, queued=100, records=1_000_000, samples=5_000)


def pin(nth: int) -> None:
    os.sched_setaffinity(0, {CORES[nth % len(CORES)]})


def die_with_parent() -> None:
    """A side that spins must not outlive a benchmark that was killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


class Bench:
    """One round's regions and the forked partner on the second core."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._made = 0

    def ring(self, capacity: int) -> Words:
        self._made += 1
        return Region.create(self.directory, ring_spec(f"r{self._made}", TICK, capacity), 1).words

    def lines(self, count: int = 64) -> Words:
        """Cache lines of both sides' own words; every used one stands apart from its neighbours."""
        self._made += 1
        return Region.create(self.directory, cursor_spec(f"c{self._made}", count), 1).words

    def together(self, mine: Callable[[], int | None], other: Callable[[], int | None]) -> float:
        """Run both at once on two cores; seconds until both are done. Raises RuntimeError if a side returns -1."""
        with self.partner(other) as pid:
            pin(0)
            begun = time.perf_counter()
            wrong = mine() == -1
            status = os.waitpid(pid, 0)[1]
            spent = time.perf_counter() - begun
        if wrong or status:
            raise RuntimeError("a record was lost or torn")
        return spent

    @contextlib.contextmanager
    def partner(self, other: Callable[[], int | None]) -> Iterator[int]:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                die_with_parent()
                pin(1)
                code = int(other() == -1)
            finally:
                os._exit(code)
        try:
            yield pid
        finally:
            os.sched_setaffinity(0, CORES)


def bare_ns(b: Bench, s: Size) -> float:
    words = b.lines()[512:]
    return b.together(lambda: k.bare_ping(words, s.trips), lambda: k.bare_echo(words, s.trips)) / s.trips * 1e9


def ring_ns(b: Bench, s: Size) -> float:
    there, back, cursors = b.ring(PING_CAPACITY), b.ring(PING_CAPACITY), b.lines()
    mine, theirs = lines.zeros(8, np.int64), lines.zeros(8, np.int64)
    a, z = cursor_at(0), cursor_at(32)
    spent = b.together(
        lambda: k.ring_ping(there, back, cursors, a, mine, PING_CAPACITY, s.trips),
        lambda: k.ring_echo(there, back, cursors, z, theirs, PING_CAPACITY, s.trips),
    )
    return spent / s.trips * 1e9


def simple_queue_ns(b: Bench, s: Size) -> float:
    context = multiprocessing.get_context("fork")
    there, back, record = context.SimpleQueue(), context.SimpleQueue(), b"x" * 64

    def echo() -> None:
        for _ in range(s.queued):
            back.put(there.get())

    def ping() -> None:
        for _ in range(s.queued):
            there.put(record)
            back.get()

    return b.together(ping, echo) / s.queued * 1e9


def zeromq_ns(b: Bench, s: Size) -> float:
    """NaN where pyzmq is not installed: it comes with the test dependencies only."""
    try:
        import zmq
    except ImportError:
        return math.nan
    address, record = f"ipc://{b.directory}/zmq", b"x" * 64

    def echo() -> None:
        with zmq.Context() as context, context.socket(zmq.PAIR) as socket:
            socket.connect(address)
            for _ in range(s.queued):
                socket.send(socket.recv())

    def ping() -> None:
        with zmq.Context() as context, context.socket(zmq.PAIR) as socket:
            socket.bind(address)
            for _ in range(s.queued):
                socket.send(record)
                socket.recv()

    return b.together(ping, echo) / s.queued * 1e9


def stream_capacity() -> int:
    """Records of a ring that fills at most half of a core's second-level cache."""
    return 1 << max(10, int(math.log2(l2_bytes() / 2 / 64)))


def stream_per_s(b: Bench, s: Size) -> float:
    capacity = stream_capacity()
    ring, cursors = b.ring(capacity), b.lines()
    batch, out = lines.zeros(BATCH * 8, np.int64), lines.zeros(1024 * 8, np.int64)
    at = cursor_at(0)

    def read() -> int:
        return 0 if k.stream_read(ring, cursors, at, out, capacity, s.records) == k.stream_sum(s.records) else -1

    return s.records / b.together(lambda: k.stream_write(ring, batch, BATCH, capacity, s.records, cursors, at), read)


def c_stream_per_s(program: Path, s: Size) -> float:
    command = [str(program), str(s.records), str(BATCH), str(stream_capacity())]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def copy_per_s(size: int, total: int) -> float:
    """64-byte records that one core can copy between two buffers of ``size`` bytes."""
    pin(0)
    to, source = lines.zeros(size // 8, np.int64), lines.zeros(size // 8, np.int64)
    source.fill(1)  # untouched, all of it would be the one page of zeroes
    np.copyto(to, source)
    rounds = max(1, total // size)
    begun = time.perf_counter()
    for _ in range(rounds):
        np.copyto(to, source)
    spent = time.perf_counter() - begun
    os.sched_setaffinity(0, CORES)
    return rounds * size / 64 / spent


def publish_ns(b: Bench, s: Size, observer: str) -> float:
    """Median cost of one publish while nobody, a slow or a stopped reader looks on from the other core."""
    capacity, each = 4096, 256
    ring, cursors = b.ring(capacity), b.lines()
    samples = np.zeros(max(50, s.samples // each), np.int64)
    record, scratch = lines.zeros(8, np.int64), np.zeros(2, np.int64)

    def observe() -> None:
        spec = next(p for p in b.directory.iterdir() if p.name == f"r{b._made - 1}").name
        region = Region.attach(b.directory, ring_spec(spec, TICK, capacity))
        reader = RingReader(region, TICK, cursors, cursor_at(0))
        while True:
            reader.poll_count()
            time.sleep(0.001)

    def measure() -> float:
        pin(0)
        k.publish_cost(ring, record, samples, each, capacity, scratch)
        return float(np.median(samples)) / each

    if observer == "none":
        try:
            return measure()
        finally:
            os.sched_setaffinity(0, CORES)
    with b.partner(observe) as pid:
        try:
            while not cursors[cursor_at(0) + 1]:  # it has attached
                time.sleep(0.001)
            if observer == "stopped":
                os.kill(pid, signal.SIGSTOP)
                os.waitpid(pid, os.WUNTRACED)
            return measure()
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def cell_ns(b: Bench, s: Size, pause: int) -> tuple[float, float, float, int]:
    """Median, 99.9th percentile and maximum of one read of a 64-byte cell under constant writing, and reads in vain."""
    region = Region.create(b.directory, cell_spec(f"cell{b._made}", LEASE), 1)
    b._made += 1
    control = b.lines()[512:]
    writer = CellWriter(region, LEASE)
    writer.value.view(np.int64)[:] = 1
    writer.publish()
    samples, scratch, out = np.zeros(s.samples, np.int64), np.zeros(2, np.int64), lines.zeros(8, np.int64)
    with b.partner(lambda: k.cell_hammer(region.words, lines.zeros(8, np.int64), control, pause)) as pid:
        try:
            while region.words[512] < 100:
                time.sleep(0.001)
            pin(0)
            vain = k.cell_cost(region.words, out, samples, RETRIES, scratch)
        finally:
            control[0] = 1
            os.waitpid(pid, 0)
    if vain < 0:
        raise RuntimeError("a torn cell was returned")
    k.clock_cost(clock := np.zeros(2_000, np.int64), scratch)
    cost = float(np.median(clock))
    middle, late, last = np.percentile(samples, [50, 99.9, 100])
    return float(middle) - cost, float(late) - cost, float(last) - cost, int(vain)


def wake_ns(b: Bench, count: int = 100) -> float:
    """Median time from publishing to a blocked reader's next line of Python: a futex wake-up of a sleeping process."""
    b._made += 1
    region = Region.create(b.directory, ring_spec(f"r{b._made}", TICK, 64), 1)
    words, woken, seen, sleeper = b.lines(), cursor_at(0), cursor_at(16), cursor_at(32)

    def read() -> None:
        waiter = Waiter(region.words, words, sleeper, "spin-then-futex", spins=1)
        for n in range(count):
            waiter.wait(n, 10.0)
            words[woken] = time.monotonic_ns()
            words[seen] = n + 1

    writer, waker, samples = RingWriter(region, TICK), Waker(region.words, words, sleeper), []
    with b.partner(read) as pid:
        pin(0)
        for n in range(count):
            while words[sleeper] != FUTEX:
                time.sleep(0.0001)
            time.sleep(0.0002)
            begun = time.monotonic_ns()
            writer.publish_record()
            waker.wake()
            while words[seen] != n + 1:
                time.sleep(0)
            samples.append(int(words[woken]) - begun)
        os.waitpid(pid, 0)
    return statistics.median(samples)


def python_face_ns(b: Bench, count: int = 20_000) -> tuple[float, float]:
    """Publish and empty poll of one record through the Python face."""
    b._made += 1
    region = Region.create(b.directory, ring_spec(f"r{b._made}", TICK, 4096), 1)
    writer, reader = RingWriter(region, TICK), RingReader(region, TICK, b.lines(), cursor_at(0))
    begun = time.perf_counter()
    for _ in range(count):
        writer.publish_record()
    publish = (time.perf_counter() - begun) / count * 1e9
    reader.skip_to_end()
    begun = time.perf_counter()
    for _ in range(count):
        reader.poll_count()
    return publish, (time.perf_counter() - begun) / count * 1e9


def one_round(b: Bench, s: Size, program: Path | None) -> dict[str, float]:
    found = {
        "bare": bare_ns(b, s),
        "ring": ring_ns(b, s),
        "stream": stream_per_s(b, s),
        "c": c_stream_per_s(program, s) if program else math.nan,
        "copy": copy_per_s(64 << 20, 512 << 20),
        "copy_l2": copy_per_s(stream_capacity() * 64 // 2, 128 << 20),
        "queue": simple_queue_ns(b, s),
        "zmq": zeromq_ns(b, s),
        "none": publish_ns(b, s, "none"),
        "slow": publish_ns(b, s, "slow"),
        "stopped": publish_ns(b, s, "stopped"),
    }
    for name, pause in (("cell", 0), ("paced", 20)):
        found[name], found[f"{name}_late"], found[f"{name}_last"], vain = cell_ns(b, s, pause)
        found[f"{name}_vain"] = float(vain)
    found["wake"] = wake_ns(b)
    found["publish"], found["poll"] = python_face_ns(b)
    return found


def report(rounds: list[dict[str, float]]) -> None:
    m = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    ratio = {
        (a, b): statistics.median(r[a] / r[b] for r in rounds)
        for a, b in (
            ("ring", "bare"), ("stream", "c"), ("stream", "copy"), ("stream", "copy_l2"), ("queue", "ring"),
            ("zmq", "ring"), ("slow", "none"), ("stopped", "none"),
        )
    }  # fmt: skip
    spread = f"{min(r['bare'] for r in rounds):.0f} to {max(r['bare'] for r in rounds):.0f}"
    vain = sum(r["cell_vain"] + r["paced_vain"] for r in rounds)

    def line(what: str, figure: str, compared: str = "", asked: str = "") -> None:
        print(f"{what:44s} {figure:>14s}   {compared:28s} {asked}".rstrip())

    line("what", "median", "ratio within a round, median", "asked")
    line("round trip, bare cache line", f"{m['bare']:.0f} ns", f"({spread} ns)")
    line(
        "round trip, two rings, 64 B",
        f"{m['ring']:.0f} ns",
        f"{ratio['ring', 'bare']:.2f} x bare",
        "at most 1.3; 300 ns if bare < 200",
    )
    line(
        "round trip, SimpleQueue", f"{m['queue'] / 1e3:.1f} us", f"{ratio['queue', 'ring']:.0f} x ours", "at least 300"
    )
    line("round trip, ZeroMQ ipc", f"{m['zmq'] / 1e3:.1f} us", f"{ratio['zmq', 'ring']:.0f} x ours", "at least 300")
    line(
        f"stream of full 64 B records, batch {BATCH}",
        f"{m['stream'] / 1e6:.1f} M/s",
        f"ring of {stream_capacity() * 64 >> 10} KiB",
    )
    line(
        "  the same protocol in C, gcc -O3",
        f"{m['c'] / 1e6:.1f} M/s",
        f"{ratio['stream', 'c']:.2f} of C",
        "at least 0.9; 100 M/s if C has them",
    )
    line(
        "  memory copy of one core, 64 MiB",
        f"{m['copy'] / 1e6:.1f} M/s",
        f"{ratio['stream', 'copy']:.2f} of it",
        "at least 0.7",
    )
    line(
        "  copy of one core inside its own L2",
        f"{m['copy_l2'] / 1e6:.1f} M/s",
        f"{ratio['stream', 'copy_l2']:.2f} of it",
        "(no line leaves the core)",
    )
    line("publish, no reader", f"{m['none']:.1f} ns")
    line("publish, slow reader", f"{m['slow']:.1f} ns", f"{(ratio['slow', 'none'] - 1) * 100:+.1f} %", "under 5 %")
    line(
        "publish, stopped reader",
        f"{m['stopped']:.1f} ns",
        f"{(ratio['stopped', 'none'] - 1) * 100:+.1f} %",
        "under 5 %",
    )
    line(
        "cell read, 64 B, writer never pauses",
        f"{m['cell']:.0f} ns",
        f"p99.9 {m['cell_late']:.0f} ns",
        "median under 100 ns",
    )
    line(
        "cell read, 64 B, a write each microsecond",
        f"{m['paced']:.0f} ns",
        f"p99.9 {m['paced_late']:.0f} ns",
        "median under 100 ns",
    )
    longest = max(max(r["cell_last"], r["paced_last"]) for r in rounds)
    line("cell reads in vain", f"{vain:.0f}", f"longest {longest / 1e3:.0f} us", "none: no reader starves")
    line("publish to a blocked reader's wake-up", f"{m['wake'] / 1e3:.0f} us")
    line("publish through Python", f"{m['publish']:.0f} ns")
    line("empty poll through Python", f"{m['poll']:.0f} ns")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a few seconds, to see that it runs")
    size = SMOKE if parser.parse_args(arguments).smoke else FULL
    print(f"machine: {describe()}")
    print(f"         {topology()}")
    print(f"two processes pinned to cores {CORES[:2]}; {size.rounds} interleaved rounds")
    if len(CORES) < 2:
        print("only one core: spinning on each other would measure the scheduler; nothing was measured")
        return 1
    root = scratch.make("l2dash-bench-", "/dev/shm")
    atexit.register(as_before)
    first()
    try:
        program: Path | None = root / "spsc"
        source = Path(__file__).with_name("spsc.c")
        command = ["gcc", "-O3", "-march=native", "-o", str(program), str(source)]
        if shutil.which("gcc") is None or subprocess.run(command, check=False).returncode:
            print("gcc is not here or failed: no comparison with C")
            program = None
        rounds = []
        for n in range(size.rounds):
            directory = root / str(n)
            directory.mkdir()
            rounds.append(one_round(Bench(directory), size, program))
            shutil.rmtree(directory)
        report(rounds)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
