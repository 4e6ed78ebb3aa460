"""Fences of the shells, each taken out by name, and the seed of the simulation, or the test, that must notice.

``python tests/sim/fences.py`` prints the table; exit 1 if one survives, or if the untouched system fails its seed.
``--pace wide`` asks the same of the pace that campaigns use: a look that comes later must not overlook anything.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from engine.broker.deadman import DeadMan
from engine.broker.desk import Desk
from engine.broker.emergency_flatten import DirectFlatten
from engine.broker.facts import Gatekeeper
from engine.broker.governor import Governor
from engine.broker.statefile import OrderIds
from engine.procs.watchdog_parts import takeover
from engine.procs.watchdog_parts.flattening import Flattening
from engine.procs.watchdog_parts.stops import Stops
from engine.procs.watchdog_parts.takeover import Takeover
from engine.risk.accounting import Accounts, Applied
from engine.risk.ownership import BridgeFacts
from engine.sim.machine import SimProcessWatch
from engine.sim.plan import Deed, Kind
from engine.sim.run import Ask, simulate

S = 1_000_000_000
TESTS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Fence:
    """``cut`` takes it out; in the run of ``ask`` one of ``numbers`` must then be broken."""

    name: str
    cut: Callable[[], contextlib.AbstractContextManager[Any]]
    ask: Ask
    numbers: tuple[int, ...]


@contextlib.contextmanager
def _lease_always_valid() -> Iterator[None]:
    original = Gatekeeper.authority

    def authority(self: Gatekeeper, now_ns: int) -> bool:
        original(self, now_ns)
        stops = self.stops
        self.lease_valid = True
        self.account["lease"] = self.account["owner"] = 1
        return not (stops.kill or stops.pause or stops.block)

    with mock.patch.object(Gatekeeper, "authority", authority):
        yield


@contextlib.contextmanager
def _stops_not_read() -> Iterator[None]:
    original = Gatekeeper.authority

    def authority(self: Gatekeeper, now_ns: int) -> bool:
        original(self, now_ns)
        for name in ("killed", "paused", "blocked"):
            self.account[name] = 0
        self.facts["blocked"] = 0
        return bool(self.lease_valid)

    with mock.patch.object(Gatekeeper, "authority", authority):
        yield


@contextlib.contextmanager
def _right_to_send_not_read() -> Iterator[None]:
    original = Gatekeeper.authority

    def authority(self: Gatekeeper, now_ns: int) -> bool:
        allowed = original(self, now_ns)
        self.owner_ours = True
        self.account["owner"] = 1
        return allowed

    with mock.patch.object(Gatekeeper, "authority", authority), mock.patch.object(Desk, "connected", True):
        yield


@contextlib.contextmanager
def _corrections_ignored() -> Iterator[None]:
    original = Accounts.apply

    def apply(self: Accounts, fill: Any) -> Applied:
        return original(self, fill) if fill.exec_id.endswith(".01") else Applied.DUPLICATE

    with mock.patch.object(Accounts, "apply", apply):
        yield


@contextlib.contextmanager
def _every_execution_is_new() -> Iterator[None]:
    original = Accounts.apply
    count = [0]

    def apply(self: Accounts, fill: Any) -> Applied:
        from dataclasses import replace

        count[0] += 1
        return original(self, replace(fill, exec_id=f"{fill.exec_id}.{count[0]:06d}.01"))

    with mock.patch.object(Accounts, "apply", apply):
        yield


def _patched(where: Any, name: str, what: Any) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    return lambda: mock.patch.object(where, name, what)


def _mark_forgotten(self: OrderIds, mark: int) -> None:
    self._next = self._reserved = self._confirmed = 1
    self.raise_to = lambda order_id: None  # type: ignore[method-assign]


def _latch_forgotten(self: Stops, *_: Any, **__: Any) -> None:
    from dataclasses import replace

    original_load(self, *_, **__)
    self.latch = replace(self.latch, kill=False, pause=False, released_kill_id=self._ctx.clock.now_ns(),
                         released_pause_id=self._ctx.clock.now_ns())  # fmt: skip
    self._publish(self._ctx.clock.now_ns())


original_load = Stops.load


def _never_active(*_: Any, **__: Any) -> int:
    return 0


def ask(*deeds: Deed, seed: int = 6, hours: float = 0.012) -> Ask:
    """Without habits: nobody resumes or resets before the plan is over."""
    return Ask(seed, hours, faults="harmless", deeds=deeds, every_s=1.5)


def orders(from_s: float) -> tuple[Deed, ...]:
    """Both ways in every symbol: whatever is held, some of them add risk."""
    sizes = [(5.0 + k) * side for k in range(4) for side in (1, -1)]
    return tuple(
        Deed(int((from_s + 0.3 * k) * S), Kind.ORDER, "cli", value=qty, symbol=k // 2) for k, qty in enumerate(sizes)
    )


NO_STRATEGY = Deed(20 * S, Kind.CRASH, "algo", 60 * S)
HUNG = Deed(20 * S, Kind.HANG, "watchdog", 4 * S)
FENCES = (
    Fence("lease", _lease_always_valid, ask(HUNG, *orders(20.6)), (1,)),
    Fence("stops at the gate", _stops_not_read, ask(Deed(20 * S, Kind.PAUSE, "cockpit"), *orders(20.1)), (1,)),
    Fence("executions once", _every_execution_is_new, ask(Deed(20 * S, Kind.RECONNECT, "cli")), (3,)),
    Fence(
        "order-id mark", _patched(OrderIds, "__init__", _mark_forgotten),
        ask(  # an order that was cancelled is in no answer after a login: only the mark knows that its id is used
            *(
                deed for t in (20, 26, 32, 38)
                for deed in (
                    Deed(t * S, Kind.CANCEL_ALL, "cli"), Deed(t * S + 1, Kind.ID_ROLLBACK),
                    Deed(t * S + 400_000_000, Kind.CRASH, "broker-bridge", S),
                )
            ),
        ), (3,),
    ),
    Fence(
        "message budget", _patched(Governor, "room", lambda *_: 1_000),
        ask(*(Deed(20 * S + k * 200_000_000, Kind.RECONNECT, "cli") for k in range(6))), (9,),
    ),
    Fence(
        "latch survives a restart", _patched(Stops, "load", _latch_forgotten),
        ask(Deed(20 * S, Kind.KILL, "cli"), Deed(23 * S, Kind.CRASH, "watchdog", S)), (8,),
    ),
    Fence(  # what was refused has released nothing
        "latch survives a refused reset", _patched(Stops, "load", _latch_forgotten),
        ask(Deed(20 * S, Kind.KILL, "cli"), Deed(22 * S, Kind.RESET, "cli"), Deed(23 * S, Kind.CRASH, "watchdog", S)),
        (8,),
    ),
    Fence(
        "flatten after KILL", _patched(Flattening, "start", _never_active),
        ask(Deed(25 * S, Kind.KILL, "cockpit")), (4,),
    ),
    Fence(
        "right to send", _right_to_send_not_read,
        ask(NO_STRATEGY, Deed(22 * S, Kind.CRASH, "broker-bridge", 8 * S), Deed(25 * S, Kind.CANCEL_ALL, "cli")), (7,),
    ),
    Fence(
        "hand-back after a new reading", _patched(Takeover, "_has_read", lambda *_: True),
        ask(
            NO_STRATEGY, Deed(21 * S, Kind.SLOW_API, "bridge", 25 * S, value=2.0),
            Deed(21_300_000_000, Kind.CRASH, "broker-bridge", S), Deed(24_600_000_000, Kind.KILL, "cli"),
            Deed(27_200_000_000, Kind.FLATTEN, "cli"),
        ), (1,),
    ),
    Fence(
        "flatten survives a restart", _patched(Flattening, "load", lambda *_: None),
        ask(
            NO_STRATEGY, Deed(22 * S, Kind.REJECT, value=40.0), Deed(23 * S, Kind.KILL, "cli"),
            Deed(25 * S, Kind.CRASH, "watchdog", S), Deed(28 * S, Kind.REJECT, value=-40.0),
        ), (4,),
    ),
    Fence(
        "SIGKILL of the fenced bridge", _patched(SimProcessWatch, "kill", lambda *_: False),
        ask(NO_STRATEGY, Deed(22 * S, Kind.HANG, "broker-bridge", 70 * S), Deed(24 * S, Kind.KILL, "cli"), hours=0.03),
        (4,),
    ),
    Fence(
        "corrections replace", _corrections_ignored,
        ask(NO_STRATEGY, *orders(20.5), Deed(26 * S, Kind.CORRECTION, value=0.05)), (6,),
    ),
)  # fmt: skip


@contextlib.contextmanager
def _exit_taken_for_granted() -> Iterator[None]:
    def facts(**known: Any) -> BridgeFacts:
        return BridgeFacts(**known | {"exit_seen": True})

    with mock.patch.object(takeover, "BridgeFacts", facts):
        yield


def _memory_first(self: Stops, released: Any, event: Any, text: str, source: int, done: Any, failed: Any) -> None:
    self.latch = released
    now_ns = self._ctx.clock.now_ns()
    self._publish(now_ns)
    self._write()
    done()


TESTED: tuple[tuple[str, Callable[[], contextlib.AbstractContextManager[Any]], str], ...] = (
    (
        "exit seen before acting", _exit_taken_for_granted,
        "watchdog/test_takeover.py::test_a_fenced_bridge_that_does_not_exit_keeps_everybody_from_sending_and_somebody_is_told",
    ),
    (
        "two reads before closes", _patched(DirectFlatten, "_settle", lambda *_: True),
        "watchdog/test_emergency_flatten.py::test_no_close_before_two_reads_have_agreed",
    ),
    (
        "dead-man flatten", _patched(DeadMan, "start", lambda *_, **__: None),
        "broker/test_bridge_paper.py::test_without_a_watchdog_for_long_the_bridge_latches_kill_and_gets_flat",
    ),
    (
        "release is on disk first", _patched(Stops, "_begin", _memory_first),
        "watchdog/test_reset.py::test_a_reset_on_a_full_disk_is_refused_and_what_is_on_disk_says_latched",
    ),
)  # fmt: skip
"""What no seed shows: the simulated gateway loses no bytes on the way and the judge excuses a watchdog that hangs."""


def tried(number: int) -> tuple[str, bool]:
    """A line of the table for a fence with a test of its own: it passes, and fails when the fence is gone."""
    import io

    import pytest

    name, cut, test = TESTED[number]
    codes = []
    with contextlib.redirect_stdout(io.StringIO()):
        for around in (contextlib.nullcontext, cut):
            with around():
                codes.append(int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", str(TESTS / test)])))
    good = codes == [0, 1]
    return f"fence {name:34} {test.rpartition('/')[2] if good else f'SURVIVED {codes}: {test}'}", good


def look(number: int, pace: str = "close") -> tuple[str, bool]:
    """A line of the table, and whether the fence is noticed when it is gone, and only then."""
    logging.disable(logging.CRITICAL)
    fence = FENCES[number]
    asked = replace(fence.ask, pace=pace)
    whole = simulate(asked)
    with fence.cut():
        cut = simulate(asked)
    found = [b for b in cut.broken if b.number in fence.numbers]
    words = str(found[0])[:110] if found else f"SURVIVED {[str(b) for b in cut.broken]}"
    if whole.broken:
        words = f"THE SYSTEM ITSELF FAILS: {whole.broken[0]}"
    return f"fence {fence.name:34} seed {fence.ask.seed}: {words}", bool(found) and not whole.broken


def main(pace: str) -> int:
    survived = 0
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for line, noticed in pool.imap(functools.partial(look, pace=pace), range(len(FENCES)), 1):
            survived += not noticed
            print(line, flush=True)
        for line, noticed in pool.imap(tried, range(len(TESTED) if pace == "close" else 0), 1):
            survived += not noticed
            print(line, flush=True)
    print(f"{len(FENCES) + len(TESTED)} fences, {survived} survived")
    return 1 if survived else 0


if __name__ == "__main__":
    raise SystemExit(main("wide" if sys.argv[1:] == ["--pace", "wide"] else "close"))
