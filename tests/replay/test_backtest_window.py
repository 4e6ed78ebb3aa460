"""Which part trains and which part tests."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.replay.window import NS, WindowError, choose, clock, time_of_day

OPEN, CLOSE = time_of_day("09:30"), time_of_day("16:00") - 1
times = st.integers(OPEN // NS - 600, CLOSE // NS + 600).map(lambda s: clock(s * NS)) | st.just("")


def test_by_default_the_first_half_trains_and_the_second_half_tests() -> None:
    w = choose(OPEN, CLOSE)
    assert [clock(t) for t in (w.train_from_ns, w.train_until_ns, w.test_from_ns, w.test_until_ns)] == [
        "09:30:00",
        "12:45:00",
        "12:45:00",
        "16:00:00",
    ]
    assert not w.in_sample


@settings(max_examples=200)
@given(times, times, times)
def test_unless_it_is_marked_no_training_ever_reaches_into_the_test(start: str, end: str, until: str) -> None:
    try:
        w = choose(OPEN, CLOSE, start=start, end=end, train_until=until)
    except WindowError:
        return
    assert w.train_from_ns < w.train_until_ns <= w.test_from_ns < w.test_until_ns
    assert not w.in_sample


def test_training_after_the_tests_begin_is_refused_with_both_times_and_the_way_out() -> None:
    with pytest.raises(WindowError, match=r"12:00:00 .* 11:00:00.*--in-sample"):
        choose(OPEN, CLOSE, start="11:00", train_until="12:00")


def test_in_sample_trains_on_what_is_tested_and_says_so() -> None:
    w = choose(OPEN, CLOSE, in_sample=True)
    assert w.in_sample
    assert (w.train_until_ns, w.test_from_ns) == (w.test_until_ns, w.train_from_ns)


def test_a_time_that_is_none_is_named() -> None:
    with pytest.raises(WindowError, match="25:00"):
        choose(OPEN, CLOSE, start="25:00")
