"""Our position against the broker's pushed one: what is a delay, and what somebody else has traded."""

from __future__ import annotations

from engine.risk.reconcile import DRIFT_NS, STEADY_NS, Differences

MS = 1_000_000
S = 1_000 * MS


def test_what_agrees_is_never_worth_a_reading() -> None:
    found = Differences(2)
    assert found.note(0, 100.0, 100.0, S) == 0
    assert not found.due(100 * S)


def test_a_difference_that_stays_the_same_is_read_after_a_second() -> None:
    found = Differences(2)
    assert found.note(1, 0.0, 100.0, 10 * S) == 10 * S
    assert found.note(1, 0.0, 100.0, 10 * S + 500 * MS) == 10 * S, "told again, it is no other"
    assert not found.due(10 * S + STEADY_NS - 1)
    assert found.due(10 * S + STEADY_NS)
    assert found.note(1, 50.0, 150.0, 11 * S) == 10 * S, "a fill that both see changes nothing of it"
    assert found.due(11 * S)
    assert found.note(1, 100.0, 100.0, 12 * S) == 0
    assert not found.due(60 * S)


def test_pushes_that_come_late_behind_their_fills_are_no_reason_for_a_reading() -> None:
    """A fill of ten shares every 300 ms, its push 900 ms later, for four seconds without ever agreeing."""
    found = Differences(1)
    ours = theirs = 0.0
    for step in range(14):
        now = 10 * S + step * 300 * MS
        ours += 10.0
        found.note(0, ours, theirs, now)
        assert not found.due(now)
        if step >= 3:
            theirs += 10.0 + step % 2  # a push now and then tells of two fills
            found.note(0, ours, theirs, now + 10 * MS)
        assert not found.due(now + 290 * MS)


def test_a_difference_that_never_ends_is_read_however_much_it_moves() -> None:
    found = Differences(1)
    for step in range(60):
        now = 10 * S + step * 100 * MS
        found.note(0, 0.0, 100.0 + step, now)
        assert found.due(now) == (now - 10 * S >= DRIFT_NS)
