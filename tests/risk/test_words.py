"""Lengths of time as people say them."""

from __future__ import annotations

import pytest

from engine.domain.words import duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"), (0.25, "0.25 s"), (1.5, "1.5 s"), (20.0, "20 s"), (59.96, "1 min"), (60.0, "1 min"),
        (90.0, "1 min 30 s"),        (300.0, "5 min"), (3_600.0, "1 h"), (5_400.4, "1 h 30 min"),
        (90_061.0, "1 d 1 h 1 min 1 s"), (-20.0, "-20 s"),
    ],
)  # fmt: skip
def test_a_duration_has_whole_units_and_no_fraction_of_a_minute(seconds: float, words: str) -> None:
    assert duration(seconds) == words
