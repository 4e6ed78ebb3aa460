"""Trading days and regular hours of the New York stock exchanges, pure over wall-clock nanoseconds.

A session date rolls at 04:00 New York, when the pre-market opens: what happens at 01:00 belongs to the day before.
Saturdays, Sundays and exchange holidays belong to the next trading day's date. The closings come from the calendar
library, by way of ``engine.domain.xnys``. An unscheduled closing is not known here before its next version; then no
quotes arrive, and the stale rule holds entries back.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from engine.domain.xnys import CLOSED, EARLY

NEW_YORK = ZoneInfo("America/New_York")
ROLL_HOUR = 4
OPEN_MINUTE = 9 * 60 + 30
CLOSE_MINUTE = 16 * 60
EARLY_CLOSE_MINUTE = 13 * 60
NS_PER_S = 1_000_000_000


def _number(day: date) -> int:
    return day.year * 10_000 + day.month * 100 + day.day


def is_trading_day(day: date) -> bool:
    """Beyond the years of the calendar every weekday is one: quotes decide then."""
    return day.weekday() < 5 and _number(day) not in CLOSED


def is_early_close(day: date) -> bool:
    """A session that ends at 13:00."""
    return _number(day) in EARLY


def _new_york(wall_ns: int) -> datetime:
    return datetime.fromtimestamp(wall_ns // NS_PER_S, UTC).astimezone(NEW_YORK)


def session_date(wall_ns: int, always_open: bool = False) -> int:
    """Date of the trading session as YYYYMMDD. ``always_open``: every calendar day is a session (the paper market)."""
    moment = _new_york(wall_ns)
    day = moment.date() - timedelta(days=1 if moment.hour < ROLL_HOUR else 0)
    if not always_open:
        while not is_trading_day(day):
            day += timedelta(days=1)
    return _number(day)


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
