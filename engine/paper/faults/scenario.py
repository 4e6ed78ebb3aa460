"""A timed scenario of faults: a TOML file with a list ``faults`` and, if wanted, a ``seed`` and a ``title``.

An entry has ``at_s`` (seconds from the moment the gateway is ready), ``fault`` and ``args``, and the keys of a plan:
``every_s``, ``jitter_s``, ``times``, ``probability``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.paper.faults import FAULTS
from engine.paper.faults.args import FaultError
from engine.paper.faults.desk import FaultDesk, checked
from engine.paper.faults.plan import WHEN, Plan

_PLAN_KEYS = frozenset(WHEN) - {"after_s"}
_ENTRY_KEYS = {"at_s", "fault", "args"} | _PLAN_KEYS


@dataclass(frozen=True, slots=True)
class TimedFault:
    """``at_s`` counts from the moment the gateway is ready."""

    at_s: float
    fault: str
    args: Mapping[str, Any]
    plan: Plan


@dataclass(frozen=True, slots=True)
class Scenario:
    """``seed`` None: that of the gateway."""

    title: str
    seed: int | None
    faults: tuple[TimedFault, ...]

    def start(self, desk: FaultDesk) -> None:
        """Plan every entry, counted from now."""
        if self.seed is not None:
            desk.reseed(self.seed)
        for timed in self.faults:
            desk.plan(timed.fault, timed.args, timed.plan)


def load_scenario(path: Path) -> Scenario:
    """Read and check a scenario. Raises FaultError that names the entry, the key and what is allowed."""
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FaultError(f"scenario {path} can't be read: {error}") from None
    if not set(table) <= {"faults", "seed", "title"} or not isinstance(table.get("faults"), list):
        raise FaultError(f"scenario {path} has keys {sorted(table)}, expected one list named 'faults', seed and title")
    seed, title = table.get("seed"), table.get("title", "")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise FaultError(f"scenario {path}: seed is {seed!r}, expected an integer")
    if not isinstance(title, str):
        raise FaultError(f"scenario {path}: title is {title!r}, expected a text")
    entries = tuple(_entry(path, number, entry) for number, entry in enumerate(table["faults"], 1))
    return Scenario(title, seed, entries)


def _entry(path: Path, number: int, entry: Any) -> TimedFault:
    where = f"scenario {path}, fault {number}"
    if not isinstance(entry, dict) or not set(entry) <= _ENTRY_KEYS:
        keys = ", ".join(["at_s", "fault", "args", *sorted(_PLAN_KEYS)])
        raise FaultError(f"{where}: expected a table with {keys}, not {entry!r}")
    at_s, name, args = entry.get("at_s"), entry.get("fault"), entry.get("args", {})
    if isinstance(at_s, bool) or not isinstance(at_s, (int, float)) or not 0 <= at_s < 1e9:
        raise FaultError(f"{where}: at_s is {at_s!r}, expected seconds from 0")
    if name not in FAULTS:
        raise FaultError(f"{where}: fault is {name!r}, allowed are {', '.join(FAULTS)}")
    if not isinstance(args, dict):
        raise FaultError(f"{where}: args is {args!r}, expected a table")
    when = {key: entry[key] for key in _PLAN_KEYS if key in entry} | {"after_s": at_s}
    try:
        checked(FAULTS, name, args)
        plan = Plan.read(when)
    except FaultError as error:
        raise FaultError(f"{where}: {error}") from None
    return TimedFault(float(at_s), name, args, plan)
