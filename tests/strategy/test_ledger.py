"""The strategy's book-keeping: own orders end exactly once, own positions never outlive the account's; its pace."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.codes import OrderState, Refusal, Side
from engine.strategy.ledger import OrderLedger, OwnPositions
from engine.strategy.pace import BURST, NS, RATE_PER_S, Pace
from engine.strategy.protocol import Purpose


def ledger_with(intent_id: int = 10) -> OrderLedger:
    ledger = OrderLedger()
    ledger.placed(intent_id, 3, Side.BUY, 100.0, 50.0, Purpose.ENTRY, 1)
    return ledger


def test_an_order_is_working_from_the_moment_it_is_written() -> None:
    ledger = ledger_with()
    (order,) = ledger.of(3)
    assert (order.left, order.side, order.purpose) == (100.0, Side.BUY, Purpose.ENTRY)
    assert ledger.quantities(3) == (100.0, 0.0, 100.0, 0.0)
    ledger.on_state(10, OrderState.SENT, 0.0)
    assert ledger.quantities(3) == (100.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("state", [OrderState.FILLED, OrderState.CANCELLED, OrderState.REJECTED])
def test_a_terminal_state_ends_it_and_names_its_symbol(state: OrderState) -> None:
    ledger = ledger_with()
    assert ledger.on_state(10, OrderState.PARTIAL, 40.0) == -1
    assert ledger.of(3)[0].left == 60.0
    assert ledger.on_state(10, state, 40.0) == 3
    assert len(ledger) == 0


def test_a_refused_order_is_gone_and_a_refused_cancel_is_not_the_order() -> None:
    ledger = ledger_with()
    ledger.cancelling(11, 10, 5)
    assert ledger.on_refused(11, Refusal.MESSAGE_RATE) == -1
    assert len(ledger) == 1
    assert ledger.on_refused(10, Refusal.PRICE) == 3
    assert len(ledger) == 0


def test_an_order_that_the_gate_does_not_know_any_more_is_forgotten() -> None:
    ledger = ledger_with()
    ledger.cancelling(11, 10, 5)
    ledger.on_refused(11, Refusal.UNKNOWN_ORDER)
    assert len(ledger) == 0


def test_the_filled_quantity_never_falls() -> None:
    ledger = ledger_with()
    ledger.on_state(10, OrderState.PARTIAL, 60.0)
    ledger.on_state(10, OrderState.PARTIAL, 40.0)
    ledger.on_state(10, OrderState.WORKING, float("nan"))
    assert ledger.of(3)[0].left == 40.0


def test_events_of_unknown_orders_change_nothing() -> None:
    ledger = ledger_with()
    assert ledger.on_state(99, OrderState.FILLED, 1.0) == -1
    assert ledger.on_refused(99, Refusal.PRICE) == -1
    assert len(ledger) == 1


def test_a_flatten_by_somebody_else_ends_the_own_position() -> None:
    own = OwnPositions()
    own.on_execution(0, 40.0, True)
    assert own.of(0, 40.0) == 40.0
    own.on_execution(0, -40.0, False)
    own.on_execution(0, 25.0, False)  # a person buys: that is theirs
    assert own.of(0, 25.0) == 0.0


def test_what_a_person_adds_stays_theirs() -> None:
    own = OwnPositions()
    own.on_execution(0, 40.0, True)
    own.on_execution(0, 100.0, False)
    assert own.of(0, 140.0) == 40.0
    own.on_execution(0, -40.0, True)
    assert own.of(0, 100.0) == 0.0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-50, 50), st.booleans()), max_size=30))
def test_the_own_part_is_never_larger_than_the_position_nor_against_it(fills: list[tuple[int, bool]]) -> None:
    own, held = OwnPositions(), 0.0
    for qty, ours in fills:
        if qty == 0:
            continue
        held += qty
        own.on_execution(0, float(qty), ours)
        part = own.of(0, held)
        assert abs(part) <= abs(held)
        assert part * held >= 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2 * NS), max_size=200))
def test_the_pace_lets_no_runaway_through(gaps: list[int]) -> None:
    pace, now, taken = Pace(), 0, []
    for gap in gaps:
        now += gap
        if pace.take(now):
            taken.append(now)
    for i, begin in enumerate(taken):
        in_a_second = sum(1 for t in taken[i:] if t - begin < NS)
        assert in_a_second <= BURST + RATE_PER_S


def test_refusals_pause_a_symbol_longer_each_time_and_an_accepted_order_forgives() -> None:
    pace = Pace()
    pace.refused(1, 0)
    assert pace.paused(1, NS - 1)
    assert not pace.paused(1, NS)
    assert not pace.paused(2, 0)
    pace.refused(1, NS)
    assert pace.paused(1, 3 * NS - 1)
    for _ in range(20):
        pace.refused(1, 3 * NS)
    assert not pace.paused(1, 3 * NS + 30 * NS)
    pace.accepted(1)
    pace.refused(1, 40 * NS)
    assert not pace.paused(1, 41 * NS)
