"""The supervisor behind ``l2dash up``: starts services in order, restarts what dies or hangs, stops in order.

It forks services from a process that has the compiled kernels loaded already, so a restart takes tens of milliseconds
and the kernels' memory is shared. It holds no trading state: kill it, and the services go on; ``l2dash down`` finds
them by their heartbeats. Rejected: a supervisor that execs, which pays 1.5 s of imports and 60 MB for every start.

In ``shared`` placement some services are guests in the process of another one (``engine.runtime.host``): they have no
process to fork or to kill, and are started and stopped by a line to their host.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine import topology
from engine.config import Config
from engine.domain.codes import ServiceState
from engine.runtime import instance, kernels, stopping
from engine.runtime.host import run_host
from engine.runtime.instance import InstanceRunning
from engine.runtime.placement import allowed_cores
from engine.runtime.runner import run_service, set_process_name

SOCKET = "supervisor.sock"
STOP_ORDER = (
    topology.ALGO, topology.COCKPIT, topology.ML, topology.BRIDGE, topology.RECORDER, topology.WATCHDOG, topology.PAPER,
)  # fmt: skip
STOP_S = 20.0
_RESTART_GAP_S = 1.05  # ids are unique only for writers that start at most once a second
_BURST, _BURST_S = 3, 60.0
_HUNG_FACTOR, _HUNG_MIN_S = 3.0, 3.0
_POLL_S = 0.02
_LOOK_S = 0.1
"""How often heartbeats are read: attaching seven regions at every poll cost a tenth of a core."""


@dataclass(slots=True)
class _Child:
    spec: topology.Service
    pid: int = 0
    wanted: bool = True
    started_s: float = -1e9
    starts: deque[float] = field(default_factory=deque)
    gave_up: bool = False
    refused: bool = False
    host: str = ""
    """Service in whose process it lives; empty: in its own."""
    control: socket.socket | None = None
    """To the guests' host, on the side of the supervisor."""
    heard: bytes = b""


class Supervisor:
    """``run`` blocks until stopped by a signal or by ``down``; returns the exit code."""

    def __init__(self, config: Config, say: Callable[[str], None]) -> None:
        self.config = config
        self.say = say
        self.children = {s.name: _Child(s) for s in topology.services(config.instance.mode)}
        self._stop = False
        self._lock: int = -1
        self._socket: socket.socket | None = None
        self._lives: dict[str, instance.Life] = {}
        self._leaving: set[str] = set()
        """Guests that were asked to end."""
        self._next_look_s = 0.0
        self.placement = topology.placement(len(allowed_cores()), config.runtime.placement)
        if self.placement == "shared":
            leader = topology.HOSTED[0]
            for name in topology.HOSTED[1:]:
                if name in self.children:
                    self.children[name].host = leader

    def lock(self) -> None:
        """Refuse to be the second supervisor of this state directory. Raises InstanceRunning naming the first's pid."""
        self.config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.config.state_dir / "supervisor.lock"
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(self._lock, 32, 0).decode().strip()
            raise InstanceRunning(
                f"{self.config.state_dir} belongs to a running supervisor, pid {pid or 'unknown'}; "
                "stop it with `l2dash down`"
            ) from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def run(
        self, on_ready: Callable[[], None] | None = None, before: dict[str, Callable[[], bool]] | None = None
    ) -> int:
        """Start everything, then guard it. ``before[service]`` holds a service back until it returns True."""
        os.umask(0o077)
        signal.signal(signal.SIGTERM, self._request_stop)
        signal.signal(signal.SIGINT, self._request_stop)
        if self._lock < 0:
            self.lock()
        instance.create(self.config)
        kernels.preload()
        gc.collect()
        gc.freeze()
        self._listen()
        set_process_name("l2dash")
        announced = False
        try:
            while not self._stop:
                self._reap()
                if time.monotonic() >= self._next_look_s:
                    self._next_look_s = time.monotonic() + _LOOK_S
                    self._look()
                for child in self.children.values():
                    if child.wanted and not child.pid and self._may_start(child, before or {}):
                        self._start(child)
                if not announced and all(self.ready(n) for n in self.children):
                    announced = True
                    if on_ready is not None:
                        on_ready()
                self._serve()
        finally:
            code = self._stop_all()
            if self._socket is not None:
                self._socket.close()
            with contextlib.suppress(InstanceRunning):
                instance.remove(self.config)
        return code

    def ready(self, service: str) -> bool:
        """Is the current process of this service READY?"""
        child, life = self.children.get(service), self._lives.get(service)
        return bool(child and life and child.pid == life.pid and life.state == ServiceState.READY)

    def _request_stop(self, *_: Any) -> None:
        self._stop = True

    def _may_start(self, child: _Child, before: dict[str, Callable[[], bool]]) -> bool:
        now = time.monotonic()
        if child.gave_up or child.refused or now - child.started_s < _RESTART_GAP_S:
            return False
        if child.host and not self.children[child.host].pid:
            return False
        # Order matters for the first start only: a restarted service must not wait for one that is down itself.
        first = not child.starts
        if first and any(a in self.children and not self.ready(a) for a in child.spec.after):
            return False
        gate = before.get(child.spec.name)
        return gate is None or gate()

    def _start(self, child: _Child) -> None:
        now = time.monotonic()
        while child.starts and now - child.starts[0] > _BURST_S:
            child.starts.popleft()
        if len(child.starts) > _BURST:
            child.gave_up = True
            self.say(f"P1: {child.spec.name} died {_BURST} times within {_BURST_S:.0f} s and stays down; see its log, "
                     f"then `l2dash start {child.spec.name}`")  # fmt: skip
            return
        child.starts.append(now)
        child.started_s = now
        if child.host:
            child.pid = self.children[child.host].pid
            self._ask_host(child, "start")
            return
        ours = theirs = None
        if any(c.host == child.spec.name for c in self.children.values()):
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
        sys.stdout.flush()
        sys.stderr.flush()
        stopping.hold()  # released in the child once they mean the child's own stop
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                self._become_child()
                if ours is not None:
                    ours.close()
                    code = run_host(self.config, theirs)
                else:
                    code = run_service(child.spec.name, self.config, self.placement)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        if theirs is not None:
            theirs.close()
        child.pid, child.control, child.heard = pid, ours, b""
        stopping.release()

    def _ask_host(self, guest: _Child, verb: str) -> None:
        control = self.children[guest.host].control
        if control is not None:
            with contextlib.suppress(OSError):  # it is gone: the reaping says so
                control.send(f"{verb} {guest.spec.name}\n".encode())

    def _hear(self, host: _Child) -> None:
        """Guests that have ended, in order or by themselves."""
        if host.control is None:
            return
        try:
            heard = host.control.recv(4096)
        except OSError:
            return
        *lines, host.heard = (host.heard + heard).split(b"\n")
        for line in lines:
            verb, _, name = line.decode().partition(" ")
            guest = self.children.get(name)
            if verb == "ended" and guest is not None and guest.pid:
                guest.pid = 0
                if guest.wanted and not self._stop and guest.spec.name not in self._leaving:
                    self.say(f"{name} failed inside {host.spec.name}; restarting")
                self._leaving.discard(name)

    def _lost_host(self, host: _Child) -> None:
        """The process is gone, and its guests with it."""
        if host.control is not None:
            host.control.close()
            host.control = None
        for guest in self.children.values():
            if guest.host == host.spec.name:
                guest.pid = 0
                self._leaving.discard(guest.spec.name)

    def _become_child(self) -> None:
        os.setpgid(0, 0)  # Ctrl-C reaches the supervisor alone, which stops the others in order
        if self._socket is not None:
            self._socket.close()
        if self._lock >= 0:
            os.close(self._lock)
        gc.enable()

    def _reap(self) -> None:
        """Collect ended services, and nothing else: other child processes belong to whoever started them."""
        for child in self.children.values():
            if not child.pid or child.host:
                continue
            self._hear(child)
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid == 0:
                continue
            child.pid = 0
            self._lost_host(child)
            code = os.waitstatus_to_exitcode(status)
            if child.wanted and not self._stop:
                child.refused = code == 3
                end = f"killed by signal {-code}" if code < 0 else f"exited with {code}"
                what = "stays down until its cause is removed" if child.refused else "restarting"
                self.say(f"{child.spec.name} {end}; {what}")

    def _look(self) -> None:
        now_ns = time.monotonic_ns()
        for name, child in self.children.items():
            if not child.pid:
                self._lives.pop(name, None)
                continue
            life = instance.heartbeat(self.config, name)
            if life.torn and name in self._lives:
                life = self._lives[name]  # void: judge by the last one that could be read
            self._lives[name] = life
            if life.pid != child.pid or life.state != ServiceState.READY:
                limit_s = child.spec.ready_s * 3
                silent_s = (
                    now_ns - max(life.t_beat_ns if life.pid == child.pid else 0, int(child.started_s * 1e9))
                ) / 1e9
            else:
                limit_s = max(_HUNG_MIN_S, child.spec.beat_s * _HUNG_FACTOR)
                silent_s = (now_ns - life.t_beat_ns) / 1e9
            if silent_s > limit_s and child.wanted:
                self.say(f"{name} (pid {child.pid}) is silent for {silent_s:.1f} s: killed")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)

    def _listen(self) -> None:
        path = self.config.shm_dir / SOCKET
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.bind(str(path))
        path.chmod(0o600)
        self._socket.listen(4)

    def _serve(self) -> None:
        assert self._socket is not None
        if not select.select([self._socket], [], [], _POLL_S)[0]:
            return
        with contextlib.suppress(OSError, ValueError):
            peer, _ = self._socket.accept()
            with peer:
                peer.settimeout(0.5)
                request = json.loads(peer.recv(4096))
                peer.sendall(json.dumps(self._answer(request)).encode())

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        verb, names = request.get("verb"), request.get("services") or list(self.children)
        unknown = [n for n in names if n not in self.children]
        if unknown:
            known = ", ".join(self.children)
            error = f"no service {unknown[0]!r} in mode {self.config.instance.mode}: known are {known}"
            return {"ok": False, "error": error}
        if verb == "down":
            self._stop = True
        elif verb in ("stop", "restart", "start"):
            for name in names:
                child = self.children[name]
                if verb in ("start", "restart"):
                    child.wanted, child.gave_up, child.refused = True, False, False
                    child.starts.clear()
                    child.starts.append(time.monotonic())
                else:
                    child.wanted = False
                if verb != "start" and child.pid:
                    self._terminate(child)
        elif verb != "list":
            return {"ok": False, "error": f"unknown verb {verb!r}: known are down, start, stop, restart, list"}
        pids = {n: c.pid for n, c in self.children.items()}
        down = [n for n, c in self.children.items() if c.wanted and (c.gave_up or c.refused)]
        return {"ok": True, "pid": os.getpid(), "services": pids, "placement": self.placement, "stays_down": down}

    def _terminate(self, child: _Child) -> None:
        """Ask for an orderly end."""
        if child.host:
            self._leaving.add(child.spec.name)
            self._ask_host(child, "stop")
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGTERM)

    def _stop_all(self) -> int:
        """Orderly stop: each service in its turn, all within STOP_S. Returns 1 if something had to be killed."""
        deadline = time.monotonic() + STOP_S
        killed = False
        for name in STOP_ORDER:
            child = self.children.get(name)
            if child is None:
                continue
            child.wanted = False
            if not child.pid:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGCONT)
            self._terminate(child)
            share = min(deadline, time.monotonic() + 10.0)
            while child.pid and time.monotonic() < share:
                self._reap()
                time.sleep(0.005)
            if child.pid:
                self.say(f"{name} did not stop in time: killed")
                killed = True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
                while child.pid:
                    self._reap()
                    time.sleep(0.005)
        return 1 if killed else 0


def ask(config: Config, verb: str, services: tuple[str, ...] = (), timeout_s: float = 2.0) -> dict[str, Any] | None:
    """Ask the running supervisor: verbs list, start, stop, restart, down. None if there is no supervisor."""
    path: Path = config.shm_dir / SOCKET
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout_s)
        try:
            client.connect(str(path))
            client.sendall(json.dumps({"verb": verb, "services": list(services)}).encode())
            answer: dict[str, Any] = json.loads(client.recv(65536))
        except (OSError, ValueError):
            return None
        return answer
