"""The image and compose.yaml for real: built from the lock, started, restarted, killed, in an own container storage.

No base image can be pulled everywhere, so debootstrap makes one under the name that the Containerfile uses. Two things
stand in for what is not there: the test runs the healthchecks (podman leaves that to systemd's timers), and it starts
and stops the services in the order of ``depends_on``, as docker compose does (podman-compose needs podman 4.6 to wait
for health, and stops everything at once).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.store.journal import verify

ROOT = Path(__file__).resolve().parents[2]
BASE_IMAGE = "docker.io/library/debian:bookworm-slim"
COPIED = ("Containerfile", "compose.yaml", ".env", ".containerignore", ".dockerignore", "README.md", "main.py",
          "pyproject.toml", "requirements.lock", "config", "engine", "shm")  # fmt: skip
TOOLS = ("podman", "buildah", "runc", "debootstrap")
DOWN_S = 30.0
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "l2dash/containers"
"""What every run would fetch alike: the bare base system of the month, and the packages of a lock. Never the image."""
CACHE_DAYS = 40
ROOMY = 8 << 30
"""Memory that must be free for the image's layers to lie in it."""
TRACE = "lent-to-the-build-for-one-step"

pytestmark = [pytest.mark.container, pytest.mark.timeout(1200)]


def run(*command: str, timeout_s: float = 120.0, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, **more)


def must(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"{done.args}: exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [int(s.getsockname()[1]) for s in sockets]
    for s in sockets:
        s.close()
    return ports


def cached(name: str, make: Callable[[Path], None]) -> Path:
    """A file or folder of the cache, made if it is not there; what nobody has used for long goes."""
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / name
    if not path.exists():
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=CACHE))
        try:
            make(part / name)
            with contextlib.suppress(OSError):  # somebody else was faster
                (part / name).rename(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    os.utime(path)
    for other in CACHE.iterdir():
        if time.time() - other.stat().st_mtime > CACHE_DAYS * 86_400:
            shutil.rmtree(other) if other.is_dir() else other.unlink()
    return path


def fetch_wheels(target: Path) -> None:
    """The locked packages for the image's Python, through whatever registry settings this machine's pip has."""
    platforms = ["manylinux2014", *(f"manylinux_2_{minor}" for minor in range(17, 37))]
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "-r", str(ROOT / "requirements.lock"), "-d", str(target)]
    command += ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp"]
    command += [f"--platform={p}_{os.uname().machine}" for p in platforms]
    must(run(*command, timeout_s=400.0))


def fetch_base(target: Path) -> None:
    """A minimal Debian as a tar archive."""
    with tempfile.TemporaryDirectory(dir=target.parent) as rootfs:
        done = run("debootstrap", "--variant=minbase", "bookworm", rootfs, timeout_s=400.0)
        if done.returncode:
            pytest.skip(f"debootstrap makes no base image here: {done.stdout.strip().splitlines()[-1:]}")
        shutil.rmtree(f"{rootfs}/var/cache/apt/archives", ignore_errors=True)
        must(run("tar", "-C", rootfs, "-cf", str(target), ".", timeout_s=120.0))


def fetch_compose(target: Path) -> None:
    must(run(sys.executable, "-m", "venv", str(target)))
    done = run(f"{target}/bin/python", "-m", "pip", "install", "-q", "podman-compose>=1.6,<2", timeout_s=300.0)
    if done.returncode:
        pytest.skip(f"podman-compose can't be installed: {done.stderr.strip().splitlines()[-1:]}")


class Stack:
    """A copy of the project under a directory of its own, with its containers. ``directory`` is all that it leaves."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.project = directory / "project"
        self.data = self.project / "data"
        self.shm = shared_memory(os.getpid())
        self.instance = self.shm.name.removeprefix("l2dash-")
        gateway, cockpit, self.health_port = free_ports(3)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, self.project / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                self.project.mkdir(exist_ok=True)
                shutil.copy(source, self.project / name)
        (self.project / "config/box.toml").write_text(
            f'[instance]\nname = "{self.instance}"\n[gateway]\nport = {gateway}\n'
            f"[cockpit]\nport = {cockpit}\nhealth_port = {self.health_port}\n[model]\ntrain_hours = 0.6\n"
        )
        (directory / "pip.conf").write_text(f"# {TRACE}\n[global]\nno-index = true\nfind-links = /mnt\n")
        (directory / "containers.conf").write_text(
            '[containers]\ndefault_ulimits = []\n[engine]\nruntime = "runc"\nevents_logger = "none"\n'
            f'lock_type = "file"\ntmp_dir = "{directory}/tmp"\n'
            f'volume_path = "{directory}/volumes"\n[network]\nnetwork_config_dir = "{directory}/networks"\n'
        )
        self.environment = {
            **environment(directory),
            "PATH": f"{directory}/compose/bin:{os.environ['PATH']}",
            "L2DASH_CONFIG": "config/box.toml",
            "L2DASH_INSTANCE": self.instance,
            "L2DASH_BACKUPS": f"{directory}/backups",
            "L2DASH_PIP_CONF": f"{directory}/pip.conf",
            "L2DASH_CA_FILE": os.environ.get("PIP_CERT") or "/dev/null",
        }
        for name in ("L2DASH_CACHE_DIR", "L2DASH_KERNEL_CACHE", "L2DASH_STATE_DIR", "TRADING_TOKEN"):
            self.environment.pop(name, None)
        self._choose_storage()
        self.services: dict[str, Any] = yaml.safe_load((self.project / "compose.yaml").read_text())["services"]

    def _choose_storage(self) -> None:
        """Overlay where the kernel allows it: not on top of another overlay, but always in memory. Else plain copies,
        which take minutes: one of the whole image for every container."""
        for driver in ("overlay", "memory", "vfs"):
            store = self.directory / driver
            if driver == "memory" and not in_memory(store):
                continue
            (self.directory / "storage.conf").write_text(
                f'[storage]\ndriver = "{"vfs" if driver == "vfs" else "overlay"}"\n'
                f'graphroot = "{store}"\nrunroot = "{self.directory}/run"\n'
            )
            done = self.podman("info", timeout_s=60.0)
            if done.returncode == 0:
                return
        pytest.skip(f"podman does not run here: {done.stderr.strip().splitlines()[-1:]}")

    def podman(self, *arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        return run("podman", *arguments, timeout_s=timeout_s, env=self.environment)

    def compose(self, *arguments: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        return run("podman-compose", *arguments, timeout_s=timeout_s, env=self.environment, cwd=self.project)

    # -- making the image ----------------------------------------------------------------------------------------

    def build(self) -> None:
        lock = hashlib.sha256((ROOT / "requirements.lock").read_bytes()).hexdigest()[:12]
        with ThreadPoolExecutor() as pool:  # each waits for the network most of the time
            wheels = pool.submit(cached, f"wheels-{lock}-{os.uname().machine}", fetch_wheels)
            base = pool.submit(cached, f"bookworm-{time.strftime('%Y-%m')}.tar", fetch_base)
            compose = pool.submit(fetch_compose, self.directory / "compose")
        compose.result()
        must(run("podman", "import", "-q", str(base.result()), BASE_IMAGE, timeout_s=120.0, env=self.environment))
        options = f"--network=host --layers=false --volume={wheels.result()}:/mnt:ro"
        must(self.compose(f"--podman-build-args={options}", "build", "regions", timeout_s=600.0))

    # -- running it ----------------------------------------------------------------------------------------------

    def container(self, service: str) -> str:
        return f"l2-dash_{service}_1"

    def in_order(self) -> list[str]:
        """Services so that each comes after those that it depends on."""
        found: list[str] = []
        while len(found) < len(self.services):
            found += [
                n for n, s in self.services.items() if n not in found and set(s.get("depends_on", {})) <= set(found)
            ]
        return found

    def healthy(self, service: str) -> bool:
        return self.podman("healthcheck", "run", self.container(service)).returncode == 0

    def pids(self) -> dict[str, int]:
        return {s: self.inspect(s)["State"]["Pid"] for s in self.services}

    def changed(self, before: dict[str, int]) -> set[str]:
        return {s for s, pid in self.pids().items() if pid != before[s]}

    def inspect(self, service: str) -> Any:
        return json.loads(must(self.podman("inspect", self.container(service))))[0]

    def logs(self) -> str:
        return "".join(f"{s}: {d.stdout[-600:]}{d.stderr[-600:]}\n" for s in self.services
                       for d in [self.podman("logs", "--tail=12", self.container(s))])  # fmt: skip

    def up(self) -> None:
        """``up -d``: each service once those that it depends on are healthy. Does nothing when all run already."""
        if not self.podman("ps", "-q").stdout.strip():
            must(self.compose("up", "--no-start"))
            for service in self.in_order():
                must(self.podman("start", self.container(service)))
                until(lambda service=service: self.healthy(service), f"{service} healthy", self, 300.0)  # type: ignore[misc]
        until(
            lambda: self.health()[0] == 200 and self.health()[1]["status"] == "pass", "/health/all passes", self, 90.0
        )

    def health(self) -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(f"http://localhost:{self.health_port}/health/all", timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, {}


def in_memory(store: Path) -> bool:
    """Mount a file system in memory there, if there is plenty; ``destroy`` unmounts it."""
    facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    if int(facts["MemAvailable"].split()[0]) * 1024 < ROOMY:
        return False
    store.mkdir()
    return run("mount", "-t", "tmpfs", "-o", f"size={ROOMY}", "l2dash-test", str(store)).returncode == 0


def environment(directory: Path) -> dict[str, str]:
    """Points podman at the storage and the settings below ``directory``, and at nothing else."""
    return {
        **os.environ,
        "CONTAINERS_CONF": f"{directory}/containers.conf",
        "CONTAINERS_STORAGE_CONF": f"{directory}/storage.conf",
    }


def destroy(directory: Path, shm: Path) -> None:
    """Ends every container of a stack and leaves nothing: no process, mount, file, shared memory or cgroup."""
    if (directory / "storage.conf").is_file():
        for arguments in (("kill", "--all"), ("pod", "rm", "--force", "--all"), ("rm", "--force", "--all", "--time=0")):
            run("podman", *arguments, timeout_s=120.0, env=environment(directory))
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{directory}/")), reverse=True):
        run("umount", "--lazy", mount)
    shutil.rmtree(directory, ignore_errors=True)
    shutil.rmtree(shm, ignore_errors=True)
    for parent in Path("/sys/fs/cgroup").glob("**/libpod_parent"):
        for cgroup in [*sorted((p for p in parent.rglob("*") if p.is_dir()), reverse=True), parent]:
            with contextlib.suppress(OSError):
                cgroup.rmdir()  # refused while somebody else's container is in it


def shared_memory(pid: int) -> Path:
    return Path(f"/dev/shm/l2dash-box{pid}")


def sweep() -> None:
    """What a run left that was killed itself."""
    for directory in Path(tempfile.gettempdir()).glob("l2box-*-*"):
        pid = int(directory.name.split("-")[1])
        if not Path(f"/proc/{pid}").exists():
            destroy(directory, shared_memory(pid))


def until(condition: Callable[[], bool], what: str, stack: Stack, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s\n{stack.health()}\n{stack.logs()}"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    if os.geteuid() != 0:
        pytest.skip("debootstrap and the bind mounts need root")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (./ops/test.sh --all installs them on Debian)")
    sweep()
    # A short name: socket paths of the container monitor have a limit.
    directory = Path(tempfile.mkdtemp(prefix=f"l2box-{os.getpid()}-"))
    try:
        made = Stack(directory)
        made.build()
        yield made
    finally:
        destroy(directory, shared_memory(os.getpid()))
    assert str(directory) not in Path("/proc/mounts").read_text()
    assert not directory.exists()


def test_the_image_keeps_nothing_of_the_way_its_packages_came(stack: Stack) -> None:
    history = must(stack.podman("history", "--no-trunc", "--format={{.CreatedBy}}", "l2-dash"))
    assert str(stack.directory) not in history
    assert "no-index = true" not in history
    look = f"ls -A /mnt; cat /run/secrets/* 2>/dev/null; grep -rlI '{TRACE}' / --exclude-dir=proc --exclude-dir=sys"
    found = stack.podman("run", "--rm", "--network=host", "l2-dash", "sh", "-c", look, timeout_s=120.0)
    assert found.stdout == "", found.stdout[-2000:]


def test_up_brings_every_service_up_healthy(stack: Stack) -> None:
    stack.up()
    assert all(stack.healthy(s) for s in stack.services)
    shown = must(stack.compose("ps"))
    assert shown.count("(healthy)") == len(stack.services), shown
    assert stack.health()[1]["tradingState"] == "ACTIVE", stack.health()


def test_data_lies_in_bind_mounts_and_the_rest_is_read_only(stack: Stack) -> None:
    stack.up()
    for service in stack.services:
        seen = stack.inspect(service)
        assert {m["Type"] for m in seen["Mounts"]} == {"bind"}, service
        assert seen["HostConfig"]["ReadonlyRootfs"], service
        assert seen["HostConfig"]["PidMode"] == "host", service
    assert {"journal.db", "latch.json", "models", "logs", "cache"} <= {p.name for p in stack.data.iterdir()}
    assert (stack.directory / "backups").is_dir()


def test_logs_show_what_services_say(stack: Stack) -> None:
    stack.up()
    done = stack.compose("logs", "cockpit")
    assert "health on port" in done.stdout + done.stderr


def test_a_retrain_beside_the_running_system_touches_no_service(stack: Stack) -> None:
    stack.up()
    before, models = stack.pids(), set((stack.data / "models").glob("model-*.npz"))
    done = stack.compose("run", "--rm", "ml-service", "python", "main.py", "--retrain", timeout_s=180.0)
    assert done.returncode in (0, 3), done.stdout[-2000:] + done.stderr[-2000:]  # 3: the incumbent is kept
    assert len(set((stack.data / "models").glob("model-*.npz")) - models) == 1, done.stdout[-2000:]
    assert stack.pids() == before
    assert not [n for n in must(stack.podman("ps", "-a", "--format={{.Names}}")).split() if "tmp" in n or "run" in n]


def test_a_service_that_is_killed_is_started_again_alone(stack: Stack) -> None:
    stack.up()
    before = stack.pids()
    os.kill(before["cockpit"], 9)
    until(lambda: stack.pids()["cockpit"] not in (0, before["cockpit"]), "cockpit started again", stack, 30.0)
    stack.up()
    assert stack.changed(before) == {"cockpit"}


def test_restart_replaces_the_named_services_alone(stack: Stack) -> None:
    stack.up()
    before = stack.pids()
    for service in ("ml-service", "algo"):  # podman-compose restarts both at once, and podman then refuses algo
        must(stack.compose("restart", service))
    until(lambda: stack.healthy("ml-service") and stack.healthy("algo"), "both healthy", stack, 60.0)
    stack.up()
    assert stack.changed(before) == {"algo", "ml-service"}


def test_stopping_in_order_is_clean_and_takes_the_shared_memory_away(stack: Stack) -> None:
    stack.up()
    started = time.monotonic()
    codes = {}
    for service in reversed(stack.in_order()):
        must(stack.podman("stop", "--time=30", stack.container(service)))
        codes[service] = stack.inspect(service)["State"]["ExitCode"]
    must(stack.compose("down"))
    assert time.monotonic() - started < DOWN_S
    assert set(codes.values()) == {0}, codes
    assert not stack.shm.exists()
    assert must(stack.podman("ps", "-aq")) == ""
    assert verify(stack.data / "journal.db").sound


def test_kill_and_down_with_volumes_erase_nothing(stack: Stack) -> None:
    stack.up()
    pids = stack.pids()
    rows = verify(stack.data / "journal.db").rows
    files = {p.relative_to(stack.project) for p in stack.data.rglob("*") if not p.name.startswith("journal.db-")}
    latch = (stack.data / "latch.json").read_bytes()
    must(stack.compose("kill", "--all"))
    must(stack.compose("down", "-v"))
    assert not [pid for pid in pids.values() if Path(f"/proc/{pid}").exists()]
    found = verify(stack.data / "journal.db")
    assert (found.sound, found.rows >= rows) == (True, True), found
    assert {f for f in files if not (stack.project / f).exists() and "tmp" not in f.name} == set()
    assert (stack.data / "latch.json").read_bytes() == latch
    assert stack.shm.is_dir(), "what was not journaled yet stands there for the recorder"


def test_a_kill_that_latched_is_still_in_force_after_the_next_start(stack: Stack) -> None:
    if stack.podman("ps", "-q").stdout.strip():
        must(stack.compose("down"))
    said = must(stack.compose("run", "--rm", "--no-deps", "algo", "l2dash", "kill"))
    assert "KILL latched" in said
    rows = verify(stack.data / "journal.db").rows
    stack.up()
    assert stack.health()[1]["tradingState"] == "KILLED"
    started = time.monotonic()
    must(stack.compose("down"))  # everything at once: no order to lean on
    assert time.monotonic() - started < DOWN_S
    found = verify(stack.data / "journal.db")
    assert (found.sound, found.rows > rows) == (True, True), found
