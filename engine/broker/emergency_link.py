"""The emergency connection: a thin non-blocking socket around ``emergency_codec``."""

from __future__ import annotations

import contextlib
import errno
import random
import select
import socket
from collections import deque

from engine.broker.emergency_codec import (
    Accounts,
    BrokerError,
    CodecError,
    CurrentTime,
    EmergencyCodec,
    Handshake,
    Message,
    NextId,
)

SECOND_NS = 1_000_000_000
WINDOW_NS = SECOND_NS + SECOND_NS // 20
"""One second and the jitter that may lie between our write and the gateway's read."""
CONNECT_TIMEOUT_NS = 4 * SECOND_NS
CLIENT_ID_IN_USE = 326
BROKER_LOST, BROKEN, BROKER_BACK, FARM_BACK = 1100, 2110, (1101, 1102), 2104
"""2104 ends what 2110 has begun, but not what 1100 has."""
MUTE_PATIENCE_NS = 5 * SECOND_NS
"""A gateway that was asked the time and has not said a word for this long is left: the connection may be half open, and
then nothing that is sent over it ever arrives, however often."""
LOST_PATIENCE_NS = 3 * SECOND_NS
"""A gateway that has lost the broker is left for the next one after this."""


class EmergencyConnection:
    """Connects and reconnects in the background; nothing here ever blocks. Call ``poll`` often.

    ``others``: further gateways of the same account, tried in turn when the one before does not answer, or has lost
    the broker. It stays with one that serves.
    """

    def __init__(
        self, host: str, port: int, client_id: int, *, messages_per_s: int = 5, probe_interval_s: float = 1.5,
        reconnect_min_s: float = 0.25, reconnect_max_s: float = 10.0, seed: int = 0,
        others: tuple[tuple[str, int], ...] = (),
    ) -> None:  # fmt: skip
        self._addresses = ((host, port), *others)
        self._at = 0
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
        self.broker_lost_ns = 0
        """Since when this gateway says that it has lost the broker; 0 not so."""
        self._farm_ends = False
        self.last_error = ""

    @property
    def codec(self) -> EmergencyCodec:
        return self._codec

    @property
    def ready(self) -> bool:
        """Logged in: requests and orders may be sent."""
        return self._connected and self.next_order_id > 0 and bool(self.accounts)

    @property
    def address(self) -> tuple[str, int]:
        """The gateway that is used, or tried next."""
        return self._addresses[self._at]

    def serves(self, now_ns: int) -> bool:
        """Logged in, at a gateway that has the broker and has answered lately: orders sent now would arrive."""
        return self.ready and not self.broker_lost_ns and 0 <= self.answer_age_ns(now_ns) < 2 * self._probe_ns

    def sent_within(self, now_ns: int, ns: int) -> int:
        """Messages that have left within the last ``ns`` (at most a second and a bit is remembered)."""
        return sum(1 for t in self._sent_at if now_ns - t <= ns)

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
                # The greeting is a message like every other: there must be room for it.
                if now_ns >= self._retry_ns and self.sent_within(now_ns, WINDOW_NS) < self.messages_per_s:
                    self._open(now_ns)
                return []
            if not self._connected and not self._established(now_ns):
                return []
            messages = self._receive(now_ns)
            if len(self._addresses) > 1 and self.broker_lost_ns and now_ns - self.broker_lost_ns > LOST_PATIENCE_NS:
                raise OSError("the gateway has lost the broker")
            if self._probe_sent_ns and now_ns - max(self._probe_sent_ns, self.answered_ns) > MUTE_PATIENCE_NS:
                raise OSError(f"the gateway has been mute for {MUTE_PATIENCE_NS / 1e9:g} s")
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
        code = sock.connect_ex(self.address)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, f"{self.address[0]}:{self.address[1]} refused ({errno.errorcode.get(code, code)})")

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
            raise OSError(code, f"connect to {self.address[0]}:{self.address[1]}: {errno.errorcode.get(code, code)}")
        self._greet()
        return True

    def _greet(self) -> None:
        """TCP stands: the API handshake begins."""
        self._connected = True
        self._codec = EmergencyCodec(self.client_id)
        self._out = bytearray(self._codec.hello())
        self._queue.clear()
        self.next_order_id, self.accounts, self.broker_lost_ns, self._probe_sent_ns = 0, (), 0, 0

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
                self._own(message, now_ns)
                messages.append(message)
            if self.ready and not was_ready:
                self.incarnation += 1
                self._attempts = 0
                self._probe_at_ns = now_ns
        if not self.ready and now_ns > self._deadline_ns:
            raise OSError("connected, but no login within 4 s")
        return messages

    def _own(self, message: Message, now_ns: int) -> None:
        if isinstance(message, Handshake):
            self._out += self._codec.start_api()
            self._sent_at.append(now_ns)
        elif isinstance(message, NextId):
            self.next_order_id = max(self.next_order_id, message.order_id)
        elif isinstance(message, Accounts):
            self.accounts = message.accounts
        elif isinstance(message, CurrentTime):
            self._probe_sent_ns = 0
        elif isinstance(message, BrokerError) and message.request_id < 0:
            self.last_error = f"{message.code} {message.text}"
            if message.code in (BROKER_LOST, BROKEN):
                self._farm_ends = message.code == BROKEN and (self._farm_ends or not self.broker_lost_ns)
                self.broker_lost_ns = self.broker_lost_ns or now_ns
            elif message.code in BROKER_BACK or (message.code == FARM_BACK and self._farm_ends):
                self.broker_lost_ns = 0

    def _probe(self, now_ns: int) -> None:
        if self.ready and now_ns >= self._probe_at_ns:
            self._probe_at_ns = now_ns + self._probe_ns
            self._probe_sent_ns = self._probe_sent_ns or now_ns
            self._queue.append(self._codec.request_current_time())

    def _flush(self, now_ns: int) -> None:
        assert self._socket is not None
        if self.ready:
            while self._sent_at and now_ns - self._sent_at[0] > WINDOW_NS:
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
        self._at = (self._at + 1) % len(self._addresses)
        rounds = self._attempts // len(self._addresses)
        wait_s = min(high, low * 2.0 ** min(rounds, 10)) * self._random.uniform(0.75, 1.25)
        self._attempts += 1
        self._retry_ns = now_ns + int(wait_s * SECOND_NS)
