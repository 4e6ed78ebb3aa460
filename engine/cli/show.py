"""Output: the same rows as a table for people or as JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

Row = Mapping[str, Any]


def as_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    click.echo(json.dumps(value, indent=2, default=str))


def table(rows: Sequence[Row], columns: Mapping[str, str], *, title: str = "", empty: str = "nothing to show") -> None:
    """Print ``columns`` (key -> heading) of ``rows``; numbers are right-aligned. ``empty`` is said without rows."""
    if not rows:
        click.echo(empty)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    wide = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    grid = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for key, heading in columns.items():
        numeric = any(isinstance(r.get(key), int | float) and not isinstance(r.get(key), bool) for r in rows)
        grid.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell(row.get(key)), style=_style(key, row.get(key))) for key in columns))
    wide.print(grid)


def cell(value: Any) -> str:
    """A value in a table: nothing for None, no needless digits, thousands separated."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.2f}".rstrip("0").rstrip(".") if abs(value) < 1e15 else f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


_GOOD = frozenset({"READY", "OK", "ACTIVE", "UP", "pass", "ok"})
_BAD = frozenset({"DOWN", "HUNG", "TRIPPED", "KILLED", "fail", "STUCK"})
_CARE = frozenset({"WARN", "STALE", "WAIT", "PAUSED", "BLOCKED", "WARMING", "STARTING", "warn", "CLOSING", "STOPPED"})


def _style(key: str, value: Any) -> str:
    if key in ("state", "status", "trading_state") and isinstance(value, str):
        return "green" if value in _GOOD else "red bold" if value in _BAD else "yellow" if value in _CARE else ""
    return ""


def styled_state(word: str) -> str:
    """A state word in colour when stdout is a terminal."""
    colour = "green" if word in _GOOD else "red" if word in _BAD else "yellow"
    return click.style(word, fg=colour, bold=True)
