"""Order validation: every wrong field is named; what reduces risk is recognised."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cockpit.errors import Problem
from engine.cockpit.ticket import idempotency_key, parse, reduces
from engine.config import Limits
from engine.domain.codes import OrderType, Side, TimeInForce
from engine.domain.instruments import SIM_INDEX, SIM_UNIVERSE

ALL = (*SIM_UNIVERSE, SIM_INDEX)
GOOD = {"symbol": "AAPL", "qty": 1, "side": "BUY", "type": "LMT", "limit": 150.00}
MIDS = {0: 150.0}


def wrong_fields(**changes: Any) -> set[str]:
    body = {k: v for k, v in {**GOOD, **changes}.items() if v is not ...}
    with pytest.raises(Problem) as caught:
        parse(body, ALL, Limits(), MIDS)
    assert caught.value.status == 422
    return {e.field for e in caught.value.errors}


def test_the_runbook_order_is_valid() -> None:
    ticket = parse(GOOD, ALL, Limits(), MIDS)
    assert (ticket.instrument.symbol, ticket.qty, ticket.side, ticket.order_type, ticket.limit, ticket.tif) == (
        "AAPL",
        1,
        Side.BUY,
        OrderType.LMT,
        150.0,
        TimeInForce.DAY,
    )


def test_a_market_order_has_no_limit() -> None:
    ticket = parse({"symbol": "AAPL", "qty": 5, "side": "SELL", "type": "MKT"}, ALL, Limits(), {})
    assert math.isnan(ticket.limit)
    assert wrong_fields(type="MKT") == {"limit"}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"symbol": "XXXX"}, "symbol"),
        ({"symbol": ...}, "symbol"),
        ({"symbol": 7}, "symbol"),
        ({"symbol": "INDU"}, "symbol"),
        ({"symbol": "DJI"}, "symbol"),
        ({"qty": 0}, "qty"),
        ({"qty": -1}, "qty"),
        ({"qty": 1.5}, "qty"),
        ({"qty": True}, "qty"),
        ({"qty": "1"}, "qty"),
        ({"qty": ...}, "qty"),
        ({"qty": None}, "qty"),
        ({"qty": 5001}, "qty"),
        ({"qty": 400}, "qty"),
        ({"qty": 10**30}, "qty"),
        ({"side": "buy"}, "side"),
        ({"side": ...}, "side"),
        ({"side": "NONE"}, "side"),
        ({"type": "STP"}, "type"),
        ({"type": []}, "type"),
        ({"tif": "FOK"}, "tif"),
        ({"limit": ...}, "limit"),
        ({"limit": 0}, "limit"),
        ({"limit": -5}, "limit"),
        ({"limit": float("nan")}, "limit"),
        ({"limit": float("inf")}, "limit"),
        ({"limit": "150"}, "limit"),
        ({"limit": 150.001}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": 160.0}, "limit"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_the_wrong_field_is_named(changes: dict[str, Any], field: str) -> None:
    assert wrong_fields(**changes) == {field}


def test_all_wrong_fields_are_named_at_once() -> None:
    assert wrong_fields(symbol="?", qty=0, side="?", type="?") == {"symbol", "qty", "side", "type"}


def test_a_passive_limit_far_away_is_allowed_and_an_aggressive_one_not() -> None:
    parse({**GOOD, "limit": 100.0}, ALL, Limits(), MIDS)
    assert wrong_fields(limit=157.51) == {"limit"}
    parse({**GOOD, "side": "SELL", "limit": 200.0}, ALL, Limits(), MIDS)
    assert wrong_fields(side="SELL", limit=142.0) == {"limit"}


@settings(max_examples=150)
@given(
    st.dictionaries(
        st.sampled_from(["symbol", "qty", "side", "type", "limit", "tif", "x"]),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-5, 10**7),
            st.floats(),
            st.text(max_size=5),
            st.sampled_from(["AAPL", "BUY", "SELL", "LMT", "MKT", "DAY", "IOC"]),
            st.lists(st.integers(), max_size=2),
        ),
    )
)
def test_any_body_is_a_valid_ticket_within_limits_or_a_422(body: dict[str, Any]) -> None:
    limits = Limits()
    refused: Problem | None = None
    try:
        ticket = parse(body, ALL, limits, MIDS)
    except Problem as problem:
        refused = problem
    if refused is not None:
        assert refused.status == 422
        assert refused.errors
        return
    assert isinstance(ticket.qty, int)
    assert 0 < ticket.qty <= limits.order_qty
    price = ticket.limit if ticket.order_type == OrderType.LMT else MIDS.get(ticket.instrument.index, 0.0)
    assert price * ticket.qty <= limits.order_notional_usd


@given(st.integers(-500, 500), st.integers(0, 200), st.sampled_from([Side.BUY, Side.SELL]), st.integers(1, 500))
def test_what_counts_as_reducing_never_passes_zero(position: int, working: int, side: Side, qty: int) -> None:
    if reduces(position, working, side, qty):
        after = position + int(side) * (qty + working)
        assert abs(after) < abs(position)
        assert after * position >= 0


@pytest.mark.parametrize("key", ["x" * 33, "é", "a\nb"])
def test_an_unusable_idempotency_key_is_named(key: str) -> None:
    with pytest.raises(Problem) as caught:
        idempotency_key(key)
    assert caught.value.errors[0].field == "Idempotency-Key"
    assert idempotency_key("x" * 32) == b"x" * 32
    assert idempotency_key(None) == b""
