"""What the bridge watches over by itself: its block reasons, the watchdog's lease, the strategy's heartbeat.

Entries go at once when the lease expires or the strategy falls silent; without a watchdog for long the dead-man acts.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from engine.broker.bookkeeper import Bookkeeper
from engine.broker.cells import Cells, reason_words
from engine.broker.commands import Commands
from engine.broker.connectivity import Connectivity
from engine.broker.deadman import DeadMan, Lease, LeaseVerdict
from engine.broker.desk import Desk
from engine.broker.facts import Gatekeeper
from engine.broker.register import Register
from engine.broker.session import Session
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
)  # fmt: skip
from engine.domain.sessions import is_regular_hours
from engine.risk import flatten as machine
from engine.risk.accounting import Accounts
from engine.runtime.context import Context
from shm.layouts import INTENT

_LINK_GONE = (LinkState.DOWN, LinkState.CONNECTING, LinkState.BROKER_LOST)
_NOT_RUNNING = (ServiceState.DOWN, ServiceState.CLOSING, ServiceState.STOPPED)
_BROKER_VIEW = ("snapshot_id", "snapshot_begin_ns", "snapshot_end_ns", "snapshot_events", "snapshot_open_orders",
                "snapshot_positions", "order_events", "last_close_sent_ns")  # fmt: skip


class Guard:
    """``started``: the bridge has been READY once; until then entries are blocked as STARTING."""

    def __init__(
        self,
        context: Context,
        gate: Gatekeeper,
        register: Register,
        accounts: Accounts,
        books: Bookkeeper,
        cells: Cells,
        conn: Connectivity,
        desk: Desk,
        commands: Commands,
        session: Session,
    ) -> None:
        config = context.config
        self._context, self._config, self._clock = context, config, context.clock
        self._gate, self._register, self._accounts, self._books = gate, register, accounts, books
        self._cells, self._conn, self._desk, self._commands = cells, conn, desk, commands
        self._scope_answered = bool(config.account_scope)
        self._sim = config.instance.mode == "sim"
        self._algo = context.cell_reader("heartbeat.algo")
        self._algo_silent_ns = int(config.guardrails.algo_silent_s * 1e9)
        self._lease = Lease(int(config.guardrails.watchdog_gone_s * 1e9))
        self._lease_valid = False
        self._dedicated = config.account_scope == "dedicated"
        self._full_scope = (1 << len(context.instruments)) - 1
        self._said = -1
        self.started = False
        self.doubtful: Callable[[], int] = lambda: 0
        """Mask of symbols whose data may be dead."""
        self.deadman = DeadMan(
            register, accounts, self._close_one, self._cancel_everything, session.snapshot, self._remaining
        )

    def publish_blocks(self, now_ns: int) -> None:
        """Publish the derived facts that stop entries."""
        books, state = self._books, self._conn.state
        mask = 0
        for reason, holds in (
            (BlockReason.LINK_DOWN, state in _LINK_GONE or self._conn.unanswered(now_ns)),
            (BlockReason.RECONCILIATION_OPEN, not books.reconciled),
            (BlockReason.LEASE_EXPIRED, not self._lease_valid),
            (BlockReason.ACCOUNT_MISMATCH, self._conn.session and not books.account_ok),
            (BlockReason.SCOPE_UNANSWERED, not self._scope_answered),
            (BlockReason.STARTING, not self.started),
            (BlockReason.POSITION_MISMATCH, books.mismatch),
        ):
            mask |= int(holds) << int(reason)
        former = self._said
        self._said = mask
        if self._cells.block(mask, now_ns, self.doubtful()) and mask != former:
            text = (
                f"entries blocked by the bridge: {reason_words(mask)}" if mask else "the bridge blocks nothing any more"
            )
            self._context.events.emit(EventKind.STOP, text=text, value=float(mask))
            self._context.wake("watchdog")

    def watch_lease(self, now_ns: int) -> None:
        """Lease and dead-man."""
        self._gate.authority(now_ns)
        valid = self._gate.lease_valid
        exposed = any(h.qty for h in self._accounts.holdings) or self._register.active_count > 0
        verdict = self._lease.judge(
            now_ns, valid=valid, ours=self._gate.owner_ours, responsible=self._books.opened and exposed,
            expires_ns=self._gate.lease_expires_ns,
        )  # fmt: skip
        if self._lease_valid and not valid:
            self._context.events.emit(
                EventKind.ALERT,
                severity=Severity.P2,
                text="the watchdog's lease has expired: entries are cancelled, only reducing orders pass",
            )
            self._commands.cancel_entries(now_ns)
        self._lease_valid = valid
        if verdict == LeaseVerdict.GONE and not self.deadman.active and not self._flat():
            gone_s = self._config.guardrails.watchdog_gone_s
            text = f"no watchdog for {gone_s:g} s: the bridge latches KILL and gets flat by itself"
            self._context.events.emit(EventKind.ALERT, severity=Severity.P1, text=text)
            self._cells.kill(1 << Badge.KILL, now_ns)
            self.deadman.start(
                len(self._context.instruments),
                self._full_scope,
                Source.BRIDGE,
                "no watchdog: the bridge's dead-man",
                now_ns,
            )
        if self.deadman.active and valid and not self._gate.account["killed"][0]:
            self.deadman.stop()  # it latched KILL, so an operator has released that; it would close every new position
            text = "KILL was released by an operator: the bridge's own flatten, which had not confirmed flat, ends"
            self._context.events.emit(EventKind.ALERT, severity=Severity.P2, text=text)
        if self.deadman.active:
            self._step_deadman(now_ns)

    def _flat(self) -> bool:
        return not any(h.qty for h in self._accounts.holdings) and not self._register.active_count

    def _step_deadman(self, now_ns: int) -> None:
        halted = sum(1 << k for k in range(len(self._context.instruments)) if self._gate.facts["halted"][k])
        self.deadman.rejected |= self._books.rejected_closes
        self._books.rejected_closes = 0
        done = self.deadman.step(
            now_ns,
            quotes=self._gate.quote,
            halted=halted,
            broker={name: int(self._cells.broker[name]) for name in _BROKER_VIEW} | {"foreign": self._foreign()},
            theirs=self._theirs,
            regular_hours=is_regular_hours(self._clock.wall_ns(now_ns), self._sim),
            can_send=self._conn.state == LinkState.UP and self._gate.owner_ours,
        )
        if done:
            self._context.events.emit(
                EventKind.FLATTEN, self.deadman.state.state, severity=Severity.P1,
                ref_id=self.deadman.state.flatten_id, text="flat, confirmed by the broker, without a watchdog",
            )  # fmt: skip

    def _foreign(self) -> int:
        """Positions outside the instruments that are ours too."""
        return int(self._cells.broker["foreign_positions"]) if self._dedicated else 0

    def _theirs(self, symbol: int) -> float:
        p = self._cells.positions[symbol]
        return float(p["broker_qty"]) if p["mismatch_since_ns"] else self._accounts.holdings[symbol].qty

    def _close_one(self, close: machine.Close) -> None:
        record = np.zeros(1, INTENT)
        now_ns = self._clock.now_ns()
        market = math.isnan(close.limit)
        step = float(self._gate.facts["step"][close.symbol, 0]) or 0.01
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
        self._desk.handle(record, now_ns)

    def _cancel_everything(self) -> None:
        self._commands.cancel_all(self._clock.now_ns())

    def _remaining(self, text: str, mask: int) -> None:
        names = [i.symbol for i in self._context.instruments if mask >> i.index & 1]
        left = ", ".join(names + [machine.FOREIGN] * bool(self._foreign())) or "unconfirmed"
        self._context.events.emit(EventKind.ALERT, severity=Severity.P1, text=f"not flat: {left}: {text}")

    def watch_algo(self, now_ns: int) -> None:
        """A strategy that died or hangs must not leave entries behind."""
        beat = self._algo.read()
        running = int(beat["state"]) in (ServiceState.READY, ServiceState.WARMING)
        silent = now_ns - int(beat["t_beat_ns"]) > self._algo_silent_ns
        gone = (running and silent) or int(beat["state"]) in _NOT_RUNNING
        if not gone:
            return
        count = self._commands.cancel_entries(now_ns, int(Source.ALGO), patient=True)
        if count:
            text = f"algo is silent: {count} of its entry orders are cancelled"
            self._context.events.emit(EventKind.ALERT, severity=Severity.P2, text=text)
