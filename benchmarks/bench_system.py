"""The whole system in sim: time to ready with a cold and a warm kernel cache, idle cost, memory, loss at a high rate.

usage: python benchmarks/bench_system.py [--smoke]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))
sys.path.insert(0, str(Path(__file__).parent))

from machine import describe
from system import System

from engine.domain.codes import TickKind
from engine.store.read import iter_blocks, recorded_days
from shm import scratch


def cpu_seconds(pids: dict[str, int]) -> dict[str, float]:
    used = {}
    for name, pid in pids.items():
        with contextlib.suppress(psutil.Error):
            times = psutil.Process(pid).cpu_times()
            used[name] = times.user + times.system
    return used


def memory_mb(pids: dict[str, int]) -> float:
    """Sum of PSS: shared pages are counted once."""
    return sum(psutil.Process(pid).memory_full_info().pss for pid in pids.values()) / 2**20


def measure_idle(system: System, seconds: float) -> None:
    assert system.process is not None
    processes: dict[int, list[str]] = {}  # services that share a process are one line, and count once
    for name, pid in {**system.pids(), "supervisor": system.process.pid}.items():
        processes.setdefault(pid, []).append(name)
    pids = {", ".join(names): pid for pid, names in processes.items()}
    before, begun = cpu_seconds(pids), time.monotonic()
    time.sleep(seconds)
    spent, after = time.monotonic() - begun, cpu_seconds(pids)
    total = 0.0
    for name in pids:
        share = (after[name] - before[name]) / spent * 100
        total += share
        print(f"  {name:32s} {share:6.1f} % of a core")
    print(f"  {'together':32s} {total:6.1f} % of a core, {memory_mb(pids):.0f} MB (sum of PSS)")


def recorded_rates(state_dir: Path, seconds: float) -> tuple[float, float]:
    """Depth messages and ticks of all kinds a second, by socket time, in the last ``seconds`` that were recorded."""
    blocks = [records for day in recorded_days(state_dir) for _, records in iter_blocks(state_dir, day)]
    ticks = np.concatenate(blocks)
    ticks = ticks[ticks["t_socket_ns"] > ticks["t_socket_ns"].max() - seconds * 1e9]
    return int((ticks["kind"] == TickKind.DEPTH).sum()) / seconds, len(ticks) / seconds


def measure_rate(directory: Path, messages_per_s: float, seconds: float) -> None:
    """Depth messages through the whole chain, and what any reader of ``ticks`` lost."""
    with System(directory, {"paper": {"messages_per_s": messages_per_s}}) as system:
        system.start()
        time.sleep(3)
        first = {s["name"]: s for s in system.cli_json("status")["services"]}
        time.sleep(seconds)
        last = {s["name"]: s for s in system.cli_json("status")["services"]}
        lost = sum(last[n]["lost"] - first[n]["lost"] for n in last)
        depth, ticks = recorded_rates(directory / "state", seconds - 2.0)
        print(
            f"paper market at {messages_per_s:.0f} messages/s: {depth:.0f} depth messages/s, {ticks:.0f} ticks/s of "
            f"all kinds in the recorder's store, {lost} lost by any reader"
        )
        print("  lag now: " + ", ".join(f"{name} {s['lag']}" for name, s in last.items()))
        measure_idle(system, seconds)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="shorter, warm cache only")
    smoke = parser.parse_args(arguments).smoke
    seconds = 5.0 if smoke else 30.0
    print(f"machine: {describe()}")
    root = scratch.make("l2dash-bench-")
    try:
        if not smoke:
            os.environ["L2DASH_CACHE_DIR"] = str(root / "cache")
            with System(
                root / "cold", {"model": {"train_hours": 1.0, "warmup_s": 300.0, "warmup_min_s": 30.0}}
            ) as cold:
                print(f"ready, cold kernel cache, first model of 1 h x 8 symbols: {cold.start():.1f} s")
        defaults = {"model": {"train_hours": 1.0, "warmup_s": 300.0, "warmup_min_s": 30.0}}
        warm_directory = root / ("warm" if smoke else "cold")
        with System(warm_directory, defaults) as first:
            first.start()
        with System(warm_directory, defaults) as warm:
            print(f"ready, warm kernel cache, model there: {warm.start():.1f} s")
            time.sleep(5.0)
            print(f"idle: 8 symbols, 1,000 messages/s, no browser, over {seconds:.0f} s")
            measure_idle(warm, seconds)
        measure_rate(root / "rate", 5_000.0, seconds)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
