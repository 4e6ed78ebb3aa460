"""Sealing: closed days' raw segments become Parquet (zstd). A process of its own: the Parquet library costs 80 MB.

    python -m engine.store.seal STATE_DIR TODAY

One Parquet file replaces one raw segment: written under a temporary name, synced, read back and compared record by
record, renamed, and only then is the raw file deleted. A crash at any point leaves the raw file, the sealed one, or
both; readers prefer the raw one. Every field of the record is a column (fixed arrays excepted, of which no stream has
any); ``block``, ``epoch``, ``wall_offset_ns``, ``lost``, ``boot`` and ``next_sequence`` repeat the block's header and
cost next to nothing after compression.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.store.blocks import DTYPES, Block, BlockKind, Damage, Header, Records, scan
from engine.store.files import StoreError, day_directories, replace_file, sha256, sync_directory, sync_file
from engine.store.sealed import SEALED, SealedIndex, index_path
from engine.store.segments import RAW

_HEADER_FIELDS = ("first_sequence", "next_sequence", "epoch", "wall_offset_ns", "lost", "boot")
_EMPTY_BLOCKS = b"empty_blocks"


def _header_row(header: Header) -> tuple[int, ...]:
    return tuple(int(getattr(header, name)) for name in _HEADER_FIELDS)


def _table(blocks: list[Block], kind: BlockKind) -> pa.Table:
    dtype = DTYPES[kind]
    counts = [len(b.records) for b in blocks]
    records = np.concatenate([b.records for b in blocks]) if blocks else np.zeros(0, dtype)
    columns: dict[str, pa.Array] = {}
    for name in dtype.names or ():
        column = np.ascontiguousarray(records[name])
        columns[name] = pa.array(column.tolist(), pa.binary()) if column.dtype.kind == "S" else pa.array(column)
    columns["block"] = pa.array(np.repeat(np.arange(len(blocks), dtype=np.int32), counts))
    for name in _HEADER_FIELDS:
        values = np.array([int(getattr(b.header, name)) for b in blocks], np.int64)
        columns["block_" + name] = pa.array(np.repeat(values, counts))
    empty = [(i, *_header_row(b.header)) for i, b in enumerate(blocks) if not len(b.records)]
    return pa.table(columns).replace_schema_metadata(
        {b"kind": str(int(kind)), _EMPTY_BLOCKS: msgspec.json.encode(empty)}
    )


def _blocks_of(table: pa.Table) -> Iterator[Block]:
    metadata = table.schema.metadata
    kind = BlockKind(int(metadata[b"kind"]))
    dtype = DTYPES[kind]
    records = np.zeros(table.num_rows, dtype)
    for name in dtype.names or ():
        column = table.column(name)
        if dtype.fields is not None and dtype.fields[name][0].kind == "S":
            records[name] = column.to_pylist()
        else:
            records[name] = column.to_numpy()
    number = table.column("block").to_numpy()
    headers = {name: table.column("block_" + name).to_numpy() for name in _HEADER_FIELDS}
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    found: dict[int, tuple[Header, Records]] = {
        row[0]: (Header(kind, *row[1:]), records[:0]) for row in msgspec.json.decode(metadata[_EMPTY_BLOCKS])
    }
    for start, end in zip(starts, [*starts, table.num_rows][1:], strict=True):
        header = Header(kind, *(int(headers[name][start]) for name in _HEADER_FIELDS))
        found[int(number[start])] = (header, records[start:end])
    for _, (header, part) in sorted(found.items()):
        yield Block(header, part, 0, 0)


def read_sealed(path: Path) -> Iterator[Block]:
    """Blocks of a sealed segment, just as they were written. Raises StoreError if the file can't be read."""
    try:
        table = pq.read_table(path, memory_map=True)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"sealed segment {path} can't be read: {error}; restore it from a backup") from error
    yield from _blocks_of(table)


def seal_segment(raw: Path) -> SealedIndex:
    """Replace one raw segment by a Parquet file with its index. Damaged stretches are left behind, counted.

    Raises StoreError if the file read back differs from the raw one: the raw one then stays.
    """
    items = list(scan(raw.read_bytes()))
    blocks = [i for i in items if isinstance(i, Block)]
    damaged = [i for i in items if isinstance(i, Damage)]
    kind = blocks[0].header.kind if blocks else BlockKind.TICK
    sealed = raw.with_suffix(SEALED)
    temporary = raw.with_name(f".{raw.stem}{SEALED}.tmp")
    pq.write_table(_table(blocks, kind), temporary, compression="zstd", row_group_size=1 << 18)
    sync_file(temporary)
    same = list(read_sealed(temporary))
    if len(same) != len(blocks) or any(
        a.header != b.header or a.records.tobytes() != b.records.tobytes() for a, b in zip(same, blocks, strict=True)
    ):
        temporary.unlink()
        raise StoreError(f"sealing {raw}: the file read back differs from the raw segment; the raw one is kept")
    last = blocks[-1].header if blocks else Header(kind, 0, 0, 0, 0, 0, 0)
    index = SealedIndex(
        stream=raw.stem.rpartition("-")[0],
        records=sum(len(b.records) for b in blocks),
        blocks=len(blocks),
        lost=sum(b.header.lost for b in blocks),
        epoch=last.epoch,
        next_sequence=last.next_sequence,
        damaged_bytes=sum(d.end - d.offset for d in damaged),
        raw_sha256=sha256(raw),
    )
    replace_file(index_path(sealed), msgspec.json.encode(index))
    temporary.replace(sealed)
    sync_directory(sealed.parent)
    raw.unlink()
    sync_directory(sealed.parent)
    return index


def seal_closed_days(state_dir: Path, today: int) -> list[SealedIndex]:
    """Seal every raw segment of the days before ``today`` (YYYYMMDD). Raises StoreError at the first that fails."""
    done: list[SealedIndex] = []
    root = state_dir / "ticks"
    if not root.is_dir():
        return done
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # A sealer outlives a recorder that was killed; the next recorder's sealer must not work beside it.
        fcntl.flock(fd, fcntl.LOCK_EX)
        for date, directory in day_directories(root):
            if date < today:
                done += _seal_day(directory)
    finally:
        os.close(fd)
    return done


def _seal_day(directory: Path) -> list[SealedIndex]:
    for leftover in directory.glob(f".*{SEALED}.tmp"):
        leftover.unlink()
    return [seal_segment(raw) for raw in sorted(directory.glob(f"*{RAW}"))]


def main(arguments: list[str]) -> int:
    """Exit code 0 when every closed day is sealed, 1 with one line on stderr otherwise."""
    try:
        seal_closed_days(Path(arguments[0]), int(arguments[1]))
    except (StoreError, OSError) as error:
        sys.stderr.write(f"seal: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
