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
from shm import janitor, scratch
from shm.owner import own

Sections = Mapping[str, Mapping[str, Any]]
START_S, STOP_S = 240.0, 40.0
_PR_SET_PDEATHSIG = 1
_FOREIGN = ("L2DASH_CONFIG", "L2DASH_STATE_DIR", "L2DASH_BACKUP_DIR", "L2DASH_LIVE", "L2DASH_OBSERVE", "L2DASH_COLLECT")


DISK_MB = 96
_SHIM = """
# The wall clock of a drill: the machine's, off by what stands in a file. The machine's own clock is never touched.
import os, time
_path, _time, _time_ns = os.environ["L2DASH_DRILL_JUMP"], time.time, time.time_ns
def _off():
    try:
        with open(_path) as file:
            return float(file.read())
    except (OSError, ValueError):
        return 0.0
time.time = lambda: _time() + _off()
time.time_ns = lambda: _time_ns() + int(_off() * 1e9)
"""


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
    ``jumping``: ``jump`` sets the wall clock that its processes see. ``small_disk``: its state directory is a file
    system of DISK_MB of its own, which needs root. ``keep``: a directory for its state that stays, so that the next
    instance goes on where this one has ended.
    Raises InstanceFailed.
    """

    def __init__(
        self, settings: Sections, models: Path, *, jumping: bool = False, small_disk: bool = False,
        keep: Path | None = None,
    ) -> None:  # fmt: skip
        self._settings, self._keep = settings, keep
        self._jumping, self._small_disk = jumping, small_disk
        self._models = models
        self._lines: deque[str] = deque(maxlen=30)
        self._ready = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._config: Config | None = None
        self._mounted: Path | None = None
        self.directory = Path()

    def __enter__(self) -> Config:
        self._clear()
        if self._keep is not None:
            self._keep.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = self._keep or scratch.make("l2dash-drill-")
        try:
            return self._start()
        except BaseException:
            self.__exit__()
            raise

    def _clear(self) -> None:
        """Small disks of drills that were killed: a directory with a file system in it can't be removed."""
        for left in janitor.leftovers(Path(tempfile.gettempdir()), "l2dash-drill-"):
            if os.path.ismount(left.path / "state"):
                subprocess.run(["umount", "-l", str(left.path / "state")], capture_output=True, check=False)

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
            "paper": {"control_port": control, "state_file": str(self.directory / "paper-gateway.json")},
        }
        if self._small_disk:
            self._mount(self.directory / "state")
        path = self.directory / "config.toml"
        path.write_text(tomli_w.dumps(merged(self._settings, private)))
        self._config = load(path)
        if self._models.is_dir() and not (self.directory / "state" / "models").exists():
            shutil.copytree(self._models, self.directory / "state" / "models", symlinks=True)
        # Alerts of a drill must page nobody, and nothing of the caller's instance may be touched.
        environment = {k: v for k, v in os.environ.items() if k not in _FOREIGN and not k.startswith("L2DASH_ALERT_")}
        environment |= {"L2DASH_INSTANCE": name, "TRADING_TOKEN": os.urandom(24).hex()}
        if self._jumping:
            shim = self.directory / "shim"
            shim.mkdir()
            (shim / "sitecustomize.py").write_text(_SHIM)
            environment |= {"PYTHONPATH": str(shim), "L2DASH_DRILL_JUMP": str(self.directory / "jump")}
            self.jump(0.0)
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
        own(self._config.shm_dir)
        return self._config

    @property
    def supervisor_pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def jump(self, seconds: float) -> None:
        """The wall clock of every process of the instance is off by so much from now on."""
        path = self.directory / "jump"
        temporary = path.with_suffix(".new")
        temporary.write_text(repr(seconds))
        temporary.replace(path)

    def _mount(self, place: Path) -> None:
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=0700", "tmpfs", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InstanceFailed(f"a small disk needs the right to mount a tmpfs (root): {done.stderr.strip()}")
        self._mounted = place

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
        if self._mounted is not None:
            subprocess.run(["umount", "-l", str(self._mounted)], capture_output=True, check=False)
        if self._keep is None:
            shutil.rmtree(self.directory, ignore_errors=True)
