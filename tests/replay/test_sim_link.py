"""The simulated exchange behind the bridge's port: latency, order news, costs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from engine.broker import news as n
from engine.broker.link import BrokerLink, Line, LinkPhase, WireOrder
from engine.domain.codes import DepthOp, TickKind
from engine.market.state import EVERYTHING, Market
from engine.paper.account import commission_total
from engine.paper.market.lobster import LobsterMarket
from engine.replay.exchange import SimExchange
from engine.replay.sim_link import SimLink
from engine.runtime.clock import ManualClock
from shm.layouts import MODEL

TINY = Path(__file__).resolve().parents[1] / "data" / "TINY_2024-01-02_34200000_34500000_message_5.csv"
LATENCY = 10_000_000
T0 = 1_000_000_000


class Rig:
    """A link on a clock that stands still."""

    def __init__(self, latency_ns: int = LATENCY) -> None:
        self.clock = ManualClock(T0)
        self.market = LobsterMarket(TINY, in_process=True, start_ns=T0)
        self.exchange = SimExchange(self.market, self.market.instruments, "DUSIM001", 1e6, 11, self.clock.wall_ns, T0)
        self.link = SimLink(self.exchange, self.clock.now_ns, latency_ns)
        port: BrokerLink = self.link
        port.connect(T0)
        self.until(T0 + 2 * latency_ns)
        assert isinstance(self.link.news.popleft(), n.LinkUp)

    def until(self, now_ns: int) -> None:
        self.clock.now = now_ns
        self.link.poll(now_ns)

    def later(self, by_ns: int) -> None:
        self.until(self.clock.now + by_ns)

    def order(
        self, order_id: int = 1, side: int = 1, qty: float = 10.0, limit: float = math.nan, tif: str = "DAY"
    ) -> None:
        kind = "MKT" if math.isnan(limit) else "LMT"
        self.link.place(WireOrder(order_id, 0, side, qty, kind, limit, tif, False, "L2:1", "DUSIM001"))
        self.link.flush()

    def told(self, kind: type) -> list[n.News]:
        return [x for x in self.link.news if isinstance(x, kind)]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_the_session_opens_after_one_round_trip() -> None:
    clock = ManualClock(T0)
    market = LobsterMarket(TINY, in_process=True, start_ns=T0)
    link = SimLink(
        SimExchange(market, market.instruments, "DUSIM001", 1e6, 11, clock.wall_ns, T0), clock.now_ns, LATENCY
    )
    link.connect(T0)
    link.poll(T0 + 2 * LATENCY - 1)
    assert (link.phase, len(link.news)) == (LinkPhase.CONNECTING, 0)
    link.poll(T0 + 2 * LATENCY)
    assert (link.phase, len(link.news)) == (LinkPhase.OPEN, 1)


def test_nothing_is_seen_before_it_could_have_been(rig: Rig) -> None:
    rig.link.subscribe(0, Line.DEPTH)
    rig.link.flush()
    sent = rig.clock.now
    rig.later(2 * LATENCY - 1)
    assert rig.link.tick_count == 0
    rig.later(1)
    book = rig.link.take_ticks()
    assert (book["kind"] == TickKind.DEPTH).all()
    assert (book["op"] == DepthOp.INSERT).all()
    assert len(book) == 10
    assert (book["t_socket_ns"] == sent + 2 * LATENCY).all()
    for _ in range(200):
        rig.later(500_000_000)
        for tick in rig.link.take_ticks():
            assert sent < int(tick["t_socket_ns"]) <= rig.clock.now


def test_ticks_rebuild_exactly_the_book_that_the_exchange_displays(rig: Rig) -> None:
    rig.link.subscribe(0, Line.DEPTH)
    rig.link.flush()
    books = Market(rig.market.instruments, depth_rows=5)
    for _ in range(300):
        rig.later(1_000_000_000)
        list(books.drain(rig.link.take_ticks().copy()))
    rig.later(LATENCY)
    list(books.drain(rig.link.take_ticks().copy()))
    books.publish(np.zeros(1, MODEL), rig.clock.now, EVERYTHING)
    bids, asks = rig.market.snapshot(0)
    b = books.books[0]
    assert b["bid_price"][: len(bids)].tolist() == bids[:, 0].tolist()
    assert b["ask_size"][: len(asks)].tolist() == asks[:, 1].tolist()


def test_a_market_order_trades_at_the_far_touch_with_the_brokers_commission(rig: Rig) -> None:
    _, asks = rig.market.snapshot(0)
    rig.order(qty=10.0)
    rig.later(2 * LATENCY - 1)
    assert not rig.told(n.ExecutionNews)
    rig.later(1)
    (done,) = rig.told(n.ExecutionNews)
    (fee,) = rig.told(n.CommissionNews)
    assert isinstance(done, n.ExecutionNews)
    assert isinstance(fee, n.CommissionNews)
    assert done.price >= asks[0, 0]
    assert fee.commission == pytest.approx(commission_total(10.0, 10.0 * done.price)) == 1.0
    statuses = [x.status for x in rig.told(n.OrderStatusNews) if isinstance(x, n.OrderStatusNews)]
    assert (statuses[0], statuses[-1]) == ("PreSubmitted", "Filled")
    assert rig.exchange.held(0) == 10.0


def test_a_resting_order_is_submitted_and_ends_cancelled(rig: Rig) -> None:
    rig.order(limit=40.0)
    rig.later(2 * LATENCY)
    rig.link.cancel(1)
    rig.link.flush()
    rig.later(2 * LATENCY)
    statuses = [x.status for x in rig.told(n.OrderStatusNews) if isinstance(x, n.OrderStatusNews)]
    assert statuses == ["PreSubmitted", "Submitted", "PendingCancel", "Cancelled"]
    rig.link.cancel(1)
    rig.link.flush()
    rig.later(2 * LATENCY)
    last = rig.link.news[-1]
    assert isinstance(last, n.ErrorNews)
    assert last.code == 10148


def test_what_an_immediate_order_leaves_is_cancelled(rig: Rig) -> None:
    rig.order(limit=40.0, tif="IOC")
    rig.later(2 * LATENCY)
    last = [x for x in rig.told(n.OrderStatusNews) if isinstance(x, n.OrderStatusNews)][-1]
    assert (last.status, last.filled) == ("Cancelled", 0.0)


def test_executions_of_a_lost_session_are_read_back_in_the_next(rig: Rig) -> None:
    rig.order(qty=10.0)
    rig.link.disconnect("test")
    rig.link.news.clear()
    rig.later(2 * LATENCY)
    assert not rig.told(n.ExecutionNews)
    rig.link.connect(rig.clock.now)
    rig.later(2 * LATENCY)
    req_id = rig.link.request_executions()
    rig.link.request_positions()
    rig.link.flush()
    rig.later(2 * LATENCY)
    (done,) = rig.told(n.ExecutionNews)
    assert isinstance(done, n.ExecutionNews)
    assert done.req_id == req_id
    assert n.ExecutionsEnd(req_id) in rig.link.news
    assert [x.qty for x in rig.told(n.PositionNews) if isinstance(x, n.PositionNews)] == [10.0]


def test_cash_and_positions_add_up_after_many_orders(rig: Rig) -> None:
    for k in range(1, 40):
        rig.order(k, 1 if k % 2 else -1, float(5 + k % 3))
        rig.later(3_000_000_000)
    rig.exchange.account.check(rig.exchange.marks())
    signed = sum(x.side * x.qty for x in rig.link.news if isinstance(x, n.ExecutionNews))
    assert rig.exchange.held(0) == pytest.approx(signed)


def test_a_negative_latency_is_refused() -> None:
    with pytest.raises(ValueError, match="latency_ns = -1"):
        Rig(-1)
