"""Who may send: the lease, the fencing of a bridge that is of no use, and the hand that acts in its place."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import replace

from engine import topology
from engine.broker.emergency import DirectFlatten, EmergencyConnection
from engine.broker.emergency_codec import Message
from engine.broker.emergency_link import WINDOW_NS
from engine.domain.codes import Badge, CommandKind, EventKind, LinkState, Owner, ServiceState, Severity, Source
from engine.domain.instruments import ALL_SYMBOLS
from engine.procs.watchdog_parts.cells import Senses
from engine.procs.watchdog_parts.flattening import Flattening
from engine.procs.watchdog_parts.guard import Guard
from engine.procs.watchdog_parts.stops import Stops
from engine.risk.guardrails.lat import is_mute
from engine.risk.ownership import BridgeFacts, Ownership, Step, step
from engine.runtime.context import Context
from shm.ring import RingFull

POLL_NS = 10_000_000
"""How often the idle emergency connection is looked after; at every cycle while it has to act."""
NEWCOMER_MESSAGES_PER_S = 20
"""A bridge that is back reads and subscribes with at most 25 messages a second until it owns the right to send."""
SERVES_NS = 5_000_000_000
"""So long must ours have served, and the bridge's link been down, before the bridge is fenced for that alone."""
EXIT_NS = 2_000_000_000
"""A killed process that is still there after this needs a person."""
READ_AGAIN_NS = 500_000_000
"""How often a bridge that is back is asked to read again what it has read before we were done."""


class Takeover:
    """Publishes the lease, sees the bridge die, and acts over the emergency connection when it must."""

    def __init__(
        self, ctx: Context, senses: Senses, stops: Stops, flattening: Flattening, guard: Guard,
        connection: EmergencyConnection, canceller: Callable[[], EmergencyConnection],
    ) -> None:  # fmt: skip
        """``canceller`` opens a connection under the bridge's own client id, which alone may cancel its orders."""
        self._ctx, self._senses, self._stops, self._flattening, self._guard = ctx, senses, stops, flattening, guard
        self._gateway = ctx.config.gateway
        self.connection, self._connect = connection, canceller
        self._canceller: EmergencyConnection | None = None
        self._cell = ctx.cell_writer("lease")
        self.ownership = Ownership()
        self._renewed_ns = 0
        self._next_poll_ns = 0
        self._hand: DirectFlatten | None = None
        self._symbols = {i.symbol: i.index for i in senses.tradable}
        self._messages: list[Message] = []
        self._fenced_ns = 0
        self._exit_alerted = False
        self._serves_since_ns = 0
        self._down_since_ns = 0
        self._outage_paged = False
        self._acted_ns = self._asked_ns = 0
        """When an order of ours last did something; when the bridge was last asked to read."""

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
            if self._canceller is not None:
                self._messages += self._canceller.poll(now_ns)
            self._act(now_ns)
        return len(self._messages)

    def watch(self, now_ns: int) -> None:
        """Advance the ownership and renew the lease."""
        senses = self._senses
        exists, hung, incarnation = senses.bridge_state(now_ns)
        broker = senses.broker.value[0]
        facts = BridgeFacts(
            incarnation=incarnation, alive=exists, hung=hung, leaving=bool(broker["leaving"]) and exists,
            reconciled=senses.facts.link.reconciled and senses.facts.link.up and self._has_read(now_ns),
            exposed=bool(senses.held() & ~self._flattening.kept(self._stops.latch)) or senses.working() > 0,
            exit_seen=not exists, flattening=self._busy(now_ns), unreachable=exists and self._unreachable(now_ns),
        )  # fmt: skip
        if bool(broker["leaving"]) and not exists and self.ownership.owner == Owner.BRIDGE:
            facts = replace(facts, leaving=True)  # it left in order and its process is gone already
        before = self.ownership
        self.ownership, what = step(before, facts, self._ctx.config.guardrails, now_ns)
        if what in (Step.FENCE, Step.LEFT_TOO_LONG):
            why = "hangs" if hung else "has left and is not back" if what == Step.LEFT_TOO_LONG else "is gone"
            self._fence("has no working connection" if facts.unreachable else why, now_ns)
        elif what == Step.TAKE_OVER:
            self._take_over(now_ns)
        elif what == Step.HAND_BACK:
            self._hand_back(now_ns)
        if self.ownership.fencing:
            self._await_exit(now_ns)
        changed = self.ownership.epoch != before.epoch or self.ownership.fencing != before.fencing
        if changed or now_ns - self._renewed_ns >= self._ctx.config.guardrails.lease_renew_ms * 1e6:
            self._publish(now_ns)
        if changed and self.ownership.owner != before.owner:
            text = f"right to send: {before.owner.name} -> {self.ownership.owner.name}, epoch {self.ownership.epoch}"
            self._event(text, Severity.ROUTINE, now_ns)
        self._budget(exists, now_ns)
        self._grace(now_ns)

    def _busy(self, now_ns: int) -> bool:
        """Not the moment to hand back: we are closing, or have just used more than our share of the messages."""
        if self._hand is None:
            return False
        closing = not self._hand.cancel_only and not self._hand.done
        return closing or self.connection.sent_within(now_ns, WINDOW_NS) > self._gateway.emergency_messages_per_s

    def _has_read(self, now_ns: int) -> bool:
        """Does the bridge know what we have traded? A reading that began before that may say the opposite."""
        broker = self._senses.broker.value[0]
        if int(broker["snapshot_begin_ns"]) > self._acted_ns:
            return True
        if not self._busy(now_ns) and now_ns - self._asked_ns >= READ_AGAIN_NS:
            self._asked_ns = now_ns
            with contextlib.suppress(RingFull):  # it does not drain: it is asked again, or found to hang
                self._flattening.command(CommandKind.SNAPSHOT, now_ns)
        return False

    def _unreachable(self, now_ns: int) -> bool:
        """Something must be closed, the bridge can't, and we can. Only under KILL: a flap alone fences nobody."""
        link, latch = self._senses.facts.link, self._stops.latch
        down = link.link in (LinkState.DOWN, LinkState.CONNECTING, LinkState.BROKER_LOST) or link.both_mute
        self._down_since_ns = (self._down_since_ns or now_ns) if down else 0
        serves = self.connection.serves(now_ns)
        self._serves_since_ns = (self._serves_since_ns or now_ns) if serves else 0
        if not latch.kill or not serves:
            return False
        if is_mute(link, self._ctx.config.guardrails):
            return self._flattening.active
        since = max(self._down_since_ns, self._serves_since_ns)
        if not down or now_ns - since < SERVES_NS:
            return False
        if latch.awaits_link and self._in_time(now_ns):
            self._stops.amend(now_ns, awaits_link=False)
            text = "the broker is lost to the bridge, but answers on the emergency connection"
            self._flattening.start(text, Source.WATCHDOG, now_ns, cause_ns=now_ns, **self._flattening.keeps(latch))
        return self._flattening.active

    def _in_time(self, now_ns: int) -> bool:
        """The conditions under which an outage is followed by a flatten, as on a reconnect of the bridge."""
        since = (self._senses.facts.link.down_since_ns, self._down_since_ns, self._stops.latch.lost_since_ns)
        outage_s = (now_ns - min((t for t in since if t), default=now_ns)) / 1e9
        return self._senses.session_open() and outage_s < self._ctx.config.guardrails.reconnect_flatten_outage_s

    def _publish(self, now_ns: int) -> None:
        o, c = self.ownership, self._cell.value[0]
        c["epoch"], c["owner"], c["fence"], c["granted_ns"] = o.epoch, int(o.owner), o.fence, now_ns
        valid = o.owner == Owner.BRIDGE and not o.fencing
        c["expires_ns"] = now_ns + int(self._ctx.config.guardrails.lease_expiry_ms * 1e6) if valid else 0
        self._cell.publish()
        self._renewed_ns = now_ns

    def _fence(self, why: str, now_ns: int) -> None:
        held = self._senses.in_words(self._senses.held()) or f"{self._senses.working()} working orders"
        self._publish(now_ns)  # the fence word first: whatever still runs reads it before it sends
        self._senses.bridge.kill()
        self._fenced_ns, self._exit_alerted = now_ns, False
        text = f"broker-bridge {why} with exposure ({held}): fenced, the watchdog takes over"
        self._ctx.events.emit(EventKind.ALERT, severity=Severity.P1, source=Source.WATCHDOG, text=text, now_ns=now_ns)

    def _await_exit(self, now_ns: int) -> None:
        """Nobody sends until the fenced process is seen to be gone: it might still write to its socket."""
        if self._exit_alerted or now_ns - self._fenced_ns < EXIT_NS:
            return
        self._exit_alerted = True
        pid = self._senses.bridge.pid
        self._senses.bridge.kill()
        text = f"the fenced broker-bridge (pid {pid}) has not exited: end it by hand (kill -9 {pid}), nobody can send"
        self._ctx.events.emit(EventKind.ALERT, severity=Severity.P1, source=Source.WATCHDOG, text=text, now_ns=now_ns)

    def _budget(self, bridge_exists: bool, now_ns: int) -> None:
        """Both connections together stay under 50 messages in any second, also around a change of owner."""
        g = self._gateway
        share = g.emergency_messages_per_s
        if self._hand is None or now_ns - self._fenced_ns <= WINDOW_NS:
            allowed = share  # what the bridge has sent in its last second still counts
        elif bridge_exists:
            allowed = max(share, NEWCOMER_MESSAGES_PER_S)
        else:
            allowed = g.messages_per_s
        if self._canceller is not None:
            self._canceller.messages_per_s = max(1, allowed // 2)
            allowed -= self._canceller.messages_per_s
        self.connection.messages_per_s = max(1, allowed)

    def _take_over(self, now_ns: int) -> None:
        """Working orders are cancelled at once; positions are closed on a breach or when the grace is over."""
        config = self._ctx.config
        dedicated = config.account_scope == "dedicated"
        self._flattening.paused_for_takeover = True
        if not dedicated:  # without global cancel only the dead bridge's own client id can cancel its orders
            self._canceller = self._connect()
        self._hand = DirectFlatten(
            self.connection, config.gateway.account, only=None if dedicated else frozenset(self._symbols),
            reason=self._stops.latch.kill_text or "broker-bridge is gone", now_ns=now_ns,
            wall_s=self._ctx.clock.wall_ns(now_ns) // 1_000_000_000, quotes=self._quotes,
            regular_hours=lambda: self._senses.regular_hours, cancel_only=not self._must_close(now_ns), settle=True,
            canceller=self._canceller,
        )  # fmt: skip
        latch = self._stops.latch
        self.excuse(self._flattening.kept(latch), self._flattening.kept_foreign(latch))
        self._budget(False, now_ns)
        if not self.connection.ready:
            self._event(f"emergency connection is not up: {self.connection.last_error}", Severity.P1, now_ns)
        self._next_poll_ns = 0
        self.poll(now_ns)

    @property
    def closing(self) -> bool:
        """Is the hand getting flat, with something still open?"""
        return self._hand is not None and not self._hand.cancel_only and not self._hand.done

    def _must_close(self, now_ns: int) -> bool:
        """Without waiting for the grace: under KILL, or in a flatten of everything that is under way.

        After an outage only when the broker answers us again, and under the conditions of a bridge's reconnect. A
        flatten of one symbol waits for the bridge: this hand would close everything.
        """
        latch, flattening = self._stops.latch, self._flattening
        if flattening.active and flattening.whole:
            return True
        if latch.awaits_link:
            return self.connection.serves(now_ns) and self._in_time(now_ns)
        return latch.kill

    def _release_canceller(self, now_ns: int) -> None:
        """Its client id is the one that the next bridge needs, and the only one that can cancel what is left of the
        dead one's orders: held until they are gone, or have not gone although cancelled for long."""
        if self._canceller is None or self._hand is None or not self._hand.settled:
            return
        if self._hand.cancels_pending(self._canceller.client_id, now_ns):
            return
        self._canceller.close()
        self._canceller = None

    def _grace(self, now_ns: int) -> None:
        o, g = self.ownership, self._ctx.config.guardrails
        self._release_canceller(now_ns)
        if self._hand is None or not self._hand.cancel_only or o.owner != Owner.WATCHDOG:
            return
        if not self._hand.known or self._hand.held():
            if self._must_close(now_ns):
                self._hand.cancel_only = False
                if self._stops.latch.awaits_link:
                    self._stops.amend(now_ns, awaits_link=False)
            elif self._stops.latch.awaits_link:
                self._page_outage(now_ns)
            elif now_ns - o.gone_since_ns >= g.bridge_grace_s * 1e9:
                text = f"broker-bridge not back within {g.bridge_grace_s:g} s with positions open"
                self._guard.kill(1 << Badge.KILL, text, now_ns)
                self._hand.cancel_only = False

    def _page_outage(self, now_ns: int) -> None:
        """The broker is back for us after too long, or with the session closed: a person decides, as on a reconnect."""
        if self._outage_paged or not self.connection.serves(now_ns) or not self._hand_knows():
            return
        self._outage_paged = True
        assert self._hand is not None
        text = (
            f"broker-bridge is gone and the broker answers again after a long outage or outside the session: KILL "
            f"stays, nothing is closed by itself; open: {', '.join(self._hand.held())}; close with `l2dash flatten`"
        )
        self._ctx.events.emit(EventKind.ALERT, severity=Severity.P1, source=Source.WATCHDOG, text=text, now_ns=now_ns)

    def _hand_knows(self) -> bool:
        return self._hand is not None and self._hand.known

    def _act(self, now_ns: int) -> None:
        assert self._hand is not None
        was_done = self._hand.done
        self._hand.step(self._messages, now_ns)
        for alert in self._hand.alerts:
            self._ctx.events.emit(
                EventKind.ALERT, severity=Severity.P1, source=Source.WATCHDOG, text=f"FLATTEN {alert}", now_ns=now_ns
            )
        self._hand.alerts.clear()
        if self._hand.told:
            self._acted_ns = now_ns
        for told in self._hand.told:
            self._ctx.events.emit(
                EventKind.ORDER_STATE, int(told.state), symbol=self._symbols.get(told.name, ALL_SYMBOLS),
                source=Source.WATCHDOG, ref_id=int(told.ref[3:], 16), ref2=told.order_id, value=told.filled,
                qty=told.signed, price=told.avg_price, now_ns=now_ns,
                text=told.text if told.name in self._symbols else f"{told.name} {told.text}",
            )  # fmt: skip
        self._hand.told.clear()
        if self._hand.done and not was_done:
            self._flattening.finish(now_ns, self._hand.began_ns, self._hand.sent_ns)
            self._event("flat over the emergency connection, confirmed by the broker", Severity.P1, now_ns)
        elif was_done and not self._hand.done:
            self._flattening.flat_since_ns = 0

    def _hand_back(self, now_ns: int) -> None:
        self._hand = None
        self._outage_paged = False
        self._acted_ns = 0
        if self._canceller is not None:
            self._canceller.close()
            self._canceller = None
        self._budget(True, now_ns)
        self._flattening.resume_after_takeover(now_ns)

    def _quotes(self, name: str) -> tuple[float, float]:
        symbol = self._symbols.get(name)
        if symbol is None:
            return math.nan, math.nan
        book = self._senses.books.value[symbol]
        return float(book["bid_price"][0]) or math.nan, float(book["ask_price"][0]) or math.nan

    def _event(self, text: str, severity: Severity, now_ns: int) -> None:
        self._ctx.events.emit(
            EventKind.CONNECTIVITY, 0, severity=severity, source=Source.WATCHDOG, text=text, now_ns=now_ns
        )

    def excuse(self, mask: int, foreign: int) -> None:
        """An operator keeps these symbols, or what is held outside all of ours: also over the emergency connection."""
        if self._hand is not None:
            if foreign:
                self._hand.excuse_outside(frozenset(self._symbols))
            self._hand.excuse(frozenset(i.symbol for i in self._senses.tradable if mask >> i.index & 1))

    def close(self) -> None:
        self.connection.close()
        if self._canceller is not None:
            self._canceller.close()
