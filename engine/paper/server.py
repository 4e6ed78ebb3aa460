"""The gateway: owns the market, the desk, the feeds and all sessions, and moves time forward."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
import socket
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil

from engine.domain.instruments import Instrument
from engine.paper import messages_out as out
from engine.paper.account import Account
from engine.paper.account_feed import AccountFeed
from engine.paper.books import Marks
from engine.paper.catalog import Catalog, trading_day
from engine.paper.config import PaperConfig
from engine.paper.express import Express
from engine.paper.live_bars import LiveBars
from engine.paper.market_data import MarketFeed
from engine.paper.market_requests import bar_stamp
from engine.paper.messages_in import In
from engine.paper.order_news import Client
from engine.paper.orders import Ledger
from engine.paper.port import MARKET_EVENT, MarketEventKind, MarketSource
from engine.paper.requests import HANDLERS
from engine.paper.session import Session
from engine.paper.state import Journal, load, lock_state
from engine.paper.trading import Desk
from engine.paper.watch import regular

log = logging.getLogger(__name__)

STEP_NS = 4_000_000
"""Shortest pause between two looks at the market: events wait at most this long for their fan-out."""
IDLE_NS = 50_000_000
HEARTBEAT_NS = 20_000_000
POLL_EVENTS = 4096
MAX_CONNECTIONS = 200
"""More than any program needs, fewer than the descriptors of a process."""

_DEPTH, _OWN_FILL, _OWN_DONE = int(MarketEventKind.DEPTH), int(MarketEventKind.OWN_FILL), int(MarketEventKind.OWN_DONE)
_TRADE, _QUOTE = int(MarketEventKind.TRADE), int(MarketEventKind.QUOTE)
_ORDER_REQUESTS = frozenset((int(In.PLACE_ORDER), int(In.CANCEL_ORDER), int(In.GLOBAL_CANCEL)))

FARM_NOTICES = (
    (2104, "Market data farm connection is OK:usfarm"),
    (2106, "HMDS data farm connection is OK:ushmds"),
    (2158, "Sec-def data farm connection is OK:secdefil"),
)


class PortTaken(RuntimeError):
    """The listening port is in use; the message says by whom."""


def port_holder(port: int) -> str:
    """Who listens on a TCP port, as far as this user may know."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            address = connection.laddr
            if connection.status == psutil.CONN_LISTEN and address and address.port == port:
                if connection.pid is None:
                    return "a process of another user"
                try:
                    return f"pid {connection.pid} ({psutil.Process(connection.pid).name()})"
                except psutil.Error:
                    return f"pid {connection.pid}"
    except (psutil.Error, OSError):
        pass
    return "an unknown process"


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the gateway's address, not yet listening. Raises PortTaken.

    Done before the state is touched, so that a second gateway can't disturb the state of the first.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if error.errno != errno.EADDRINUSE:
            raise
        holder = port_holder(port)
        raise PortTaken(f"port {port} is held by {holder}; stop it or set another port for the paper gateway") from None
    return listener


class Gateway:
    """One gateway. ``clock_ns`` is monotonic; the wall clock is anchored to it once, at construction."""

    def __init__(
        self,
        config: PaperConfig,
        market: MarketSource,
        index: Instrument | None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        wall_ns: int | None = None,
    ) -> None:
        self.config = config
        self.market = market
        self.now_ns = clock_ns
        self._anchor_ns = clock_ns()
        self._anchor_wall_s = (time.time_ns() if wall_ns is None else wall_ns) / 1e9
        self.sessions: dict[Session, None] = {}  # ordered: earlier connections are told first
        self.refuse_until_ns = 0
        self.mute = False
        self.reply_delay_s = 0.0
        self.reply_jitter_s = 0.0
        self.reply_rng: random.Random | None = None  # of a delay that came with a seed; None: the one of all
        self.delays_orders = config.latency_ms > 0 or config.latency_jitter_ms > 0
        self._latency_rng = random.Random(config.seed)
        self.history_up = True
        self.taken_ids: dict[int, int] = {}  # client id to the time until which nobody may use it
        self._half_open: list[Session] = []
        self.id_rollback = 0
        self.link_up = True
        self.link_notice = (1100, "Connectivity between IBKR and the paper gateway has been lost.")
        """What clients are told while ``link_up`` does not hold."""
        self.events = 0
        self._held: list[tuple[Session, int, Any]] = []
        self._by_client: dict[int, Session] = {}
        self._buffer = np.zeros(POLL_EVENTS, MARKET_EVENT)
        self._heartbeat_ns = 0
        self._reported_events = 0
        self._day_check_ns = 0
        universe = {i.index: i for i in market.instruments}
        if index is not None:
            universe.setdefault(index.index, index)
        self.catalog = Catalog(tuple(universe.values()))
        market.advance(self._anchor_ns)
        halted: dict[int, bool] = {}
        while count := market.poll(self._buffer):
            # The snapshot that the feed starts from contains these, but for who is halted.
            for event in self._buffer[:count]:
                if event["kind"] == MarketEventKind.HALT:
                    halted[int(event["symbol"])] = bool(event["flag"])
        self.feed = MarketFeed(market, self.catalog, config.max_depth_lines, self.wall_of, self.wall_s)
        for symbol, is_halted in halted.items():
            self.feed.books[symbol].halted = is_halted
        self._marks = Marks(self.feed.books)
        self.bars = LiveBars(self.feed, bar_stamp)
        lock, saved = -1, None
        if config.state_file is not None:
            lock = lock_state(config.state_file)
            saved = load(config.state_file, self.catalog)
        if saved is None:
            self.account = Account.opened(config.equity_usd, trading_day(self.wall_s()))
            ledger, sequence = Ledger(int(self.wall_s()) & 0xFFFFFFFF), 0
        else:
            self.account, ledger, sequence = saved
        self.account.pairs = self.catalog.pairs
        self.journal = Journal(config.state_file, self.catalog, self.account, ledger, sequence, lock)
        self.desk = Desk(
            market,
            self.catalog,
            config.account,
            self.account,
            ledger,
            self.journal,
            self,
            self.marks,
            self.quote,
            self.pump,
            self.wall_s,
            config.commissions,
            config.hours,
            config.seed,
        )
        self.account_feed = AccountFeed(config.account, self.account, self.catalog, self.marks, self.wall_s)
        self._roll_day_if_due()
        self.desk.resume(self.catch_up())
        self.express = Express(self)
        self.express.refresh()

    # Time.

    def wall_of(self, t_ns: int) -> float:
        """UTC seconds of a time on the monotonic clock."""
        return self._anchor_wall_s + (t_ns - self._anchor_ns) / 1e9

    def wall_s(self) -> float:
        """UTC seconds now."""
        return self.wall_of(self.now_ns())

    def _roll_day_if_due(self) -> None:
        day = trading_day(self.wall_s())
        if day > self.account.day:
            self.desk.roll_day(day, self.now_ns())

    def session_filter(self, regular_only: bool) -> Callable[[float], bool] | None:
        """Which seconds are within the hours asked for (useRTH); None: all, as always in a market that never closes."""
        return regular if regular_only and self.config.hours == "regular" else None

    # Market.

    def marks(self) -> Marks:
        """Price by symbol at which positions are valued."""
        return self._marks

    def quote(self, symbol: int) -> tuple[float, float, float]:
        """Bid, ask and last trade of a symbol; NaN or 0 where there is none."""
        book = self.feed.books[symbol]
        return book.bid, book.ask, book.last

    def catch_up(self) -> int:
        """Bring the market to the present and distribute what happened; returns the time."""
        now_ns = self.now_ns()
        self.market.advance(now_ns)
        self.pump()
        return now_ns

    def pump(self) -> None:
        """Distribute all events that wait in the market source."""
        feed, desk = self.feed, self.desk
        watched = desk.watched
        while True:
            count = self.market.poll(self._buffer)
            if not count:
                return
            self.events += count
            for t_ns, key, price, size, symbol, kind, side, op, level, flag, _ in self._buffer[:count].tolist():
                if kind == _DEPTH:
                    feed.row_changed(symbol, side, (op, level, price, size))
                elif kind == _OWN_FILL:
                    desk.filled(key, price, size, bool(flag))
                elif kind == _OWN_DONE:
                    desk.done(key, flag)
                else:
                    feed.handle(t_ns, price, size, symbol, kind, side, flag)
                    if symbol in watched and watched[symbol] and kind in (_TRADE, _QUOTE):
                        desk.market_moved(symbol, traded=kind == _TRADE)
            desk.work(self.now_ns())

    def step(self, heartbeat: Callable[[int, int], None] | None = None) -> float:
        """One turn of the loop; returns how many seconds it may sleep. ``heartbeat``: see ``run``."""
        now_ns = self.catch_up()
        self.feed.flush_quotes(now_ns)
        self.account_feed.tick(list(self._by_client.values()), now_ns)
        self.bars.tick(self.wall_of(now_ns))
        if now_ns - self._day_check_ns > 1_000_000_000:
            self._day_check_ns = now_ns
            self._roll_day_if_due()
            self.desk.tick(now_ns)
        self.flush_all()
        if heartbeat is not None and now_ns - self._heartbeat_ns >= HEARTBEAT_NS:
            self._heartbeat_ns = now_ns
            heartbeat(now_ns, self.events - self._reported_events)
            self._reported_events = self.events
        wait_ns = self.market.next_ns() - self.now_ns()
        return min(max(wait_ns, STEP_NS), IDLE_NS) / 1e9

    # Sessions.

    def accept(self, session: Session) -> bool:
        """A new connection; False while connections are refused, or if there are too many."""
        if self.now_ns() < self.refuse_until_ns:
            return False
        if len(self.sessions) >= MAX_CONNECTIONS:
            log.warning("connection refused: there are %d, allowed are %d", len(self.sessions), MAX_CONNECTIONS)
            return False
        session.muted = self.mute
        self.sessions[session] = None
        return True

    def log_in(self, session: Session, client_id: int) -> None:
        """startApi: 326 if the id is in use, else accounts, next order id and farm notices, in this order."""
        if session.client_id >= 0:
            session.error(out.SYSTEM, 321, "Error validating request.-'startApi' : cause - the API has started already")
            return
        if not 0 <= client_id < 2**31:
            session.system(321, f"Error validating request.-'startApi' : cause - client id {client_id} is not allowed")
            session.drop("bad client id")
            return
        if client_id in self._by_client or self.taken_ids.get(client_id, 0) > self.now_ns():
            session.system(326, "Unable to connect as the client id is already in use. Retry with a unique client id.")
            session.drop(f"client id {client_id} in use")
            return
        session.client_id = client_id
        self._by_client[client_id] = session
        session.send(out.managed_accounts(self.config.account))
        session.send(out.next_valid_id(self.next_valid_id(client_id)))
        for code, text in FARM_NOTICES:
            session.system(code, text)
        if not self.link_up:
            session.system(*self.link_notice)

    def next_valid_id(self, client_id: int) -> int:
        return max(1, self.desk.ledger.next_order_id(client_id) - self.id_rollback)

    def gone(self, session: Session) -> None:
        """A connection has ended; its orders stay."""
        self.sessions.pop(session, None)
        if self._by_client.get(session.client_id) is session:
            del self._by_client[session.client_id]
        self.feed.forget(session)
        self.bars.forget(session)

    def handle(self, session: Session, message_id: int, request: Any) -> None:
        """Carry out a request; orders wait while the link to the broker is down."""
        if not self.link_up and message_id in _ORDER_REQUESTS:
            self._held.append((session, message_id, request))
            return
        HANDLERS[message_id](self, session, request)

    def release_held(self) -> None:
        """Carry out the order messages that came while the link was down."""
        held, self._held = self._held, []
        for session, message_id, request in held:
            HANDLERS[message_id](self, session, request)

    def clients(self) -> list[Session]:
        """Connections that have started the API."""
        return list(self._by_client.values())

    def flush_all(self) -> None:
        """Send what is queued; whatever happens ends with it, so the express lane looks anew."""
        self.flush()
        self.express.refresh()

    def hold_half_open(self, session: Session) -> None:
        """Keep a connection that nobody serves any more."""
        self._half_open.append(session)

    def end_half_open(self) -> None:
        """Reset every connection that nobody serves."""
        held, self._half_open = self._half_open, []
        for session in held:
            session.abort_half_open()

    def order_latency_s(self) -> float:
        """Seconds that the next order message spends on its way: the latency model."""
        config = self.config
        if not config.latency_jitter_ms:
            return config.latency_ms / 1e3
        return (config.latency_ms + self._latency_rng.expovariate(1.0 / config.latency_jitter_ms)) / 1e3

    @property
    def has_master(self) -> bool:
        """True while somebody sees the orders of all."""
        return self.config.master_client_id in self._by_client

    @property
    def slow(self) -> bool:
        """True while a fault delays answers."""
        return self.reply_delay_s > 0 or self.reply_jitter_s > 0

    def reply_delay(self) -> float:
        """Seconds by which the next answer is late (a fault)."""
        jitter_s = self.reply_jitter_s
        if not jitter_s:
            return self.reply_delay_s
        return self.reply_delay_s + (self.reply_rng or self.desk.faults.rng).random() * jitter_s

    # Audience of the desk.

    def flush(self) -> None:
        for session in list(self.sessions):
            session.flush()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        def act() -> None:
            action()
            self.flush_all()

        asyncio.get_running_loop().call_later(seconds, act)

    def of_order(self, client_id: int, order_id: int) -> list[Client]:
        owner = self._by_client.get(client_id) if order_id else None
        master = self._by_client.get(self.config.master_client_id)
        found: list[Client] = []
        if owner is not None:
            found.append(owner)
        if master is not None and master is not owner:
            found.append(master)
        return found

    def owner(self, client_id: int) -> Client | None:
        return self._by_client.get(client_id)

    def binds_manual_orders(self) -> bool:
        zero = self._by_client.get(0)
        return zero is not None and zero.auto_bind

    def traded(self, symbol: int) -> None:
        self.account_feed.traded(list(self._by_client.values()), symbol)

    # Life.

    async def listen(self, listener: socket.socket) -> asyncio.Server:
        """Start to accept connections on a bound socket."""
        return await asyncio.get_running_loop().create_server(lambda: Session(self), sock=listener)

    async def run(self, stop: asyncio.Event, heartbeat: Callable[[int, int], None] | None = None) -> None:
        """Move the market until ``stop`` is set.

        ``heartbeat`` gets (monotonic ns, market events handled since its last call), some 20 to 50 times a second.
        """
        while not stop.is_set():
            await asyncio.sleep(self.step(heartbeat))

    def close(self) -> None:
        """Drop every client and write the state."""
        self.end_half_open()
        for session in list(self.sessions):
            session.drop("the gateway stops")
        self.journal.close()
        log.info("paper gateway of pid %d closed after %d events", os.getpid(), self.events)
