"""The compile step: every kernel is compiled into the cache before a service starts, in parallel, with progress."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from shm.jit import cache_directory

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = (
    "shm",
    "engine/runtime",
    "engine/market",
    "engine/model",
    "engine/risk",
    "engine/strategy",
    "engine/broker",
    "engine/paper",
    "engine/procs",
)


def modules() -> list[str]:
    """Modules that hold kernels, found by their import of ``shm.jit``; the slowest packages first."""
    found = []
    for package in reversed(_PACKAGES):
        for path in sorted((_ROOT / package).rglob("*.py")):
            text = path.read_text()
            if "import kernel" in text and "@kernel(" in text:
                found.append(".".join(path.relative_to(_ROOT).with_suffix("").parts))
    return found


def stamp() -> Path:
    return cache_directory() / "complete"


def is_warm() -> bool:
    return stamp().exists()


def compile_all(say: Callable[[str], None], jobs: int | None = None) -> float:
    """Compile what the cache lacks; returns the seconds it took. Raises RuntimeError naming a module that fails."""
    started = time.monotonic()
    if is_warm():
        return 0.0
    todo = modules()
    total, done = len(todo), 0
    running: dict[subprocess.Popen[bytes], str] = {}
    limit = jobs or max(1, os.cpu_count() or 1)
    while todo or running:
        while todo and len(running) < limit:
            name = todo.pop(0)
            command = [sys.executable, "-c", f"import importlib; importlib.import_module({name!r})"]
            running[subprocess.Popen(command, cwd=_ROOT, stderr=subprocess.PIPE)] = name
        for process, name in list(running.items()):
            if process.poll() is None:
                continue
            del running[process]
            if process.returncode:
                error = (process.stderr.read() if process.stderr else b"").decode().strip().splitlines()
                for other in running:
                    other.kill()
                raise RuntimeError(f"kernel module {name} does not compile: {error[-1] if error else 'killed'}")
            done += 1
            say(f"compiling kernels {done}/{total} ({time.monotonic() - started:.0f} s)")
        time.sleep(0.02)
    stamp().parent.mkdir(parents=True, exist_ok=True)
    stamp().touch()
    return time.monotonic() - started


def preload() -> None:
    """Import every kernel module into this process, so that its forks share them."""
    for name in modules():
        if not name.startswith(("engine.paper", "engine.procs")):  # hosts import the hot path themselves
            importlib.import_module(name)
