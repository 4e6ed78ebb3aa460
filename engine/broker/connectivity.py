"""The state of the link and what to do next about it: pure, with time and chance as arguments.

    DOWN -> CONNECTING -> SYNCING -> UP
      ^         |            |       |  1100, 2110
      |         v            v       v
      +------- lost <----- lost   BROKER_LOST -> SYNCING (1101, 1102; after 2110 also 2104)

A socket that is open proves nothing: a probe that stays unanswered while nothing else arrives ends the connection.
Attempts back off from ``min_ns`` to ``max_ns`` with jitter; an operator's wish is served at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.domain.codes import LinkState

PROBE_GIVE_UP_NS = 3_000_000_000
"""A probe that the gateway ignored (it answers at most one a second) is asked again after this."""

LOST, BROKEN = 1100, 2110
"""The gateway has lost the broker: until it says that it is back; or until one of its farms is back, too."""
BACK = (1101, 1102)
UNANSWERED_NS = 500_000_000
"""The round trip that the guardrails call too slow."""


@dataclass(slots=True)
class Connectivity:
    min_ns: int
    max_ns: int
    probe_interval_ns: int
    mute_ns: int
    """A connection on which nothing at all arrives for this long although asked is dead."""
    state: LinkState = LinkState.DOWN
    down_since_ns: int = 0
    next_attempt_ns: int = 0
    attempts: int = 0
    probe_sent_ns: int = 0
    last_probe_ns: int = 0
    asked_ns: int = 0
    """When the first probe left that nothing has followed yet."""
    heard_ns: int = 0
    """When the connection's last message came."""
    farms_down: set[str] = field(default_factory=set)
    lost_code: int = 0
    """By which code the gateway has said that it has lost the broker, maybe before the session stood; 0 it has not."""

    def due(self, now_ns: int) -> bool:
        """Is it time to connect?"""
        return self.state == LinkState.DOWN and now_ns >= self.next_attempt_ns

    def connecting(self, now_ns: int) -> None:
        self.state = LinkState.CONNECTING
        self.lost_code = 0
        self.down_since_ns = self.down_since_ns or now_ns

    def opened(self, now_ns: int) -> None:
        """The API session stands; reconciliation begins, unless the gateway has said meanwhile that it has lost the
        broker. The first probe is due at once."""
        self.state = LinkState.BROKER_LOST if self.lost_code else LinkState.SYNCING
        self.probe_sent_ns = self.last_probe_ns = self.asked_ns = 0
        self.farms_down.clear()

    def synced(self) -> None:
        if self.state == LinkState.SYNCING:
            self.state = LinkState.UP
            self.down_since_ns = 0
            self.attempts = 0

    def lost(self, now_ns: int, chance: float) -> int:
        """The connection is gone, or was refused. ``chance`` in 0..1 spreads attempts. Returns the delay, ns."""
        self.state = LinkState.DOWN
        self.lost_code = 0
        self.down_since_ns = self.down_since_ns or now_ns
        self.probe_sent_ns = 0
        ceiling = min(self.max_ns, self.min_ns << min(self.attempts, 16))
        self.attempts += 1
        delay = max(self.min_ns, int(ceiling * (0.5 + 0.5 * chance)))
        self.next_attempt_ns = now_ns + delay
        return delay

    def hurry(self, now_ns: int) -> None:
        """An operator wants a connection now."""
        self.attempts = 0
        self.next_attempt_ns = now_ns

    def broker_lost(self, now_ns: int, code: int = LOST) -> None:
        """1100 or 2110: the gateway has lost the broker. Said before the session stands it is kept until it does."""
        if self.state != LinkState.DOWN:
            self.lost_code = LOST if LOST in (code, self.lost_code) else code
        if self.state in (LinkState.SYNCING, LinkState.UP):
            self.state = LinkState.BROKER_LOST
            self.down_since_ns = self.down_since_ns or now_ns

    def broker_back(self, code: int = BACK[0]) -> bool:
        """1101 or 1102, or 2104 which ends a 2110 only: reconcile anew. False if nothing was lost, or it still is."""
        if code not in BACK and self.lost_code != BROKEN:
            return False
        self.lost_code = 0
        if self.state != LinkState.BROKER_LOST:
            return False
        self.state = LinkState.SYNCING
        return True

    @property
    def session(self) -> bool:
        """Does an API session stand?"""
        return self.state in (LinkState.SYNCING, LinkState.UP, LinkState.BROKER_LOST)

    def probe_due(self, now_ns: int) -> bool:
        if not self.session or now_ns - self.last_probe_ns < self.probe_interval_ns:
            return False
        return self.probe_sent_ns == 0 or now_ns - self.probe_sent_ns > PROBE_GIVE_UP_NS

    def probe_left(self, now_ns: int) -> None:
        if self.heard_ns >= self.asked_ns:  # else it is asked once more, and the silence goes on
            self.asked_ns = now_ns
        self.probe_sent_ns = self.last_probe_ns = now_ns

    def probe_answered(self, t_ns: int) -> int:
        """Round trip in ns, 0 if nothing was asked."""
        if not self.probe_sent_ns:
            return 0
        rtt = max(0, t_ns - self.probe_sent_ns)
        self.probe_sent_ns = 0
        return rtt

    def unanswered(self, now_ns: int) -> bool:
        """Asked for the time a while ago and heard nothing at all since: entries had better wait."""
        waited_ns = now_ns - self.asked_ns
        return self.session and 0 < self.heard_ns < self.asked_ns and waited_ns > UNANSWERED_NS

    def mute(self, now_ns: int, last_message_ns: int) -> bool:
        """Is the connection dead although its socket is open: asked since, and silent for ``mute_ns``?"""
        return self.session and self.last_probe_ns > last_message_ns and now_ns - last_message_ns > self.mute_ns
