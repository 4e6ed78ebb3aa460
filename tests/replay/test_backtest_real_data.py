"""The AMZN afternoon, trained on its morning; run where L2DASH_REAL_DATA names the folder of the file."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from engine.config import Config
from engine.replay.backtest import Ask, backtest

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not os.environ.get("L2DASH_REAL_DATA"), reason="L2DASH_REAL_DATA names no folder"),
]


@pytest.mark.timeout(400)
def test_the_amzn_afternoon_trades_within_a_minute_without_a_false_kill() -> None:
    (path,) = Path(os.environ["L2DASH_REAL_DATA"]).glob("*AMZN*.zip")
    began = time.process_time()
    found = backtest(Ask(path), Config())
    cpu_s = time.process_time() - began
    assert (found.train_until, found.test_from, found.in_sample) == ("12:45:00", "12:45:00", False)
    assert found.fills > 0
    assert found.faults == ()
    assert found.open_qty == sum(f.signed for f in found.executions)
    assert found.kills == ()
    assert cpu_s < 60.0, "CPU time: this host may be busy with other things"
