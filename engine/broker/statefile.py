"""``risk.bridge.json``: the order-id mark and the day's opening positions, written atomically.

The hot loop never waits for a disk: a helper thread writes the newest value that was submitted. Only the order-id mark
has to be on disk before ids below it are used; it is therefore reserved in blocks, ahead of need, and counts once its
write has been confirmed. What closes a position is numbered beyond it where the disk fails.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol

BLOCK = 1_000
"""Order ids reserved at a time."""


@dataclass(frozen=True, slots=True)
class BridgeState:
    """``order_id_mark``: no id below it is ever used again. ``date``: session date (YYYYMMDD) of ``day_open``."""

    order_id_mark: int = 0
    date: int = 0
    account: str = ""
    day_open: dict[str, float] = field(default_factory=dict)
    day_open_cost: dict[str, float] = field(default_factory=dict)
    qty: dict[str, float] = field(default_factory=dict)
    """Last known positions: what the next day must begin with."""


def load(path: Path) -> BridgeState | None:
    """The state, None if there is none. Raises ValueError naming the file if it can't be read: it is never guessed."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        data = json.loads(raw)
        return BridgeState(**data)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: not readable as bridge state ({error}); restore it from a backup or move it away"
        ) from error


def write_atomic(path: Path, data: bytes) -> None:
    """Temporary file, fsync, rename, fsync of the directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def encode(state: BridgeState) -> bytes:
    return json.dumps(asdict(state), indent=1).encode()


class StateFiles(Protocol):
    """Who writes the bridge's files: ``Writer``, or a simulation whose disk fails on a schedule."""

    error: str
    """Of the last write that failed; empty since one succeeded."""

    def submit(self, path: Path, data: bytes) -> int:
        """Queue the whole content of a file; returns the number of this submission."""

    def written(self, path: Path) -> int:
        """The newest submission of a file that is on disk, or had a newer one in its place; 0 none."""

    def drain(self, timeout_s: float) -> bool: ...

    def close(self) -> None: ...


class Writer:
    """Writes files in a thread of its own; of several submissions for one file only the newest is written."""

    def __init__(self) -> None:
        self._pending: dict[Path, tuple[int, bytes]] = {}
        self._written: dict[Path, int] = {}
        self._count = 0
        self._change = threading.Condition()
        self._busy = False
        self._stop = False
        self.error = ""
        """Of the last write that failed; empty since one succeeded."""
        self._thread: threading.Thread | None = None

    def submit(self, path: Path, data: bytes) -> int:
        with self._change:
            self._count += 1
            self._pending[path] = (self._count, data)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="state-writer", daemon=True)
                self._thread.start()
            self._change.notify_all()
            return self._count

    def written(self, path: Path) -> int:
        return self._written.get(path, 0)

    def _run(self) -> None:
        while True:
            with self._change:
                while not self._pending and not self._stop:
                    self._change.wait()
                if not self._pending:
                    return
                path, (number, data) = self._pending.popitem()
                self._busy = True
            try:
                write_atomic(path, data)
                self._written[path] = number
                self.error = ""
            except OSError as error:
                self.error = f"{path}: {error.strerror}"
            with self._change:
                self._busy = False
                self._change.notify_all()

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything is written; False when it took too long."""
        with self._change:
            return self._change.wait_for(lambda: not self._pending and not self._busy, timeout_s)

    def close(self) -> None:
        with self._change:
            self._stop = True
            self._change.notify_all()
        if self._thread is not None:
            self._thread.join(2.0)


class OrderIds:
    """Order ids that never repeat, whatever the gateway's nextValidId says after a restart of its own.

    Below the mark that is known to be on disk every order may be numbered, beyond it only what closes: a position must
    be closed also when the disk is full. Such ids are still in the order store and in the broker's answers.
    """

    def __init__(self, mark: int) -> None:
        self._next = max(1, mark)
        self._reserved = self._confirmed = self._next

    @property
    def mark(self) -> int:
        """What the file must say before ids up to it are used."""
        return self._reserved

    def raise_to(self, order_id: int) -> None:
        """Ids below ``order_id`` are taken, by the gateway's word or by an order that was seen."""
        self._next = max(self._next, order_id)

    def reserve(self) -> int | None:
        """A new mark to be written when fewer than half a block is left; None while there is enough."""
        if self._reserved - self._next > BLOCK // 2:
            return None
        self._reserved = self._next + BLOCK
        return self._reserved

    def confirm(self, mark: int) -> None:
        """A mark is on disk."""
        self._confirmed = max(self._confirmed, mark)

    def ready(self) -> bool:
        return self._next < self._confirmed

    def peek(self) -> int:
        """What ``take`` will return."""
        return self._next

    def take(self, *, closing: bool = False) -> int:
        """The next id. Raises ValueError when the block on disk is used up and the order does not close."""
        if not closing and not self.ready():
            raise ValueError(f"order id {self._next} is not reserved on disk: the state directory can't be written?")
        self._next += 1
        return self._next - 1


def with_mark(state: BridgeState, mark: int) -> BridgeState:
    return replace(state, order_id_mark=max(state.order_id_mark, mark))
