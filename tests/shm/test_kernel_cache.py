"""Compiled kernels are found again wherever the same code lies, and never by other code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOAD = "from shm import counters; print(sum(counters.bucket_of.stats.cache_hits.values()))"


def copy(tree: Path) -> Path:
    shutil.copytree(ROOT / "shm", tree / "shm", ignore=shutil.ignore_patterns("__pycache__"))
    return tree


def hits(tree: Path, cache: Path) -> int:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA", "L2DASH_KERNEL"))}
    environment |= {"L2DASH_CACHE_DIR": str(cache), "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD], env=environment, cwd=tree, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_the_same_code_elsewhere_is_warm_and_changed_code_is_not(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first, second = copy(tmp_path / "first"), copy(tmp_path / "second")
    for path in (second / "shm").rglob("*.py"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    assert hits(first, cache) == 0
    assert hits(second, cache) == 1
    with (second / "shm/layouts.py").open("a") as file:
        file.write("\nCHANGED = 1\n")
    assert hits(second, cache) == 0
