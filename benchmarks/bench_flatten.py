"""Getting flat, on the wire: from the index tick that makes the rule true to the last byte of the last closing order.

The whole system in sim with 8 positions on a gateway without artificial delay. The index jumps by 6 %, the watchdog
latches KILL and closes; a packet socket on the loopback interface stamps both packets by the kernel's clock. After each
repetition the day lock is overridden by name and positions are taken anew. Besides: how soon the latch is visible to
the gate, and the watchdog's cycle period against a bare timer loop of the same length in the same minutes.

usage: python benchmarks/bench_flatten.py [--repetitions N] [--smoke]
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from machine import describe
from wire_tap import PLACE_ORDER, Packet, WireTap, frames

from engine import topology
from engine.cli.drill import OperatorHands
from engine.config import Config
from engine.domain.codes import Badge, BadgeState
from engine.drill.hands import Faults
from engine.drill.instance import PrivateInstance
from engine.drill.stage import OPERATOR, Stage
from engine.drill.timeline import Timeline, Unexpected
from engine.drill.watch import Watch
from engine.runtime.context import Context
from shm import scratch
from shm.counters import bucket_low

SETTINGS: dict[str, dict[str, Any]] = {
    "strategy": {"enabled": False},
    "model": {"bar_s": 1.0, "warmup_s": 5.0, "warmup_min_s": 5.0, "train_hours": 0.25},
    "guardrails": {"cooling_s": 0.0, "index_window_s": 20.0},
}
BARE_PERIOD_S = 0.001
LOOK_S = 50e-6
HOLD_S, TRIES = 30.0, 6


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


class LatchEye(threading.Thread):
    """Another process' view of the latch: from the start of the cycle that set it until it is read here.

    The gate reads the same cell before every order. What this thread sleeps and waits for a core is in the figure.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(daemon=True)
        self.stop = False
        self.seen_ns: list[int] = []
        self._cell = context.cell_reader("stop.watchdog")

    def run(self) -> None:
        last = 0
        while not self.stop:
            cell = self._cell.read()
            stop_id = int(cell["stop_id"])
            if cell["kill"] and stop_id != last:
                last = stop_id
                self.seen_ns.append(time.monotonic_ns() - stop_id)
            time.sleep(LOOK_S)


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


def repetition(stage: Stage, tap: WireTap, direction: int) -> tuple[float, float]:
    closes = hold_eight(stage)
    tap.take()
    stage.timeline.cause_ns = stage.watch.now_ns()
    stage.faults("gap_index", pct=6.0 if direction > 0 else -5.7, over_s=0.0)
    if not stage.watch.until(lambda: stage.watch.flat_since() > stage.timeline.cause_ns, 30.0):
        raise Unexpected(f"flat: not within 30 s; {stage.seen()}")
    _, cause_ns, _, _ = stage.watch.flatten_state()
    found = wire_ms(tap.take(), cause_ns, closes)

    def calm() -> bool:
        return all(stage.watch.badge(b) == BadgeState.OK for b in Badge if b not in (Badge.KILL, Badge.DD))

    if not stage.watch.until(calm, 30.0):
        raise Unexpected(f"badges: {stage.watch.badges_not_ok()}")
    done, words = stage.hands.reset(OPERATOR, "bench")
    if not done:
        raise Unexpected(f"reset: {words}")
    stage.watch.until(lambda: stage.watch.trading() == "ACTIVE", 5.0)
    stage.watch.forget()
    return found


def percentiles(values: list[float]) -> str:
    ordered = sorted(values)

    def at(p: float) -> float:
        return ordered[min(len(ordered) - 1, int(p * len(ordered)))]

    return f"p50 {statistics.median(ordered):.2f}, p90 {at(0.9):.2f}, p99 {at(0.99):.2f}, max {ordered[-1]:.2f} ms"


def percentiles_of(found_ns: list[int]) -> str:
    return percentiles([ns / 1e6 for ns in found_ns]) if found_ns else "never seen"


def histogram_ms(counts: np.ndarray[Any, np.dtype[np.int64]], share: float) -> float:
    """Upper edge of the bucket in which a share of all samples lies, ms."""
    total = np.cumsum(counts)
    n = int(np.searchsorted(total, share * total[-1]))
    return float(bucket_low(np.array([n + 1], np.int64))[0]) / 1e6


def run(config: Config, repetitions: int) -> bool:
    """Print the figures; False if not every repetition took its course."""
    with Context.for_cli(config) as context, WireTap(config.gateway.port) as tap:
        watch = Watch(context, Timeline())
        stage = Stage(watch, OperatorHands(config), Faults(config.paper.control_port), watch.timeline)
        stage.quiet_start()
        timer = BareTimer()
        timer.start()
        eye = LatchEye(context)
        eye.start()
        counters = context.counters_of(topology.WATCHDOG)
        before = {n: np.array(counters.histogram(n)) for n in ("period_ns", "evaluate_ns")}
        began = time.monotonic()
        from_packet: list[float] = []
        from_socket: list[float] = []
        for n in range(repetitions):
            try:
                packet_ms, socket_ms = repetition(stage, tap, 1 if n % 2 == 0 else -1)
            except Unexpected as error:
                print(f"  FAILED in repetition {n + 1}: {error}")
                break
            from_packet.append(packet_ms)
            from_socket.append(socket_ms)
        took_s = time.monotonic() - began
        timer.stop = eye.stop = True
        if not from_socket:
            return False
        print(f"  {len(from_socket)} repetitions with 8 positions in {took_s:.0f} s")
        print(f"  tick at the bridge's socket to the last closing byte on the wire: {percentiles(from_socket)}")
        print(f"  packet of the tick to packet of the last close:                  {percentiles(from_packet)}")
        print(f"  cycle that latches KILL to the latch read by another process: {percentiles_of(eye.seen_ns)}")
        for name, words in (("period_ns", "watchdog cycle period"), ("evaluate_ns", "work of a cycle")):
            counts = np.array(counters.histogram(name)) - before[name]
            print(f"  {words}: p50 {histogram_ms(counts, 0.5):.2f}, p99 {histogram_ms(counts, 0.99):.2f} ms"
                  f" of {int(counts.sum())} cycles")  # fmt: skip
        bare = sorted(x / 1e6 for x in timer.periods_ns)
        print(f"  bare timer loop of 1 ms in the same minutes: p50 {bare[len(bare) // 2]:.2f},"
              f" p99 {bare[int(len(bare) * 0.99)]:.2f} ms of {len(bare)}")  # fmt: skip
        return len(from_socket) == repetitions


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
