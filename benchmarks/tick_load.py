"""What runs beside the trading host while ``tick_to_order --load`` measures: a recorder, a cockpit and its streams.

All real processes, on the driver's core at ordinary priority: the host keeps a core of its own. They are stopped and
continued as a whole, so that both sides of the ratio are measured in turns of one run.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks import contenders
from engine import topology

STREAMS = 100


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [s.getsockname()[1] for s in listeners]


def serve(service: str, config: Any) -> None:
    """The service as ``l2dash up`` runs it; the limit of streams for one session is opened."""
    from engine.cockpit import stream
    from engine.runtime.runner import run_service

    stream.STREAMS_PER_SESSION = STREAMS
    run_service(service, config, "shared")


def look_on(port: int, token: str, count: int) -> None:
    """``count`` pages that read their streams, and come back when a stream ends."""
    ask = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n\r\n"
    with selectors.DefaultSelector() as selector:

        def open_stream(number: int) -> None:
            page = socket.create_connection(("127.0.0.1", port))
            page.sendall(f"GET /api/stream?tab=t{number} HTTP/1.1\r\n{ask}".encode())
            selector.register(page, selectors.EVENT_READ, number)

        for number in range(count):
            open_stream(number)
        while True:
            for key, _ in selector.select():
                page = key.fileobj
                assert isinstance(page, socket.socket)
                try:
                    gone = not page.recv(1 << 16)
                except OSError:
                    gone = True
                if gone:
                    selector.unregister(page)
                    page.close()
                    time.sleep(0.05)
                    open_stream(key.data)


class Load:
    """The three processes. Raises TimeoutError naming what did not come up."""

    def __init__(self, context: Any, state: Path, core: int) -> None:
        from benchmarks.tick_to_order import wait_for

        config = context.config
        self._counters = {s: context.counters_of(s) for s in (topology.RECORDER, topology.COCKPIT)}
        beats = {s: context.cell_reader(f"heartbeat.{s}") for s in self._counters}
        self.pids = {
            s: contenders.on_core(core, lambda s=s: serve(s, config), ahead=False) for s in self._counters
        }  # fmt: skip
        try:
            for service, beat in beats.items():
                wait_for(f"the {service}", lambda beat=beat: beat.read()["work_count"] > 0)
            token, port = (state / "token").read_text().strip(), config.cockpit.port
            self.pids["pages"] = contenders.on_core(core, lambda: look_on(port, token, STREAMS), ahead=False)
            wait_for(f"{STREAMS} streams", lambda: self.streams() == STREAMS)
        except TimeoutError:
            self.close()
            raise
        self._processes = {name: psutil.Process(pid) for name, pid in self.pids.items()}
        self._begun: dict[str, float] = {}
        self._since = 0.0
        self.spent, self.elapsed = dict.fromkeys(self.pids, 0.0), 0.0
        self.fewest = STREAMS
        self.stop()

    def streams(self) -> int:
        return int(self._counters[topology.COCKPIT].get("clients"))

    def _cpu(self) -> dict[str, float]:
        return {name: sum(p.cpu_times()[:2]) for name, p in self._processes.items()}

    def go(self) -> None:
        """Continue, and wait until every page has its stream again."""
        from benchmarks.tick_to_order import wait_for

        for pid in self.pids.values():
            os.kill(pid, signal.SIGCONT)
        time.sleep(0.3)  # the time in which the cockpit would find that its streams have stood still
        wait_for(f"{STREAMS} streams", lambda: self.streams() == STREAMS)
        self._begun, self._since = self._cpu(), time.monotonic()

    def stop(self) -> None:
        if self._begun:
            now = self._cpu()
            for name, before in self._begun.items():
                self.spent[name] += now[name] - before
            self.elapsed += time.monotonic() - self._since
            self.fewest = min(self.fewest, self.streams())
            self._begun = {}
        for pid in self.pids.values():
            os.kill(pid, signal.SIGSTOP)

    def close(self) -> None:
        for pid in self.pids.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
