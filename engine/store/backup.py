"""Backups: models, logs with sealed ticks, fills with the journal, in dated directories with checksums.

    BACKUP_DIR/hmm/2024-01-02/models/…            model bundles and links: `cp …/models/* data/models/` restores them
    BACKUP_DIR/logs/2024-01-02/logs/…             logs; ticks/DAY/… the sealed segments
    BACKUP_DIR/fills/2024-01-02/journal.db        copied with SQLite's backup API while trading goes on
    BACKUP_DIR/fills/2024-01-02/fills.csv         every execution once, newest revision
    BACKUP_DIR/fills/2024-01-02/state/…           latch and risk figures for the record: never restored

Dates are UTC. A backup is built under a temporary name, restored into a scratch directory and verified there, and only
then takes its dated name; a second one of the same day replaces the first. A sealed segment that an older backup has
already is hard-linked, not copied.
"""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from engine.config import Config
from engine.model.bundle import BundleError
from engine.model.bundle import read as read_model
from engine.store.files import StoreError, day_directories, make_directory, sync_directory, sync_file, utc_day
from engine.store.files import day_name as name_of
from engine.store.files import days_before as earlier
from engine.store.journal import journal_path, read_only, verify
from engine.store.journal_read import JournalReader
from engine.store.manifest import Manifest, differences, read_manifest, scan, write_manifest
from engine.store.sealed import SEALED, index_path

KINDS = ("hmm", "logs", "fills")
STATE_FILES = ("latch.json", "risk.json")
FILL_COLUMNS = (
    "time", "day", "exec_id", "revision", "symbol", "side", "qty", "price", "commission_usd", "realized_pnl_usd",
    "source", "order_id", "perm_id", "intent_id", "flatten",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Backup:
    """A finished, verified backup. ``paths`` by kind; ``expired`` are directories that retention removed."""

    date: str
    paths: dict[str, Path]
    files: int
    bytes: int
    journal_rows: int
    fills: int
    expired: tuple[Path, ...]


def backup(config: Config, now_wall_ns: int) -> Backup:
    """Back up everything under ``config.state_dir`` and verify it by a scratch restore. Safe while trading.

    Raises StoreError naming what could not be backed up or verified; the day's earlier backup is then still there.
    """
    root, date = Path(config.instance.backup_dir), name_of(utc_day(now_wall_ns))
    staged: dict[str, Path] = {}
    try:
        for kind in KINDS:
            make_directory(root / kind)
            for leftover in (root / kind).glob(".building-*"):
                shutil.rmtree(leftover)
            staged[kind] = Path(tempfile.mkdtemp(prefix=".building-", dir=root / kind))
        plain = Manifest(created_wall_ns=now_wall_ns, instance=config.instance.name, mode=config.instance.mode)
        _copy_models(config.state_dir, staged["hmm"])
        _copy_logs(config.state_dir, staged["logs"], root / "logs")
        rows, fills = _copy_journal(config.state_dir, staged["fills"])
        manifests = {}
        for kind, directory in staged.items():
            files, links = scan(directory)
            manifests[kind] = msgspec.structs.replace(plain, files=files, links=links, journal_rows=rows, fills=fills)
            write_manifest(directory, manifests[kind])
            _sync_tree(directory)
        check(staged)
        paths = {kind: _publish(directory, root / kind / date) for kind, directory in staged.items()}
    except OSError as error:
        raise StoreError(
            f"backup to {root}: {error.strerror or error} ({error.filename or 'disk'}); make room or mend the path"
        ) from error
    finally:
        for directory in staged.values():
            shutil.rmtree(directory, ignore_errors=True)
    parts = [p for m in manifests.values() for p in m.files.values()]
    expired = expire(root, utc_day(now_wall_ns), config.recorder.retention_days)
    return Backup(date, paths, len(parts), sum(p.bytes for p in parts), rows, fills, tuple(expired))


def _copy_models(state_dir: Path, target: Path) -> None:
    (target / "models").mkdir()
    source = state_dir / "models"
    for path in sorted(source.iterdir()) if source.is_dir() else ():
        if path.is_symlink():
            (target / "models" / path.name).symlink_to(os.readlink(path))
        elif path.is_file() and not path.name.startswith("."):
            shutil.copy2(path, target / "models" / path.name)


def _copy_logs(state_dir: Path, target: Path, previous: Path) -> None:
    (target / "logs").mkdir()
    for path in sorted((state_dir / "logs").glob("*")):
        if path.is_file():
            with contextlib.suppress(FileNotFoundError):  # a log may rotate under our hands
                shutil.copy2(path, target / "logs" / path.name)
    for _, directory in day_directories(state_dir / "ticks"):
        for sealed in sorted(directory.glob(f"*{SEALED}")):
            place = target / "ticks" / directory.name
            place.mkdir(parents=True, exist_ok=True)
            for path in (sealed, index_path(sealed)):
                _link_or_copy(path, place / path.name, f"ticks/{directory.name}/{path.name}", previous)


def _link_or_copy(source: Path, target: Path, relative: str, previous: Path) -> None:
    status = source.stat()
    for _, backup_directory in reversed(list(day_directories(previous))):
        candidate = backup_directory / relative
        if candidate.is_file():
            known = candidate.stat()
            if (known.st_size, known.st_mtime_ns) == (status.st_size, status.st_mtime_ns):
                os.link(candidate, target)
                return
            break
    shutil.copy2(source, target)


def _copy_journal(state_dir: Path, target: Path) -> tuple[int, int]:
    """Copy the journal, export the fills from the copy; (rows, fills)."""
    (target / "state").mkdir()
    for name in STATE_FILES:
        if (state_dir / name).is_file():
            shutil.copy2(state_dir / name, target / "state" / name)
    source = journal_path(state_dir)
    if not source.exists():
        _export([], target / "fills.csv")
        return 0, 0
    copy = journal_path(target)
    with read_only(source) as live:
        destination = sqlite3.connect(copy)
        try:
            live.backup(destination, pages=2_000, sleep=0.01)
            # In one file: the copy is opened read-only from media where no -wal and -shm can be made.
            destination.execute("PRAGMA journal_mode=DELETE")
        finally:
            destination.close()
    with JournalReader(copy) as journal:
        fills = journal.fills(limit=1 << 31)
        rows = journal.head_id()
    _export(fills, target / "fills.csv")
    return rows, len(fills)


def _export(fills: Iterable[dict[str, object]], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FILL_COLUMNS, extrasaction="ignore")
        writer.writeheader()
        for fill in fills:
            wall_s = int(str(fill["exec_wall_ns"])) / 1e9
            writer.writerow({**fill, "time": datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="microseconds")})


def _sync_tree(directory: Path) -> None:
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            sync_file(path)
        elif path.is_dir():
            sync_directory(path)
    sync_directory(directory)


def _publish(staged: Path, final: Path) -> Path:
    """Give a verified directory its dated name, in place of the day's earlier one."""
    aside = final.with_name(f".replaced-{final.name}")
    shutil.rmtree(aside, ignore_errors=True)
    if final.exists():
        final.rename(aside)
    staged.rename(final)
    final.chmod(0o700)
    sync_directory(final.parent)
    shutil.rmtree(aside, ignore_errors=True)
    return final


def check(directories: dict[str, Path]) -> None:
    """Restore into a scratch directory and verify there: checksums, models, journal chain, fills against the CSV.

    Raises StoreError naming the first thing that does not fit.
    """
    with tempfile.TemporaryDirectory(prefix="l2dash-restore-") as name:
        for kind, directory in directories.items():
            manifest = read_manifest(directory)
            if manifest is None:
                raise StoreError(f"{directory} has no readable manifest: it is no complete backup")
            scratch = Path(name) / kind
            # Ticks are large and verified in place; a wrong copy of them would show in a checksum all the same.
            shutil.copytree(directory, scratch, symlinks=True, ignore=shutil.ignore_patterns("ticks"))
            _compare(directory, scratch, manifest)
            for path in sorted((scratch / "models").glob("*.npz")):
                try:
                    read_model(path)
                except BundleError as error:
                    raise StoreError(f"backup of {path.name} does not load: {error}") from error
            if journal_path(scratch).exists():
                _check_journal(scratch, manifest)


def _compare(directory: Path, scratch: Path, manifest: Manifest) -> None:
    small = {n: p for n, p in manifest.files.items() if not n.startswith("ticks/")}
    found = differences(scratch, msgspec.structs.replace(manifest, files=small)) + [
        d for d in differences(directory, manifest) if d.startswith("ticks/")
    ]
    if found:
        raise StoreError(f"backup {directory} does not fit its manifest: {found[0]}")


def _check_journal(scratch: Path, manifest: Manifest) -> None:
    path = journal_path(scratch)
    verdict = verify(path)
    if not verdict.sound:
        raise StoreError(f"backup of the journal: chain broken at row {verdict.broken_at}: {verdict.reason}")
    with JournalReader(path) as journal:
        fills = len(journal.fills(limit=1 << 31))
    with (scratch / "fills.csv").open(newline="") as file:
        exported = sum(1 for _ in csv.DictReader(file))
    if not verdict.rows == manifest.journal_rows or not fills == exported == manifest.fills:
        raise StoreError(
            f"backup of the journal has {verdict.rows} rows and {fills} fills; the manifest says "
            f"{manifest.journal_rows} and {manifest.fills}, fills.csv has {exported}"
        )


def backups(root: Path) -> dict[str, list[str]]:
    """Dates of complete backups per kind, oldest first."""
    return {
        kind: [name_of(d) for d, path in day_directories(root / kind) if read_manifest(path) is not None]
        for kind in KINDS
    }


def expire(root: Path, today: int, keep_days: int) -> list[Path]:
    """Remove backups older than ``keep_days`` days, but never the newest of a kind; returns what was removed."""
    limit, gone = earlier(today, keep_days), []
    for kind in KINDS:
        for date, path in list(day_directories(root / kind))[:-1]:
            if date < limit:
                shutil.rmtree(path)
                gone.append(path)
    return gone
