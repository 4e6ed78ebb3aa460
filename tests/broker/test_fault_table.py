"""The table of faults: nothing lost, nothing doubled, safe and recovered within bounds; the full one with --all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import bench_faults as faults

SAFE_S = {"half_open": 2.1, "mute": 2.1, "stall": 5.1, "manual_order": 1.3}
"""Within what time the bridge is safe: silence takes a probe to be noticed, a stalled symbol its usual gap, a position
that somebody else has made a second of the broker's unchanged contradiction."""
ALWAYS_S = 0.05


def check(case: faults.Case) -> None:
    row = faults.run_case(case)
    assert not row.lost, row.lost
    assert not row.doubled, row.doubled
    assert row.safe_s <= SAFE_S.get(case.name, ALWAYS_S), f"unsafe for {row.safe_s} s: {row.unsafe}"
    assert row.recovered_s <= row.lasted_s + 12.0, row.behaviour


@pytest.mark.parametrize("case", faults.quick(), ids=faults.words)
def test_fault_loses_and_doubles_nothing(case: faults.Case) -> None:
    check(case)


@pytest.mark.stress
@pytest.mark.parametrize("case", [c for c in faults.cases() if c not in faults.quick()], ids=faults.words)
def test_every_other_fault_loses_and_doubles_nothing(case: faults.Case) -> None:
    check(case)


def test_published_table_has_every_fault() -> None:
    text = faults.DOCUMENT.read_text()
    missing = [faults.words(case) for case in faults.cases() if f"| {faults.words(case)} |" not in text]
    assert not missing, "run: l2dash bench faults --write"
