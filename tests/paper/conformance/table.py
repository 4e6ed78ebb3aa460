"""The conformance table: every client library against every feature of the paper gateway.

usage: l2dash bench conformance [--write] [CLIENT...]   (part of a client's name; all without)

For each client the gateway is started as a process of its own, and the session runs in the client's environment. Exit 0
if every client passed that could be installed. --write puts the table into docs/PAPER_GATEWAY.md.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from clients import CLIENTS, ROOT, CannotInstall, ClientLibrary, interpreter
from session import FEATURES

SESSION_TIMEOUT_S = 240
START_TIMEOUT_S = 60
MASTER = 99
DOCUMENT = ROOT / "docs" / "PAPER_GATEWAY.md"
_BLOCK = re.compile(r"(<!-- measured: conformance -->\n)(.*?)(<!-- end -->)", re.DOTALL)


@dataclass
class Outcome:
    """What became of one client: a word for each feature, or why it was not run."""

    client: ClientLibrary
    results: dict[str, str] = field(default_factory=dict)
    not_run: str = ""
    log: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return bool(self.results) and all(result == "ok" for result in self.results.values())


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Gateway:
    """A paper gateway as anybody starts it: from the command line."""

    def __init__(self) -> None:
        self.port, self.control_port = free_port(), free_port()
        options = f"--port {self.port} --control-port {self.control_port} --master {MASTER} --depth-lines 3"
        options += " --max-messages-per-s 0 --messages-per-s 2000 --equity 1000000"
        environment = {n: v for n, v in os.environ.items() if not n.startswith("L2DASH_")}
        command = [sys.executable, "-m", "engine.cli", "paper-gateway", *options.split()]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def ready(self) -> None:
        end = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end:
            if self._process.poll() is not None:
                assert self._process.stdout is not None
                raise RuntimeError(self._process.stdout.read().decode(errors="replace"))
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError(f"the gateway did not open port {self.port} within {START_TIMEOUT_S} s")

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)


def run(client: ClientLibrary) -> Outcome:
    """The session of one client."""
    outcome = Outcome(client)
    started = time.monotonic()
    try:
        python = interpreter(client)
    except CannotInstall as error:
        outcome.not_run = str(error)
        return outcome
    gateway = Gateway()
    try:
        gateway.ready()
        command = [str(python), str(HERE / "session.py"), client.family, str(gateway.port), str(gateway.control_port)]
        environment = {n: v for n, v in os.environ.items() if not n.startswith(("L2DASH_", "PYTHON"))}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=SESSION_TIMEOUT_S, check=False
        )
        outcome.log = done.stdout[-4000:] + done.stderr[-4000:]
        lines = done.stdout.strip().splitlines()
        try:
            outcome.results = json.loads(lines[-1])
        except (IndexError, ValueError):
            outcome.results = dict.fromkeys(FEATURES, "the session crashed")
    except subprocess.TimeoutExpired:
        outcome.results = dict.fromkeys(FEATURES, f"no end within {SESSION_TIMEOUT_S} s")
    finally:
        gateway.stop()
    outcome.seconds = time.monotonic() - started
    return outcome


def run_all(clients: tuple[ClientLibrary, ...] = CLIENTS) -> list[Outcome]:
    """All sessions, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, clients))


def render(outcomes: list[Outcome]) -> str:
    """Features down, clients across; what went wrong stands below."""
    ran = [o for o in outcomes if not o.not_run]
    width = max(map(len, FEATURES))
    head = " " * width + "  " + "  ".join(o.client.name for o in ran)
    lines = [head]
    for feature in FEATURES:
        cells = ["ok" if o.results.get(feature) == "ok" else "FAILED" for o in ran]
        row = "  ".join(cell.ljust(len(o.client.name)) for cell, o in zip(cells, ran, strict=True))
        lines.append(f"{feature:<{width}}  {row}".rstrip())
    for outcome in ran:
        for feature, result in outcome.results.items():
            if result != "ok":
                lines.append(f"{outcome.client.name}, {feature}: {result}")
    lines += [f"not run: {o.client.name}: {o.not_run}" for o in outcomes if o.not_run]
    good = sum(o.passed for o in ran)
    lines.append(f"{good} of {len(ran)} clients pass all {len(FEATURES)} features")
    return "\n".join(lines)


def markdown(outcomes: list[Outcome]) -> str:
    """The table as it stands in docs/PAPER_GATEWAY.md."""
    head = ["feature", *(o.client.name for o in outcomes)]
    rows = [[f, *(o.results.get(f, "not run") for o in outcomes)] for f in FEATURES]
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def published() -> str:
    """The table that stands in the page now."""
    found = _BLOCK.search(DOCUMENT.read_text())
    return found[2] if found else ""


def publish(outcomes: list[Outcome]) -> None:
    text = DOCUMENT.read_text()
    DOCUMENT.write_text(_BLOCK.sub(lambda found: found[1] + markdown(outcomes) + found[3], text))


def main(arguments: list[str]) -> int:
    write, wanted = "--write" in arguments, [a for a in arguments if not a.startswith("--")]
    chosen = tuple(c for c in CLIENTS if not wanted or any(w in c.name for w in wanted))
    if not chosen:
        print(f"no such client; there are {', '.join(c.name for c in CLIENTS)}")
        return 2
    outcomes = run_all(chosen)
    print(render(outcomes))
    if write and (wanted or any(o.not_run for o in outcomes)):
        print("not written: the page shows all clients, and not all were run")
        return 1
    if write:
        publish(outcomes)
    return 0 if all(o.passed or o.not_run for o in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
