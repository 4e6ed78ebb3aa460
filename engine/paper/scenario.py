"""A timed scenario of faults: a TOML file with a list ``faults`` of {at_s, fault, args}."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.paper.fault_args import FaultError
from engine.paper.faults import FAULTS


@dataclass(frozen=True, slots=True)
class TimedFault:
    """``at_s`` counts from the moment the gateway is ready."""

    at_s: float
    fault: str
    args: Mapping[str, Any]


def load_scenario(path: Path) -> list[TimedFault]:
    """Read and check a scenario. Raises FaultError that names the entry, the key and what is allowed."""
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FaultError(f"scenario {path} can't be read: {error}") from None
    if set(table) != {"faults"} or not isinstance(table["faults"], list):
        raise FaultError(f"scenario {path} has keys {sorted(table)}, expected one list named 'faults'")
    return [_entry(path, number, entry) for number, entry in enumerate(table["faults"], 1)]


def _entry(path: Path, number: int, entry: Any) -> TimedFault:
    where = f"scenario {path}, fault {number}"
    if not isinstance(entry, dict) or not set(entry) <= {"at_s", "fault", "args"}:
        raise FaultError(f"{where}: expected a table with at_s, fault and args, not {entry!r}")
    at_s, name, args = entry.get("at_s"), entry.get("fault"), entry.get("args", {})
    if isinstance(at_s, bool) or not isinstance(at_s, (int, float)) or not 0 <= at_s < 1e9:
        raise FaultError(f"{where}: at_s is {at_s!r}, expected seconds from 0")
    if name not in FAULTS:
        raise FaultError(f"{where}: fault is {name!r}, allowed are {', '.join(FAULTS)}")
    if not isinstance(args, dict):
        raise FaultError(f"{where}: args is {args!r}, expected a table")
    return TimedFault(float(at_s), name, args)
