"""Depth windows, bars and ticks as pure functions."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.paper.books import SymbolBook, caught_up, window
from engine.paper.catalog import NEW_YORK
from engine.paper.history import BarSeries, SymbolHistory, bar_size_s, bar_start_s, duration_s, merge
from engine.paper.market_requests import bar_stamp

changes = st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.integers(0, 7), st.integers(1, 99)), max_size=60)


@given(changes, st.integers(1, 6))
def test_a_window_of_changes_rebuilds_exactly_the_first_rows(script, limit):
    full, seen = SymbolBook(), SymbolBook()
    for op, level, size in script:
        rows = full.bids
        if op == 0 and len(rows) >= 8:
            op = 1
        if (op == 0 and level > len(rows)) or (op != 0 and level >= len(rows)):
            continue
        change = (op, level, float(size), float(size))
        assert full.apply(1, change)
        for part in window(full.bids, change, limit):
            assert seen.apply(1, part)
        assert seen.bids == full.bids[:limit]


def test_rows_that_cannot_exist_are_counted_and_not_applied():
    book = SymbolBook()
    assert not book.apply(0, (1, 0, 1.0, 1.0))
    assert not book.apply(0, (0, 1, 1.0, 1.0))
    assert not book.apply(0, (2, 0, 0.0, 0.0))
    assert book.bad_rows == 3
    assert book.asks == []


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 1000), st.integers(1, 50)), min_size=1, max_size=80))
def test_wider_bars_say_the_same_as_the_ticks_they_are_made_of(ticks):
    ticks.sort(key=lambda t: t[0])
    series = BarSeries(1, 500)
    for second, price, size in ticks:
        series.add(second, float(price), float(size))
    bars = merge(*series.rows(0, 1000), 60)
    assert [start for start, _ in bars] == sorted({t[0] - t[0] % 60 for t in ticks})
    for start, (opened, high, low, close, volume, wap, count) in bars:
        part = [t for t in ticks if start <= t[0] < start + 60]
        prices = [t[1] for t in part]
        assert (opened, high, low, close) == (prices[0], max(prices), min(prices), prices[-1])
        assert volume == sum(t[2] for t in part)
        assert abs(wap * volume - sum(t[1] * t[2] for t in part)) < 1e-6
        assert count == len(part)


def test_old_bars_make_room_for_new_ones():
    series = BarSeries(1, 4)
    for second in range(10):
        series.add(second, float(second), 1.0)
    starts, rows = series.rows(0, 100)
    assert list(starts) == [6, 7, 8, 9]
    assert list(rows[:, 3]) == [6.0, 7.0, 8.0, 9.0]


def test_minute_bars_come_from_the_coarse_series():
    history = SymbolHistory()
    history.trade(59.9, 1.0, 1.0)
    history.trade(60.1, 2.0, 1.0)
    assert [start for start, _ in history.bars("TRADES", 60, 0, 200)] == [0, 60]
    assert [start for start, _ in history.bars("TRADES", 5, 0, 200)] == [55, 60]


def test_durations_and_bar_sizes_are_read_as_the_broker_writes_them():
    assert (duration_s("1800 S"), duration_s("2 D")) == (1800, 172_800)
    assert [bar_size_s(t) for t in ("1 secs", "5 secs", "1 min", "2 mins", "1 hour", "1 day")] == [
        1,
        5,
        60,
        120,
        3600,
        86_400,
    ]
    absurd = ((duration_s, "9999 Y"), (duration_s, "9" * 15 + " D"), (bar_size_s, "9" * 15 + " secs"))
    wrong = ((duration_s, "ten S"), (duration_s, "10"), (bar_size_s, "1 parsec"), (bar_size_s, "0 secs"))
    for read, text in wrong + absurd:
        with pytest.raises(ValueError, match=text):
            read(text)


PRICES = st.lists(st.integers(1, 30), max_size=10, unique=True)
SIZES = st.integers(1, 3)


@given(st.data())
def test_catching_up_leads_from_any_book_to_any_other_through_good_books_only(data):
    def drawn() -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        middle = data.draw(st.integers(1, 30))
        prices = [float(p) for p in data.draw(PRICES)]
        asks = [(p, float(data.draw(SIZES))) for p in sorted(prices) if p > middle]
        bids = [(p, float(data.draw(SIZES))) for p in sorted(prices, reverse=True) if p <= middle]
        return asks, bids

    before, after = drawn(), drawn()
    book = SymbolBook(asks=list(before[0]), bids=list(before[1]))
    changes = caught_up(before, after)
    for side, change in changes:
        assert book.apply(side, change)
        assert book.asks == sorted(book.asks)
        assert book.bids == sorted(book.bids, reverse=True)
        assert not (book.asks and book.bids) or book.bids[0][0] < book.asks[0][0]
    assert (book.asks, book.bids) == after
    assert changes or before == after
    assert len(changes) <= sum(map(len, (*before, *after)))


def test_a_bar_of_both_sides_has_averages_over_time_and_the_extremes():
    history = SymbolHistory()
    history.quote(100.0, 10.0, 11.0, 1, 1)
    history.quote(104.0, 12.0, 14.0, 1, 1)  # the first quote stood for four seconds
    history.quote(105.0, 12.0, 14.0, 1, 1)
    ((start, bar),) = history.bars("BID_ASK", 5, 100, 105)
    assert start == 100
    assert bar[:4] == (pytest.approx((4 * 10 + 12) / 5), 14.0, 10.0, pytest.approx((4 * 11 + 14) / 5))
    assert [s for s, _ in history.bars("BID", 1, 100, 105, within=lambda s: s >= 104)] == [104]


def test_only_the_brokers_bar_widths_are_taken():
    for text in ("3 secs", "7 mins", "5 hours", "2 days", "", "secs", "1", "60 secs"):
        with pytest.raises(ValueError, match="legal ones are 1 secs, 5 secs"):
            bar_size_s(text)
    assert [bar_size_s(t) for t in ("1 secs", "30 secs", "1 min", "20 mins", "8 hours", "1 day")] == [
        1, 30, 60, 1200, 28_800, 86_400,
    ]  # fmt: skip
    with pytest.raises(ValueError, match="86400 S"):
        duration_s("86401 S")


def test_a_daily_bar_is_that_of_the_day_in_new_york():
    noon = 1_795_712_400  # 26 November 2026, 12:00 in New York
    history = SymbolHistory()
    history.trade(float(noon), 10.0, 1.0)
    for width, day in (("1 day", "20261126"), ("1W", "20261123"), ("1M", "20261101")):
        ((start, _),) = history.bars("TRADES", bar_size_s(width), noon - 60, noon + 60)
        assert bar_stamp(start, bar_size_s(width), 1) == day


def test_days_weeks_and_months_are_those_of_the_calendar_also_where_the_clock_changes():
    series = BarSeries(60, 2_880)
    stamps = ("20241102 23:59", "20241103 00:00", "20241103 12:00", "20241103 23:59", "20241104 00:00")
    for n, stamp in enumerate(stamps):  # the clock goes back in New York on Sunday, 3 November 2024
        series.add(int(datetime.strptime(stamp, "%Y%m%d %H:%M").replace(tzinfo=NEW_YORK).timestamp()), 10.0 + n, 1.0)
    rows = series.rows(0, 1e12)
    found = {
        width: [(bar_stamp(s, bar_size_s(width), 1), bar[6]) for s, bar in merge(*rows, bar_size_s(width))]
        for width in ("1 day", "1W", "1M")
    }
    assert found == {
        "1 day": [("20241102", 1), ("20241103", 3), ("20241104", 1)],
        "1W": [("20241028", 4), ("20241104", 1)],
        "1M": [("20241101", 5)],
    }


@pytest.mark.parametrize(
    ("at", "month"), [("20240229", "20240201"), ("20241231", "20241201"), ("20250101", "20250101")]
)
def test_a_month_begins_on_its_first_day(at, month):
    at_s = int(datetime.strptime(at, "%Y%m%d").replace(tzinfo=NEW_YORK).timestamp())
    start_s = bar_start_s(at_s + 3_600, bar_size_s("1M"))
    assert bar_stamp(start_s, bar_size_s("1M"), 1) == month
    assert bar_start_s(start_s, bar_size_s("1M")) == start_s
