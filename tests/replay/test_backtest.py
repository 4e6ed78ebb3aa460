"""A whole backtest on the tiny file: bridge, gate, ml-service, algo and watchdog in one thread."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from replay_world import TINY, InAndOut, replay_model

from engine.cli.app import app
from engine.cli.backtest import sources, statements
from engine.cli.errors import run
from engine.config import Config, from_mapping
from engine.paper.account import commission_total
from engine.replay.backtest import Ask, Result, backtest, settings

ASK = Ask(TINY, in_sample=True)


@pytest.fixture(scope="module")
def result() -> Result:
    return backtest(ASK, Config(), model=replay_model(), strategy=InAndOut())


def test_orders_pass_the_gate_and_fills_reach_the_position(result: Result) -> None:
    assert result.fills >= 4
    assert result.faults == ()
    assert result.open_qty == sum(f.signed for f in result.executions)
    assert result.shares == sum(abs(f.signed) for f in result.executions)


def test_every_order_pays_the_brokers_commission_and_net_is_gross_less_that(result: Result) -> None:
    fees = sum(commission_total(abs(f.signed), abs(f.signed) * f.price) for f in result.executions)
    assert result.commissions_usd == pytest.approx(fees)
    assert result.net_usd == pytest.approx(result.gross_usd - fees)
    assert result.net_usd < 0  # who only takes pays the spread and the commission, whatever happens


def test_the_same_file_gives_the_same_fills(result: Result) -> None:
    again = backtest(ASK, Config(), model=replay_model(), strategy=InAndOut())
    same = {"seconds": 0.0}
    assert replace(again, **same) == replace(result, **same)


def test_a_guardrail_that_blocks_live_blocks_here(result: Result) -> None:
    (invalid,) = [
        n.t_ns for n in result.notes if n.service == "watchdog" and n.text == "entries blocked: model invalid"
    ][:1]
    buys = [f.t_ns for f in result.executions if f.signed > 0]
    assert max(buys) < invalid
    assert result.intents < 30  # the strategy asks for nothing while a stop holds


def test_a_loss_beyond_the_limit_kills_and_the_watchdog_gets_flat() -> None:
    config = from_mapping({"guardrails": {"drawdown_usd": 1.0}, "strategy": {"daily_stop_usd": 0.5}})
    found = backtest(ASK, config, model=replay_model(), strategy=InAndOut())
    assert len(found.kills) == 1
    assert found.kills[0].startswith("DD")
    assert found.open_qty == 0.0
    assert any("KILL" in line for line in statements(found))


def test_latency_delays_what_is_seen_and_done() -> None:
    slow = backtest(replace(ASK, latency_ms=200.0), Config(), model=replay_model(), strategy=InAndOut())
    assert slow.faults == ()
    assert slow.executions[0].t_ns % 1_000_000_000 != 0
    first = backtest(replace(ASK, latency_ms=0.0), Config(), model=replay_model(), strategy=InAndOut()).executions[0]
    assert slow.executions[0].t_ns > first.t_ns


def test_the_users_limits_are_kept_and_the_account_is_the_simulated_one() -> None:
    theirs = from_mapping(
        {"instance": {"mode": "paper"}, "gateway": {"account": "DU123"}, "limits": {"order_qty": 7.0}}
    )
    mine = settings(theirs, "AMZN", 5)
    assert (mine.instance.mode, mine.gateway.account, mine.limits.order_qty) == ("sim", "DUSIM001", 7.0)
    assert [s.symbol for s in mine.universe.stocks] == ["AMZN"]


def test_message_and_book_file_make_one_source_others_stand_alone() -> None:
    twin = TINY.with_name(TINY.name.replace("_message_", "_orderbook_"))
    other = Path("X_2024-01-02_1_2_message_5.csv")
    assert sources((twin, TINY, other)) == [(TINY, twin), other]


def test_statements_name_costs_queue_model_and_in_sample(result: Result) -> None:
    said = "\n".join(statements(result))
    for words in ("IN-SAMPLE", "commissions", "cautious assumption", "guardrails were running"):
        assert words in said


def test_the_command_refuses_training_after_the_test_begins(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["backtest", str(TINY), "--start", "09:31", "--train-until", "09:33"]) == 2
    assert "--in-sample" in capsys.readouterr().err


def test_the_command_says_in_one_line_that_a_file_is_too_short_to_train_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["backtest", str(TINY)]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "training on 09:30:00 to 09:32:29 failed" in last


def test_a_missing_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["backtest", "nowhere.zip"]) == 1
    assert "nowhere.zip" in capsys.readouterr().err


def test_json_has_every_figure_and_every_fill(result: Result) -> None:
    from engine.cli.backtest import as_document

    document = json.loads(json.dumps(as_document(result)))
    assert len(document["executions"]) == document["fills"] == result.fills
    assert document["in_sample"] is True
