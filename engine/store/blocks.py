"""Blocks: what a segment file is made of. A block is valid by itself, so a damaged file loses only what is damaged.

One block (64-byte header, then 0 to 65,472 bytes of records):

    0       4        6     8       12     16              24             32     40              48    56        64
    +-------+--------+-----+-------+------+---------------+--------------+------+---------------+-----+---------+
    | magic |version |kind |length |crc32 |first_sequence |next_sequence |epoch |wall_offset_ns |lost |boot hash|
    +-------+--------+-----+-------+------+---------------+--------------+------+---------------+-----+---------+

Invariants
1. ``crc32`` covers the header (with the crc itself as zero) and the payload: no byte of a block can change unseen.
2. ``length`` is a multiple of 64, so every block of a file begins at a multiple of 64: a scan resynchronises there.
3. Records of one block follow each other without loss, unless the stream is sampled; ``lost`` counts the records that
   were lost immediately before this block.
4. ``next_sequence`` is where the recorder resumes: everything before it was written, lost (and counted) or sampled out.
5. ``epoch`` names the incarnation of the ring: sequences of different epochs have nothing to do with each other.
6. wall time of a record = its monotonic time + ``wall_offset_ns``.

zlib's CRC-32 instead of CRC-32C: it is in the standard library, releases the interpreter lock and runs at over 1 GB/s,
which is ten times what the ring can deliver; both find every error burst up to 32 bits.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from shm.layouts import EXECUTION, SIGNAL, TICK

MAGIC = b"L2TK"
VERSION = 1
HEADER = struct.Struct("<4sHHIIqqqqqq")
ALIGN = 64
BLOCK_BYTES = 64 * 1024
PAYLOAD_BYTES = BLOCK_BYTES - HEADER.size
Records = npt.NDArray[np.void]


class BlockKind(IntEnum):
    """What a block's records are; the number is part of the file format."""

    TICK = 1
    SIGNAL = 2
    EXECUTION = 3


DTYPES: dict[BlockKind, np.dtype[np.void]] = {
    BlockKind.TICK: TICK,
    BlockKind.SIGNAL: SIGNAL,
    BlockKind.EXECUTION: EXECUTION,
}


def block_records(kind: BlockKind) -> int:
    """Records that fit one block."""
    return PAYLOAD_BYTES // DTYPES[kind].itemsize


@dataclass(frozen=True, slots=True)
class Header:
    """A block's header. Times in ns; see the module for each field."""

    kind: BlockKind
    first_sequence: int
    next_sequence: int
    epoch: int
    wall_offset_ns: int
    lost: int
    boot: int


@dataclass(frozen=True, slots=True)
class Block:
    """A valid block. ``records`` is a read-only view of the bytes that were scanned."""

    header: Header
    records: Records
    offset: int
    end: int


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a file that are no valid block.

    ``tail``: nothing valid follows. ``whole``: a complete block stood here and its checksum is wrong, as opposed to a
    write that was cut short.
    """

    offset: int
    end: int
    tail: bool
    whole: bool


def encode(header: Header, records: Records) -> bytes:
    """A block's bytes. Raises ValueError if the records are too many or of another dtype."""
    dtype = DTYPES[header.kind]
    if records.dtype != dtype:
        raise ValueError(f"block of {header.kind.name}: records are {records.dtype}, need {dtype}")
    payload = records.tobytes()
    if len(payload) > PAYLOAD_BYTES:
        raise ValueError(f"block of {header.kind.name}: {len(records)} records, at most {block_records(header.kind)}")
    tail = (
        header.first_sequence,
        header.next_sequence,
        header.epoch,
        header.wall_offset_ns,
        header.lost,
        header.boot,
    )
    bare = HEADER.pack(MAGIC, VERSION, header.kind, len(payload), 0, *tail)
    crc = zlib.crc32(payload, zlib.crc32(bare))
    return HEADER.pack(MAGIC, VERSION, header.kind, len(payload), crc, *tail) + payload


def _parse(data: bytes, offset: int) -> Block | None:
    if offset + HEADER.size > len(data):
        return None
    magic, version, kind, length, crc, first, following, epoch, wall, lost, boot = HEADER.unpack_from(data, offset)
    end = offset + HEADER.size + length
    if magic != MAGIC or version != VERSION or kind not in DTYPES or length > PAYLOAD_BYTES or end > len(data):
        return None
    bare = HEADER.pack(magic, version, kind, length, 0, first, following, epoch, wall, lost, boot)
    view = memoryview(data)[offset + HEADER.size : end]
    dtype = DTYPES[BlockKind(kind)]
    if zlib.crc32(view, zlib.crc32(bare)) != crc or length % dtype.itemsize:
        return None
    header = Header(BlockKind(kind), first, following, epoch, wall, lost, boot)
    return Block(header, np.frombuffer(view, dtype), offset, end)


def _whole(data: bytes, offset: int) -> bool:
    if offset + HEADER.size > len(data):
        return False
    magic, version, kind, length = struct.unpack_from("<4sHHI", data, offset)
    return (
        magic == MAGIC
        and version == VERSION
        and kind in DTYPES
        and length <= PAYLOAD_BYTES
        and offset + HEADER.size + length <= len(data)
    )


def scan(data: bytes) -> Iterator[Block | Damage]:
    """Every block of a file's bytes in order, and every damaged stretch between, before or after them."""
    offset = 0
    while offset < len(data):
        block = _parse(data, offset)
        if block is not None:
            yield block
            offset = block.end
            continue
        start, offset = offset, _resynchronise(data, offset)
        yield Damage(start, offset, tail=offset == len(data), whole=_whole(data, start))


def _resynchronise(data: bytes, offset: int) -> int:
    """Offset of the next valid block after ``offset``, or the end of the data."""
    at = data.find(MAGIC, offset + 1)
    while at >= 0:
        if at % ALIGN == 0 and _parse(data, at) is not None:
            return at
        at = data.find(MAGIC, at + 1)
    return len(data)
