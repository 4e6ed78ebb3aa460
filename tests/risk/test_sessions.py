from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from engine.domain import sessions


def at(text: str, zone: str = "America/New_York") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 10**9


@pytest.mark.parametrize(
    ("moment", "date"),
    [
        ("2024-03-07 03:59:59", 20240306), ("2024-03-07 04:00:00", 20240307), ("2024-03-08 23:00", 20240308),
        ("2024-03-09 12:00", 20240311), ("2024-03-11 03:00", 20240311), ("2024-07-04 10:00", 20240705),
        ("2024-03-29 10:00", 20240401), ("2021-12-31 10:00", 20211231), ("2025-01-09 10:00", 20250110),
        ("2051-07-04 10:00", 20510704),
    ],
)  # fmt: skip
def test_session_date_rolls_at_four_in_new_york_over_weekends_and_holidays(moment: str, date: int) -> None:
    assert sessions.session_date(at(moment)) == date


@pytest.mark.parametrize(
    ("moment", "regular"),
    [
        ("2024-03-07 09:29:59", False), ("2024-03-07 09:30", True), ("2024-03-07 15:59:59", True),
        ("2024-03-07 16:00", False), ("2024-11-29 13:00", False), ("2024-11-29 12:59", True),
        ("2024-12-25 11:00", False), ("2024-03-09 11:00", False),
    ],
)  # fmt: skip
def test_regular_hours_know_weekends_holidays_and_early_closes(moment: str, regular: bool) -> None:
    assert sessions.is_regular_hours(at(moment)) == regular
    assert sessions.is_regular_hours(at(moment), always_open=True)


def test_the_roll_follows_daylight_saving() -> None:
    before = at("2024-03-09 12:00")
    assert sessions.next_roll_ns(before) == at("2024-03-10 04:00")
    assert sessions.next_roll_ns(at("2024-03-10 04:00")) == at("2024-03-11 04:00")


def test_windows_may_cross_midnight_and_bad_ones_are_named() -> None:
    assert sessions.in_window(at("2024-03-07 00:30"), "00:15-01:45 America/New_York")
    assert not sessions.in_window(at("2024-03-07 01:45"), "00:15-01:45 America/New_York")
    assert sessions.in_window(at("2024-03-08 23:30"), "23:00-03:00 America/New_York")
    with pytest.raises(ValueError, match="noon to one"):
        sessions.in_window(0, "noon to one")
