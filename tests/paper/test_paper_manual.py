"""docs/PAPER_GATEWAY.md as a new user follows it: every command and every program in it, in order, and its tables."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.generate.gateway_page import gateway_page
from engine.paper.faults.scenario import load_scenario
from engine.paper.manual import REQUESTS
from engine.paper.messages_in import READERS, In
from engine.paper.requests import HANDLERS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/PAPER_GATEWAY.md"
BLOCK = re.compile(r"^```(bash|python|toml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
START = re.compile(r"l2dash paper-gateway( --|$)")
ASKS = re.compile(r"l2dash paper-gateway (fault|state|reset)\b")
TIMEOUT_S = 60


def blocks(kind: str) -> list[str]:
    return [body for found, body in BLOCK.findall(PAGE.read_text()) if found == kind]


def commands() -> list[str]:
    return [line for body in blocks("bash") for line in body.splitlines() if line.strip()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class User:
    """Types what the page says, with free ports in place of the usual ones."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "config").symlink_to(ROOT / "config")
        self.port, self.control_port = free_port(), free_port()
        self.environment = {n: v for n, v in os.environ.items() if not n.startswith("L2DASH_")}
        self.environment["PATH"] = f"{Path(sys.executable).parent}:{self.environment['PATH']}"
        self.gateways: list[subprocess.Popen[str]] = []

    def _own_ports(self, text: str) -> str:
        return re.sub(r"\b4003\b", str(self.control_port), re.sub(r"\b4002\b", str(self.port), text))

    def start(self, line: str, port: int) -> int:
        """Start a gateway as the line says, but for its port; returns the port that it names."""
        words = [*shlex.split(self._own_ports(re.sub(r" --port \d+", "", line))), "--port", str(port)]
        gateway = subprocess.Popen(
            words, cwd=self.home, env=self.environment, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True
        )
        self.gateways.append(gateway)
        assert gateway.stdout is not None
        said = gateway.stdout.readline()
        named = re.fullmatch(r"paper gateway on 127\.0\.0\.1:(\d+), account DUSIM001\n", said)
        assert named, f"{line}: {said}{gateway.stdout.read() if gateway.poll() is not None else ''}"
        return int(named[1])

    def run(self, words: list[str]) -> str:
        done = subprocess.run(
            words, cwd=self.home, env=self.environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def type(self, line: str) -> str:
        words = shlex.split(self._own_ports(line))
        if ASKS.match(line):
            words += ["--control-port", str(self.control_port)]
        return self.run(words)

    def program(self, text: str) -> str:
        return self.run([sys.executable, "-c", self._own_ports(text)])

    def leave(self) -> None:
        for gateway in self.gateways:
            with contextlib.suppress(ProcessLookupError):
                gateway.terminate()
        for gateway in self.gateways:
            gateway.wait(TIMEOUT_S)
            assert gateway.stdout is not None
            gateway.stdout.close()


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    made = User(tmp_path)
    try:
        yield made
    finally:
        made.leave()


@pytest.mark.stress
@pytest.mark.timeout(300)
def test_every_command_and_program_of_the_page_does_what_it_says(user: User) -> None:
    first, *others = [line for line in commands() if START.match(line)]
    assert user.start(first, user.port) == user.port
    quick, embedded = blocks("python")
    said = user.program(quick)
    assert re.search(r"bid [\d.]+ ask [\d.]+\nbought at [\d.]+\nposition 100.0 working 1\n", said), said
    for line in commands():
        if not START.match(line):
            assert user.type(line).strip(), f"{line} said nothing"
    user.program(embedded)
    with ThreadPoolExecutor(len(others)) as pool:
        ports = list(pool.map(lambda line: user.start(line, 0), others))
    assert len(set(ports)) == len(others) >= 4
    assert (user.home / "account.json").exists()


def test_the_scenario_of_the_page_is_one(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    (tmp_path / "example.toml").write_text(text)
    scenario = load_scenario(tmp_path / "example.toml")
    assert scenario.title == tomllib.loads(text)["title"]
    assert [timed.fault for timed in scenario.faults] == ["link_flap", "reject_next", "depth_reset"]
    assert scenario.faults[2].plan.times == 5


def test_every_request_that_is_answered_is_described_and_no_other() -> None:
    assert set(REQUESTS) == set(In) == set(READERS) == set(HANDLERS)


def test_every_error_code_of_the_page_is_sent_by_the_code() -> None:
    table = PAGE.read_text().partition("## Errors that it sends")[2].partition("\n\n## ")[0]
    source = "\n".join(path.read_text() for path in (ROOT / "engine/paper").rglob("*.py"))
    codes = {code for row in re.findall(r"^\| ([\d, ]+)", table, re.MULTILINE) for code in re.findall(r"\d+", row)}
    assert len(codes) > 30
    assert [code for code in sorted(codes) if not re.search(rf"\b{code}\b", source)] == []


def test_a_table_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/PAPER_GATEWAY.md").write_text("<!-- generated: requests -->\n<!-- end -->\n")
    with pytest.raises(ValueError, match=r"has blocks \['requests'\], expected"):
        gateway_page(tmp_path)
