"""The units, in a real systemd that is booted for the test."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from releases import archive, python_for, version

ROOT = Path(__file__).resolve().parents[2]
BOOT = Path(__file__).with_name("boot-systemd.sh")
HOME = "/opt/l2-dash"
PROGRAM = f"{HOME}/current/.venv/bin/l2dash"
SERVICES = ["recorder", "watchdog", "paper-gateway", "broker-bridge", "ml-service", "algo", "cockpit"]

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(900)]


def test_verify_says_nothing_at_all(tmp_path: Path) -> None:
    """Exit 0 is not enough: unknown keys are only warned about."""
    for path in (ROOT / "systemd").iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace(PROGRAM, "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, tmp_path.iterdir())], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("service", SERVICES)
def test_units_are_hardened(service: str) -> None:
    done = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            "--threshold=35",
            str(ROOT / f"systemd/l2dash-{service}.service"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-400:] + done.stderr


class Machine:
    """A booted systemd, with versions to install in /srv. The files belong to root here, so root runs the services."""

    def __init__(self, base: Path) -> None:
        self.work, units, versions = base / "work", base / "units", base / "srv"
        cache = os.environ.get("L2DASH_CACHE_DIR") or str(Path.home() / ".cache/l2dash")
        override = units / "l2dash-.service.d"
        override.mkdir(parents=True)
        (override / "test.conf").write_text(
            "[Service]\nUser=root\nGroup=root\nProtectHome=no\nReadWritePaths=-/root -/home -/tmp\nPrivateTmp=no\n"
            f"Environment=L2DASH_BACKUP_DIR={HOME}/data/backups\n"
        )
        python_for(versions / "python")
        version(versions / "one", "1.0.1")
        archive(version(versions / "two", "1.0.2"))
        sick = version(versions / "sick", "1.0.3") / "systemd/l2dash-algo.service"
        sick.write_text(sick.read_text().replace(f"{PROGRAM} run algo", "/bin/false"))
        # Quiet, so that what is held changes by the tests' orders alone.
        (versions / "host.toml").write_text("[strategy]\nenabled = false\n")
        (versions / "default").write_text(f"L2DASH_CONFIG=/srv/host.toml\nL2DASH_CACHE_DIR={cache}\n")
        done = subprocess.run(
            [str(BOOT), "boot", str(self.work), str(units)], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        packed = subprocess.run(["tar", "-C", str(versions), "-c", "."], capture_output=True, check=True).stdout
        subprocess.run([str(BOOT), "in", str(self.work), "tar", "-C", "/srv", "-x"], input=packed, check=True)
        self("cp", "/srv/default", "/etc/default/l2dash")

    def release(self, script: str, *arguments: str, wait_s: int = 180) -> subprocess.CompletedProcess[str]:
        """An upgrade or a rollback, by the scripts of the first version."""
        settings = ("env", "L2DASH_PYTHON=/srv/python/python", f"L2DASH_UPGRADE_WAIT_S={wait_s}")
        return self(*settings, f"/srv/one/ops/{script}.sh", *arguments, timeout_s=400.0)

    def __call__(self, *command: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BOOT), "in", str(self.work), *command], capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def services(self) -> dict[str, dict[str, Any]]:
        done = self(PROGRAM, "status", "--json")
        assert done.stdout, done.stderr
        return {s["name"]: s for s in json.loads(done.stdout)["services"]}

    def journal(self) -> str:
        return self("journalctl", "--no-pager", "-n", "60", "-o", "cat").stdout

    def halt(self) -> None:
        subprocess.run([str(BOOT), "halt", str(self.work)], capture_output=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if os.geteuid() != 0:
        pytest.skip("booting a systemd needs root")
    booted = Machine(tmp_path_factory.mktemp("systemd"))
    try:
        done = booted.release("upgrade", "/srv/one")
        assert done.returncode == 0, done.stderr + booted.journal()
        yield booted
    finally:
        booted.halt()


def until(what: str, condition: Callable[[], bool], machine: Machine, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s\n{machine.journal()}"
        time.sleep(0.3)


def test_the_target_brings_every_service_up_healthy(machine: Machine) -> None:
    until("every service healthy", lambda: all(s["healthy"] for s in machine.services().values()), machine, 200.0)
    assert set(machine.services()) == set(SERVICES)


def test_a_stopped_process_is_noticed_by_the_watchdog_of_systemd_and_replaced(machine: Machine) -> None:
    before = machine.services()["algo"]["pid"]
    machine("kill", "-STOP", str(before))
    until("algo replaced", lambda: machine.services()["algo"]["pid"] not in (None, before), machine, 30.0)
    until("algo READY again", lambda: machine.services()["algo"]["state"] == "READY", machine, 60.0)


def test_restart_through_the_command_line_restarts_that_service_alone(machine: Machine) -> None:
    before = {n: s["pid"] for n, s in machine.services().items()}
    done = machine(PROGRAM, "restart", "cockpit", timeout_s=120.0)
    assert done.returncode == 0, done.stderr + machine.journal()
    after = {n: s["pid"] for n, s in machine.services().items()}
    assert after.pop("cockpit") != before.pop("cockpit")
    assert after == before


def test_the_backup_timer_waits_for_two_utc(machine: Machine) -> None:
    done = machine("systemctl", "show", "l2dash-backup.timer", "-p", "ActiveState", "-p", "TimersCalendar")
    assert "ActiveState=active" in done.stdout
    assert "02:00:00 UTC" in done.stdout


def serving(machine: Machine) -> set[str]:
    """Versions whose program the running services were started from."""
    pids = [str(s["pid"]) for s in machine.services().values()]
    programs = machine("ps", "-o", "args=", "-p", ",".join(pids)).stdout.splitlines()
    assert len(programs) == len(SERVICES)
    return {line.split("/releases/")[1].split("-")[0] for line in programs}


def check_book(machine: Machine, quantity: float) -> None:
    """What is held is held still, no order of ours or anybody's has touched it, and nothing has tripped."""
    state = json.loads(machine(PROGRAM, "status", "--json").stdout)
    assert {p["symbol"]: p["qty"] for p in state["positions"] if p["qty"]} == {"AAPL": quantity}
    assert state["trading_state"]["state"] in ("ACTIVE", "BLOCKED"), state["trading_state"]  # BLOCKED: models warm up
    assert state["flatten"]["state"] == "IDLE"
    assert len(json.loads(machine(PROGRAM, "fills", "--json").stdout)) == 1


def test_upgrade_and_rollback_are_one_command_each_and_keep_the_book(machine: Machine) -> None:
    until("trading is active", lambda: "ACTIVE" in machine(PROGRAM, "status").stdout.splitlines()[0], machine)
    assert machine(PROGRAM, "order", "AAPL", "BUY", "5").returncode == 0
    until("the fill", lambda: '"qty"' in machine(PROGRAM, "fills", "--json").stdout, machine)
    assert serving(machine) == {"1.0.1"}
    done = machine.release("upgrade", "/srv/two.tar.gz")
    assert done.returncode == 0, done.stderr + machine.journal()
    assert serving(machine) == {"1.0.2"}
    check_book(machine, 5.0)
    done = machine.release("upgrade", "/srv/sick", wait_s=20)
    assert done.returncode == 1
    assert "1.0.2" in done.stderr.splitlines()[-1], done.stderr
    until("healthy again", lambda: all(s["healthy"] for s in machine.services().values()), machine)
    assert serving(machine) == {"1.0.2"}
    check_book(machine, 5.0)
    done = machine.release("rollback")  # the attempt that failed has not become the version to go back to
    assert done.returncode == 0, done.stderr + machine.journal()
    assert serving(machine) == {"1.0.1"}
    check_book(machine, 5.0)


def test_down_stops_every_unit(machine: Machine) -> None:
    done = machine(PROGRAM, "down", timeout_s=90.0)
    assert done.returncode == 0, done.stderr + machine.journal()
    active = machine("systemctl", "list-units", "--state=active", "--no-legend", "l2dash-*.service").stdout
    assert not [line for line in active.splitlines() if "regions" not in line], active
