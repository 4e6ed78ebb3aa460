"""Contract facts: kept on disk from one start to the next, increments by market rule, and nothing that has run out."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.broker.contracts import ContractBook
from engine.broker.news import ContractNews, MarketRuleNews
from engine.domain.instruments import Instrument
from engine.risk.pretrade import EDGES

INSTRUMENTS = (Instrument(0, "AAPL", 0), Instrument(1, "MSFT", 0, exchange="ISLAND"))
RULE, OTHER = 26, 110
STEPS = ((0.0, 0.0001), (1.0, 0.01))


def wall_ns(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000_000


NOON = wall_ns("2024-01-02T17:00:00")


def details(symbol: int = 0, rules: tuple[tuple[str, int], ...] = (("ISLAND", OTHER), ("SMART", RULE))) -> ContractNews:
    return ContractNews(
        symbol, 265598 + symbol, "SMART", "NASDAQ", 0.01, "US/Eastern",
        "20240102:0400-20240102:2000;20240103:CLOSED", "20240102:0930-20240102:1600;20240103:CLOSED", rules,
        "A COMPANY",
    )  # fmt: skip


def book(path: Path, key: str = "paper:DU1") -> ContractBook:
    return ContractBook(INSTRUMENTS, path, key)


def filled(path: Path) -> ContractBook:
    """Both symbols qualified, the rule of AAPL known, and written to disk."""
    made = book(path)
    assert made.learn(details(0), NOON) == RULE
    assert made.learn(details(1), NOON) == OTHER
    assert made.learn_rule(MarketRuleNews(RULE, STEPS)) == [0]
    assert made.qualified
    path.write_bytes(made.save())
    assert not made.dirty
    return made


def test_the_rule_is_the_one_of_the_exchange_that_orders_go_to(tmp_path: Path) -> None:
    made = filled(tmp_path / "contracts.json")
    edges, steps = made.increments(0)
    assert (edges[:2], steps[:2]) == ([0.0, 1.0], [0.0001, 0.01])
    assert edges[2:] == [math.inf] * (EDGES - 2)
    assert made.increments(1)[1][0] == 0.01, "its own rule has not come: the contract's least increment"


def test_a_rule_is_asked_for_once(tmp_path: Path) -> None:
    made = filled(tmp_path / "contracts.json")
    assert made.learn(details(0), NOON) == 0
    assert made.increments(0)[1][0] == 0.0001
    assert made.learn(details(1, rules=(("ISLAND", RULE),)), NOON) == 0
    assert made.increments(1)[1][0] == 0.0001, "known from another symbol"


def test_a_rule_with_more_bands_than_the_gate_has_keeps_the_highest(tmp_path: Path) -> None:
    made = filled(tmp_path / "contracts.json")
    bands = tuple((float(k), 0.01 * (k + 1)) for k in range(EDGES + 3))
    made.learn_rule(MarketRuleNews(RULE, bands))
    edges, steps = made.increments(0)
    assert len(edges) == len(steps) == EDGES
    assert (edges[0], edges[-1], steps[-1]) == (0.0, bands[-1][0], bands[-1][1])


def test_the_next_start_knows_what_the_last_one_learnt(tmp_path: Path) -> None:
    path = tmp_path / "contracts.json"
    before = filled(path)
    after = book(path)
    assert after.load(NOON) == 2
    assert after.facts == before.facts
    assert after.qualified
    assert after.session_open(0, NOON)
    assert not after.session_open(0, wall_ns("2024-01-02T13:00:00"))
    assert after.extended_open(0, wall_ns("2024-01-02T13:00:00"))
    assert after.increments(0) == before.increments(0)


@pytest.mark.parametrize("case", ["another account", "hours have run out", "damaged", "one entry damaged", "missing"])
def test_what_can_not_be_trusted_is_asked_for_anew(tmp_path: Path, case: str) -> None:
    path = tmp_path / "contracts.json"
    filled(path)
    key, now, taken = "paper:DU1", NOON, 0
    if case == "another account":
        key = "live:U1"
    elif case == "hours have run out":
        now = wall_ns("2024-01-05T17:00:00")
    elif case == "damaged":
        path.write_bytes(path.read_bytes()[:-40])
    elif case == "missing":
        path.unlink()
    else:
        data = json.loads(path.read_text())
        data["contracts"]["AAPL"]["steps"] = "none"
        path.write_text(json.dumps(data))
        taken = 1
    after = book(path, key)
    assert after.load(now) == taken
    assert not after.qualified
    assert after.increments(0)[1][0] == INSTRUMENTS[0].tick_size
    assert not after.session_open(0, NOON)
