from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from engine import topology
from engine.topology import Cell, Ring, Service


def test_the_shipped_topology_is_valid() -> None:
    topology.check()


@pytest.mark.parametrize(
    ("table", "extra", "message"),
    [
        ("RINGS", Ring("ticks", "tick", 8, "algo", ("recorder",)), "the name ticks is used twice"),
        ("RINGS", Ring("odd", "tick", 12, "algo", ("recorder",)), "ring odd has 12 slots, not a power of two"),
        ("RINGS", Ring("unread", "tick", 8, "algo"), "nobody reads ring unread"),
        ("RINGS", Ring("lost", "tick", 8, "ghost", ("recorder",)), "names ghost, which is no service"),
        ("CELLS", Cell("unread", "stop", "algo", ()), "nobody reads cell unread"),
        ("CELLS", Cell("lost", "stop", "algo", ("ghost",)), "names ghost, which is no service"),
        ("RINGS", Ring("back", "tick", 8, "broker-bridge", (), ("cockpit",)), "form a cycle"),
        ("SERVICES", Service("early", "x", hot=False, after=("late",)), "starts after late"),
    ],
)
def test_a_broken_table_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, table: str, extra: Any, message: str
) -> None:
    monkeypatch.setattr(topology, table, (*getattr(topology, table), extra))
    with pytest.raises(ValueError, match=message):
        topology.check()


def test_every_ring_and_cell_has_exactly_one_writer_and_region_names_are_unique() -> None:
    names = [spec.name for spec in topology.regions()]
    assert len(names) == len(set(names))


def test_few_cores_share_and_many_give_each_hot_service_its_own() -> None:
    assert topology.placement(2, "auto") == "shared"
    assert topology.placement(5, "auto") == "shared"
    assert topology.placement(6, "auto") == "dedicated"
    assert topology.placement(64, "shared") == "shared"
    assert topology.placement(1, "dedicated") == "dedicated"
    plan = topology.core_plan(8, "dedicated")
    hot = [plan[s.name] for s in topology.SERVICES if s.hot]
    assert len(set(hot)) == len(hot)
    assert 0 not in hot
    assert set(topology.core_plan(4, "dedicated").values()) == {-1}  # who must share a core is not pinned to it


@pytest.mark.parametrize("cores", [2, 3, 4, 6, 16])
def test_the_shared_host_is_pinned_to_one_core_and_the_watchdog_never_to_the_same(cores: int) -> None:
    plan = topology.core_plan(cores, "shared")
    assert {plan[name] for name in topology.HOSTED} == {cores - 1}
    assert plan[topology.WATCHDOG] != cores - 1
    assert topology.core_plan(1, "shared")[topology.BRIDGE] == -1


def test_cursor_lines_are_stable_and_distinct() -> None:
    for service in topology.SERVICES:
        lines = [topology.cursor_line(service.name, r.name) for r in topology.reads(service.name)]
        assert lines == list(range(len(lines)))
        assert topology.sleep_line(service.name) == len(lines)


def test_only_order_and_command_rings_gate() -> None:
    for ring in topology.RINGS:
        assert bool(ring.gate) == ring.name.startswith(("orders.", "commands."))


def test_services_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        topology.SERVICES[0].name = "other"  # type: ignore[misc]
