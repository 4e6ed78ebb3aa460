from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "bench_shm.py"


@pytest.mark.timeout(300)
def test_the_benchmark_runs_and_prints_every_ratio_with_the_machine() -> None:
    """Its sizes are too small for figures; what is checked is that each is measured and that no record is lost."""
    done = subprocess.run([sys.executable, str(PROGRAM), "--smoke"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for words in (
        "cores (", "L2 ", "x bare", "SimpleQueue", "ZeroMQ ipc", "of C", "of it", "slow reader", "stopped reader",
        "cell read", "in vain",
    ):  # fmt: skip
        assert words in done.stdout, words
    assert "nan" not in done.stdout, "a comparison is missing: gcc or pyzmq is not installed"
