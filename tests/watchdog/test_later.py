"""The wire comes first: what a cycle tells and writes follows its closing orders, and nothing of it is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from world import MS, World

from engine.domain.codes import EventKind
from engine.procs.watchdog_parts.flattening import Flattening
from engine.procs.watchdog_parts.later import LateFiles
from engine.risk import latch
from engine.risk.latch import StopEvent


class Files:
    """Where files go, in order."""

    def __init__(self) -> None:
        self.written: list[tuple[str, bytes]] = []

    def write(self, path: Path, data: bytes) -> None:
        self.written.append((path.name, data))

    idle = True


def files() -> tuple[LateFiles, Files]:
    kept = Files()
    return LateFiles(kept), kept  # type: ignore[arg-type]


def test_held_files_are_encoded_at_the_release_and_only_their_newest_version() -> None:
    late, kept = files()
    encoded: list[int] = []

    def encode(number: int) -> Callable[[], bytes]:
        def run() -> bytes:
            encoded.append(number)
            return str(number).encode()

        return run

    late.hold()
    late.write(Path("a"), encode(1))
    late.write(Path("b"), encode(2))
    late.write(Path("a"), encode(3))
    assert (kept.written, encoded, late.idle) == ([], [], False)
    late.release()
    assert kept.written == [("b", b"2"), ("a", b"3")]
    assert late.idle
    late.write(Path("c"), encode(4))
    assert kept.written[-1] == ("c", b"4"), "outside a cycle at once"


def test_latch_and_closes_are_out_before_a_word_is_said_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    try:
        world.run(0.5)
        world.hold(0, 100.0)
        world.run(1.5)
        seen: list[Any] = []
        take(world)
        published = Flattening._publish_closes

        def publish(self: Flattening, *arguments: Any) -> None:
            published(self, *arguments)
            held = list(world.agent._files._held or {})
            seen.append((bool(world.stop.read(0)["kill"]), len(take(world)), held))

        monkeypatch.setattr(Flattening, "_publish_closes", publish)
        world.tick_index(world.index * 0.949)
        world.agent.do_work(world.clock.advance(MS))
        ((latched, told, held),) = seen
        assert (latched, told) == (True, 0)
        assert tmp_path / latch.FILE in held
        told_now = take(world)
        order = [EventKind(int(e["kind"])) for e in told_now]
        assert StopEvent.KILL in [int(e["code"]) for e in told_now if e["kind"] == EventKind.STOP]
        assert order.index(EventKind.GUARDRAIL) < order.index(EventKind.STOP) < order.index(EventKind.FLATTEN)
        assert world.agent._files.flush(10.0)
        assert latch.load(tmp_path, "sim", 0, 0).kill
    finally:
        world.close()


def test_a_cycle_that_fails_says_what_it_had_to_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    try:
        world.run(0.5)
        world.hold(0, 100.0)
        world.run(1.5)

        def broken(*_: Any) -> None:
            raise RuntimeError("broken")

        monkeypatch.setattr(Flattening, "_publish_closes", broken)
        world.tick_index(world.index * 0.949)
        with pytest.raises(RuntimeError, match="broken"):
            world.agent.do_work(world.clock.advance(MS))
        assert EventKind.STOP in [EventKind(int(e["kind"])) for e in take(world)]
        assert world.agent._files.flush(10.0)
        assert latch.load(tmp_path, "sim", 0, 0).kill
    finally:
        world.close()


def take(world: World) -> list[Any]:
    """What the watchdog has said since the last look."""
    return list(world._events.poll().copy())


def test_a_rehearsal_says_writes_and_sends_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    try:
        world.run(0.5)
        world.hold(0, 100.0)
        world.run(1.5)
        take(world)
        flattening = world.agent.flattening
        ids = world.agent._ctx.ids._count
        state = flattening.state
        flattening.rehearse(world.clock.now)
        world.serve_bridge()
        assert (flattening.state, world.orders, take(world)) == (state, [], [])
        assert world.agent._ctx.ids._count == ids
    finally:
        world.close()
