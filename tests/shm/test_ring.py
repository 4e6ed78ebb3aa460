from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shm import kernels
from shm.errors import RegionReplaced
from shm.layouts import EVENT, INTENT, TICK
from shm.region import Region
from shm.ring import (
    Gate,
    RingFull,
    RingReader,
    RingWriter,
    check_cursor,
    check_ring,
    cursor_at,
    cursor_spec,
    ring_spec,
)


def ticks(first: int, count: int) -> np.ndarray:
    records = np.zeros(count, TICK)
    records["price"] = np.arange(first, first + count)
    records["size"] = -records["price"]
    return records


def make(shm_dir: Path, capacity: int, name: str = "ring") -> tuple[Region, RingWriter, RingReader]:
    region = Region.create(shm_dir, ring_spec(name, TICK, capacity), 1)
    cursors = Region.create(shm_dir, cursor_spec(f"{name}.c", 2), 1)
    return region, RingWriter(region, TICK), RingReader(region, TICK, cursors.words, cursor_at(0), batch=capacity)


def test_records_arrive_in_order_with_their_sequence(shm_dir: Path) -> None:
    _, writer, reader = make(shm_dir, 64)
    writer.publish(ticks(0, 10))
    writer.publish(ticks(10, 10))
    got = reader.poll()
    assert got["price"].tolist() == list(range(20))
    assert got["sequence"].tolist() == list(range(20))
    assert len(reader.poll()) == 0


def test_lapped_reader_reports_exactly_how_many_it_lost(shm_dir: Path) -> None:
    _, writer, reader = make(shm_dir, 64)
    for start in range(0, 1000, 10):
        writer.publish(ticks(start, 10))
    got = reader.poll()
    assert reader.last_gap == got["sequence"][0] > 0
    assert reader.lost + len(got) + reader.waiting == 1000
    assert got["price"].tolist() == got["sequence"].astype(float).tolist()


def test_a_batch_larger_than_the_ring_is_published_whole(shm_dir: Path) -> None:
    region, writer, reader = make(shm_dir, 16)
    writer.publish(ticks(0, 100))
    got = reader.poll()
    assert reader.lost + len(got) + reader.waiting == 100
    assert check_ring(region) == []


def test_full_gated_ring_tells_the_writer_and_writes_nothing(shm_dir: Path) -> None:
    region = Region.create(shm_dir, ring_spec("orders", INTENT, 8), 1)
    cursors = Region.create(shm_dir, cursor_spec("c", 1), 1)
    writer = RingWriter(region, INTENT, (Gate(cursors.words, cursor_at(0)),))
    reader = RingReader(region, INTENT, cursors.words, cursor_at(0))
    for _ in range(8):
        writer.publish_record()
    with pytest.raises(RingFull, match="orders is full"):
        writer.publish_record()
    assert writer.tail == 8
    assert len(reader.poll()) == 8
    assert writer.room() == 8
    writer.publish_record()


def test_reader_resumes_at_its_persistent_cursor(shm_dir: Path) -> None:
    region, writer, _ = make(shm_dir, 64)
    cursors = Region.attach(shm_dir, cursor_spec("ring.c", 2), writable=True)
    first = RingReader(region, TICK, cursors.words, cursor_at(1), batch=4)
    writer.publish(ticks(0, 10))
    first.poll()
    second = RingReader(region, TICK, cursors.words, cursor_at(1), batch=64)
    assert second.poll()["price"].tolist() == list(range(4, 10))


def wreck(region: Region, first: int, claimed: int, published: int) -> None:
    """What a writer leaves that died in the middle of a batch: marks, scribble, some records whole, no new tail."""
    capacity, words = region.spec.capacity, region.spec.words
    for n in range(first, first + claimed):
        slot = kernels.SLOTS + n % capacity * words
        region.words[slot : slot + words] = 0x0BAD
        region.words[slot] = kernels.WRITING - n
    for n in range(first, first + published):
        slot = kernels.SLOTS + n % capacity * words
        region.words[slot + 1 : slot + words] = ticks(n, 1).view(np.int64)[1:]
        region.words[slot] = n


def test_writer_that_died_in_a_batch_is_continued_and_the_wreck_is_never_read(shm_dir: Path) -> None:
    region, writer, reader = make(shm_dir, 16)
    writer.publish(ticks(0, 16))
    wreck(region, 16, 8, 0)
    assert check_ring(region) == []
    got = reader.poll()
    assert (got["price"] == got["sequence"]).all()
    assert reader.last_gap >= 8
    heir = RingWriter(region, TICK)
    reader.poll()
    heir.publish(ticks(16, 3))
    assert reader.poll()["price"].tolist() == [16.0, 17.0, 18.0]
    assert check_ring(region) == []


def test_heir_keeps_the_records_that_the_dead_writer_published_without_moving_the_tail(shm_dir: Path) -> None:
    region, writer, _ = make(shm_dir, 16)
    writer.publish(ticks(0, 5))
    wreck(region, 5, 4, 2)
    cursor, out = np.zeros(8, np.int64), np.zeros(8, np.int64)
    cursor[0] = 5
    for n in (5, 6):  # a reader of single records has seen them already: the heir must not write others in their place
        assert kernels.ring_poll_one(region.words, cursor, 0, out, 16, 8) == 1
        assert out.view(TICK)["price"][0] == n
    assert kernels.ring_poll_one(region.words, cursor, 0, out, 16, 8) == 0
    heir = RingWriter(region, TICK)
    assert heir.tail == 7
    heir.publish(ticks(7, 1))
    assert kernels.ring_poll_one(region.words, cursor, 0, out, 16, 8) == 1
    assert out.view(TICK)["price"][0] == 7
    assert check_ring(region) == []


def test_polling_one_record_at_a_time_sees_every_record_and_every_gap(shm_dir: Path) -> None:
    region, writer, _ = make(shm_dir, 16)
    cursor, out = np.zeros(8, np.int64), np.zeros(8, np.int64)
    assert kernels.ring_poll_one(region.words, cursor, 0, out, 16, 8) == 0
    for n in range(10):
        writer.publish(ticks(n, 1))
        assert kernels.ring_poll_one(region.words, cursor, 0, out, 16, 8) == 1
        assert out.view(TICK)["price"][0] == n == out[0]
        assert kernels.ring_poll_one(region.words, cursor, 0, out, 16, 8) == 0
    writer.publish(ticks(10, 40))
    lost = kernels.LAPPED - int(kernels.ring_poll_one(region.words, cursor, 0, out, 16, 8))
    assert lost == 50 - 8 - 10
    assert kernels.ring_poll_one(region.words, cursor, 0, out, 16, 8) == 1
    assert out[0] == 42


def test_records_of_several_lines_arrive_whole(shm_dir: Path) -> None:
    region = Region.create(shm_dir, ring_spec("events", EVENT, 8), 1)
    cursors = Region.create(shm_dir, cursor_spec("c", 1), 1)
    writer, reader = RingWriter(region, EVENT), RingReader(region, EVENT, cursors.words, cursor_at(0))
    for n in range(20):
        writer.record["text"] = b"%d" % n * 50
        writer.record["t_ns"], writer.record["price"] = n, -n
        writer.publish_record()
        (got,) = reader.poll()
        assert (got["sequence"], got["t_ns"], got["price"], got["text"]) == (n, n, -n, b"%d" % n * 50)


def test_reader_of_a_removed_ring_learns_it_after_the_last_record(shm_dir: Path) -> None:
    region, writer, _ = make(shm_dir, 16)
    theirs = Region.attach(shm_dir, region.spec)
    cursor = np.zeros(8, np.int64)
    reader = RingReader(theirs, TICK, cursor, 0)
    writer.publish(ticks(0, 3))
    region.retire()
    assert len(reader.poll()) == 3
    with pytest.raises(RegionReplaced, match="region ring was removed; this process mapped generation 1"):
        reader.poll()


def test_cursor_of_another_generation_begins_at_record_zero_and_says_so(shm_dir: Path) -> None:
    region, writer, reader = make(shm_dir, 16)
    cursors = Region.attach(shm_dir, cursor_spec("ring.c", 2), writable=True)
    writer.publish(ticks(0, 5))
    reader.poll()
    region.path.unlink()
    again = Region.create(shm_dir, ring_spec("ring", TICK, 16), 2)
    RingWriter(again, TICK).publish(ticks(100, 2))
    heir = RingReader(again, TICK, cursors.words, cursor_at(0))
    assert heir.restarted
    assert heir.poll()["price"].tolist() == [100.0, 101.0]
    assert not RingReader(again, TICK, cursors.words, cursor_at(0)).restarted
    assert check_cursor(cursors.words, cursor_at(0), again) == []
    cursors.words[cursor_at(0)] = 77
    assert "position 77 is beyond the tail 2" in check_cursor(cursors.words, cursor_at(0), again)[0]


def test_a_gated_writer_looks_at_its_readers_only_when_the_last_look_leaves_no_room(shm_dir: Path) -> None:
    region = Region.create(shm_dir, ring_spec("orders", INTENT, 8), 1)
    cursors = Region.create(shm_dir, cursor_spec("c", 1), 1)
    writer = RingWriter(region, INTENT, (Gate(cursors.words, cursor_at(0)),))
    for _ in range(4):
        writer.publish_record()
    cursors.words[cursor_at(0)] = -1_000  # never looked at while four more fit
    for _ in range(4):
        writer.publish_record()
    cursors.words[cursor_at(0)] = 3
    for _ in range(3):
        writer.publish_record()
    with pytest.raises(RingFull):
        writer.publish_record()


def test_records_that_are_not_whole_cache_lines_are_refused() -> None:
    with pytest.raises(ValueError, match="ring r: records of 8 bytes are not whole cache lines of 64"):
        ring_spec("r", np.dtype([("sequence", "<i8")]), 8)


def test_a_broken_slot_number_is_found_by_check(shm_dir: Path) -> None:
    region, writer, _ = make(shm_dir, 16)
    writer.publish(ticks(0, 12))
    assert check_ring(region) == []
    region.words[kernels.SLOTS + 3 * 8] = 77
    assert "slot of record 3 holds 77" in check_ring(region)[0]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from("pr"), st.integers(1, 40)), max_size=40))
def test_any_interleaving_equals_a_list(shm_dir: Path, steps: list[tuple[str, int]]) -> None:
    for old in shm_dir.iterdir():
        old.unlink()
    region, writer, reader = make(shm_dir, 32)
    published, position = 0, 0
    for op, count in steps:
        if op == "p":
            writer.publish(ticks(published, count))
            published += count
        else:
            got = reader.poll()
            position += reader.last_gap
            assert got["price"].tolist() == list(range(position, position + len(got)))
            position += len(got)
            assert position + reader.waiting == published
    assert check_ring(region) == []
