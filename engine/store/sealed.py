"""The index beside a sealed segment: what it holds, readable without the Parquet library."""

from __future__ import annotations

from pathlib import Path

import msgspec

SEALED = ".parquet"


class SealedIndex(msgspec.Struct, frozen=True, kw_only=True):
    """Counts and the position at the end of one sealed segment, and the damage that sealing stepped over."""

    stream: str
    records: int
    blocks: int
    lost: int
    epoch: int
    next_sequence: int
    damaged_bytes: int
    raw_sha256: str


def index_path(sealed: Path) -> Path:
    return sealed.with_suffix(".json")


def read_index(sealed: Path) -> SealedIndex:
    """Raises FileNotFoundError, msgspec.DecodeError."""
    return msgspec.json.decode(index_path(sealed).read_bytes(), type=SealedIndex)
