"""The benchmark from tick to order runs, and says what it has to say. What it measures is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.stress
@pytest.mark.timeout(240)
def test_all_contenders_answer_in_one_interleaved_run(tmp_path: Path) -> None:
    found = measured(tmp_path, "--smoke")
    assert set(found["us"]) == {"ours", "echo", "plain", "plain+filter"}
    assert len(found["ratios"]) == 6


@pytest.mark.timeout(200)
def test_ours_and_the_limit_are_measured_with_percentiles_ratios_and_hops(tmp_path: Path) -> None:
    found = measured(tmp_path, "--smoke", "--only", "echo")
    for name in ("ours", "echo"):
        p50, p99 = found["us"][name]["50.0"], found["us"][name]["99.0"]
        assert 0 < p50 <= p99
    assert {r["what"] for r in found["ratios"]} == {"ours / echo at p50", "ours / echo at p99"}
    hops = {h["hop"] for h in found["hops"]}
    assert {"tick_decode", "tick_to_signal", "signal_to_intent", "intent_to_gate", "gate", "gate_to_wire"} <= hops


def test_the_parts_of_the_way_are_measured_one_by_one(tmp_path: Path) -> None:
    found = measured(tmp_path, "--smoke", script="tick_path.py")
    assert found["decode"]["ratio"] > 1
    assert found["pipeline"]["events_per_s"] > 0
    assert set(found) == {"decode", "pipeline", "gate_ns", "encode", "hop_ns", "record_ns"}


def measured(tmp_path: Path, *arguments: str, script: str = "tick_to_order.py") -> dict[str, Any]:
    out = tmp_path / "figures.json"
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments, "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=230, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "topology" in done.stdout
    found: dict[str, Any] = json.loads(out.read_text())
    return found
