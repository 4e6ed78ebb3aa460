"""Restoring from a dated backup. Models and sealed ticks come back; the journal only where none is.

What decides whether and how much may be traded is never rolled back: latch, order-id mark and drawdown of the state
directory stay as they are, and where they are missing they stay missing (a directory with a journal and no latch file
counts as latched).
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from engine.config import Config
from engine.store.backup import KINDS, backups, check
from engine.store.files import StoreError, day_name, day_number, make_directory, sync_directory, sync_file
from engine.store.journal import journal_path


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did. ``kept`` says what was left alone, and why."""

    date: str
    models: tuple[str, ...]
    ticks: tuple[str, ...]
    journal: bool
    kept: tuple[str, ...]


def restore(config: Config, date: str) -> Restored:
    """Restore the backup of ``date`` ("2024-01-02" or "20240102") into ``config.state_dir``.

    Everything is verified before the first byte is written. Raises StoreError, ValueError for a malformed date.
    """
    root, name = Path(config.instance.backup_dir), day_name(day_number(date))
    found = {kind: root / kind / name for kind in KINDS}
    missing = [str(path) for path in found.values() if not path.is_dir()]
    if missing:
        have = sorted(set.intersection(*(set(days) for days in backups(root).values())))
        raise StoreError(f"no backup of {name}: {missing[0]} is not there; there is {', '.join(have) or 'none'}")
    check(found)
    try:
        return _restore(config.state_dir, found, name)
    except OSError as error:
        raise StoreError(f"restoring {name}: {error.strerror} ({error.filename}); run it again") from error


def _restore(state_dir: Path, found: dict[str, Path], name: str) -> Restored:
    make_directory(state_dir)
    models = _models(found["hmm"] / "models", state_dir / "models")
    ticks = _ticks(found["logs"] / "ticks", state_dir / "ticks")
    kept = ["latch, order-id mark and drawdown: never rolled back"]
    source, target = journal_path(found["fills"]), journal_path(state_dir)
    journal = source.exists() and not target.exists()
    if journal:
        _copy(source, target)
    elif source.exists():
        kept.append(f"{target}: a journal is there already")
    return Restored(name, tuple(models), tuple(ticks), journal, tuple(kept))


def _copy(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copy2(source, temporary)
        sync_file(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(target.parent)


def _models(source: Path, target: Path) -> list[str]:
    """Files first, links after them: a link never names a file that is not there yet."""
    make_directory(target)
    names = []
    entries = sorted(source.iterdir(), key=lambda p: (p.is_symlink(), p.name))
    for path in entries:
        if path.is_symlink():
            temporary = target / f".{path.name}.{os.getpid()}"
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(os.readlink(path))
            temporary.replace(target / path.name)
        else:
            _copy(path, target / path.name)
        names.append(path.name)
    sync_directory(target)
    return names


def _ticks(source: Path, target: Path) -> list[str]:
    """Sealed segments that are not there, in either form."""
    restored = []
    for path in sorted(source.glob("*/*")) if source.is_dir() else ():
        place = target / path.parent.name
        if (place / path.name).exists() or (place / path.name).with_suffix(".seg").exists():
            continue
        make_directory(place)
        _copy(path, place / path.name)
        restored.append(f"{path.parent.name}/{path.name}")
    return restored
