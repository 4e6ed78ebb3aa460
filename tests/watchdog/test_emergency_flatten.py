"""The hand of the emergency connection against a broker that makes everything late."""

from __future__ import annotations

import pytest
from emergency_exchange import (
    ACCOUNT,
    BRIDGE_ID,
    EMERGENCY_ID,
    MS,
    STRANGER_ID,
    Connection,
    Exchange,
    Late,
    Working,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.broker.emergency_flatten import DirectFlatten
from engine.domain.codes import FlattenState

START = 10**12


class Course:
    """One hand, one exchange, one clock."""

    def __init__(self, exchange: Exchange, *, cancel_only: bool = False, regular: bool = True) -> None:
        self.exchange, self.now = exchange, START
        self.link = Connection(exchange, EMERGENCY_ID)
        self.canceller = Connection(exchange, BRIDGE_ID) if exchange.scope is not None else None
        self.regular = regular
        self.hand = self._hand(cancel_only)

    def _hand(self, cancel_only: bool) -> DirectFlatten:
        return DirectFlatten(
            self.link, ACCOUNT, only=self.exchange.scope, reason="test", now_ns=self.now,  # type: ignore[arg-type]
            wall_s=1_700_000_000 + self.now // 10**9,
            cancel_only=cancel_only, settle=True, canceller=self.canceller, regular_hours=lambda: self.regular,  # type: ignore[arg-type]
        )  # fmt: skip

    def restart(self) -> None:
        """The watchdog dies and another begins: all that it knew is gone, the broker's answers too."""
        self.link.lose()
        self.link.log_in()
        self.exchange.out.clear()
        self.hand = self._hand(False)

    def run(self, seconds: float, until_flat: bool = True) -> None:
        end = self.now + int(seconds * 1e9)
        while self.now < end:
            self.now += 2 * MS
            self.exchange.tick(self.now)
            for link in (self.link, self.canceller):
                if link is not None:
                    link.pump(self.now)
            if self.link.ready:
                self.hand.step(self.exchange.arrived(self.now), self.now)
            if self.hand.done and until_flat:
                return


def bridge_order(symbol: int, signed: float, number: int) -> Working:
    return Working(BRIDGE_ID, number, symbol, signed, abs(signed), f"L2:{number:x}")


def two_reads_before(exchange: Exchange, t_ns: int) -> bool:
    """Two reads had ended before, the second begun 200 ms after the end of the first."""
    ended = [r for r in exchange.reads if r[1] <= t_ns]
    return any(b[0] - a[1] >= 200 * MS for i, a in enumerate(ended) for b in ended[i + 1 :])


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32), st.integers(1, 6), st.booleans(), st.integers(0, 3), st.integers(0, 2),
    st.sampled_from((0.0, 0.3)), st.booleans(),
)  # fmt: skip
def test_whatever_is_late_it_ends_flat_is_never_over_closed_and_touches_nothing_else(
    seed: int, symbols: int, managed: bool, late: int, breaks: int, park_share: float, echoes: bool
) -> None:
    exchange = Exchange(seed, [0.0] * symbols, park_share=park_share, echoes=echoes)
    rnd = exchange.random
    exchange.qty = [float(rnd.choice((0, rnd.randint(-200, 200), rnd.randint(1, 50)))) for _ in range(symbols)]
    if managed:
        exchange.scope = frozenset(exchange.names[: max(1, symbols - 1)])
        exchange.orders.append(Working(STRANGER_ID, 5, 0, 30.0, 30.0, "hand"))
    exchange.orders += [bridge_order(rnd.randrange(symbols), rnd.choice((-1, 1)) * 20.0, 1 + n) for n in range(3)]
    exchange.late = [
        Late(START + rnd.randint(0, 300) * MS, bridge_order(rnd.randrange(symbols), rnd.choice((-1, 1)) * 15.0, 50 + n))
        for n in range(late)
    ]
    before = list(exchange.qty)
    course = Course(exchange)
    for _ in range(breaks):
        course.run(rnd.uniform(0.0, 2.5))
        if rnd.random() < 0.5:
            course.link.lose()
            course.now += rnd.randint(10, 900) * MS
            course.link.log_in()
        else:
            course.restart()
    course.run(240.0)
    assert course.hand.done, (course.hand.held(), course.hand.state)
    assert exchange.open_in_scope() == []
    assert exchange.broken == []
    if exchange.scope is not None:
        outside = [i for i, name in enumerate(exchange.names) if name not in exchange.scope]
        mine = [o.order_id for o in exchange.orders if o.client_id == STRANGER_ID]
        assert mine == [5], "somebody else's order is left alone"
        assert all(abs(exchange.qty[i] - before[i]) <= 105.0 for i in outside)


@pytest.mark.parametrize("seed", range(20))
def test_no_close_before_two_reads_have_agreed(seed: int) -> None:
    exchange = Exchange(seed, [40.0, -30.0], late=[Late(START + 150 * MS, bridge_order(0, -40.0, 9))])
    course = Course(exchange)
    course.run(60.0)
    assert exchange.closes, "there was something to close"
    assert two_reads_before(exchange, exchange.closes[0][0])
    assert exchange.broken == []
    assert exchange.qty == [0.0, 0.0]


def test_a_late_close_of_the_dead_bridge_is_counted_in() -> None:
    """Its bytes arrive after our cancel and fill: closing the position as it was would turn it around."""
    for seed in range(20):
        exchange = Exchange(seed, [40.0], late=[Late(START + 120 * MS, bridge_order(0, -40.0, 9))])
        course = Course(exchange)
        course.run(60.0)
        assert course.hand.done
        assert (exchange.broken, exchange.qty) == ([], [0.0])


@pytest.mark.parametrize("echoes", [False, True])
@pytest.mark.parametrize("managed", [False, True])
@pytest.mark.parametrize("wakes_ms", [0, 250, 5_000])
def test_an_inactive_order_is_cancelled_before_flat_is_said_and_its_line_in_the_list_holds_nothing_up(
    wakes_ms: int, managed: bool, echoes: bool
) -> None:
    """The broker may take it up again; what is left of it after a cancel is a line that stays for a day."""
    exchange = Exchange(4, [40.0], reject_share=0.0, bridge_fills=0.0, echoes=echoes)
    exchange.scope = frozenset({"S0"}) if managed else None
    order = bridge_order(0, 20.0, 1)
    exchange.orders.append(order)
    exchange.park(order, START, wakes_ms and START + wakes_ms * MS)
    course = Course(exchange)
    course.run(60.0)
    assert course.hand.done
    assert order.cancel_at
    assert order.over or order not in exchange.orders
    assert (exchange.broken, exchange.qty, exchange.open_in_scope()) == ([], [0.0], [])


def test_an_inactive_close_is_not_doubled_when_the_broker_takes_it_up_again() -> None:
    for seed in range(40):
        exchange = Exchange(seed, [40.0, -25.0], reject_share=0.0, park_share=0.6, echoes=seed % 2 == 1)
        course = Course(exchange)
        course.run(120.0)
        assert course.hand.done, (seed, course.hand.held())
        assert (exchange.broken, exchange.qty) == ([], [0.0, 0.0])


def test_what_turns_up_after_flat_is_closed_too() -> None:
    exchange = Exchange(1, [40.0], reject_share=0.0)
    course = Course(exchange)
    course.run(60.0)
    assert course.hand.done
    exchange.qty[0] = 25.0  # a gateway that was mute has let the dead bridge's bytes through
    course.run(10.0, until_flat=False)
    assert course.hand.done
    assert exchange.qty == [0.0]
    assert any("open again after flat" in a for a in course.hand.alerts)


def test_while_the_bridge_is_only_missed_orders_are_cancelled_also_late_ones_and_nothing_is_closed() -> None:
    exchange = Exchange(3, [40.0], orders=[bridge_order(0, 20.0, 1)])
    exchange.late, exchange.bridge_fills = [Late(START + 4_000 * MS, bridge_order(0, 20.0, 2))], 0.0
    course = Course(exchange, cancel_only=True)
    course.run(12.0, until_flat=False)
    assert exchange.orders == []
    assert exchange.closes == []
    assert course.hand.settled


def test_outside_regular_hours_prices_are_asked_for_over_the_same_connection() -> None:
    exchange = Exchange(2, [40.0, -10.0], reject_share=0.0)
    course = Course(exchange, regular=False)
    course.run(30.0)
    assert course.hand.done
    assert exchange.qty == [0.0, 0.0]
    limits = {symbol: limit for _, symbol, _, limit in exchange.closes}
    assert limits[0] < 99.99
    assert limits[1] > 100.01


def test_without_any_price_outside_regular_hours_what_remains_is_named_and_nothing_is_guessed() -> None:
    exchange = Exchange(2, [40.0], quotes=False)
    course = Course(exchange, regular=False)
    course.run(30.0)
    assert exchange.closes == []
    assert course.hand.state.state in (FlattenState.STUCK, FlattenState.CONFIRM_CANCELS, FlattenState.CLOSING)
    assert any("without a quote outside regular hours; remaining: S0 +40" in a for a in course.hand.alerts)


def test_more_symbols_than_the_message_share_leave_largest_first_and_never_too_fast() -> None:
    n = 120
    exchange = Exchange(4, [float(i + 1) for i in range(n)], reject_share=0.0)
    course = Course(exchange)
    course.hand._quotes = lambda _name: (10.0, 10.0)
    course.run(120.0)
    assert course.hand.done
    assert set(exchange.qty) == {0.0}
    first = [symbol for _, symbol, _, _ in exchange.closes[:30]]
    assert first == sorted(first, reverse=True), "the largest exposure leaves first"
    times = [t for t, *_ in exchange.closes]
    worst = max(sum(1 for t in times if at <= t < at + 1_000 * MS) for at in times)
    assert worst <= 45
    assert times[-1] - times[0] > 1_000 * MS, "more than one second's share was needed"


def test_the_dead_bridges_orders_need_its_client_id_in_a_managed_account() -> None:
    exchange = Exchange(5, [0.0, 0.0], orders=[bridge_order(0, 20.0, 1), Working(STRANGER_ID, 5, 0, 9.0, 9.0, "hand")])
    exchange.scope, exchange.bridge_fills = frozenset({"S0"}), 0.0
    course = Course(exchange)
    course.canceller = None
    course.hand = course._hand(False)
    course.run(4.0)
    assert not course.hand.done, "over the emergency id alone they can't be cancelled, and that is not called flat"
    course.canceller = Connection(exchange, BRIDGE_ID)
    course.hand = course._hand(False)
    course.run(20.0)
    assert course.hand.done
    assert [o.client_id for o in exchange.orders] == [STRANGER_ID]


def test_an_excused_contract_is_kept_and_the_rest_confirmed() -> None:
    exchange = Exchange(6, [40.0, 0.5], reject_share=0.0)
    course = Course(exchange)
    course.run(20.0)
    assert not course.hand.done
    course.hand.excuse(frozenset({"S1"}))
    course.run(20.0)
    assert course.hand.done
    assert exchange.qty == [0.0, 0.5]


def test_what_is_excused_before_the_account_is_known_is_kept() -> None:
    exchange = Exchange(7, [40.0, 25.0], reject_share=0.0)
    course = Course(exchange)
    course.hand.excuse(frozenset({"S1"}))
    course.run(20.0)
    assert course.hand.done
    assert exchange.qty == [0.0, 25.0]
    assert all(symbol == 0 for _, symbol, _, _ in exchange.closes)


def test_an_order_that_will_not_cancel_holds_up_its_own_symbol_only() -> None:
    exchange = Exchange(8, [40.0, -30.0], reject_share=0.0, bridge_fills=0.0)
    stubborn = bridge_order(0, 20.0, 1)
    exchange.orders.append(stubborn)
    course = Course(exchange)
    stubborn.cancel_at = 1 << 62  # its cancel is asked for, and never comes
    exchange.reject_share = 1.0
    course.run(7.5, until_flat=False)
    exchange.reject_share = 0.0
    course.run(60.0, until_flat=False)
    assert exchange.qty[1] == 0.0
    assert exchange.broken == []
    assert not course.hand.done
    assert any("cancels are not confirmed" in a for a in course.hand.alerts)


def test_what_is_kept_outside_our_symbols_is_not_closed() -> None:
    exchange = Exchange(7, [40.0, 25.0], reject_share=0.0)
    course = Course(exchange)
    course.hand.excuse_outside(frozenset({"S0"}))
    course.run(20.0)
    assert course.hand.done
    assert exchange.qty == [0.0, 25.0]


def test_the_time_of_the_closes_is_that_of_the_last_one_that_left() -> None:
    exchange = Exchange(3, [10.0] * 12, reject_share=0.0)
    course = Course(exchange)
    course.link.messages_per_s = 5
    course.run(30.0)
    assert course.hand.done
    round_one = sorted(t for t, *_ in exchange.closes)[:12]
    assert round_one[-1] - round_one[0] > 1_000 * MS, "they could not all leave at once"
    assert round_one[-1] <= course.hand.sent_ns <= round_one[-1] + 20 * MS
