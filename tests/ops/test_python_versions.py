"""The other Python versions it promises: the locked packages install, every kernel compiles, the core's tests pass."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = (
    "tests/market",
    "tests/model",
    "tests/risk_bridge",
    "tests/strategy",
    "tests/shm/test_ring.py",
    "tests/shm/test_cell.py",
)
LOCK = ROOT / "requirements-test.lock"

pytestmark = [pytest.mark.stress, pytest.mark.timeout(900)]


def find(version: str) -> Path | None:
    """An interpreter of this version: on the path, or among those that pyenv keeps beside it."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(kept.glob(f"{version}.*/bin/python"))]
    for candidate in candidates:
        if (
            candidate
            and subprocess.run([candidate, "-c", "import venv, ensurepip"], capture_output=True).returncode == 0
        ):
            return Path(candidate)
    return None


def run(*command: str | Path) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_") and k != "NUMBA_CACHE_DIR"}
    done = subprocess.run([str(c) for c in command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def environment(version: str) -> Path:
    """Its virtual environment, made once for each content of the lock."""
    interpreter = find(version)
    if interpreter is None:
        pytest.skip(f"Python {version} is not on this machine")
    home = ROOT / ".cache" / f"python-{version}"
    wanted, stamp = hashlib.sha256(LOCK.read_bytes()).hexdigest(), home / ".installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        run(interpreter, "-m", "venv", "--clear", home)
        run(home / "bin/python", "-m", "pip", "install", "-qq", "--no-compile", "--require-hashes", "-r", LOCK)
        stamp.write_text(wanted)
    return home / "bin/python"


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_the_core_works_on(version: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    python = environment(version)
    short = tmp_path_factory.getbasetemp() / version  # paths stand in events, whose text has its limit
    run(python, "-m", "engine.cli", "compile")
    chosen = ("-m", "not stress and not real_data and not browser and not system and not container and not systemd")
    told = run(python, "-m", "pytest", "-p", "no:cacheprovider", "--basetemp", short, *chosen, *CORE)
    assert " passed" in told or "[100%]" in told
