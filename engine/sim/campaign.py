"""Many seeds: on several cores, resumable. Every finished seed is one line of a file; a line counts only for its code.

A campaign of thousands of hours is cut sooner or later. What was finished before is not run again, unless a source has
changed since: then it proves nothing any more.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from engine.sim.run import Ask, Outcome, simulate

Row = dict[str, Any]
_ROOT = Path(__file__).resolve().parents[2]
_SOURCES = ("engine", "shm")


class BadResults(ValueError):
    """The file of results can't be read; the text says where and why."""


def code_key(root: Path = _ROOT) -> str:
    """Hash of all sources that a simulation may run: 16 hex digits."""
    digest = hashlib.blake2b(digest_size=8)
    for package in _SOURCES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def ask_key(ask: Ask) -> str:
    """What is asked for, but for the seed, as one text."""
    fields = {k: v for k, v in asdict(replace(ask, seed=0, trace=False)).items() if k != "seed"}
    return json.dumps(fields, sort_keys=True, default=str)


def row_of(ask: Ask, outcome: Outcome, code: str) -> Row:
    """A line of the file."""
    o = outcome
    return {
        "code": code, "ask": ask_key(ask), "seed": o.seed, "simulated_s": round(o.simulated_s, 3),
        "cpu_s": round(o.cpu_s, 3), "seconds": round(o.seconds, 3), "speed": round(o.speed, 1), "digest": o.digest,
        "events": o.counts.events, "deeds": o.counts.deeds, "counts": asdict(o.counts), "kills": list(o.kills),
        "broken": [{"number": b.number, "t_ns": b.t_ns, "text": str(b)} for b in o.broken],
    }  # fmt: skip


def known(path: Path, code: str, ask: Ask) -> dict[int, Row]:
    """Rows of the file for this code and this question, by seed. Raises BadResults; a last line cut short is passed."""
    if not path.exists():
        return {}
    found: dict[int, Row] = {}
    lines = path.read_text().split("\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            row = json.loads(line)
            if row["code"] == code and row["ask"] == ask_key(ask):
                found[int(row["seed"])] = row
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):  # written when the machine or the run was cut
                continue
            raise BadResults(
                f"{path}, line {number}: no result of a simulation ({error}); move the file away"
            ) from error
    return found


def _silent() -> None:
    logging.disable(logging.WARNING)


def outcomes(asks: Sequence[Ask], jobs: int, budget_s: float, clock: Callable[[], float]) -> Iterator[Outcome]:
    """Run them, ``jobs`` at a time, as they finish. None is begun after ``budget_s`` seconds (0: no limit)."""
    end = clock() + budget_s if budget_s else float("inf")
    waiting = iter(asks)
    if jobs == 1:
        for ask in waiting:
            yield simulate(ask)
            if clock() >= end:
                return
        return
    with multiprocessing.get_context("spawn").Pool(jobs, _silent) as pool:
        running = [pool.apply_async(simulate, (ask,)) for ask in islice(waiting, jobs)]
        while running:
            done = [r for r in running if r.ready()]
            if not done:
                running[0].wait(0.2)
                continue
            running = [r for r in running if r not in done]
            if clock() < end:
                running += [pool.apply_async(simulate, (ask,)) for ask in islice(waiting, len(done))]
            for result in done:
                yield result.get()


def campaign(
    asks: Sequence[Ask], jobs: int = 1, results: Path | None = None, budget_s: float = 0.0,
    finished: Callable[[Ask, Outcome], None] | None = None,
) -> list[Row]:  # fmt: skip
    """Rows of all seeds that are known or have been run now, by seed. Raises BadResults and OSError for the file."""
    code = code_key()
    rows = known(results, code, asks[0]) if results is not None else {}
    rows = {ask.seed: rows[ask.seed] for ask in asks if ask.seed in rows}
    by_seed = {ask.seed: ask for ask in asks}
    left = [ask for ask in asks if ask.seed not in rows]
    for outcome in outcomes(left, jobs, budget_s, time.monotonic):
        ask = by_seed[outcome.seed]
        rows[outcome.seed] = row_of(ask, outcome, code)
        if results is not None:
            _append(results, rows[outcome.seed])
        if finished is not None:
            finished(ask, outcome)
    return [rows[seed] for seed in sorted(rows)]


def _append(path: Path, row: Row) -> None:
    """Adds a line; what a cut run has left of its last one is taken away first."""
    with path.open("ab+") as file:
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        file.write(json.dumps(row).encode() + b"\n")


def summary(rows: Iterable[Row]) -> dict[str, str]:
    """Names and figures, as printed."""
    rows = list(rows)
    counts = [row["counts"] for row in rows]
    hours = sum(row["simulated_s"] for row in rows) / 3600
    cpu_s = sum(row["cpu_s"] for row in rows)

    def total(name: str) -> str:
        return f"{sum(c[name] for c in counts):,}"

    return {
        "seeds": f"{len(rows):,}",
        "simulated hours": f"{hours:,.1f}",
        "events": f"{sum(row['events'] for row in rows):,}",
        "faults and actions": total("deeds"),
        "kills -9": total("crashes"),
        "orders": total("orders"),
        "executions heard": total("fills"),
        "KILL": total("kills"),
        "faster than real time": f"{hours * 3600 / cpu_s if cpu_s else 0:,.0f} x (by CPU), {cpu_s:,.0f} s of CPU",
        "seeds with a broken invariant": f"{sum(bool(row['broken']) for row in rows):,}",
    }
