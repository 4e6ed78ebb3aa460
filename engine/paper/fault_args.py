"""Arguments of fault commands, checked one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class FaultError(ValueError):
    """A fault command that can't be carried out: which argument, what is allowed."""


class Args:
    """Arguments of one command; ``end`` refuses what was not asked for."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._left = dict(values)

    def number(self, name: str, default: float | None = None, low: float = 0.0, high: float = 1e9) -> float:
        value = self._left.pop(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise FaultError(f"argument {name!r} is {value!r}, expected a number in {low:g}..{high:g}")
        return float(value)

    def text(self, name: str, default: str | None = None) -> str:
        value = self._left.pop(name, default)
        if not isinstance(value, str):
            raise FaultError(f"argument {name!r} is {value!r}, expected a text")
        return value

    def flag(self, name: str) -> bool:
        value = self._left.pop(name, False)
        if not isinstance(value, bool):
            raise FaultError(f"argument {name!r} is {value!r}, expected true or false")
        return value

    def end(self) -> None:
        if self._left:
            raise FaultError(f"unknown arguments {sorted(self._left)}; leave them out")
