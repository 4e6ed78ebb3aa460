"""The message governor: never over the limit in any second, and the reserve is there when it is needed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.broker.governor import WINDOW_NS, Governor, Priority

SECOND = 1_000_000_000
STEPS = st.lists(st.tuples(st.integers(0, 300_000_000), st.sampled_from(list(Priority))), max_size=250)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(5, 45), st.data())
def test_never_more_than_the_limit_in_any_closed_second(
    steps: list[tuple[int, Priority]], per_s: int, data: st.DataObject
) -> None:
    reserved = data.draw(st.integers(1, per_s - 1))
    governor: Governor[int] = Governor(per_s, reserved)
    now, sent = 0, []
    for gap, priority in steps:
        now += gap // 10
        governor.submit(priority, int(priority))
        sent += [(now, p) for p in governor.release(now)]
    for begin, _ in sent:
        window = [p for t, p in sent if begin <= t <= begin + SECOND]
        assert len(window) <= per_s
        assert sum(p != Priority.URGENT for p in window) <= per_s - reserved


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(5, 45), st.data())
def test_reserve_holds_whatever_the_others_did(
    steps: list[tuple[int, Priority]], per_s: int, data: st.DataObject
) -> None:
    reserved = data.draw(st.integers(1, per_s - 1))
    governor: Governor[int] = Governor(per_s, reserved)
    now = 0
    for gap, priority in steps:
        now += gap // 10
        if priority != Priority.URGENT:
            governor.spend(priority, now)
    assert governor.room(Priority.URGENT, now) >= reserved


def test_cancels_leave_before_subscriptions_that_waited_longer() -> None:
    governor: Governor[str] = Governor(45, 20)
    for k in range(60):
        governor.submit(Priority.SUBSCRIPTION, f"subscription {k}")
    first = governor.release(0)
    assert first == [f"subscription {k}" for k in range(20)]
    governor.submit(Priority.URGENT, "small close", rank=-1_000.0)
    governor.submit(Priority.URGENT, "large close", rank=-9_000.0)
    governor.submit(Priority.URGENT, "cancel", rank=float("-inf"))
    assert governor.release(1) == ["cancel", "large close", "small close"]
    later = governor.release(WINDOW_NS + 1)
    assert later[0] == "subscription 20"


def test_urgent_messages_beyond_the_limit_wait_and_then_leave() -> None:
    governor: Governor[int] = Governor(10, 4)
    for k in range(25):
        governor.submit(Priority.URGENT, k)
    assert governor.release(0) == list(range(10))
    assert governor.release(SECOND // 2) == []
    assert governor.release(WINDOW_NS + 1) == list(range(10, 20))
    assert governor.waiting_urgent == 5
    assert governor.drop(Priority.URGENT) == 5


def test_what_has_left_by_itself_counts_even_where_there_was_no_room() -> None:
    governor: Governor[int] = Governor(10, 4)
    for _ in range(7):
        governor.charge(Priority.PROBE, 0)
    assert (governor.room(Priority.PROBE, 1), governor.room(Priority.URGENT, 1)) == (0, 3)
    assert governor.room(Priority.PROBE, WINDOW_NS + 1) == 6


def test_impossible_reserve_is_refused() -> None:
    with pytest.raises(ValueError, match="reserved = 10"):
        Governor(10, 10)
