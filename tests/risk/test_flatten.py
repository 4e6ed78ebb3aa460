from __future__ import annotations

import json
import math

import pytest
from flatten_exchange import Exchange, entry
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.codes import FlattenState, Side
from engine.risk import flatten as fl

MS = 1_000_000
CONFIG = fl.FlattenConfig()


def run(exchange: Exchange, state: fl.Flatten, limit_s: float = 120.0, regular: bool = True) -> fl.Flatten:
    now = 10**9
    for _ in range(int(limit_s * 1000)):
        now += MS
        exchange.tick(now)
        state, actions = fl.step(state, exchange.view(regular=regular), now, CONFIG)
        exchange.carry_out(actions)
        if not state.active:
            break
    return state


def begin(symbols: int) -> fl.Flatten:
    return fl.start(1, symbols, source=4, reason="test", cause_ns=10**9, now_ns=10**9)


positions = st.lists(st.integers(-300, 300).map(float), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(
    positions, st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 0.7]), st.sampled_from([0.02, 0.3, 1.0]), st.data()
)
def test_random_exchange_always_ends_flat_and_is_never_over_closed(
    qty: list[float], seed: int, reject: float, fill: float, data: st.DataObject
) -> None:
    # A broker that rejects for ever is never flat: it comes round after twice the longest back-off.
    exchange = Exchange(seed, list(qty), reject_share=reject, fill_share=fill, rejects_until_ns=60 * 10**9)
    for symbol, held in enumerate(qty):
        if held and data.draw(st.booleans()):
            closer = Side.SELL if held > 0 else Side.BUY
            exchange.orders.append(entry(symbol, closer, float(max(1, int(abs(held)) // 2))))
    state = run(exchange, begin(len(qty)), 120.0)
    assert state.state == FlattenState.FLAT
    assert exchange.qty == [0.0] * len(qty)
    assert not exchange.orders
    assert exchange.over_closed == []


def test_an_entry_that_fills_while_it_is_cancelled_is_closed_too() -> None:
    for seed in range(20):
        exchange = Exchange(seed, [100.0, 0.0], fill_share=0.9)
        exchange.orders += [entry(0, Side.BUY, 50.0), entry(1, Side.SELL, 70.0)]
        assert run(exchange, begin(2)).state == FlattenState.FLAT
        assert exchange.qty == [0.0, 0.0]
        assert exchange.over_closed == []


def test_round_one_is_one_batch_cancel_first_then_the_largest_exposure() -> None:
    exchange = Exchange(1, [10.0, -500.0, 0.0])
    state, actions = fl.step(begin(3), exchange.view(), 10**9, CONFIG)
    assert isinstance(actions[0], fl.CancelAll)
    closes = [a for a in actions[1:] if isinstance(a, fl.Close)]
    assert [(c.symbol, c.side, c.qty) for c in closes] == [(1, Side.BUY, 500.0), (0, Side.SELL, 10.0)]
    assert all(math.isnan(c.limit) for c in closes)
    assert state.state == FlattenState.ROUND_ONE


def test_round_one_counts_working_closers() -> None:
    exchange = Exchange(1, [100.0])
    exchange.orders.append(entry(0, Side.SELL, 60.0))
    _, actions = fl.step(begin(1), exchange.view(), 10**9, CONFIG)
    assert [a.qty for a in actions if isinstance(a, fl.Close)] == [40.0]


def test_a_halted_symbol_is_named_in_a_p1_and_closed_when_it_resumes() -> None:
    exchange = Exchange(3, [100.0, 50.0], halted=0b10, fill_share=1.0)
    state = run(exchange, begin(2), 20.0)
    assert state.state == FlattenState.STUCK
    assert exchange.alerts
    assert exchange.alerts[0].remaining == 0b10
    assert exchange.qty == [0.0, 50.0]
    exchange.halted = 0
    now = 10**12
    for _ in range(20_000):
        now += MS
        exchange.tick(now)
        state, actions = fl.step(state, exchange.view(), now, CONFIG)
        exchange.carry_out(actions)
    assert state.state == FlattenState.FLAT
    assert exchange.qty == [0.0, 0.0]


def test_rejected_closes_back_off_and_do_not_flood() -> None:
    exchange = Exchange(3, [100.0], reject_share=1.0)
    run(exchange, begin(1), 60.0)
    assert exchange.closes <= 8
    assert exchange.alerts


def test_outside_regular_hours_closes_are_marketable_limits_that_are_repriced_up_to_a_cap() -> None:
    exchange = Exchange(3, [100.0], fill_share=0.0)
    limits: list[float] = []
    state, now = begin(1), 10**9
    for _ in range(60_000):
        now += MS
        exchange.tick(now)
        state, actions = fl.step(state, exchange.view(regular=False), now, CONFIG)
        limits += [a.limit for a in actions if isinstance(a, fl.Close)]
        exchange.carry_out(actions)
    assert len(limits) > 3
    assert limits == sorted(limits, reverse=True)
    assert limits[0] < 99.99
    assert min(limits) >= 99.99 * (1 - CONFIG.limit_max_bps / 1e4) - 1e-9


def test_flat_needs_two_snapshots_apart_without_an_order_event_between() -> None:
    exchange = Exchange(1, [0.0])
    state, now, snapshots = begin(1), 10**9, []
    while state.active:
        now += MS
        exchange.tick(now)
        if exchange.snapshot[0] not in [s[0] for s in snapshots]:
            snapshots.append(exchange.snapshot)
            if len(snapshots) == 3:
                exchange.events += 1  # news between the two: they count for nothing
        state, actions = fl.step(state, exchange.view(), now, CONFIG)
        exchange.carry_out(actions)
        assert now < 10**11
    last, before = snapshots[-1], snapshots[-2]
    assert len(snapshots) >= 4
    assert last[1] - before[2] >= CONFIG.apart_ns
    assert last[3] == before[3] == exchange.events


def test_a_flatten_survives_a_restart_at_any_step() -> None:
    for restart_at in range(1, 400, 13):
        exchange = Exchange(restart_at, [200.0, -80.0], fill_share=0.05)
        state, now = begin(2), 10**9
        for n in range(60_000):
            now += MS
            exchange.tick(now)
            if n == restart_at:
                state = fl.resume(fl.loads(fl.dumps(state)), now, 2)
            state, actions = fl.step(state, exchange.view(), now, CONFIG)
            exchange.carry_out(actions)
            if not state.active:
                break
        assert state.state == FlattenState.FLAT
        assert exchange.qty == [0.0, 0.0]
        assert exchange.over_closed == []


def test_nothing_is_emitted_while_the_link_is_down_but_an_alert() -> None:
    from dataclasses import replace

    exchange = Exchange(1, [100.0])
    view = replace(exchange.view(), can_send=False)
    state, actions = fl.step(begin(1), view, 10**9, CONFIG)
    assert [type(a) for a in actions] == [fl.Alert]
    _, actions = fl.step(state, exchange.view(), 2 * 10**9, CONFIG)
    assert any(isinstance(a, fl.Close) for a in actions)


def test_managed_scope_leaves_other_symbols_alone() -> None:
    exchange = Exchange(1, [100.0, 100.0], fill_share=1.0)
    state = fl.start(1, 2, source=4, reason="", cause_ns=1, now_ns=10**9, scope=0b01)
    state = run(exchange, state)
    assert state.state == FlattenState.FLAT
    assert exchange.qty == [0.0, 100.0]


def test_only_whole_shares_are_closed_and_a_residue_is_named_until_an_operator_excuses_it() -> None:
    exchange = Exchange(5, [10.5, -3.25, 0.75], fill_share=1.0)
    state = run(exchange, begin(3), 20.0)
    assert exchange.qty == [0.5, -0.25, 0.75]
    assert exchange.over_closed == []
    assert exchange.closes == 2, "a residue is not tried again and again"
    assert state.active
    assert "residue under one share" in exchange.alerts[0].text
    assert exchange.alerts[0].remaining == 0b111
    exchange.snapshot = (exchange.snapshot[0], 0, 0, -1, 9, 0)  # what was read before says nothing about after
    state, now = fl.excuse(state, 0b111), 10**12
    while state.active and now < 10**12 + 20 * 10**9:
        now += MS
        exchange.tick(now)
        state, actions = fl.step(state, exchange.view(), now, CONFIG)
        exchange.carry_out(actions)
    assert state.state == FlattenState.FLAT
    assert exchange.qty == [0.5, -0.25, 0.75]


def test_excusing_one_symbol_still_closes_the_others() -> None:
    exchange = Exchange(6, [100.0, 50.0], halted=0b01, fill_share=1.0)
    state = run(exchange, fl.excuse(begin(2), 0b01), 20.0)
    assert state.state == FlattenState.FLAT
    assert exchange.qty == [100.0, 0.0]


def test_a_state_of_an_older_version_is_read_and_nonsense_is_not() -> None:
    whole = json.loads(fl.dumps(begin(2)))
    del whole["boot_id"]
    assert fl.loads(json.dumps(whole).encode()).state == FlattenState.STOPPING
    for bad in (b"", b"[]", b"{}", b'{"state": "x"}', b'{"state": 1, "more": 2}', b'{"state": 1, "scope": 1.5}'):
        with pytest.raises(ValueError, match=r".*"):
            fl.loads(bad)
