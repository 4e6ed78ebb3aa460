"""The runbook as a new operator follows it: every command of its shell blocks, in order, on a system of one's own.

What needs systemd, containers or another host is run by tests/ops instead, and named here; a line that nobody runs
fails.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from system import ROOT, TOKEN, System, wait_for

pytestmark = [pytest.mark.system, pytest.mark.stress, pytest.mark.timeout(900)]
ELSEWHERE = {
    "docker compose": "tests/ops/test_container.py",
    "sudo ": "tests/ops/test_systemd.py",
    "git clone": "tests/ops/test_systemd.py",
    "l2dash drill": "tests/e2e/test_drills.py",
    "./ops/drill.sh": "tests/e2e/test_drills.py",
    "./ops/upgrade.sh": "tests/ops/test_upgrade.py",
}
CODES = {"l2dash reset": {0, 3}, "l2dash order": {0, 3}, "curl -X POST http://localhost:3000/api/exec/order": {0, 22}}
"""Answers that are as good as 0 at their place: KILL cools down, a PAUSE of before holds."""
FOLLOWS = "./ops/logs.sh -f"


def commands() -> list[str]:
    text = (ROOT / "docs/RUNBOOK.md").read_text()
    bodies = re.findall(r"^ *```bash[^\n]*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for body in bodies for line in body.replace("\\\n", " ").splitlines() if line.strip()]
    return [re.sub(r"\s+#.*", "", line) for line in lines]


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    made = System(tmp_path)
    try:
        yield made
    finally:
        for life in made.lives().values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(life.pid, signal.SIGKILL)
        lock = tmp_path / "state/supervisor.lock"
        with contextlib.suppress(OSError, ValueError, ProcessLookupError):
            os.kill(int(lock.read_text()), signal.SIGTERM)
        made.cli("regions", "remove", "--config", str(made.config))


class Operator:
    """Types the lines, with the ports and directories of this instance in place of the shipped ones."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.environment = {
            **system.environment,
            "L2DASH_CONFIG": str(system.config),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TRADING_TOKEN": TOKEN,
        }
        state, backups = system.directory / "state", system.directory / "backups"
        self.places = {
            "http://localhost:3000": system.base,
            "http://localhost:8080": system.health,
            "/opt/l2-dash/data": str(state),
            "/backups": str(backups),
            "YYYY-MM-DD": datetime.now(UTC).date().isoformat(),
        }

    def type(self, line: str) -> subprocess.CompletedProcess[str]:
        for shipped, ours in self.places.items():
            line = line.replace(shipped, ours)
        line = line.replace("curl ", "curl -sS --fail-with-body ")
        if line.startswith(FOLLOWS):
            line = f"timeout --signal=INT 5 {line}"
        return subprocess.run(
            ["bash", "-c", line],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def up(self) -> bool:
        return len(self.system.lives()) > 0

    def ensure_up(self) -> None:
        """As the runbook says: start, and wait until every service is READY (one that was stopped stays stopped)."""
        if not self.up():
            done = self.type("./ops/start.sh")
            assert done.returncode == 0, done.stdout + done.stderr
            wait_for("every service READY", lambda: self.type("l2dash status").returncode == 0, 60)


def test_every_command_of_the_runbook_runs_as_written(system: System) -> None:
    operator = Operator(system)
    ran: list[str] = []
    for line in commands():
        known = next((name for name in ELSEWHERE if line.startswith(name)), None)
        if known is not None:
            assert (ROOT / ELSEWHERE[known]).is_file()
            continue
        assert line.startswith(("l2dash ", "./ops/", "curl ", "cp ")), f"nobody runs this line: {line}"
        if not line.startswith(("l2dash config", "l2dash doctor", "./ops/start.sh", "cp ", "./ops/restore.sh")):
            operator.ensure_up()
        if line == "l2dash preopen":
            wait_for("every check before the opening", lambda: operator.type("l2dash preopen").returncode == 0, 90)
        done = operator.type(line)
        allowed = next((codes for name, codes in CODES.items() if line.startswith(name)), {0})
        if line.startswith(FOLLOWS):
            allowed = {0, 124, 130}
        assert done.returncode in allowed, f"{shlex.quote(line)}: {done.returncode}\n{done.stdout}{done.stderr}"
        ran.append(line)
    assert len(ran) > 30, ran
    operator.ensure_up()
    assert operator.type("l2dash flatten").returncode == 0
    assert operator.type("./ops/stop.sh").returncode == 0
    assert not operator.up()
