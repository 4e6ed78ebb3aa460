from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shm import kernels
from shm.layouts import INTENT, TICK
from shm.region import Region
from shm.ring import Gate, RingFull, RingReader, RingWriter, check_ring, cursor_at, cursor_spec, ring_spec


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


def test_writer_that_died_between_intent_and_tail_is_continued_and_the_wreck_is_never_read(shm_dir: Path) -> None:
    region, writer, reader = make(shm_dir, 16)
    writer.publish(ticks(0, 16))
    # The wreck: an intent for 8 more records and half of them scribbled, but no tail.
    region.words[kernels.INTENT] = 24
    region.words[kernels.SLOTS : kernels.SLOTS + 8 * 8] = 0x0BAD
    got = reader.poll()
    assert (got["price"] == got["sequence"]).all()
    assert reader.last_gap >= 8
    heir = RingWriter(region, TICK)
    reader.poll()
    heir.publish(ticks(16, 3))
    assert reader.poll()["price"].tolist() == [16.0, 17.0, 18.0]
    assert int(region.words[kernels.INTENT]) == 24


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
