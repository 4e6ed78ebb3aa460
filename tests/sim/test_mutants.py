"""No check without a test that notices its absence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.timeout(900)
@pytest.mark.parametrize("table", ["mutation.py", pytest.param("fences.py", marks=pytest.mark.stress)])
def test_every_mutant_is_caught(table: str) -> None:
    """Decisions by their tests; the fences of the shells by named seeds of the simulation."""
    done = subprocess.run([sys.executable, str(HERE / table)], capture_output=True, text=True, timeout=880)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_the_list_of_mutants_comes_from_the_code() -> None:
    import mutation

    from engine.domain.codes import Refusal
    from engine.risk.guardrails.evaluate import RULES

    found = mutation.mutants()
    gate = [m for m in found if m.target.group == "gate"]
    assert len(gate) > len(Refusal) - 4, "every refusal of the gate has at least one"
    assert {m.target.group for m in found if m.target.group.startswith("rule")} == {f"rule {b.name}" for b in RULES}
