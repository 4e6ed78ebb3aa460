"""The stream: one producer builds and encodes each frame once; every client gets the same bytes.

A client that reads slowly skips frames while its write buffer holds more than 128 KiB, and is dropped when it has taken
nothing for 2 s. It never slows another client or the engine: each has its own task, and the producer only leaves the
newest frames in its slot. Durable events are never skipped: a client's own position in the log says where it is.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from engine.cockpit.arming import Arming
from engine.cockpit.durable import DurableLog
from engine.cockpit.errors import Problem
from engine.cockpit.frames import Frames, encode
from engine.cockpit.history import History
from engine.cockpit.services import Services
from engine.cockpit.tail import Tail
from engine.cockpit.view import View
from engine.cockpit.wire import RETRY, frame
from engine.runtime.context import Context

BUFFER_LIMIT = 128 * 1024
STUCK_NS = 2_000_000_000
STREAMS_PER_SESSION = 3
SLOW_NS = 1_000_000_000


@dataclass(slots=True, eq=False)
class Client:
    """One open stream."""

    session: str
    tab: str
    focus: int
    position: int
    """Number of the next durable event for it."""
    response: web.StreamResponse
    transport: asyncio.Transport
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    newest: dict[str, bytes] = field(default_factory=dict)
    written: int = 0
    delivered: int = 0
    progress_ns: int = 0
    left: bool = False
    dropped: bool = False
    nonce: str = ""
    nonce_ns: int = 0

    def put(self, slot: str, data: bytes) -> None:
        self.newest[slot] = data
        self.ready.set()


class Stream:
    """Producer and clients."""

    def __init__(
        self,
        ctx: Context,
        view: View,
        services: Services,
        tail: Tail,
        log: DurableLog,
        history: History,
        arming: Arming,
    ) -> None:
        self._ctx = ctx
        self._view, self._tail, self._log, self._history = view, tail, log, history
        self._built = Frames(view, services, tail)
        self.arming = arming
        self.clients: list[Client] = []
        self._arm = ctx.cell_writer("arm")
        self._arm_state: tuple[int, ...] = ()
        self._slow_ns = self._beat_ns = 0
        self.frames = self.dropped = self.skipped = 0
        self._period_s = 1.0 / ctx.config.cockpit.frames_per_s
        self.on_frame: Callable[[], None] = lambda: None

    # -- producer ------------------------------------------------------------------------------------------------

    async def produce(self, stop: asyncio.Event) -> None:
        """Run until ``stop``. With no client it looks at the rings four times a second and encodes nothing."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not stop.is_set():
            self.cycle(self._ctx.clock.now_ns())
            period = self._period_s if self.clients or self.arming.leases else 0.25
            due = max(due + period, loop.time())
            try:
                await asyncio.wait_for(stop.wait(), due - loop.time())
            except TimeoutError:
                continue

    def cycle(self, now_ns: int) -> None:
        """One frame: drain, build what changed, hand it out, look after arm leases and slow clients."""
        began = self._ctx.clock.now_ns()
        work = self._tail.drain()
        slow = now_ns - self._slow_ns >= SLOW_NS
        if slow or self.clients:
            self._view.refresh(now_ns)
        if slow:
            self._slow_ns = now_ns
            self._history.sample()
        if self.clients:
            self._frames(now_ns, slow)
            self._ctx.counters.record("frame_ns", self._ctx.clock.now_ns() - began)
        self._lease_duty(now_ns)
        self._drop_stuck(now_ns)
        self._ctx.beat(work + 1, lag=0, lost=self._ctx.lost)
        self.on_frame()

    def _frames(self, now_ns: int, slow: bool) -> None:
        if self._tail.gap:
            self._tail.gap = 0
            resync = frame("resync", orjson.dumps({"reason": "events were lost; a snapshot follows"}))
            snapshot = self.snapshot_frame()
            for client in self.clients:
                client.position = self._log.next
                client.put("resync", resync + snapshot)
        state = self._built.state_frame(now_ns, slow)
        focused = {c.focus for c in self.clients}
        books = {i: self._built.book_frame(i) for i in focused}
        beat = now_ns - self._beat_ns >= SLOW_NS
        if beat:
            self._beat_ns = now_ns
        for client in self.clients:
            size = client.transport.get_write_buffer_size()
            if size > BUFFER_LIMIT:
                self.skipped += 1
                continue
            book = books[client.focus]
            if book is not None:
                self.skipped += "book" in client.newest  # the frame before was never taken: replaced by this one
                client.put("book", book)
            if state is not None:
                self._put_state(client, state)
            if beat:
                client.put("heartbeat", self._heartbeat(client, now_ns))
            if client.position < self._log.next:
                client.ready.set()
        self.frames += 1
        self._ctx.counters.add("frames")

    def _put_state(self, client: Client, state: bytes) -> None:
        # Sections are sent when they change: a frame that this client has not taken yet must not be lost with what
        # only it contains, so frames pile up in the slot until the client takes them or its buffer runs full.
        waiting = client.newest.get("state")
        client.put("state", state if waiting is None else waiting + state)
        if waiting is not None and len(waiting) > BUFFER_LIMIT:
            client.newest["state"] = self._built.whole_state()

    def _heartbeat(self, client: Client, now_ns: int) -> bytes:
        client.nonce, client.nonce_ns = secrets.token_hex(8), now_ns
        server_ms = self._ctx.clock.wall_ns(now_ns) // 1_000_000
        return frame("heartbeat", orjson.dumps({"server_ms": server_ms, "nonce": client.nonce, "tab": client.tab}))

    def snapshot(self) -> dict[str, Any]:
        """What `/api/state` answers."""
        counts = {"clients": len(self.clients), "frames": self.frames, "skipped": self.skipped, "dropped": self.dropped}
        return self._built.snapshot(counts)

    def snapshot_frame(self) -> bytes:
        return frame("snapshot", encode(self.snapshot()))

    # -- leases and slow clients ---------------------------------------------------------------------------------

    def _lease_duty(self, now_ns: int) -> None:
        killed = bool(self.arming.leases) and self._view.stops().kill
        if self.arming.leases:
            for lease, why in self.arming.expire(now_ns, killed):
                self._ctx.log.info("disarmed: %s", why, extra={"session": lease.session, "tab": lease.tab})
                for client in self.clients:
                    if (client.session, client.tab) == (lease.session, lease.tab):
                        client.put("disarm", frame("disarm", orjson.dumps({"reason": why})))
        armed, since, gone = self.arming.summary()
        state = (armed, since, gone, int(self.arming.kill_on_gone), len(self.clients))
        if state != self._arm_state or now_ns - int(self._arm.value[0]["updated_ns"]) > SLOW_NS:
            self._arm_state = state
            self._arm.value[0] = (0, now_ns, *state, self.frames, self.dropped, 0)  # the cell's version, ..., spare
            self._arm.publish()

    def _drop_stuck(self, now_ns: int) -> None:
        for client in list(self.clients):
            size = client.transport.get_write_buffer_size()
            taken = client.written - size
            if size == 0 or taken > client.delivered:
                client.delivered = taken
                client.progress_ns = now_ns
            elif now_ns - client.progress_ns > STUCK_NS:
                self.dropped += 1
                client.dropped = True
                self._ctx.counters.add("dropped")
                client.transport.abort()
                self._gone(client)

    def _gone(self, client: Client) -> None:
        if client not in self.clients:
            return
        self.clients.remove(client)
        client.ready.set()
        if not client.left and not any((c.session, c.tab) == (client.session, client.tab) for c in self.clients):
            self.arming.stream_lost(client.session, client.tab, client.progress_ns)

    def close(self) -> None:
        """The server stops: end every stream, without calling that a loss."""
        for client in list(self.clients):
            client.left = True
            client.transport.close()
            client.ready.set()

    def leave(self, session: str, tab: str) -> None:
        """The page says goodbye (pagehide): its arm lease ends, its stream's end is no loss."""
        self.arming.disarm(session, tab)
        for client in self.clients:
            if (client.session, client.tab) == (session, tab):
                client.left = True

    def acknowledge(self, session: str, tab: str, nonce: str, now_ns: int) -> int:
        """A page answers a heartbeat; returns the round trip in ns, 0 if the nonce is not the last one."""
        self.arming.acknowledged(session, tab, now_ns)
        for client in self.clients:
            if (client.session, client.tab) == (session, tab) and secrets.compare_digest(client.nonce, nonce):
                round_trip = now_ns - client.nonce_ns
                self._ctx.counters.record("sse_ns", round_trip)
                return round_trip
        return 0

    def has_stream(self, session: str, tab: str) -> bool:
        return any((c.session, c.tab) == (session, tab) for c in self.clients)

    def focus(self, session: str, tab: str, index: int) -> None:
        for client in self.clients:
            if (client.session, client.tab) == (session, tab):
                client.focus = index

    # -- one client ----------------------------------------------------------------------------------------------

    async def serve(
        self,
        request: web.Request,
        response: web.StreamResponse,
        session: str,
        tab: str,
        focus: int,
        last_event_id: str | None,
    ) -> None:
        """Serve one stream until it breaks or the server stops. Raises Problem 429 for a fourth stream of a session."""
        if sum(c.session == session for c in self.clients) >= STREAMS_PER_SESSION:
            raise Problem(
                429,
                f"{STREAMS_PER_SESSION} streams of this session are open already: close one, or share it among tabs",
            )
        await response.prepare(request)
        transport = request.transport
        if transport is None:
            return
        now_ns = self._ctx.clock.now_ns()
        self._tail.drain()
        self._view.refresh(now_ns)
        resume = self._log.resume_at(last_event_id)
        hello = RETRY
        if last_event_id and resume is None:
            hello += frame(
                "resync", orjson.dumps({"reason": "the last event id is not known here; a snapshot follows"})
            )
        client = Client(
            session, tab, focus, self._log.next if resume is None else resume, response, transport, progress_ns=now_ns
        )
        # A snapshot always comes first; its own id makes a client that never saw a durable event resumable.
        hello += b"id: %d-%d\n" % (self._log.epoch, client.position - 1) + self.snapshot_frame()
        client.put("hello", hello)
        self.clients.append(client)
        self.arming.stream_back(session, tab, now_ns)
        self._ctx.counters.set("clients", len(self.clients))
        try:
            await self._pump(client)
        except ConnectionError:
            return
        finally:
            self._gone(client)
            self._ctx.counters.set("clients", len(self.clients))

    async def _pump(self, client: Client) -> None:
        while not client.transport.is_closing():
            await client.ready.wait()
            client.ready.clear()
            chunks = list(client.newest.values())
            client.newest.clear()
            if client.position < self._log.next:
                events = self._log.since(client.position)
                if events is None:
                    chunks.append(
                        frame("resync", orjson.dumps({"reason": "too far behind; a snapshot follows"}))
                        + self.snapshot_frame()
                    )
                else:
                    chunks.extend(events)
                client.position = self._log.next
            data = b"".join(chunks)
            if not data:
                continue
            client.written += len(data)
            await client.response.write(data)
