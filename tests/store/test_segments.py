"""Segments under damage: every byte cut, every byte flipped, full disks, failing syncs."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.store.blocks import Block, BlockKind, Damage, Header, block_records, encode, scan
from engine.store.files import StoreError
from engine.store.read import day_gaps, iter_blocks, read_day
from engine.store.seal import seal_closed_days, seal_segment
from engine.store.segments import SegmentWriter, last_position, recover, segments_of
from shm.layouts import TICK

from .conftest import ticks

DAY = 20240102
EPOCH = 42


def block(first: int, count: int, *, lost: int = 0, epoch: int = EPOCH) -> bytes:
    header = Header(BlockKind.TICK, first, first + count, epoch, 1_000, lost, 7)
    return encode(header, ticks(count, first))


def write(state: Path, *blocks: bytes, segment_bytes: int = 1 << 20) -> Path:
    writer = SegmentWriter(state / "ticks", "ticks", segment_bytes)
    for b in blocks:
        writer.append(DAY, b)
    writer.close()
    return writer.path


def test_a_block_of_the_largest_size_is_exactly_64_kib() -> None:
    assert len(block(0, block_records(BlockKind.TICK))) == 64 * 1024


def test_a_segment_cut_at_any_byte_loses_only_the_block_that_was_cut(tmp_path: Path) -> None:
    path = write(tmp_path, block(0, 3), block(3, 2), block(5, 4))
    whole = path.read_bytes()
    ends = [0, *(b.end for b in scan(whole) if isinstance(b, Block))]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        found = recover(path)
        kept = max(e for e in ends if e <= cut)
        assert (found.bytes, found.truncated_bytes, found.loud) == (kept, cut - kept, False)
        assert path.read_bytes() == whole[:kept]
        assert len(read_day(tmp_path, DAY)) == (0, 3, 5, 9)[ends.index(kept)]


def test_a_flipped_byte_anywhere_is_found_and_costs_only_its_block(tmp_path: Path) -> None:
    path = write(tmp_path, block(0, 2), block(2, 2), block(4, 2))
    whole = path.read_bytes()
    size = len(whole) // 3
    for at in range(len(whole)):
        data = bytearray(whole)
        data[at] ^= 0x40
        hit = at // size
        items = list(scan(bytes(data)))
        assert [i.offset for i in items if isinstance(i, Damage)] == [hit * size]
        expected = [n for n in range(6) if n // 2 != hit]
        assert [int(s) for i in items if isinstance(i, Block) for s in i.records["sequence"]] == expected


def test_a_damaged_middle_block_is_quarantined_loudly_and_stepped_over(tmp_path: Path) -> None:
    path = write(tmp_path, block(0, 2), block(2, 2), block(4, 2))
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)
    found = recover(path)
    assert found.loud
    assert found.truncated_bytes == 0
    (kept,) = (path.parent / "quarantine").iterdir()
    assert kept.read_bytes() == bytes(data[192:384])
    assert read_day(tmp_path, DAY)["sequence"].tolist() == [0, 1, 4, 5]
    (gap,) = day_gaps(tmp_path, DAY)
    assert gap.damaged_bytes == 192


def test_writing_continues_in_the_recovered_segment_and_rolls_to_the_next(tmp_path: Path) -> None:
    path = write(tmp_path, block(0, 10))
    with path.open("ab") as file:
        file.write(block(10, 10)[:100])
    assert last_position(tmp_path / "ticks", "ticks") == (EPOCH, 10)
    write(tmp_path, block(10, 10), block(20, 10), segment_bytes=1_500)
    assert [p.name for p in segments_of(path.parent, "ticks")] == ["ticks-000001.seg", "ticks-000002.seg"]
    assert read_day(tmp_path, DAY).tobytes() == ticks(30).tobytes()


def test_blocks_written_twice_are_read_once(tmp_path: Path) -> None:
    write(tmp_path, block(0, 5), block(5, 5), block(5, 5), block(8, 5), block(0, 4, epoch=43))
    assert [r["sequence"].tolist() for _, r in iter_blocks(tmp_path, DAY)] == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
        [10, 11, 12],
        [0, 1, 2, 3],
    ]


def test_losses_are_listed_as_gaps(tmp_path: Path) -> None:
    write(tmp_path, block(0, 5), block(25, 5, lost=20))
    (gap,) = day_gaps(tmp_path, DAY)
    assert (gap.after_sequence, gap.lost) == (4, 20)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5)), max_size=12), st.integers(200, 6_000))
@settings(max_examples=25, deadline=None)
def test_what_is_sealed_reads_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[int, int]], segment_bytes: int
) -> None:
    state = tmp_path_factory.mktemp("seal")
    blocks, at = [], 0
    for count, lost in parts:
        blocks.append(block(at + lost, count, lost=lost))
        at += lost + count
    blocks.append(encode(Header(BlockKind.TICK, at + 9, at + 9, EPOCH, 1_000, 9, 7), ticks(0)))
    write(state, *blocks, segment_bytes=segment_bytes)
    raw = [(h, r.tobytes()) for h, r in iter_blocks(state, DAY)], day_lost(state)
    indexes = seal_closed_days(state, DAY + 1)
    assert sum(i.blocks for i in indexes) == len(blocks)
    assert not list((state / "ticks").rglob("*.seg"))
    assert ([(h, r.tobytes()) for h, r in iter_blocks(state, DAY)], day_lost(state)) == raw
    assert last_position(state / "ticks", "ticks") == (EPOCH, at + 9)


def day_lost(state: Path) -> list[int]:
    return [g.lost for g in day_gaps(state, DAY)]


def test_today_is_not_sealed_and_an_interrupted_seal_reads_the_raw_segment(tmp_path: Path) -> None:
    path = write(tmp_path, block(0, 100))
    assert seal_closed_days(tmp_path, DAY) == []
    raw = path.read_bytes()
    seal_segment(path)
    path.write_bytes(raw)
    assert read_day(tmp_path, DAY).tobytes() == ticks(100).tobytes()
    assert len(seal_closed_days(tmp_path, DAY + 1)) == 1
    assert read_day(tmp_path, DAY).tobytes() == ticks(100).tobytes()


def test_a_sealed_day_takes_a_fraction_of_the_room(tmp_path: Path) -> None:
    size = block_records(BlockKind.TICK)
    path = write(tmp_path, *(block(i * size, size) for i in range(20)), segment_bytes=1 << 26)
    before = path.stat().st_size
    seal_segment(path)
    assert path.with_suffix(".parquet").stat().st_size < before / 2


def test_a_failed_sync_is_not_retried_but_written_to_a_new_segment(tmp_path: Path) -> None:
    calls: list[int] = []

    def failing(fd: int) -> None:
        calls.append(fd)
        if len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fdatasync(fd)

    writer = SegmentWriter(tmp_path / "ticks", "ticks", 1 << 20, fdatasync=failing)
    writer.append(DAY, block(0, 5))
    writer.sync()
    first = writer.path
    writer.append(DAY, block(5, 5))
    with pytest.raises(StoreError, match="check the disk, then restart the recorder"):
        writer.sync()
    writer.append(DAY, block(10, 5))
    writer.close()
    assert writer.path != first
    assert len(list(scan(first.read_bytes()))) == 1
    assert read_day(tmp_path, DAY).tobytes() == ticks(15).tobytes()


def test_a_full_disk_leaves_whole_blocks_and_goes_on_when_there_is_room(disk: Callable[[int], Path]) -> None:
    tiny_disk = disk(256)
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(bytes(100 * 1024))
    writer = SegmentWriter(tiny_disk / "ticks", "ticks", 1 << 20)
    size, done = 500, 0

    def fill() -> None:
        nonlocal done
        for _ in range(100):
            writer.append(DAY, block(done, size))
            done += size

    with pytest.raises(OSError, match="No space") as full:
        fill()
    assert full.value.errno == errno.ENOSPC
    assert all(isinstance(i, Block) for i in scan(writer.path.read_bytes()))
    ballast.unlink()
    writer.append(DAY, block(done, size))
    writer.close()
    assert read_day(tiny_disk, DAY).tobytes() == ticks(done + size).tobytes()


def test_a_block_refuses_records_of_another_kind() -> None:
    header = Header(BlockKind.SIGNAL, 0, 1, 1, 1, 0, 1)
    with pytest.raises(ValueError, match="SIGNAL"):
        encode(header, np.zeros(1, TICK))
