"""The runner owns the loop: attach, warm up, pin, READY, work, wait, close. Agents own nothing of it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import os
import sys
import traceback
from typing import Any

from engine import topology
from engine.config import Config
from engine.domain.codes import EventKind, ServiceState
from engine.runtime.agent import Agent
from engine.runtime.context import Context
from engine.runtime.notify import Notifier
from engine.runtime.stopping import SIGNALS, StopRequest
from shm.errors import ShmError

_GC_EVERY_NS = 2_000_000_000
_PR_SET_NAME, _PR_SET_PDEATHSIG = 15, 1


class StartRefused(Exception):
    """A service can't start for a reason that a person must remove; the text is one line. Exit code 3."""


def module_of(service: str) -> str:
    return "engine.procs." + service.replace("-", "_")


def set_process_name(name: str) -> None:
    """Name shown by ps and top (15 characters)."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name[:15].encode(), 0, 0, 0)


def run_service(service: str, config: Config) -> int:
    """Run one service until SIGTERM or SIGINT. Returns the exit code: 0 orderly, 1 crash, 3 start refused."""
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
        kind = AsyncRunner if hasattr(worker, "run") else Runner
        runner = kind(context, worker, notifier, stop)
        runner.run()
    except (StartRefused, ShmError) as error:
        context.log.error(str(error))
        _say_state(context, ServiceState.STOPPED, str(error))
        return 3
    except Exception as error:
        context.log.exception("crashed")
        _say_state(
            context, ServiceState.DOWN, f"crashed: {error!r} {traceback.format_exc().strip().splitlines()[-2].strip()}"
        )
        return 1
    return 0


def _say_state(context: Context, state: ServiceState, text: str = "") -> None:
    now = context.clock.now_ns()
    if context.heartbeat is not None:
        context.heartbeat.set_state(state, now)
    if topology.service(context.service).attached:
        context.events.emit(EventKind.LIFECYCLE, state, text=text, now_ns=now)


class Runner:
    """Loop of an ``Agent`` on a thread of its own."""

    def __init__(self, context: Context, agent: Agent, notifier: Notifier, stop: StopRequest) -> None:
        self.context = context
        self.agent = agent
        self._notifier = notifier
        self._stop = stop
        self._spec = topology.service(context.service)

    def run(self) -> None:
        context, agent = self.context, self.agent
        assert context.heartbeat is not None
        clock = context.clock
        _say_state(context, ServiceState.WARMING)
        bell = context.doorbell()
        agent.on_start(clock.now_ns())
        self._pin()
        self._prioritise()
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            self._loop(bell)
        finally:
            _say_state(context, ServiceState.CLOSING)
            self._notifier.send("STOPPING=1")
            agent.on_close(clock.now_ns())
            _say_state(context, ServiceState.STOPPED)
            bell.close()

    def _pin(self) -> None:
        cores = sorted(os.sched_getaffinity(0))
        core = topology.core_plan(len(cores), self.context.config.runtime.placement)[self.context.service]
        if self.context.config.runtime.pin and core >= 0:
            os.sched_setaffinity(0, {cores[core]})
            assert self.context.heartbeat is not None
            self.context.heartbeat.set_core(cores[core])

    def _prioritise(self) -> None:
        """On a shared host a busy neighbour must not starve the lease. Not SCHED_FIFO: a spinning loop would starve
        the kernel's own threads."""
        nice = self.context.config.runtime.hot_nice
        if self._spec.hot and nice:
            try:
                os.setpriority(os.PRIO_PROCESS, 0, nice)
            except PermissionError:
                self.context.log.info("no permission to set priority %d: running at 0", nice)

    def _loop(self, bell: Any) -> None:
        agent, context, clock = self.agent, self.context, self.context.clock
        beat = context.heartbeat
        assert beat is not None
        wait = context.config.runtime.wait
        if wait == "auto":
            # A busy-spinning process must own its core; with fewer cores than hot services nobody can.
            owns = (
                topology.core_plan(len(os.sched_getaffinity(0)), context.config.runtime.placement)[context.service] >= 0
            )
            wait = "busy-spin" if owns and self._spec.hot else "doorbell"
        every_ns = int(context.config.runtime.housekeeping_ms * 1e6)
        sleep_s = self._spec.sleep_ms / 1e3
        next_duties = next_gc = clock.now_ns()
        work_sum = loops = busy_ns = 0
        ready = False
        while not self._stop.asked:
            now = clock.now_ns()
            done = agent.do_work(now)
            loops += 1
            if done:
                work_sum += done
                busy_ns += clock.now_ns() - now
            if now >= next_duties:
                next_duties = now + every_ns
                agent.housekeeping(now)
                beat.beat(now, work_sum, loops, agent.lag(), context.lost, busy_ns=busy_ns)
                work_sum = loops = busy_ns = 0
                self._notifier.send("WATCHDOG=1")
                if not ready and agent.ready():
                    ready = True
                    _say_state(context, ServiceState.READY)
                    self._notifier.send("READY=1")
                if now >= next_gc and not done:
                    next_gc = now + _GC_EVERY_NS
                    gc.collect(0)
                bell.watch(agent.wait_fds())
            if done or wait == "busy-spin":
                continue
            if wait == "yield":
                os.sched_yield()
                continue
            bell.announce()
            if agent.lag() == 0:
                bell.sleep(sleep_s)
            else:
                bell.sleep(0.0)


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
        _say_state(self.context, ServiceState.WARMING)

        def ready() -> None:
            _say_state(self.context, ServiceState.READY)
            self._notifier.send("READY=1")

        pulse = asyncio.create_task(self._pulse())
        try:
            await self.worker.run(ready, stop)
        finally:
            pulse.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pulse
            _say_state(self.context, ServiceState.STOPPED)

    async def _pulse(self) -> None:
        while True:
            self._notifier.send("WATCHDOG=1")
            self.context.beat()
            await asyncio.sleep(0.25)
