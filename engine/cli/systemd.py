"""Units instead of a supervisor: where systemd runs the services, start, stop and restart are its business."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from engine.cli.errors import CliError

TARGET = "l2dash.target"


def manages() -> bool:
    """Is systemd running here with our target active or starting?"""
    if not Path("/run/systemd/system").is_dir() or shutil.which("systemctl") is None:
        return False
    state = subprocess.run(
        ["systemctl", "is-active", TARGET], capture_output=True, text=True, check=False
    ).stdout.strip()
    return state in ("active", "activating", "reloading")


def installed() -> bool:
    """Does systemd run here and know our target, started or not?"""
    if not Path("/run/systemd/system").is_dir() or shutil.which("systemctl") is None:
        return False
    return subprocess.run(["systemctl", "cat", TARGET], capture_output=True, check=False).returncode == 0


def units(services: tuple[str, ...]) -> list[str]:
    return [f"l2dash-{name}.service" for name in services]


def call(verb: str, names: list[str]) -> None:
    """One systemctl call; start limits are forgotten first, because a person asks. Raises CliError with its words."""
    if verb in ("start", "restart"):
        subprocess.run(["systemctl", "reset-failed", *names], capture_output=True, check=False)
    done = subprocess.run(["systemctl", verb, *names], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CliError(f"systemctl {verb} {' '.join(names)}: {' '.join(done.stderr.split()) or 'failed'}")


def kill_all() -> None:
    """SIGKILL every service of the target and keep systemd from starting them again."""
    subprocess.run(["systemctl", "kill", "--signal=SIGKILL", "l2dash-*.service"], capture_output=True, check=False)
    subprocess.run(["systemctl", "stop", "--no-block", TARGET, "l2dash-*.service"], capture_output=True, check=False)
