"""A gateway over a socket: own framing and hot decoding, the library's encoding and decoding for everything else.

The socket is ours and non-blocking. What arrives goes through ``decode`` first; frames that it leaves go, in order, to
the library's own entry point (``Client._onSocketHasData``), whose decoder calls our ``Listener``. What leaves is
encoded by the library's request methods into one buffer and handed to the kernel in a single write. No event loop, no
futures: nothing here can wait for an answer, so a missing end message can't hang anything.
"""

from __future__ import annotations

import errno
import math
import select
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.broker import decode as d
from engine.broker import encode as e
from engine.broker.ibapi_compat import EMPTY_PRICE, MAX_VERSION, MIN_VERSION, Client, Contract, ExecutionFilter, Order
from engine.broker.link import Line, LinkPhase, WireOrder
from engine.broker.listener import Listener
from engine.broker.news import LinkDown, LinkUp, News, UnreadableNews
from engine.broker.strict import NAMES, make_strict
from engine.domain.codes import OrderType, TickKind, TimeInForce
from engine.domain.instruments import Instrument
from engine.runtime.ids import intent_of, order_ref
from shm.layouts import TICK

RECEIVE_BYTES = 1 << 20
TICK_BATCH = 8192
_RECVS_PER_POLL = 4
_HOT = (1, 2, 12, 13, 99)
_GENERIC_TICKS = "236"
"""Shortable, answered by tick 46. 49 (halted) comes unasked."""
DEPTH_EXCHANGE_SMART = "SMART"
_TYPES = {"MKT": int(OrderType.MKT), "LMT": int(OrderType.LMT)}
_TIFS = {"DAY": int(TimeInForce.DAY), "IOC": int(TimeInForce.IOC), "GTC": int(TimeInForce.GTC)}


class _Encoder(Client):  # type: ignore[misc]
    """The library's client with its transport and throttle replaced by a sink of finished frames."""

    MinClientVersion, MaxClientVersion = MIN_VERSION, MAX_VERSION

    def __init__(self, wrapper: Listener, sink: Callable[[bytes], None]) -> None:
        super().__init__(wrapper)
        self.sink = sink

    def send(self, *fields: Any, **options: Any) -> None:
        """What is asked of a link that has just gone is dropped, where the library would raise: the order concerned
        stays in question, and the books that are read after the reconnect settle it."""
        if self.isConnected():
            super().send(*fields, **options)

    def sendMsg(self, msg: str) -> None:
        raw = msg.encode()
        self.sink(len(raw).to_bytes(4, "big") + raw)


class IbLink:
    """``BrokerLink`` over TCP. ``now`` is the clock that stamps received bytes."""

    def __init__(
        self,
        host: str,
        port: int,
        client_id: int,
        instruments: Sequence[Instrument],
        now: Callable[[], int],
        *,
        timeout_s: float = 4.0,
        depth_rows: int = 10,
        index_symbol: int = -1,
        account: str = "",
    ) -> None:
        self.host, self.port, self.client_id = host, port, client_id
        self.phase = LinkPhase.CLOSED
        self.news: deque[News] = deque()
        self.ticks: npt.NDArray[np.void] = np.zeros(TICK_BATCH, TICK)
        self.tick_count = 0
        self.last_message_ns = 0
        self.messages_sent = 0
        self.bad_frames = 0
        self.garbled: dict[int, str] = {}
        """Symbols with a message that could not be read, and what was wrong with it; the bridge empties it."""
        self._now = now
        self._timeout_ns = int(timeout_s * 1e9)
        self._rows = depth_rows
        self._frames = d.FrameDecoder()
        self._listener = Listener(self.news, self._frames.line_of)
        self._listener.reset_depth = self._depth_reset
        self._client = _Encoder(self._listener, self._queue)
        for message in _HOT:
            self._client.decoder.handlers[message] = self._slow_tick
        make_strict(self._client.decoder, self._not_read)
        self._sock: socket.socket | None = None
        self._buffer = bytearray(RECEIVE_BYTES)
        self._view = memoryview(self._buffer)
        self._bytes = np.frombuffer(self._buffer, np.uint8)
        self._start = self._end = 0
        self._out = bytearray()
        self.templates: npt.NDArray[np.void] = np.zeros(len(instruments), e.TEMPLATE)
        self._account, self._template_account = account, ""
        self._frame: npt.NDArray[np.uint8] = np.zeros(2 * e.FRAME_BYTES, np.uint8)
        self._deadline_ns = 0
        self._request_ids: dict[tuple[int, Line], int] = {}
        self._executions_id = d.REQ_BASE + d.SLOTS
        self._contracts = [self._contract(i) for i in instruments]
        self._stock = [i.sec_type == "STK" for i in instruments]
        self._index_symbol = index_symbol

    @staticmethod
    def _contract(i: Instrument) -> Any:
        return Contract(
            secType=i.sec_type,
            conId=i.con_id,
            symbol=i.symbol,
            exchange=i.exchange,
            currency=i.currency,
            primaryExchange="" if i.con_id or i.sec_type != "STK" else i.primary_exchange,
        )

    # Session.

    def connect(self, now_ns: int) -> None:
        self._drop()
        self._client.reset()
        self._client.host, self._client.port, self._client.clientId = self.host, self.port, self.client_id
        self._listener.accounts, self._listener.next_order_id, self._listener.last_error = (), 0, ""
        self._deadline_ns = now_ns + self._timeout_ns
        try:
            family, kind, proto, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
            sock = socket.socket(family, kind, proto)
        except OSError as error:
            self.news.append(LinkDown(f"{self.host}:{self.port}: {error.strerror or error}", refused=True))
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self.phase = LinkPhase.CONNECTING
        code = sock.connect_ex(address)
        if code == 0:
            self._greet()
        elif code != errno.EINPROGRESS:
            self._fail_connect(code)

    def _fail_connect(self, code: int) -> None:
        self._drop()
        self.news.append(LinkDown(f"{self.host}:{self.port}: {errno.errorcode.get(code, code)}", refused=True))

    def _greet(self) -> None:
        versions = b"v%d..%d" % (MIN_VERSION, MAX_VERSION)
        self._client.connState = self._client.CONNECTING
        self._out += b"API\0" + len(versions).to_bytes(4, "big") + versions
        self.flush()

    def _drop(self) -> None:
        if self._sock is not None:
            self._sock.close()
        self._sock = None
        self.phase = LinkPhase.CLOSED
        self._start = self._end = self.tick_count = 0
        self._out.clear()
        self._frames.close_all()
        self._request_ids.clear()

    def disconnect(self, reason: str) -> None:
        if self.phase == LinkPhase.CLOSED:
            return
        self._client.connState = self._client.DISCONNECTED
        self._drop()
        self.news.append(LinkDown(reason))

    def fileno(self) -> int:
        return -1 if self._sock is None else self._sock.fileno()

    # Receiving.

    def poll(self, now_ns: int) -> int:
        sock = self._sock
        if sock is None:
            return 0
        if self.phase == LinkPhase.CONNECTING and not self._advance(sock, now_ns):
            return 0
        handled = self._decode(now_ns) if self._end > self._start else 0
        for _ in range(_RECVS_PER_POLL):
            if self.tick_count >= TICK_BATCH or self._sock is None:
                break
            if self._end == RECEIVE_BYTES:
                self._compact()
            room = RECEIVE_BYTES - self._end
            try:
                got = sock.recv_into(self._view[self._end :], room)
            except BlockingIOError:
                break
            except OSError as error:
                self._lost(error.strerror or str(error))
                break
            if got == 0:
                self._lost("the gateway closed the connection")
                break
            t_socket = self._now()
            self.last_message_ns = t_socket
            self._end += got
            handled += self._decode(t_socket)
            if got < room and got < 65536:
                break  # the kernel had no more: spare the call that would only say so
        if self._out:
            self.flush()
        return handled

    def _advance(self, sock: socket.socket, now_ns: int) -> bool:
        """Drive the connect; False: nothing to read yet."""
        if self._client.connState == self._client.DISCONNECTED:
            poller = select.poll()
            poller.register(sock, select.POLLOUT)
            if poller.poll(0):
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    self._fail_connect(code)
                    return False
                self._greet()
        if now_ns > self._deadline_ns:
            said = f"; it said: {self._listener.last_error}" if self._listener.last_error else ""
            self._drop()
            self.news.append(
                LinkDown(
                    f"{self.host}:{self.port} accepted the connection but did not complete the API handshake{said}"
                )
            )
            return False
        return True

    def _lost(self, why: str) -> None:
        said = (
            f"; it said: {self._listener.last_error}"
            if self.phase == LinkPhase.CONNECTING and self._listener.last_error
            else ""
        )
        self.disconnect(f"{self.host}:{self.port}: {why}{said}")

    def _compact(self) -> None:
        rest = self._end - self._start
        self._buffer[:rest] = self._buffer[self._start : self._end]
        self._start, self._end = 0, rest

    def _decode(self, t_socket_ns: int) -> int:
        frames, out = self._frames, self._frames.out
        self._listener.t_socket_ns = t_socket_ns
        handled = 0
        while True:
            why = frames.run(self._bytes, self._start, self._end, t_socket_ns, self.ticks, self.tick_count)
            self._start, self.tick_count = int(out[0]), int(out[1])
            handled += int(out[2])
            if why == d.COLD:
                self._cold(int(out[3]), int(out[4]))
                if self._sock is None:
                    return handled
                continue
            if why == d.BAD:
                self.bad_frames += 1
                self._lost("sent a frame with an impossible length: not a gateway, or a damaged stream")
            break
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end - self._start > RECEIVE_BYTES // 2 or self._end == RECEIVE_BYTES:
            if self._start == 0 and self._end == RECEIVE_BYTES:
                self.bad_frames += 1
                self._lost(f"sent a frame longer than {RECEIVE_BYTES} bytes")
            elif self._start:
                self._compact()
        return handled

    def _cold(self, start: int, stop: int) -> None:
        try:
            self._client._onSocketHasData(bytes(self._view[start:stop]))
        except Exception as error:  # the library's handshake code raises on malformed fields
            self.bad_frames += 1
            if self.phase == LinkPhase.CONNECTING:
                self._lost(f"handshake can't be read: {error!r}")
            return
        if self.phase == LinkPhase.CONNECTING and self._client.isReady():
            self.phase = LinkPhase.OPEN
            self._template_account = ""  # the server's version may be another one: learn anew
            self.templates["parts"] = 0
            if self._account:
                self.learn(self._account)
            self.news.append(
                LinkUp(self._listener.accounts, self._listener.next_order_id, int(self._client.serverVersion()))
            )

    def _slow_tick(self, fields: list[str]) -> None:
        """Hot messages whose numbers the compiled parser declined."""
        if self.tick_count >= TICK_BATCH:
            return
        try:
            self.tick_count += d.decode_fields(
                fields, self._frames.lines, self._listener.t_socket_ns, self.ticks, self.tick_count
            )
        except (ValueError, IndexError, OverflowError) as error:
            self.bad_frames += 1
            self._unreadable(fields, error)

    def _not_read(self, message: int, why: str) -> None:
        """A message for the library that says nothing: at its place among the others, for it may be a row of a list."""
        self.bad_frames += 1
        self.news.append(UnreadableNews(message, NAMES.get(message, f"message {message}"), why))

    def _unreadable(self, fields: list[str], error: Exception) -> None:
        """A market-data message that says nothing: what it would have changed is not known any more."""
        try:
            line, symbol = self._frames.line_of(int(fields[1 if fields[0] == "99" else 2]))
        except (ValueError, IndexError):
            return
        if symbol >= 0:
            self.garbled[symbol] = f"message {fields[0]} can't be read: {error}"
            if line == d.LINE_DEPTH:
                self._depth_reset(symbol)

    def _depth_reset(self, symbol: int) -> None:
        if self.tick_count < TICK_BATCH:
            t = self._listener.t_socket_ns
            self.ticks[self.tick_count] = (
                0, t, 0, symbol, int(TickKind.DEPTH_RESET), 0, 0, 0, 0, math.nan, math.nan, 0, 0, 0,
            )  # fmt: skip
            self.tick_count += 1

    # The fused hot path (``engine.procs.hot_path``), which reads and writes the socket by itself.

    def receive_buffer(self) -> tuple[npt.NDArray[np.uint8], d.FrameDecoder]:
        """The buffer and the decoder that it shares."""
        return self._bytes, self._frames

    @property
    def window(self) -> tuple[int, int]:
        """Bytes of the buffer that are not decoded yet."""
        return self._start, self._end

    @property
    def straight(self) -> bool:
        """Is it open, with nothing queued on either side?"""
        return self.phase == LinkPhase.OPEN and not (self._out or self.news or self.tick_count)

    def received(self, start: int, end: int, t_socket_ns: int) -> None:
        """The window after bytes were read and decoded elsewhere."""
        self._start, self._end, self.last_message_ns = start, end, t_socket_ns

    def left_cold(self, start: int, stop: int, t_socket_ns: int) -> None:
        """A frame for the library, and whatever is still in the window."""
        self._listener.t_socket_ns = t_socket_ns
        self._cold(start, stop)
        if self._sock is not None:
            self._decode(t_socket_ns)

    def sent(self, frame: npt.NDArray[np.uint8], count: int) -> None:
        """A frame of which ``count`` bytes are on the socket (negative: none); the rest is queued."""
        self.messages_sent += 1
        if count < len(frame):
            self._out += frame[max(0, count) :].tobytes()

    def take_ticks(self) -> npt.NDArray[np.void]:
        taken = self.ticks[: self.tick_count]
        self.tick_count = 0
        return taken

    # Sending.

    def _queue(self, frame: bytes) -> None:
        self._out += frame
        self.messages_sent += 1

    def flush(self) -> bool:
        if not self._out:
            return True
        if self._sock is None:
            self._out.clear()
            return True
        try:
            sent = self._sock.send(self._out)
        except BlockingIOError:
            return False
        except OSError as error:
            self._lost(error.strerror or str(error))
            return False
        if sent == len(self._out):
            self._out.clear()
            return True
        del self._out[:sent]
        return False

    def place(self, order: WireOrder) -> None:
        if self.phase != LinkPhase.OPEN:
            return
        if order.account != self._template_account:
            self.learn(order.account)
        end = e.DECLINED
        intent_id = intent_of(order.order_ref)
        if intent_id:
            end = e.encode_order(
                self.templates, order.symbol, self._frame, 0, order.order_id, order.side, order.qty,
                _TYPES[order.order_type], order.limit_price, _TIFS[order.tif], intent_id, order.outside_rth,
            )  # fmt: skip
        if end > 0:
            self._queue(self._frame[:end].tobytes())
        else:
            self._client.placeOrder(order.order_id, self._contracts[order.symbol], self._order(order))

    @staticmethod
    def _order(order: WireOrder) -> Any:
        """In the library's form."""
        market = order.order_type == "MKT"
        return Order(
            action="BUY" if order.side > 0 else "SELL",
            totalQuantity=int(order.qty) if order.qty == int(order.qty) else order.qty,
            orderType=order.order_type,
            lmtPrice=EMPTY_PRICE if market else order.limit_price,
            tif=order.tif,
            outsideRth=order.outside_rth and not market,
            orderRef=order.order_ref,
            account=order.account,
        )

    def learn(self, account: str) -> int:
        """Order templates of all symbols for this session, from the library's own encoder; returns how many.

        Done when a session opens and when a contract becomes known; what has no template is encoded by the library.
        """
        self._template_account = account
        return sum(self._learn(symbol, account) for symbol in range(len(self._contracts)))

    def _learn(self, symbol: int, account: str) -> bool:
        caught: list[bytes] = []

        def encode(
            order_id: int, side: int, qty: float, kind: int, limit: float, tif: int, intent_id: int, outside: int
        ) -> bytes:
            wire = WireOrder(
                order_id, symbol, side, qty, "MKT" if kind == e.MKT else "LMT", limit, e.TIFS[tif], bool(outside),
                order_ref(intent_id), account,
            )  # fmt: skip
            caught.clear()
            self._client.placeOrder(order_id, self._contracts[symbol], self._order(wire))
            return caught[0]

        sink, self._client.sink = self._client.sink, caught.append
        try:
            return e.learn(self.templates, symbol, encode)
        finally:
            self._client.sink = sink

    def cancel(self, order_id: int) -> None:
        self._client.cancelOrder(order_id, "")

    def global_cancel(self) -> None:
        self._client.reqGlobalCancel()

    def request_open_orders(self) -> None:
        self._client.reqAllOpenOrders()

    def request_executions(self) -> int:
        self._executions_id += 1
        self._client.reqExecutions(self._executions_id, ExecutionFilter())
        return self._executions_id

    def request_positions(self) -> None:
        self._client.reqPositions()

    def request_account(self, account: str) -> None:
        self._client.reqAccountUpdates(True, account)

    def probe(self) -> None:
        self._client.reqCurrentTime()

    def subscribe(self, symbol: int, line: Line) -> None:
        old = self._request_ids.pop((symbol, line), 0)
        if old:
            self._frames.close_line(old)
        index = symbol == self._index_symbol
        code = d.LINE_INDEX if line == Line.QUOTES and index else int(line)
        req_id = self._frames.open_line(symbol, code)
        self._request_ids[symbol, line] = req_id
        contract = self._contracts[symbol]
        if line == Line.DEPTH:
            self._client.reqMktDepth(req_id, contract, self._rows, contract.exchange == DEPTH_EXCHANGE_SMART, [])
        elif line == Line.QUOTES:
            self._client.reqMktData(req_id, contract, "" if index else _GENERIC_TICKS, False, False, [])
        elif line == Line.PRINTS:
            self._client.reqTickByTickData(req_id, contract, "AllLast", 0, False)

    def unsubscribe(self, symbol: int, line: Line) -> None:
        req_id = self._request_ids.pop((symbol, line), 0)
        if not req_id:
            return
        self._frames.close_line(req_id)
        if line == Line.DEPTH:
            self._client.cancelMktDepth(req_id, self._contracts[symbol].exchange == DEPTH_EXCHANGE_SMART)
        elif line == Line.QUOTES:
            self._client.cancelMktData(req_id)
        elif line == Line.PRINTS:
            self._client.cancelTickByTickData(req_id)

    def request_details(self, symbol: int) -> None:
        old = self._request_ids.pop((symbol, Line.DETAILS), 0)
        if old:
            self._frames.close_line(old)
        req_id = self._frames.open_line(symbol, d.LINE_DETAILS)
        self._request_ids[symbol, Line.DETAILS] = req_id
        self._client.reqContractDetails(req_id, self._contracts[symbol])

    def request_market_rule(self, rule_id: int) -> None:
        self._client.reqMarketRule(rule_id)

    def qualify(self, symbol: int, con_id: int, primary_exchange: str) -> None:
        contract = self._contracts[symbol]
        contract.conId = con_id
        if self._stock[symbol]:
            contract.primaryExchange = primary_exchange
        if self.phase == LinkPhase.OPEN and self._template_account:
            self._learn(symbol, self._template_account)
        else:
            self.templates[symbol]["parts"] = 0
