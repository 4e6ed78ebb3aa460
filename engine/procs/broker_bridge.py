"""broker-bridge: the only process with the trading connection. Market data in, the gate, orders out, the books.

One turn: read the socket, publish ticks, apply news, drain commands and orders in order of priority, write once, tell
what was sent. Nothing waits for an answer; what must happen later is a state with a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from engine import topology
from engine.broker import statefile
from engine.broker.bookkeeper import Bookkeeper
from engine.broker.cells import Cells
from engine.broker.commands import Commands
from engine.broker.connectivity import Connectivity
from engine.broker.contracts import ContractBook
from engine.broker.desk import Desk
from engine.broker.facts import Gatekeeper
from engine.broker.feed import Feed
from engine.broker.governor import Governor
from engine.broker.guard import Guard
from engine.broker.ib_link import IbLink
from engine.broker.link import BrokerLink
from engine.broker.order_store import OrderStore
from engine.broker.orders import Order
from engine.broker.register import Register
from engine.broker.repeats import CANCELS
from engine.broker.session import Session
from engine.broker.statefile import OrderIds
from engine.broker.telling import Teller
from engine.domain.codes import (
    EventKind,
    IntentKind,
    LinkState,
    ServiceState,
    Severity,
    Source,
)
from engine.risk.accounting import Accounts
from engine.runtime.context import Context
from engine.runtime.runner import StartRefused
from shm.ring import RingReader

_PATIENCE_NS = 2_000_000_000
"""An order or cancel without any answer for this long is in question."""
_PRUNE_NS = 600_000_000_000
_LEAVE_NS = 3_000_000_000
_LOOK_NS = 2_000_000
"""How often a bridge that leaves looks for the end of its entries."""
_WAKE_ON_TICKS = ("ml-service", "watchdog")


class EachSecond:
    """A duty that is due once a second."""

    def __init__(self, duty: Callable[[int], None]) -> None:
        self._duty, self._due_ns = duty, 0

    def __call__(self, now_ns: int) -> None:
        if now_ns >= self._due_ns:
            self._due_ns = now_ns + 1_000_000_000
            self._duty(now_ns)


class BrokerBridge:
    """The agent. ``link`` replaces the socket (a simulated exchange, or a test's), ``files`` the thread that writes."""

    def __init__(
        self, context: Context, link: BrokerLink | None = None, files: statefile.StateFiles | None = None
    ) -> None:
        config = context.config
        gw = config.gateway
        self._context, self._config, self._clock = context, config, context.clock
        self.counters = context.counters
        self._path = context.state_dir / "risk.bridge.json"
        try:
            recorded = statefile.load(self._path)
        except ValueError as error:
            raise StartRefused(f"broker-bridge: {error}") from error
        count = len(context.instruments)
        cache = context.state_dir / "contracts.json"
        self.link: BrokerLink = link or IbLink(
            gw.host, gw.port, gw.client_id, context.instruments, context.clock.now_ns,
            timeout_s=gw.request_timeout_s, depth_rows=config.universe.depth_rows, index_symbol=context.index_symbol,
            account=gw.account,
        )  # fmt: skip
        self._garbled: dict[int, str] = self.link.garbled if isinstance(self.link, IbLink) else {}
        self._ids = OrderIds(recorded.order_id_mark if recorded else 0)
        try:
            store = OrderStore(
                context.state_dir / "orders.bridge", [i.symbol for i in context.instruments],
                f"{config.instance.mode}:{gw.account}", client_id=gw.client_id,
            )  # fmt: skip
        except (ValueError, OSError) as error:
            raise StartRefused(f"broker-bridge: {error}") from error
        self.register, self.accounts = Register(store), Accounts(count)
        self._former = store.former
        self.contracts = ContractBook(context.instruments, cache, f"{config.instance.mode}:{gw.account}")
        self.gate = Gatekeeper(context, self.register, self.accounts, self.contracts)
        self.cells = Cells(context, self.register, self.accounts)
        self.governor: Governor[Callable[[int], None]] = Governor(gw.messages_per_s, gw.reserved_per_s)
        self.books = Bookkeeper(
            context, self.link, self.register, self.accounts, self.gate, self.cells, self.contracts, self._ids, recorded
        )
        self.desk = Desk(
            self.link,
            self.governor,
            self.register,
            self.gate,
            self._ids,
            gw.account,
            context.clock.now_ns,
            self.books.changed,
            self.books.efficiency,
        )
        self.desk.gave_up = self._uncancellable
        self.ticks = context.ring_writer("ticks")
        self.feed = Feed(
            context.instruments, context.index_symbol, self.link, self.governor, self.contracts, self._publish_ticks
        )
        self.conn = Connectivity(
            int(gw.reconnect_min_s * 1e9), int(gw.reconnect_max_s * 1e9), int(gw.probe_interval_s * 1e9),
            int(gw.request_timeout_s * 1e9),
        )  # fmt: skip
        self.session = Session(
            context, self.link, self.conn, self.books, self.desk, self.feed, self.contracts, self.gate, self.cells,
            self.governor, self._ids, self.counters, self._blocks,
        )  # fmt: skip
        dedicated = config.account_scope == "dedicated"
        self.commands = Commands(context.events, self.books, self.desk, self.register, self.session, dedicated)
        self.guard = Guard(
            context, self.gate, self.register, self.accounts, self.books, self.cells, self.conn, self.desk,
            self.commands, self.session,
        )  # fmt: skip
        self.guard.doubtful = self.feed.still_doubtful
        self._teller = Teller(context.events, self.counters, context.instruments, self.books)
        self._order_rings = [context.ring_reader(name, 256) for name in topology.ORDER_RINGS]
        self.orders_of_algo = self._order_rings[topology.ORDER_RINGS.index("orders.algo")]
        self.flight = context.spare_words()
        """The order that the fused hot path has on its way: sequence + 1 of its intent, its order id."""
        self._command_rings = [context.ring_reader(name, 64) for name in topology.COMMAND_RINGS]
        self._writer: statefile.StateFiles = files or statefile.Writer()
        self._writer_error = ""
        self._marks: deque[tuple[int, int]] = deque(maxlen=16)
        """Order-id marks that are being written: (number of the submission, mark)."""
        self.duties: tuple[Callable[[int], None], ...] = (
            self._keep_ids, self._see_to_the_link, self._see_to_orders, self.gate.markets, self.guard.watch_lease,
            self.guard.publish_blocks, self.guard.watch_algo, *(EachSecond(duty) for duty in (
                self._look_at_sessions, self._look_at_lines, self._resync, self._look_at_books, self._keep,
            )), self._say,
        )  # fmt: skip

    # Agent.

    def on_start(self, now_ns: int) -> None:
        living = self.register.restore(now_ns)
        for order in self.register.by_intent.values():
            if order.own:
                self._ids.raise_to(order.order_id + 1)
        self._ids.reserve()
        try:
            statefile.write_atomic(self._path, statefile.encode(self.books.state()))
        except OSError as error:
            raise StartRefused(
                f"broker-bridge: {self._path}: {error.strerror}: order ids can't be kept; check state_dir"
            ) from error
        self._ids.confirm(self._ids.mark)
        for order in living:
            self.books.say(order, text=order.text or "known from before the restart; to be read back from the broker")
        self._recover_flight(now_ns)
        for client_id, number in self._former.items():
            self._context.events.emit(
                EventKind.ALERT, severity=Severity.P2,
                text=f"{number} living orders were placed under client id {client_id}: they count, and can't be "
                f"cancelled as {self._config.gateway.client_id}; set gateway.client_id back, or cancel them in TWS",
            )  # fmt: skip
        self.desk.restored()
        self.contracts.load(self._clock.wall_ns(now_ns))
        for symbol, facts in enumerate(self.contracts.facts):
            self.gate.contract_changed(symbol)
            if facts is not None:
                self.books.learn_contract(symbol, facts.con_id)
                self.link.qualify(symbol, facts.con_id, facts.primary_exchange)
        self.gate.sessions(self._clock.wall_ns(now_ns))
        self.guard.publish_blocks(now_ns)
        self.books.publish(now_ns)
        self.cells.publish_broker(now_ns)

    def _recover_flight(self, now_ns: int) -> None:
        """An order that the fused hot path had on its way when the process before us died, if there is one."""
        words, at = self.flight
        sequence, order_id = int(words[at]) - 1, int(words[at + 1])
        if sequence < 0:
            return
        ring = self.orders_of_algo
        position = ring.position
        ring.seek(sequence)
        if ring.peek_count():
            record = ring.buffer[:1].copy()
            order = self.desk.recover(record, order_id, now_ns) if record[0]["sequence"] == sequence else None
            if order is not None:
                self.books.say(order, text="it was on its way when the bridge ended; to be read back from the broker")
        ring.seek(max(position, sequence + 1))
        words[at] = 0

    @property
    def other_rings(self) -> list[RingReader]:
        """What it drains besides the strategy's orders."""
        return [*self._command_rings, *(r for r in self._order_rings if r is not self.orders_of_algo)]

    def sent_by_fused(self, record: npt.NDArray[np.void], reducing: bool, times: tuple[int, int, int]) -> None:
        """The fused hot path has sent an intent as the next order; ``times``: gate begun, gate ended, on the wire."""
        gate_ns, gated_ns, wire_ns = times
        self.desk.left(record, reducing, wire_ns, gated_ns - gate_ns, gated_ns)
        words, at = self.flight
        words[at] = 0  # it is in the store now
        self._send(wire_ns)

    def ready(self) -> bool:
        if not self.guard.started and self.books.reconciled and self.contracts.qualified and self.feed.requested:
            self.guard.started = True
            self.guard.publish_blocks(self._clock.now_ns())
        return self.guard.started

    def lag(self) -> int:
        return sum(r.waiting for r in self._order_rings) + sum(r.waiting for r in self._command_rings)

    def wait_fds(self) -> tuple[int, ...]:
        fd = self.link.fileno()
        return (fd,) if fd >= 0 else ()

    def do_work(self, now_ns: int) -> int:
        work = self._receive(now_ns)
        work += self._drain(now_ns)
        self._send(now_ns)
        return work

    def housekeeping(self, now_ns: int) -> None:
        for duty in self.duties:
            duty(now_ns)

    def on_close(self, now_ns: int) -> None:
        """Orderly handover: entries cancelled and confirmed, positions kept, the watchdog told that this is planned."""
        self.cells.broker["leaving"] = 1
        self.cells.publish_broker(now_ns)
        self._context.wake("watchdog")
        self._context.events.emit(
            EventKind.LIFECYCLE, ServiceState.CLOSING, text="leaving: entries are cancelled, positions kept"
        )
        deadline_ns = self._clock.now_ns() + _LEAVE_NS
        if self.conn.session:
            self.commands.cancel_entries(now_ns)
            self._send(now_ns)
            while (
                self.conn.session
                and any(o.entry and o.own for o in self.register.active())
                and self._clock.now_ns() < deadline_ns
            ):
                if not self._receive(self._clock.now_ns()):
                    self._clock.pause(_LOOK_NS)
                self._send(self._clock.now_ns())
            self.session.leaving = True
            self.link.disconnect("leaving")
            while self.link.news:
                self.session.take(self.link.news.popleft(), self._clock.now_ns())
        self._save()
        if not self._writer.drain(2.0):
            self._context.log.error("state was not written in time: %s", self._writer.error or self._path)
        self._writer.close()
        self.cells.publish_broker(self._clock.now_ns())

    # One turn.

    def _publish_ticks(self, ticks: npt.NDArray[np.void]) -> None:
        self.ticks.publish(ticks)

    def _receive(self, now_ns: int) -> int:
        link = self.link
        work = link.poll(now_ns)
        if link.tick_count:
            ticks = link.take_ticks()
            decoded_ns = self._clock.now_ns()
            ticks["t_decoded_ns"] = decoded_ns
            self.ticks.publish(ticks)
            for service in _WAKE_ON_TICKS:
                self._context.wake(service)
            self.feed.took(ticks)
            self.counters.add("ticks", len(ticks))
            self.counters.record("socket_to_decoded_ns", max(0, decoded_ns - int(ticks["t_socket_ns"][-1])))
        if link.news:
            now_ns = self._clock.now_ns()
            events = int(self.cells.broker["order_events"])
            while link.news:
                self.session.take(link.news.popleft(), now_ns)
            self.books.publish(now_ns)
            self.cells.publish_broker(now_ns)
            if int(self.cells.broker["order_events"]) != events:
                self._context.wake("algo")
                self._context.wake("watchdog")
        return work

    def _drain(self, now_ns: int) -> int:
        """Commands and orders, the watchdog's first."""
        work = 0
        for commands, orders in zip((*self._command_rings, None), self._order_rings, strict=True):
            for ring, handle in ((commands, self.commands.handle), (orders, None)):
                if ring is None:
                    continue
                count = ring.peek_count()
                work += count
                for k in range(count):
                    if handle is not None:
                        handle(ring.buffer[k], now_ns)
                    else:
                        self.desk.handle(ring.buffer[k : k + 1].copy(), self._clock.now_ns())
                    # Only now: whoever comes after a sudden death finds it again, and what was sent in the store.
                    ring.commit()
        return work

    def _send(self, now_ns: int) -> None:
        """Release what the governor lets go, write once, tell afterwards."""
        desk = self.desk
        if self.governor.waiting:
            self.gate.authority(now_ns)  # what waited, or comes from a life before, asks anew whose right it is
            for send in self.governor.release(now_ns):
                send(now_ns)
        desk.release_entries(now_ns)
        self.link.flush()
        if not desk.verdicts and not desk.cancels_written:
            return
        written_ns = self._clock.now_ns()
        verdicts, desk.verdicts = desk.verdicts, []
        if desk.closes_written:
            self.cells.broker["last_close_sent_ns"] = written_ns
        desk.closes_written, desk.cancels_written = False, 0
        for v in verdicts:
            i = v.intent[0]
            if i["kind"] == IntentKind.NEW and 0 < i["source"] <= 5:
                self.cells.account["intents"][int(i["source"]) - 1] += 1
            if v.refusal and i["source"] == Source.BRIDGE and i["symbol"] < len(self._context.instruments):
                self.guard.deadman.rejected |= 1 << int(i["symbol"])
        self.books.account_dirty = True
        self._teller.tell(verdicts, written_ns)
        self.books.publish(written_ns)
        self.cells.publish_broker(written_ns)
        self._context.wake("watchdog")
        self._context.wake("algo")

    # Duties.

    def _keep_ids(self, now_ns: int) -> None:
        """Order ids are reserved ahead of need, and used once their mark is on disk."""
        if self._ids.reserve() is not None:
            self._write_state()
        written = self._writer.written(self._path) if self._marks else 0
        while self._marks and self._marks[0][0] <= written:
            self._ids.confirm(self._marks.popleft()[1])

    def _see_to_the_link(self, now_ns: int) -> None:
        self.conn.heard_ns = self.link.last_message_ns
        self.session.connect_if_due(now_ns)
        self.session.probe_if_due(now_ns)
        self.session.read_books(now_ns)

    def _see_to_orders(self, now_ns: int) -> None:
        if self.conn.state != LinkState.UP:
            return
        if self.books.silence(now_ns, _PATIENCE_NS) or self.books.drifting(now_ns):
            self.session.want_reading_once(now_ns)
        self.desk.cancel_again(now_ns)

    def _uncancellable(self, order: Order) -> None:
        name = self._context.instruments[order.symbol].symbol
        self._context.events.emit(
            EventKind.ALERT, symbol=order.symbol, severity=Severity.P1, ref_id=order.intent_id, value=order.remaining,
            text=f"{name}: order {order.order_id} lives on after {CANCELS} cancels ({order.text or 'no answer'}): not "
            "asked again by itself; cancel it in TWS, or ask again",
        )  # fmt: skip

    def _say(self, now_ns: int) -> None:
        self.cells.broker["last_message_ns"] = self.link.last_message_ns
        self.cells.broker["messages_sent"] = self.link.messages_sent
        self.cells.broker["order_id_mark"] = self._ids.mark
        self._send(now_ns)
        self.books.publish(now_ns)
        self.cells.publish_broker(now_ns)

    def _blocks(self, now_ns: int) -> None:
        self.guard.publish_blocks(now_ns)

    def _look_at_sessions(self, now_ns: int) -> None:
        self.gate.sessions(self._clock.wall_ns(now_ns))

    def _look_at_lines(self, now_ns: int) -> None:
        if self.conn.state != LinkState.UP:
            return
        for symbol in self.feed.watch(now_ns, self._clock.wall_ns(now_ns)):
            self.counters.add("resyncs")
            name = self._context.instruments[symbol].symbol
            self._context.events.emit(
                EventKind.ALERT, symbol=symbol, severity=Severity.ROUTINE, text=f"{name}: no data; subscribed anew"
            )

    def _look_at_books(self, now_ns: int) -> None:
        if self.conn.state == LinkState.UP:
            self.session.refresh_details(now_ns)
        self.books.roll_day(now_ns)
        self.register.prune(now_ns - _PRUNE_NS)

    def _keep(self, now_ns: int) -> None:
        self.counters.set("bad_frames", self.link.bad_frames)
        self._save()
        if self._writer.error != self._writer_error:
            self._writer_error = self._writer.error
            if self._writer_error:
                self._context.events.emit(
                    EventKind.ALERT, severity=Severity.P1, text=f"state can't be written: {self._writer_error}"
                )

    def _resync(self, now_ns: int) -> None:
        """Books that can't be used although their feed ticks are asked for anew; what could not be read is named."""
        if self.conn.state != LinkState.UP:
            return
        for symbol, instrument in enumerate(self._context.instruments):
            if self.feed.resync(symbol, self.gate.fit(symbol, now_ns), now_ns):
                self.counters.add("resyncs")
                self._context.events.emit(
                    EventKind.CONNECTIVITY, symbol=symbol, severity=Severity.ROUTINE,
                    text=f"{instrument.symbol}: book invalid; depth subscribed anew",
                )  # fmt: skip
        while self._garbled:
            symbol, words = self._garbled.popitem()
            name = self._context.instruments[symbol].symbol
            self._context.events.emit(
                EventKind.CONNECTIVITY, symbol=symbol, severity=Severity.P2, value=float(self.link.bad_frames),
                text=f"{name}: {words}; its book is void until the feed inserts it anew",
            )  # fmt: skip

    def _save(self) -> None:
        if self.books.save_due or (self._marks and self._writer.error):
            self._write_state()
        if self.contracts.dirty and self.contracts.qualified:
            self._writer.submit(self._context.state_dir / "contracts.json", self.contracts.save())

    def _write_state(self) -> None:
        self.books.save_due = False
        self._marks.append((self._writer.submit(self._path, statefile.encode(self.books.state())), self._ids.mark))


def create(context: Context) -> BrokerBridge:
    """Called by the runner. Raises StartRefused when the kept state can't be read or written."""
    return BrokerBridge(context)
