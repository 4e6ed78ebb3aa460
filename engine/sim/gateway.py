"""The API gateway in a simulation: two doors to one exchange, latency, and everything that goes wrong between.

Everything takes ``latency_ns`` one way. The market never runs ahead of a request that is on its way, whichever door it
came through.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine.broker import news as n
from engine.broker.link import Line, LinkPhase, WireOrder
from engine.domain.codes import DepthOp
from engine.paper.port import MARKET_EVENT, MarketEventKind
from engine.replay.sim_link import SERVER_VERSION, Request, SimLink
from engine.runtime.clock import ManualClock
from engine.sim.exchange import FaultyExchange
from engine.sim.machine import NEVER, Killed

LOGIN_NS = 10_000_000_000
BRIDGE, EMERGENCY = "bridge", "emergency"
_SPOKEN = np.zeros(256, bool)
_SPOKEN[[int(MarketEventKind.OWN_FILL), int(MarketEventKind.OWN_DONE), int(MarketEventKind.HALT)]] = True
_PUSHED = (n.PositionNews, n.AccountValueNews)
"""What a client hears of the orders of another one."""
_STATUS = (n.OrderStatusNews, n.OpenOrderNews)
Records = npt.NDArray[np.void]


@dataclass(slots=True)
class Trouble:
    """What is wrong with one door. Times are when it ends."""

    refuse_until_ns: int = 0
    mute_until_ns: int = 0
    slow_until_ns: int = 0
    slow_ns: int = 0
    twice_until_ns: int = 0
    lost_until_ns: int = 0
    late_until_ns: int = 0
    half_open: bool = False
    rollback: int = 0
    """The next login is told an order id that is so much too low."""


class Door(Protocol):
    client: int

    def tell(self, news: list[n.News], t_ns: int) -> None: ...

    def hang_up(self, reason: str) -> None: ...


class Witness(Protocol):
    """Sees every message that leaves, before it does, and everything that is heard."""

    def placed(self, door: str, order: WireOrder, t_ns: int) -> None: ...

    def cancelled(self, door: str, order_id: int, t_ns: int) -> None: ...

    def message(self, door: str, what: str, t_ns: int) -> None: ...

    def heard(self, door: str, news: n.News, t_ns: int) -> None: ...


class Local:
    """A request that the gateway answers by itself, also while it has lost the broker."""

    def __init__(self, request: Request) -> None:
        self._request = request

    def __call__(self, t_ns: int) -> list[n.News]:
        return self._request(t_ns)


class Gateway:
    def __init__(
        self, exchange: FaultyExchange, clock: ManualClock, latency_ns: int, chance: random.Random, witness: Witness
    ) -> None:
        self.exchange, self.clock, self.latency_ns, self.chance, self.witness = (
            exchange, clock, latency_ns, chance, witness,
        )  # fmt: skip
        self.doors: dict[str, Door] = {}
        self.trouble = {BRIDGE: Trouble(), EMERGENCY: Trouble()}
        self.broker_lost = False
        self.loss_code = 1100
        self._arriving: list[tuple[int, int, Request, Callable[[list[n.News], int], None]]] = []
        self._deferred: list[tuple[Request, Callable[[list[n.News], int], None]]] = []
        self._held: list[tuple[list[n.News], int]] = []
        self._count = 0
        self.market_events = 0
        self.depth_ns = np.zeros(64, np.int64)
        """When the market itself last changed a book, by symbol number: as many as the masks have bits."""
        self.flying: dict[tuple[int, int], WireOrder] = {}
        """Orders that have left and not arrived, by (client, order id)."""

    # Requests.

    def schedule(self, request: Request, t_ns: int, answer: Callable[[list[n.News], int], None]) -> None:
        self._count += 1
        heapq.heappush(self._arriving, (t_ns, self._count, request, answer))

    def next_ns(self) -> int:
        return self._arriving[0][0] if self._arriving else NEVER

    def busy(self) -> bool:
        """Is anything on its way, or held back?"""
        return bool(self._arriving or self._deferred or self._held or self.flying)

    def pump(self, now_ns: int) -> None:
        """Carry out what has arrived, and let the market run as far as nothing can arrive any more."""
        while self._arriving and self._arriving[0][0] <= now_ns:
            t_ns, _, request, answer = heapq.heappop(self._arriving)
            self.run(t_ns)
            if self.broker_lost and not isinstance(request, Local):
                self._deferred.append((request, answer))
                continue
            answer(request(t_ns), t_ns)
            self.run(t_ns)
        self.run(now_ns - self.latency_ns)

    def run(self, t_ns: int) -> None:
        exchange = self.exchange
        for events in exchange.advance(t_ns):
            kind = events["kind"]
            self.market_events += len(events)
            depth = events[kind == MarketEventKind.DEPTH]
            np.maximum.at(self.depth_ns, depth["symbol"], depth["t_ns"])
            for event in events[_SPOKEN[kind]]:
                if event["kind"] == MarketEventKind.HALT:
                    self.spread([n.HaltNews(int(event["symbol"]), event["flag"] == 1)], 0, t_ns)
                else:
                    owner = exchange.order(int(event["order_key"])).client
                    self.spread(exchange.own(event, t_ns), owner, t_ns)
            bridge = self.doors.get(BRIDGE)
            if isinstance(bridge, FaultLink):
                bridge.market(events, t_ns)

    def spread(self, news: list[n.News], owner: int, t_ns: int) -> None:
        """Tell everybody what concerns them; ``owner`` 0: news of no order. Held back while the broker is lost."""
        if self.broker_lost:
            self._held.append((news, owner))
            return
        for door in self.doors.values():
            heard: list[n.News] = news if owner in (0, door.client) else [x for x in news if isinstance(x, _PUSHED)]
            if heard:
                door.tell(heard, t_ns)

    # Trouble.

    def lose_broker(self, code: int = 1100) -> None:
        """``code``: 1100 or 2110."""
        self.broker_lost, self.loss_code = True, code
        error = n.ErrorNews(-1, code, "Connectivity between IBKR and the gateway has been lost.")
        for door in self.doors.values():
            door.tell([error], self.clock.now)

    def find_broker(self, data_lost: bool, code: int = 0) -> None:
        """``code``: 2104, which may end a 2110; 0: 1101 or 1102."""
        self.broker_lost = False
        words = "lost" if data_lost else "maintained"
        code = code or (1101 if data_lost else 1102)
        bridge = self.doors.get(BRIDGE)
        if data_lost and isinstance(bridge, FaultLink):
            bridge.forget_lines()
        for door in self.doors.values():
            door.tell([n.ErrorNews(-1, code, f"Connectivity has been restored - data {words}.")], self.clock.now)
        held, self._held = self._held, []
        for news, owner in held:
            self.spread(news, owner, self.clock.now)
        deferred, self._deferred = self._deferred, []
        for request, answer in deferred:
            self.schedule(request, self.clock.now + self.latency_ns, answer)

    def next_order_id(self, client: int) -> int:
        """What nextValidId says to a client."""
        door = BRIDGE if self.doors.get(BRIDGE) is not None and self.doors[BRIDGE].client == client else EMERGENCY
        trouble = self.trouble[door]
        back, trouble.rollback = trouble.rollback, 0
        return max(1, self.exchange.next_id(client) - back)


class FaultLink(SimLink):
    """The bridge's link. ``kill_at_flush``: the process dies 1 before, 2 after it hands an order to the kernel."""

    exchange: FaultyExchange

    def __init__(self, gateway: Gateway, client: int) -> None:
        super().__init__(gateway.exchange, gateway.clock.now_ns, gateway.latency_ns)
        self.gateway, self.client = gateway, client
        self.kill_at_flush = 0
        self._unsent: dict[tuple[int, int], WireOrder] = {}
        self._last_due_ns = self._asked_ns = 0
        gateway.doors[BRIDGE] = self

    @property
    def trouble(self) -> Trouble:
        return self.gateway.trouble[BRIDGE]

    # Session.

    def connect(self, now_ns: int) -> None:
        self._drop()
        if now_ns < self.trouble.refuse_until_ns:
            self.news.append(n.LinkDown("connection refused", refused=True))
            return
        self.trouble.half_open = False
        self.phase, self._asked_ns = LinkPhase.CONNECTING, now_ns
        gateway, account = self.gateway, self.exchange.account_id

        def login(_: int) -> list[n.News]:
            told: list[n.News] = [n.LinkUp((account,), gateway.next_order_id(self.client), SERVER_VERSION)]
            if gateway.broker_lost:
                words = "Connectivity between IBKR and the gateway has been lost."
                told.append(n.ErrorNews(-1, gateway.loss_code, words))
            return told

        self._queue(Local(login))
        self.flush()

    def hang_up(self, reason: str) -> None:
        self.disconnect(reason)

    def vanish(self) -> None:
        """The process is gone: nothing is heard any more; what was sent still arrives."""
        self._drop()
        self.news.clear()

    def _drop(self) -> None:
        super()._drop()
        self._last_due_ns = 0

    # Time.

    def next_ns(self) -> int:
        due = self._telling[0][0] if self._telling else NEVER
        if self._events:
            due = min(due, int(self._events[0]["t_ns"][0]) + self._latency_ns)
        due = max(due, self.trouble.mute_until_ns) if due < NEVER else due
        return min(due, self.exchange.market.next_ns() + self._latency_ns)

    def next_news_ns(self) -> int:
        """When something is heard next that is neither a price nor the time of day."""
        for due, news in self._telling:
            if type(news) is not n.TimeNews:
                return max(due, self.trouble.mute_until_ns)
        return NEVER

    def behind(self) -> bool:
        """Is something told and not heard?"""
        return bool(self._telling or self.news)

    def poll(self, now_ns: int) -> int:
        self.gateway.pump(now_ns)
        if self.phase == LinkPhase.CONNECTING and now_ns - self._asked_ns > LOGIN_NS:
            self.disconnect(f"no answer to the login within {LOGIN_NS / 1e9:g} s")
        return self._hear(now_ns)

    def _run(self, t_ns: int) -> None:
        self.gateway.run(t_ns)

    def _hear(self, now_ns: int) -> int:
        if now_ns < self.trouble.mute_until_ns or self.trouble.half_open:
            return 0
        before = len(self.news)
        handled = super()._hear(now_ns)
        for k in range(before, len(self.news)):
            self.gateway.witness.heard(BRIDGE, self.news[k], now_ns)
        return handled

    def market(self, events: Records, t_ns: int) -> None:
        """What the subscriber will see of it, later."""
        if self.phase == LinkPhase.CLOSED or self.trouble.half_open:
            return
        seen = events[self._wanted[events["symbol"], events["kind"]]]
        if len(seen):
            self._events.append(seen)

    def forget_lines(self) -> None:
        self._wanted[:] = False
        self._events.clear()

    def reset_book(self, symbol: int) -> None:
        """317: the rows of a symbol are void; all of them follow anew."""
        if not self._wanted[symbol, int(MarketEventKind.DEPTH)]:
            return
        t_ns = max(self.gateway.clock.now, int(self._events[-1]["t_ns"][-1]) if self._events else 0)
        void = np.zeros(1, MARKET_EVENT)
        void["t_ns"], void["symbol"], void["kind"] = t_ns, symbol, int(MarketEventKind.RESET)
        self._events.append(void)
        self._events.append(self._book(symbol, t_ns))
        self.tell([n.ErrorNews(1000 + symbol, 317, "Market depth data has been RESET.", symbol, "depth")], t_ns)

    def poison(self, symbol: int) -> None:
        """A row whose price is no number."""
        if not self._wanted[symbol, int(MarketEventKind.DEPTH)]:
            return
        row = np.zeros(1, MARKET_EVENT)
        row["t_ns"] = max(self.gateway.clock.now, int(self._events[-1]["t_ns"][-1]) if self._events else 0)
        row["symbol"], row["kind"], row["op"] = symbol, int(MarketEventKind.DEPTH), int(DepthOp.UPDATE)
        row["side"], row["price"], row["size"] = 1, np.nan, 100.0
        self._events.append(row)

    # What is told.

    def tell(self, news: list[n.News], t_ns: int) -> None:
        self._tell(news, t_ns)

    def _tell(self, news: list[n.News], t_ns: int) -> None:
        trouble = self.trouble
        if self.phase == LinkPhase.CLOSED or trouble.half_open:
            return
        chance = self.gateway.chance
        slow = trouble.slow_ns if t_ns < trouble.slow_until_ns else 0
        told = list(news)
        listing = any(isinstance(x, n.OpenOrdersEnd) for x in told)  # an answer is complete, or there is none
        if not listing and any(isinstance(x, _STATUS) for x in told):
            if t_ns < trouble.lost_until_ns:
                told = [x for x in told if not isinstance(x, _STATUS) or chance.random() < 0.4]
            if t_ns < trouble.twice_until_ns:
                told = [y for x in told for y in ((x, x) if isinstance(x, _STATUS) else (x,))]
            if t_ns < trouble.late_until_ns:
                late: list[n.News] = [x for x in told if isinstance(x, _STATUS) and chance.random() < 0.5]
                if late:
                    told = [x for x in told if not any(x is y for y in late)]
                    self.gateway.schedule(
                        _nothing, t_ns + int(chance.uniform(1e6, 4e8)), lambda _, t: self._append(late, t)
                    )
        self._append(told, t_ns + slow)

    def _append(self, news: list[n.News], t_ns: int) -> None:
        if self.phase == LinkPhase.CLOSED:
            return
        due = self._last_due_ns = max(t_ns + self._latency_ns, self._last_due_ns)
        for one in news:
            if isinstance(one, n.ExecutionNews | n.TimeNews):
                one = replace(one, t_socket_ns=due)
            self._telling.append((due, one))

    # What is sent.

    def flush(self) -> bool:
        unsent, self._unsent = self._unsent, {}
        mode, queued = self.kill_at_flush, self._queued
        if mode == 1 and unsent:
            raise Killed
        if queued and not self.trouble.half_open and self.phase != LinkPhase.CLOSED:
            arrives_ns = self._now() + self._latency_ns
            session = self._session
            self.gateway.flying.update(unsent)
            for request in queued:
                self.gateway.schedule(request, arrives_ns, self._answerer(session))
        self._queued = []
        if mode == 2 and unsent:
            raise Killed
        return True

    def _answerer(self, session: int) -> Callable[[list[n.News], int], None]:
        def answer(news: list[n.News], t_ns: int) -> None:
            if session == self._session:
                self._tell(news, t_ns)

        return answer

    def _schedule(self, request: Request, t_ns: int) -> None:
        self.gateway.schedule(request, t_ns, self._answerer(self._session))

    def _queue(self, request: Request) -> None:
        super()._queue(request)
        self.gateway.witness.message(BRIDGE, "", self._now())

    def probe(self) -> None:
        self._queue(Local(self.exchange.time))

    def place(self, order: WireOrder) -> None:
        self.gateway.witness.placed(BRIDGE, order, self._now())
        gateway, client, session = self.gateway, self.client, self._session

        def arrive(t_ns: int) -> list[n.News]:
            gateway.flying.pop((client, order.order_id), None)
            told = gateway.exchange.place(order, t_ns, client)
            if session == self._session:
                self._tell(told, t_ns)
            gateway.run(t_ns)
            return gateway.exchange.settle(order.order_id, client)

        self._unsent[client, order.order_id] = order
        self._queue(arrive)

    def cancel(self, order_id: int) -> None:
        self.gateway.witness.cancelled(BRIDGE, order_id, self._now())
        super().cancel(order_id)

    def global_cancel(self) -> None:
        self.gateway.witness.cancelled(BRIDGE, 0, self._now())
        self._queue(global_cancel(self.gateway))

    def subscribe(self, symbol: int, line: Line) -> None:
        if line == Line.QUOTES and symbol < len(self.exchange.traded):
            self._queue(lambda _: [])  # quotes follow from depth here; the index has nothing else
        else:
            super().subscribe(symbol, line)


def _nothing(_: int) -> list[n.News]:
    return []


def global_cancel(gateway: Gateway) -> Request:
    """Everything that works in the account, whoever placed it."""

    def arrive(t_ns: int) -> list[n.News]:
        for order in gateway.exchange.working():
            gateway.spread(gateway.exchange.cancel(order.wire.order_id, t_ns, order.client), order.client, t_ns)
            gateway.run(t_ns)
        return []

    return arrive
