"""The runner owns the loop: attach, warm up, pin, READY, work, wait, close. Agents own nothing of it.

One loop drives one agent (a process for each service), or several in turn (the shared host, ``engine.runtime.host``).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import os
import sys
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from engine import topology
from engine.config import Config
from engine.domain.codes import EventKind, ServiceState
from engine.runtime.agent import Agent
from engine.runtime.compile_watch import CompileWatch
from engine.runtime.context import Context
from engine.runtime.notify import Notifier
from engine.runtime.placement import SLEEPS, affinity, allowed_cores, waits
from engine.runtime.priority import own_threads, prioritise
from engine.runtime.stopping import SIGNALS, StopRequest
from shm.errors import ShmError

_GC_EVERY_NS = 2_000_000_000
IDLE_TURNS = 20
"""Turns without work before a service that was told to spin first gives up its core: some 50 µs."""
_PR_SET_NAME, _PR_SET_PDEATHSIG = 15, 1


class StartRefused(Exception):
    """A service can't start for a reason that a person must remove; the text is one line. Exit code 3."""


def module_of(service: str) -> str:
    return "engine.procs." + service.replace("-", "_")


def set_process_name(name: str) -> None:
    """Name shown by ps and top (15 characters)."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name[:15].encode(), 0, 0, 0)


def run_service(service: str, config: Config, placed: str = "dedicated") -> int:
    """Run one service in this process until SIGTERM or SIGINT. ``placed``: how the hot ones run, for the cores it gets.

    Returns the exit code: 0 orderly, 1 crash, 3 start refused.
    """
    stop = StopRequest()
    stop.install()
    set_process_name(service)
    os.umask(0o077)
    try:
        context = Context(config, service)
        context.start_heartbeat(context.clock.now_ns())
    except ShmError as error:
        sys.stderr.write(f"{service}: {error}\n")
        return 3
    notifier = Notifier()
    try:
        worker: Any = importlib.import_module(module_of(service)).create(context)
        runner: AsyncRunner | Runner
        if hasattr(worker, "run"):
            settle(context, placed)
            runner = AsyncRunner(context, worker, notifier, stop)
        else:
            runner = Runner(Seat(context, worker), notifier, stop, placed)
        runner.run()
    except (StartRefused, ShmError) as error:
        context.log.error(str(error))
        say_state(context, ServiceState.STOPPED, str(error))
        return 3
    except Exception as error:
        say_crash(context, error)
        return 1
    return 0


def say_state(context: Context, state: ServiceState, text: str = "") -> None:
    """Into the heartbeat and the events ring."""
    now = context.clock.now_ns()
    if context.heartbeat is not None:
        context.heartbeat.set_state(state, now)
    if topology.service(context.service).attached:
        context.events.emit(EventKind.LIFECYCLE, state, text=text, now_ns=now)


def say_crash(context: Context, error: Exception) -> None:
    """An exception that nobody expected: to the log, and in one line to whoever watches."""
    context.log.error("crashed", exc_info=error)
    lines = "".join(traceback.format_exception(error)).strip().splitlines()
    say_state(context, ServiceState.DOWN, f"crashed: {error!r} {lines[-2].strip()}")


def settle(context: Context, placed: str) -> None:
    """Take the cores that the placement gives this service.

    Who is kept off the hot core is kept off it with every thread: a helper of the watchdog's that writes a file has its
    priority, and would stop the host in the middle of the closes. Helpers of who owns a core may run elsewhere.
    """
    runtime = context.config.runtime
    cores = allowed_cores()
    mine = affinity(runtime, context.service, cores, placed)
    if mine == set(cores):
        return
    owns = topology.core_plan(len(cores), placed)[context.service] >= 0
    for thread in (0,) if owns else own_threads():
        with contextlib.suppress(ProcessLookupError):  # a helper that has just ended
            os.sched_setaffinity(thread, mine)
    if len(mine) == 1 and owns and context.heartbeat:
        context.heartbeat.set_core(*mine)


Part = Callable[[int], None]


class Turns:
    """The turns of a loop. This one: an agent's own work, or that of several."""

    calm = 1
    """Duties are due every so many ``housekeeping_ms``, or when ``hurry`` says so."""

    def __init__(self, work: Callable[[int], int]) -> None:
        self._work = work

    def turn(self, now_ns: int, rest: bool) -> int:
        """One turn; returns what was done. ``rest``: nothing else is to be done, it may wait for work."""
        return self._work(now_ns)

    def pending(self) -> bool:
        """Should duties make way for a turn?"""
        return False

    def hurry(self) -> bool:
        """Something has happened that duties have to see to now."""
        return False

    def disarm(self) -> None:
        """Duties were done, or somebody else has worked."""

    def close(self) -> None:
        """Others take their place."""


class Seat:
    """One agent in a loop, with what is counted about it between two heartbeats."""

    def __init__(self, context: Context, agent: Agent) -> None:
        assert context.heartbeat is not None
        self.context, self.agent = context, agent
        self.service = context.service
        self.spec = topology.service(context.service)
        self.parts: tuple[Part, ...] = getattr(agent, "duties", (agent.housekeeping,))
        self._beat = context.heartbeat
        self._clock = context.clock
        self._work = self._loops = self._busy_ns = 0
        self.ready = False
        self.watch: CompileWatch | None = None
        """Counts compilations of this process; they are errors in the heartbeat. One seat of a process has it."""

    def work(self, now_ns: int) -> int:
        """One turn of the agent, counted."""
        done = self.agent.do_work(now_ns)
        self._loops += 1
        if done:
            self._work += done
            self._busy_ns += self._clock.now_ns() - now_ns
        return done

    def count(self, work: int, busy_ns: int) -> None:
        """Work that was done for the agent by somebody else (a fused kernel)."""
        self._loops += 1
        self._work += work
        self._busy_ns += busy_ns

    def duties(self, now_ns: int) -> bool:
        """Slow duties and a heartbeat; True when the agent has become READY just now."""
        self.agent.housekeeping(now_ns)
        return self.beat(now_ns)

    def do(self, part: Part, now_ns: int) -> None:
        """One of ``parts``."""
        part(now_ns)

    def beat(self, now_ns: int) -> bool:
        """A heartbeat; True when the agent has become READY just now."""
        compiled = self.watch.take() if self.watch is not None else 0
        if compiled and self.watch is not None:
            self.context.log.error("compiled after READY, in the hot loop: %s", ", ".join(self.watch.names[-compiled:]))
        self._beat.beat(
            now_ns, self._work, self._loops, self.agent.lag(), self.context.lost, compiled, self._busy_ns
        )  # fmt: skip
        self._work = self._loops = self._busy_ns = 0
        if self.ready or not self.agent.ready():
            return False
        self.ready = True
        say_state(self.context, ServiceState.READY)
        return True

    def close(self) -> None:
        say_state(self.context, ServiceState.CLOSING)
        self.agent.on_close(self._clock.now_ns())
        say_state(self.context, ServiceState.STOPPED)


class Runner:
    """Loop of one ``Agent`` on a thread of its own."""

    def __init__(self, seat: Seat, notifier: Notifier, stop: StopRequest, placed: str = "dedicated") -> None:
        self.seat = seat
        self._notifier = notifier
        self._placed = placed
        self._stop = stop

    def run(self) -> None:
        seat, context = self.seat, self.seat.context
        say_state(context, ServiceState.WARMING)
        bell = context.doorbell(futex=context.config.runtime.wait in ("auto", "spin-then-futex"))
        cores = len(allowed_cores())
        seat.agent.on_start(context.clock.now_ns())
        settle(context, self._placed)
        wait = waits(context.config.runtime, seat.service, cores, self._placed)
        prioritise(context, sleeps=wait in SLEEPS)
        say_unlocked(context)
        freeze()
        seat.watch = CompileWatch().start()
        loop = Loop(context, bell, wait)
        try:
            turns = Turns(seat.work)
            loop.run([seat], lambda: turns, lambda: self._stop.asked, self._notify, seat.agent.wait_fds)
        finally:
            self._notifier.send("STOPPING=1")
            seat.close()
            bell.close()

    def _notify(self, seat: Seat, became_ready: bool) -> None:
        self._notifier.send("WATCHDOG=1")
        if became_ready:
            self._notifier.send("READY=1")


def say_unlocked(context: Context) -> None:
    """A limit on locked memory clamps silently: the log names what it left out."""
    if context.unlocked:
        name, reason = next(iter(context.unlocked.items()))
        context.log.warning("%d regions are not locked in memory, %s: %s", len(context.unlocked), name, reason)


def freeze() -> None:
    """What is there after warm-up stays: collections look at younger things only, and only when idle."""
    gc.collect()
    gc.freeze()
    gc.disable()


class Loop:
    """Turns, duties, heartbeats and waiting of the agents on one thread. ``wait``: see ``placement.waits``."""

    def __init__(self, context: Context, bell: Any, wait: str) -> None:
        self._clock = context.clock
        self._bell, self._wait = bell, wait
        self._spins = IDLE_TURNS if wait.startswith("spin-then") else 0
        self._every_ns = int(context.config.runtime.housekeeping_ms * 1e6)
        self._sleep_s = topology.service(context.service).sleep_ms / 1e3

    def run(
        self,
        seats: list[Seat],
        turns: Callable[[], Turns],
        ended: Callable[[], bool],
        beaten: Callable[[Seat, bool], None],
        fds: Callable[[], tuple[int, ...]],
    ) -> None:
        """Until ``ended``. ``seats`` and ``turns`` may change in ``beaten``, which is called after each heartbeat of a
        seat."""
        clock, bell, spin = self._clock, self._bell, self._wait == "busy-spin"
        next_duties = next_gc = clock.now_ns()
        due: deque[tuple[Seat, Part | None]] = deque()
        idle = 0
        while not ended():
            now_turns = turns()
            done = now_turns.turn(clock.now_ns(), not due)
            now = clock.now_ns()
            if not due and (now >= next_duties or now_turns.hurry()):
                next_duties = now + self._every_ns * now_turns.calm
                for seat in seats:
                    due.extend((seat, part) for part in (*seat.parts, None))
            if due:
                self._duties(seats, due, now, beaten, now_turns.pending)
                turns().disarm()
                if not due:
                    if now >= next_gc and not done:
                        next_gc = now + _GC_EVERY_NS
                        gc.collect(0)
                    bell.watch(fds())
            if done or due or spin:
                idle = 0
                continue
            idle += 1
            if idle <= self._spins:
                continue
            if self._wait in ("yield", "spin-then-yield"):
                os.sched_yield()
                continue
            bell.announce()
            bell.sleep(self._sleep_s if all(seat.agent.lag() == 0 for seat in seats) else 0.0)

    def _duties(
        self,
        seats: list[Seat],
        due: deque[tuple[Seat, Part | None]],
        now_ns: int,
        beaten: Callable[[Seat, bool], None],
        pending: Callable[[], bool],
    ) -> None:
        """The duties that are due, one at least, until something is pending. None stands for the heartbeat."""
        while due:
            seat, part = due.popleft()
            if seat in seats:
                if part is None:
                    beaten(seat, seat.beat(now_ns))
                else:
                    seat.do(part, now_ns)
            if pending():
                return
            now_ns = self._clock.now_ns()


class AsyncRunner:
    """Loop of an asyncio worker: a server that is woken by its own sockets."""

    def __init__(self, context: Context, worker: Any, notifier: Notifier, stop: StopRequest) -> None:
        self.context = context
        self.worker = worker
        self._notifier = notifier
        self._stop = stop

    def run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, stop.set)
        if self._stop.asked:
            stop.set()
        say_state(self.context, ServiceState.WARMING)

        def ready() -> None:
            say_unlocked(self.context)
            say_state(self.context, ServiceState.READY)
            self._notifier.send("READY=1")

        pulse = asyncio.create_task(self._pulse())
        try:
            await self.worker.run(ready, stop)
        finally:
            pulse.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pulse
            say_state(self.context, ServiceState.STOPPED)

    async def _pulse(self) -> None:
        while True:
            self._notifier.send("WATCHDOG=1")
            self.context.beat()
            await asyncio.sleep(0.25)
