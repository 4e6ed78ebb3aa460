"""The gateway's benchmark runs and prints both figures with their ratios, measured in small."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "bench_paper_gateway.py"


@pytest.mark.stress
@pytest.mark.timeout(300)
def test_both_figures_are_measured_and_stand_with_their_ratios() -> None:
    done = subprocess.run([sys.executable, str(PROGRAM), "--smoke"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    acknowledged = re.search(r"median: (\d+) us; bare loopback echo: (\d+) us; ratio ([\d.]+)", done.stdout)
    assert acknowledged, done.stdout
    ack, echo, ratio = map(float, acknowledged.groups())
    assert ack > echo > 0
    assert ratio == pytest.approx(ack / echo, rel=0.05)
    depth = re.search(r"two clients: ([\d,]+) messages/s \(asked: ([\d,]+), ratio ([\d.]+)\)", done.stdout)
    assert depth, done.stdout
    sent, asked, part = (float(text.replace(",", "")) for text in depth.groups())
    assert part == pytest.approx(sent / asked, abs=0.01)
    assert part > 0.5
    assert re.search(r"market behind by [\d.]+ ms", done.stdout)
