"""Helper threads of the recorder: all writing and syncing happens here, so that a slow disk never stops the draining.

Each sink has a bounded queue. When it is full the agent stops polling and the backlog stays in the ring, where its
writer and the watchdog can see it: nothing is dropped here.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from engine.store.blocks import Header, Records, encode
from engine.store.files import StoreError
from engine.store.journal import Committed, Journal, JournalCorrupt, JournalFailed
from engine.store.rows import Batch, Names
from engine.store.segments import SYNC_BYTES, SegmentWriter

RETRY_S = 0.5
TICK_QUEUE_BLOCKS = 256
"""16 MiB at most, only while the disk is slow."""
JOURNAL_QUEUE_RECORDS = 16_384
COMMIT_EVERY_S = 0.02
"""Shortest time between two commits: a burst becomes one transaction."""


@dataclass(frozen=True, slots=True)
class Health:
    """State of a sink. ``problem`` is "" while it works; ``sticky``: stays until the process is restarted."""

    problem: str = ""
    sticky: bool = False


class _Sink:
    """A thread with a queue and a health. Subclasses implement ``_step``."""

    def __init__(self, name: str) -> None:
        self._wake = threading.Condition()
        self._closing = False
        self._health = Health()
        self.failures = 0
        """Failed attempts so far."""
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def health(self) -> Health:
        return self._health

    def start(self) -> None:
        self.thread.start()

    def close(self, timeout_s: float = 10.0) -> bool:
        """Write what waits, sync, stop. False if that did not succeed in time."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self.thread.is_alive():
            self.thread.join(timeout_s)
        return not self.thread.is_alive() and not self._health.problem

    def _fail(self, text: str, *, sticky: bool) -> None:
        self.failures += 1
        self._health = Health(text, sticky or self._health.sticky)

    def _recovered(self) -> None:
        if self._health.problem and not self._health.sticky:
            self._health = Health()

    def _run(self) -> None:
        try:
            while self._step():
                pass
        except Exception as error:
            self._fail(
                f"the recorder's {self.thread.name} thread crashed: {error!r}; restart the recorder", sticky=True
            )
            raise

    def _step(self) -> bool:
        raise NotImplementedError


class TickSink(_Sink):
    """Writes blocks of several streams to their segments; syncs every ``sync_s`` or 4 MiB."""

    def __init__(self, writers: dict[str, SegmentWriter], sync_s: float) -> None:
        super().__init__("ticks")
        self._writers = writers
        self._sync_s = sync_s
        self._queue: deque[tuple[str, int, Header, Records]] = deque()
        self._next_sync = time.monotonic() + sync_s
        self.records_written = 0
        self.synced: dict[str, int] = {}
        """Next sequence of each stream up to which everything is durable."""
        self._appended: dict[str, int] = {}
        self._today = 0

    @property
    def room(self) -> bool:
        return len(self._queue) < TICK_QUEUE_BLOCKS

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def bytes_written(self) -> int:
        return sum(w.written for w in self._writers.values())

    def roll(self, today: int) -> bool:
        """Let go of earlier days' segments. True once none is open and nothing waits for one: they may be sealed."""
        self._today = today
        return not self._queue and all(w.date in (0, today) for w in self._writers.values())

    def offer(self, stream: str, date: int, header: Header, records: Records) -> None:
        """Queue one block. ``records`` must not change afterwards."""
        with self._wake:
            self._queue.append((stream, date, header, records))
            self._wake.notify()

    def _step(self) -> bool:
        with self._wake:
            if not self._queue and not self._closing:
                self._wake.wait(max(0.0, self._next_sync - time.monotonic()))
            closing = self._closing
        try:
            self._write_queue()
            if closing or time.monotonic() >= self._next_sync:
                self._sync()
        except StoreError as error:
            self._fail(str(error), sticky=True)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            place = next(iter(self._writers.values())).root
            what = "free the disk" if full else "check the disk, then restart the recorder"
            self._fail(f"writing to {place} failed: {error.strerror}; {what}", sticky=not full)
        else:
            self._recovered()
            if closing and not self._queue:
                return self._finish()
            return True
        if closing:
            return self._finish()
        time.sleep(RETRY_S)
        return True

    def _write_queue(self) -> None:
        while self._queue:
            stream, date, header, records = self._queue[0]
            writer = self._writers[stream]
            writer.append(date, encode(header, records))
            self._queue.popleft()
            self._appended[stream] = header.next_sequence
            self.records_written += len(records)
            if writer.unsynced_bytes >= SYNC_BYTES:
                self._sync()

    def _sync(self) -> None:
        self._next_sync = time.monotonic() + self._sync_s
        for stream, writer in self._writers.items():
            writer.sync()
            if stream in self._appended:
                self.synced[stream] = self._appended[stream]
            if writer.date < self._today and not self._queue:
                writer.close()

    def _finish(self) -> bool:
        for writer in self._writers.values():
            try:
                writer.close()
            except (StoreError, OSError) as error:
                self._fail(str(error), sticky=True)
        return False


class JournalSink(_Sink):
    """Commits batches in groups; tells a listener the rows that are durable."""

    def __init__(
        self, journal: Journal, names: Callable[[], Names], listener: Callable[[list[Committed]], None]
    ) -> None:
        super().__init__("journal")
        self._journal = journal
        self._names = names
        self._listener = listener
        self._queue: deque[Batch] = deque()
        self._queued_records = 0
        self._broken = False
        self.rows_written = 0
        self.commits = 0
        self.commit_ns_max = 0
        self.commit_ns_sum = 0

    def release(self) -> None:
        """Close the file, once the thread has ended and nobody reads any more: then the WAL is folded in."""
        if not self.thread.is_alive():
            self._journal.close()

    @property
    def room(self) -> bool:
        return self._queued_records < JOURNAL_QUEUE_RECORDS

    @property
    def waiting(self) -> int:
        return self._queued_records

    def offer(self, batch: Batch) -> None:
        """Queue records of one ring. ``batch.records`` must not change afterwards."""
        with self._wake:
            self._queue.append(batch)
            self._queued_records += len(batch.records)
            self._wake.notify()

    def _step(self) -> bool:
        with self._wake:
            if not self._queue and not self._closing:
                self._wake.wait(1.0)
            batches, closing = list(self._queue), self._closing
        if not batches:
            return not closing
        try:
            if self._broken:
                self._journal.reopen()
                self._broken = False
            began = time.monotonic_ns()
            rows = self._journal.append(batches, self._names())
            took = time.monotonic_ns() - began
        except (JournalFailed, JournalCorrupt) as error:
            self._broken = True
            self._fail(str(error), sticky=not (isinstance(error, JournalFailed) and error.disk_full))
            if closing:
                return False
            time.sleep(RETRY_S)
            return True
        with self._wake:
            for batch in batches:
                self._queue.popleft()
                self._queued_records -= len(batch.records)
        self.rows_written += len(rows)
        self.commits += 1
        self.commit_ns_max, self.commit_ns_sum = max(self.commit_ns_max, took), self.commit_ns_sum + took
        self._recovered()
        self._listener(rows)
        if not closing:
            time.sleep(COMMIT_EVERY_S)
        return True


def free_bytes(path: os.PathLike[str]) -> int:
    """Bytes that an unprivileged process may still write there. Raises OSError."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
