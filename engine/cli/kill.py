"""``l2dash kill``: works with every process hung. Latches first, ends everything, erases nothing, says what remains."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.cli import systemd
from engine.cli.errors import FAILED, CliError, say
from engine.cli.settings import target_options, target_or_starting

if TYPE_CHECKING:
    from engine.config import Config

GONE_S = 3.0


@click.command()
@target_options
@click.option(
    "--flatten", "then_flatten", is_flag=True, help="afterwards close everything over an own broker connection"
)
@click.argument("services", nargs=-1)
def kill(config_file: Path | None, instance: str | None, then_flatten: bool, services: tuple[str, ...]) -> int:
    """Latch KILL, then SIGKILL every process, also hung ones. Erases nothing; the next start is KILLED.

    With names, end these services alone: they are restarted, and nothing is latched.
    """
    config = target_or_starting(config_file, instance)
    if services:
        return _kill_some(config, services)
    trouble = _latch(config)
    say(f"latch NOT written: {trouble}; ending everything all the same" if trouble else "KILL latched")
    try:
        code = _end(config, then_flatten)
    finally:  # also when something does not die or does not get flat: what the next start does must be known
        trouble = _latch(config)
        if trouble:
            say(
                f"latch NOT written: {trouble}. The next start is NOT latched, it may trade: do not start before "
                f"{config.state_dir} can be written and `l2dash kill` has said `KILL latched`"
            )
    if trouble:
        return FAILED
    say(f"journal and state are untouched in {config.state_dir}; the next start is KILLED until `l2dash reset`")
    return code


def _latch(config: Config) -> str:
    """Latch KILL in the file; what went wrong, empty if the file says KILL. A disk must not keep anything alive."""
    from engine.cli.access import who_am_i
    from engine.risk import latch

    try:
        config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        latch.kill_offline(config.state_dir, f"l2dash kill by {who_am_i()}", time.monotonic_ns(), time.time_ns())
    except OSError as error:
        try:
            latched = latch.parse((config.state_dir / latch.FILE).read_text()).kill
        except (OSError, ValueError):
            latched = False
        return "" if latched else str(error)
    return ""


def _end(config: Config, then_flatten: bool) -> int:
    """End everything and say what remains; the exit code of the flatten, if one was asked for."""
    from engine.cli.access import what_remains

    if systemd.manages():
        systemd.kill_all()
    # The embedded broker of sim must outlive a flatten: it holds the positions.
    spared = ("paper-gateway",) if then_flatten else ()
    ended = end_everything(config, spared)
    _latch(config)  # again: the watchdog's last write may have come after ours, with no KILL in it
    say(f"ended: {', '.join(ended)}" if ended else "nothing was running")
    remains = what_remains(config)
    say(f"remains at the broker: {remains}" if remains else "nothing known remains at the broker")
    code = 0
    if then_flatten:
        from engine.cli.flatten import flatten_directly

        try:
            code = flatten_directly(config)
        finally:
            end_everything(config, ())
    elif remains:
        say("close it with `l2dash flatten --direct` (with the gateway up), or at the broker")
    return code


def end_everything(config: Config, spared: tuple[str, ...]) -> list[str]:
    """SIGKILL the supervisor, then every living service but ``spared``; returns names. Raises CliError if one lives."""
    from engine.runtime.instance import living

    ended = []
    supervisor = supervisor_pid(config)
    if supervisor:
        with contextlib.suppress(ProcessLookupError):
            os.kill(supervisor, signal.SIGKILL)
            ended.append(f"supervisor (pid {supervisor})")
    deadline = time.monotonic() + GONE_S
    while True:
        # The heartbeat's start time tells a reused pid apart.
        targets = [life for life in living(config) if life.service not in spared]
        if not targets:
            return ended
        for life in targets:
            with contextlib.suppress(ProcessLookupError):
                os.kill(life.pid, signal.SIGKILL)
            name = f"{life.service} (pid {life.pid})"
            if name not in ended:
                ended.append(name)
        if time.monotonic() > deadline:
            raise CliError(f"does not die: {', '.join(f'{life.service} pid {life.pid}' for life in targets)}")
        time.sleep(0.01)


def supervisor_pid(config: Config) -> int:
    """Pid of the process that holds the state directory's supervisor lock, 0 if none does. Works when it hangs."""
    try:
        fd = os.open(config.state_dir / "supervisor.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 32, 0).decode(errors="ignore").strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(fd)
    return 0


def _kill_some(config: Config, services: tuple[str, ...]) -> int:
    from engine.runtime.instance import living

    alive = {life.service: life for life in living(config)}
    for name in services:
        if name not in alive:
            raise click.UsageError(f"no running service {name}: running are {', '.join(alive) or 'none'}")
    for name in services:
        with contextlib.suppress(ProcessLookupError):
            os.kill(alive[name].pid, signal.SIGKILL)
        say(f"{name} (pid {alive[name].pid}) killed")
    return 0
