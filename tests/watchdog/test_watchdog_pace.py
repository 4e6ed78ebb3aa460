from __future__ import annotations

import os
import select
import time

import pytest

from engine.procs.watchdog_parts.pace import Pace

MS = 1_000_000


def test_beats_lie_on_a_grid_that_does_not_drift_and_missed_ones_are_not_made_up_for() -> None:
    pace = Pace(MS)
    beats = [t for t in range(10 * MS, 20 * MS, 70_000) if pace.due(t)]
    assert len(beats) == 10
    assert all(0 <= t % MS < 70_000 for t in beats[1:]), "each within a look of the grid, however long the work takes"
    assert pace.due(30 * MS + 5)
    assert not pace.due(30 * MS + 6)
    assert pace.due(31 * MS)


def test_the_timer_wakes_a_sleeper_and_lets_it_sleep_again() -> None:
    pace = Pace(20 * MS)
    pace.arm(time.monotonic_ns())
    if pace.fileno() < 0:
        pytest.fail("no timer descriptor on this system")
    poller = select.epoll()
    poller.register(pace.fileno(), select.EPOLLIN)
    try:
        assert not pace.due(time.monotonic_ns())
        beats = 0
        while beats < 5:
            assert poller.poll(5.0), "woken by the timer, not by the time-out"
            beats += pace.due(time.monotonic_ns())
        assert not poller.poll(0.0), "what was read wakes nobody again"
    finally:
        poller.close()
        pace.close()


def test_a_beat_taken_before_its_timer_fired_does_not_keep_the_loop_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace(20 * MS)
    begun = time.monotonic_ns()
    pace.arm(begun)
    real, calls = os.read, []

    def early(descriptor: int, count: int) -> bytes:
        calls.append(descriptor)
        if len(calls) == 1:
            raise BlockingIOError
        return real(descriptor, count)

    monkeypatch.setattr(os, "read", early)
    poller = select.epoll()
    poller.register(pace.fileno(), select.EPOLLIN)
    try:
        assert pace.due(begun + 20 * MS)
        assert poller.poll(5.0)
        assert not pace.due(begun + 20 * MS + 1)
        assert not poller.poll(0.0)
    finally:
        poller.close()
        pace.close()
