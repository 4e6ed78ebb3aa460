"""broker-bridge: the only process with the trading connection. Market data in, the gate, orders out, the books.

One turn: read the socket, publish ticks, apply news, drain commands and orders in order of priority, write once, tell
what was sent. Nothing waits for an answer; what must happen later is a state with a time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from engine import topology
from engine.broker import statefile
from engine.broker.bookkeeper import Bookkeeper
from engine.broker.cells import Cells, reason_words
from engine.broker.commands import Commands
from engine.broker.connectivity import Connectivity
from engine.broker.contracts import ContractBook
from engine.broker.deadman import DeadMan, Lease, LeaseVerdict
from engine.broker.desk import Desk
from engine.broker.facts import Gatekeeper
from engine.broker.feed import Feed
from engine.broker.governor import Governor
from engine.broker.ib_link import IbLink
from engine.broker.link import BrokerLink
from engine.broker.orders import Register
from engine.broker.session import Session
from engine.broker.statefile import OrderIds
from engine.broker.telling import Teller
from engine.domain.codes import (
    Badge,
    BlockReason,
    EventKind,
    IntentFlag,
    IntentKind,
    LinkState,
    OrderType,
    ServiceState,
    Severity,
    Source,
    TimeInForce,
)
from engine.domain.sessions import is_regular_hours
from engine.risk import flatten as machine
from engine.risk.accounting import Accounts
from engine.runtime.context import Context
from engine.runtime.runner import StartRefused
from shm.layouts import INTENT

_PATIENCE_NS = 2_000_000_000
"""An order or cancel without any answer for this long is in question."""
_PRUNE_NS = 600_000_000_000
_WATCH_NS = 1_000_000_000
_LEAVE_NS = 3_000_000_000
_WAKE_ON_TICKS = ("ml-service", "watchdog")
_BROKER_VIEW = ("snapshot_id", "snapshot_begin_ns", "snapshot_end_ns", "snapshot_events", "snapshot_open_orders",
                "snapshot_positions", "order_events", "last_close_sent_ns")  # fmt: skip


class BrokerBridge:
    """The agent. ``link`` replaces the socket: a simulated exchange, or a test's."""

    def __init__(self, context: Context, link: BrokerLink | None = None) -> None:
        config = context.config
        gw = config.gateway
        self._context, self._config, self._clock = context, config, context.clock
        self._counters = context.counters
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
        )  # fmt: skip
        self._ids = OrderIds(recorded.order_id_mark if recorded else 0)
        self.register, self.accounts = Register(), Accounts(count)
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
        )
        self._ticks = context.ring_writer("ticks")
        self.feed = Feed(
            context.instruments, context.index_symbol, self.link, self.governor, self.contracts, self._publish_ticks
        )
        self.conn = Connectivity(
            int(gw.reconnect_min_s * 1e9), int(gw.reconnect_max_s * 1e9), int(gw.probe_interval_s * 1e9),
            int(gw.request_timeout_s * 1e9),
        )  # fmt: skip
        self.session = Session(
            context, self.link, self.conn, self.books, self.desk, self.feed, self.contracts, self.gate, self.cells,
            self.governor, self._ids, self._counters, self._blocks,
        )  # fmt: skip
        dedicated = config.account_scope == "dedicated"
        self._scope_answered = bool(config.account_scope)
        self.commands = Commands(context.events, self.books, self.desk, self.register, self.session, dedicated)
        self._teller = Teller(context.events, self._counters, context.instruments, self.books)
        self._order_rings = [context.ring_reader(name, 256) for name in topology.ORDER_RINGS]
        self._command_rings = [context.ring_reader(name, 64) for name in topology.COMMAND_RINGS]
        self._algo = context.cell_reader("heartbeat.algo")
        self._algo_silent_ns = int(config.guardrails.algo_silent_s * 1e9)
        self._algo_gone = False
        self._writer = statefile.Writer()
        self._writer_error = ""
        self._lease = Lease(int(config.guardrails.watchdog_gone_s * 1e9))
        self._lease_valid = False
        self.deadman = DeadMan(
            self.register,
            self.accounts,
            self._close_one,
            self._cancel_everything,
            self.session.snapshot,
            self._remaining,
        )
        self._full_scope = (1 << count) - 1
        self._sim = config.instance.mode == "sim"
        self._next_watch_ns = 0
        self._was_ready = False

    # Agent.

    def on_start(self, now_ns: int) -> None:
        mark = self._ids.reserve()
        if mark is not None:
            try:
                statefile.write_atomic(self._path, statefile.encode(self.books.state()))
            except OSError as error:
                raise StartRefused(
                    f"broker-bridge: {self._path}: {error.strerror}: order ids can't be kept; check state_dir"
                ) from error
        self.contracts.load(self._clock.wall_ns(now_ns))
        for symbol, facts in enumerate(self.contracts.facts):
            self.gate.contract_changed(symbol)
            if facts is not None:
                self.books.learn_contract(symbol, facts.con_id)
                self.link.qualify(symbol, facts.con_id, facts.primary_exchange)
        self.gate.sessions(self._clock.wall_ns(now_ns))
        self._blocks(now_ns)
        self.books.publish(now_ns)
        self.cells.publish_broker(now_ns)

    def ready(self) -> bool:
        if not self._was_ready and self.books.reconciled and self.contracts.qualified and self.feed.requested:
            self._was_ready = True
            self._blocks(self._clock.now_ns())
        return self._was_ready

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
        self.session.connect_if_due(now_ns)
        self.session.probe_if_due(now_ns)
        self.session.read_books(now_ns)
        if self.books.silence(now_ns, _PATIENCE_NS) and self.conn.state == LinkState.UP:
            self.session.want_reading_once(now_ns)
        self.gate.markets(now_ns)
        self._guard(now_ns)
        self._watch_algo(now_ns)
        if now_ns >= self._next_watch_ns:
            self._next_watch_ns = now_ns + _WATCH_NS
            self._every_second(now_ns)
        self.cells.broker["last_message_ns"] = self.link.last_message_ns
        self.cells.broker["messages_sent"] = self.link.messages_sent
        self.cells.broker["order_id_mark"] = self._ids.mark
        self._send(now_ns)
        self.books.publish(now_ns)
        self.cells.publish_broker(now_ns)

    def on_close(self, now_ns: int) -> None:
        """Orderly handover: entries cancelled and confirmed, positions kept, the watchdog told that this is planned."""
        self.cells.broker["leaving"] = 1
        self.cells.publish_broker(now_ns)
        self._context.wake("watchdog")
        self._context.events.emit(
            EventKind.LIFECYCLE, ServiceState.CLOSING, text="leaving: entries are cancelled, positions kept"
        )
        deadline = time.monotonic() + _LEAVE_NS / 1e9  # real time also on a simulated clock: a stop must end
        if self.conn.session:
            self.commands.cancel_entries(now_ns)
            self._send(now_ns)
            while (
                self.conn.session
                and any(o.entry and o.own for o in self.register.active())
                and time.monotonic() < deadline
            ):
                if not self._receive(self._clock.now_ns()):
                    time.sleep(0.002)
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
        self._ticks.publish(ticks)

    def _receive(self, now_ns: int) -> int:
        link = self.link
        work = link.poll(now_ns)
        if link.tick_count:
            ticks = link.take_ticks()
            decoded_ns = self._clock.now_ns()
            ticks["t_decoded_ns"] = decoded_ns
            self._ticks.publish(ticks)
            for service in _WAKE_ON_TICKS:
                self._context.wake(service)
            self.feed.took(ticks)
            self._counters.add("ticks", len(ticks))
            self._counters.record("socket_to_decoded_ns", max(0, decoded_ns - int(ticks["t_socket_ns"][-1])))
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
                count = ring.poll_count()
                work += count
                for k in range(count):
                    if handle is not None:
                        handle(ring.buffer[k], now_ns)
                    else:
                        self.desk.handle(ring.buffer[k : k + 1].copy(), self._clock.now_ns())
        return work

    def _send(self, now_ns: int) -> None:
        """Release what the governor lets go, write once, tell afterwards."""
        desk = self.desk
        if self.governor.waiting:
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
                self.deadman.rejected |= 1 << int(i["symbol"])
        self.books.account_dirty = True
        self._teller.tell(verdicts, written_ns)
        self.books.publish(written_ns)
        self.cells.publish_broker(written_ns)
        self._context.wake("watchdog")
        self._context.wake("algo")

    # Duties.

    def _blocks(self, now_ns: int) -> None:
        """Publish the derived facts that stop entries."""
        books, state = self.books, self.conn.state
        mask = 0
        for reason, holds in (
            (BlockReason.LINK_DOWN, state in (LinkState.DOWN, LinkState.CONNECTING, LinkState.BROKER_LOST)),
            (BlockReason.RECONCILIATION_OPEN, not books.reconciled),
            (BlockReason.LEASE_EXPIRED, not self._lease_valid),
            (BlockReason.ACCOUNT_MISMATCH, self.conn.session and not books.account_ok),
            (BlockReason.SCOPE_UNANSWERED, not self._scope_answered),
            (BlockReason.STARTING, not self._was_ready),
            (BlockReason.POSITION_MISMATCH, books.mismatch),
        ):
            mask |= int(holds) << int(reason)
        former = int(self.cells.stop["block_reasons"])
        if self.cells.block(mask, now_ns) and mask != former:
            text = (
                f"entries blocked by the bridge: {reason_words(mask)}" if mask else "the bridge blocks nothing any more"
            )
            self._context.events.emit(EventKind.STOP, text=text, value=float(mask))
            self._context.wake("watchdog")

    def _guard(self, now_ns: int) -> None:
        """Lease and dead-man."""
        self.gate.authority(now_ns)
        valid = self.gate.lease_valid
        exposed = any(h.qty for h in self.accounts.holdings) or self.register.active_count > 0
        verdict = self._lease.judge(
            now_ns, valid=valid, ours=self.gate.owner_ours, responsible=self.books.opened and exposed,
            expires_ns=self.gate.lease_expires_ns,
        )  # fmt: skip
        if self._lease_valid and not valid:
            self._context.events.emit(
                EventKind.ALERT,
                severity=Severity.P2,
                text="the watchdog's lease has expired: entries are cancelled, only reducing orders pass",
            )
            self.commands.cancel_entries(now_ns)
        self._lease_valid = valid
        if verdict == LeaseVerdict.GONE and not self.deadman.active and not self._flat():
            self._context.events.emit(
                EventKind.ALERT, severity=Severity.P1,
                text=f"no watchdog for {self._config.guardrails.watchdog_gone_s:g} s: the bridge latches KILL and gets flat by itself",
            )  # fmt: skip
            self.cells.kill(1 << Badge.KILL, now_ns)
            self.deadman.start(
                len(self._context.instruments),
                self._full_scope,
                Source.BRIDGE,
                "no watchdog: the bridge's dead-man",
                now_ns,
            )
        if self.deadman.active:
            self._step_deadman(now_ns)
        self._blocks(now_ns)

    def _flat(self) -> bool:
        return not any(h.qty for h in self.accounts.holdings) and not self.register.active_count

    def _step_deadman(self, now_ns: int) -> None:
        halted = sum(1 << k for k in range(len(self._context.instruments)) if self.gate.facts["halted"][k])
        done = self.deadman.step(
            now_ns,
            quotes=self.gate.quote,
            halted=halted,
            broker={name: int(self.cells.broker[name]) for name in _BROKER_VIEW},
            regular_hours=is_regular_hours(self._clock.wall_ns(now_ns), self._sim),
            can_send=self.conn.state == LinkState.UP and self.gate.owner_ours,
        )
        if done:
            self._context.events.emit(EventKind.FLATTEN, self.deadman.state.state, severity=Severity.P1, ref_id=self.deadman.state.flatten_id,
                                      text="flat, confirmed by the broker, without a watchdog")  # fmt: skip

    def _close_one(self, close: machine.Close) -> None:
        record = np.zeros(1, INTENT)
        now_ns = self._clock.now_ns()
        market = math.isnan(close.limit)
        step = float(self.gate.facts["step"][close.symbol, 0]) or 0.01
        i = record[0]
        i["intent_id"], i["kind"], i["source"] = (
            self._context.ids.next(Source.BRIDGE),
            int(IntentKind.NEW),
            int(Source.BRIDGE),
        )
        i["t_intent_ns"], i["symbol"], i["side"], i["qty"] = now_ns, close.symbol, int(close.side), close.qty
        i["order_type"] = int(OrderType.MKT if market else OrderType.LMT)
        i["limit_price"] = math.nan if market else round(round(close.limit / step) * step, 6)
        i["tif"] = int(TimeInForce.DAY)
        i["flags"] = IntentFlag.REDUCE_ONLY | IntentFlag.FLATTEN | (0 if market else IntentFlag.OUTSIDE_RTH)
        self.desk.handle(record, now_ns)

    def _cancel_everything(self) -> None:
        self.commands.cancel_all(self._clock.now_ns())

    def _remaining(self, text: str, mask: int) -> None:
        names = [i.symbol for i in self._context.instruments if mask >> i.index & 1]
        self._context.events.emit(EventKind.ALERT, severity=Severity.P1, text=f"not flat: {', '.join(names)}: {text}")

    def _watch_algo(self, now_ns: int) -> None:
        """A strategy that died or hangs must not leave entries behind."""
        beat = self._algo.read()
        running = int(beat["state"]) in (ServiceState.READY, ServiceState.WARMING)
        silent = now_ns - int(beat["t_beat_ns"]) > self._algo_silent_ns
        gone = (running and silent) or int(beat["state"]) in (
            ServiceState.STOPPED,
            ServiceState.DOWN,
            ServiceState.CLOSING,
        )
        if gone and not self._algo_gone:
            count = self.commands.cancel_entries(now_ns, int(Source.ALGO))
            if count:
                self._context.events.emit(
                    EventKind.ALERT,
                    severity=Severity.P2,
                    text=f"algo is silent: {count} of its entry orders are cancelled",
                )
        self._algo_gone = gone

    def _every_second(self, now_ns: int) -> None:
        wall_ns = self._clock.wall_ns(now_ns)
        self.gate.sessions(wall_ns)
        if self.conn.state == LinkState.UP:
            for symbol in self.feed.watch(now_ns, wall_ns):
                self._counters.add("resyncs")
                name = self._context.instruments[symbol].symbol
                self._context.events.emit(
                    EventKind.ALERT, symbol=symbol, severity=Severity.ROUTINE, text=f"{name}: no data; subscribed anew"
                )
            if self.books.drifting(now_ns):
                self.session.want_reading()
            self.session.refresh_details(now_ns)
        self.books.roll_day(now_ns)
        self.register.prune(now_ns - _PRUNE_NS)
        self._counters.set("bad_frames", self.link.bad_frames)
        self._save()
        if self._writer.error != self._writer_error:
            self._writer_error = self._writer.error
            if self._writer_error:
                self._context.events.emit(
                    EventKind.ALERT, severity=Severity.P1, text=f"state can't be written: {self._writer_error}"
                )

    def _save(self) -> None:
        if self._ids.reserve() is not None or self.books.save_due:
            self.books.save_due = False
            self._writer.submit(self._path, statefile.encode(self.books.state()))
        if self.contracts.dirty and self.contracts.qualified:
            self._writer.submit(self._context.state_dir / "contracts.json", self.contracts.save())


def create(context: Context) -> BrokerBridge:
    """Called by the runner. Raises StartRefused when the kept state can't be read or written."""
    return BrokerBridge(context)
