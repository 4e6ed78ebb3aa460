"""The journal: SQLite, append-only, hash-chained, with the recorder's ring positions in the same transaction.

Invariants
1. One writer. Rows are never changed or deleted: triggers refuse it, and ``verify`` finds it if somebody forced it.
2. ids rise by one over all five tables together, and ``hash`` of row n is blake2b(hash of row n-1, table, row n): any
   change, removal or insertion breaks the chain at that row; the head stands in ``meta``, so a cut tail shows as well.
3. A ring's position is committed with the rows that it counts: after a kill -9 at any instruction the recorder resumes
   exactly behind the last committed record. ``append`` skips what is committed already, so that a batch whose commit
   has an unknown outcome (a failed fsync) may be offered again.
4. WAL with synchronous=FULL: what ``append`` returned from is on the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from engine.store.files import StoreError, sync_directory
from engine.store.rows import TABLES, Batch, Names, Row, rows_of

FILE = "journal.db"
SCHEMA_VERSION = 1
GENESIS = bytes(16)
_TAIL_ROWS = 2_000
_QUICK_CHECK_BYTES = 64 * 1024 * 1024
_INDEXES = {
    "orders": ("day", "intent_id"),
    "executions": ("day", "exec_base"),
    "audit": ("day", "ref_id"),
    "guardrails": ("day",),
    "events": ("day",),
}
_encode = msgspec.msgpack.Encoder().encode


class JournalCorrupt(StoreError):
    """The journal can't be trusted; the text says where it broke and what to do."""


class JournalFailed(StoreError):
    """A commit failed. ``disk_full``: worth trying again; otherwise the disk itself failed."""

    def __init__(self, text: str, *, disk_full: bool) -> None:
        super().__init__(text)
        self.disk_full = disk_full


@dataclass(frozen=True, slots=True)
class Committed:
    """A row as it stands in the journal."""

    id: int
    table: str
    row: Row


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of ``verify``. ``broken_at`` is the id of the first row that breaks the chain, 0 if none does."""

    rows: int
    broken_at: int
    reason: str

    @property
    def sound(self) -> bool:
        return not self.reason


def journal_path(state_dir: Path) -> Path:
    return state_dir / FILE


def chain(previous: bytes, table: str, row_id: int, row: Row) -> bytes:
    """Hash of a row: blake2b-128 over the previous hash and the MessagePack form of (table, id, columns)."""
    return hashlib.blake2b(previous + _encode((table, row_id, *row)), digest_size=16).digest()


def _remedy(path: Path) -> str:
    return (
        f"restore it from a backup (l2dash restore DATE), or keep it as evidence and begin a new one: "
        f"python -m engine.store.verify --move-aside {path.parent}"
    )


def _schema() -> Iterator[str]:
    yield "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID"
    yield (
        "CREATE TABLE IF NOT EXISTS cursors (ring TEXT PRIMARY KEY, epoch INTEGER NOT NULL, "
        "next_sequence INTEGER NOT NULL) WITHOUT ROWID"
    )
    for table, columns in TABLES.items():
        body = ", ".join(f"{name} {kind}" for name, kind in columns)
        yield f"CREATE TABLE IF NOT EXISTS {table} (id INTEGER PRIMARY KEY, {body}, hash BLOB NOT NULL)"
        for action in ("UPDATE", "DELETE"):
            yield (
                f"CREATE TRIGGER IF NOT EXISTS {table}_no_{action.lower()} BEFORE {action} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END"
            )
        for name in _INDEXES[table]:
            yield f"CREATE INDEX IF NOT EXISTS {table}_{name} ON {table} ({name})"


_INSERT = {
    table: f"INSERT INTO {table} VALUES ({', '.join('?' * (len(columns) + 2))})" for table, columns in TABLES.items()
}


class Journal:
    """The recorder's connection. Use it from one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises JournalCorrupt, or JournalFailed when the disk refuses."""
        self.path = path
        self._cursors: dict[str, tuple[int, int]] = {}
        self._head_id, self._head = 0, GENESIS
        self._db: sqlite3.Connection | None = None
        self.reopen()

    def reopen(self) -> None:
        """Open the file afresh, as after a crash: the state in memory is what the file says. Raises as __init__."""
        self.close()
        new = not self.path.exists()
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.close(fd)
            self._db = db = sqlite3.connect(self.path, isolation_level=None, timeout=5.0, check_same_thread=False)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA wal_autocheckpoint=2000")
            db.execute("PRAGMA cache_size=-2048")
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if version not in (0, SCHEMA_VERSION):
                raise JournalCorrupt(f"{self.path}: schema version {version}, this program knows {SCHEMA_VERSION}")
            if not version:
                db.execute("BEGIN IMMEDIATE")
                for statement in _schema():
                    db.execute(statement)
                db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
                db.execute("COMMIT")
            if new:
                sync_directory(self.path.parent)
            self._load(db)
        except sqlite3.DatabaseError as error:
            self.close()
            raise _named(error, self.path) from error
        except OSError as error:
            self.close()
            raise JournalFailed(f"{self.path}: {error.strerror}; free the disk", disk_full=True) from error
        except JournalCorrupt:
            self.close()
            raise

    def _load(self, db: sqlite3.Connection) -> None:
        if self.path.stat().st_size < _QUICK_CHECK_BYTES:
            found = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
            if found != "ok":
                raise JournalCorrupt(f"{self.path} is damaged: {found}; {_remedy(self.path)}")
        self._head_id, self._head = _head(db)
        verdict = _verify(db, self._head_id - _TAIL_ROWS)
        if not verdict.sound:
            raise JournalCorrupt(f"{self.path}: {verdict.reason}; {_remedy(self.path)}")
        self._cursors = {r: (e, n) for r, e, n in db.execute("SELECT ring, epoch, next_sequence FROM cursors")}

    @property
    def head_id(self) -> int:
        return self._head_id

    def cursor(self, ring: str, epoch: int) -> int | None:
        """Next sequence of a ring to record, None if the ring is of another incarnation than the journal knows."""
        known = self._cursors.get(ring)
        return known[1] if known and known[0] == epoch else None

    def append(self, batches: Iterable[Batch], names: Names) -> list[Committed]:
        """Commit batches in one transaction; returns the rows written. What is committed already is skipped.

        Raises JournalFailed or JournalCorrupt; nothing in memory has changed then: call ``reopen`` and try again.
        """
        if self._db is None:
            raise JournalFailed(f"{self.path} is closed", disk_full=False)
        done: list[Committed] = []
        hashes: list[bytes] = []
        cursors = dict(self._cursors)
        head_id, head = self._head_id, self._head
        for batch in batches:
            fresh = _not_yet(batch, cursors.get(batch.ring))
            if fresh is None:
                continue
            cursors[batch.ring] = (batch.epoch, batch.next_sequence)
            for table, row in rows_of(fresh, names):
                head_id += 1
                head = chain(head, table, head_id, row)
                done.append(Committed(head_id, table, row))
                hashes.append(head)
        changed = [(r, *v) for r, v in cursors.items() if self._cursors.get(r) != v]
        if not changed:
            return []
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for table, statement in _INSERT.items():
                rows = [(c.id, *c.row, h) for c, h in zip(done, hashes, strict=True) if c.table == table]
                if rows:
                    self._db.executemany(statement, rows)
            self._db.executemany("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", changed)
            self._db.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)", (("head_id", head_id), ("head_hash", head))
            )
            self._db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise _named(error, self.path) from error
        self._head_id, self._head, self._cursors = head_id, head, cursors
        return done

    def close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None


def _not_yet(batch: Batch, known: tuple[int, int] | None) -> Batch | None:
    """The part of a batch that is not committed; None if all of it is."""
    if known is None or known[0] != batch.epoch:
        return batch
    if batch.next_sequence <= known[1]:
        return None
    first = batch.next_sequence - len(batch.records)
    if first >= known[1]:
        return batch
    return Batch(batch.ring, batch.epoch, batch.records[known[1] - first :], 0, batch.next_sequence, batch.t_ns)


def _named(error: sqlite3.Error, path: Path, what: str = "commit") -> StoreError:
    name = getattr(error, "sqlite_errorname", "") or type(error).__name__
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return JournalCorrupt(f"{path} is damaged: {error} ({name}); {_remedy(path)}")
    full = name.startswith(("SQLITE_FULL", "SQLITE_BUSY", "SQLITE_LOCKED"))
    remedy = "free the disk" if full else "check the disk, then restart the recorder"
    return JournalFailed(f"{path}: {what} failed: {error} ({name}); {remedy}", disk_full=full)


def _head(db: sqlite3.Connection) -> tuple[int, bytes]:
    meta = dict(db.execute("SELECT key, value FROM meta WHERE key IN ('head_id', 'head_hash')").fetchall())
    return int(meta.get("head_id", 0)), bytes(meta.get("head_hash", GENESIS))


def _rows_after(db: sqlite3.Connection, after: int) -> Iterator[tuple[int, str, Row, bytes]]:
    def rows(table: str) -> Iterator[tuple[int, str, Row, bytes]]:
        for row in db.execute(f"SELECT * FROM {table} WHERE id > ? ORDER BY id", (after,)):
            yield row[0], table, row[1:-1], row[-1]

    return heapq.merge(*(rows(table) for table in TABLES), key=lambda r: r[0])


def _hash_of(db: sqlite3.Connection, row_id: int) -> bytes | None:
    for table in TABLES:
        found = db.execute(f"SELECT hash FROM {table} WHERE id = ?", (row_id,)).fetchone()
        if found:
            return bytes(found[0])
    return None


def _verify(db: sqlite3.Connection, after: int = 0) -> Verdict:
    after = max(0, after)
    previous = GENESIS if after == 0 else _hash_of(db, after)
    if previous is None:
        return Verdict(0, after, f"row {after} is missing")
    expected, count = after + 1, 0
    for row_id, table, row, found in _rows_after(db, after):
        if row_id != expected:
            return Verdict(count, expected, f"row {expected} is missing: the next one is {table} row {row_id}")
        previous = chain(previous, table, row_id, row)
        if previous != found:
            return Verdict(count, row_id, f"{table} row {row_id} was changed: its hash does not fit the chain")
        expected, count = expected + 1, count + 1
    head_id, head = _head(db)
    if head_id != expected - 1:
        return Verdict(count, min(head_id, expected - 1) + 1, f"head says {head_id} rows, {expected - 1} are there")
    if head_id and head != previous:
        return Verdict(count, head_id, f"the head's hash does not fit row {head_id}")
    return Verdict(count, 0, "")


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection. Raises StoreError if there is no journal, JournalCorrupt if it can't be read."""
    missing = StoreError(f"no journal at {path}: nothing has been recorded there (start it: l2dash up)")
    if not path.is_file():
        raise missing
    try:
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0, check_same_thread=False)
        try:
            if int(db.execute("PRAGMA user_version").fetchone()[0]) == 0:
                raise missing  # the recorder is just creating it
            yield db
        finally:
            db.close()
    except sqlite3.DatabaseError as error:
        raise _named(error, path, "reading") from error


def verify(path: Path) -> Verdict:
    """Check the whole chain of a journal, also of one in use. Raises StoreError, JournalCorrupt."""
    with read_only(path) as db:
        db.execute("BEGIN")
        return _verify(db)


def move_aside(path: Path) -> Path:
    """Rename a journal (with its WAL) so that the recorder begins a new one; returns where it is kept."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    target = path.with_name(f"{path.name}.aside-{stamp}")
    for suffix in ("-wal", "-shm", ""):
        source = path.with_name(path.name + suffix)
        if source.exists():
            source.rename(target.with_name(target.name + suffix))
    sync_directory(path.parent)
    return target
