"""Orders that the desk watches instead of the market: stops, trailing stops, one-cancels-all, market-on-close.

Pure decisions over prices and times; what follows from them is the desk's.
"""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta

from engine.paper.catalog import NEW_YORK
from engine.paper.orders import PaperOrder

STOPS = frozenset(("STP", "STP LMT", "TRAIL"))
OPEN_MINUTE, CLOSE_MINUTE = 9 * 60 + 30, 16 * 60


def stop_price(order: PaperOrder) -> float:
    """The price whose trade triggers the order; NaN if there is none."""
    if order.order_type == "TRAIL":
        return order.trail_stop
    return order.aux if order.order_type in STOPS else math.nan


def trailed(order: PaperOrder, last: float) -> float:
    """Where the stop of a TRAIL order stands after a trade: it follows the price one way only."""
    distance = order.aux if order.aux == order.aux and order.aux > 0 else last * order.trail_percent / 100
    candidate = round(last + order.sign * distance, 6)
    if order.trail_stop != order.trail_stop:
        return candidate
    return min(order.trail_stop, candidate) if order.sign > 0 else max(order.trail_stop, candidate)


def triggers(order: PaperOrder, last: float) -> bool:
    """True if a trade at ``last`` triggers the stop: at or above it for a buy, at or below it for a sell."""
    return order.sign * (last - stop_price(order)) >= -1e-9


def reached(order: PaperOrder, bid: float, ask: float) -> bool:
    """True if the other side of the quote is within the limit of a watched order; without a limit always."""
    price = ask if order.sign > 0 else bid
    if not price > 0:
        return False
    limit = order.limit_now
    return limit != limit or order.sign * (limit - price) >= -1e-9


def regular(wall_s: float) -> bool:
    """Weekdays 09:30 to 16:00 New York. Holidays are not known here."""
    local = datetime.fromtimestamp(wall_s, NEW_YORK)
    minute = local.hour * 60 + local.minute
    return local.weekday() < 5 and OPEN_MINUTE <= minute < CLOSE_MINUTE


def session_hours(first: date, hours: str, days: int = 6) -> str:
    """Hours of some days in the broker's form: ``YYYYMMDD:0930-YYYYMMDD:1600;YYYYMMDD:CLOSED;…``.

    ``hours`` is ``24/7`` (no close: from midnight to midnight) or ``regular``, the very hours of ``regular``.
    """
    spans = []
    for day in (first + timedelta(days=offset) for offset in range(days)):
        if hours == "24/7":
            spans.append(f"{day:%Y%m%d}:0000-{day + timedelta(days=1):%Y%m%d}:0000")
        elif day.weekday() < 5:
            spans.append(f"{day:%Y%m%d}:{_clock(OPEN_MINUTE)}-{day:%Y%m%d}:{_clock(CLOSE_MINUTE)}")
        else:
            spans.append(f"{day:%Y%m%d}:CLOSED")
    return ";".join(spans)


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}{minute % 60:02d}"


def next_close(wall_s: float) -> float:
    """UTC seconds of the next close: 16:00 New York of a weekday, after ``wall_s``."""
    local = datetime.fromtimestamp(wall_s, NEW_YORK)
    close = local.replace(hour=CLOSE_MINUTE // 60, minute=CLOSE_MINUTE % 60, second=0, microsecond=0)
    while close <= local or close.weekday() >= 5:
        close += timedelta(days=1)
    return close.timestamp()
