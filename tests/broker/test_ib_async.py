"""The same bridge and the same tests with ib_async in place of ib_insync."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/paper/conformance"))

from clients import CLIENTS, CannotInstall, interpreter  # noqa: E402

PARTS = ("ib_async", "eventkit", "nest_asyncio.py", "*.dist-info")
"""What of its environment goes before ours: numpy stays the one that the kernels were compiled with."""


def only_the_library(folder: Path) -> Path:
    client = next(c for c in CLIENTS if c.family == "ib_async")
    try:
        python = interpreter(client)
    except CannotInstall as error:
        pytest.skip(f"{client.name} can't be installed here: {error}")
    (packages,) = python.parents[1].glob("lib/python*/site-packages")
    for part in PARTS:
        for found in packages.glob(part):
            if not found.name.startswith(("numpy", "tzdata")):
                (folder / found.name).symlink_to(found)
    return folder


@pytest.mark.stress
@pytest.mark.timeout(600)
def test_the_bridge_passes_its_tests_with_ib_async(tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment |= {"L2DASH_IB_LIBRARY": "ib_async", "PYTHONPATH": str(only_the_library(library))}
    names = [sys.executable, "-c", "from engine.broker.ibapi_compat import LIBRARY, Client; print(Client.__module__)"]
    assert subprocess.check_output(names, cwd=ROOT, env=environment, text=True).strip() == "ib_async.client"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "not stress", "tests/broker"]
    command += ["--basetemp", str(tmp_path / "tests")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stdout[-6000:]
