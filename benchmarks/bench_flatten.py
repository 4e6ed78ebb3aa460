"""Getting flat, on the wire: from the index tick that makes the rule true to the last byte of the last closing order.

The whole system in sim with 8 positions on a gateway without artificial delay. The index jumps by 6 %, the watchdog
latches KILL and closes; a packet socket on the loopback interface stamps both packets by the kernel's clock. After each
repetition the day lock is overridden by name and positions are taken anew. Besides: how soon the latch is visible to
the gate, and the watchdog's cycle period against a bare timer loop of the same length in the same minutes.

The benchmark keeps off the core of the host that it measures, as whoever wants figures of his own broker would do from
another machine. Who looks at the latch does it where the gate is, every 50 us and before whatever else runs there, in
repetitions of its own, whose wire times do not count.

usage: python benchmarks/bench_flatten.py [--repetitions N] [--smoke]
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import multiprocessing
import os
import statistics
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from machine import describe
from wire_tap import PLACE_ORDER, Packet, WireTap, frames

from engine import topology
from engine.cli.drill import OperatorHands
from engine.config import Config, load
from engine.domain.codes import Badge, BadgeState
from engine.drill.hands import Faults
from engine.drill.instance import PrivateInstance
from engine.drill.stage import OPERATOR, Stage
from engine.drill.timeline import Timeline, Unexpected
from engine.drill.watch import Watch
from engine.runtime.context import Context
from engine.runtime.instance import CONFIG_FILE
from engine.runtime.priority import go_first, own_threads
from shm import scratch
from shm.counters import bucket_low
from shm.ring import RingReader

SETTINGS: dict[str, dict[str, Any]] = {
    "strategy": {"enabled": False},
    "model": {"bar_s": 1.0, "warmup_s": 5.0, "warmup_min_s": 5.0, "train_hours": 0.25},
    "guardrails": {"cooling_s": 0.0, "index_window_s": 20.0},
}
BARE_PERIOD_S = 0.001
LOOK_S = 50e-6
LATCH_SHARE = 3
"""For every so many repetitions on the wire one more with an eye on the latch."""
HOLD_S, TRIES = 30.0, 6
_PR_SET_TIMERSLACK = 29


class BareTimer(threading.Thread):
    """The machine alone: how long a sleep of 1 ms takes while the system runs. Its figures are the floor."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.stop = False
        self.periods_ns: list[int] = []

    def run(self) -> None:
        before = time.monotonic_ns()
        while not self.stop:
            time.sleep(BARE_PERIOD_S)
            now = time.monotonic_ns()
            self.periods_ns.append(now - before)
            before = now


def watch_latch(config_file: str, seen: Connection) -> None:
    """A process of its own that looks at the latch as the gate does, and tells when it saw each KILL first.

    The gate reads the same cell before every order; this one sleeps in between, which is in the figure. A thread of the
    benchmark would measure how long it waits for the interpreter's lock.
    """
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    place_threads(at_the_host=True)
    with Context.for_cli(load(Path(config_file))) as context:
        cell, last = context.cell_reader("stop.watchdog"), 0
        # Without real-time turns it would measure how long the bridge keeps the processor. Only now: they are lost to
        # whoever works for long, and the start does.
        if go_first():
            with contextlib.suppress(PermissionError):
                os.setpriority(os.PRIO_PROCESS, 0, -10)
        seen.send((0, 0))
        while not seen.poll():
            now = time.monotonic_ns()
            value = cell.read()
            stop_id = int(value["stop_id"])
            if value["kill"] and stop_id != last:
                last = stop_id
                seen.send((stop_id, now))
            time.sleep(LOOK_S)


def place_threads(*, at_the_host: bool) -> None:
    """All threads of this process at the core that the measured host is pinned to, as its gate is, or away from it."""
    os.sched_setaffinity(
        0, range(os.cpu_count() or 1)
    )  # a process inherits where it was started; cut to what is allowed
    cores = sorted(os.sched_getaffinity(0))
    host = topology.core_plan(len(cores), "shared")[topology.BRIDGE]
    if host < 0 or len(cores) < 2:
        return
    for thread in own_threads():
        os.sched_setaffinity(thread, {cores[host]} if at_the_host else set(cores) - {cores[host]})


class LatchEye:
    """``seen``: stop id -> when another process saw it. ``with LatchEye(config) as eye``."""

    def __init__(self, config: Config) -> None:
        here, there = multiprocessing.Pipe()
        self._pipe = here
        arguments = (str(config.shm_dir / CONFIG_FILE), there)
        self._process = multiprocessing.get_context("spawn").Process(target=watch_latch, args=arguments, daemon=True)
        self.seen: dict[int, int] = {}

    def __enter__(self) -> LatchEye:
        self._process.start()
        if not self._pipe.poll(60.0):
            raise Unexpected("the process that watches the latch did not start")
        self._pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send("end")
        self._process.join(10.0)
        self._process.kill()

    def take(self) -> None:
        while self._pipe.poll():
            stop_id, t_ns = self._pipe.recv()
            self.seen[stop_id] = t_ns


def hold_eight(stage: Stage) -> int:
    """One position in each of the first 8 symbols, long and short in turn; returns how many are held."""
    symbols = [i.symbol for i in stage.watch.context.instruments if i.tradable][:8]
    watch = stage.watch
    watch.until(lambda: not watch.blocked_symbols(), HOLD_S)

    def held() -> bool:
        return len(watch.quantities()) >= len(symbols)

    for _ in range(TRIES):  # a symbol can be blocked for a moment, by a model that is late on a busy machine
        have = watch.quantities()
        for n, symbol in enumerate(symbols):
            if symbol not in have:
                qty = max(1, int(4_000.0 / watch.mid(symbol)))
                stage.hands.fire(symbol, "BUY" if n % 2 == 0 else "SELL", qty)
        if watch.until(held, HOLD_S / TRIES):
            break
    else:
        raise Unexpected(f"positions: {watch.quantities()} after {TRIES} tries; {stage.seen()}")
    return len(symbols)


def wire_ms(packets: list[Packet], cause_ns: int, closes: int) -> tuple[float, float]:
    """(from the packet of the tick, from its time at the bridge's socket) to the packet with the last close, ms."""
    tick = max((p.t_ns for p in packets if not p.to_gateway and p.t_ns <= cause_ns), default=cause_ns)
    count, last = 0, 0
    for p in sorted((p for p in packets if p.to_gateway and p.t_ns >= tick), key=lambda p: p.t_ns):
        here = sum(1 for f in frames(p.payload) if f[0] == PLACE_ORDER)
        if here and count < closes:
            count, last = count + here, p.t_ns
    if count < closes:
        raise Unexpected(f"wire: {count} of {closes} closing orders seen")
    return (last - tick) / 1e6, (last - cause_ns) / 1e6


@dataclass(slots=True)
class Course:
    """One repetition, ms from the tick's time at the bridge's socket (``packet``: from the packet of the tick)."""

    cycle: float
    """The watchdog's cycle that evaluates the rule has begun."""
    latched: float
    """Another process has read the latch; counts only where one looks."""
    intents: float
    """The closing intents lie in the ring."""
    wire: float
    """The last byte of the last closing order is on the wire."""
    packet: float


def repetition(stage: Stage, tap: WireTap, eye: LatchEye | None, intents: RingReader, direction: int) -> Course:
    closes = hold_eight(stage)
    tap.take()
    while len(intents.poll()):
        pass
    stage.timeline.causes = [stage.watch.now_ns()]
    stage.faults("gap_index", pct=6.0 if direction > 0 else -5.7, over_s=0.0)
    if not stage.watch.until(lambda: stage.watch.flat_since() > stage.timeline.cause_ns, 30.0):
        raise Unexpected(f"flat: not within 30 s; {stage.seen()}")
    _, cause_ns, _, _ = stage.watch.flatten_state()
    packet_ms, socket_ms = wire_ms(tap.take(), cause_ns, closes)
    records = intents.poll()
    written_ns = int(records["t_intent_ns"][-1]) if len(records) else 0
    stop_id = int(stage.watch.view.value("stop.watchdog")["stop_id"])
    seen_ns = 0
    if eye is not None:
        eye.take()
        seen_ns = eye.seen.get(stop_id, 0)
    course = Course(*((t - cause_ns) / 1e6 for t in (stop_id, seen_ns, written_ns)), socket_ms, packet_ms)

    def calm() -> bool:
        return all(stage.watch.badge(b) == BadgeState.OK for b in Badge if b not in (Badge.KILL, Badge.DD))

    if not stage.watch.until(calm, 30.0):
        raise Unexpected(f"badges: {stage.watch.badges_not_ok()}")
    done, words = stage.hands.reset(OPERATOR, "bench")
    if not done:
        raise Unexpected(f"reset: {words}")
    stage.watch.until(lambda: stage.watch.trading() == "ACTIVE", 5.0)
    stage.watch.forget()
    return course


def course_of(stage: Stage, tap: WireTap, eye: LatchEye | None, intents: RingReader, repetitions: int) -> list[Course]:
    """So many repetitions, fewer if one did not take its course (which is printed)."""
    courses: list[Course] = []
    for n in range(repetitions):
        try:
            courses.append(repetition(stage, tap, eye, intents, 1 if n % 2 == 0 else -1))
        except Unexpected as error:
            print(f"  FAILED in repetition {n + 1}: {error}")
            break
    return courses


def percentiles(values: list[float]) -> str:
    ordered = sorted(values)

    def at(p: float) -> float:
        return ordered[min(len(ordered) - 1, int(p * len(ordered)))]

    return f"p50 {statistics.median(ordered):.2f}, p90 {at(0.9):.2f}, p99 {at(0.99):.2f}, max {ordered[-1]:.2f} ms"


def histogram_ms(counts: np.ndarray[Any, np.dtype[np.int64]], share: float) -> float:
    """Upper edge of the bucket in which a share of all samples lies, ms."""
    total = np.cumsum(counts)
    n = int(np.searchsorted(total, share * total[-1]))
    return float(bucket_low(np.array([n + 1], np.int64))[0]) / 1e6


def run(config: Config, repetitions: int) -> bool:
    """Print the figures; False if not every repetition took its course."""
    with Context.for_cli(config) as context, WireTap(config.gateway.port) as tap:
        place_threads(at_the_host=False)
        watch = Watch(context, Timeline())
        stage = Stage(watch, OperatorHands(config), Faults(config.paper.control_port), watch.timeline)
        stage.quiet_start()
        timer = BareTimer()
        timer.start()
        intents = context.ring_reader("orders.watchdog")
        counters = context.counters_of(topology.WATCHDOG)
        before = {n: np.array(counters.histogram(n)) for n in ("period_ns", "evaluate_ns")}
        began = time.monotonic()
        courses = course_of(stage, tap, None, intents, repetitions)
        took_s = time.monotonic() - began
        looks = max(1, repetitions // LATCH_SHARE)
        with LatchEye(config) as eye:
            watched = course_of(stage, tap, eye, intents, looks) if len(courses) == repetitions else []
        timer.stop = True
        timer.join()
        if not courses or not watched:
            return False
        print(f"  {len(courses)} repetitions with 8 positions in {took_s:.0f} s; ms:")
        for words, values in (
            ("tick at the bridge's socket to the last closing byte on the wire", [c.wire for c in courses]),
            ("  to the watchdog's cycle", [c.cycle for c in courses]),
            ("  from there to the closes in the bridge's ring", [c.intents - c.cycle for c in courses]),
            ("  from the ring to the wire", [c.wire - c.intents for c in courses]),
            ("packet of the tick to packet of the last close", [c.packet for c in courses]),
            (
                f"KILL decided to the latch read by another process, {len(watched)} more",
                [c.latched - c.cycle for c in watched],
            ),
        ):
            print(f"  {words:66s} {percentiles(values)}")
        for name, words in (("period_ns", "watchdog cycle period"), ("evaluate_ns", "work of a cycle")):
            counts = np.array(counters.histogram(name)) - before[name]
            print(f"  {words}: p50 {histogram_ms(counts, 0.5):.2f}, p99 {histogram_ms(counts, 0.99):.2f} ms"
                  f" of {int(counts.sum())} cycles")  # fmt: skip
        bare = sorted(x / 1e6 for x in timer.periods_ns)
        print(f"  bare timer loop of 1 ms in the same minutes: p50 {bare[len(bare) // 2]:.2f},"
              f" p99 {bare[int(len(bare) * 0.99)]:.2f} ms of {len(bare)}")  # fmt: skip
        return len(courses) == repetitions and len(watched) == looks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=60)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    print(describe())
    try:
        WireTap(1)._socket.close()
    except PermissionError:
        print("  a packet socket needs root or CAP_NET_RAW: run this as root")
        return 1
    with contextlib.ExitStack() as stack:
        models = stack.enter_context(scratch.directory("l2dash-bench-")) / "models"
        config = stack.enter_context(PrivateInstance(SETTINGS, models))
        try:
            return 0 if run(config, 3 if options.smoke else options.repetitions) else 1
        except Unexpected as error:
            print(f"  FAILED: {error}")
            return 1


if __name__ == "__main__":
    sys.exit(main())
