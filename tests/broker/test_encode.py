"""Orders from templates against the library's own encoder, at every server version that we announce."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.broker import encode as e
from engine.broker.ib_link import IbLink, _Encoder
from engine.broker.ibapi_compat import MAX_VERSION, MIN_VERSION
from engine.broker.link import LinkPhase, WireOrder
from engine.broker.listener import Listener
from engine.domain.instruments import Instrument
from engine.runtime.ids import order_ref

ACCOUNT = "DUSIM001"
STOCKS = (
    Instrument(0, "AAPL", 265598),
    Instrument(1, "BRK B", 0, primary_exchange="NYSE"),
)


def link(version: int, account: str = ACCOUNT) -> IbLink:
    found = IbLink("127.0.0.1", 1, 7, STOCKS, lambda: 0)
    found._client._serverVersion = version
    found._client.connState = found._client.CONNECTED
    found.phase = LinkPhase.OPEN
    if account:
        assert found.learn(account) == len(STOCKS), f"no template at server version {version}"
    return found


LINKS = {version: link(version) for version in range(MIN_VERSION, MAX_VERSION + 1)}


def by_library(version: int, order: WireOrder) -> bytes:
    """The frame as a client of its own encodes it: nothing of the link takes part but the form of the order."""
    frames: list[bytes] = []
    client: Any = _Encoder(Listener(deque(), lambda _: (0, -1)), frames.append)
    client._serverVersion, client.connState = version, client.CONNECTED
    client.placeOrder(order.order_id, LINKS[version]._contracts[order.symbol], IbLink._order(order))
    return frames[0]


def by_link(found: IbLink, order: WireOrder) -> bytes:
    found._out.clear()
    found.place(order)
    return bytes(found._out)


PRICES = st.one_of(
    st.decimals("0.01", 100_000, places=2).map(float),
    st.decimals("0.0001", 9_999, places=4).map(float),
    st.floats(1e-6, 1e12),
    st.integers(1, 10**7).map(float),
    st.sampled_from([0.1 + 0.2, 1 / 3, 99999.995, 1e-4, 0.001, 1e9, 123456789.123456]),
)  # fmt: skip
ORDERS = st.builds(
    WireOrder,
    order_id=st.integers(1, 2**31 - 2),
    symbol=st.integers(0, 1),
    side=st.sampled_from([1, -1]),
    qty=st.one_of(st.integers(1, 10**6).map(float), st.sampled_from([0.5, 1e9, 3e9])),
    order_type=st.sampled_from(["LMT", "MKT"]),
    limit_price=PRICES,
    tif=st.sampled_from(["DAY", "IOC", "GTC"]),
    outside_rth=st.booleans(),
    order_ref=st.one_of(st.integers(1, 2**63 - 1).map(order_ref), st.sampled_from(["", "by hand", "L2:xyz"])),
    account=st.just(ACCOUNT),
)


@settings(max_examples=600, deadline=None)
@given(ORDERS, st.integers(MIN_VERSION, MAX_VERSION))
def test_an_order_has_the_bytes_that_the_library_would_send(order: WireOrder, version: int) -> None:
    assert by_link(LINKS[version], order) == by_library(version, order)


@pytest.mark.parametrize("version", range(MIN_VERSION, MAX_VERSION + 1))
def test_every_server_version_has_a_template_and_uses_it(version: int) -> None:
    found = LINKS[version]
    order = WireOrder(5, 0, 1, 100.0, "LMT", 187.15, "DAY", False, order_ref(77), ACCOUNT)
    calls: list[Any] = []
    original, found._client.placeOrder = found._client.placeOrder, lambda *a: calls.append(a)
    try:
        assert by_link(found, order)
        assert not calls, "the library encoded it"
    finally:
        found._client.placeOrder = original


@settings(max_examples=400, deadline=None)
@given(PRICES)
def test_prices_are_written_as_python_writes_them_or_declined(price: float) -> None:
    out = np.zeros(64, np.uint8)
    end = int(e.write_price(out, 0, price))
    same = e.write_price.py_func(out.copy(), 0, price)
    assert end == same
    if end != e.DECLINED:
        assert out[:end].tobytes().decode() == str(price)
    elif 0.01 <= price < 1e6:
        assert len(str(price).replace(".", "").strip("0")) > 9, price


def test_what_the_template_does_not_write_is_declined_and_left_to_the_library() -> None:
    templates, out = LINKS[176].templates, np.zeros(2 * e.FRAME_BYTES, np.uint8)
    good = (5, 1, 100.0, e.LMT, 10.5, 1, 77, 0)
    assert e.encode_order(templates, 0, out, 0, *good) > 0
    for at, bad in ((0, 0), (2, 0.0), (2, 1.5), (2, math.nan), (2, 2e9), (3, 7), (4, math.nan), (4, math.inf), (6, -1)):
        values = list(good)
        values[at] = bad
        assert e.encode_order(templates, 0, out, 0, *values) == e.DECLINED, (at, bad)
    assert e.encode_order(templates, 0, out[:300], 0, *good) == e.DECLINED


def test_a_library_that_encodes_otherwise_gets_no_template() -> None:
    templates = np.zeros(1, e.TEMPLATE)
    one = link(176)

    def twice(*values: Any) -> bytes:
        """Repeats the order id in a second field."""
        order_id, side, qty, kind, limit, tif, intent_id, outside = values
        words = "MKT" if kind == e.MKT else "LMT"
        order = WireOrder(
            order_id, 0, side, qty, words, limit, e.TIFS[tif], bool(outside), order_ref(intent_id), ACCOUNT
        )
        frame = by_link(one, order)
        body = frame[4:] + str(order_id).encode() + b"\0"
        return len(body).to_bytes(4, "big") + body

    assert not e.learn(templates, 0, twice)
    assert templates[0]["parts"] == 0


def test_another_account_or_contract_is_learnt_before_the_next_order() -> None:
    found = link(176)
    order = WireOrder(5, 1, 1, 100.0, "LMT", 187.15, "DAY", False, order_ref(77), "DU222")
    assert b"\0DU222\0" in by_link(found, order)
    found.qualify(1, 4242, "NYSE")
    assert b"\x004242\0" in by_link(found, order)
