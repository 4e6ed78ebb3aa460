"""Drills in which processes die or hang, connections fall silent, the disk fills, the wall clock jumps.

Each ends flat, or guarded with everything kept, compared with the gateway's own word.
"""

from __future__ import annotations

import contextlib
import errno
import signal
from pathlib import Path
from typing import Any

from engine import topology
from engine.domain.codes import Badge, BadgeState, BlockReason, LinkState, Owner
from engine.drill.each import kill_services, stop_services
from engine.drill.ends import BACK_S, FLAT_S, back, cancelled, flat, gateway, keep, owner, reported
from engine.drill.processes import names
from engine.drill.scenarios import HELD, Scenario
from engine.drill.stage import Stage
from engine.drill.timeline import Unexpected

KILLED = '"kill": true'
"""In latch.json."""


def kill_bridge(s: Stage) -> None:
    kept = keep(s)
    with s.processes.no_restarts():  # else a new bridge may be there, and adopt the orders, before this one is missed
        s.cause("kill -9 of broker-bridge", lambda: s.processes.kill(topology.BRIDGE))
        cancelled(s)
    back(s, kept)


def bridge_gone(s: Stage) -> None:
    kept = keep(s)
    with s.processes.no_restarts():
        s.cause("kill -9 of broker-bridge; nobody starts it again", lambda: s.processes.kill(topology.BRIDGE))
        cancelled(s)
        s.expect_state("watchdog", "the watchdog has the right to send", lambda: owner(s) == Owner.WATCHDOG, 2.0)
        s.expect_kill(Badge.KILL, s.g.bridge_grace_s + 3.0)
        flat(s)
    _resume(s, kept)


def _resume(s: Stage, closed: dict[str, float]) -> None:
    s.expect_state("READY", "every service is READY again", lambda: s.watch.all_ready(), BACK_S)
    s.expect_state("owner", "the bridge has the right to send", lambda: owner(s) == Owner.BRIDGE, BACK_S)
    reported(s, closed)
    s.release(60.0)


def stop_bridge(s: Stage) -> None:
    kept = keep(s)
    s.cause("SIGSTOP of broker-bridge", lambda: s.processes.stop(topology.BRIDGE))
    s.expect_state("fenced", "the watchdog has the right to send", lambda: owner(s) == Owner.WATCHDOG, 8.0)
    cancelled(s)
    back(s, kept)


def stop_all(s: Stage) -> None:
    s.hold(HELD)
    kept = gateway(s).positions
    stopped: list[str] = []

    def act() -> None:
        s.processes.send(s.processes.supervisor_pid, signal.SIGSTOP)
        for pid, services in s.processes.apart(topology.WATCHDOG, topology.PAPER).items():
            s.processes.send(pid, signal.SIGSTOP)
            stopped.append(names(services))

    s.cause("SIGSTOP of every process but the watchdog and the gateway", act)
    s.say(f"stopped: supervisor, {', '.join(stopped)}", "stopped")
    s.expect_state("fenced", "the watchdog has the right to send", lambda: owner(s) == Owner.WATCHDOG, 8.0)
    s.expect_kill(Badge.KILL, s.g.bridge_grace_s + 5.0)
    flat(s)
    s.processes.resume_all()
    _resume(s, kept)


def watchdog_hung(s: Stage) -> None:
    kept = keep(s)
    pid = 0

    def act() -> None:
        nonlocal pid
        pid = s.processes.stop(topology.WATCHDOG)

    with s.processes.no_restarts():
        s.cause("SIGSTOP of the watchdog", act)
        cancelled(s)
        done, words = s.hands.order("AAPL", "BUY", 1)
        if done:
            raise Unexpected(f"entry refused: BUY 1 AAPL {words}")
        s.say(f"BUY 1 AAPL: {words}", "entry refused")
        s.expect_state("dead-man", "the bridge has latched KILL by itself", lambda: s.watch.bridge_killed(), 8.0)
        s.expect_state("gateway flat", "by the bridge alone", lambda: gateway(s).flat, FLAT_S)
        s.processes.send(pid, signal.SIGCONT)
        s.expect_kill(Badge.KILL, 5.0)
        flat(s)
    _resume(s, kept)


def kill_watchdog(s: Stage) -> None:
    kept = keep(s)
    s.cause("kill -9 of the watchdog", lambda: s.processes.kill(topology.WATCHDOG))
    back(s, kept)


def breach_reconnect(s: Stage) -> None:
    s.hold(HELD)
    s.cause("the link is gone for 4 s, and a KILL comes meanwhile", lambda: _away(s, 4.0))
    s.expect_state("blocked", "entries are held back", lambda: s.watch.trading() != "ACTIVE", 2.0)
    s.say("; ".join(map(str, s.hands.kill("breach during a reconnect"))), "KILL")
    s.expect_kill(Badge.KILL, 2.0)
    s.expect_state("link UP", "connected and reconciled", lambda: s.watch.link() == LinkState.UP, 30.0)
    flat(s)
    s.release(60.0)


def _away(s: Stage, seconds: float) -> None:
    s.faults("refuse", seconds=seconds)
    s.faults("disconnect")


def mute(s: Stage) -> None:
    s.hold(HELD)
    kept = gateway(s).positions
    client = s.watch.config.gateway.client_id
    s.cause(
        "the gateway is mute on the bridge's connection, the emergency connection answers",
        lambda: s.faults("mute", client=client),
    )
    s.expect_badge(Badge.LAT, BadgeState.TRIPPED, 10.0)
    s.expect_kill(Badge.LAT, 1.0)
    s.expect_state("fenced", "the watchdog has the right to send", lambda: owner(s) == Owner.WATCHDOG, 3.0)
    flat(s)
    s.say(f"the cause ends: {s.faults('unmute')}", "cause ends")
    _resume(s, kept)


def mute_all(s: Stage) -> None:
    s.hold(HELD)
    s.cause("the gateway is mute on every connection", lambda: s.faults("mute"))
    s.expect_state("blocked", "entries are held back", lambda: s.watch.trading() != "ACTIVE", 6.0)
    s.expect_kill(Badge.KILL, s.g.link_down_kill_s + 6.0)
    s.say(f"the cause ends: {s.faults('unmute')}", "cause ends")
    s.expect_state("link UP", "connected and reconciled", lambda: s.watch.link() == LinkState.UP, 40.0)
    flat(s)
    s.release(60.0)


def kill_in_flatten(s: Stage) -> None:
    """kill -9 half-way through a flatten: the watchdog's first, then the bridge's."""
    for service in (topology.WATCHDOG, topology.BRIDGE):
        s.hold(HELD)
        kept = gateway(s).positions

        def act(service: str = service) -> None:
            s.hands.kill("drill")
            s.processes.kill(service)

        s.cause(f"an operator's KILL, and kill -9 of {service} at once", act)
        s.expect_state("killed", "KILL holds", lambda: s.watch.trading() == "KILLED", 10.0)
        flat(s)
        _resume(s, kept)


def disk_full(s: Stage) -> None:
    ballast = s.watch.config.state_dir / "ballast"
    s.hold(HELD)
    s.cause("the disk of the state directory is full", lambda: _fill(ballast))
    reasons = (BlockReason.DISK, BlockReason.RECORDER_BEHIND)
    s.expect_state("blocked", "entries are held back", lambda: s.watch.block_reasons(*reasons), 15.0)
    s.say("; ".join(map(str, s.hands.kill("on a full disk"))), "KILL")
    s.expect_kill(Badge.KILL, 2.0)
    flat(s)
    latch = s.watch.config.state_dir / "latch.json"
    written = latch.exists() and KILLED in latch.read_text()
    s.say("the latch on disk " + ("says killed" if written else "could not be written yet"), "latch")
    ballast.unlink()
    s.say("there is room again", "cause ends")
    s.expect_state("latch on disk", "latch.json says killed", lambda: KILLED in latch.read_text(), 10.0)
    s.release(90.0)


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        block = bytes(1 << 16)
        while True:
            try:
                file.write(block)
            except OSError as error:
                if error.errno != errno.ENOSPC or len(block) == 1:
                    raise
                block = block[: len(block) // 2]


def clock(s: Stage) -> None:
    """The wall clock jumps by days, and services are started anew on the jumped clock."""
    s.hold(HELD)
    kept = gateway(s).positions
    session = s.watch.session_date()
    for hours in (30.0, -60.0, 0.0):
        s.cause(f"the wall clock jumps to {hours:+g} h", lambda hours=hours: s.jump(hours * 3600.0))  # type: ignore[misc]
        for service in (topology.WATCHDOG, topology.BRIDGE):
            s.processes.kill(service)
            back(s, kept, f"guarded, {service} started anew")
        if s.watch.session_date() != session:
            raise Unexpected(f"session: {s.watch.session_date()}, it was {session} before the jump")
        s.expect_quiet("no KILL", "nothing tripped, the day stands",
                       lambda: "KILL latched" if s.watch.trading() == "KILLED" else "", 2.0)  # fmt: skip


SMALL_DISK: dict[str, dict[str, Any]] = {"recorder": {"min_free_bytes": 2 << 20, "segment_bytes": 4 << 20}}
QUICK: dict[str, dict[str, Any]] = {"guardrails": {"bridge_grace_s": 4.0}}

CALM: dict[str, dict[str, Any]] = {"guardrails": {"bridge_grace_s": 20.0}}
APART: dict[str, dict[str, Any]] = {"runtime": {"placement": "dedicated"}, "guardrails": {"link_down_kill_s": 60.0}}
"""Each service a process of its own, and the time that is shipped for a gateway that is gone."""

BREAKDOWNS: dict[str, Scenario] = {
    "KILL-BRIDGE": Scenario("kill -9 of the bridge: orders cancelled within 1 s, positions kept", kill_bridge),
    "STOP-BRIDGE": Scenario("a hung bridge is fenced, its successor gets the right back", stop_bridge),
    "KILL-WATCHDOG": Scenario("kill -9 of the watchdog: back before anything has to be flattened", kill_watchdog),
    "KILL-IN-FLATTEN": Scenario("kill -9 half-way through a flatten", kill_in_flatten),
    "WATCHDOG-HUNG": Scenario("a hung watchdog: the bridge gets flat by itself", watchdog_hung),
    "BREACH-RECONNECT": Scenario("a KILL while the link is down", breach_reconnect),
    "MUTE-ALL": Scenario("a gateway mute on every connection is a lost broker", mute_all),
    "BRIDGE-GONE": Scenario("a bridge that stays away: the emergency connection gets flat", bridge_gone, QUICK),
    "STOP-ALL": Scenario("everything but the watchdog hangs: the emergency connection gets flat", stop_all, QUICK),
    "MUTE": Scenario("a live but mute bridge is fenced: the emergency connection gets flat", mute, QUICK),
    "KILL-SERVICES": Scenario("kill -9 of every other process alone: positions kept", kill_services, APART),
    "STOP-SERVICES": Scenario("every other process alone hangs: positions kept", stop_services, APART),
    "CLOCK": Scenario("the wall clock jumps by days", clock, CALM, jumping=True),
    "DISK-FULL": Scenario("a full disk holds entries back, getting flat goes on", disk_full, SMALL_DISK,
                          small_disk=True),
}  # fmt: skip
