"""From fills to figures."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.replay.tally import Tally

fills = st.lists(
    st.tuples(st.integers(0, 2), st.integers(-300, 300).filter(bool), st.integers(9_000, 11_000)),
    min_size=1,
    max_size=40,
)


def tallied(found: list[tuple[int, int, int]], fee: float = 1.0) -> Tally:
    tally = Tally()
    for n, (symbol, signed, cents) in enumerate(found):
        tally.fill(b"%d" % n, symbol, float(signed), cents / 100, n)
        tally.commission(b"%d" % n, fee)
    return tally


def test_a_round_trip_counts_its_own_commissions() -> None:
    tally = tallied([(0, 100, 10_000), (0, -60, 10_010), (0, -40, 10_020)])
    (trip,) = tally.trips()
    assert trip.gross_usd == pytest.approx(60 * 0.1 + 40 * 0.2)
    assert trip.net_usd == pytest.approx(trip.gross_usd - 3.0)
    assert (tally.position(0), tally.net_usd) == (0.0, pytest.approx(trip.net_usd))


def test_a_fill_that_turns_the_position_round_closes_one_trip_and_opens_the_next() -> None:
    tally = tallied([(0, 100, 10_000), (0, -150, 10_100), (0, 50, 10_000)])
    assert [t.gross_usd for t in tally.trips()] == [pytest.approx(100.0), pytest.approx(50.0)]
    assert sum(t.net_usd for t in tally.trips()) == pytest.approx(tally.net_usd)


@settings(max_examples=100)
@given(fills)
def test_trips_and_what_is_open_add_up_to_the_whole(found: list[tuple[int, int, int]]) -> None:
    tally = tallied(found)
    assert tally.check() == []
    held = {s: tally.position(s) for s in range(3)}
    last = len(found)
    for s, qty in held.items():  # close everything at the mark
        if qty:
            tally.mark({s: 100.0}, last)
    before = tally.net_usd
    for s, qty in held.items():
        if qty:
            tally.fill(b"close%d" % s, s, -qty, 100.0, last)
    assert tally.net_usd == pytest.approx(before)
    assert sum(t.net_usd for t in tally.trips()) == pytest.approx(before)


def test_drawdown_is_that_of_the_net_equity_from_its_peak() -> None:
    tally = tallied([(0, 100, 10_000)], fee=2.0)
    for mid in (101.0, 99.5, 100.5):
        tally.mark({0: mid}, 1)
    assert tally.max_drawdown_usd == pytest.approx(150.0)


def test_a_commission_told_twice_counts_once() -> None:
    tally = tallied([(0, 100, 10_000)])
    tally.commission(b"0", 1.0)
    assert tally.commissions_usd == 1.0
