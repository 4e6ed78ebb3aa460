"""The day's start and peak on disk: two copies, and a person's word when both are gone in the day."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from world import World

from engine.domain.codes import BadgeState, CommandKind, EventKind, Severity, TradingState
from engine.procs.watchdog_parts import day as days
from engine.risk.guardrails import kernels as k
from engine.risk.guardrails.dd import Day

FILES = (days.FILE, days.COPY)


@pytest.fixture
def risen(world: World) -> World:
    """A day that stood at 1,003,000 and is back at 1,000,000: its peak is what a restart may not forget."""
    world.hold(0, 300.0)
    for mid in (110.0, 100.0):
        world.mids[0] = world.books.value[0]["fair_value"] = mid
        world.run(1.2)
    assert figures(world) == (1_000_000.0, 1_003_000.0)
    return world


def figures(world: World) -> tuple[float, float]:
    cell = world.guardrails.read(0)
    return float(cell["day_start_usd"]), float(cell["peak_usd"])


def break_files(world: World, change: Callable[[Path], None], names: tuple[str, ...]) -> None:
    world.agent._files.flush(5.0)
    for name in names:
        change(world.state_dir / name)


def edited(**values: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        document = json.loads(path.read_text())
        document["day"].update(values)
        path.write_text(json.dumps(document))

    return change


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:120]), "can't be read"),
    "empty": (lambda p: p.write_bytes(b""), "can't be read"),
    "garbage": (lambda p: p.write_bytes(b"\x00\xff" * 300), "can't be read"),
    "missing": (lambda p: p.unlink(), "is missing"),
    "not a number": (edited(peak_usd=float("nan")), "peak_usd is nan"),
    "no value": (edited(start_usd=None), "start_usd is None"),
    "no end": (edited(base_usd=float("inf")), "base_usd is inf"),
    "words": (edited(peak_usd="1003000"), "peak_usd is '1003000'"),
    "no key": (lambda p: p.write_text('{"version": 1, "epoch": 2}'), "has no 'day'"),
    "no document": (lambda p: p.write_text("[1]"), "can't be read"),
    "another version": (lambda p: p.write_text('{"version": 2}'), "version 2"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_not_believed_and_says_what_is_wrong(tmp_path: Path, name: str) -> None:
    change, words = BROKEN[name]
    path = tmp_path / days.FILE
    day = Day(20240102, 1.0, 2.0, 3.0)
    path.write_bytes(days.encode(day, 7, SimpleNamespace(names=("A",), memory=k.new_memory(1))))  # type: ignore[arg-type]
    whole = days._read(path)
    assert (whole.day.peak_usd, whole.epoch, whole.trouble) == (3.0, 7, "")
    change(path)
    assert words in days._read(path).trouble
    assert days._read(path).day.session == 0


@pytest.mark.parametrize(
    ("name", "file"), [("truncated", days.FILE), ("not a number", days.COPY), ("missing", days.FILE)]
)
def test_one_broken_copy_costs_nothing_but_a_note(risen: World, name: str, file: str) -> None:
    change, words = BROKEN[name]
    break_files(risen, change, (file,))
    risen.restart()
    risen.run(0.3)
    assert risen.state == TradingState.ACTIVE
    assert figures(risen) == (1_000_000.0, 1_003_000.0)
    notes = [e for e in risen.events if e["kind"] == EventKind.ALERT and words.encode() in bytes(e["text"])]
    assert [int(e["severity"]) for e in notes] == [Severity.P2]
    risen.agent._files.flush(5.0)
    assert all(days.parse((risen.state_dir / f).read_text()).day.peak_usd == 1_003_000.0 for f in FILES), "whole again"


@pytest.mark.parametrize("name", ["truncated", "garbage", "missing", "not a number", "another day"])
def test_without_a_copy_of_this_day_entries_wait_for_a_person_and_somebody_is_paged(risen: World, name: str) -> None:
    change, words = BROKEN.get(name, (edited(session=20231229), "risk.json is of 20231229"))
    break_files(risen, change, FILES)
    risen.restart()
    risen.run(0.3)
    assert risen.state == TradingState.PAUSED
    assert risen.positions.value[0]["qty"] == 300.0, "a good book is not flattened for a file"
    pages = [e for e in risen.events if e["kind"] == EventKind.ALERT and b"peak are lost" in bytes(e["text"])]
    assert [int(e["severity"]) for e in pages] == [Severity.P1]
    assert words in bytes(pages[0]["text"]).decode()
    assert figures(risen) == (1_000_000.0, 1_000_000.0), "guarded meanwhile, from where the account stands"
    assert risen.badge(4)["state"] == BadgeState.OK
    assert risen.command(CommandKind.RESUME)[0] == 0
    risen.run(0.3)
    risen.restart()
    risen.run(0.3)
    assert risen.state == TradingState.ACTIVE, "said once, by the operator who resumed"


def test_a_restart_before_the_operator_has_looked_stays_paused(risen: World) -> None:
    break_files(risen, BROKEN["garbage"][0], FILES)
    for _ in range(2):
        risen.restart()
        risen.run(0.3)
        assert risen.state == TradingState.PAUSED


def test_the_very_first_start_and_a_new_day_ask_nobody(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.run(0.5)
    assert world.state == TradingState.ACTIVE
    assert not world.said(EventKind.ALERT)
    session = world.agent.guard.day.day.session
    for _ in range(100):  # it counts once it is on disk
        if world.agent.stops.latch.day_session == session:
            break
        world.settle()
        world.run(0.1)
    assert world.agent.stops.latch.day_session == session
    world.clock._offset_ns += 3 * 86_400 * 1_000_000_000
    break_files(world, BROKEN["garbage"][0], FILES)
    world.restart()
    world.run(0.5)
    assert world.agent.guard.day.day.session > session
    assert world.state != TradingState.PAUSED, "what is broken is of a day that is over"
    world.close()


def test_the_latch_speaks_of_a_day_only_once_its_figures_are_on_disk(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.agent._files._files._failed[tmp_path / days.COPY] = b"x"  # type: ignore[attr-defined]
    world.agent._files._files.write = lambda *_: None  # type: ignore[method-assign]
    for _ in range(200):
        world.clock.advance(2_000_000)
        world._others()
        world.agent.do_work(world.clock.now)
    assert world.agent.guard.day.day.session
    assert world.agent.stops.latch.day_session == 0
    world.agent._files._files._failed.clear()  # type: ignore[attr-defined]
    world.close()
