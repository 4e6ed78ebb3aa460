"""Training on a part of an order-book file: a process of its own, because who trades never loads the training stack.

``train`` is called by the backtest and starts ``main`` in a process; the model comes back as a bundle in a registry.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.replay.window import clock

Source = Path | tuple[Path, Path]
_CHUNK_NS = 60_000_000_000


class TrainingFailed(Exception):
    """There is no model to test; the text says why."""


@dataclass(frozen=True, slots=True)
class Task:
    """What to train: ns since midnight, and the configured hyper-parameters."""

    paths: tuple[str, ...]
    symbol: str
    from_ns: int
    until_ns: int
    models: str
    bar_s: float
    depth_rows: int
    states: int
    seed: int
    restarts: int


@dataclass(frozen=True, slots=True)
class Trained:
    """``gate``: why the model would not have been promoted; empty if it would."""

    version: int
    bars: int
    gate: tuple[str, ...]
    invalid_share: float
    seconds: float


def train(task: Task) -> Trained:
    """Train in a process of its own. Raises TrainingFailed."""
    command = [sys.executable, "-m", "engine.replay.training", "--task", json.dumps(asdict(task))]
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        raise TrainingFailed(f"training on {clock(task.from_ns)} to {clock(task.until_ns)} failed: {lines[-1]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Trained(**{**found, "gate": tuple(found["gate"])})


def source_of(paths: Sequence[str]) -> Source:
    """One path, or the pair (message, orderbook)."""
    return Path(paths[0]) if len(paths) == 1 else (Path(paths[0]), Path(paths[1]))


def window_bars(
    source: Source, symbol: str, from_ns: int, until_ns: int, *, bar_s: float, depth_rows: int
) -> npt.NDArray[np.void]:
    """Bars (dtype BAR) of the rows in [from, until) of a file, by the kernels that serve."""
    from engine.market.replay import collect_bars
    from engine.market.state import Market
    from engine.model.history import ticks_of
    from engine.paper.market.lobster import LobsterMarket
    from engine.paper.port import MARKET_EVENT

    market = LobsterMarket(source, symbol, start=clock(from_ns), levels=depth_rows, in_process=True, start_ns=1)
    books = Market(market.instruments, bar_s=bar_s, depth_rows=depth_rows)
    out = np.zeros(1 << 16, MARKET_EVENT)

    def batches() -> Iterator[npt.NDArray[np.void]]:
        end_ns = until_ns - from_ns  # one ns before the first row that must not be seen
        while market.now_ns < end_ns:
            market.advance(min(end_ns, market.now_ns + _CHUNK_NS))
            while count := market.poll(out):
                yield ticks_of(out[:count])

    return collect_bars(books, batches())


def main(argv: Sequence[str] | None = None) -> int:
    """Train as ``--task`` (JSON of ``Task``) says; prints JSON of ``Trained``. Exit 1 with one line if it can't."""
    import time

    from engine.model.bundle import Registry
    from engine.model.fit import FitFailed
    from engine.model.train import candidate_of
    from engine.paper.market.lobster_file import LobsterError

    parser = argparse.ArgumentParser(prog="python -m engine.replay.training")
    parser.add_argument("--task", required=True)
    raw = json.loads(parser.parse_args(argv).task)
    task = Task(**{**raw, "paths": tuple(raw["paths"])})
    began = time.monotonic()
    try:
        bars = window_bars(
            source_of(task.paths), task.symbol, task.from_ns, task.until_ns, bar_s=task.bar_s,
            depth_rows=task.depth_rows,
        )  # fmt: skip
        model, (promoted, reasons) = candidate_of(
            bars, states=task.states, seed=task.seed, restarts=task.restarts, bar_s=task.bar_s, provenance="recording",
            window=f"{task.symbol} {clock(task.from_ns)} to {clock(task.until_ns)}",
        )  # fmt: skip
    except (FitFailed, LobsterError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    registry = Registry(Path(task.models))
    stored = registry.add(model)
    registry.promote(stored.version)
    invalid = float(model.metrics["holdout"]["invalid_share"])
    gate = () if promoted else reasons
    found = Trained(stored.version, len(bars), gate, invalid, round(time.monotonic() - began, 2))
    sys.stdout.write(json.dumps(asdict(found)) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
