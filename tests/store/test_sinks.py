"""When the disk is full, slow or failing: the recorder says so, goes on draining, and loses nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

from engine.domain.codes import EventKind
from engine.procs.recorder import create
from engine.runtime.testing import instance
from engine.store.blocks import BlockKind, Header
from engine.store.journal import journal_path, verify
from engine.store.journal_read import JournalReader
from engine.store.read import read_day, recorded_days
from engine.store.segments import SegmentWriter
from engine.store.sinks import TickSink

from .conftest import ticks, until

DAY = 20240102


def offer(sink: TickSink, first: int, count: int = 1_000) -> None:
    sink.offer("ticks", DAY, Header(BlockKind.TICK, first, first + count, 1, 0, 0, 0), ticks(count, first))


def test_a_recorder_on_a_full_disk_is_degraded_pages_and_catches_up_when_there_is_room(
    disk: Callable[[int], Path],
) -> None:
    place = disk(4_096)
    with instance(place / "state", {"recorder": {"min_free_bytes": 1}}) as world:
        agent = create(world.context("recorder"))
        agent.on_start(world.clock.now_ns())
        ring, emit = world.context("broker-bridge").ring_writer("ticks"), world.context("algo").events.emit
        ballast = place / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4_096))

        def turn() -> None:
            agent.do_work(world.clock.now_ns())
            world.clock.advance(1_000_000_000)
            agent.housekeeping(world.clock.now_ns())

        ring.publish(ticks(3_000))
        for n in range(500):
            emit(EventKind.MODEL, 1, ref_id=n, text="x" * 100)

        def both() -> bool:
            turn()
            return sum("free the disk" in p for p in agent.problems) == 2

        until(both)
        assert agent.degraded
        until(lambda: bool(agent._alerts.book.incidents))
        assert any("commit failed" in line for i in agent._alerts.book.incidents for line in i.lines)
        ballast.unlink()

        def well() -> bool:
            turn()
            return not agent.degraded

        until(well)
        agent.on_close(world.clock.now_ns())
        state = world.config.state_dir
        assert sum(len(read_day(state, d)) for d in recorded_days(state)) == 3_000
        with JournalReader(journal_path(state)) as journal:
            assert [e["ref_id"] for e in journal.events(limit=5_000) if e["kind"] == "MODEL"] == list(range(500))
        assert verify(journal_path(state)).sound


def test_a_sync_that_failed_once_degrades_until_the_restart_although_nothing_is_lost(tmp_path: Path) -> None:
    failures = iter([True])

    def failing(fd: int) -> None:
        if next(failures, False):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fdatasync(fd)

    sink = TickSink({"ticks": SegmentWriter(tmp_path / "ticks", "ticks", 1 << 26, fdatasync=failing)}, 0.01)
    sink.start()
    offer(sink, 0)
    until(lambda: bool(sink.health.problem))
    offer(sink, 1_000)
    until(lambda: sink.synced.get("ticks") == 2_000)
    assert sink.health.sticky
    assert "restart the recorder" in sink.health.problem
    assert not sink.close()
    assert read_day(tmp_path, DAY).tobytes() == ticks(2_000).tobytes()


def test_a_disk_that_hangs_in_a_sync_stops_neither_offers_nor_reports_success(tmp_path: Path) -> None:
    hung, mended = threading.Event(), threading.Event()

    def hanging(fd: int) -> None:
        hung.set()
        assert mended.wait(10)
        os.fdatasync(fd)

    sink = TickSink({"ticks": SegmentWriter(tmp_path / "ticks", "ticks", 1 << 26, fdatasync=hanging)}, 0.01)
    sink.start()
    offer(sink, 0)
    assert hung.wait(10)
    count = 1
    while sink.room:
        offer(sink, count * 1_000)
        count += 1
    assert count == 257
    assert sink.synced == {}
    mended.set()
    assert sink.close()
    assert sink.synced == {"ticks": count * 1_000}
    assert len(read_day(tmp_path, DAY)) == count * 1_000
