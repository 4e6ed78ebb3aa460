"""Signals to the processes of an instance under drill: by pidfd, so that never another one is hit."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

from engine import topology
from engine.config import Config
from engine.drill.timeline import Unexpected
from engine.runtime.instance import living


class Processes:
    """The living services, each by its heartbeat. Several can be guests in one process."""

    def __init__(self, config: Config, supervisor_pid: int) -> None:
        self._config = config
        self.supervisor_pid = supervisor_pid
        self._stopped: set[int] = set()
        self.ended: set[int] = set()
        """Processes that were told to end: one that still seems to live is not the one that is waited for."""

    def pids(self) -> dict[str, int]:
        """Service -> pid of those that live."""
        return {life.service: life.pid for life in living(self._config)}

    def pid(self, service: str) -> int:
        """Raises Unexpected if it does not live."""
        pid = self.pids().get(service, 0)
        if not pid:
            raise Unexpected(f"{service} has no living process")
        return pid

    def apart(self, *but: str) -> dict[int, list[str]]:
        """Process -> its services, without those that hold one of ``but``."""
        found: dict[int, list[str]] = {}
        for service, pid in self.pids().items():
            found.setdefault(pid, []).append(service)
        return {pid: names for pid, names in found.items() if not set(names) & set(but)}

    def send(self, pid: int, number: signal.Signals) -> bool:
        """Signal exactly that process; False if it is gone."""
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.ended.add(pid)
        if number == signal.SIGSTOP:
            self._stopped.add(pid)
        elif number in (signal.SIGCONT, signal.SIGKILL):
            self._stopped.discard(pid)
        return True

    def kill(self, service: str) -> int:
        """SIGKILL, at any instruction; returns the pid."""
        pid = self.pid(service)
        self.send(pid, signal.SIGKILL)
        return pid

    def stop(self, service: str) -> int:
        """SIGSTOP: it hangs; returns the pid."""
        pid = self.pid(service)
        self.send(pid, signal.SIGSTOP)
        return pid

    def resume_all(self) -> None:
        """Whatever was stopped and still lives goes on: nothing may be left hanging by a drill."""
        for pid in list(self._stopped):
            self.send(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def no_restarts(self) -> Iterator[None]:
        """Inside, nobody starts a dead service anew: the supervisor stands still."""
        self.send(self.supervisor_pid, signal.SIGSTOP)
        try:
            yield
        finally:
            self.send(self.supervisor_pid, signal.SIGCONT)


def names(services: list[str]) -> str:
    """Services of one process in words, in the topology's order."""
    return " + ".join(s.name for s in topology.SERVICES if s.name in services)
