"""Frames, fields and the two long messages, checked against what the client library itself writes and reads."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ib_insync import Contract, LimitOrder, MarketOrder, Order, PriceCondition, TagValue, TimeCondition
from ib_insync.client import Client
from ib_insync.decoder import Decoder

from engine.domain.instruments import SIM_UNIVERSE
from engine.paper.account import Margins
from engine.paper.fields import FieldError, FieldReader, number, payload
from engine.paper.framing import FrameDecoder, FrameError, frame, whole_frame
from engine.paper.messages_in import In
from engine.paper.order_out import WhatIf, acknowledgement, open_order
from engine.paper.order_templates import OrderTemplates
from engine.paper.orders import Ledger, PaperOrder, corrected_id, on_increment
from engine.paper.place_order import ContractKey, OrderKind, OrderRequest, read_place_order
from engine.paper.session import agreed_version

VERSIONS = [157, 159, 160, 162, 163, 164, 166, 169, 170, 176]


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=12), st.integers(1, 20))
def test_frames_survive_any_slicing_of_the_stream(bodies, width):
    stream = b"".join(frame(body) for body in bodies)
    decoder = FrameDecoder()
    seen = []
    for start in range(0, len(stream), width):
        decoder.push(stream[start : start + width])
        while (body := decoder.next_frame()) is not None:
            seen.append(body)
    assert seen == bodies
    assert decoder.buffered_bytes == 0


@pytest.mark.parametrize("length", [0, 1025, 2**31])
def test_a_frame_outside_the_limit_is_refused(length):
    decoder = FrameDecoder(1024)
    decoder.push(length.to_bytes(4, "big"))
    with pytest.raises(FrameError, match=str(length)):
        decoder.next_frame()


@pytest.mark.parametrize(
    ("value", "expected"),
    [(100.0, "100"), (150.01, "150.01"), (0.1 + 0.2, "0.3"), (math.nan, ""), (math.inf, "Infinite"), (-1.5, "-1.5")],
)
def test_numbers_are_written_without_noise(value, expected):
    assert number(value) == expected


def test_characters_outside_ascii_are_escaped():
    assert payload("Zürich") == b"Z\\u00fcrich\0"


@pytest.mark.parametrize("offer", [b"v157..176\0", b"v100..176", b"v176", b"v100..300 +PACEAPI"])
def test_a_version_offer_is_read(offer):
    assert agreed_version(offer) == 176


def written_by_library(contract: Contract, order: Order, version: int) -> bytes:
    """placeOrder as the client library encodes it for a server version."""
    client = Client.__new__(Client)
    sent: list[str] = []
    client.isConnected = lambda: True
    client.serverVersion = lambda: version
    client.sendMsg = sent.append
    client.placeOrder(12, contract, order)
    return sent[0].encode()


def read(message: bytes, version: int) -> OrderRequest:
    reader = FieldReader(message)
    assert reader.integer("id") == In.PLACE_ORDER
    return read_place_order(reader, version)


STOCK = Contract(secType="STK", conId=265598, symbol="AAPL", exchange="SMART", currency="USD")


@pytest.mark.parametrize("version", VERSIONS)
def test_plain_orders_of_the_library_are_read_in_every_layout(version):
    order = LimitOrder("SELL", 300, 151.25, tif="GTC", orderRef="r-1", outsideRth=True, account="DUSIM001")
    request = read(written_by_library(STOCK, order, version), version)
    assert (request.order_id, request.action, request.quantity) == (12, "SELL", 300)
    assert (request.kind.order_type, request.limit, request.kind.tif) == ("LMT", 151.25, "GTC")
    assert (request.order_ref, request.kind.outside_rth, request.kind.account) == ("r-1", True, "DUSIM001")
    assert (request.kind.transmit, request.kind.what_if, request.kind.unsupported) == (True, False, "")
    market = read(written_by_library(STOCK, MarketOrder("BUY", 1, whatIf=True), version), version)
    assert market.kind.what_if
    assert math.isnan(market.limit)


UNUSUAL = [
    ({"algoStrategy": "Adaptive", "algoParams": [TagValue("adaptivePriority", "Urgent")]}, "algorithm Adaptive"),
    ({"conditions": [PriceCondition(conId=1, exch="SMART", price=5.0), TimeCondition(time="x")]}, "order conditions"),
    ({"allOrNone": True}, "allOrNone 1"),
    ({"hidden": True}, "hidden 1"),
    ({"displaySize": 50}, "displaySize 50"),
    ({"minQty": 5}, "minQty 5"),
    ({"cashQty": 1000.0}, "cashQty 1000.0"),
    ({"discretionaryAmt": 0.05}, "discretionaryAmt 0.05"),
    ({"goodAfterTime": "20260101 10:00:00"}, "goodAfterTime 20260101 10:00:00"),
    ({"triggerMethod": 4}, "triggerMethod 4"),
    ({"adjustedOrderType": "TRAIL"}, "adjustedOrderType TRAIL"),
    ({"usePriceMgmtAlgo": True}, "usePriceMgmtAlgo 1"),
    ({"scaleInitLevelSize": 2}, "scaleInitLevelSize 2"),
    ({"hedgeType": "D", "hedgeParam": "1"}, "hedge orders"),
    ({"scalePriceIncrement": 0.5}, "scale orders"),
    ({"deltaNeutralOrderType": "LMT"}, "deltaNeutralOrderType LMT"),
    ({"orderType": "PEG BENCH"}, ""),
    ({"orderType": "PEG MID"}, ""),
    ({"orderType": "PEG BEST", "competeAgainstBestOffset": math.inf}, ""),
]


@pytest.mark.parametrize("version", [157, 176])
@pytest.mark.parametrize(("change", "named"), UNUSUAL)
def test_optional_blocks_move_fields_but_not_their_meaning(change, named, version):
    order = LimitOrder("BUY", 7, 10.0, tif="DAY", whatIf=True, orderRef="x")
    for name, value in change.items():
        setattr(order, name, value)
    request = read(written_by_library(STOCK, order, version), version)
    assert request.kind.unsupported == named
    assert (request.kind.what_if, request.order_ref, request.quantity) == (True, "x", 7)


@pytest.mark.parametrize("version", VERSIONS)
def test_stops_trails_groups_and_attachments_of_the_library_are_read_in_every_layout(version):
    order = Order(action="SELL", totalQuantity=5, orderType="TRAIL", auxPrice=0.5, trailStopPrice=99.5, tif="GTC")
    order.ocaGroup, order.ocaType, order.parentId, order.transmit = "g", 1, 4, False
    request = read(written_by_library(STOCK, order, version), version)
    assert (request.kind.order_type, request.aux, request.kind.trail_stop) == ("TRAIL", 0.5, 99.5)
    assert (request.kind.oca_group, request.kind.oca_type, request.kind.parent_id) == ("g", 1, 4)
    assert not request.kind.transmit
    percent = Order(action="BUY", totalQuantity=5, orderType="TRAIL", trailingPercent=2.5, tif="DAY")
    assert read(written_by_library(STOCK, percent, version), version).kind.trail_percent == 2.5


@pytest.mark.parametrize("version", VERSIONS)
def test_an_order_that_the_gateway_told_of_can_be_sent_back(version):
    order = PaperOrder(1_500_000_001, 1, 12, 0, "BUY", 100.0, "LMT", 140.0, "GTC", "DUSIM001", outside_rth=True)
    sink = _Sink()
    Decoder(sink, version).interpret(open_order(order, SIM_UNIVERSE[0], version).decode().split("\0")[:-1])
    _, contract, told, _ = sink.seen[0]
    request = read(written_by_library(contract, told, version), version)
    assert (request.kind.unsupported, request.kind.idle(request)) == ("", [])
    assert (request.quantity, request.limit, request.kind.tif, request.kind.outside_rth) == (100, 140.0, "GTC", True)


def test_an_order_cut_anywhere_is_an_error_that_names_the_field():
    whole = written_by_library(STOCK, LimitOrder("BUY", 7, 10.0), 176).split(b"\0")
    for length in range(1, len(whole) - 1):
        with pytest.raises(FieldError, match="field"):
            read(b"\0".join(whole[:length]) + b"\0", 176)


class _Sink:
    """Takes the place of the library's wrapper."""

    def __init__(self) -> None:
        self.seen: list[tuple] = []

    def openOrder(self, *args):
        self.seen.append(args)


@pytest.mark.parametrize("version", VERSIONS)
def test_open_orders_are_read_by_the_library_in_every_layout(version):
    order = PaperOrder(1_500_000_007, 3, 12, 0, "BUY", 300, "LMT", 150.25, "GTC", "DUSIM001", order_ref="r")
    order.fill(100, 150.0, 1.0)
    sink = _Sink()
    decoder = Decoder(sink, version)
    margins = WhatIf(Margins(10.0, 1.0, 0.5), Margins(9.0, 2.0, 1.0), 1.25)
    for what_if in (None, margins):
        decoder.interpret(open_order(order, SIM_UNIVERSE[0], version, what_if).decode().split("\0")[:-1])
    (order_id, contract, seen, state), (_, _, hypothetical, hypothetical_state) = sink.seen
    assert (order_id, contract.conId, contract.symbol, contract.exchange) == (12, 265598, "AAPL", "SMART")
    assert (seen.action, seen.totalQuantity, seen.lmtPrice, seen.tif) == ("BUY", 300, 150.25, "GTC")
    assert (seen.permId, seen.clientId, seen.orderRef, seen.account) == (1_500_000_007, 3, "r", "DUSIM001")
    assert (state.status, state.commission, seen.whatIf) == ("Submitted", 1.0, False)
    assert hypothetical.whatIf
    assert (hypothetical_state.initMarginChange, hypothetical_state.equityWithLoanAfter) == ("1", "9")
    assert hypothetical_state.commission == 1.25


def test_a_corrected_execution_replaces_the_original():
    assert corrected_id("0000e0d5.00000001.01.01") == "0000e0d5.00000001.01.02"
    assert corrected_id("a.b.01.09") == "a.b.01.10"


def test_ids_rise_per_client_and_perm_ids_are_never_zero():
    ledger = Ledger(7)
    ledger.put(PaperOrder(ledger.new_perm_id(), 1, 10, 0, "BUY", 1, "MKT", math.nan, "DAY", "D"))
    ledger.put(PaperOrder(ledger.new_perm_id(), 2, 3, 0, "BUY", 1, "MKT", math.nan, "DAY", "D"))
    assert (ledger.next_order_id(1), ledger.next_order_id(2), ledger.next_order_id(3)) == (11, 4, 1)
    assert all(order.perm_id > 0 for order in ledger.orders.values())


def test_an_execution_larger_than_the_remainder_is_refused():
    order = PaperOrder(1, 1, 1, 0, "BUY", 10, "MKT", math.nan, "DAY", "D")
    order.fill(6, 1.0, 0.0)
    with pytest.raises(ValueError, match="remainder is 4"):
        order.fill(5, 1.0, 0.0)


@given(st.integers(1, 100_000_000))
def test_every_whole_cent_is_on_the_increment_and_half_a_cent_is_not(cents):
    assert on_increment(cents / 100, 0.01)
    assert not on_increment(cents / 100 + 0.005, 0.01)


@given(
    orders=st.lists(
        st.tuples(
            st.sampled_from(("BUY", "SELL", "sell")),
            st.one_of(st.integers(-5, 10**9), st.sampled_from((math.inf, 1.5, "nan", "", "x", 1.7976931348623157e308))),
            st.sampled_from(("LMT", "MKT", "STP", "PEG MID")),
            st.one_of(st.floats(0.01, 1e5), st.sampled_from(("", "Infinite", "1e400", "abc"))),
            st.sampled_from(("", "r-1", "ümlaut", "\0")),
            st.sampled_from(("DAY", "GTC")),
        ),
        max_size=12,
    ),
    cut=st.integers(0, 140),
)
def test_orders_read_by_template_are_those_read_in_full(orders, cut):
    templates = OrderTemplates()
    for order_id, (action, quantity, kind, limit, reference, tif) in enumerate(orders):
        order = LimitOrder(action, 1, 1.0, tif=tif, orderRef="REF")
        order.orderType = kind
        fields = written_by_library(STOCK, order, 176).split(b"\0")
        fields[1], fields[17], fields[19] = str(order_id).encode(), str(quantity).encode(), str(limit).encode()
        fields[26] = reference.encode()
        if cut < len(fields) - 1:
            del fields[cut]
        message = b"\0".join(fields)
        by_template = templates.read(message, 176)
        try:
            in_full = read(message, 176) if message.startswith(b"3\0") else None
        except FieldError:
            assert by_template is None
            continue
        if by_template is not None and in_full is not None:
            assert repr(by_template) == repr(in_full)


def test_the_second_order_of_a_kind_is_read_by_template():
    templates = OrderTemplates()
    first = written_by_library(STOCK, LimitOrder("BUY", 5, 10.0, tif="DAY"), 176)
    templates.read(first, 176)
    second = written_by_library(STOCK, LimitOrder("SELL", 7, 11.5, tif="DAY", orderRef="x"), 176)
    found = templates.read(second, 176)
    assert found is not None
    assert (found.action, found.quantity, found.limit, found.order_ref) == ("SELL", 7.0, 11.5, "x")


@given(
    kind=st.tuples(
        st.sampled_from(("LMT", "MKT", "STP", "STP LMT", "TRAIL", "MOC")),
        st.sampled_from(("DAY", "GTC", "IOC")),
        st.booleans(),
        st.sampled_from(("", "group")),
        st.sampled_from((0, 7)),
        st.sampled_from((math.nan, 99.5)),
        st.sampled_from((math.nan, 2.5)),
    ),
    numbers=st.lists(
        st.tuples(st.integers(1, 10**6), st.floats(0.01, 1e4), st.sampled_from((math.nan, 0.5, 100.0)), st.text()),
        min_size=1,
        max_size=4,
    ),
    version=st.sampled_from(VERSIONS),
)
def test_the_acknowledgement_of_a_kind_is_the_open_order_that_is_written_in_full(kind, numbers, version):
    order_type, tif, outside, group, parent, trail_stop, trail_percent = kind
    contract = ContractKey(265598, "AAPL", "STK", "SMART", "", "USD", "")
    shared = OrderKind(contract, order_type, tif, "", "", True, outside, False, "", group, 3, parent)
    for size, limit, aux, reference in numbers:
        order = PaperOrder(1_500_000_000 + size, 3, size, 0, "BUY", size, order_type, limit, tif, "DUSIM001")
        order.aux, order.order_ref, order.outside_rth, order.oca_group = aux, reference, outside, group
        order.parent_order_id, order.trail_stop, order.trail_percent = parent, trail_stop, trail_percent
        in_full = open_order(order, SIM_UNIVERSE[0], version)
        assert acknowledgement(order, shared, SIM_UNIVERSE[0], version) == in_full


@given(st.binary(max_size=30), st.integers(-2, 2))
def test_only_one_exact_frame_is_taken_as_a_whole(body, error):
    data = max(0, len(body) + error).to_bytes(4, "big") + body
    assert whole_frame(data) == (body if body and not error else None)
