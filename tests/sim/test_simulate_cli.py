"""``l2dash simulate`` as a person uses it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.cli.simulate import simulate

pytestmark = pytest.mark.timeout(900)


def test_it_prints_what_was_simulated_and_ends_with_0(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    ask = ["--seeds", "3", "--seed", "5", "--hours", "0.01", "--faults", "none", "--pace", "wide"]
    found = CliRunner().invoke(
        simulate, [*ask, "--jobs", "2", "--json", "--results", str(results)], standalone_mode=False
    )
    logging.disable(logging.NOTSET)
    assert found.return_value == 0, found.output
    outcome, *others = json.loads(found.output)
    assert outcome["seed"] == 5
    assert [o["seed"] for o in others] == [6, 7]
    assert outcome["deeds"] == 0
    assert outcome["events"] > 200
    assert outcome["broken"] == []
    again = CliRunner().invoke(simulate, [*ask, "--results", str(results)], standalone_mode=False)
    logging.disable(logging.NOTSET)
    assert again.return_value == 0
    assert "seed 5:" not in again.output, "what is in the file is not run again"
    assert "simulated hours" in again.output


def test_an_unknown_fault_is_refused_with_what_is_allowed() -> None:
    found = CliRunner().invoke(simulate, ["--faults", "link,nonsense"])
    assert found.exit_code == 2
    assert "'nonsense' is not known; allowed are link, orders, market" in found.output
