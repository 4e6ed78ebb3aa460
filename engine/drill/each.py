"""Drills in which every process but bridge and watchdog dies, or hangs, alone while positions are open.

What depends on it is held back, nothing that is held is touched, and the supervisor puts another in its place.
"""

from __future__ import annotations

import signal

from engine import topology
from engine.domain.codes import BlockReason
from engine.drill.ends import back, gateway
from engine.drill.processes import names
from engine.drill.scenarios import HELD
from engine.drill.stage import Stage

HUNG_S = 30.0
"""The supervisor ends a service whose heart stands still three times as long as it may (15 s), and starts it anew."""
BLOCKED_S = 5.0
HELD_BACK = {
    topology.ML: BlockReason.ML_DOWN,
    topology.ALGO: BlockReason.ALGO_DOWN,
    topology.PAPER: BlockReason.LINK_DOWN,
}
"""What entries wait for while a service hangs; without recorder or cockpit they go on. A dead one is back sooner."""


def kill_services(s: Stage) -> None:
    """Every other process alone, the gateway too."""
    _each(s, "kill -9", signal.SIGKILL)


def stop_services(s: Stage) -> None:
    """Every other process alone hangs until the supervisor ends it; the supervisor itself for a while."""
    kept = _each(s, "SIGSTOP", signal.SIGSTOP)
    supervisor = s.processes.supervisor_pid
    s.cause("SIGSTOP of the supervisor", lambda: s.processes.send(supervisor, signal.SIGSTOP))
    s.expect_quiet("goes on", "trading goes on", lambda: "" if s.watch.trading() == "ACTIVE" else "not ACTIVE", 3.0)
    s.processes.send(supervisor, signal.SIGCONT)
    back(s, kept, "guarded without the supervisor")


def _each(s: Stage, word: str, number: signal.Signals) -> dict[str, float]:
    """The signal to each process but watchdog and bridge, one after the other; returns what was kept all the time."""
    s.hold(HELD)
    kept = gateway(s).positions
    for pid, services in s.processes.apart(topology.WATCHDOG, topology.BRIDGE).items():
        _one(s, pid, services, word, number)
        back(s, kept, f"guarded without {names(services)}")
    return kept


def _one(s: Stage, pid: int, services: list[str], word: str, number: signal.Signals) -> None:
    who = names(services)
    s.cause(f"{word} of {who}", lambda: s.processes.send(pid, number))
    reasons = [reason for service, reason in HELD_BACK.items() if service in services]
    if reasons and number == signal.SIGSTOP:
        what = f"entries are held back: {', '.join(r.name for r in reasons)}"
        s.expect_state("blocked", what, lambda: s.watch.block_reasons(*reasons), BLOCKED_S)

    def anew() -> bool:
        return all(s.processes.pids().get(service, pid) != pid for service in services)

    s.expect_state("started anew", f"another process stands for {who}", anew, HUNG_S)
