"""The whole chain as an operator meets it: start, watch, trade, kill a service, flatten, stop."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from system import System, wait_for

from engine.domain.codes import ExecFlag, ServiceState

pytestmark = [pytest.mark.system, pytest.mark.timeout(280)]
SERVICES = {"recorder", "watchdog", "paper-gateway", "broker-bridge", "ml-service", "algo", "cockpit"}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    # Each service in a process of its own: what is killed here must be one of them. See test_shared_host.py.
    with System(tmp_path_factory.mktemp("system"), {"runtime": {"placement": "dedicated"}}) as running:
        running.start()
        yield running


def positions(system: System) -> dict[str, float]:
    return {p["symbol"]: p["qty"] for p in system.get("/api/positions")["positions"] if p["qty"]}


def trading(system: System) -> str:
    return str(system.state()["trading_state"]["state"])


def test_it_says_mode_cockpit_and_health(system: System) -> None:
    for words in ("mode SIM", "/cockpit#k=", f"{system.health}/health/all"):
        wait_for(words, lambda words=words: words in "\n".join(system.lines), 10)


def test_every_service_passes_its_health_check(system: System) -> None:
    def healthy() -> bool:
        status, body = system.http("GET", system.health + "/health/all", token=None)
        return status == 200 and body["status"] == "pass"

    wait_for("health pass", healthy, 30)


def test_status_lists_seven_services_with_heartbeat_core_and_lag(system: System) -> None:
    services = system.cli_json("status")["services"]
    assert {s["name"] for s in services} == SERVICES
    for s in services:
        assert s["state"] == "READY"
        assert {"pid", "heartbeat_age_ms", "core", "lag"} <= set(s), s
        assert s["errors"] == 0, "something was compiled after READY"


def test_the_strategy_trades_and_fills_reach_the_journal(system: System) -> None:
    fills = wait_for("fills", lambda: system.cli_json("fills"), 120, 1.0)
    assert fills


def test_manual_order_with_the_runbooks_json_appears_in_the_blotter(system: System) -> None:
    wait_for("trading is active", lambda: trading(system) == "ACTIVE", 60)
    body = {"symbol": "AAPL", "qty": 1, "side": "BUY", "type": "LMT", "limit": 150.00}
    answers: list[Any] = []

    def accepted() -> bool:
        """The strategy may offer AAPL at this very price for a while: the gate rightly refuses to trade with it."""
        status, answer = system.post("/api/exec/order", body)
        answers.append(answer)
        assert status == 202 or (status == 409 and "our own order" in answer["detail"]), answer
        return status == 202

    wait_for("the gate's consent", accepted, 30, 0.5)
    order_id = answers[-1]["order_id"]

    def shown() -> Any:
        return [o for o in system.get("/api/orders")["orders"] if str(o["order_id"]) == str(order_id)]

    assert wait_for("the order in the blotter", shown, 10)[0]["symbol"] == "AAPL"


def test_a_request_without_token_is_refused_and_names_the_header(system: System) -> None:
    status, answer = system.http("POST", system.base + "/api/exec/flatten-all", token=None)
    assert status == 401
    assert "Authorization" in str(answer)


@pytest.mark.parametrize(
    "service", ["algo", "ml-service", "recorder", "cockpit", "watchdog", "broker-bridge", "paper-gateway"]
)
def test_a_killed_service_is_back_within_ten_seconds_and_nothing_else_stopped(system: System, service: str) -> None:
    before, flattened = system.pids(), system.state()["flatten"]["flatten_id"]
    assert set(before) == SERVICES
    os.kill(before[service], signal.SIGKILL)

    def back() -> bool:
        life = system.lives().get(service)
        return life is not None and life.pid != before[service] and life.state == ServiceState.READY

    wait_for(f"{service} is back", back, 10, 0.05)
    after = system.pids()
    assert {k: v for k, v in after.items() if k != service} == {k: v for k, v in before.items() if k != service}
    wait_for("the cockpit answers", lambda: trading(system), 10)
    assert trading(system) != "KILLED", system.report()
    assert system.state()["flatten"]["flatten_id"] == flattened, "a good book was flattened"


def test_nothing_is_lost_or_doubled_and_positions_are_the_sum_of_fills(system: System) -> None:
    path = system.directory / "state" / "journal.db"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as journal:
        rows = journal.execute("select exec_id, flags from executions where kind = 1").fetchall()
    live = [exec_id for exec_id, flags in rows if not flags & ExecFlag.REPLAYED]
    assert live
    assert len(live) == len(set(live))
    # A fill that fell into a restart is known by the read-back alone.
    assert {exec_id for exec_id, _ in rows} >= set(live)

    def sums_agree() -> bool:
        """Trading goes on meanwhile, so the two are read until no fill falls between the readings."""
        fills = system.cli_json("fills", "--limit", "100000")
        assert len({f["exec_id"] for f in fills}) == len(fills) >= len(live)
        expected: dict[str, float] = {}
        for fill in fills:
            signed = fill["qty"] * (1 if fill["side"] == "BUY" else -1)
            expected[fill["symbol"]] = expected.get(fill["symbol"], 0.0) + signed
        return positions(system) == {s: q for s, q in expected.items() if abs(q) > 1e-9}

    wait_for("positions are the sum of fills", sums_agree, 20, 0.3)


def test_flatten_through_the_api_says_flat_only_when_confirmed(system: System) -> None:
    status, answer = system.post("/api/exec/flatten-all")
    assert status == 202, answer
    assert answer["flatten_id"]
    wait_for("confirmed flat", lambda: system.state()["flatten"]["state"] == "FLAT", 60)
    assert positions(system) == {}
    assert trading(system) == "PAUSED"


def test_flatten_from_the_command_line_works_with_the_cockpit_killed(system: System) -> None:
    assert system.cli("resume").returncode == 0
    wait_for("trading again", lambda: trading(system) == "ACTIVE", 30)
    done = system.cli("order", "MSFT", "BUY", "2")
    assert done.returncode == 0, done.stderr + done.stdout
    wait_for("a position", lambda: positions(system).get("MSFT"), 15)
    os.kill(system.pids()["cockpit"], signal.SIGSTOP)
    try:
        done = system.cli("flatten")
    finally:
        os.kill(system.pids()["cockpit"], signal.SIGCONT)
    assert done.returncode == 0, done.stderr + done.stdout
    wait_for("cockpit answers again", lambda: system.state()["flatten"]["state"] == "FLAT", 20)
    assert positions(system) == {}


def test_bad_requests_get_one_clear_line_and_the_right_exit_code(system: System) -> None:
    unknown = system.cli("order", "NOPE", "BUY", "1")
    assert unknown.returncode in (2, 3)
    assert "NOPE" in unknown.stderr + unknown.stdout
    second = system.cli("up", "--config", str(system.config))
    assert second.returncode == 3, second.stderr
    assert len(second.stderr.strip().splitlines()) == 1
    assert "pid" in second.stderr
    status, answer = system.post("/api/exec/order", {"symbol": "AAPL", "qty": -1, "side": "BUY", "type": "MKT"})
    assert status == 422
    assert "qty" in str(answer)


def test_graceful_stop_exits_zero_and_leaves_no_shared_memory(system: System) -> None:
    assert system.stop() == 0, system.report()
    assert not Path(f"/dev/shm/l2dash-{system.name}").exists()
