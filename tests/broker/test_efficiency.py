"""Order efficiency: counted as the broker counts it, shown, and in the way of entries alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bridge_paper import PaperThread
from bridge_rig import Rig
from hypothesis import given
from hypothesis import strategies as st

from engine.broker.efficiency import Efficiency
from engine.domain.codes import OrderState, Refusal

CHANGE = 3


@given(
    limit=st.floats(0.5, 50), begins_at=st.integers(0, 300), requests=st.integers(0, 5000), executed=st.integers(0, 500)
)
def test_what_is_left_keeps_the_ratio_at_or_below_its_limit(
    limit: float, begins_at: int, requests: int, executed: int
) -> None:
    e = Efficiency(limit, begins_at, requests, executed)
    e.requests += e.left
    if e.requests > max(requests, begins_at):
        assert e.ratio <= limit
    assert e.left == 0
    before = e.ratio
    e.executed += 1
    assert e.ratio < before or before == 0


@pytest.fixture
def rig(paper: PaperThread, tmp_path: Path) -> Iterator[Rig]:
    """A bridge whose third message without an execution is its last."""
    bridge = Rig(tmp_path / "state", paper.port, {"limits": {"order_efficiency": 3.0, "order_efficiency_from": 1}})
    bridge.ready()
    yield bridge
    bridge.close()


def test_entries_wait_for_executions_but_cancels_and_closes_pass(rig: Rig) -> None:
    resting = rig.order(1, 10, limit=rig.near(1, -0.03))
    rig.until(lambda: OrderState.WORKING in rig.states(resting))
    changed = rig.order(1, 12, limit=rig.near(1, -0.025), kind=CHANGE, target_id=resting)
    rig.until(lambda: rig.bridge.register.by_intent[resting].qty == 12.0)
    assert rig.states(changed) == [OrderState.SENT]
    rig.filled(0, 20)  # the third message; its execution makes room for three more
    assert rig.bridge.books.efficiency.executed == 1
    cancel = rig.cancel(resting)
    rig.until(lambda: OrderState.CANCELLED in rig.states(resting))
    assert rig.states(cancel) == [OrderState.SENT]
    others = [rig.order(2, 1, limit=rig.near(2, -0.03 - 0.001 * k)) for k in range(2)]
    rig.until(lambda: all(OrderState.WORKING in rig.states(o) for o in others))
    late = rig.order(3, 1, limit=rig.near(3, -0.03))
    refusal = rig.until(lambda: rig.refusal(late))
    assert refusal["code"] == Refusal.ORDER_EFFICIENCY
    assert (refusal["value"], refusal["limit"]) == (3.0, 3.0)
    bigger = rig.order(2, 5, limit=rig.near(2, -0.03), kind=CHANGE, target_id=others[0])
    assert rig.until(lambda: rig.refusal(bigger))["code"] == Refusal.ORDER_EFFICIENCY
    assert rig.bridge.desk.room(rig.now()) == 0
    close = rig.order(0, -20)
    rig.until(lambda: rig.qty(0) == 0.0)
    assert rig.refusal(close) is None
    assert rig.bridge.desk.room(rig.now()) > 0
    told = rig.broker.read()
    assert (told["order_requests"], told["orders_executed"]) == (7, 2)


def test_the_day_counts_on_over_a_restart_and_a_new_day_from_zero(rig: Rig) -> None:
    rig.filled(0, 20)
    rig.bridge.books.publish(rig.now())
    rig.bridge.cells.publish_broker(rig.now())
    rig.bridge.link.disconnect("the process ends")
    rig.start()
    assert (rig.bridge.books.efficiency.requests, rig.bridge.books.efficiency.executed) == (1, 1)
    rig.bridge.books.date -= 1
    assert rig.bridge.books.roll_day(rig.now())
    assert (rig.bridge.books.efficiency.requests, rig.bridge.books.efficiency.executed) == (0, 0)
