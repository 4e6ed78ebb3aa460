"""One-time login keys in a 0600 file, so that the command line can make one while no server is alive.

The file holds digests only: who can read it can't log in with it. A key lives ten minutes and opens one session.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

FILE = "logins.json"
LIFETIME_NS = 600 * 1_000_000_000
_MOST = 32


@contextmanager
def _locked(state_dir: Path) -> Iterator[list[dict[str, Any]]]:
    """The entries under an exclusive lock; written back when the block ends."""
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(state_dir / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.fchmod(fd, 0o600)
        raw = os.pread(fd, os.fstat(fd).st_size, 0)
        try:
            found = orjson.loads(raw) if raw else []
        except orjson.JSONDecodeError:
            found = []  # a file cut short by a crash only costs pending keys
        entries: list[dict[str, Any]] = found if isinstance(found, list) else []
        yield entries
        data = orjson.dumps(entries)
        os.pwrite(fd, data, 0)
        os.ftruncate(fd, len(data))
    finally:
        os.close(fd)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def create_login(state_dir: Path, now_wall: int, scope: str = "admin") -> str:
    """A fresh one-time key for ``/cockpit#k=<key>``. ``now_wall``: ns since the epoch."""
    key = secrets.token_urlsafe(32)
    with _locked(state_dir) as entries:
        entries[:] = [e for e in entries if int(e["expires_ns"]) > now_wall][-_MOST + 1 :]
        entries.append({"digest": _digest(key), "expires_ns": now_wall + LIFETIME_NS, "scope": scope})
    return key


def consume_login(state_dir: Path, key: str, now_wall: int) -> str | None:
    """Scope of a valid key, which is thereby used up; None if it is unknown, used or expired."""
    wanted = _digest(key)
    with _locked(state_dir) as entries:
        for i, entry in enumerate(entries):
            if secrets.compare_digest(str(entry["digest"]), wanted):
                del entries[i]
                return str(entry["scope"]) if int(entry["expires_ns"]) > now_wall else None
    return None
