"""Every record that crosses a process boundary, as a numpy dtype with its size and offsets asserted.

Invariants
1. Records are whole cache lines (64 bytes), little-endian, naturally aligned; no implicit padding.
2. The first word of every ring record is its sequence, of every cell record its version: written by the ring or cell,
   never by the producer.
3. Times are CLOCK_MONOTONIC nanoseconds unless the name says ``wall``. NaN means "not known".
4. A change of any layout changes LAYOUT_VERSION; attach refuses another version.

The dtypes stand in ``shm.ring_records`` and ``shm.cell_records``; this file registers and checks them. Import them from
here.
"""

from __future__ import annotations

import hashlib

import numpy as np

from shm.cell_records import (
    ACCOUNT,
    ARM,
    BADGES,
    BOOK,
    BOOK_LEVELS,
    BROKER,
    FLATTEN,
    GUARDRAIL,
    GUARDRAILS,
    HEARTBEAT,
    LEASE,
    MAX_STATES,
    MODEL,
    POSITION,
    RTT_SAMPLES,
    STOP,
)
from shm.ring_records import (
    COMMAND,
    EVENT,
    EXECUTION,
    INTENT,
    SIGNAL,
    SIGNAL_BAR,
    SIGNAL_VALID,
    SIGNAL_WARMING,
    TICK,
)

__all__ = [
    "ACCOUNT",
    "ARM",
    "BADGES",
    "BOOK",
    "BOOK_LEVELS",
    "BROKER",
    "CACHE_LINE",
    "CELL_RECORDS",
    "COMMAND",
    "EVENT",
    "EXECUTION",
    "FLATTEN",
    "GUARDRAIL",
    "GUARDRAILS",
    "HEARTBEAT",
    "INTENT",
    "LAYOUT_VERSION",
    "LEASE",
    "MAX_STATES",
    "MODEL",
    "POSITION",
    "RING_RECORDS",
    "RTT_SAMPLES",
    "SIGNAL",
    "SIGNAL_BAR",
    "SIGNAL_VALID",
    "SIGNAL_WARMING",
    "SIZES",
    "STOP",
    "TICK",
    "check",
    "dtype_hash",
]  # fmt: skip

LAYOUT_VERSION = 3
CACHE_LINE = 64

RING_RECORDS = {
    "tick": TICK,
    "signal": SIGNAL,
    "execution": EXECUTION,
    "intent": INTENT,
    "command": COMMAND,
    "event": EVENT,
}
CELL_RECORDS = {
    "stop": STOP,
    "lease": LEASE,
    "account": ACCOUNT,
    "position": POSITION,
    "broker": BROKER,
    "book": BOOK,
    "model": MODEL,
    "guardrails": GUARDRAILS,
    "flatten": FLATTEN,
    "arm": ARM,
    "heartbeat": HEARTBEAT,
}
SIZES = {
    "tick": 64,
    "signal": 64,
    "execution": 128,
    "intent": 128,
    "command": 128,
    "event": 256,
    "stop": 128,
    "lease": 64,
    "account": 192,
    "position": 192,
    "broker": 256,
    "book": 512,
    "model": 192,
    "guardrails": 1216,
    "flatten": 128,
    "arm": 128,
    "heartbeat": 128,
}


def dtype_hash(dtype: np.dtype[np.void]) -> int:
    """Signed 64-bit hash of names, types and offsets: what attach compares."""
    text = repr([(name, *map(str, dtype.fields[name])) for name in dtype.names or ()]) if dtype.fields else str(dtype)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def check() -> None:
    """Verify every invariant of this file; raises AssertionError naming the first layout that breaks one."""
    for name, dtype in {**RING_RECORDS, **CELL_RECORDS}.items():
        if dtype.itemsize != SIZES[name]:
            raise AssertionError(f"{name}: {dtype.itemsize} bytes, declared {SIZES[name]}")
        if dtype.itemsize % CACHE_LINE:
            raise AssertionError(f"{name}: {dtype.itemsize} bytes are not whole cache lines")
        end = 0
        for field in dtype.names or ():
            kind, offset = dtype.fields[field][:2]  # type: ignore[index]
            if offset != end:
                raise AssertionError(f"{name}.{field}: implicit padding before offset {offset}")
            align = min(8, kind.base.itemsize) if kind.base.kind != "S" and kind.base.names is None else 1
            if offset % align:
                raise AssertionError(f"{name}.{field}: offset {offset} is not aligned to {align}")
            end = offset + kind.itemsize
    for first, records in (("sequence", RING_RECORDS), ("version", CELL_RECORDS)):
        for name, dtype in records.items():
            if dtype.names is None or dtype.names[0] != first:
                raise AssertionError(f"{name}: the first word must be the {first}")


check()
