"""The day's equity figures and the owner's epoch on disk: ``state_dir/risk.json``."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from engine.procs.watchdog_parts.cells import Senses
from engine.procs.watchdog_parts.later import LateFiles
from engine.risk.guardrails import kernels as k
from engine.risk.guardrails.dd import Day, DdState

FILE = "risk.json"
VERSION = 1


def encode(day: Day, epoch: int, senses: Senses) -> bytes:
    """JSON of what must survive: NaN becomes null. ``open_marks``: price of each symbol when the day began."""
    marks = {
        name: float(mark)
        for name, mark in zip(senses.names, senses.memory[:, k.M_OPEN_MARK], strict=True)
        if math.isfinite(mark)
    }
    values = {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in asdict(day).items()}
    document = {"version": VERSION, "epoch": epoch, "day": values, "open_marks": marks, "adjust": _adjust(senses)}
    return json.dumps(document, indent=1).encode() + b"\n"


def _adjust(senses: Senses) -> dict[str, float]:
    column = senses.memory[:, k.M_ADJUST]
    return {name: float(x) for name, x in zip(senses.names, column, strict=True) if math.isfinite(x) and x}


def load(path: Path, senses: Senses, session: int) -> tuple[DdState, int, str]:
    """State of DD, last epoch, and what was wrong with the file ("" if nothing). Restores the day's opening marks."""
    try:
        document: Any = json.loads(path.read_text())
        if document.get("version") != VERSION:
            raise ValueError(f"version {document.get('version')!r}, expected {VERSION}")
        epoch = int(document["epoch"])
        raw: dict[str, Any] = {key: math.nan if v is None else v for key, v in document["day"].items()}
        day = Day(**raw)
        if day.session == session:
            for i, name in enumerate(senses.names):
                if name in document["open_marks"]:
                    senses.memory[i, k.M_OPEN_MARK] = float(document["open_marks"][name])
                senses.memory[i, k.M_ADJUST] = float(document["adjust"].get(name, 0.0))
        return DdState(day=day), epoch, ""
    except FileNotFoundError:
        return DdState(), 0, ""
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return DdState(), 0, f"{path} can't be read ({error}): the day's start and peak are taken anew"


class DayFile:
    """Writes ``risk.json`` when something in it has changed, at most once a second, and at once for a trip."""

    def __init__(self, path: Path, files: LateFiles) -> None:
        self._path, self._files = path, files
        self._written: tuple[object, ...] = ()
        self._next_ns = 0

    def update(self, day: Day, epoch: int, senses: Senses, now_ns: int) -> None:
        key = (day, epoch)
        if key == self._written:
            return
        urgent = (
            not self._written or self._written[1] != epoch or getattr(self._written[0], "tripped", 0) != day.tripped
        )
        if not urgent and now_ns < self._next_ns:
            return
        self._written, self._next_ns = key, now_ns + 1_000_000_000
        self._files.write(self._path, partial(encode, day, epoch, senses))
