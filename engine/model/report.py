"""What a training tells: progress while it runs, and its outcome for people and for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TextIO

from engine.model.params import Model


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training did. ``version`` is the candidate's; it serves only if ``promoted``."""

    promoted: bool
    version: int
    incumbent: int | None
    reasons: tuple[str, ...]
    bars: int
    seconds: float
    model: Model


class Reporter:
    """Progress for people: a live bar on a terminal, one line per tenth elsewhere."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._last: tuple[str, int] = ("", -1)
        self._bar = None
        self._tasks: dict[str, object] = {}
        if out.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description:>14}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
            self._bar = Progress(*columns, TimeElapsedColumn(), console=Console(file=out))
            self._bar.start()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._bar is not None:
            if stage not in self._tasks:
                self._tasks[stage] = self._bar.add_task(stage, total=total)
            self._bar.update(self._tasks[stage], completed=done)  # type: ignore[arg-type]
            return
        tenth = 10 * done // max(total, 1)
        if (stage, tenth) != self._last:
            self._last = (stage, tenth)
            self.say(f"{stage} {done}/{total}")

    def say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line)
        else:
            self._out.write(line + "\n")
            self._out.flush()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def summary_json(o: Outcome) -> str:
    data = {
        "promoted": o.promoted,
        "version": o.version,
        "incumbent": o.incumbent,
        "reasons": o.reasons,
        "bars": o.bars,
        "seconds": round(o.seconds, 2),
        "provenance": o.model.provenance,
        "window": o.model.window,
        "metrics": o.model.metrics,
    }
    return json.dumps(data) + "\n"


def summary(o: Outcome) -> str:
    holdout, worth = o.model.metrics["holdout"], o.model.metrics["worth"]
    lines = [
        f"model {o.version} ({o.model.provenance}, {o.model.window}): {o.bars} bars in {o.seconds:.1f} s",
        f"hold-out: log-likelihood per bar {holdout['loglik_standardised']:.3f}, "
        f"does not fit {holdout['invalid_share']:.1%}, mean confidence {holdout['confidence']:.2f}",
        f"regime against return: same bar {worth['regime_return_correlation_same_bar']:+.3f}, "
        f"next bar {worth['regime_return_correlation_next_bar']:+.3f}",
        o.model.metrics["note"],
    ]
    if o.promoted:
        lines.append(f"promoted; a running ml-service takes it over at its next bar (before: {o.incumbent or 'none'})")
    else:
        lines.append(f"kept model {o.incumbent or 'none'}: {'; '.join(o.reasons)}")
    return "\n".join(lines) + "\n"
