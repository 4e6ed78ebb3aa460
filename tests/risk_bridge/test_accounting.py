"""Executions become positions exactly once, in whatever order and however often they arrive."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.risk.accounting import Accounts, Applied, Fill, split_exec_id
from engine.risk.reconcile import confirmed, mismatches, opening


@st.composite
def days(draw: st.DrawFn) -> list[Fill]:
    """Executions of a day over two symbols, some of them corrected up to twice."""
    out = []
    for k in range(draw(st.integers(0, 10))):
        t, symbol, side = draw(st.integers(0, 5)) * 10**9, draw(st.integers(0, 1)), draw(st.sampled_from([1, -1]))
        for revision in range(1, 2 + draw(st.integers(0, 2))):
            qty, price = draw(st.integers(1, 200)), draw(st.integers(100, 20_000)) / 100
            out.append(Fill(f"0001.{k:04d}.01.{revision:02d}", symbol, side, float(qty), price, t, k % 3 + 1))
    return out


def books(fills: list[Fill], opens: tuple[float, float] = (0.0, 0.0)) -> Accounts:
    accounts = Accounts(2)
    for symbol, qty in enumerate(opens):
        accounts.set_open(symbol, qty, 50.0)
    for fill in fills:
        accounts.apply(fill)
    return accounts


def close(a: Accounts, b: Accounts) -> bool:
    fields = ("qty", "avg_cost", "realized_pnl_usd", "cash_flow_usd", "commissions_usd", "executions")
    return all(
        math.isclose(getattr(x, f), getattr(y, f), rel_tol=1e-9, abs_tol=1e-6)
        for x, y in zip(a.holdings, b.holdings, strict=True)
        for f in fields
    )


@settings(max_examples=150, deadline=None)
@given(days(), st.randoms(use_true_random=False), st.tuples(st.integers(-50, 50), st.integers(-50, 50)))
def test_order_of_arrival_and_repetitions_change_nothing(
    day: list[Fill], random: object, opens: tuple[int, int]
) -> None:
    shuffled = day + day[::2]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    a, b = books(day, opens), books(shuffled, opens)
    assert close(a, b)
    assert a.check() == b.check() == []


@settings(max_examples=100, deadline=None)
@given(days())
def test_position_and_cash_are_sums_over_the_latest_revisions(day: list[Fill]) -> None:
    latest = {split_exec_id(f.exec_id)[0]: f for f in day}
    accounts = books(day)
    for symbol in (0, 1):
        mine = [f for f in latest.values() if f.symbol == symbol]
        held = accounts.holdings[symbol]
        assert held.qty == sum(f.signed for f in mine)
        assert math.isclose(held.cash_flow_usd, -sum(f.signed * f.price for f in mine), abs_tol=1e-6)
        assert held.executions == len(mine)
    for key in (1, 2, 3):
        assert accounts.executed(key)[0] == sum(f.qty for f in latest.values() if f.order_key == key)


@settings(max_examples=100, deadline=None)
@given(days(), st.randoms(use_true_random=False))
def test_profit_at_any_mark_is_the_same_by_cash_flow_and_by_average_cost(day: list[Fill], random: object) -> None:
    accounts = books(day, (20.0, -10.0))
    for symbol, open_qty in enumerate((20.0, -10.0)):
        held, mark = accounts.holdings[symbol], 77.0
        by_cash = held.cash_flow_usd + held.qty * mark - open_qty * 50.0
        by_cost = held.realized_pnl_usd + held.qty * (mark - held.avg_cost)
        assert math.isclose(by_cash, by_cost, rel_tol=1e-9, abs_tol=1e-5)


@settings(max_examples=60, deadline=None)
@given(days(), st.randoms(use_true_random=False))
def test_commissions_count_once_before_or_after_their_execution(day: list[Fill], random: object) -> None:
    ids = {split_exec_id(f.exec_id)[0]: f.exec_id for f in day}
    items: list[Fill | str] = [*day, *ids.values(), *ids.values()]
    random.shuffle(items)  # type: ignore[attr-defined]
    accounts = Accounts(2)
    for item in items:
        if isinstance(item, Fill):
            accounts.apply(item)
        else:
            accounts.commission(item, 1.25)
    assert math.isclose(sum(h.commissions_usd for h in accounts.holdings), 1.25 * len(ids), abs_tol=1e-9)


def test_correction_replaces_and_an_older_revision_is_a_repetition() -> None:
    accounts = Accounts(1)
    assert accounts.apply(Fill("a.01", 0, 1, 100, 10.0, 5)) == Applied.NEW
    assert accounts.apply(Fill("a.02", 0, 1, 90, 11.0, 5)) == Applied.CORRECTED
    assert accounts.apply(Fill("a.01", 0, 1, 100, 10.0, 5)) == Applied.DUPLICATE
    held = accounts.holdings[0]
    assert (held.qty, held.cash_flow_usd, held.avg_cost, held.executions) == (90, -990.0, 11.0, 1)


def test_flip_through_zero_realizes_the_closed_part_only() -> None:
    accounts = books([Fill("a.1", 0, 1, 100, 10.0, 1), Fill("b.1", 0, -1, 150, 12.0, 2)])
    held = accounts.holdings[0]
    assert (held.qty, held.avg_cost, held.realized_pnl_usd) == (-50.0, 12.0, 200.0)


def test_new_day_opens_with_the_old_position_and_forgets_no_execution() -> None:
    accounts = books([Fill("a.1", 0, 1, 100, 10.0, 1)])
    accounts.begin_day()
    held = accounts.holdings[0]
    assert (held.qty, held.day_open_qty, held.cash_flow_usd, held.executions) == (100.0, 100.0, 0.0, 0)
    assert accounts.apply(Fill("a.1", 0, 1, 100, 10.0, 1)) == Applied.DUPLICATE, "read back after the roll"
    assert accounts.commission("a.1", 1.0) == -1


def test_a_correction_of_the_day_before_is_told_once_and_moves_no_position() -> None:
    accounts = books([Fill("a.1", 0, 1, 100, 10.0, 1)])
    accounts.begin_day()
    corrected = Fill("a.2", 0, 1, 90, 11.0, 1)
    assert accounts.is_past("a.2")
    assert accounts.apply_past(corrected) == Applied.CORRECTED
    assert accounts.apply_past(corrected) == Applied.DUPLICATE
    assert accounts.apply_past(Fill("a.1", 0, 1, 100, 10.0, 1)) == Applied.DUPLICATE
    assert accounts.holdings[0].qty == 100.0
    assert accounts.note_past("b.2") == Applied.CORRECTED
    assert accounts.note_past("b.1") == Applied.DUPLICATE


def test_opening_is_what_the_broker_implies_unless_the_record_contradicts() -> None:
    assert opening(0, 100.0, 30.0, None, None).qty == 70.0
    assert opening(0, 100.0, 30.0, 60.0, None).qty == 60.0
    assert opening(0, 100.0, 30.0, None, 70.0).mismatch is None
    found = opening(0, 100.0, 30.0, None, 40.0).mismatch
    assert found is not None
    assert (found.ours, found.theirs) == (40.0, 70.0)


def test_mismatches_name_both_sides_and_missing_symbols_count_as_zero() -> None:
    found = mismatches([10.0, 0.0, -5.0], {0: 10.0, 1: 3.0})
    assert [(m.symbol, m.ours, m.theirs) for m in found] == [(1, 0.0, 3.0), (2, -5.0, 0.0)]


def test_only_what_both_books_have_may_be_closed_while_they_differ() -> None:
    assert confirmed(130.0, 100.0) == 100.0
    assert confirmed(-20.0, -50.0) == -20.0
    assert confirmed(10.0, -10.0) == 0.0
