"""The AMZN day through all agents, with link flaps and planned restarts: no KILL. Where L2DASH_REAL_DATA names it."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.config import Config, from_mapping
from engine.paper.market.lobster import LobsterMarket
from engine.sim.deeds import Deeds
from engine.sim.plan import HOUR_NS, harmless
from engine.sim.stage import T0_NS, Stage
from engine.sim.strategy import Churn

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not os.environ.get("L2DASH_REAL_DATA"), reason="L2DASH_REAL_DATA names no folder"),
]
OPEN = datetime(2012, 6, 21, 13, 30, tzinfo=UTC)
HOURS = float(os.environ.get("L2DASH_REAL_HOURS", "0.5"))
"""6.45 is the whole day, which takes some minutes."""


@pytest.mark.timeout(1800)
def test_the_amzn_day_kills_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = Path(os.environ["L2DASH_REAL_DATA"]).glob("*AMZN*.zip")
    monkeypatch.setattr(logging.root.manager, "disable", logging.WARNING)
    config = from_mapping(
        {
            "instance": {"name": "simulate"}, "gateway": {"account_scope": "dedicated"},
            "universe": {"stocks": [{"symbol": "AMZN"}], "depth_rows": 5, "index": "none"},
        },
        "the AMZN day",
    )  # fmt: skip

    def market(_: Config) -> LobsterMarket:
        return LobsterMarket(path, "AMZN", start_ns=T0_NS, levels=5, in_process=True)

    stage = Stage(config, 1, int(OPEN.timestamp() * 1e9), market, lambda: Churn(1, 30.0), habits=False)
    try:
        begin_ns = stage.begin()
        stage.judge.begin(begin_ns)
        Deeds(stage, begin_ns).schedule(harmless(1, HOURS, 8.0))
        stage.run(begin_ns + int(HOURS * HOUR_NS))
    finally:
        stage.close()
    assert not stage.judge.broken, [str(b) for b in stage.judge.broken]
    assert stage.judge.kills == []
    assert stage.judge.counts.fills > 20 * HOURS
    assert stage.gateway.market_events > 20_000 * HOURS
