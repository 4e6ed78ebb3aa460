"""Arm leases: which browser tab may send orders that add risk. Pure; time is an argument.

A lease belongs to one tab's stream. It is lost on: disarm or an orderly leave, another tab of the session taking it is
not a loss (each tab has its own), 15 idle minutes, missing acknowledgements of the stream's heartbeat, a stream that
does not come back, KILL, and a restart of the cockpit. Reducing risk never needs one.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from engine.domain.words import duration

ACK_LIMIT_NS = 5_000_000_000
"""An armed page that has not answered a heartbeat for this long does not see the market: disarmed."""
GONE_LIMIT_NS = 10_000_000_000
"""A broken stream stays on record this long, so that the watchdog (limit 3 s) has seen it; then the lease ends."""


@dataclass(slots=True)
class Lease:
    token: str
    session: str
    tab: str
    since_ns: int
    active_ns: int
    ack_ns: int
    gone_since_ns: int = 0


class Arming:
    """All leases of this cockpit."""

    def __init__(self, idle_ns: int, kill_on_gone: bool) -> None:
        self._idle_ns = idle_ns
        self.kill_on_gone = kill_on_gone
        self.leases: dict[tuple[str, str], Lease] = {}

    def arm(self, session: str, tab: str, now_ns: int) -> Lease:
        """A lease for a tab whose stream is open; arming twice renews."""
        lease = self.leases.get((session, tab))
        if lease is None:
            lease = Lease(secrets.token_urlsafe(16), session, tab, now_ns, now_ns, now_ns)
            self.leases[session, tab] = lease
        lease.active_ns = now_ns
        return lease

    def disarm(self, session: str, tab: str) -> bool:
        return self.leases.pop((session, tab), None) is not None

    def disarm_all(self) -> int:
        count = len(self.leases)
        self.leases.clear()
        return count

    def holds(self, session: str, tab: str, token: str, now_ns: int) -> bool:
        """Is this the tab's valid lease? Using it counts as activity."""
        lease = self.leases.get((session, tab))
        if lease is None or lease.gone_since_ns or not secrets.compare_digest(lease.token, token):
            return False
        lease.active_ns = now_ns
        return True

    def acknowledged(self, session: str, tab: str, now_ns: int) -> None:
        lease = self.leases.get((session, tab))
        if lease is not None:
            lease.ack_ns = now_ns

    def stream_lost(self, session: str, tab: str, last_write_ns: int) -> bool:
        """The tab's stream broke without leave; counted from the last write that got through."""
        lease = self.leases.get((session, tab))
        if lease is None or lease.gone_since_ns:
            return False
        lease.gone_since_ns = last_write_ns
        return True

    def stream_back(self, session: str, tab: str, now_ns: int) -> None:
        lease = self.leases.get((session, tab))
        if lease is not None:
            lease.gone_since_ns = 0
            lease.ack_ns = now_ns

    def expire(self, now_ns: int, killed: bool) -> list[tuple[Lease, str]]:
        """Drop leases that ended, with the reason in words."""
        ended = []
        for key, lease in list(self.leases.items()):
            if killed and not lease.gone_since_ns:
                why = "KILL"
            elif lease.gone_since_ns and now_ns - lease.gone_since_ns > GONE_LIMIT_NS:
                why = "its stream did not come back"
            elif not lease.gone_since_ns and now_ns - lease.active_ns > self._idle_ns:
                why = f"idle for {duration(self._idle_ns / 1e9)}"
            elif not lease.gone_since_ns and now_ns - lease.ack_ns > ACK_LIMIT_NS:
                why = "the page stopped answering"
            else:
                continue
            del self.leases[key]
            ended.append((lease, why))
        return ended

    def summary(self) -> tuple[int, int, int]:
        """(leases, since_ns of the oldest, gone_since_ns of the earliest broken stream or 0)."""
        since = min((lease.since_ns for lease in self.leases.values()), default=0)
        gone = min((lease.gone_since_ns for lease in self.leases.values() if lease.gone_since_ns), default=0)
        return len(self.leases), since, gone
