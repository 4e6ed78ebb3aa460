"""Who may send: the lease, the fencing of a dead bridge, and the hand that acts in its place."""

from __future__ import annotations

import math
from dataclasses import replace

from engine import topology
from engine.broker.emergency import DirectFlatten, EmergencyConnection
from engine.broker.emergency_codec import Message
from engine.domain.codes import Badge, EventKind, Owner, ServiceState, Severity, Source
from engine.procs.watchdog_parts.cells import Senses
from engine.procs.watchdog_parts.flattening import Flattening
from engine.procs.watchdog_parts.guard import Guard
from engine.procs.watchdog_parts.stops import Stops
from engine.risk.ownership import BridgeFacts, Ownership, Step, step
from engine.runtime.context import Context

POLL_NS = 10_000_000
"""How often the idle emergency connection is looked after; at every cycle while it has to act."""


class Takeover:
    """Publishes the lease, sees the bridge die, and acts over the emergency connection when it must."""

    def __init__(
        self, ctx: Context, senses: Senses, stops: Stops, flattening: Flattening, guard: Guard,
        connection: EmergencyConnection,
    ) -> None:  # fmt: skip
        self._ctx, self._senses, self._stops, self._flattening, self._guard = ctx, senses, stops, flattening, guard
        self.connection = connection
        self._cell = ctx.cell_writer("lease")
        self.ownership = Ownership()
        self._renewed_ns = 0
        self._next_poll_ns = 0
        self._hand: DirectFlatten | None = None
        self._con_ids = {i.con_id: i.index for i in senses.tradable if i.con_id}
        self._messages: list[Message] = []
        self._login_said = False

    def load(self, epoch: int, now_ns: int) -> None:
        """Continue after the epochs of a predecessor: from the file and from the cell, whichever is later."""
        cell = self._cell.value[0]
        owner = int(cell["owner"])
        start = Owner.LEAVING if owner == Owner.LEAVING else Owner.BRIDGE
        beat = self._senses.beat(topology.BRIDGE)
        # A bridge that was stopped in order before this start is not missed: the system is only coming up.
        in_order = int(beat["state"]) in (ServiceState.STOPPED, ServiceState.CLOSING) and start == Owner.BRIDGE
        self.ownership = Ownership(
            start, max(epoch, int(cell["epoch"])) + 1, int(cell["fence"]),
            0 if in_order else int(beat["incarnation"]), now_ns,
        )  # fmt: skip
        self._publish(now_ns)

    @property
    def epoch(self) -> int:
        return self.ownership.epoch

    def fds(self) -> tuple[int, ...]:
        number = self.connection.fileno()
        return (number,) if number >= 0 and self.connection.ready else ()

    def poll(self, now_ns: int) -> int:
        """Serve the socket; act if the right to send is here."""
        if self._hand is None and now_ns < self._next_poll_ns:
            return 0
        self._next_poll_ns = now_ns + POLL_NS
        self._messages = self.connection.poll(now_ns)
        if self._hand is not None:
            self._act(now_ns)
        return len(self._messages)

    def watch(self, now_ns: int) -> None:
        """Advance the ownership and renew the lease."""
        senses = self._senses
        exists, hung, incarnation = senses.bridge_state(now_ns)
        broker = senses.broker.value[0]
        # A dead bridge's cell says "reconciled" until its successor has written it for the first time.
        own_word = int(broker["updated_ns"]) >= int(senses.beat(topology.BRIDGE)["t_started_ns"])
        facts = BridgeFacts(
            incarnation=incarnation, alive=exists, hung=hung, leaving=bool(broker["leaving"]) and exists,
            reconciled=own_word and bool(broker["reconciled"]) and senses.facts.link.up,
            exposed=bool(senses.held()) or senses.working() > 0,
            exit_seen=not exists, flattening=self._hand is not None and not self._hand.cancel_only,
        )  # fmt: skip
        if bool(broker["leaving"]) and not exists and self.ownership.owner == Owner.BRIDGE:
            facts = replace(facts, leaving=True)  # it left in order and its process is gone already
        before = self.ownership
        self.ownership, what = step(before, facts, self._ctx.config.guardrails, now_ns)
        if what in (Step.FENCE, Step.LEFT_TOO_LONG):
            self._fence(what, hung, now_ns)
        elif what == Step.TAKE_OVER:
            self._take_over(now_ns)
        elif what == Step.HAND_BACK:
            self._hand_back(now_ns)
        changed = self.ownership.epoch != before.epoch or self.ownership.fencing != before.fencing
        if changed or now_ns - self._renewed_ns >= self._ctx.config.guardrails.lease_renew_ms * 1e6:
            self._publish(now_ns)
        if changed and self.ownership.owner != before.owner:
            text = f"right to send: {before.owner.name} -> {self.ownership.owner.name}, epoch {self.ownership.epoch}"
            self._event(text, Severity.ROUTINE, now_ns)
        self._grace(now_ns)

    def _publish(self, now_ns: int) -> None:
        o, c = self.ownership, self._cell.value[0]
        c["epoch"], c["owner"], c["fence"], c["granted_ns"] = o.epoch, int(o.owner), o.fence, now_ns
        valid = o.owner == Owner.BRIDGE and not o.fencing
        c["expires_ns"] = now_ns + int(self._ctx.config.guardrails.lease_expiry_ms * 1e6) if valid else 0
        self._cell.publish()
        self._renewed_ns = now_ns

    def _fence(self, what: Step, hung: bool, now_ns: int) -> None:
        why = "hangs" if hung else "has left and is not back" if what == Step.LEFT_TOO_LONG else "is gone"
        held = self._senses.in_words(self._senses.held()) or f"{self._senses.working()} working orders"
        self._publish(now_ns)  # the fence word first: whatever still runs reads it before it sends
        if hung:
            self._senses.bridge.kill()
        text = f"broker-bridge {why} with exposure ({held}): fenced, the watchdog takes over"
        self._ctx.events.emit(EventKind.ALERT, severity=Severity.P1, source=Source.WATCHDOG, text=text, now_ns=now_ns)

    def _take_over(self, now_ns: int) -> None:
        """Working orders are cancelled at once; positions are closed on a breach or when the grace is over."""
        config = self._ctx.config
        self.connection.messages_per_s = config.gateway.messages_per_s
        dedicated = config.account_scope == "dedicated"
        self._flattening.paused_for_takeover = True
        self._hand = DirectFlatten(
            self.connection, config.gateway.account, only=None if dedicated else frozenset(self._con_ids),
            reason="broker-bridge is gone", now_ns=now_ns, wall_s=self._ctx.clock.wall_ns(now_ns) // 1_000_000_000,
            quotes=self._quotes, regular_hours=self._senses.regular_hours, cancel_only=not self._must_close(),
        )  # fmt: skip
        if not self.connection.ready:
            self._event(f"emergency connection is not up: {self.connection.last_error}", Severity.P1, now_ns)

    def _must_close(self) -> bool:
        return self._stops.latch.kill or self._flattening.active

    def _grace(self, now_ns: int) -> None:
        o, g = self.ownership, self._ctx.config.guardrails
        if self._hand is None or not self._hand.cancel_only or o.owner != Owner.WATCHDOG:
            return
        if not self._hand.known or self._hand.held():
            if self._must_close():
                self._hand.cancel_only = False
            elif now_ns - o.gone_since_ns >= g.bridge_grace_s * 1e9:
                text = f"broker-bridge not back within {g.bridge_grace_s:g} s with positions open"
                self._guard.kill(1 << Badge.KILL, text, now_ns)
                self._hand.cancel_only = False

    def _act(self, now_ns: int) -> None:
        assert self._hand is not None
        was_done = self._hand.done
        self._hand.step(self._messages, now_ns)
        for alert in self._hand.alerts:
            self._ctx.events.emit(
                EventKind.ALERT, severity=Severity.P1, source=Source.WATCHDOG, text=f"FLATTEN {alert}", now_ns=now_ns
            )
        self._hand.alerts.clear()
        if self._hand.done and not was_done:
            self._flattening.finish(now_ns)
            self._event("flat over the emergency connection, confirmed by the broker", Severity.P1, now_ns)
            self._hand.cancel_only = True  # keeps watching without a reason to send

    def _hand_back(self, now_ns: int) -> None:
        self._hand = None
        self.connection.messages_per_s = self._ctx.config.gateway.emergency_messages_per_s
        self._flattening.resume_after_takeover(now_ns)

    def _quotes(self, con_id: int) -> tuple[float, float]:
        symbol = self._con_ids.get(con_id)
        if symbol is None:
            return math.nan, math.nan
        book = self._senses.books.value[symbol]
        return float(book["bid_price"][0]) or math.nan, float(book["ask_price"][0]) or math.nan

    def _event(self, text: str, severity: Severity, now_ns: int) -> None:
        self._ctx.events.emit(
            EventKind.CONNECTIVITY, 0, severity=severity, source=Source.WATCHDOG, text=text, now_ns=now_ns
        )

    def excuse(self, mask: int) -> None:
        """An operator keeps these symbols: also over the emergency connection."""
        if self._hand is not None:
            tradable = self._senses.tradable
            self._hand.excuse(frozenset(i.con_id for n, i in enumerate(tradable) if mask >> n & 1))

    def close(self) -> None:
        self.connection.close()
