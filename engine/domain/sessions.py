"""Trading days and regular hours of the New York stock exchanges, pure over wall-clock nanoseconds.

A session date rolls at 04:00 New York, when the pre-market opens: what happens at 01:00 belongs to the day before.
Saturdays, Sundays and exchange holidays belong to the next trading day's date. Holidays follow the exchange's rules
(NYSE Rule 7.2): computed, not listed, so that nothing runs out. An unscheduled closing is not known here; then no
quotes arrive, and the stale rule holds entries back.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")
ROLL_HOUR = 4
OPEN_MINUTE = 9 * 60 + 30
CLOSE_MINUTE = 16 * 60
EARLY_CLOSE_MINUTE = 13 * 60
NS_PER_S = 1_000_000_000


def _nth_weekday(year: int, month: int, weekday: int, nth: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (nth - 1))


def _last_weekday(year: int, month: int, weekday: int) -> date:
    last = date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)
    return last - timedelta(days=(last.weekday() - weekday) % 7)


def _observed(day: date) -> date:
    """Saturday holidays are kept on Friday, Sunday ones on Monday."""
    return day + timedelta(days={5: -1, 6: 1}.get(day.weekday(), 0))


def _easter(year: int) -> date:
    """Gregorian Easter Sunday, by the anonymous (Meeus/Jones/Butcher) algorithm."""
    a, b, c = year % 19, year // 100, year % 100
    d, e = divmod(b, 4)
    f = (b + 8) // 25
    g = (b - f + 1) // 3
    h = (19 * a + b - d - g + 15) % 30
    i, k = divmod(c, 4)
    m = (32 + 2 * e + 2 * i - h - k) % 7
    n = (a + 11 * h + 22 * m) // 451
    month, day = divmod(h + m - 7 * n + 114, 31)
    return date(year, month, day + 1)


@lru_cache(maxsize=16)
def holidays(year: int) -> frozenset[date]:
    """Full closings that fall into ``year``."""
    days = {
        _nth_weekday(year, 1, 0, 3),  # Martin Luther King Jr.
        _nth_weekday(year, 2, 0, 3),  # Washington's birthday
        _easter(year) - timedelta(days=2),  # Good Friday
        _last_weekday(year, 5, 0),  # Memorial Day
        _observed(date(year, 7, 4)),
        _nth_weekday(year, 9, 0, 1),  # Labor Day
        _nth_weekday(year, 11, 3, 4),  # Thanksgiving
        _observed(date(year, 12, 25)),
    }
    if (
        date(year, 1, 1).weekday() != 5
    ):  # a Saturday New Year is not made up for: the year's last day is a settlement day
        days.add(_observed(date(year, 1, 1)))
    if year >= 2022:
        days.add(_observed(date(year, 6, 19)))
    return frozenset(days)


def is_trading_day(day: date) -> bool:
    return day.weekday() < 5 and day not in holidays(day.year)


def is_early_close(day: date) -> bool:
    """13:00 closings: the day before Independence Day, the day after Thanksgiving, Christmas Eve."""
    if not is_trading_day(day):
        return False
    fourth = date(day.year, 7, 4)
    eve = fourth.weekday() in (1, 2, 3, 4) and day == fourth - timedelta(days=1)
    friday = day == _nth_weekday(day.year, 11, 3, 4) + timedelta(days=1)
    return eve or friday or (day.month == 12 and day.day == 24)


def _new_york(wall_ns: int) -> datetime:
    return datetime.fromtimestamp(wall_ns // NS_PER_S, UTC).astimezone(NEW_YORK)


def session_date(wall_ns: int, always_open: bool = False) -> int:
    """Date of the trading session as YYYYMMDD. ``always_open``: every calendar day is a session (the paper market)."""
    moment = _new_york(wall_ns)
    day = moment.date() - timedelta(days=1 if moment.hour < ROLL_HOUR else 0)
    if not always_open:
        while not is_trading_day(day):
            day += timedelta(days=1)
    return day.year * 10_000 + day.month * 100 + day.day


def is_regular_hours(wall_ns: int, always_open: bool = False) -> bool:
    """Between the opening and the closing auction of a trading day (09:30 to 16:00 or 13:00 New York)."""
    if always_open:
        return True
    moment = _new_york(wall_ns)
    if not is_trading_day(moment.date()):
        return False
    close = EARLY_CLOSE_MINUTE if is_early_close(moment.date()) else CLOSE_MINUTE
    return OPEN_MINUTE <= moment.hour * 60 + moment.minute < close


def next_roll_ns(wall_ns: int) -> int:
    """Wall time of the next 04:00 New York after ``wall_ns``: a caller need not ask for the date before it."""
    moment = _new_york(wall_ns)
    roll = moment.replace(hour=ROLL_HOUR, minute=0, second=0, microsecond=0)
    if roll <= moment:
        roll = (roll + timedelta(days=1)).replace(hour=ROLL_HOUR)
    return int(roll.astimezone(UTC).timestamp()) * NS_PER_S


def in_window(wall_ns: int, window: str) -> bool:
    """Is the time inside a daily window written like ``00:15-01:45 America/New_York``? Windows may cross midnight.

    Raises ValueError naming the window when it is not written like that.
    """
    try:
        hours, zone = window.split(maxsplit=1)
        begin, end = (int(h) * 60 + int(m) for h, m in (part.split(":") for part in hours.split("-")))
        moment = datetime.fromtimestamp(wall_ns // NS_PER_S, UTC).astimezone(ZoneInfo(zone))
    except (ValueError, KeyError, OSError) as error:
        raise ValueError(f"window {window!r}: write it like '00:15-01:45 America/New_York'") from error
    minute = moment.hour * 60 + moment.minute
    return begin <= minute < end if begin <= end else minute >= begin or minute < end
