"""Accounting: invariants under any sequence of fills, and cases worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.paper.account import Account, commission_total
from engine.paper.commissions import Traded, pair, schedule_of, tiered

MARKS = {0: 100.0, 1: 50.0}
fills = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(-300, 300).filter(bool),
        st.integers(5_000, 15_000).map(lambda cents: cents / 100),
        st.integers(0, 500).map(lambda cents: cents / 100),
    ),
    max_size=40,
)


@settings(max_examples=80, deadline=None)
@given(fills)
def test_cash_positions_and_profit_add_up_after_every_fill(script):
    account = Account.opened(1_000_000.0, "20240102")
    quantity = {0: 0, 1: 0}
    cash = 1_000_000.0
    for symbol, signed, price, commission in script:
        account.fill(symbol, signed, price, commission)
        quantity[symbol] += signed
        cash -= signed * price + commission
        account.check(MARKS)
        assert account.positions[symbol].quantity == quantity[symbol]
    assert account.cash == pytest.approx(cash)
    assert account.daily_pnl(MARKS) == pytest.approx(account.realized_day + account.unrealized(MARKS), abs=1e-6)
    total = sum(account.daily_pnl_of(symbol, mark) for symbol, mark in MARKS.items())
    assert total == pytest.approx(account.daily_pnl(MARKS), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(fills, fills)
def test_a_new_day_starts_at_zero_and_keeps_positions(before, after):
    account = Account.opened(1_000_000.0, "20240102")
    for fill in before:
        account.fill(*fill)
    held = {s: p.quantity for s, p in account.positions.items() if p.quantity}
    account.roll_day("20240103", MARKS)
    assert {s: p.quantity for s, p in account.positions.items()} == held
    assert account.daily_pnl(MARKS) == 0
    for fill in after:
        account.fill(*fill)
    total = sum(account.daily_pnl_of(symbol, mark) for symbol, mark in MARKS.items())
    assert total == pytest.approx(account.daily_pnl(MARKS), abs=1e-6)
    account.check(MARKS)


def test_a_sale_through_zero_closes_at_average_cost_and_opens_short_at_the_price():
    account = Account.opened(10_000.0, "20240102")
    account.fill(0, 100, 10.0, 1.0)
    assert account.positions[0].average_cost == pytest.approx(10.01)
    result = account.fill(0, -150, 11.0, 1.5)
    assert result.closed
    assert result.realized == pytest.approx(100 * (11.0 - 10.01) - 1.0)
    assert account.positions[0].quantity == -50
    assert account.positions[0].average_cost == pytest.approx(11.0 - 0.01)


@pytest.mark.parametrize(
    ("quantity", "price", "expected"),
    [(100, 150.0, 1.00), (1000, 150.0, 5.00), (200, 150.0, 1.00), (201, 150.0, 1.005), (1, 10.0, 0.10), (0, 1.0, 0.0)],
)
def test_commission_is_half_a_cent_a_share_at_least_one_dollar_at_most_one_percent(quantity, price, expected):
    assert commission_total(quantity, quantity * price) == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(100, 50_000)), min_size=1, max_size=12))
def test_commission_of_parts_never_falls_and_ends_at_that_of_the_whole(parts):
    charged, quantity, value = 0.0, 0.0, 0.0
    for shares, cents in parts:
        quantity += shares
        value += shares * cents / 100
        step = commission_total(quantity, value) - charged
        assert step >= -1e-9
        charged += step
    assert charged == pytest.approx(commission_total(quantity, value))


def test_margin_of_a_hypothetical_order_counts_only_what_it_adds():
    account = Account.opened(100_000.0, "20240102")
    account.fill(0, 100, 100.0, 1.0)
    after = account.margins_after(0, -100, 100.0, MARKS, 1.0)
    assert after.initial == pytest.approx(0.0)
    after = account.margins_after(0, -300, 100.0, MARKS, 1.0)
    assert after.initial == pytest.approx(10_000.0)


def test_a_correction_replaces_the_price_and_the_account_still_adds_up():
    account = Account.opened(100_000.0, "20240102")
    account.fill(0, 100, 100.0, 1.0)
    account.correct(0, 100, 100.0, 100.5)
    assert account.cash == pytest.approx(100_000 - 10_050 - 1)
    assert account.positions[0].average_cost == pytest.approx(100.51)
    account.check(MARKS)
    account.fill(0, -100, 101.0, 1.0)
    account.correct(0, -100, 101.0, 101.25)
    assert account.realized_day == pytest.approx(100 * (101.25 - 100.5) - 2.0)
    account.check(MARKS)


def test_a_fill_of_nothing_is_refused():
    with pytest.raises(ValueError, match="quantity 0"):
        Account.opened(1.0, "x").fill(0, 0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("value", "month_before", "expected"),
    [
        (20_000.0, 0.0, 2.00),  # 0.2 bps would be 0.40: the minimum
        (1_000_000.0, 0.0, 20.00),
        (1_000_000.0, 1.5e9, 15.00),
        (1_000_000.0, 3e9, 10.00),
        (1_000_000.0, 6e9, 8.00),
        (1_000.0, 1.5e9, 1.50),
        (1_000.0, 3e9, 1.25),
        (1_000.0, 6e9, 1.00),
        (2_000_000.0, 1e9 - 1e6, 20.00 + 15.00),  # across the border of two tiers
    ],
)
def test_a_currency_pair_costs_basis_points_by_the_value_of_the_month(value, month_before, expected):
    traded = Traded(value / 1.25, value, month_before=month_before)
    assert pair(traded) == pytest.approx(expected)
    assert schedule_of("fixed", "CASH") is schedule_of("tiered", "CASH") is pair
    assert schedule_of("tiered", "STK") is tiered


def test_an_order_of_a_pair_in_parts_costs_what_it_costs_in_one():
    charged, value = 0.0, 0.0
    for part in (5_000.0, 50_000.0, 400_000.0):
        value += part
        charged += pair(Traded(value, value)) - charged
    assert charged == pytest.approx(pair(Traded(455_000.0, 455_000.0))) == pytest.approx(9.1)


def test_the_month_counts_shares_of_stocks_and_dollars_of_pairs():
    account = Account.opened(1e6, "20260105")
    account.pairs = frozenset((3,))
    account.fill(0, 100, 10.0, 1.0)
    account.fill(3, -1_000, 1.25, 2.0)
    assert (account.month_of(0), account.month_of(3)) == (100.0, 1250.0)
    account.roll_day("20260201", {0: 10.0, 3: 1.25})
    assert (account.month_of(0), account.month_of(3)) == (0.0, 0.0)
