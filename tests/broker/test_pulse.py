"""Silence of a feed held against what is usual for the symbol."""

from __future__ import annotations

import random
from itertools import pairwise

from engine.broker.pulse import LONGEST_NS, RENEW_MAX_NS, RENEW_NS, SETTLE_NS, SHORTEST_NS, Pulse

SECOND = 1_000_000_000


def used_to(share: float, seconds: int = 600, seed: int = 1) -> Pulse:
    chance, pulse = random.Random(seed), Pulse()
    for _ in range(seconds):
        pulse.looked(chance.random() < share)
    return pulse


def test_busy_symbol_is_missed_soon_and_a_quiet_one_late() -> None:
    limits = [used_to(share).limit_ns for share in (1.0, 0.9, 0.5, 0.2, 0.0)]
    assert limits[0] == SHORTEST_NS
    assert limits == sorted(limits)
    assert limits[-1] == LONGEST_NS
    assert Pulse().limit_ns == LONGEST_NS, "nothing is known of it yet"


def test_usual_silence_of_a_symbol_hardly_ever_passes_for_death() -> None:
    chance, pulse, silent, alarms = random.Random(3), used_to(0.6), 0, 0
    for _ in range(200_000):
        ticked = chance.random() < 0.6
        silent = 0 if ticked else silent + 1
        alarms += silent * SECOND > pulse.limit_ns
        pulse.looked(ticked)
    assert alarms <= 5


def test_answer_to_a_request_is_no_proof_of_life_but_a_later_tick_is() -> None:
    pulse = Pulse()
    pulse.renew(100 * SECOND)
    pulse.heard(100 * SECOND + SETTLE_NS)
    assert pulse.doubt_ns
    pulse.heard(101 * SECOND)
    assert not pulse.doubt_ns
    assert pulse.renewals == 0


def test_request_without_effect_is_repeated_ever_more_rarely() -> None:
    pulse, now, times = Pulse(), SECOND, []
    while now < 1_000 * SECOND:
        if pulse.may_renew(now):
            pulse.renew(now)
            times.append(now)
        now += SECOND
    gaps = [b - a for a, b in pairwise(times)]
    assert gaps[0] == RENEW_NS
    assert gaps == sorted(gaps)
    assert gaps[-1] == RENEW_MAX_NS
