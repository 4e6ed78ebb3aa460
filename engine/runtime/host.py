"""The shared host: several agents in one process, on one pinned thread, where a hop is a function call.

Each agent keeps its service name, heartbeat, counters, events ring, cursors and cells; what it reads and writes is the
same as in a process of its own. What is different:

* The first of ``topology.HOSTED`` leads. The process is its process: when it ends, is killed or crashes, all of them
  end, and they are started anew together.
* The others are started, stopped and started anew inside the running process, as the supervisor asks over ``control``
  (one line each way: ``start NAME``, ``stop NAME``; ``ended NAME``). The leader keeps its connection meanwhile.
* An exception in one of the others takes down that agent alone: it is DOWN, and the supervisor starts it anew.
* A hang is the hang of all of them, and shows in all their heartbeats.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import sys

from engine import topology
from engine.config import Config
from engine.domain.codes import ServiceState
from engine.runtime.compile_watch import CompileWatch
from engine.runtime.context import Context
from engine.runtime.placement import allowed_cores, waits
from engine.runtime.priority import prioritise
from engine.runtime.runner import (
    Loop,
    Part,
    Seat,
    StartRefused,
    Turns,
    freeze,
    module_of,
    say_crash,
    say_state,
    say_unlocked,
    set_process_name,
    settle,
)
from engine.runtime.stopping import StopRequest
from shm.errors import ShmError

NAME = "trading-host"


class Guest(Seat):
    """A seat whose agent may fail without taking the others with it."""

    failed: Exception | None = None

    def work(self, now_ns: int) -> int:
        if self.failed is not None:
            return 0
        try:
            return super().work(now_ns)
        except Exception as error:
            self.failed = error
            return 0

    def do(self, part: Part, now_ns: int) -> None:
        if self.failed is None:
            try:
                super().do(part, now_ns)
            except Exception as error:
                self.failed = error

    def beat(self, now_ns: int) -> bool:
        if self.failed is not None:
            return False
        try:
            return super().beat(now_ns)
        except Exception as error:
            self.failed = error
            return False


class Host:
    """The process of ``topology.HOSTED``. ``control`` is the supervisor's socket, None: start all, nobody asks."""

    def __init__(self, config: Config, control: socket.socket | None = None) -> None:
        self._config = config
        self._control = control
        if control is not None:
            control.setblocking(False)
        self._heard = b""
        self._stop = StopRequest()
        self.seats: list[Seat] = []
        self._turns = Turns(self._in_turn)

    def run(self) -> int:
        """Until SIGTERM, SIGINT or the leader's end. Exit code as of ``run_service``."""
        self._stop.install()
        set_process_name(NAME)
        os.umask(0o077)
        leader = topology.HOSTED[0]
        try:
            context = Context(self._config, leader)
            context.start_heartbeat(context.clock.now_ns())
        except ShmError as error:
            sys.stderr.write(f"{leader}: {error}\n")
            return 3
        try:
            self._run(context)
        except (StartRefused, ShmError) as error:
            context.log.error(str(error))
            say_state(context, ServiceState.STOPPED, str(error))
            return 3
        except Exception as error:
            say_crash(context, error)
            for seat in self.seats[1:]:
                say_state(seat.context, ServiceState.DOWN, f"{leader} crashed in the same process")
            return 1
        return 0

    def _run(self, context: Context) -> None:
        say_state(context, ServiceState.WARMING)
        bell = context.doorbell()
        cores = len(allowed_cores())
        for name in topology.HOSTED:  # before anybody relies on the heartbeat: imports take longer than a turn may
            importlib.import_module(module_of(name))
        self._sit(context)
        settle(context, "shared")
        prioritise(context, sleeps=False)  # may work for long without a pause
        if self._control is None:
            for name in topology.HOSTED[1:]:
                self._start(name)
        freeze()
        self.seats[0].watch = CompileWatch().start()
        loop = Loop(context, bell, waits(self._config.runtime, context.service, cores, "shared"))
        try:
            loop.run(self.seats, lambda: self._turns, lambda: self._stop.asked, self._beaten, self._fds)
        finally:
            for seat in reversed(self.seats):
                seat.close()
            bell.close()

    # Seats.

    def _sit(self, context: Context) -> None:
        """Create and warm up the agent of a context, and let it take part. Raises what the agent raises."""
        worker = importlib.import_module(module_of(context.service)).create(context)
        seat = (Guest if self.seats else Seat)(context, worker)
        worker.on_start(context.clock.now_ns())
        say_unlocked(context)
        self.seats.append(seat)
        self.seats.sort(key=lambda s: topology.HOSTED.index(s.service))
        self._compose()

    def _compose(self) -> None:
        """One turn of all: fused where all are there and can be, else one after the other."""
        self._turns.close()
        self._turns = importlib.import_module(topology.FUSED).compose(self.seats) or Turns(self._in_turn)

    def _in_turn(self, now_ns: int) -> int:
        done = 0
        for seat in self.seats:
            done += seat.work(seat.context.clock.now_ns())
        return done

    def _bury(self) -> None:
        """Let go of agents that raised: the others go on."""
        for seat in tuple(self.seats):
            if isinstance(seat, Guest) and seat.failed is not None:
                say_crash(seat.context, seat.failed)
                self._leave(seat)

    def _leave(self, seat: Seat) -> None:
        self.seats.remove(seat)
        self._compose()
        seat.context.close()
        self._tell(f"ended {seat.service}")

    def _seat(self, name: str) -> Seat | None:
        return next((s for s in self.seats if s.service == name), None)

    def _start(self, name: str) -> None:
        if self._seat(name) is not None:
            return
        context = Context(self._config, name)
        context.start_heartbeat(context.clock.now_ns())
        say_state(context, ServiceState.WARMING)
        try:
            # Nobody rings it here; a word left by a process of its own must not make producers try.
            bell = context.doorbell()
            bell.sleep(0.0)
            bell.close()
            self._sit(context)
            settle_core(context)
        except Exception as error:
            say_crash(context, error)
            context.close()
            self._tell(f"ended {name}")

    def _end(self, name: str) -> None:
        seat = self._seat(name)
        if seat is None:
            self._tell(f"ended {name}")
            return
        try:
            seat.close()
        except Exception as error:
            say_crash(seat.context, error)
        self._leave(seat)

    # The supervisor.

    def _beaten(self, seat: Seat, _: bool) -> None:
        if seat is self.seats[0]:
            self._bury()
            self._listen()

    def _fds(self) -> tuple[int, ...]:
        mine = () if self._control is None else (self._control.fileno(),)
        return mine + tuple(fd for seat in self.seats for fd in seat.agent.wait_fds())

    def _tell(self, text: str) -> None:
        if self._control is not None:
            with contextlib.suppress(OSError):  # nobody listens any more
                self._control.send(f"{text}\n".encode())

    def _listen(self) -> None:
        """Do what the supervisor asks. Without a supervisor the host goes on as it is."""
        if self._control is None:
            return
        try:
            heard = self._control.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            heard = b""
        if not heard:
            self._control.close()
            self._control = None
            return
        *lines, self._heard = (self._heard + heard).split(b"\n")
        for line in lines:
            verb, _, name = line.decode().partition(" ")
            if name in topology.HOSTED[1:]:
                {"start": self._start, "stop": self._end}[verb](name)


def settle_core(context: Context) -> None:
    """Say in the heartbeat on which core the host's thread is pinned."""
    cores = os.sched_getaffinity(0)
    if len(cores) == 1 and context.heartbeat is not None:
        context.heartbeat.set_core(*cores)


def run_host(config: Config, control: socket.socket | None = None) -> int:
    """Run the shared host in this process. Exit code as of ``run_service``."""
    return Host(config, control).run()
