"""``engine/domain/xnys.py``: closings of the New York exchange from the calendar library, so that no service needs it.

The library brings pandas, which a trading process does without. What it knows today is written down for the years to
come; an unscheduled closing arrives with its next version.
"""

from __future__ import annotations

FIRST, LAST = 2000, 2049
_HEAD = '''"""Closings of the New York stock exchanges (XNYS), {first} to {last}. Generated from exchange_calendars by
`python -m engine.generate`; do not edit. Dates are YYYYMMDD.
"""

# fmt: off
FIRST_YEAR, LAST_YEAR = {first}, {last}
'''


def calendar_module() -> str:
    """The text of the module. Needs the packages of the tests."""
    import exchange_calendars
    import pandas as pd

    calendar = exchange_calendars.get_calendar("XNYS", start=f"{FIRST}-01-01", end=f"{LAST}-12-31")
    weekdays = pd.bdate_range(f"{FIRST}-01-01", f"{LAST}-12-31")
    closed = weekdays.difference(calendar.sessions)
    early = calendar.early_closes
    hours = {c.tz_convert("America/New_York").strftime("%H:%M") for c in calendar.closes[early]}
    if hours != {"13:00"}:
        raise ValueError(f"early closes at {sorted(hours)}, the sessions know 13:00 alone")
    text = _HEAD.format(first=FIRST, last=LAST)
    for name, words, days in (
        ("CLOSED", "Weekdays without a session.", closed),
        ("EARLY", "Sessions that end at 13:00 New York.", early),
    ):
        text += f"{name} = frozenset(\n    (\n"
        numbers = [f"{d:%Y%m%d}" for d in days]
        for i in range(0, len(numbers), 10):
            text += "        " + ", ".join(numbers[i : i + 10]) + ",\n"
        text += f'    )\n)\n"""{words}"""\n'
    return text
