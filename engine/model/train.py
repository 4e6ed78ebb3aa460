"""Training, a process of its own: bars -> candidate -> replay gate against the incumbent -> promoted or kept.

The one place where the training stack, the paper market's generator and the tick store meet. A running ml-service is
not touched: it looks at the ``current`` link at every bar end and swaps there.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.config import Config, ConfigError, load
from engine.domain.instruments import SIM_INDEX, SIM_UNIVERSE, Instrument
from engine.market.layout import FEATURE_SCHEMA
from engine.market.replay import sequences
from engine.model.bundle import BundleError, Registry
from engine.model.evaluate import HOLDOUT, direction, gate, metrics_of, split, walk_forward
from engine.model.fit import FitFailed, fit, match_states, score
from engine.model.history import NoHistory, Progress, recorded_bars, recording_bars, synthetic_bars
from engine.model.params import Model
from engine.model.report import Outcome, Reporter, summary, summary_json

Records = npt.NDArray[np.void]
KEPT = 3


class TrainingRuns(Exception):
    """Another training holds the model directory."""


def candidate_of(
    bars: Records,
    *,
    states: int = 3,
    seed: int = 7,
    restarts: int = 5,
    bar_s: float = 10.0,
    provenance: str = "synthetic",
    window: str = "",
    incumbent: Model | None = None,
    progress: Progress | None = None,
) -> tuple[Model, tuple[bool, tuple[str, ...]]]:
    """Fit on the first four fifths, judge on the last one. Returns the model with its metrics, and the gate's verdict.

    Raises FitFailed.
    """
    bar_ns = int(bar_s * 1e9)
    train, test = sequences(split(bars, 0.0, 1.0 - HOLDOUT), bar_ns), sequences(split(bars, 1.0 - HOLDOUT, 1.0), bar_ns)
    usable = sum(len(s) for s in train)
    if not train or not test:
        raise FitFailed(f"{usable} usable bars in a row to train on: record at least 30 minutes, or use --synthetic")
    folds = walk_forward(bars, bar_ns, states, seed, progress)
    model = fit(
        train,
        states,
        restarts=restarts,
        seed=seed,
        schema=FEATURE_SCHEMA,
        bar_s=bar_s,
        provenance=provenance,
        window=window,
        progress=progress,
    )
    if incumbent is not None:
        model = match_states(model, incumbent)
    holdout, overall = score(model, test), score(model, [*train, *test])
    against = score(incumbent, test) if incumbent is not None else None
    verdict = gate(model, holdout, overall, against)
    metrics = {**model.metrics, **metrics_of(holdout, overall, folds, direction(model, bars, bar_ns))}
    if against is not None and incumbent is not None:
        metrics["incumbent"] = {"version": incumbent.version, "holdout_loglik": round(against.loglik, 4)}
    metrics["gate"] = {"promoted": verdict.promoted, "reasons": list(verdict.reasons)}
    return replace(model, metrics=metrics), (verdict.promoted, verdict.reasons)


def train_synthetic(
    instruments: Sequence[Instrument],
    *,
    seed: int = 7,
    hours: float = 1.0,
    states: int = 3,
    restarts: int = 5,
    bar_s: float = 10.0,
    messages_per_s: float | None = None,
    depth_rows: int = 10,
    progress: Progress | None = None,
) -> Model:
    """A first model from a generated market, one for all symbols, marked ``provenance = "synthetic"``."""
    bars = synthetic_bars(
        instruments,
        seed,
        hours,
        bar_s=bar_s,
        messages_per_s=messages_per_s,
        depth_rows=depth_rows,
        progress=progress,
    )
    model, _ = candidate_of(
        bars,
        states=states,
        seed=seed,
        restarts=restarts,
        bar_s=bar_s,
        window=f"generated {hours:g} h, seed {seed}",
        progress=progress,
    )
    return model


def retrain(
    config: Config,
    instruments: Sequence[Instrument],
    *,
    synthetic: bool = False,
    days: int = 5,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Train on recorded days (or a generated market) and promote the result if it passes the gate.

    In sim, too little recorded data falls back to a generated market, and says so. Raises NoHistory, FitFailed,
    BundleError, TrainingRuns.
    """
    began = time.monotonic()
    m = config.model
    registry = Registry(config.state_dir / "models")
    with _exclusive(registry.directory):
        registry.import_copies()
        incumbent = _incumbent(registry, say)
        window, provenance = f"generated {m.train_hours:g} h, seed {m.train_seed}", "synthetic"
        bars: Records | None = None
        if not synthetic:
            try:
                bars, dates = recorded_bars(
                    config.state_dir,
                    instruments,
                    days,
                    bar_s=m.bar_s,
                    depth_rows=config.universe.depth_rows,
                    progress=progress,
                )
                good = int((bars["valid"] == 1).sum())
                least = 1800 / m.bar_s
                if good < least:
                    raise NoHistory(
                        f"{good} usable bars in {len(dates)} recorded days, at least {least:.0f} are needed: "
                        "record longer or use --synthetic"
                    )
                window = f"recorded {dates[0]} to {dates[-1]}"
                # what the paper market made stays synthetic, recorded or not: paper and live must refuse it
                provenance = "synthetic" if config.instance.mode == "sim" else "recorded"
            except NoHistory as error:
                if config.instance.mode != "sim":
                    raise
                say(f"{error}; sim mode: training on a generated market instead")
                bars = None
        if bars is None and config.paper.market != "synthetic" and config.instance.mode == "sim":
            bars, symbol = recording_bars(
                Path(config.paper.market), bar_s=m.bar_s, depth_rows=config.universe.depth_rows, progress=progress
            )
            # In sample for a replay of the same file: good for a drill, worth nothing as a test of the model.
            window, provenance = f"recording {symbol}, the whole file", "recording"
        if bars is None:
            # another seed each time: a retrain on the very same hour could only find the same model
            seed = m.train_seed + max(registry.versions(), default=0)
            window = f"generated {m.train_hours:g} h, seed {seed}"
            bars = synthetic_bars(
                instruments,
                seed,
                m.train_hours,
                bar_s=m.bar_s,
                messages_per_s=config.paper.messages_per_s,
                depth_rows=config.universe.depth_rows,
                progress=progress,
            )
        model, (passed, reasons) = candidate_of(
            bars,
            states=m.states,
            seed=m.train_seed,
            restarts=m.restarts,
            bar_s=m.bar_s,
            provenance=provenance,
            window=window,
            incumbent=incumbent,
            progress=progress,
        )
        if incumbent is not None and incumbent.provenance == "recorded" and provenance != "recorded":
            passed, reasons = (
                False,
                (
                    *reasons,
                    f"the incumbent was trained on recorded market data, this one is of provenance {provenance}",
                ),
            )
        stored = registry.add(model)
        if passed:
            registry.promote(stored.version)
    before = incumbent.version if incumbent is not None else None
    return Outcome(passed, stored.version, before, reasons, len(bars), time.monotonic() - began, stored)


def _incumbent(registry: Registry, say: Callable[[str], None]) -> Model | None:
    if registry.current is None:
        return None
    try:
        return registry.load(0, FEATURE_SCHEMA)
    except BundleError as error:
        say(f"the current model can't be compared with: {error}")
        return None


@contextlib.contextmanager
def _exclusive(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingRuns(f"another training runs in {directory}: wait for it") from error
        yield


def main(argv: Sequence[str] | None = None) -> int:
    """``--retrain``: exit 0 promoted, 1 failed, 2 wrong arguments, 3 the incumbent is kept."""
    parser = argparse.ArgumentParser(prog="main.py", description="Retrain the regime model.")
    parser.add_argument("--retrain", action="store_true", help="train a candidate and promote it if it passes the gate")
    parser.add_argument("--synthetic", action="store_true", help="train on a generated market, not on recorded days")
    parser.add_argument("--state-dir", type=Path, help="where ticks and models are (default: the configuration's)")
    parser.add_argument("--config", type=Path, default=_config_default(), help="configuration file")
    parser.add_argument("--days", type=int, default=5, help="recorded days to use, the latest (default 5)")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    args = parser.parse_args(argv)
    if not args.retrain:
        parser.error("nothing to do: add --retrain")
    if args.days < 1:
        parser.error(f"--days {args.days}: at least 1")
    report = Reporter(sys.stderr if args.json else sys.stdout)
    try:
        from engine.runtime.universe import instruments

        state_dir = args.state_dir or os.environ.get("L2DASH_STATE_DIR")
        overrides = {"instance": {"state_dir": str(state_dir)}} if state_dir else None
        config = load(args.config, overrides)
        # A first model is pooled over the whole paper market, whatever few symbols this instance trades.
        pooled = (*SIM_UNIVERSE, SIM_INDEX) if args.synthetic else instruments(config)
        outcome = retrain(config, pooled, synthetic=args.synthetic, days=args.days, progress=report, say=report.say)
    except (ConfigError, NoHistory, FitFailed, BundleError, TrainingRuns, OSError) as error:
        report.close()
        sys.stderr.write(f"retrain failed: {error}\n")
        return 1
    report.close()
    sys.stdout.write(summary_json(outcome) if args.json else summary(outcome))
    return 0 if outcome.promoted else KEPT


def _config_default() -> Path | None:
    named = os.environ.get("L2DASH_CONFIG")
    return Path(named) if named else None


if __name__ == "__main__":
    raise SystemExit(main())
