"""Environments of the client libraries under test: one for each lock file, in ``.cache/clients`` of the checkout."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
CACHE = ROOT / ".cache" / "clients"
INSTALL_TIMEOUT_S = 240


class CannotInstall(Exception):
    """A client library that this machine can't get; the text says why."""


@dataclass(frozen=True, slots=True)
class ClientLibrary:
    """``family`` is the adapter that drives it; without a lock it needs nothing but Python."""

    name: str
    family: str
    lock: str = ""


CLIENTS = (
    ClientLibrary("ib_insync 0.9.86", "ib_insync", "ib_insync-0.9.86.txt"),
    ClientLibrary("ib_async 2.1.0", "ib_async", "ib_async-2.1.0.txt"),
    ClientLibrary("ibapi 9.81.1", "ibapi", "ibapi-9.81.1.txt"),
    ClientLibrary("ibapi 10.19.4", "ibapi", "ibapi-10.19.4.txt"),
    ClientLibrary("ibapi 10.30.1", "ibapi", "ibapi-10.30.1.txt"),
    ClientLibrary("ibapi 10.37.2", "ibapi", "ibapi-10.37.2.txt"),
    ClientLibrary("ibapi 10.45.1", "ibapi", "ibapi-10.45.1.txt"),
    ClientLibrary("ibapi 10.46.1", "ibapi", "ibapi-10.46.1.txt"),
    ClientLibrary("raw socket", "raw"),
)


def interpreter(client: ClientLibrary) -> Path:
    """The Python of a client's environment, installed if need be. Raises CannotInstall."""
    if not client.lock:
        return Path(sys._base_executable)  # type: ignore[attr-defined]
    lock = HERE / "locks" / client.lock
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    wanted = hashlib.sha256(lock.read_bytes() + version.encode()).hexdigest()
    folder = CACHE / client.lock.removesuffix(".txt")
    python, stamp = folder / "bin" / "python", folder / "installed"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{folder.name}.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted and python.exists():
            return python
        shutil.rmtree(folder, ignore_errors=True)
        base = sys._base_executable  # type: ignore[attr-defined]
        _run([base, "-m", "venv", "--without-pip", str(folder)])
        target = folder / "lib" / f"python{version}" / "site-packages"
        # The official client comes as sources only; its build needs nothing but the setuptools that we have.
        options = ["--require-hashes", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-qq"]
        _run([sys.executable, "-m", "pip", "install", *options, "--target", str(target), "-r", str(lock)])
        stamp.write_text(wanted)
    return python


def _run(command: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise CannotInstall(f"{command[0]} took longer than {INSTALL_TIMEOUT_S} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise CannotInstall(lines[-1] if lines else f"{command[0]} ended with {done.returncode}")
