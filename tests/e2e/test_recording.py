"""An order-book recording runs through the same chain: gateway, bridge, books, signals, strategy, journal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from system import System, wait_for

TINY = Path(__file__).parents[1] / "data" / "TINY_2024-01-02_34200000_34500000_message_5.csv"


@pytest.mark.system
@pytest.mark.timeout(200)
def test_the_shipped_recording_reaches_books_and_the_recorder(tmp_path: Path) -> None:
    with System(tmp_path, {"model": {"train_hours": 0.25}}) as system:
        # Too short to train on: the model comes from the generated market, as a person would bring one along.
        assert system.cli("retrain", "--synthetic", "--config", str(system.config)).returncode == 0
        system.start("--market", str(TINY))
        wait_for("a live book", lambda: system.get("/api/book/TINY")["bids"], 30)
        ticks = wait_for(
            "ticks", lambda: system.cli_json("status", "--latency")["counters"]["broker-bridge"]["ticks"], 30
        )
        assert ticks > 0
        state = system.state()
        assert state["mode"] == "SIM"
        assert {m["symbol"] for m in state["models"]} == {"TINY"}


@pytest.mark.system
@pytest.mark.stress
@pytest.mark.real_data
@pytest.mark.timeout(400)
@pytest.mark.skipif("L2DASH_REAL_DATA" not in os.environ, reason="L2DASH_REAL_DATA does not name a folder of real data")
def test_a_real_day_is_traded_through_the_whole_chain(tmp_path: Path) -> None:
    file = next(Path(os.environ["L2DASH_REAL_DATA"]).glob("*AMZN*.zip"))
    with System(tmp_path) as system:
        system.start("--market", str(file), "--start", "10:00")
        fills = wait_for("fills", lambda: system.cli_json("fills"), 300, 2.0)
        assert {f["symbol"] for f in fills} == {"AMZN"}
        account = system.state()["account"]
        assert account["day_pnl_usd"] != 0.0, account
        assert system.cli("flatten").returncode == 0
