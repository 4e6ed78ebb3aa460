"""A private sim instance for drills: temporary directories, free ports, shortened times; gone when a drill is over."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from engine.config import Config, load
from engine.runtime.instance import InstanceRunning, living, remove

Sections = Mapping[str, Mapping[str, Any]]
START_S, STOP_S = 240.0, 40.0
_PR_SET_PDEATHSIG = 1
_FOREIGN = ("L2DASH_CONFIG", "L2DASH_STATE_DIR", "L2DASH_BACKUP_DIR", "L2DASH_LIVE", "L2DASH_OBSERVE", "L2DASH_COLLECT")


class InstanceFailed(Exception):
    """The private instance did not come up; the text has the last lines that it said."""


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [int(s.getsockname()[1]) for s in sockets]


def merged(*sections: Sections) -> dict[str, dict[str, Any]]:
    """Sections laid over each other, the later over the earlier."""
    found: dict[str, dict[str, Any]] = {}
    for part in sections:
        for name, values in part.items():
            found.setdefault(name, {}).update(values)
    return found


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class PrivateInstance:
    """``with PrivateInstance(settings) as config``: up and READY inside, stopped and removed afterwards.

    ``models``: a directory of models to start with; empty trains one first (and ``keep_models`` copies it there).
    Raises InstanceFailed.
    """

    def __init__(self, settings: Sections, models: Path) -> None:
        self._settings = settings
        self._models = models
        self._lines: deque[str] = deque(maxlen=30)
        self._ready = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._config: Config | None = None
        self.directory = Path()

    def __enter__(self) -> Config:
        self.directory = Path(tempfile.mkdtemp(prefix="l2dash-drill-"))
        try:
            return self._start()
        except BaseException:
            self.__exit__()
            raise

    def _start(self) -> Config:
        gateway, cockpit, health, control = free_ports(4)
        name = f"drill-{os.getpid()}-{gateway}"
        private: dict[str, dict[str, Any]] = {
            "instance": {
                "name": name,
                "mode": "sim",
                "state_dir": str(self.directory / "state"),
                "backup_dir": str(self.directory / "backups"),
            },
            "gateway": {"port": gateway},
            "cockpit": {"port": cockpit, "health_port": health},
            "paper": {"control_port": control},
        }
        path = self.directory / "config.toml"
        path.write_text(tomli_w.dumps(merged(self._settings, private)))
        self._config = load(path)
        if self._models.is_dir():
            shutil.copytree(self._models, self.directory / "state" / "models", symlinks=True)
        # Alerts of a drill must page nobody, and nothing of the caller's instance may be touched.
        environment = {k: v for k, v in os.environ.items() if k not in _FOREIGN and not k.startswith("L2DASH_ALERT_")}
        environment |= {"L2DASH_INSTANCE": name, "TRADING_TOKEN": os.urandom(24).hex()}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "engine.cli", "up", "--config", str(path)],
            cwd=Path(__file__).resolve().parents[2], env=environment, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_die_with_parent,
        )  # fmt: skip
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        deadline = time.monotonic() + START_S
        while not self._ready.wait(0.05):
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = " | ".join(self._lines) or "nothing"
                raise InstanceFailed(f"the drill's instance is not ready; it said: {said}")
        return self._config

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._lines.append(line.rstrip())
            if line.startswith("ready after"):
                self._ready.set()

    def keep_models(self) -> None:
        """Copy the models to the directory given, for the next instance."""
        source = self.directory / "state" / "models"
        if source.is_dir() and not self._models.exists():
            shutil.copytree(source, self._models, symlinks=True)

    def __exit__(self, *_: object) -> None:
        """Stop in order; end by pid what is left; remove memory and files."""
        process, config = self._process, self._config
        if process is not None:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
            if process.poll() is None:
                process.kill()
                process.wait()
        if config is not None:
            deadline = time.monotonic() + 5.0
            while (left := living(config)) and time.monotonic() < deadline:
                for life in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(life.pid, signal.SIGKILL)
                time.sleep(0.05)
            with contextlib.suppress(InstanceRunning):
                remove(config)
        shutil.rmtree(self.directory, ignore_errors=True)
