"""Reading recorded days back: raw and sealed segments alike, in the order in which they were written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.store.blocks import DTYPES, Block, BlockKind, Damage, Header, Records, scan
from engine.store.files import day_directories, day_name, day_number
from engine.store.sealed import SEALED
from engine.store.segments import segments_of

STREAMS: dict[str, BlockKind] = {"ticks": BlockKind.TICK, "signals": BlockKind.SIGNAL}


@dataclass(frozen=True, slots=True)
class Gap:
    """Records that a day lacks. ``lost`` counts records (-1: not known, ``damaged_bytes`` of a file are unreadable)."""

    stream: str
    path: Path
    epoch: int
    after_sequence: int
    lost: int
    damaged_bytes: int = 0


def ticks_root(state_dir: Path) -> Path:
    return state_dir / "ticks"


def day_directory(state_dir: Path, date: int | str) -> Path:
    """Directory of a day, given as 20240102 or "2024-01-02". Raises ValueError."""
    return ticks_root(state_dir) / day_name(day_number(str(date)))


def recorded_days(state_dir: Path) -> list[int]:
    """Days with a directory, oldest first, as YYYYMMDD."""
    return [date for date, _ in day_directories(ticks_root(state_dir))]


def iter_segment(path: Path) -> Iterator[Block | Damage]:
    """Blocks and damaged stretches of one raw or sealed segment."""
    if not path.exists():  # it was sealed since the directory was read
        path = path.with_suffix(SEALED)
    if path.suffix == SEALED:
        from engine.store.seal import read_sealed  # the Parquet library costs 80 MB: only who reads sealed days pays

        yield from read_sealed(path)
    else:
        yield from scan(path.read_bytes())


def iter_blocks(state_dir: Path, date: int | str, stream: str = "ticks") -> Iterator[tuple[Header, Records]]:
    """(header, records) of a day's blocks in order; each record once, whatever crashes and rewrites left behind.

    ``stream``: "ticks" (dtype TICK) or "signals" (SIGNAL). A day that was not recorded gives nothing.
    """
    for item in _items(day_directory(state_dir, date), stream):
        if not isinstance(item, Gap):
            yield item


def day_gaps(state_dir: Path, date: int | str, stream: str = "ticks") -> list[Gap]:
    """What a day lacks: records lost before they could be read from the ring, and damaged bytes of its files."""
    return [item for item in _items(day_directory(state_dir, date), stream) if isinstance(item, Gap)]


def _items(directory: Path, stream: str) -> Iterator[tuple[Header, Records] | Gap]:
    kind = STREAMS[stream]
    position: dict[int, int] = {}
    for path in segments_of(directory, stream):
        for item in iter_segment(path):
            if isinstance(item, Damage):
                yield Gap(stream, path, 0, -1, -1, item.end - item.offset)
                continue
            header, records = item.header, item.records
            if header.kind != kind:
                continue
            seen = position.get(header.epoch, header.first_sequence)
            if header.lost:
                yield Gap(stream, path, header.epoch, header.first_sequence - header.lost - 1, header.lost)
            position[header.epoch] = max(seen, header.next_sequence)
            if header.first_sequence < seen:
                records = records[records["sequence"] >= seen]
            if len(records):
                yield header, records


def read_day(state_dir: Path, date: int | str, stream: str = "ticks") -> Records:
    """All records of a day as one array (dtype TICK or SIGNAL), across restarts; empty if nothing was recorded.

    Times are monotonic: across boots use ``iter_blocks``, whose headers have the offset to wall time.
    """
    parts = [records for _, records in iter_blocks(state_dir, date, stream)]
    return np.concatenate(parts) if parts else np.zeros(0, DTYPES[STREAMS[stream]])
