"""The report of an incident, from a journal that the real recorder has written of what the real watchdog did."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from world import World

from engine import topology
from engine.cli.incident import incident
from engine.domain.codes import CommandKind, EventKind, ExecFlag, ExecKind, OrderState, Severity, Source
from engine.procs.recorder import Recorder
from engine.procs.recorder import create as create_recorder
from engine.store.incident import as_dict, incidents, report
from engine.store.incident_text import as_text
from engine.store.journal import journal_path
from engine.store.journal_read import JournalReader
from shm.layouts import EXECUTION


class Recorded(World):
    """A world whose recorder is the real one."""

    def __init__(self, tmp_path: Path) -> None:
        super().__init__(tmp_path)
        recorder = create_recorder(self.inst.context(topology.RECORDER))
        assert isinstance(recorder, Recorder)
        self.recorder = recorder
        recorder.on_start(self.clock.now)

    def record(self) -> JournalReader:
        """The recorder is closed in order: everything said so far is in the journal."""
        self.settle()
        self.recorder.on_close(self.clock.now)
        return JournalReader(journal_path(self.state_dir))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Recorded]:
    w = Recorded(tmp_path)
    w.run(0.5)
    yield w
    w.close()


def test_it_says_what_tripped_with_its_numbers_what_was_closed_and_what_is_left(world: Recorded) -> None:
    world.hold(2, 1_001.0)
    world.hold(3, -40.0)
    world.run(2)
    with world.record() as journal:
        listed = incidents(journal)
        assert len(listed) == 1
        assert listed[0]["state"] == "OPEN"
        found = report(journal, listed[0]["id"])
        assert found is not None
        same = [report(journal, n) for n in (found.incident_id, world.agent.flattening.state.flatten_id)]
        assert [s.id for s in same if s] == [found.id] * 2
    assert [(c["badge"], round(c["value"]), round(c["limit"]), c["unit"]) for c in found.causes] == [
        ("POS", 100_100, 100_000, "USD")
    ]
    assert {(o["side"], o["symbol"], o["qty"], o["state"]) for o in found.orders} == {
        ("SELL", "AMZN", 1_001.0, "FILLED"), ("BUY", "GOOGL", 40.0, "FILLED"),
    }  # fmt: skip
    words = [s.text for s in found.steps]
    order = [next(i for i, t in enumerate(words) if part in t) for part in
             ("POS TRIPPED", "first closing order", "flat, confirmed by the broker")]  # fmt: skip
    assert order == sorted(order)
    assert all(s.took_ms >= 0.0 for s in found.steps)
    assert found.figures_ms["kill_to_flat"] > 200.0
    assert 0.0 <= found.figures_ms["tick_to_last_close_of_round_one"] < 100.0
    assert any("cool for 5 min " in line for line in found.left)
    assert any(line.startswith("`l2dash reset --reason WHY`") for line in found.left)
    assert "restart alone releases nothing" in found.left[-1]


def test_a_release_ends_it_and_the_next_kill_is_another_incident(world: Recorded) -> None:
    world.command(CommandKind.KILL, reason="first")
    world.command(CommandKind.RESET)
    world.run(32, step_ms=20)
    world.command(CommandKind.RESET)
    world.command(CommandKind.KILL, reason="second")
    world.run(1)
    with world.record() as journal:
        first, second = incidents(journal)
        assert (first["state"], second["state"]) == ("RELEASED", "OPEN")
        found, later = report(journal, first["id"]), report(journal, second["id"])
    assert found is not None
    assert later is not None
    assert found.causes == []
    assert any("refused: flatten is still running" in s.text or "refused: cooling" in s.text for s in found.steps)
    assert found.left == ["released; if algo or ml-service do not run: `ops/restart.sh algo ml-service`"]
    assert found.figures_ms["flat_to_release"] >= 30_000.0
    assert "second" in later.title
    assert not any("second" in s.text for s in found.steps)


def test_what_is_not_flat_comes_first_and_open_orders_are_named(world: Recorded) -> None:
    world.bridge_fills = False
    world.hold(0, 10.0)
    world.command(CommandKind.KILL)
    world.run(0.5)
    with world.record() as journal:
        found = report(journal, incidents(journal)[0]["id"])
    assert found is not None
    assert found.left[0].startswith("NOT confirmed flat")
    assert "SELL 10 AAPL (SENT)" in found.left[1]


def test_a_day_lock_asks_for_a_named_override(world: Recorded) -> None:
    world.hold(0, 900.0)
    world.run(0.2)
    world.mids[0] = 93.0
    world.books.value[0]["fair_value"] = 93.0
    world.run(2)
    with world.record() as journal:
        found = report(journal, incidents(journal)[0]["id"])
    assert found is not None
    assert (found.causes[0]["badge"], found.causes[0]["unit"]) == ("DD", "USD")
    assert any("--override NAME" in line for line in found.left)


def test_orders_of_the_emergency_connection_are_in_it_too(world: Recorded) -> None:
    """They go through no order ring: the watchdog tells their states itself."""
    world.command(CommandKind.KILL)
    events = world.agent._ctx.events
    for state, filled in ((OrderState.SENT, 0.0), (OrderState.FILLED, 30.0)):
        events.emit(EventKind.ORDER_STATE, state, symbol=0, source=4, ref_id=77, ref2=5, value=filled, qty=-30.0,
                    price=99.5, now_ns=world.clock.now)  # fmt: skip
    with world.record() as journal:
        found = report(journal, incidents(journal)[0]["id"])
    assert found is not None
    assert [(o["symbol"], o["side"], o["qty"], o["state"], o["filled"]) for o in found.orders] == [
        ("AAPL", "SELL", 30.0, "FILLED", 30.0)
    ]


def test_an_operators_word_is_the_cause_of_the_stop_that_it_sets(world: Recorded) -> None:
    """The command line says who and why, sets its own stop cell at once, and only then gives the command."""
    cli = world.ctx[topology.CLI]
    said = "cli:jo kill odd fills"
    cli.events.emit(EventKind.AUDIT, CommandKind.KILL, source=Source.CLI, text=said, now_ns=world.clock.now)
    world.run(0.1)
    cell = cli.cell_writer("stop.cli")
    cell.value[0]["kill"], cell.value[0]["stop_id"] = 1, world.clock.now
    cell.publish()
    world.run(1)
    with world.record() as journal:
        found = report(journal, incidents(journal)[0]["id"], cooling_s=90.0)
    assert found is not None
    assert found.by == said
    assert (found.steps[0].what, found.steps[0].text, found.steps[0].after_ms) == ("operator", found.by, 0.0)
    assert found.figures_ms["cause_to_kill"] >= 100.0
    assert "no badge: cli:jo kill odd fills" in as_text(found)
    assert any("cool for 1 min 30 s " in line for line in found.left)


def test_what_the_bridge_closed_without_a_watchdog_is_in_it(world: Recorded) -> None:
    """The watchdog notes the stop of the bridge's dead-man when it is back, which can be long after the flatten."""
    world.run(0.1)
    bridge = world.ctx[topology.BRIDGE]
    say, gone = bridge.events.emit, "no watchdog for 5 s: the bridge latches KILL and gets flat by itself"
    say(EventKind.STOP, text="entries blocked by the bridge: LEASE_EXPIRED", now_ns=world.clock.now)
    say(EventKind.ALERT, severity=Severity.P1, text=gone, now_ns=world.clock.now)
    for state, filled in ((OrderState.SENT, 0.0), (OrderState.FILLED, 30.0)):
        say(EventKind.ORDER_STATE, state, symbol=0, source=Source.BRIDGE, ref_id=77, ref2=5, value=filled, qty=-30.0,
            price=99.5, now_ns=world.clock.now)  # fmt: skip
    world.clock.advance(300 * 1_000_000_000)
    cell = bridge.cell_writer("stop.bridge")
    cell.value[0]["kill"], cell.value[0]["stop_id"] = 1, world.clock.now
    cell.publish()
    world.run(1)
    with world.record() as journal:
        number = next(i["id"] for i in incidents(journal) if i["text"] == "stop set by bridge")
        found = report(journal, number)
    assert found is not None
    assert found.by == gone
    assert [(o["symbol"], o["side"], o["filled"]) for o in found.orders] == [("AAPL", "SELL", 30.0)]
    assert found.figures_ms["cause_to_kill"] >= 300_000.0
    assert 0.0 <= found.figures_ms["cause_to_first_close"] < 1_000.0


def test_a_flatten_before_that_a_new_bridge_reads_back_is_not_in_it(world: Recorded) -> None:
    def execution(exec_id: bytes, flags: int) -> None:
        row = np.zeros(1, EXECUTION)
        row["t_socket_ns"], row["exec_id"], row["qty"], row["price"] = world.clock.now, exec_id, 30.0, 100.0
        row["side"], row["kind"], row["flags"], row["source"] = -1, ExecKind.FILL, flags, Source.WATCHDOG
        executions.publish(row)

    executions = world.ctx[topology.BRIDGE].ring_writer("executions")
    execution(b"a.01.01", ExecFlag.FLATTEN)
    world.run(0.1)
    world.command(CommandKind.KILL)
    for exec_id in (b"a.01.01", b"b.01.01"):
        execution(exec_id, ExecFlag.FLATTEN | ExecFlag.REPLAYED)
    with world.record() as journal:
        found = report(journal, incidents(journal)[0]["id"])
    assert found is not None
    assert [e["exec_id"] for e in found.executions] == ["b.01.01"]


def test_what_a_direct_flatten_has_closed_is_in_it_by_its_source(world: Recorded) -> None:
    """No order of it was ever journaled, and the bridge that reads it back knows no flag."""
    world.command(CommandKind.KILL)
    row = np.zeros(1, EXECUTION)
    row["t_socket_ns"], row["exec_id"], row["qty"], row["price"] = world.clock.now, b"c.01.01", 100.0, 10.0
    row["side"], row["kind"], row["source"] = -1, ExecKind.FILL, Source.WATCHDOG
    row["flags"] = ExecFlag.REPLAYED
    world.ctx[topology.BRIDGE].ring_writer("executions").publish(row)
    with world.record() as journal:
        found = report(journal, incidents(journal)[0]["id"])
    assert found is not None
    assert [e["exec_id"] for e in found.executions] == ["c.01.01"]
    assert "nothing was held" not in as_text(found)


def test_the_index_is_in_percent_and_equity_in_dollars(world: Recorded) -> None:
    world.run(0.2)
    world.tick_index(world.index * 0.949)
    world.run(1)
    with world.record() as journal:
        found = report(journal, incidents(journal)[0]["id"])
    assert found is not None
    assert [(c["badge"], round(c["value"], 1), c["limit"], c["unit"]) for c in found.causes] == [("DD", 5.1, 5.0, "%")]


def test_a_flatten_by_hand_is_an_incident_of_its_own_and_no_stranger_is_shown_for_it(world: Recorded) -> None:
    world.command(CommandKind.KILL, reason="first")
    world.run(32, step_ms=20)
    assert world.command(CommandKind.RESET)[0] == 0
    world.run(130, step_ms=100)  # a badge of that time could no longer be its cause
    world.hold(1, 25.0)
    world.run(0.5)
    assert world.command(CommandKind.FLATTEN, reason="enough for today")[0] == 0
    world.run(3)
    flatten_id = world.agent.flattening.state.flatten_id
    with world.record() as journal:
        stop, hand = incidents(journal)
        assert [(i["state"], i["by_hand"]) for i in (stop, hand)] == [("RELEASED", False), ("FLAT", True)]
        found = report(journal, hand["id"])
        same = [report(journal, n) for n in (flatten_id, hand["id"] + 1)]
        first = report(journal, stop["id"])
    assert found is not None
    assert first is not None
    assert [s.id for s in same if s] == [hand["id"]] * 2
    assert [(o["side"], o["symbol"], o["qty"], o["state"]) for o in found.orders] == [("SELL", "MSFT", 25.0, "FILLED")]
    assert first.orders == []
    text = as_text(found)
    assert "no badge: started: flatten by jo: enough for today" in text
    assert "start to flat" in text
    assert ", flat " in text.splitlines()[1]
    assert "`l2dash resume`" in found.left[0]


def test_a_flatten_by_hand_that_has_not_ended_is_open(world: Recorded) -> None:
    world.bridge_fills = False
    world.hold(1, 25.0)
    world.command(CommandKind.FLATTEN)
    world.run(1)
    with world.record() as journal:
        (hand,) = incidents(journal)
        found = report(journal, hand["id"])
    assert hand["state"] == "OPEN"
    assert found is not None
    assert found.left[0].startswith("NOT confirmed flat")


def test_a_watchdog_that_dies_before_the_latch_is_on_disk_makes_no_second_incident(world: Recorded) -> None:
    world.settle()
    latch = world.state_dir / "latch.json"
    before = latch.read_bytes()
    world.command(CommandKind.KILL)
    world.run(0.5)
    world.agent._files.flush(5.0)
    latch.write_bytes(before)
    world.restart()
    world.run(0.5)
    assert world.killed
    with world.record() as journal:
        assert len(incidents(journal)) == 1


def test_nothing_is_known_by_a_number_of_nothing(world: Recorded) -> None:
    with world.record() as journal:
        assert incidents(journal) == []
        assert report(journal, 123_456_789) is None


def test_the_command_prints_it_and_as_json(world: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    world.hold(2, 1_001.0)
    world.run(2)
    with world.record() as journal:
        number = incidents(journal)[0]["id"]
        found = report(journal, number, world.inst.config.guardrails.cooling_s)
    assert found is not None
    monkeypatch.setattr("engine.cli.incident.target_or_starting", lambda *_: world.inst.config)
    text = CliRunner().invoke(incident, [str(number)]).output
    for part in ("What tripped", "POS", "Course", "Closing orders", "SELL", "Executions", "Left to do"):
        assert part in text, text
    assert json.loads(CliRunner().invoke(incident, [str(number), "--json"]).output) == json.loads(
        json.dumps(as_dict(found))
    )
    assert "OPEN" in CliRunner().invoke(incident, []).output
    unknown = CliRunner().invoke(incident, ["99999"])
    assert unknown.exit_code != 0
