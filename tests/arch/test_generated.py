"""Files that are derived from the topology are what the topology says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from engine import generate, topology

ROOT = Path(__file__).resolve().parents[2]


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found


def test_no_generated_file_has_drifted() -> None:
    assert generate.drifted() == []


def test_drift_is_noticed_and_repaired(tmp_path: Path) -> None:
    generate.write(tmp_path)
    assert generate.drifted(tmp_path) == []
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    (tmp_path / "systemd/l2dash-gone.service").write_text("[Unit]\n")
    assert generate.drifted(tmp_path) == ["compose.yaml", "systemd/l2dash-gone.service"]
    generate.write(tmp_path)
    assert generate.drifted(tmp_path) == []


def test_every_service_is_a_compose_service_with_healthcheck_and_start_period() -> None:
    services = compose()["services"]
    assert {s.name for s in topology.SERVICES} <= set(services)
    for name, service in services.items():
        assert {"test", "start_period", "interval", "timeout"} <= set(service["healthcheck"]), name
        assert service["stop_grace_period"] == "30s"
        assert service["pull_policy"] == "build"
        assert service["pid"] == "host"


def test_compose_keeps_nothing_in_volumes_that_down_could_erase() -> None:
    document = compose()
    assert "volumes" not in document
    for name, service in document["services"].items():
        for volume in service["volumes"]:
            assert volume["type"] == "bind", f"{name}: {volume}"


def test_only_the_paper_gateway_hides_behind_the_sim_profile() -> None:
    services = compose()["services"]
    assert services["paper-gateway"]["profiles"] == ["sim"]
    assert [n for n, s in services.items() if "profiles" in s] == ["paper-gateway"]
    assert services["broker-bridge"]["depends_on"]["paper-gateway"]["required"] is False


def test_compose_dependencies_exist_and_follow_the_topology() -> None:
    services = compose()["services"]
    for s in topology.SERVICES:
        wanted = set(services[s.name]["depends_on"])
        assert set(s.after) <= wanted
        assert wanted <= set(services)


def unit(name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (ROOT / "systemd" / name).read_text().splitlines():
        match = re.match(r"([A-Za-z]+)=(.*)", line)
        if match:
            found.setdefault(match[1], []).append(match[2])
    return found


def test_units_of_hot_services_are_watched_every_two_seconds_and_killed_when_they_hang() -> None:
    for s in topology.SERVICES:
        u = unit(f"l2dash-{s.name}.service")
        assert u["Type"] == ["notify"]
        assert u["WatchdogSignal"] == ["SIGKILL"]
        assert u["WatchdogSec"] == ["2" if s.hot else "10"], s.name


def test_units_that_need_the_watchdog_are_bound_to_it_and_the_bridge_is_not() -> None:
    for s in topology.SERVICES:
        bound = "BindsTo" in unit(f"l2dash-{s.name}.service")
        assert bound == (s.name in ("algo", "ml-service")), s.name


def test_backup_timer_fires_at_two_utc_also_after_a_missed_night() -> None:
    timer = unit("l2dash-backup.timer")
    assert timer["OnCalendar"] == ["*-*-* 02:00:00 UTC"]
    assert timer["Persistent"] == ["true"]


def test_units_do_not_forbid_what_compiled_kernels_need() -> None:
    for path in (ROOT / "systemd").glob("*.service"):
        text = path.read_text()
        for key in ("MemoryDenyWriteExecute", "RestrictRealtime", "PrivateUsers", "ProtectHome=yes"):
            assert key not in text, f"{path.name}: {key}"
