"""``l2dash simulate`` as a person uses it."""

from __future__ import annotations

import json
import logging

import pytest
from click.testing import CliRunner

from engine.cli.simulate import simulate

pytestmark = pytest.mark.timeout(900)


def test_it_prints_what_was_simulated_and_ends_with_0() -> None:
    found = CliRunner().invoke(
        simulate,
        ["--seeds", "1", "--seed", "5", "--hours", "0.01", "--faults", "none", "--json"],
        standalone_mode=False,
    )
    logging.disable(logging.NOTSET)
    assert found.return_value == 0, found.output
    (outcome,) = json.loads(found.output)
    assert outcome["seed"] == 5
    assert outcome["deeds"] == 0
    assert outcome["events"] > 1_000
    assert outcome["broken"] == []


def test_an_unknown_fault_is_refused_with_what_is_allowed() -> None:
    found = CliRunner().invoke(simulate, ["--faults", "link,nonsense"])
    assert found.exit_code == 2
    assert "'nonsense' is not known; allowed are link, orders, market" in found.output
