"""Campaigns: many seeds that are run once, whatever cuts the run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine.sim import campaign as campaigns
from engine.sim.campaign import BadResults, campaign, known, outcomes, row_of, summary
from engine.sim.invariants import Broken
from engine.sim.judge import Counts
from engine.sim.run import Ask, Outcome

ASK = Ask(seed=1, hours=2.0)


def outcome(ask: Ask, broken: tuple[Broken, ...] = ()) -> Outcome:
    counts = Counts(deeds=3, crashes=1, orders=4, fills=5, kills=1, market=10)
    return Outcome(ask.seed, broken, f"digest{ask.seed}", counts, (), 3600.0, 2.0, 4.0, ("1.0 s: DD",))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Seeds that have been run; nothing is simulated."""
    found: list[int] = []

    def run(ask: Ask) -> Outcome:
        found.append(ask.seed)
        return outcome(ask)

    monkeypatch.setattr(campaigns, "simulate", run)
    return found


def asks(count: int) -> list[Ask]:
    return [replace(ASK, seed=seed) for seed in range(1, count + 1)]


def test_seeds_that_are_in_the_file_are_not_run_again(tmp_path: Path, ran: list[int]) -> None:
    path = tmp_path / "results.jsonl"
    first = campaign(asks(2), results=path)
    both = campaign(asks(4), results=path)
    assert ran == [1, 2, 3, 4]
    assert [row["seed"] for row in both] == [1, 2, 3, 4]
    assert both[:2] == first


def test_results_of_other_code_or_of_another_question_do_not_count(
    tmp_path: Path, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.jsonl"
    campaign(asks(1), results=path)
    campaign([replace(ASK, hours=3.0)], results=path)
    monkeypatch.setattr(campaigns, "code_key", lambda: "other")
    campaign(asks(1), results=path)
    assert ran == [1, 1, 1]


def test_the_key_of_the_code_changes_with_any_source(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "a.py").write_text("x = 1\n")
    before = campaigns.code_key(tmp_path)
    (tmp_path / "engine" / "a.py").write_text("x = 2\n")
    assert campaigns.code_key(tmp_path) != before
    assert len(before) == 16


def test_a_last_line_that_was_cut_is_run_again_and_does_not_spoil_the_next(tmp_path: Path, ran: list[int]) -> None:
    path = tmp_path / "results.jsonl"
    campaign(asks(2), results=path)
    text = path.read_text()
    path.write_text(text[: len(text) - 20])
    campaign(asks(2), results=path)
    assert ran == [1, 2, 2]
    assert [json.loads(line)["seed"] for line in path.read_text().splitlines()] == [1, 2]


def test_a_file_that_holds_something_else_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text("hello\n")
    with pytest.raises(BadResults, match=r"results\.jsonl, line 1: .*; move the file away"):
        known(path, "code", ASK)


def test_no_seed_is_begun_when_the_budget_is_used_up(ran: list[int]) -> None:
    times = iter((0.0, 4.0, 9.0, 11.0))
    assert [o.seed for o in outcomes(asks(5), 1, 10.0, lambda: next(times))] == [1, 2, 3]


def test_the_summary_adds_up_and_counts_what_is_broken() -> None:
    rows = [row_of(ask, outcome(ask), "code") for ask in asks(2)]
    rows.append(row_of(ASK, outcome(ASK, (Broken(9, 5, "51 messages"),)), "code"))
    found = summary(rows)
    assert found["seeds"] == "3"
    assert found["simulated hours"] == "3.0"
    assert found["faults and actions"] == "9"
    assert found["kills -9"] == "3"
    assert found["faster than real time"] == "900 x (by CPU), 12 s of CPU"
    assert found["seeds with a broken invariant"] == "1"
    assert "51 messages" in rows[2]["broken"][0]["text"]
