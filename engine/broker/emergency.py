"""The emergency connection: a thin non-blocking socket around ``emergency_codec``, and getting flat over it.

Used by the watchdog (connected all the time under its own client id: probe of the gateway, and the hand that acts when
the bridge is dead) and by ``flatten_direct`` for `l2dash flatten --direct`, which needs no other process of the system.
"""

from __future__ import annotations

import contextlib
import errno
import math
import random
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.broker.emergency_codec import (
    Accounts,
    BrokerError,
    CodecError,
    Contract,
    CurrentTime,
    EmergencyCodec,
    Handshake,
    Message,
    NextId,
    OpenOrder,
    OpenOrdersEnd,
    OrderStatus,
    Position,
    PositionsEnd,
)  # fmt: skip
from engine.config import Config
from engine.domain.codes import FlattenState, Source
from engine.risk import flatten as fl

SECOND_NS = 1_000_000_000
CONNECT_TIMEOUT_NS = 4 * SECOND_NS
ENDED = ("Filled", "Cancelled", "ApiCancelled", "Inactive")
REJECTIONS = (103, 104, 110, 200, 201, 203, 321, 10318)
CLIENT_ID_IN_USE = 326


class EmergencyConnection:
    """Connects and reconnects in the background; nothing here ever blocks. Call ``poll`` often."""

    def __init__(
        self, host: str, port: int, client_id: int, *, messages_per_s: int = 5, probe_interval_s: float = 1.5,
        reconnect_min_s: float = 0.25, reconnect_max_s: float = 10.0, seed: int = 0,
    ) -> None:  # fmt: skip
        self._address = (host, port)
        self.client_id = client_id
        self.messages_per_s = messages_per_s
        self._probe_ns = int(probe_interval_s * SECOND_NS)
        self._backoff = (reconnect_min_s, reconnect_max_s)
        self._random = random.Random(seed)
        self._socket: socket.socket | None = None
        self._codec = EmergencyCodec(client_id)
        self._connected = False
        self._out = bytearray()
        self._queue: deque[bytes] = deque()
        self._sent_at: deque[int] = deque()
        self._retry_ns = 0
        self._attempts = 0
        self._deadline_ns = 0
        self._probe_at_ns = 0
        self._probe_sent_ns = 0
        self.answered_ns = 0
        """Time of the last message from the gateway."""
        self.next_order_id = 0
        self.accounts: tuple[str, ...] = ()
        self.incarnation = 0
        """Counts completed logins: what was known before a new one is old."""
        self.last_error = ""

    @property
    def codec(self) -> EmergencyCodec:
        return self._codec

    @property
    def ready(self) -> bool:
        """Logged in: requests and orders may be sent."""
        return self._connected and self.next_order_id > 0 and bool(self.accounts)

    def fileno(self) -> int:
        """Descriptor to wait on, -1 while there is none."""
        return self._socket.fileno() if self._socket is not None else -1

    def answer_age_ns(self, now_ns: int) -> int:
        """Since the gateway last said anything; -1 while not logged in."""
        return now_ns - self.answered_ns if self.ready and self.answered_ns else -1

    @property
    def unsent(self) -> int:
        return len(self._queue) + bool(self._out)

    def send(self, *frames: bytes, urgent: bool = False) -> None:
        """Queue messages; urgent ones overtake those that wait. They leave at most ``messages_per_s`` in any second."""
        if urgent:
            self._queue.extendleft(reversed(frames))
        else:
            self._queue.extend(frames)

    def poll(self, now_ns: int) -> list[Message]:
        """Move everything that can be moved; returns what has arrived."""
        try:
            if self._socket is None:
                if now_ns >= self._retry_ns:
                    self._open(now_ns)
                return []
            if not self._connected and not self._established(now_ns):
                return []
            messages = self._receive(now_ns)
            if self._socket is not None:
                self._probe(now_ns)
                self._flush(now_ns)
            return messages
        except (OSError, CodecError) as error:
            self._lost(str(error), now_ns)
            return []

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket, self._connected = None, False

    def _open(self, now_ns: int) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._deadline_ns = now_ns + CONNECT_TIMEOUT_NS
        code = sock.connect_ex(self._address)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, f"{self._address[0]}:{self._address[1]} refused ({errno.errorcode.get(code, code)})")

    def _established(self, now_ns: int) -> bool:
        assert self._socket is not None
        poller = select.poll()
        poller.register(self._socket, select.POLLOUT)
        if not poller.poll(0):
            if now_ns > self._deadline_ns:
                raise OSError("no answer to connect")
            return False
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, f"connect to {self._address[0]}:{self._address[1]}: {errno.errorcode.get(code, code)}")
        self._connected = True
        self._codec = EmergencyCodec(self.client_id)
        self._out = bytearray(self._codec.hello())
        self._queue.clear()
        self.next_order_id, self.accounts = 0, ()
        return True

    def _receive(self, now_ns: int) -> list[Message]:
        assert self._socket is not None
        messages: list[Message] = []
        while True:
            try:
                data = self._socket.recv(65_536)
            except BlockingIOError:
                break
            if not data:
                raise OSError("the gateway closed the connection")
            self.answered_ns = now_ns
            was_ready = self.ready
            for message in self._codec.receive(data):
                self._own(message)
                messages.append(message)
            if self.ready and not was_ready:
                self.incarnation += 1
                self._attempts = 0
                self._probe_at_ns = now_ns
        if not self.ready and now_ns > self._deadline_ns:
            raise OSError("connected, but no login within 4 s")
        return messages

    def _own(self, message: Message) -> None:
        if isinstance(message, Handshake):
            self._out += self._codec.start_api()
        elif isinstance(message, NextId):
            self.next_order_id = max(self.next_order_id, message.order_id)
        elif isinstance(message, Accounts):
            self.accounts = message.accounts
        elif isinstance(message, CurrentTime):
            self._probe_sent_ns = 0
        elif isinstance(message, BrokerError) and message.request_id < 0:
            self.last_error = f"{message.code} {message.text}"

    def _probe(self, now_ns: int) -> None:
        if self.ready and now_ns >= self._probe_at_ns:
            self._probe_at_ns = now_ns + self._probe_ns
            self._probe_sent_ns = self._probe_sent_ns or now_ns
            self._queue.append(self._codec.request_current_time())

    def _flush(self, now_ns: int) -> None:
        assert self._socket is not None
        if self.ready:
            while self._sent_at and now_ns - self._sent_at[0] >= SECOND_NS:
                self._sent_at.popleft()
            while self._queue and len(self._sent_at) < self.messages_per_s:
                self._out += self._queue.popleft()
                self._sent_at.append(now_ns)
        if self._out:
            with contextlib.suppress(BlockingIOError):
                del self._out[: self._socket.send(self._out)]

    def _lost(self, why: str, now_ns: int) -> None:
        self.close()
        self.last_error = self.last_error if self.last_error.startswith(str(CLIENT_ID_IN_USE)) else why
        self.next_order_id, self.accounts = 0, ()
        self._queue.clear()
        self._out.clear()
        low, high = self._backoff
        wait_s = min(high, low * 2.0 ** min(self._attempts, 10)) * self._random.uniform(0.75, 1.25)
        self._attempts += 1
        self._retry_ns = now_ns + int(wait_s * SECOND_NS)


@dataclass(slots=True)
class _Order:
    contract: int
    signed: float
    remaining: float
    client_id: int
    order_ref: str
    status: str = ""
    own: bool = False
    decided: bool = False
    unlisted: int = 0
    """Complete reads that did not show it while it had no answer."""


Quotes = Callable[[int], tuple[float, float]]
"""(bid, ask) of a contract by its con_id, NaN where not known."""


class DirectFlatten:
    """The flatten machine over an emergency connection. Symbols are the contracts in the order they are met.

    ``only``: con_ids in scope (account scope "managed"); None: everything in the account, with global cancel.
    """

    def __init__(
        self, connection: EmergencyConnection, account: str, *, only: frozenset[int] | None, reason: str, now_ns: int,
        wall_s: int, quotes: Quotes | None = None, regular_hours: bool = True, cancel_only: bool = False,
    ) -> None:  # fmt: skip
        self._connection, self._account, self._only = connection, account, only
        self._quotes, self._regular = quotes, regular_hours
        self._config = fl.FlattenConfig()
        self.contracts: list[Contract] = []
        self._index: dict[int, int] = {}
        self._qty: list[float] = []
        self._reading: dict[int, float] = {}
        self._orders: dict[tuple[int, int], _Order] = {}
        self._listed: set[tuple[int, int]] = set()
        self._events = self._snapshots = 0
        self._begin_ns = self._asked_ns = 0
        self._ends = 0
        self._snapshot = (0, 0, 0, 0, 0)  # begin, end, events, open orders, positions
        self._rejected = 0
        self._rejecting = 0
        self._incarnation = connection.incarnation
        self._ref = int(Source.WATCHDOG) << 56 | (wall_s & 0xFFFFFFFF) << 24
        self._count = 0
        self.cancel_only = cancel_only
        """Cancel what works and read the account, but close nothing yet."""
        self.alerts: list[str] = []
        self.closed = 0
        self.state = fl.start(now_ns, 0, source=Source.WATCHDOG, reason=reason, cause_ns=now_ns, now_ns=now_ns)
        self._known = False

    @property
    def done(self) -> bool:
        return not self.state.active

    def held(self) -> list[str]:
        """What is open, in words."""
        words = [
            f"{c.symbol} {self._qty[i]:+g}" for i, c in enumerate(self.contracts) if abs(self._qty[i]) > fl.EPSILON
        ]
        words += [f"order {key[1]} of client {key[0]}" for key, o in self._orders.items() if o.status not in ENDED]
        return words

    @property
    def known(self) -> bool:
        """The account has been read completely at least once."""
        return self._known

    def step(self, messages: list[Message], now_ns: int) -> None:
        """Take in what has arrived, advance, send."""
        connection = self._connection
        if connection.incarnation != self._incarnation:  # a new login: nothing outstanding will be answered
            self._incarnation, self._asked_ns, self._ends = connection.incarnation, 0, 0
            for order in self._orders.values():
                order.decided = True  # what was queued is gone, what was sent is told by the next read
            if self._known:
                self.state = fl.resume(self.state, now_ns, len(self.contracts))
        for message in messages:
            self._take(message, now_ns)
        if not connection.ready:
            return
        if not self._known:
            if not self._asked_ns or now_ns - self._asked_ns > 2 * SECOND_NS:
                self._cancel_all()
                self._ask(now_ns)
            return
        if self.cancel_only:
            return
        self.state, actions = fl.step(self.state, self._view(now_ns), now_ns, self._config)
        self._rejected = 0
        for action in actions:
            if isinstance(action, fl.CancelAll):
                self._cancel_all()
            elif isinstance(action, fl.Close):
                self._close(action)
            elif isinstance(action, fl.RequestSnapshot):
                self._ask(now_ns)
            elif isinstance(action, fl.Alert):
                self.alerts.append(f"{action.text}; remaining: {', '.join(self.held()) or 'unconfirmed'}")

    def _ask(self, now_ns: int) -> None:
        codec = self._connection.codec
        self._begin_ns = self._asked_ns = now_ns
        self._ends = 0
        self._reading, self._listed = {}, set()
        self._connection.send(codec.request_all_open_orders(), codec.request_positions())

    def _cancel_all(self) -> None:
        codec = self._connection.codec
        if self._only is None:
            self._connection.send(codec.global_cancel(), urgent=True)
            return
        frames = [
            codec.cancel_order(key[1])
            for key, order in self._orders.items()
            if key[0] == self._connection.client_id and order.status not in ENDED
        ]
        self._connection.send(*frames, urgent=True)

    def _close(self, close: fl.Close) -> None:
        connection = self._connection
        order_id = connection.next_order_id
        connection.next_order_id += 1
        self._count += 1
        self.closed += 1
        ref = f"L2:{self._ref | self._count:x}"
        action = "BUY" if close.side > 0 else "SELL"
        limit = close.limit if math.isnan(close.limit) else round(close.limit, 2)
        contract = self.contracts[close.symbol]
        frame = connection.codec.place_order(
            order_id, contract, action, close.qty, self._account, ref, limit, outside_hours=not math.isnan(limit)
        )
        connection.send(frame)
        self._orders[connection.client_id, order_id] = _Order(
            close.symbol, close.qty * int(close.side), close.qty, connection.client_id, ref, own=True
        )

    def _contract(self, contract: Contract) -> int:
        at = self._index.get(contract.con_id)
        if at is None:
            at = self._index[contract.con_id] = len(self.contracts)
            self.contracts.append(contract)
            self._qty.append(0.0)
            in_scope = self._only is None or contract.con_id in self._only
            s = self.state
            self.state = replace(
                s, scope=s.scope | (1 << at if in_scope else 0), retry_ns=(*s.retry_ns, 0), rejects=(*s.rejects, 0)
            )
        return at

    def _in_scope(self, order: _Order) -> bool:
        return self._only is None or bool(self.state.scope >> order.contract & 1 and order.order_ref.startswith("L2:"))

    def _take(self, m: Message, now_ns: int) -> None:
        if isinstance(m, Position):
            if m.account == self._account:
                at = self._contract(m.contract)
                self._reading[at] = m.qty
                if self._qty[at] != m.qty:
                    self._qty[at] = m.qty
                    self._events += self._known
        elif isinstance(m, OpenOrder):
            self._take_order(m)
        elif isinstance(m, OrderStatus):
            self._take_status(m)
        elif isinstance(m, BrokerError):
            order = self._orders.get((self._connection.client_id, m.request_id))
            if order is not None and m.code in REJECTIONS:
                if order.own and order.status not in ENDED:
                    self._rejected |= 1 << order.contract
                order.status, order.decided = "Inactive", True
                self._events += 1
                if m.code == 103:
                    self._connection.next_order_id += 1_000
        elif isinstance(m, OpenOrdersEnd | PositionsEnd) and self._asked_ns:
            self._ends |= 1 if isinstance(m, OpenOrdersEnd) else 2
            if self._ends == 3:
                self._complete(now_ns)

    def _take_order(self, m: OpenOrder) -> None:
        if m.account and m.account != self._account:
            return
        key = (m.client_id, m.order_id)
        self._listed.add(key)
        if key not in self._orders:
            signed = m.qty if m.action == "BUY" else -m.qty
            self._orders[key] = _Order(self._contract(m.contract), signed, m.qty, m.client_id, m.order_ref)
            self._events += 1
        self._orders[key].decided = True

    def _take_status(self, m: OrderStatus) -> None:
        order = self._orders.get((m.client_id, m.order_id))
        if order is None:
            return
        if (order.status, order.remaining) != (m.status, m.remaining):
            self._events += 1
        if order.own and m.status == "Inactive" and order.status not in ENDED:
            self._rejected |= 1 << order.contract
        order.status, order.remaining, order.decided = m.status, m.remaining, True

    def _complete(self, now_ns: int) -> None:
        """Both ends have arrived: what was not listed is gone."""
        self._ends, self._asked_ns = 0, 0
        self._snapshots += 1
        for at in range(len(self._qty)):
            if at not in self._reading and self._qty[at]:
                self._qty[at] = 0.0
                self._events += 1
        for key, order in self._orders.items():
            if key in self._listed or order.status in ENDED:
                continue
            if order.own and not order.decided and not self._connection.unsent:
                order.unlisted += 1  # a fast order may be reported by its execution alone
                order.decided = order.unlisted >= 2
            if order.decided or not order.own:
                order.status = "Cancelled"
                self._events += 1
        open_orders = sum(1 for o in self._orders.values() if o.status not in ENDED and self._in_scope(o))
        mask = sum(1 << i for i, q in enumerate(self._qty) if abs(q) > fl.EPSILON)
        self._snapshot = (self._begin_ns, now_ns, self._events, open_orders, mask)
        self._known = True

    def _view(self, now_ns: int) -> fl.View:
        n = len(self.contracts)
        closing = [0.0] * n
        undecided = working = 0
        for order in self._orders.values():
            if order.status in ENDED or not self._in_scope(order):
                continue
            working += 1
            if order.own and not order.decided:
                undecided += 1
            if order.signed * self._qty[order.contract] < 0:
                closing[order.contract] += order.remaining
        quotes = [self._quotes(c.con_id) if self._quotes else (math.nan, math.nan) for c in self.contracts]
        begin, end, events, open_orders, positions = self._snapshot
        return fl.View(
            qty=tuple(self._qty), closing=tuple(closing), bid=tuple(q[0] for q in quotes), ask=tuple(q[1] for q in quotes),
            halted=0, open_orders=working, undecided=undecided, rejected=self._rejected, order_events=self._events,
            snapshot_id=self._snapshots, snapshot_begin_ns=begin, snapshot_end_ns=end, snapshot_events=events,
            snapshot_open_orders=open_orders, snapshot_positions=positions,
            regular_hours=self._regular or self._quotes is None,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a direct flatten. ``remaining``: positions and orders still open, in words."""

    flat: bool
    remaining: tuple[str, ...]
    closes_sent: int
    elapsed_s: float
    text: str


def flatten_direct(config: Config, log: Callable[[str], None], timeout_s: float = 60.0) -> Result:
    """Get flat with nothing but a socket to the gateway; no other process of the system is needed or asked.

    Everything in the account if its scope is "dedicated"; else only the configured symbols, and orders that the
    trading client id owns (so that client id is used, which needs the bridge to be gone).
    """
    gateway = config.gateway
    dedicated = config.account_scope != "managed"
    began = time.monotonic_ns()
    client_id = gateway.emergency_client_id + 1 if dedicated else gateway.client_id
    connection = EmergencyConnection(
        gateway.host, gateway.port, client_id, messages_per_s=gateway.messages_per_s,
        reconnect_min_s=gateway.reconnect_min_s, reconnect_max_s=1.0,
    )  # fmt: skip
    flatten: DirectFlatten | None = None
    shown = ""
    try:
        while time.monotonic_ns() - began < timeout_s * 1e9:
            now_ns = time.monotonic_ns()
            messages = connection.poll(now_ns)
            for message in messages:
                if isinstance(message, BrokerError) and message.code == CLIENT_ID_IN_USE:
                    if dedicated and connection.client_id < gateway.emergency_client_id + 10:
                        connection.client_id += 1
                    else:
                        log(f"client id {connection.client_id} is in use: end broker-bridge first (`l2dash kill`)")
            if flatten is None and connection.ready:
                if gateway.account not in connection.accounts:
                    text = f"account {gateway.account} is not at this gateway: it has {', '.join(connection.accounts)}"
                    return Result(False, (), 0, (now_ns - began) / 1e9, text)
                log(
                    f"connected to {gateway.host}:{gateway.port} as client {connection.client_id}, account {gateway.account}"
                )
                only = None if dedicated else _configured(config)
                flatten = DirectFlatten(
                    connection, gateway.account, only=only, reason="flatten --direct", now_ns=now_ns,
                    wall_s=int(time.time()),
                )  # fmt: skip
            if flatten is not None:
                flatten.step(messages, now_ns)
                state = (
                    f"{FlattenState(flatten.state.state).name.lower()}: {', '.join(flatten.held()) or 'nothing open'}"
                )
                if state != shown:
                    shown = state
                    log(state)
                for alert in flatten.alerts:
                    log(alert)
                flatten.alerts.clear()
                if flatten.done:
                    elapsed_s = (time.monotonic_ns() - began) / 1e9
                    return Result(
                        True, (), flatten.closed, elapsed_s, f"flat, confirmed by the broker in {elapsed_s:.1f} s"
                    )
            _wait(connection, 0.02)
        elapsed_s = (time.monotonic_ns() - began) / 1e9
        if flatten is None:
            text = f"no login at {gateway.host}:{gateway.port} within {timeout_s:g} s: {connection.last_error}; use the broker's own app or phone desk"
            return Result(False, ("unknown: the broker could not be asked",), 0, elapsed_s, text)
        remaining = tuple(flatten.held()) or ("not confirmed",)
        return Result(
            False, remaining, flatten.closed, elapsed_s, f"NOT flat after {elapsed_s:.0f} s: {', '.join(remaining)}"
        )
    finally:
        connection.close()


def _configured(config: Config) -> frozenset[int]:
    from engine.runtime import universe

    return frozenset(i.con_id for i in universe.instruments(config) if i.con_id)


def _wait(connection: EmergencyConnection, timeout_s: float) -> None:
    if connection.fileno() < 0:
        time.sleep(timeout_s)
        return
    select.select([connection.fileno()], [], [], timeout_s)
