"""The bridge with ib_async in the place of ib_insync: the same code, the same tests, an environment of its own.

The environment is the test environment, linked package by package, without ib_insync and what came with it, and with
ib_async instead: the two libraries can't be installed side by side.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "tests" / "paper" / "conformance" / "locks" / "ib_async-2.1.0.txt"
"""Of the library's packages; what else it needs is in the test environment already."""
OWN = ("aeventkit", "ib_async", "nest-asyncio")
LEFT_OUT = ("ib_insync", "eventkit", "nest_asyncio")
TESTS = ("test_bridge_paper.py", "test_decode.py", "test_decode_fuzz.py", "test_encode.py", "test_fault_table.py",
         "test_unreadable.py")  # fmt: skip
"""Those that a library has a part in; the others of this folder never meet one."""


def own_lock() -> str:
    """The lock's entries of ``OWN``, with their hashes."""
    entries = LOCK.read_text().replace("\\\n", " ").splitlines()
    return "\n".join(e for e in entries if e.split("==")[0].strip() in OWN) + "\n"


def packages() -> Path:
    return next(Path(p) for p in site.getsitepackages() if p.endswith("site-packages"))


def environment() -> Path:
    """Its interpreter; made anew when either lock has changed. Fails with what the installer said."""
    home = ROOT / ".cache" / "with-ib_async"
    stamp, python = home / "installed", home / "bin" / "python"
    wanted = hashlib.sha256(LOCK.read_bytes() + (ROOT / "requirements-test.lock").read_bytes()).hexdigest()
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / "with-ib_async.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted and python.exists():
            return python
        shutil.rmtree(home, ignore_errors=True)
        call(sys._base_executable, "-m", "venv", "--without-pip", home)  # type: ignore[attr-defined]
        target = home / "lib" / packages().parent.name / "site-packages"
        for entry in packages().iterdir():
            if not entry.name.startswith(LEFT_OUT):
                (target / entry.name).symlink_to(entry)
        lock = home / "lock.txt"
        lock.write_text(own_lock())
        call(sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--require-hashes",
             "--no-deps", "--target", target, "-r", lock)  # fmt: skip
        stamp.write_text(wanted)
    return python


def call(*command: str | Path) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_") and k != "L2DASH_IB_LIBRARY"}
    done = subprocess.run([str(c) for c in command], cwd=ROOT, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_the_same_tests_pass_with_ib_async(tmp_path: Path) -> None:
    python = environment()
    told = call(
        python, "-c",
        "import importlib.util as u; from engine.broker.ibapi_compat import LIBRARY; "
        "print(LIBRARY, u.find_spec('ib_insync'))",
    )  # fmt: skip
    assert told.split() == ["ib_async", "None"]
    files = [f"tests/broker/{name}" for name in TESTS]
    told = call(
        python, "-m", "pytest", "-p", "no:cacheprovider", "--basetemp", tmp_path / "tests", "-m", "not stress", *files
    )  # fmt: skip
    assert "[100%]" in told
    assert "skipped" not in told


def test_its_lock_holds_what_replaces_ib_insync() -> None:
    names = [line.split("==")[0] for line in own_lock().splitlines()]
    assert sorted(names) == sorted(OWN)
    assert all("--hash=sha256:" in line for line in own_lock().splitlines())
