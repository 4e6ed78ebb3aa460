"""The latch file: what survives every restart of KILL and PAUSE.

Invariants
1. For a latch the shared-memory cell comes first and the file follows (a stop must not wait for a disk); for a release
   the file comes first (what was released stays released only if that is on disk).
2. In a directory with a journal, a missing, unreadable or foreign latch file means: latched.
3. A virgin directory (no latch file, no journal): ``sim`` arms itself; ``paper`` and ``live`` need ``l2dash init``.
4. The file is replaced whole: temporary, fsync, rename, fsync of the directory.

``stop_id`` values are CLOCK_MONOTONIC and mean nothing after a reboot: the file carries the boot id.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

VERSION = 1
FILE = "latch.json"
JOURNAL = "journal.db"
UNKNOWN_NS = 365 * 86_400 * 1_000_000_000
"""Length of an outage that nobody can tell: longer than any limit."""


class StopEvent(IntEnum):
    """Codes of STOP events. Part of the journal: append, never renumber."""

    KILL = 1
    KILL_RELEASED = 2
    PAUSE = 3
    PAUSE_RELEASED = 4
    BLOCK = 5
    BLOCK_CLEARED = 6
    SYMBOL_KILL = 7


class LatchExists(Exception):
    """``init`` was asked for in a directory that has a history."""


@dataclass(frozen=True, slots=True)
class Latch:
    """What holds. Reasons are masks of ``Badge``; ``*_id`` are stop ids (CLOCK_MONOTONIC ns); wall times in ns."""

    kill: bool = False
    kill_id: int = 0
    kill_reasons: int = 0
    kill_source: int = 0
    kill_text: str = ""
    killed_wall_ns: int = 0
    awaits_link: bool = False
    """Latched because the broker was lost: the flatten is decided when it is back."""
    lost_since_ns: int = 0
    """When the outage that latched began, CLOCK_MONOTONIC; 0 it was not an outage. Of another boot: from the wall's."""
    lost_wall_ns: int = 0
    symbol_kill: int = 0
    """Mask of symbols that a guardrail of scope ``symbol`` has killed."""
    pause: bool = False
    pause_id: int = 0
    pause_text: str = ""
    released_kill_id: int = 0
    released_pause_id: int = 0
    locked_session: int = 0
    """Session date (YYYYMMDD) for which DD forbids a release without a named override; 0 none."""
    incident_id: int = 0
    day_session: int = 0
    """Session date of which risk.json has the start and the peak; 0 none yet."""
    boot_id: str = ""

    def held(self) -> bool:
        return self.kill or self.pause or bool(self.symbol_kill)


def boot_id() -> str:
    """Identity of this boot of the host; empty where the kernel does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def replace_file(path: Path, data: bytes, *, new: bool = False) -> None:
    """Replace a file so that after a crash at any instruction either the old or the new content is there, whole.

    ``new``: raises FileExistsError if there is one, also one that another process has made a moment ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if new:
        try:
            os.link(temporary, path)
        finally:
            os.unlink(temporary)
    else:
        os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def encode(latch: Latch) -> bytes:
    return json.dumps({"version": VERSION, **asdict(latch)}, indent=1).encode() + b"\n"


def save(state_dir: Path, latch: Latch) -> None:
    """Write the latch durably. Raises OSError."""
    replace_file(state_dir / FILE, encode(latch))


def parse(text: str) -> Latch:
    """Latch from the file's text. Raises ValueError saying what is wrong with it."""
    data: Any = json.loads(text)
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise ValueError(f"version {data.get('version') if isinstance(data, dict) else None!r}, expected {VERSION}")
    values: dict[str, Any] = {}
    for field in fields(Latch):
        default = getattr(Latch(), field.name)
        value = data.get(field.name, None if field.name in ("kill", "pause") else default)
        if type(value) is not type(default):
            raise ValueError(f"{field.name} is {value!r}, expected {type(default).__name__}")
        values[field.name] = value
    return Latch(**values)


def load(state_dir: Path, mode: str, now_ns: int, wall_ns: int) -> Latch:
    """What holds at start: the file's content, or latched with the reason if that can't be known. Never raises."""

    def latched(text: str) -> Latch:
        return Latch(kill=True, kill_id=now_ns, kill_text=text, killed_wall_ns=wall_ns, boot_id=boot_id())

    path = state_dir / FILE
    try:
        latch = parse(path.read_text())
    except FileNotFoundError:
        if (state_dir / JOURNAL).exists():
            return latched(f"{path} is missing although there is a journal: latched until reset")
        if mode != "sim":
            return latched(f"{state_dir} is new: run `l2dash init` once to arm {mode} trading")
        return Latch(boot_id=boot_id())
    except (OSError, ValueError) as error:
        return latched(f"{path} can't be read ({error}): latched until reset")
    return rebased(latch, boot_id(), now_ns, wall_ns)


def rebased(latch: Latch, boot: str, now_ns: int, wall_ns: int) -> Latch:
    """The latch with the monotonic times of this boot. Those of another boot would end a wait at once, or never."""
    if latch.awaits_link and not latch.lost_since_ns:  # of a version that did not write it
        latch = replace(latch, lost_since_ns=latch.kill_id, lost_wall_ns=latch.killed_wall_ns)
    if latch.boot_id == boot:
        return latch
    if latch.lost_since_ns:
        away_ns = wall_ns - latch.lost_wall_ns
        away_ns = away_ns if away_ns >= 0 else UNKNOWN_NS  # the wall has gone back since
        latch = replace(latch, lost_since_ns=now_ns - away_ns, lost_wall_ns=wall_ns - away_ns)
    return replace(  # the cooling starts anew
        latch, released_kill_id=0, released_pause_id=0, boot_id=boot,
        kill_id=now_ns if latch.kill else 0, pause_id=now_ns if latch.pause else 0,
    )  # fmt: skip


def init(state_dir: Path) -> Path:
    """Arm a virgin state directory: what `l2dash init` does. Returns the latch file.

    Raises LatchExists if the directory has a latch file or a journal already: then `l2dash reset` is the way.
    """
    path, words = state_dir / FILE, "exists: this directory has a history; release a latch with `l2dash reset`"
    for found in (path, state_dir / JOURNAL):
        if found.exists():
            raise LatchExists(f"{found} {words}")
    try:
        replace_file(path, encode(Latch(boot_id=boot_id())), new=True)
    except FileExistsError:  # never over a KILL that the watchdog has written since
        raise LatchExists(f"{path} {words}") from None
    return path


def prepare(state_dir: Path, mode: str) -> bool:
    """Arm a virgin directory in ``sim``; True if that was done. To be called before the recorder makes a journal."""
    if mode != "sim" or (state_dir / FILE).exists() or (state_dir / JOURNAL).exists():
        return False
    try:
        init(state_dir)
    except LatchExists:  # the watchdog's file thread was faster
        return False
    return True


def kill_offline(state_dir: Path, text: str, now_ns: int, wall_ns: int) -> None:
    """Latch KILL in the file while no watchdog may be alive: what `l2dash kill` does before it ends the processes, and
    after. Raises OSError.
    """
    boot = boot_id()
    try:
        latch = parse((state_dir / FILE).read_text())
    except (OSError, ValueError):
        latch = Latch(boot_id=boot)
    latch = rebased(latch, boot, now_ns, wall_ns)  # no watchdog may have started since a reboot
    if not latch.kill:
        latch = replace(latch, kill=True, kill_id=now_ns, kill_text=text[:160], killed_wall_ns=wall_ns, kill_source=3)
    save(state_dir, latch)


RETRY_S = 1.0


class FileWriter:
    """Helper thread that writes the newest version of each file; a caller never waits unless it asks to.

    What can't be written is tried again every second, whole and from the start, until it is on disk or a newer version
    has taken its place. ``on_error`` is called in that thread, once for each file that begins to fail.
    """

    def __init__(self, on_error: Callable[[Path, OSError], None]) -> None:
        self._on_error = on_error
        self._waiting: dict[Path, bytes] = {}
        self._wake = threading.Condition()
        self._busy = False
        self._closed = False
        self._failed: dict[Path, bytes] = {}
        self._thread = threading.Thread(target=self._run, name="files", daemon=True)
        self._thread.start()

    def write(self, path: Path, data: bytes) -> None:
        """Queue the whole content of ``path``; an older version that still waits is dropped."""
        with self._wake:
            self._waiting[path] = data
            if path in self._failed:
                self._failed[path] = data
            self._wake.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything queued is on disk; False if that took longer."""
        with self._wake:
            return self._wake.wait_for(lambda: not self._waiting and not self._busy, timeout_s)

    @property
    def idle(self) -> bool:
        with self._wake:
            return not self._waiting and not self._busy

    def failed(self, path: Path) -> bool:
        """The last attempt to write this file went wrong."""
        return path in self._failed

    def close(self, timeout_s: float = 5.0) -> None:
        self.flush(timeout_s)
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._wake:
                due = self._wake.wait_for(
                    lambda: self._closed or bool(self._waiting), RETRY_S if self._failed else None
                )
                if not due:
                    self._waiting.update(self._failed)
                if not self._waiting:
                    return
                path, data = self._waiting.popitem()
                self._busy = True
            error: OSError | None = None
            try:
                replace_file(path, data)
            except OSError as caught:
                error = caught
            if error is not None and path not in self._failed:
                self._on_error(path, error)
            with self._wake:
                if error is None:
                    self._failed.pop(path, None)
                else:
                    self._failed[path] = self._waiting.get(path, data)
                self._busy = False
                self._wake.notify_all()
