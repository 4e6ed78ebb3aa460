"""The shared placement as an operator meets it: three services in one process, each of them still its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from system import System, wait_for

from engine import topology
from engine.domain.codes import ServiceState

pytestmark = [pytest.mark.system, pytest.mark.stress, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with System(tmp_path_factory.mktemp("shared"), {"runtime": {"placement": "shared"}}) as running:
        running.start()
        yield running


def ready_again(system: System, service: str, old: Any) -> Any:
    def back() -> Any:
        life = system.lives().get(service)
        return life if life and life.incarnation > old.incarnation and life.state == ServiceState.READY else None

    return wait_for(f"{service} is back", back, 30, 0.05)


def test_three_services_share_a_process_and_status_says_so(system: System) -> None:
    status = system.cli_json("status")
    assert status["placement"] == "shared"
    rows = {s["name"]: s for s in status["services"]}
    assert len({rows[name]["pid"] for name in topology.HOSTED}) == 1
    assert {rows[name]["host"] for name in topology.HOSTED[1:]} == {topology.BRIDGE}
    assert all(row["state"] == "READY" for row in rows.values())
    assert len({row["pid"] for row in rows.values()}) == 5


def test_the_strategy_trades(system: System) -> None:
    assert wait_for("fills", lambda: system.cli_json("fills"), 90, 0.5)


@pytest.mark.parametrize("service", topology.HOSTED[1:])
def test_restarting_a_guest_leaves_the_others_and_the_connection_alone(system: System, service: str) -> None:
    before = system.lives()
    done = system.cli("restart", service)
    assert done.returncode == 0, done.stderr + done.stdout
    after = system.lives()
    assert after[service].incarnation == before[service].incarnation + 1
    for name in set(topology.HOSTED) - {service}:
        assert after[name].incarnation == before[name].incarnation
    assert {name: life.pid for name, life in after.items()} == {name: life.pid for name, life in before.items()}


def test_a_guest_can_be_stopped_alone_and_started_again(system: System) -> None:
    before = system.lives()
    assert system.cli("stop", topology.ALGO).returncode == 0
    after = system.lives()
    assert after[topology.ALGO].state == ServiceState.STOPPED
    assert after[topology.BRIDGE].state == ServiceState.READY
    assert system.cli("start", topology.ALGO).returncode == 0
    assert system.lives()[topology.ALGO].incarnation == before[topology.ALGO].incarnation + 1


def test_a_killed_host_comes_back_with_its_guests_and_nothing_else_stops(system: System) -> None:
    before = system.lives()
    os.kill(before[topology.ML].pid, signal.SIGKILL)
    back = [ready_again(system, name, before[name]) for name in topology.HOSTED]
    assert len({life.pid for life in back}) == 1
    after = system.lives()
    others = set(before) - set(topology.HOSTED)
    assert {name: after[name].pid for name in others} == {name: before[name].pid for name in others}
    assert system.state()["trading_state"]["state"] != "KILLED", system.report()


def test_nothing_was_compiled_after_ready(system: System) -> None:
    rows = {s["name"]: s for s in system.cli_json("status")["services"]}
    assert {name: rows[name]["errors"] for name in topology.HOSTED} == dict.fromkeys(topology.HOSTED, 0)


def test_it_stops_in_order(system: System) -> None:
    assert system.stop() == 0, system.report()
