"""``BrokerLink`` to a simulated exchange in the same thread: what a socket is to a gateway, on a clock that is driven.

Everything takes ``latency_ns`` one way: an order sent at t reaches the exchange at t + latency, and what the exchange
does at t is seen at t + latency. The exchange therefore never runs ahead of an order that is on its way, and nothing is
seen before it could have been.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from engine.broker.link import Line, LinkPhase, WireOrder
from engine.broker.news import AccountEnd, ExecutionNews, HaltNews, LinkDown, LinkUp, News, TimeNews
from engine.domain.codes import DepthOp
from engine.domain.instruments import MAX_SYMBOLS
from engine.model.history import ticks_of
from engine.paper.port import MARKET_EVENT, MarketEventKind
from engine.replay.exchange import SimExchange
from shm.layouts import TICK

TICK_BATCH = 8192
NEVER = (1 << 62) - 1
SERVER_VERSION = 176
_ACCOUNT_NS = 180_000_000_000
"""The broker repeats account values this often although nothing was traded."""
_KINDS = {
    Line.DEPTH: (int(MarketEventKind.DEPTH), int(MarketEventKind.RESET)),
    Line.PRINTS: (int(MarketEventKind.TRADE),),
    Line.QUOTES: (int(MarketEventKind.INDEX),),
}
_SPOKEN = np.zeros(256, bool)
_SPOKEN[[int(MarketEventKind.OWN_FILL), int(MarketEventKind.OWN_DONE), int(MarketEventKind.HALT)]] = True
"""Kinds of events that become news rather than ticks."""
Records = npt.NDArray[np.void]
Request = Callable[[int], list[News]]


class SimLink:
    """See ``BrokerLink``. ``now`` is the simulated clock."""

    def __init__(self, exchange: SimExchange, now: Callable[[], int], latency_ns: int) -> None:
        if latency_ns < 0:
            raise ValueError(f"latency_ns = {latency_ns}: must not be negative")
        self.phase = LinkPhase.CLOSED
        self.news: deque[News] = deque()
        self.ticks: Records = np.zeros(TICK_BATCH, TICK)
        self.tick_count = 0
        self.last_message_ns = 0
        self.messages_sent = 0
        self.bad_frames = 0
        self.exchange = exchange
        self._now = now
        self._latency_ns = latency_ns
        self._queued: list[Request] = []
        self._arriving: list[tuple[int, int, Request]] = []
        self._count = 0
        self._telling: deque[tuple[int, News]] = deque()
        """(when it is seen, news), in time order."""
        self._events: deque[Records] = deque()
        """What the subscriber will see of the market, in time order."""
        self._wanted: npt.NDArray[np.bool_] = np.zeros((MAX_SYMBOLS, 256), bool)
        """By symbol and kind of event: is it subscribed?"""
        self._session = 0
        self._executions_id = 0
        self._account_due = False

    # Session.

    def connect(self, now_ns: int) -> None:
        self._drop()
        self.phase = LinkPhase.CONNECTING
        ex = self.exchange
        self._queue(lambda _: [LinkUp((ex.account_id,), ex.next_order_id, SERVER_VERSION)])
        self.flush()

    def disconnect(self, reason: str) -> None:
        if self.phase == LinkPhase.CLOSED:
            return
        self._drop()
        self.news.append(LinkDown(reason))

    def _drop(self) -> None:
        """What was said and not heard is lost; what was sent still arrives, as on a wire."""
        self.phase = LinkPhase.CLOSED
        self._session += 1
        self._account_due = False
        self.tick_count = 0
        self._queued.clear()
        self._telling.clear()
        self._events.clear()
        self._wanted[:] = False

    def fileno(self) -> int:
        return -1

    # Time.

    def next_ns(self) -> int:
        """When something is to be heard or to arrive next; far in the future if nothing is."""
        due = min(
            self._arriving[0][0] if self._arriving else NEVER,
            self._telling[0][0] if self._telling else NEVER,
        )
        # Rows that show nothing (deep levels) are skipped, as far as no order can arrive before them.
        free_ns = min(due, self._now() + self._latency_ns)
        while not self._events and (row_ns := self.exchange.market.next_ns()) < free_ns:
            self._run(row_ns)
            if self._telling:
                due = min(due, self._telling[0][0])
        if self._events:
            return min(due, int(self._events[0]["t_ns"][0]) + self._latency_ns)
        return min(due, self.exchange.market.next_ns() + self._latency_ns)

    def poll(self, now_ns: int) -> int:
        while self._arriving and self._arriving[0][0] <= now_ns:
            t_ns, _, request = heapq.heappop(self._arriving)
            self._run(t_ns)
            self._tell(request(t_ns), t_ns)
            self._run(t_ns)
        self._run(now_ns - self._latency_ns)
        return self._hear(now_ns)

    def _run(self, t_ns: int) -> None:
        for events in self.exchange.advance(t_ns):
            kind = events["kind"]
            for event in events[_SPOKEN[kind]]:
                at_ns = int(event["t_ns"])
                if event["kind"] == MarketEventKind.HALT:
                    self._tell([HaltNews(int(event["symbol"]), event["flag"] == 1)], at_ns)
                else:
                    self._tell(self.exchange.own(event, at_ns), at_ns)
            seen = events[self._wanted[events["symbol"], kind]]
            if len(seen):
                self._events.append(seen)

    def _tell(self, news: list[News], t_ns: int) -> None:
        if self.phase == LinkPhase.CLOSED:
            return
        due = t_ns + self._latency_ns
        for one in news:
            if isinstance(one, ExecutionNews | TimeNews):
                one = replace(one, t_socket_ns=due)
            self._telling.append((due, one))

    def _hear(self, now_ns: int) -> int:
        handled = 0
        seen_ns = now_ns - self._latency_ns
        while self._events and self.tick_count < TICK_BATCH:
            events = self._events[0]
            room = TICK_BATCH - self.tick_count
            count = min(room, int(np.searchsorted(events["t_ns"], seen_ns, side="right")))
            if not count:
                break
            ticks = ticks_of(events[:count])
            ticks["t_socket_ns"] += self._latency_ns
            ticks["t_decoded_ns"] = ticks["t_socket_ns"]
            self.ticks[self.tick_count : self.tick_count + count] = ticks
            self.tick_count += count
            handled += count
            if count == len(events):
                self._events.popleft()
            else:
                self._events[0] = events[count:]
        while self._telling and self._telling[0][0] <= now_ns:
            news = self._telling.popleft()[1]
            if isinstance(news, LinkUp):
                self.phase = LinkPhase.OPEN
            self.news.append(news)
            handled += 1
        if handled:
            self.last_message_ns = now_ns
        return handled

    def take_ticks(self) -> Records:
        taken = self.ticks[: self.tick_count]
        self.tick_count = 0
        return taken

    # Sending.

    def _queue(self, request: Request) -> None:
        self._queued.append(request)
        self.messages_sent += 1

    def flush(self) -> bool:
        arrives_ns = self._now() + self._latency_ns
        for request in self._queued:
            self._schedule(request, arrives_ns)
        self._queued.clear()
        return True

    def _schedule(self, request: Request, t_ns: int) -> None:
        self._count += 1
        heapq.heappush(self._arriving, (t_ns, self._count, request))

    def place(self, order: WireOrder) -> None:
        def arrive(t_ns: int) -> list[News]:
            told = self.exchange.place(order, t_ns)
            self._tell(told, t_ns)
            self._run(t_ns)
            return self.exchange.settle(order.order_id)

        self._queue(arrive)

    def cancel(self, order_id: int) -> None:
        self._queue(lambda t_ns: self.exchange.cancel(order_id, t_ns))

    def global_cancel(self) -> None:
        def arrive(t_ns: int) -> list[News]:
            for order in self.exchange.working():
                self._tell(self.exchange.cancel(order.wire.order_id, t_ns), t_ns)
                self._run(t_ns)
            return []

        self._queue(arrive)

    def request_open_orders(self) -> None:
        self._queue(lambda _: self.exchange.open_orders())

    def request_executions(self) -> int:
        self._executions_id += 1
        req_id = self._executions_id
        self._queue(lambda _: self.exchange.executions(req_id))
        return req_id

    def request_positions(self) -> None:
        self._queue(lambda _: self.exchange.positions())

    def request_account(self, account: str) -> None:
        self._queue(lambda t_ns: [*self.exchange.account_values(), AccountEnd(account)])
        if not self._account_due:
            self._account_due = True
            self._schedule(self._repeat_account(self._session), self._now() + _ACCOUNT_NS)

    def _repeat_account(self, session: int) -> Request:
        def repeat(t_ns: int) -> list[News]:
            if session != self._session:
                return []
            self._schedule(repeat, t_ns + _ACCOUNT_NS)
            return self.exchange.account_values()

        return repeat

    def probe(self) -> None:
        self._queue(self.exchange.time)

    def subscribe(self, symbol: int, line: Line) -> None:
        """Depth begins with the whole book as it stands when the request arrives."""
        session = self._session

        def arrive(t_ns: int) -> list[News]:
            if session == self._session:
                self._wanted[symbol, list(_KINDS.get(line, ()))] = True
                if line == Line.DEPTH:
                    self._events.append(self._book(symbol, t_ns))
            return []

        self._queue(arrive)

    def _book(self, symbol: int, t_ns: int) -> Records:
        bids, asks = self.exchange.market.snapshot(symbol)
        rows = np.zeros(len(bids) + len(asks), MARKET_EVENT)
        rows["t_ns"], rows["symbol"] = t_ns, symbol
        rows["kind"], rows["op"] = MarketEventKind.DEPTH, DepthOp.INSERT
        at = 0
        for side, found in ((1, bids), (0, asks)):
            part = rows[at : at + len(found)]
            part["side"], part["level"] = side, np.arange(len(found))
            if len(found):
                part["price"], part["size"] = found[:, 0], found[:, 1]
            at += len(found)
        return rows

    def unsubscribe(self, symbol: int, line: Line) -> None:
        """At once for what is on its way: a late message of a cancelled subscription is dropped."""
        kinds = _KINDS.get(line, ())
        self._wanted[symbol, list(kinds)] = False
        left = deque[Records]()
        for events in self._events:
            kept = events[(events["symbol"] != symbol) | ~np.isin(events["kind"], kinds)]
            if len(kept):
                left.append(kept)
        self._events = left
        self._queue(lambda _: [])

    def request_details(self, symbol: int) -> None:
        self._queue(lambda t_ns: self.exchange.details(symbol, t_ns))

    def request_market_rule(self, rule_id: int) -> None:
        """The simulated contracts name no rule."""

    def qualify(self, symbol: int, con_id: int, primary_exchange: str) -> None:
        """Symbols are addressed by number here."""
