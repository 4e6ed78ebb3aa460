"""Operators at the watchdog: what is refused, by name and in the journal, and what an excuse does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from world import MS, World

from engine.domain.codes import Badge, BlockReason, CommandKind, EventKind, FlattenState, Source
from engine.procs.watchdog_parts import flattening as flattenings
from engine.risk import latch as latches
from engine.risk.release import EXCUSE_REMAINING


def results(world: World) -> dict[int, tuple[int, str]]:
    """Command id -> (code, text): what every command was answered."""
    return {
        int(e["ref_id"]): (int(e["code"]), bytes(e["text"]).decode())
        for e in world.events
        if e["kind"] == EventKind.COMMAND_RESULT
    }


def give(world: World, kind: CommandKind, command_id: int, source: Source = Source.CLI, who: str = "jo") -> None:
    """Write a command without waiting for its result."""
    r = world._cli.record
    r[0] = 0
    r["t_ns"], r["command_id"], r["symbol"], r["kind"] = world.clock.now, command_id, 0xFFFF, int(kind)
    r["source"], r["who"], r["reason"] = int(source), who.encode(), b"test"
    world._cli.publish_record()


def cooled(world: World) -> None:
    world.command(CommandKind.KILL)
    world.run(32, step_ms=20)


def test_two_resets_at_once_release_once_and_the_other_is_refused_by_name(world: World) -> None:
    cooled(world)
    give(world, CommandKind.RESET, 1)
    give(world, CommandKind.RESET, 2)
    world.run(0.2)
    found = results(world)
    assert found[1] == (0, "released; now ACTIVE")
    assert found[2] == (1, "another release is being written")
    assert sum("RELEASED" in t or "reset by" in t for t in world.said(EventKind.STOP)) == 1


@pytest.mark.parametrize("kind", [CommandKind.RESET, CommandKind.RESUME])
def test_what_is_not_a_person_releases_nothing(world: World, kind: CommandKind) -> None:
    world.command(CommandKind.PAUSE)
    cooled(world)
    give(world, kind, 1, source=Source.ALGO)
    give(world, CommandKind.RESET, 2, who="")
    world.run(0.2)
    found = results(world)
    assert found[1] == (1, "only an operator releases a stop, by cockpit, API or command line")
    assert found[2] == (1, "a reset needs a name: who releases it")
    assert world.killed


def test_a_reset_on_a_full_disk_is_refused_and_what_is_on_disk_says_latched(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cooled(world)
    real, path = latches.replace_file, world.state_dir / latches.FILE
    tried: list[bytes] = []

    def full(target: Path, data: bytes) -> None:
        if target.name == latches.FILE:
            tried.append(data)
            raise OSError(28, "No space left on device")
        real(target, data)

    monkeypatch.setattr(latches, "replace_file", full)
    monkeypatch.setattr(latches, "RETRY_S", 0.01)
    code, text = world.command(CommandKind.RESET)
    assert (code, text) == (1, "the latch file can't be written: KILL holds")
    assert world.killed
    assert any("could not be written" in t for t in world.said(EventKind.ALERT))
    monkeypatch.setattr(latches, "replace_file", real)
    while world.agent._files.failed(path):
        world.run(0.05)
    assert json.loads(path.read_text())["kill"] is True, "a release that was refused must never reach the disk"
    assert world.command(CommandKind.RESET)[0] == 0


def test_a_halted_leftover_is_excused_by_name_confirmed_cooled_and_released(world: World) -> None:
    world.hold(0, 10.0)
    world.hold(1, 5.0)
    world.books.value[0]["halted"] = 1
    world.run(0.1)
    assert any("AAPL halted: entries blocked, holding AAPL +10" in t for t in world.said(EventKind.ALERT))
    world.command(CommandKind.KILL)
    world.run(8, step_ms=10)
    assert world.agent.flattening.active
    assert world.positions.value[1]["qty"] == 0.0
    assert any("halted; remaining: AAPL +10" in t for t in world.said(EventKind.ALERT))
    code, text = world.command(CommandKind.RESET, flags=EXCUSE_REMAINING, reason="keep it")
    assert code == 1
    assert "the reason must name what remains: AAPL" in text
    assert world.agent.flattening.state.excused == 0
    code, text = world.command(CommandKind.RESET, flags=EXCUSE_REMAINING, reason="AAPL is halted")
    assert code == 1
    assert "flatten is still running" in text
    assert "what was named is excused" in text
    world.run(3, step_ms=10)
    assert world.agent.flattening.state.state == FlattenState.FLAT
    code, text = world.command(CommandKind.RESET, flags=EXCUSE_REMAINING, reason="AAPL is halted")
    assert code == 1
    assert "cooling for another" in text
    assert "flatten" not in text
    world.run(31, step_ms=20)
    code, text = world.command(CommandKind.RESET, flags=EXCUSE_REMAINING, reason="AAPL is halted")
    assert code == 0, text
    assert world.positions.value[0]["qty"] == 10.0


def test_confirmed_flat_is_remembered_over_a_restart_but_not_over_a_reboot(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.command(CommandKind.KILL)
    world.run(20, step_ms=20)
    since = world.agent.flattening.flat_since_ns
    assert since
    world.restart()
    assert world.agent.flattening.flat_since_ns == since, "the cooling goes on"
    monkeypatch.setattr(latches, "boot_id", lambda: "another boot")
    world.restart()
    assert world.agent.flattening.flat_since_ns == 0
    world.run(5, step_ms=20)
    assert world.agent.flattening.flat_since_ns > since, "confirmed anew, and the cooling with it"
    assert "cooling for another 0:2" in world.command(CommandKind.RESET)[1]


def test_a_flat_of_before_the_kill_says_nothing_about_after_it(world: World) -> None:
    cooled(world)
    world.command(CommandKind.RESET)
    old = world.agent.flattening.state
    assert old.state == FlattenState.FLAT
    world.agent.stops.kill(1 << Badge.KILL, "killed, and the watchdog dies at once", world.clock.now)
    world.restart()
    assert world.agent.flattening.flat_since_ns == 0


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"state": 2, "unknown": 1}'])
def test_a_flatten_file_that_cant_be_read_while_killed_means_get_flat(world: World, content: bytes) -> None:
    world.hold(0, 10.0)
    world.bridge_fills = False
    world.command(CommandKind.KILL)
    world.agent._files.flush(5)
    world.agent.takeover.close()
    (world.state_dir / flattenings.FILE).write_bytes(content)
    world.bridge_fills = True
    world.agent = world.new_watchdog()
    world.run(3)
    assert world.positions.value[0]["qty"] == 0.0
    assert world.agent.flattening.state.state == FlattenState.FLAT


def test_a_price_rule_names_the_tick_that_broke_it_as_its_cause(world: World) -> None:
    world.hold(0, 900.0)
    world.run(0.2)
    world.mids[0] = 120.0
    world.books.value[0]["fair_value"] = 120.0
    world.run(1)
    tick_ns = next(int(e["t_ns"]) for e in world.events if e["kind"] == EventKind.GUARDRAIL and e["code"] == Badge.POS
                   and b"TRIPPED" in bytes(e["text"]))  # fmt: skip
    cause_ns = int(world.flatten.read(0)["cause_ns"])
    assert 0 <= tick_ns - cause_ns <= 22 * MS, "the quote's time at the socket, not the time of the evaluation"
    assert cause_ns % (20 * MS) == int(world.books.value[0]["t_socket_ns"]) % (20 * MS)


def test_a_slow_evaluation_blocks_and_kills_after_a_second(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = iter(range(0, 10**15, 30 * MS))
    monkeypatch.setattr(world.clock, "cpu_ns", lambda: next(cpu))
    world.run(0.1)
    assert world.agent.guard.blocks.reasons >> BlockReason.EVALUATOR_SLOW & 1
    assert not world.killed
    world.run(1.2)
    assert world.killed
    assert any("evaluating the guardrails takes 30 ms of CPU" in t for t in world.said(EventKind.STOP))


def test_one_slow_evaluation_blocks_and_clears(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0, 30 * MS])
    monkeypatch.setattr(world.clock, "cpu_ns", lambda: next(times, 0))
    world.run(0.1)
    assert world.agent.guard.blocks.reasons >> BlockReason.EVALUATOR_SLOW & 1
    world.run(1.5)
    assert not world.agent.guard.blocks.reasons
    assert not world.killed


def test_no_other_command_releases_a_kill(world: World) -> None:
    cooled(world)
    for kind in (CommandKind.PAUSE, CommandKind.KILL, CommandKind.FLATTEN, CommandKind.RESUME):
        world.command(kind)
        assert world.killed
