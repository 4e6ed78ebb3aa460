"""One client connection: handshake, frames in, frames out, limits. What a request means is decided in ``requests``."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections import deque
from typing import TYPE_CHECKING, cast

from engine.paper import messages_out as out
from engine.paper.account_feed import Subscriptions
from engine.paper.client_requests import Request, StartApi
from engine.paper.express import Lanes
from engine.paper.fields import FieldError, FieldReader
from engine.paper.framing import FrameDecoder, FrameError, whole_frame
from engine.paper.messages_in import READERS, In
from engine.paper.order_templates import OrderTemplates
from engine.paper.place_order import OrderRequest
from engine.paper.request_ids import ADVISER_ONLY, UNSUPPORTED, concerned

if TYPE_CHECKING:
    from engine.paper.server import Gateway

log = logging.getLogger(__name__)

MIN_VERSION, MAX_VERSION = 157, 176
MAX_BACKLOG_BYTES = 8 * 1024 * 1024
"""A client that has this much unread is dropped; it would otherwise cost everyone memory."""

HANDSHAKE_TIMEOUT_S = 30.0
API_MARK = b"API\0"
_VERSION_FRAME = re.compile(rb"v(\d{1,6})(?:\.\.(\d{1,6}))?(?: [\x20-\x7e]*)?\0?")
_ORDER_MESSAGES = frozenset((int(In.PLACE_ORDER), int(In.CANCEL_ORDER), int(In.GLOBAL_CANCEL)))
_PACING_STRIKES = 3


def agreed_version(message: bytes) -> int:
    """The server version for a client's version frame. Raises FieldError if there is none that both speak."""
    match = _VERSION_FRAME.fullmatch(message[:256])
    if match is None:
        raise FieldError(f"handshake {message[:40]!r}, expected v<min>..<max>")
    low = int(match[1])
    high = int(match[2] or match[1])
    version = min(high, MAX_VERSION)
    if version == 158:
        # Clients disagree about the layout of openOrder at exactly this version.
        version = 157
    if version < MIN_VERSION or version < low:
        raise FieldError(f"client speaks {low}..{high}, this server {MIN_VERSION}..{MAX_VERSION}")
    return version


class Session(asyncio.Protocol):
    """A connection. ``client_id`` is -1 until startApi; ``version`` 0 until the handshake."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.client_id = -1
        self.version = 0
        self.subscriptions = Subscriptions()
        self.closed = False
        self.muted = False
        self.auto_bind = False
        self.time_answered_ns = 0
        self._transport: asyncio.Transport | None = None
        self._decoder = FrameDecoder()
        self._marked = False
        self._out: list[bytes] = []
        self._late = 0  # writes that wait for their time
        self._write_at = 0.0  # when the last of them is due
        self._order_at = 0.0
        self._received: deque[int] = deque()
        self._templates = OrderTemplates()
        self._lanes = Lanes(self, gateway)
        self._fileno = -1
        self._strike_ns = 0
        self._strikes = 0
        self._timeout: asyncio.TimerHandle | None = None

    # Connection.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Another event loop's transports share the methods, not the class.
        self._transport = cast(asyncio.Transport, transport)
        known = transport.get_extra_info("socket")
        self._fileno = known.fileno() if known is not None else -1
        if not self.gateway.accept(self):
            self.drop("connections are refused for now")
            return
        loop = asyncio.get_running_loop()
        self._timeout = loop.call_later(HANDSHAKE_TIMEOUT_S, self._handshake_expired)

    def _handshake_expired(self) -> None:
        if self.client_id < 0 and not self.muted:
            self.drop("no startApi within the handshake time")

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()

    def _forget(self) -> None:
        if not self.closed:
            self.closed = True
            if self._timeout is not None:
                self._timeout.cancel()
            self.gateway.gone(self)

    def drop(self, why: str, abort: bool = False) -> None:
        """End this connection; what is queued still leaves unless ``abort``."""
        if self.closed:
            return
        log.info("client %d dropped: %s", self.client_id, why)
        transport = self._transport
        if transport is not None:
            if abort:
                transport.abort()
            else:
                self.flush()
                transport.close()
        self._forget()

    def half_open(self) -> None:
        """Stop serving this connection without closing its socket (a fault): the peer can't know."""
        transport = self._transport
        if self.closed or transport is None:
            return
        self.muted = True
        transport.pause_reading()
        self._forget()
        self.gateway.hold_half_open(self)

    def abort_half_open(self) -> None:
        """Reset the socket of a connection that is served no more."""
        if self._transport is not None:
            self._transport.abort()

    # Bytes in.

    def data_received(self, data: bytes) -> None:
        if self.muted or self.closed:
            return
        try:
            if self._lanes.any and not (self._out or self._late) and self._lanes.take(data):
                return
            if self.version and not self._decoder.buffered_bytes:
                message = whole_frame(data)
                if message is not None:
                    self._receive(message)
                    return
            self._decoder.push(data)
            if not self._marked:
                mark = self._decoder.take(len(API_MARK))
                if mark is None:
                    return
                if mark != API_MARK:
                    self.drop("garbage instead of the API mark", abort=True)
                    return
                self._marked = True
            while not self.closed:
                message = self._decoder.next_frame()
                if message is None:
                    break
                self._receive(message)
        except FrameError as error:
            if self.version:
                self.error(out.SYSTEM, 320, f"Error reading request. {error}")
            self.drop(str(error))
        finally:
            self.gateway.flush_all()

    def _receive(self, message: bytes) -> None:
        if self.version == 0:
            try:
                self.version = agreed_version(message)
            except FieldError as error:
                self.drop(str(error))
                return
            self.send(out.server_greeting(self.version, self.gateway.wall_s()))
            return
        if not self.within_pace():
            return
        if message.startswith(b"3\0") and self.client_id >= 0 and not self.gateway.delays_orders:
            order = self._templates.read(message, self.version)
            if order is not None:
                self._place(order)
                self._lanes.learn(message, order)
                return
        try:
            reader = FieldReader(message)
            message_id = reader.integer("messageId")
        except FieldError as error:
            self.error(out.SYSTEM, 320, f"Error reading request. {error}")
            return
        delay_s = self.gateway.order_latency_s() if message_id in _ORDER_MESSAGES else 0.0
        if delay_s > 0 or (message_id in _ORDER_MESSAGES and self._order_at > asyncio.get_running_loop().time()):
            loop = asyncio.get_running_loop()
            self._order_at = max(loop.time() + delay_s, self._order_at + 1e-6)
            loop.call_at(self._order_at, self._handle_later, message_id, reader)
            return
        self._handle(message_id, reader)

    def _handle_later(self, message_id: int, reader: FieldReader) -> None:
        # The order left its client before a disconnect, so it is carried out even if the link is gone by now.
        self._handle(message_id, reader)
        self.gateway.flush_all()

    def _handle(self, message_id: int, reader: FieldReader) -> None:
        read = READERS.get(message_id)
        if read is None:
            self._refuse(reader, message_id)
            return
        try:
            request = read(reader, self.version)
            reader.end()
        except FieldError as error:
            self.error(concerned(reader.raw, message_id), 320, f"Error reading request {message_id}. {error}")
            return
        if self.client_id < 0 and not isinstance(request, StartApi):
            self.drop(f"message {message_id} before startApi")
            return
        self._carry_out(message_id, request)

    def _refuse(self, reader: FieldReader, message_id: int) -> None:
        """A request that is not answered here, told to the call that waits for it."""
        known = UNSUPPORTED.get(message_id)
        if known is None:
            self.error(out.SYSTEM, 321, f"Error validating request.-'?' : cause - unknown message id {message_id}")
            return
        if message_id in ADVISER_ONLY:
            cause = f"Error validating request.-'{known[0]}' : cause - FA data operations ignored for non FA customers."
            self.error(concerned(reader.raw, message_id), 321, cause)
            return
        # Not 321: ib_async takes that for a warning, and its call would go on waiting.
        cause = f"Error processing request.-'{known[0]}' : cause - not simulated by the paper gateway"
        self.error(concerned(reader.raw, message_id), 322, cause)

    def _place(self, order: OrderRequest) -> None:
        gateway = self.gateway
        if not gateway.link_up:
            self._carry_out(int(In.PLACE_ORDER), order)
            return
        try:
            gateway.desk.place(self, order, gateway.catch_up)
        except Exception:
            self.failed(int(In.PLACE_ORDER))

    def _carry_out(self, message_id: int, request: Request) -> None:
        try:
            self.gateway.handle(self, message_id, request)
        except Exception:
            self.failed(message_id)

    def failed(self, message_id: int) -> None:
        """Handling a request has raised: end this connection, which is better than to lie to it."""
        log.exception("request %d of client %d failed", message_id, self.client_id)
        self.drop("internal error while handling its request")

    def within_pace(self) -> bool:
        """Count a message; error 100 above the allowed rate, and a disconnect if it goes on."""
        limit = self.gateway.config.max_client_messages_per_s
        if limit == 0:
            return True
        now_ns = self.gateway.now_ns()
        received = self._received
        received.append(now_ns)
        while received[0] <= now_ns - 1_000_000_000:
            received.popleft()
        if len(received) <= limit or now_ns - self._strike_ns < 1_000_000_000:
            return True
        self._strike_ns = now_ns
        self._strikes += 1
        text = f"Max rate of messages per second has been exceeded: max={limit} rec={len(received)} ({self._strikes})"
        self.error(out.SYSTEM, 100, text)
        if self._strikes >= _PACING_STRIKES:
            self.drop("message rate")
            return False
        return True

    # Bytes out.

    def send(self, message: bytes) -> None:
        """Queue one message; it leaves with the next flush."""
        self._out.append(len(message).to_bytes(4, "big") + message)

    def send_now(self, message: bytes) -> None:
        """Send one message, and what was queued before it, at once."""
        if self._out or self._late or self.muted or self.gateway.slow:
            self.send(message)
            self.flush()
        else:
            self.write(len(message).to_bytes(4, "big") + message)

    def push(self, framed: bytes) -> None:
        """Queue bytes that already carry their length."""
        self._out.append(framed)

    def error(self, req_id: int, code: int, message: str) -> None:
        self.send(out.error(self.version, req_id, code, message))

    def flush(self) -> None:
        """Hand what is queued to the socket, now or after the delay that a fault asks for."""
        if not self._out:
            return
        blob = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        if self.muted or self._transport is None or self._transport.is_closing():
            return
        if not self._late and not self.gateway.slow:
            self.write(blob)
            return
        loop = asyncio.get_running_loop()
        # Never earlier than what waits already: a shorter delay must not reorder the stream.
        self._write_at = max(loop.time() + self.gateway.reply_delay(), self._write_at + 1e-6)
        self._late += 1
        loop.call_at(self._write_at, self._write_late, blob)

    def _write_late(self, blob: bytes) -> None:
        self._late -= 1
        self.write(blob)

    def write(self, blob: bytes) -> None:
        """Hand bytes to the socket now."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if not transport.get_write_buffer_size():
            # Straight to the socket: an event loop would send it only after what is being handled now.
            try:
                sent = os.write(self._fileno, blob)
            except OSError:
                sent = 0  # full, or gone: the transport finds out which
            if sent == len(blob):
                return
            blob = blob[sent:]
        transport.write(blob)
        if transport.get_write_buffer_size() > MAX_BACKLOG_BYTES:
            self.drop(f"{transport.get_write_buffer_size()} bytes unread, allowed are {MAX_BACKLOG_BYTES}", abort=True)

    def system(self, code: int, message: str) -> None:
        """A message about connectivity."""
        self.error(out.SYSTEM, code, message)
