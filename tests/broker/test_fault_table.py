"""The table of faults: nothing lost, nothing doubled, safe and recovered within bounds; the full one with --all."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import bench_faults as faults

SAFE_S = {"half_open": 2.1, "mute": 2.1, "stall": 5.1, "manual_order": 1.3}
"""Within what time the bridge is safe: silence takes a probe to be noticed, a stalled symbol its usual gap, a position
that somebody else has made a second of the broker's unchanged contradiction."""
ALWAYS_S = 0.05
GENERATED = Path(__file__).resolve().parents[2] / ".cache" / "FAULTS.md"
"""The table of this very run, good or bad; docs/FAULTS.md is one that was published."""

Rows = dict[str, faults.Row]


@pytest.fixture(scope="module")
def rows() -> Iterator[Rows]:
    """All rows that were run; a complete set of them becomes the table."""
    found: Rows = {}
    yield found
    wanted = [faults.words(case) for case in faults.cases()]
    if set(wanted) <= set(found):
        GENERATED.parent.mkdir(exist_ok=True)
        GENERATED.write_text(faults.document([found[name] for name in wanted]))


def check(case: faults.Case, rows: Rows) -> None:
    row = rows[faults.words(case)] = faults.run_case(case)
    assert not row.lost, row.lost
    assert not row.doubled, row.doubled
    assert row.safe_s <= SAFE_S.get(case.name, ALWAYS_S), f"unsafe for {row.safe_s} s: {row.unsafe}"
    assert row.recovered_s <= row.lasted_s + 12.0, row.behaviour


@pytest.mark.parametrize("case", faults.quick(), ids=faults.words)
def test_fault_loses_and_doubles_nothing(case: faults.Case, rows: Rows) -> None:
    check(case, rows)


@pytest.mark.stress
@pytest.mark.parametrize("case", [c for c in faults.cases() if c not in faults.quick()], ids=faults.words)
def test_every_other_fault_loses_and_doubles_nothing(case: faults.Case, rows: Rows) -> None:
    check(case, rows)


def test_published_table_has_every_fault() -> None:
    text = faults.DOCUMENT.read_text()
    missing = [faults.words(case) for case in faults.cases() if f"| {faults.words(case)} |" not in text]
    assert not missing, "run: l2dash bench faults --write"
