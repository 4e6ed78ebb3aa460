"""The gate: no entry passes any stop, reduce-only never over-closes, every refusal has its reason."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.codes import IntentFlag, OrderType, Refusal, Source
from engine.risk import pretrade
from engine.risk.refusal_text import refusal_text
from shm.layouts import INTENT

NOW = 10**12
SYMBOLS = 4


class World:
    """Facts with everything in order: 100 USD, no position, no stops."""

    def __init__(self) -> None:
        f = self.facts = np.zeros(SYMBOLS, pretrade.SYMBOL_FACTS)
        f["mid"], f["own_bid"], f["own_ask"], f["last_price"] = 100.0, -math.inf, math.inf, math.nan
        f["edge"] = math.inf
        f["edge"][:, 0], f["step"][:, 0] = 0.0, 0.01
        f["tradable"] = f["session_open"] = f["fresh"] = 1
        f["shortable"] = 3
        f["tradable"][3] = 0
        a = self.account = np.zeros(1, pretrade.ACCOUNT_FACTS)
        for name in ("connected", "reconciled", "account_ok", "owner", "lease", "allow_short", "budget"):
            a[name] = 1
        a["now_ns"], a["mode"], a["buying_power_usd"] = NOW, 1, 1e6
        a["order_qty"], a["order_notional_usd"] = 5_000, 50_000
        a["symbol_usd"], a["gross_usd"], a["collar"] = 90_000, 200_000, 0.05
        a["active_per_side"], a["rate_per_s"], a["tradable_count"] = 20, 20, 3
        a["duplicate_ns"], a["repeated_ns"], a["stale_intent_ns"] = 200_000_000, 10**10, 10**9
        self.out = np.zeros(3)

    def ask(self, qty: float, limit: float = math.nan, *, interpreted: bool = False, **more: Any) -> Refusal:
        record = np.zeros(1, INTENT)
        i = record[0]
        i["side"], i["qty"] = 1 if qty > 0 else -1, abs(qty)
        i["order_type"] = int(OrderType.MKT if math.isnan(limit) else OrderType.LMT)
        i["limit_price"], i["source"], i["t_intent_ns"] = limit, int(Source.OPERATOR), NOW
        for name, value in more.items():
            i[name] = value
        if interpreted:
            arrays = (record, self.facts, self.account)
            code = pretrade.check.py_func(*(x.view(np.recarray) for x in arrays), self.out)  # type: ignore[attr-defined]
        else:
            code = pretrade.check(record, self.facts, self.account, self.out)
        return Refusal(int(code))


STOPS: dict[str, tuple[str, str, int, Refusal]] = {
    "kill": ("account", "killed", 1, Refusal.KILLED),
    "pause": ("account", "paused", 1, Refusal.PAUSED),
    "block": ("account", "blocked", 1, Refusal.BLOCKED),
    "lease": ("account", "lease", 0, Refusal.LEASE),
    "symbol": ("facts", "blocked", 1, Refusal.BLOCKED),
    "halted": ("facts", "halted", 1, Refusal.HALTED),
    "session": ("facts", "session_open", 0, Refusal.SESSION_CLOSED),
    "stale": ("facts", "fresh", 0, Refusal.STALE_DATA),
}


def engage(w: World, name: str) -> None:
    table, field, value, _ = STOPS[name]
    getattr(w, table)[field] = value


def test_an_order_in_order_passes() -> None:
    w = World()
    assert w.ask(10, 100.0) == Refusal.NONE
    assert w.ask(10) == Refusal.NONE
    assert w.out[2] == 0.0


@pytest.mark.parametrize("name", STOPS)
def test_each_stop_holds_entries_and_lets_reducing_orders_pass(name: str) -> None:
    w = World()
    engage(w, name)
    assert w.ask(10, 100.0) == STOPS[name][3]
    w.facts["qty"] = 50.0
    assert w.ask(10, 100.0) == STOPS[name][3], "adding to a position is an entry"
    assert w.ask(-51) == STOPS[name][3], "past zero is an entry"
    assert w.ask(-50) == Refusal.NONE
    assert w.out[2] == 1.0


@pytest.mark.parametrize("interpreted", [False, True])
@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("field", ["qty", "working_buy", "working_sell"])
def test_exposure_that_is_unknown_is_above_every_limit(field: str, at: int, side: int, interpreted: bool) -> None:
    w = World()
    w.account["allow_short"], w.account["assume_shortable"] = 1, 1
    assert w.ask(10 * side, 100.0, interpreted=interpreted) == Refusal.NONE
    w.facts[field][at] = math.nan
    found = w.ask(10 * side, 100.0, interpreted=interpreted)
    assert found == (Refusal.GROSS_EXPOSURE if at else Refusal.SYMBOL_EXPOSURE)


QTY = st.integers(-300, 300).map(float)
AMOUNT = st.integers(0, 300).map(float)


@settings(max_examples=400, deadline=None)
@given(
    st.sets(st.sampled_from(sorted(STOPS)), min_size=1), QTY, AMOUNT, AMOUNT,
    st.integers(1, 400), st.sampled_from([1, -1]),
    st.sampled_from(list(Source)), st.integers(0, 7), st.sampled_from([math.nan, 99.5, 100.0, 100.5]),
)  # fmt: skip
def test_no_entry_passes_any_stop_from_any_source(
    stops: set[str],
    held: float,
    buying: float,
    selling: float,
    qty: int,
    side: int,
    source: Source,
    flags: int,
    limit: float,
) -> None:
    w = World()
    for name in stops:
        engage(w, name)
    w.facts["qty"], w.facts["working_buy"], w.facts["working_sell"] = held, buying, selling
    code = w.ask(qty * side, limit, source=int(source), flags=flags)
    closing = buying if side > 0 else selling
    reduces = held * side < 0 and qty + closing <= abs(held)
    outside = stops == {"session"} and flags & IntentFlag.OUTSIDE_RTH
    if code == Refusal.NONE:
        assert reduces, f"an entry passed {stops} (outside hours: {outside})"


@settings(max_examples=300, deadline=None)
@given(
    st.integers(-500, 500),
    st.lists(st.tuples(st.integers(1, 400), st.sampled_from([1, -1]), st.booleans()), max_size=8),
    st.lists(st.integers(0, 100), min_size=8, max_size=8),
)  # fmt: skip
def test_reduce_only_never_closes_too_much_whatever_fills(
    held: int, orders: list[tuple[int, int, bool]], percent: list[int]
) -> None:
    """Every accepted order may fill in part or in full, in any mix: the position never crosses zero."""
    w = World()
    w.facts["qty"] = float(held)
    accepted: list[tuple[int, int]] = []
    for qty, side, flatten in orders:
        flags = int(IntentFlag.REDUCE_ONLY | (IntentFlag.FLATTEN if flatten else 0))
        if w.ask(qty * side, source=int(Source.WATCHDOG), flags=flags) == Refusal.NONE:
            accepted.append((qty, side))
            w.facts["working_buy" if side > 0 else "working_sell"] += qty
    for fill in (lambda q, p: q, lambda q, p: q * p // 100):
        position = held + sum(side * fill(qty, p) for (qty, side), p in zip(accepted, percent, strict=False))
        assert position * held >= 0
        assert abs(position) <= abs(held)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(QTY, AMOUNT, AMOUNT), min_size=3, max_size=3), st.integers(1, 500), st.sampled_from([1, -1]),
    st.integers(0, 2),
)  # fmt: skip
def test_worst_case_exposure_never_passes_a_cap_by_an_entry(
    held: list[tuple[float, float, float]], qty: int, side: int, symbol: int
) -> None:
    w = World()
    for s, (position, buying, selling) in enumerate(held):
        w.facts["qty"][s], w.facts["working_buy"][s], w.facts["working_sell"][s] = position, buying, selling
    w.account["symbol_usd"], w.account["gross_usd"] = 30_000, 60_000
    code = w.ask(qty * side, symbol=symbol)
    if code != Refusal.NONE or w.out[2]:
        return
    w.facts["working_buy" if side > 0 else "working_sell"][symbol] += qty
    worst = [max(abs(f["qty"] + f["working_buy"]), abs(f["qty"] - f["working_sell"])) * f["mid"] for f in w.facts[:3]]
    bought = w.facts["qty"][symbol] + w.facts["working_buy"][symbol]
    sold = w.facts["qty"][symbol] - w.facts["working_sell"][symbol]
    assert max(bought, -sold) * 100.0 <= 30_000
    assert sum(worst) <= 60_000 + 1e-6


@settings(max_examples=40, deadline=None)
@given(
    st.sets(st.sampled_from(sorted(STOPS)), max_size=2), QTY, AMOUNT, st.integers(-400, 400).filter(bool),
    st.sampled_from([math.nan, 94.0, 99.995, 100.0, 106.0]), st.integers(0, 7), st.sampled_from(list(Source)),
)  # fmt: skip
def test_compiled_and_interpreted_gate_agree(
    stops: set[str], held: float, working: float, qty: int, limit: float, flags: int, source: Source
) -> None:
    w = World()
    for name in stops:
        engage(w, name)
    w.facts["qty"], w.facts["working_sell"] = held, working
    compiled = w.ask(qty, limit, flags=flags, source=int(source))
    values = w.out.copy()
    assert w.ask(qty, limit, flags=flags, source=int(source), interpreted=True) == compiled
    assert np.array_equal(values, w.out, equal_nan=True)


def test_every_limit_has_its_own_reason_with_numbers() -> None:
    def world(**facts: Any) -> World:
        w = World()
        for name, value in facts.items():
            (w.account if name in pretrade.ACCOUNT_FACTS.names else w.facts)[name] = value  # type: ignore[operator]
        return w

    inf = math.inf
    cases: list[tuple[World, float, float, dict[str, Any], Refusal]] = [
        (world(), 10, math.nan, {"symbol": 3}, Refusal.UNKNOWN_SYMBOL),
        (world(), 10, math.nan, {"symbol": 99}, Refusal.UNKNOWN_SYMBOL),
        (world(account_ok=0), -10, math.nan, {}, Refusal.ACCOUNT),
        (world(), 10, math.nan, {"mode": 3}, Refusal.MODE),
        (world(connected=0), 10, math.nan, {}, Refusal.NOT_CONNECTED),
        (world(owner=0), 10, math.nan, {}, Refusal.LEASE),
        (world(epoch=5), 10, math.nan, {"epoch": 4}, Refusal.LEASE),
        (world(), 0, math.nan, {}, Refusal.QUANTITY),
        (world(), 1.5, math.nan, {}, Refusal.QUANTITY),
        (world(), inf, math.nan, {}, Refusal.QUANTITY),
        (world(), 10, math.nan, {"side": 0}, Refusal.QUANTITY),
        (world(), 10, 0.0, {}, Refusal.PRICE),
        (world(), 10, inf, {}, Refusal.PRICE),
        (world(), 10, math.nan, {"order_type": 9}, Refusal.PRICE),
        (world(), 10, 100.005, {}, Refusal.INCREMENT),
        (world(reconciled=0), 10, math.nan, {}, Refusal.RECONCILING),
        (world(), 10, math.nan, {"flags": 1}, Refusal.NOT_REDUCING),
        (world(), 10, 105.01, {}, Refusal.COLLAR),
        (world(), -10, 94.99, {}, Refusal.COLLAR),
        (world(), 10, math.nan, {"source": 1, "t_intent_ns": NOW - 10**9 - 1}, Refusal.STALE_INTENT),
        (world(), 10, math.nan, {"expires_ns": NOW - 1}, Refusal.STALE_INTENT),
        (world(), 5_001, math.nan, {}, Refusal.ORDER_SIZE),
        (world(), 501, math.nan, {}, Refusal.ORDER_NOTIONAL),
        (world(rate_ns=NOW - 10), 10, math.nan, {}, Refusal.MESSAGE_RATE),
        (world(budget=0), 10, math.nan, {}, Refusal.MESSAGE_RATE),
        (world(active_buy=20), 10, math.nan, {}, Refusal.ACTIVE_ORDERS),
        (world(last_ns=NOW - 10, last_qty=10, last_source=2), 10, math.nan, {}, Refusal.DUPLICATE),
        (world(own_ask=100.0), 10, 100.0, {}, Refusal.SELF_MATCH),
        (world(own_bid=inf), -10, 101.0, {}, Refusal.SELF_MATCH),
        (world(repeat_buy_ns=NOW - 10), 10, math.nan, {"source": 1}, Refusal.REPEATED_EXECUTION),
        (world(shortable=1), -10, math.nan, {}, Refusal.NOT_SHORTABLE),
        (world(shortable=0), -10, math.nan, {}, Refusal.NOT_SHORTABLE),
        (world(allow_short=0), -10, math.nan, {}, Refusal.NOT_SHORTABLE),
        (world(qty=890.0), 11, math.nan, {}, Refusal.SYMBOL_EXPOSURE),
        (world(working_buy=890.0), 11, math.nan, {}, Refusal.SYMBOL_EXPOSURE),
        (world(qty=660.0), 30, math.nan, {}, Refusal.GROSS_EXPOSURE),
        (world(buying_power_usd=900.0), 10, math.nan, {}, Refusal.BUYING_POWER),
        (world(buying_power_usd=math.nan), 10, math.nan, {}, Refusal.BUYING_POWER),
    ]
    for w, qty, limit, more, expected in cases:
        got = w.ask(qty, limit, **more)
        assert got == expected, f"{expected.name}: got {got.name} for {qty} at {limit} with {more}"
        assert len(refusal_text(got, "AAPL", float(w.out[0]), float(w.out[1]))) > 15


def test_passive_limits_far_away_are_no_matter_for_the_collar() -> None:
    assert World().ask(10, 50.0) == Refusal.NONE
    assert World().ask(-10, 200.0) == Refusal.NONE


def test_closing_a_position_is_not_held_by_size_caps_or_an_unknown_price() -> None:
    w = World()
    w.facts["qty"], w.facts["mid"], w.facts["fresh"] = 6_000.0, math.nan, 0
    assert w.ask(-6_000) == Refusal.NONE
    assert w.ask(-6_000, 90.0) == Refusal.NONE, "no collar without a price to measure it by"


def test_flatten_passes_what_only_tidies_but_not_what_limits_it() -> None:
    w = World()
    w.facts["qty"], w.facts["active_sell"], w.facts["own_bid"] = 100.0, 20, math.inf
    assert w.ask(-100) == Refusal.ACTIVE_ORDERS
    both = int(IntentFlag.REDUCE_ONLY | IntentFlag.FLATTEN)
    assert w.ask(-100, 80.0, source=int(Source.WATCHDOG), flags=both) == Refusal.NONE
    assert w.ask(-101, source=int(Source.WATCHDOG), flags=both) == Refusal.NOT_REDUCING
    assert w.ask(-100, source=int(Source.ALGO), flags=both) == Refusal.ACTIVE_ORDERS, "the flag alone forces nothing"


def test_extended_hours_take_limit_orders_that_ask_for_them() -> None:
    w = World()
    w.facts["session_open"], w.facts["extended_open"] = 0, 1
    outside = int(IntentFlag.OUTSIDE_RTH)
    assert w.ask(10, 100.0, flags=outside) == Refusal.NONE
    assert w.ask(10, flags=outside) == Refusal.SESSION_CLOSED
    assert w.ask(10, 100.0) == Refusal.SESSION_CLOSED


def test_increment_follows_the_price_bands_of_the_market_rule() -> None:
    w = World()
    w.facts["edge"][:, 1], w.facts["step"][:, 0], w.facts["step"][:, 1] = 1.0, 0.0001, 0.01
    assert w.ask(10, 0.9999) == Refusal.NONE
    assert w.ask(10, 1.0001) == Refusal.INCREMENT
