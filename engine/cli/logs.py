"""``l2dash logs``: the services' JSON lines as text, merged by time, and followed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from engine.cli.errors import Refused, say
from engine.cli.settings import target_options, target_or_starting

_HEAD = ("time", "level", "service", "message")


@click.command()
@target_options
@click.option("-f", "--follow", is_flag=True, help="go on with what comes")
@click.option("-n", "--tail", "lines", default=100, show_default=True, help="last lines to begin with")
@click.option("--json", "raw", is_flag=True, help="the lines as they stand in the files")
@click.argument("services", nargs=-1)
def logs(
    config_file: Path | None, instance: str | None, follow: bool, lines: int, raw: bool, services: tuple[str, ...]
) -> None:
    """Logs of all services, or of the named ones, merged by time."""
    directory = target_or_starting(config_file, instance).state_dir / "logs"
    known = sorted(p.stem for p in directory.glob("*.log"))
    from engine import topology

    for name in services:
        if name in known:
            continue
        if name in {service.name for service in topology.SERVICES}:
            say(f"{name} has logged nothing yet")
        else:
            raise Refused(f"no log of {name} in {directory}: there are {', '.join(known) or 'none'}")
    files = [Follower(directory / f"{name}.log") for name in services or known]
    first = sorted((entry for f in files for entry in f.last(lines)), key=lambda e: e[0])
    for _, line in first[-lines:]:
        click.echo(line if raw else as_text(line))
    while follow:
        new = sorted((entry for f in files for entry in f.new()), key=lambda e: e[0])
        for _, line in new:
            click.echo(line if raw else as_text(line))
        if not services:
            watched = {f.path for f in files}
            files += [Follower(p, from_start=True) for p in sorted(directory.glob("*.log")) if p not in watched]
        time.sleep(0.2)


class Follower:
    """Reads a log file forward, through rotations."""

    def __init__(self, path: Path, *, from_start: bool = False) -> None:
        self.path = path
        self._inode, self._offset = 0, 0
        if not from_start and path.exists():
            stat = path.stat()
            self._inode, self._offset = stat.st_ino, stat.st_size

    def last(self, lines: int) -> list[tuple[str, str]]:
        """The last lines that are there now, each with its time."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(max(0, self._offset - 400 * lines - 65536))
            text = file.read(self._offset - file.tell()).decode(errors="replace")
        return [(_time_of(line), line) for line in text.splitlines()[-lines:]]

    def new(self) -> list[tuple[str, str]]:
        """Whole lines that came since the last call."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return []
        if stat.st_ino != self._inode or stat.st_size < self._offset:
            self._inode, self._offset = stat.st_ino, 0
        if stat.st_size == self._offset:
            return []
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [(_time_of(line), line) for line in whole.decode(errors="replace").splitlines()]


def _entry(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _time_of(line: str) -> str:
    entry = _entry(line)
    return str(entry.get("time", "")) if entry else line[:27]


def as_text(line: str) -> str:
    """A JSON line for people; any other line as it is."""
    entry = _entry(line)
    if entry is None:
        return line
    more = " ".join(f"{k}={v}" for k, v in entry.items() if k not in (*_HEAD, "exception"))
    at, level, service = str(entry.get("time", ""))[:23], entry.get("level", ""), entry.get("service", "")
    text = f"{at} {level:<7} {service:<13} {entry.get('message', '')}"
    return f"{text} {more}".rstrip() + (f"\n{entry['exception']}" if "exception" in entry else "")
