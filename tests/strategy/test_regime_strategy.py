"""The regime strategy: what it asks for, and above all what it never asks for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_for_strategy import small_model
from paper_run import PARAMETERS, run

from engine.domain.codes import Side, TimeInForce
from engine.strategy import regime_kernel as kernel
from engine.strategy.protocol import Cancel, Place, Purpose, Situation, Working
from engine.strategy.regime import ENTRY_GAP_NS, FLAT, NS, Memory, PlainRegimeStrategy, RegimeStrategy, decide

P = PARAMETERS
LEANS_UP = Situation(
    symbol=0, tick_size=0.01, bid=100.0, ask=100.01, bid_size=900.0, ask_size=100.0, micro_price=100.009,
    spread_median_bps=1.0, book_valid=True, model_valid=True, warming=False, regime=0, states=3, confidence_ema=0.95,
    qty=0.0, held_qty=0.0, working_buy_qty=0.0, working_sell_qty=0.0, gross_usd=0.0, day_pnl_usd=0.0,
    entries_allowed=True, exits_allowed=True,
)  # fmt: skip
LONG = replace(LEANS_UP, qty=40.0, held_qty=40.0, gross_usd=4_000.0)


def entry(side: Side = Side.BUY, sent_ns: int = 0, price: float = 100.0) -> Working:
    return Working(1, side, 50.0, price, Purpose.ENTRY, sent_ns)


def test_a_heavy_bid_is_joined_with_a_limit_order_at_the_touch() -> None:
    action, _ = decide(LEANS_UP, (), FLAT, P, NS)
    assert isinstance(action, Place)
    assert (action.side, action.limit_price, action.purpose) == (Side.BUY, 100.0, Purpose.ENTRY)
    assert action.qty == 59  # 6,000 USD at the ask, whole shares


def test_a_spread_with_room_is_improved_by_one_tick() -> None:
    wide = replace(LEANS_UP, ask=100.03, micro_price=100.027, spread_median_bps=3.0)
    action, _ = decide(wide, (), FLAT, P, NS)
    assert isinstance(action, Place)
    assert action.limit_price == 100.01


@pytest.mark.parametrize(
    "change",
    [
        {"entries_allowed": False},
        {"book_valid": False},
        {"model_valid": False},
        {"warming": True},
        {"confidence_ema": 0.69},
        {"confidence_ema": float("nan")},
        {"regime": 2},  # the most volatile one
        {"bid_size": 110.0},  # no imbalance
        {"spread_median_bps": 0.3},  # spread far above its median
        {"day_pnl_usd": -2_500.0},
        {"held_qty": 400.0},  # somebody holds the limit already
        {"gross_usd": 299_999.0},
    ],
)
def test_no_entry_while_any_condition_is_missing(change: dict[str, object]) -> None:
    action, _ = decide(replace(LEANS_UP, **change), (), FLAT, P, NS)
    assert action is None


def test_no_entry_during_the_cooldown_after_a_round_trip() -> None:
    _, memory = decide(LONG, (), FLAT, P, NS)
    action, memory = decide(LEANS_UP, (), memory, P, 2 * NS)
    assert action is None
    assert decide(LEANS_UP, (), memory, P, 2 * NS + P.cooldown_ns)[0] is not None


def test_a_fill_is_offered_at_the_other_touch() -> None:
    action, memory = decide(LONG, (), FLAT, P, NS)
    assert isinstance(action, Place)
    assert (action.side, action.qty, action.limit_price) == (Side.SELL, 40.0, 100.01)
    assert (action.purpose, action.tif) == (Purpose.EXIT, TimeInForce.DAY)
    assert memory.opened_ns == NS


@pytest.mark.parametrize(
    ("change", "after_ns", "why"),
    [
        ({}, P.hold_ns, "longest hold"),
        ({"bid_size": 100.0, "ask_size": 900.0}, NS, "imbalance turned"),
        ({"bid": 99.9, "ask": 99.91}, NS, "loss limit"),
        ({"regime": 2}, NS, "volatile regime"),
    ],
)
def test_a_position_that_has_to_go_is_taken_out_through_the_touch(
    change: dict[str, float], after_ns: int, why: str
) -> None:
    now = replace(LONG, **change)
    action, _ = decide(now, (), Memory(opened_ns=NS, entry_price=100.005), P, NS + after_ns)
    assert isinstance(action, Place)
    assert (action.tif, action.why) == (TimeInForce.IOC, why)
    assert action.limit_price == pytest.approx(now.bid - 0.03)


def test_a_resting_exit_makes_way_before_the_position_is_taken_out() -> None:
    resting = (Working(7, Side.SELL, 40.0, 100.01, Purpose.EXIT, NS),)
    now = replace(LONG, working_sell_qty=40.0)
    action, _ = decide(now, resting, Memory(opened_ns=NS), P, NS + P.hold_ns)
    assert action == Cancel(7, "take instead")


def test_a_resting_exit_at_the_touch_stays_and_one_off_it_is_moved() -> None:
    now = replace(LONG, working_sell_qty=40.0)
    at = (Working(7, Side.SELL, 40.0, 100.01, Purpose.EXIT, NS),)
    off = (Working(7, Side.SELL, 40.0, 100.04, Purpose.EXIT, NS),)
    later = NS + P.order_ttl_ns
    assert decide(now, at, Memory(opened_ns=NS), P, later)[0] is None
    assert decide(now, off, Memory(opened_ns=NS), P, later)[0] == Cancel(7, "the touch moved")


def test_an_entry_is_cancelled_when_a_stop_comes_its_time_is_up_or_the_imbalance_turns() -> None:
    turned = replace(LEANS_UP, bid_size=100.0, ask_size=900.0)
    cases = (
        (replace(LEANS_UP, entries_allowed=False), "a stop holds"),
        (LEANS_UP, "time to live"),
        (turned, "imbalance turned"),
    )
    for now, why in cases:
        when = 10 * NS + (P.order_ttl_ns if why == "time to live" else NS)
        action, _ = decide(now, (entry(sent_ns=10 * NS),), FLAT, P, when)
        assert action == Cancel(1, why)


def test_a_cancel_is_not_repeated_at_once() -> None:
    asked = replace(entry(sent_ns=NS), cancel_ns=10 * NS)
    assert decide(LEANS_UP, (asked,), FLAT, P, 11 * NS)[0] is None
    assert decide(LEANS_UP, (asked,), FLAT, P, 12 * NS)[0] == Cancel(1, "time to live")


def test_what_a_person_holds_is_not_the_strategys_to_sell() -> None:
    action, _ = decide(replace(LEANS_UP, held_qty=10.0, bid_size=500.0, ask_size=450.0), (), FLAT, P, NS)
    assert action is None


def test_entries_of_all_symbols_keep_one_pace() -> None:
    strategy = RegimeStrategy(P)
    assert strategy.on_signal(LEANS_UP, (), NS)
    assert not strategy.on_signal(replace(LEANS_UP, symbol=1), (), 2 * NS)
    assert strategy.on_signal(replace(LEANS_UP, symbol=2), (), NS + ENTRY_GAP_NS)


prices = st.integers(5_000, 50_000)
shares = st.integers(-500, 500).map(float)
left = st.integers(0, 400).map(float)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    bid = draw(prices)
    ask = bid + draw(st.integers(1, 5))
    return Situation(
        0, 0.01, bid / 100, ask / 100, draw(st.integers(1, 1_000)), draw(st.integers(1, 1_000)), (bid + ask) / 200 +
        draw(st.sampled_from([-0.004, 0.004])), draw(st.floats(0.1, 50)), draw(st.booleans()), draw(st.booleans()),
        draw(st.booleans()), draw(st.integers(0, 2)), 3, draw(st.floats(0, 1)), draw(shares), draw(shares), draw(left),
        draw(left), draw(st.floats(0, 400_000)), draw(st.floats(-5_000, 5_000)), draw(st.booleans()),
        draw(st.booleans()),
    )  # fmt: skip


memories = st.builds(
    Memory, opened_ns=st.integers(0, 50 * NS), entry_price=st.floats(50, 500), calm_until_ns=st.integers(0, 50 * NS)
)
workings = st.lists(
    st.builds(
        Working, st.integers(1, 9), st.sampled_from([Side.BUY, Side.SELL]), left, st.floats(50, 500),
        st.sampled_from(list(Purpose)), st.integers(0, 50 * NS), st.integers(0, 50 * NS),
    ),
    max_size=2,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(situations(), workings, memories, st.integers(50 * NS, 100 * NS))
def test_limits_and_stops_hold_whatever_the_situation_is(
    s: Situation, orders: list[Working], memory: Memory, now_ns: int
) -> None:
    action, _ = decide(s, tuple(orders), memory, P, now_ns)
    if isinstance(action, Cancel):
        assert action.intent_id in {o.intent_id for o in orders}
        return
    if action is None:
        return
    assert not orders  # one order per symbol at a time
    assert s.book_valid
    assert action.qty >= 1
    assert action.qty == int(action.qty)
    assert action.limit_price > 0
    assert abs(action.limit_price * 100 - round(action.limit_price * 100)) < 1e-6
    if action.purpose == Purpose.ENTRY:
        assert s.entries_allowed
        assert s.day_pnl_usd > -P.daily_stop_usd
        value = action.qty * action.limit_price
        assert value <= P.order_usd + 1e-6
        assert s.gross_usd + value <= P.gross_usd + 1e-6
        long = s.held_qty + s.working_buy_qty + (action.qty if action.side == Side.BUY else 0)
        short = s.held_qty - s.working_sell_qty - (action.qty if action.side == Side.SELL else 0)
        assert max(abs(long), abs(short)) * s.bid <= max(
            P.symbol_usd, max(abs(s.held_qty + s.working_buy_qty), abs(s.held_qty - s.working_sell_qty)) * s.ask
        )
    else:
        assert s.exits_allowed
        assert int(action.side) * s.held_qty < 0
        assert int(action.side) * s.qty < 0
        works = s.working_sell_qty if action.side == Side.SELL else s.working_buy_qty
        assert action.qty <= abs(s.qty)
        assert action.qty + works <= abs(s.held_qty)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(situations(), workings, st.integers(0, 20 * NS)), min_size=1, max_size=8))
def test_the_compiled_decision_is_the_plain_one_over_any_history(
    history: list[tuple[Situation, list[Working], int]],
) -> None:
    plain, compiled = PlainRegimeStrategy(P), RegimeStrategy(P)
    now_ns = 50 * NS
    for situation, orders, step_ns in history:
        now_ns += step_ns
        assert compiled.on_signal(situation, tuple(orders), now_ns) == plain.on_signal(situation, tuple(orders), now_ns)
        assert compiled.busy(0) == plain.busy(0)


@settings(max_examples=100, deadline=None)
@given(situations(), workings, st.integers(50 * NS, 100 * NS))
def test_the_kernel_interpreted_gives_the_same_record(s: Situation, orders: list[Working], now_ns: int) -> None:
    strategy = RegimeStrategy(P)
    strategy.on_signal(s, tuple(orders), now_ns)
    again = RegimeStrategy(P)
    again._situation[:] = strategy._situation
    again._orders[:] = strategy._orders
    arrays = (again._situation, again._orders, again.memory, again.parameters, again._decision)
    situation, working, memory, parameters, decision = (a.view(np.recarray) for a in arrays)
    kernel.decide.py_func(situation, working, len(orders), memory, 0, parameters, now_ns, decision)
    if strategy._decision["action"][0] != kernel.NOTHING:
        assert again._decision[0] == strategy._decision[0]
    assert again._decision["action"][0] == strategy._decision["action"][0]
    assert again.memory.tobytes() == strategy.memory.tobytes()
    assert again.parameters.tobytes() == strategy.parameters.tobytes()


def test_it_trades_on_the_paper_market_within_its_limits_and_counts_its_costs() -> None:
    result = run(small_model(), seed=4, seconds=110.0)
    assert result.round_trips >= 2
    assert result.commissions_usd >= 2.0
    assert result.worst_symbol_usd <= P.symbol_usd
    assert result.worst_gross_usd <= P.gross_usd
    assert result.most_intents_in_a_second <= 8
