"""Each refusal of the gate has words with numbers, a counter, and a metric under its own name."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import topology
from engine.cockpit.metrics import exposition
from engine.cockpit.services import Services
from engine.cockpit.view import View
from engine.domain.codes import Refusal
from engine.risk.refusal_text import refusal_text
from engine.runtime.testing import instance

EVERY = [r for r in Refusal if r != Refusal.NONE]


@pytest.mark.parametrize("refusal", EVERY)
def test_every_refusal_is_said_in_words(refusal: Refusal) -> None:
    for value, limit in ((101.0, 100.0), (float("nan"), float("nan")), (float("inf"), 0.0)):
        text = refusal_text(refusal, "AAPL", value, limit)
        assert len(text) > 15
        assert text != refusal.name


def test_every_refusal_has_a_counter_and_shows_as_a_metric_by_reason(tmp_path: Path) -> None:
    inst = instance(tmp_path)
    try:
        bridge = inst.context(topology.BRIDGE)
        for n, refusal in enumerate(EVERY, 1):
            bridge.counters.add(f"refused:{refusal.name.lower()}", n)
        cockpit = inst.context(topology.COCKPIT)
        view = View(cockpit)
        view.refresh(cockpit.clock.now_ns())
        text = exposition(view, Services(cockpit)).decode()
        for n, refusal in enumerate(EVERY, 1):
            assert f'l2dash_gate_refusals_total{{reason="{refusal.name.lower()}"}} {float(n)}' in text
    finally:
        inst.close()
