"""A whole system in processes of its own, on free ports and in its own directories: what an operator has."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "e2e-" + os.urandom(24).hex()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def wait_for(what: str, condition: Callable[[], Any], timeout_s: float = 60.0, every_s: float = 0.1) -> Any:
    """The first true result of ``condition``; fails naming ``what`` and the last result."""
    deadline = time.monotonic() + timeout_s
    last: Any = None
    while time.monotonic() < deadline:
        try:
            last = condition()
        except (urllib.error.URLError, OSError, ValueError, KeyError) as error:
            last = error
        else:
            if last:
                return last
        time.sleep(every_s)
    raise AssertionError(f"{what}: not within {timeout_s:g} s; last: {last!r}")


class System:
    """``l2dash up`` with a private configuration; ``cli`` runs commands against it."""

    def __init__(self, directory: Path, sections: dict[str, dict[str, Any]] | None = None) -> None:
        self.directory = directory
        gateway, cockpit, health, control = free_ports(4)
        self.base = f"http://127.0.0.1:{cockpit}"
        self.health = f"http://127.0.0.1:{health}"
        self.control = f"http://127.0.0.1:{control}"
        self.name = f"e2e-{os.getpid()}-{cockpit}"
        values: dict[str, dict[str, Any]] = {
            "instance": {
                "name": self.name,
                "state_dir": str(directory / "state"),
                "backup_dir": str(directory / "backups"),
            },
            "gateway": {"port": gateway},
            "cockpit": {"port": cockpit, "health_port": health},
            "paper": {"control_port": control},
            "guardrails": {"cooling_s": 2.0},
            "model": {"warmup_s": 5.0, "warmup_min_s": 5.0, "train_hours": 0.25},
        }
        for section, keys in (sections or {}).items():
            values.setdefault(section, {}).update(keys)
        import tomli_w

        self.config = directory / "config.toml"
        directory.mkdir(parents=True, exist_ok=True)
        self.config.write_text(tomli_w.dumps(values))
        self.environment = {**os.environ, "TRADING_TOKEN": TOKEN, "L2DASH_INSTANCE": self.name}
        self.process: subprocess.Popen[str] | None = None
        self.lines: list[str] = []
        self.ready = threading.Event()

    def start(self, *arguments: str, timeout_s: float = 180.0) -> float:
        """Start and wait until it says it is ready; returns the seconds that took."""
        begun = time.monotonic()
        self.ready.clear()
        command = [sys.executable, "-m", "engine.cli", "up", "--config", str(self.config), *arguments]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()
        while not self.ready.wait(0.1):
            if self.process.poll() is not None or time.monotonic() - begun > timeout_s:
                raise AssertionError(f"not ready after {time.monotonic() - begun:.0f} s:\n" + self.report())
        return time.monotonic() - begun

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith("ready after"):
                self.ready.set()

    def report(self) -> str:
        """What it printed, and the ends of its logs."""
        parts = ["\n".join(self.lines[-40:])]
        for log in sorted((self.directory / "state" / "logs").glob("*.log")):
            parts.append(f"--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-12:]))
        parts.append("--- status\n" + self.cli("status").stdout)
        parts.append("--- orders\n" + self.cli("orders", "-n", "15").stdout)
        parts.append("--- journal\n" + "\n".join(self.journal()))
        return "\n".join(parts)

    def journal(self, limit: int = 60) -> list[str]:
        """The last guardrail transitions and events, in words."""
        path = self.directory / "state" / "journal.db"
        if not path.exists():
            return []
        query = " union all ".join(
            f"select wall_ns, ring, kind, code, symbol, ref_id, value, limit_value, text from {table}"
            for table in ("events", "guardrails")
        )
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as journal:
            rows = journal.execute(f"select * from ({query}) order by wall_ns desc limit {limit}").fetchall()
        return [f"{row[0] / 1e9:.3f} {row[1:]}" for row in reversed(rows)]

    def stop(self, timeout_s: float = 40.0) -> int:
        """Ctrl-C; returns the exit code. Kills what is left, by pid."""
        if self.process is None:
            return 0
        pids = self.pids()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout_s)
        finally:
            for pid in (self.process.pid, *pids.values()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def cli(self, *arguments: str, timeout_s: float = 90.0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "engine.cli", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def cli_json(self, *arguments: str) -> Any:
        done = self.cli(*arguments, "--json")
        if done.returncode:
            raise ValueError(f"{arguments}: exit {done.returncode}: {done.stderr}{done.stdout}")
        return json.loads(done.stdout)

    def http(self, method: str, url: str, body: Any = None, token: str | None = TOKEN) -> tuple[int, Any]:
        """Status and decoded body, also for errors."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, method=method)
        if method == "POST" and data is None:
            request.data = b""
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raw = error.read()
            return error.code, json.loads(raw) if raw[:1] in (b"{", b"[") else raw.decode()

    def get(self, path: str) -> Any:
        return self.http("GET", self.base + path)[1]

    def post(self, path: str, body: Any = None) -> tuple[int, Any]:
        return self.http("POST", self.base + path, body)

    def lives(self) -> dict[str, Any]:
        """Heartbeats of the living services, read straight from shared memory."""
        from engine.runtime.instance import living, running_config

        config = running_config(self.name)
        return {life.service: life for life in living(config)} if config else {}

    def pids(self) -> dict[str, int]:
        return {name: life.pid for name, life in self.lives().items()}

    def state(self) -> Any:
        return self.get("/api/state")

    def __enter__(self) -> System:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
