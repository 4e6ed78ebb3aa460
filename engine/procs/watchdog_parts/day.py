"""The day's equity figures and the owner's epoch on disk: ``state_dir/risk.json``, and a second copy of it.

Without the day's start and peak a loss would be measured from where the account stands now, and a day that is almost
at its limit would get the whole limit again. So there are two copies, each is looked at before it is believed, and the
latch remembers for which day there must be one: if there is none, entries are paused until an operator has looked.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from engine.procs.watchdog_parts.cells import Senses
from engine.procs.watchdog_parts.later import LateFiles
from engine.risk.guardrails import kernels as k
from engine.risk.guardrails.dd import Day, DdState

FILE = "risk.json"
COPY = "risk.copy.json"
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


@dataclass(frozen=True, slots=True)
class Kept:
    """What a file said. ``trouble``: what was wrong on the way to it, "" nothing."""

    day: Day = field(default_factory=Day)
    epoch: int = 0
    marks: dict[str, float] = field(default_factory=dict)
    adjust: dict[str, float] = field(default_factory=dict)
    trouble: str = ""
    missing: bool = False


def _number(place: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{place} is {value!r}, expected a finite number")
    return float(value)


def _numbers(document: dict[str, Any], place: str) -> dict[str, float]:
    return {name: _number(f"{place}.{name}", value) for name, value in document[place].items()}


def parse(text: str) -> Kept:
    """The content of a file. Raises ValueError, TypeError, KeyError or AttributeError saying what is wrong with it."""
    document: Any = json.loads(text)
    if document["version"] != VERSION:
        raise ValueError(f"version {document['version']!r}, expected {VERSION}")
    raw = document["day"]
    whole = {key: int(_number(key, raw[key])) for key in ("session", "tripped", "lifted_wall_ns")}
    usd = ("base_usd", "start_usd", "peak_usd")
    begun = whole["session"] != 0
    money = {key: _number(key, raw[key]) if begun else math.nan for key in usd}
    lifted = math.nan if raw["lifted_usd"] is None else _number("lifted_usd", raw["lifted_usd"])
    day = Day(**whole, **money, lifted_usd=lifted)  # type: ignore[arg-type]
    epoch = int(_number("epoch", document["epoch"]))
    return Kept(day, epoch, _numbers(document, "open_marks"), _numbers(document, "adjust"))


def _read(path: Path) -> Kept:
    try:
        return parse(path.read_text())
    except FileNotFoundError:
        return Kept(trouble=f"{path.name} is missing", missing=True)
    except KeyError as error:
        return Kept(trouble=f"{path.name} has no {error}")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return Kept(trouble=f"{path.name} can't be read ({error})")


def load(state_dir: Path, senses: Senses, session: int, expected: int) -> tuple[DdState, int, str, bool]:
    """State of DD, last epoch, what was wrong ("" if nothing), and whether the figures of this day are lost.

    ``expected``: the day of which the latch says that its figures have been written. Restores the day's opening marks.
    """
    copies = [_read(state_dir / FILE), _read(state_dir / COPY)]
    best = max(copies, key=lambda c: (not c.trouble, c.day.session == session, c.epoch))
    epoch = max(c.epoch for c in copies)
    if best.day.session == session:
        for i, name in enumerate(senses.names):
            senses.memory[i, k.M_OPEN_MARK] = best.marks.get(name, senses.memory[i, k.M_OPEN_MARK])
            senses.memory[i, k.M_ADJUST] = best.adjust.get(name, 0.0)
    lost = expected == session and best.day.session != session
    troubles = [c.trouble for c in copies if c.trouble and (expected or not c.missing)]  # none at the first start
    if lost and not troubles:
        troubles = [f"{FILE} is of {best.day.session or 'no day'}"]
    return DdState(day=best.day), epoch, ", ".join(troubles), lost


class DayFile:
    """Writes both copies when something in them has changed, at most once a second, and at once for a trip."""

    def __init__(self, state_dir: Path, files: LateFiles) -> None:
        self._paths, self._files = (state_dir / FILE, state_dir / COPY), files
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
        for path in self._paths:
            self._files.write(path, partial(encode, day, epoch, senses))

    def has(self, session: int) -> bool:
        """The figures of this day are on disk, twice."""
        day = self._written[0] if self._written else None
        there = isinstance(day, Day) and day.session == session and self._files.idle
        return there and not any(self._files.failed(path) for path in self._paths)
