"""``l2dash backup`` and ``l2dash restore``."""

from __future__ import annotations

import contextlib
import signal
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.cli import show
from engine.cli.errors import CliError, Refused, say
from engine.cli.settings import json_option, target_options, target_or_starting

if TYPE_CHECKING:
    from engine.config import Config

BEAT = "backup.beat"
BEAT_S = 30.0


def _time_of_day(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    try:
        found = datetime.strptime(value, "%H:%M").replace(tzinfo=UTC)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a time of day like 02:00") from error
    return found.hour, found.minute


@click.command()
@target_options
@json_option
@click.option("--every-day-at", "at", metavar="HH:MM", callback=_time_of_day, help="stay, and back up daily (UTC)")
def backup(config_file: Path | None, instance: str | None, as_json: bool, at: tuple[int, int] | None) -> int:
    """Back up models, logs, ticks and journal into dated directories (UTC), verified by a scratch restore."""
    config = target_or_starting(config_file, instance)
    if at is not None:
        return _daily(config, *at)
    from engine.store.backup import backup as run

    done = run(config, time.time_ns())
    if as_json:
        show.as_json(asdict(done))
        return 0
    for kind, path in done.paths.items():
        click.echo(f"{kind:<6} {path}")
    say(f"{done.files} files, {done.bytes:,} bytes, {done.journal_rows} journal rows, {done.fills} fills: verified")
    return 0


def due(now: datetime, hour: int, minute: int, have: list[str]) -> bool:
    """Is a backup owed: today's time has passed, and no backup carries today's date?"""
    return (now.hour, now.minute) >= (hour, minute) and f"{now:%Y-%m-%d}" not in have


def _daily(config: Config, hour: int, minute: int) -> int:
    """Back up every day until SIGTERM; a missed one is made up for at once, a failed one after ten minutes."""
    from engine.store.backup import backup as run
    from engine.store.backup import backups
    from engine.store.files import StoreError

    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    word, not_before = "waiting", datetime.now(UTC)
    while True:
        now = datetime.now(UTC)
        complete = sorted(set.intersection(*map(set, backups(Path(config.instance.backup_dir)).values())))
        if now >= not_before and due(now, hour, minute, complete):
            try:
                done = run(config, time.time_ns())
                word = f"backed up {done.date}"
            except (StoreError, OSError) as error:
                word, not_before = f"failed: {error}", now + timedelta(minutes=10)
            say(word)
        with contextlib.suppress(OSError):  # no instance: nobody asks for the beat
            (config.shm_dir / BEAT).write_text(word + "\n")
        if signal.sigtimedwait(stop, BEAT_S) is not None:
            return 0


@click.command()
@target_options
@click.argument("date")
def restore(config_file: Path | None, instance: str | None, date: str) -> None:
    """Restore the backup of a UTC DATE. Models and ticks come back, the journal only where none is.

    Latch, order-id mark and drawdown are never rolled back. Refused while the instance runs.
    """
    from engine.runtime.instance import living
    from engine.store.files import StoreError
    from engine.store.restore import restore as run

    config = target_or_starting(config_file, instance)
    alive = living(config)
    if alive:
        raise Refused(f"{alive[0].service} runs (pid {alive[0].pid}): stop the system first (ops/stop.sh)")
    try:
        done = run(config, date)
    except ValueError as error:
        raise click.BadParameter(f"{date!r}: {error}", param_hint="DATE") from error
    except StoreError as error:
        raise CliError(str(error)) from error
    journal = "restored" if done.journal else "kept"
    say(f"restored {done.date}: {len(done.models)} models, {len(done.ticks)} tick files, journal {journal}")
    for line in done.kept:
        say(f"kept {line}")
