"""Small file operations that every store shares: durable replacement, directory sync, checksums, names of days."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

CHUNK = 1 << 20


class StoreError(Exception):
    """A store can't do its duty; the text names the file, the reason and the remedy."""


def day_name(date: int) -> str:
    """20240102 -> "2024-01-02". Raises ValueError."""
    return datetime.strptime(str(date), "%Y%m%d").replace(tzinfo=UTC).strftime("%Y-%m-%d")


def day_number(name: str) -> int:
    """ "2024-01-02" or "20240102" -> 20240102. Raises ValueError naming what is allowed."""
    for form in ("%Y-%m-%d", "%Y%m%d"):
        with contextlib.suppress(ValueError):
            return int(datetime.strptime(name, form).replace(tzinfo=UTC).strftime("%Y%m%d"))
    raise ValueError(f"day {name!r}: allowed is YYYY-MM-DD")


def utc_day(wall_ns: int) -> int:
    """UTC date of a wall time as YYYYMMDD."""
    return int(datetime.fromtimestamp(wall_ns / 1e9, UTC).strftime("%Y%m%d"))


def days_before(date: int, days: int) -> int:
    """The day ``days`` calendar days earlier, as YYYYMMDD."""
    then = datetime.strptime(str(date), "%Y%m%d").replace(tzinfo=UTC).timestamp() - days * 86_400
    return utc_day(int(then) * 1_000_000_000)


def sync_directory(path: Path) -> None:
    """fsync a directory, so that the names in it survive a power loss."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(path: Path) -> None:
    """Create a directory and its parents (0700) and make each new name durable."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for part in reversed(missing):
        part.mkdir(mode=0o700, exist_ok=True)
        sync_directory(part.parent)


def replace_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file so that after any crash it holds the old or the new content: temporary, fsync, rename, fsync."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def day_directories(root: Path) -> Iterator[tuple[int, Path]]:
    """Directories named YYYY-MM-DD under ``root``, oldest first."""
    if not root.is_dir():
        return
    for path in sorted(root.iterdir()):
        if path.is_dir():
            with contextlib.suppress(ValueError):
                yield day_number(path.name), path
