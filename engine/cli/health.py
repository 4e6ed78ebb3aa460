"""``l2dash health SERVICE`` for healthchecks: reads single words of one heartbeat, without numba or numpy.

Aligned 64-bit words are read whole; a mixture of two heartbeats can only make a service look fresher by one beat.
"""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

import click

from engine.cli.errors import CliError, Refused
from engine.cli.settings import SHM_ROOT

FIRST_CELL = 512
"""Word at which the first cell of a region begins: after a page of header."""
PID, START_TICKS, STATE, T_BEAT = 1, 2, 4, 5
"""Words of a HEARTBEAT record."""
READY = 3
SILENT_S = 5.0


@click.command()
@click.option("--instance", metavar="NAME", help="which instance [env L2DASH_INSTANCE; else the only one]")
@click.argument("service")
def health(instance: str | None, service: str) -> None:
    """Exit 0 if SERVICE lives, is READY and beats; `regions` and `backup` are understood too."""
    directory = _directory(instance)
    if service == "regions":
        if not (directory / "config.toml").is_file():
            raise Refused(f"no instance in {directory}")
        return
    if service == "backup":
        check_backup_beat(directory)
        return
    pid, ticks, state, beat_ns = heartbeat_words(directory, service)
    if pid <= 0 or _start_ticks(pid) != ticks:
        raise CliError(f"{service} does not run")
    if state != READY:
        raise CliError(f"{service} is not READY yet (state {state})")
    age_s = (time.monotonic_ns() - beat_ns) / 1e9
    if age_s > SILENT_S:
        raise CliError(f"{service} has not beaten for {age_s:.1f} s, allowed {SILENT_S:g} s")


def heartbeat_words(directory: Path, service: str) -> tuple[int, int, int, int]:
    """pid, start ticks, state and time of the last beat. Raises Refused without such a region."""
    path = directory / f"heartbeat.{service}"
    try:
        with path.open("rb") as file:
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with mapping, memoryview(mapping) as raw, raw.cast("q") as words:
            pid, ticks, state, beat_ns = (words[FIRST_CELL + at] for at in (PID, START_TICKS, STATE, T_BEAT))
            return pid, ticks, state, beat_ns
    except FileNotFoundError as error:
        raise Refused(f"no heartbeat of {service} in {directory}: is the instance up?") from error


def check_backup_beat(directory: Path) -> None:
    """The backup loop touches a file every minute. Raises CliError when it has stopped."""
    path = directory / "backup.beat"
    try:
        age_s = time.time() - path.stat().st_mtime
    except FileNotFoundError as error:
        raise CliError("the backup loop has not started") from error
    if age_s > 300.0:
        raise CliError(f"the backup loop has been silent for {age_s:.0f} s")
    last = path.read_text().strip()
    if last.startswith("failed"):
        raise CliError(f"the last backup {last}")


def _directory(instance: str | None) -> Path:
    named = instance or os.environ.get("L2DASH_INSTANCE")
    if named:
        return Path(SHM_ROOT) / f"l2dash-{named}"
    found = sorted(Path(SHM_ROOT).glob("l2dash-*/config.toml"))
    default = Path(SHM_ROOT) / "l2dash-default"
    if len(found) == 1 or (found and default / "config.toml" not in found):
        return found[0].parent
    return default


def _start_ticks(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rsplit(")", 1)[1].split()
    return 0 if fields[0] in ("Z", "X") else int(fields[19])
