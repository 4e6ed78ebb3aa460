"""Every client library passes the same session, unmodified. See ``conformance/table.py``, which prints the table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "conformance"))

import table
from clients import CLIENTS, ClientLibrary
from session import FEATURES


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("client", CLIENTS, ids=lambda c: c.name)
def test_a_client_library_passes_the_scripted_session_unmodified(client: ClientLibrary) -> None:
    outcome = table.run(client)
    if outcome.not_run:
        pytest.skip(f"{client.name} can't be installed here: {outcome.not_run}")
    assert outcome.passed, table.render([outcome]) + outcome.log
    column = [cell.strip("| ") for cell in table.published().splitlines()[0].split(" | ")].index(client.name)
    shown = {row.split(" | ")[0].strip("| "): row.rstrip(" |").split(" | ")[column] for row in _rows()}
    assert shown == outcome.results, "run: l2dash bench conformance --write"


def _rows() -> list[str]:
    return table.published().splitlines()[2:]


def test_the_published_table_has_every_client_and_feature_and_is_all_green() -> None:
    all_pass = [table.Outcome(client, dict.fromkeys(FEATURES, "ok")) for client in CLIENTS]
    assert table.published() == table.markdown(all_pass), "run: l2dash bench conformance --write"


@pytest.mark.timeout(120)
def test_plain_python_passes_the_scripted_session() -> None:
    outcome = table.run(next(c for c in CLIENTS if c.family == "raw"))
    assert outcome.passed, table.render([outcome]) + outcome.log


def test_the_table_shows_failures_and_what_was_not_run() -> None:
    good = table.Outcome(CLIENTS[0], dict.fromkeys(FEATURES, "ok"))
    bad = table.Outcome(CLIENTS[1], dict.fromkeys(FEATURES, "ok") | {"depth": "TimeoutError: never happened"})
    absent = table.Outcome(CLIENTS[2], not_run="no network")
    text = table.render([good, bad, absent])
    assert "depth" in text
    assert "FAILED" in text
    assert "ib_async 2.1.0, depth: TimeoutError" in text
    assert "not run: ibapi 9.81.1: no network" in text
    assert text.endswith(f"1 of 2 clients pass all {len(FEATURES)} features")
    assert not table.Outcome(CLIENTS[0]).passed


def test_every_lock_pins_one_version_by_its_hashes() -> None:
    for client in CLIENTS:
        if client.lock:
            lines = (table.HERE / "locks" / client.lock).read_text().splitlines()
            for line in lines:
                assert "==" in line or "--hash=sha256:" in line
            assert sum("==" in line for line in lines) >= 1
