"""Arguments of fault commands: what each one means, what is allowed, and its value in one command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class FaultError(ValueError):
    """A fault command that can't be carried out: which argument, what is allowed."""


@dataclass(frozen=True, slots=True)
class Arg:
    """One argument. ``default`` None: it must be given. ``kind`` is float, str or bool."""

    kind: type
    help: str
    default: float | str | bool | None
    low: float = 0.0
    high: float = 1e9

    @property
    def allowed(self) -> str:
        """What may be given, in words."""
        if self.kind is float:
            return f"a number in {self.low:g}..{self.high:g}"
        return "true or false" if self.kind is bool else "a text"

    def check(self, name: str, value: Any) -> float | str | bool:
        """The value as it will be used. Raises FaultError."""
        if self.kind is float:
            fits = isinstance(value, (int, float)) and not isinstance(value, bool) and self.low <= value <= self.high
        else:
            fits = isinstance(value, self.kind)
        if not fits:
            raise FaultError(f"argument {name!r} is {value!r}, expected {self.allowed}")
        checked: float | str | bool = float(value) if self.kind is float else value
        return checked


def number(help: str, default: float | None = None, low: float = 0.0, high: float = 1e9) -> Arg:
    return Arg(float, help, default, low, high)


def text(help: str, default: str | None = None) -> Arg:
    return Arg(str, help, default)


def flag(help: str) -> Arg:
    return Arg(bool, help, False)


class Values:
    """Checked arguments of one command, by name."""

    __slots__ = ("_values",)

    def __init__(self, specification: Mapping[str, Arg], given: Mapping[str, Any]) -> None:
        unknown = sorted(set(given) - set(specification))
        if unknown:
            allowed = ", ".join(specification) or "none"
            raise FaultError(f"unknown arguments {unknown}; allowed are {allowed}")
        self._values = {n: a.check(n, given.get(n, a.default)) for n, a in specification.items()}

    def number(self, name: str) -> float:
        return float(self._values[name])

    def count(self, name: str) -> int:
        return int(self._values[name])

    def text(self, name: str) -> str:
        return str(self._values[name])

    def flag(self, name: str) -> bool:
        return bool(self._values[name])
