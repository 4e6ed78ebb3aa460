"""The recorder without threads: the same journal and the same resumption, written when its turn comes."""

from __future__ import annotations

from engine import topology
from engine.domain.sessions import session_date
from engine.risk import latch
from engine.runtime.context import Context
from engine.runtime.heartbeat import DEGRADED
from engine.runtime.runner import StartRefused
from engine.sim.machine import Disk
from engine.store.journal import Journal, journal_path
from engine.store.read import STREAMS
from engine.store.rows import Batch, Names
from shm.ring import RingReader

EPOCH = 1
_EVERY_NS = 1_000_000_000
_MOST_BATCHES = 400


class SimRecorder:
    """An ``Agent``. Ticks and signals are passed over: nobody asks for them here."""

    def __init__(self, context: Context, disk: Disk) -> None:
        self._context, self._disk = context, disk
        offset = context.clock.wall_ns(0)
        self._names = Names(tuple(i.symbol for i in context.instruments), offset, lambda wall: session_date(wall, True))
        self._rings: list[tuple[str, RingReader]] = []
        self._passed = [context.ring_reader(name) for name in STREAMS]
        self._waiting: list[Batch] = []
        self._journal: Journal | None = None
        self._next_ns = 0

    def on_start(self, now_ns: int) -> None:
        if self._disk.full:
            raise StartRefused("recorder: no space left on the disk")
        latch.prepare(self._context.state_dir, "sim")
        self._journal = Journal(journal_path(self._context.state_dir))
        for ring in topology.reads(topology.RECORDER):
            if ring.name not in STREAMS:
                reader = self._context.ring_reader(ring.name, 256)
                reader.seek(self._journal.cursor(ring.name, EPOCH) or 0)
                self._rings.append((ring.name, reader))

    def ready(self) -> bool:
        return self._journal is not None

    def lag(self) -> int:
        return sum(r.waiting for _, r in self._rings)

    def wait_fds(self) -> tuple[int, ...]:
        return ()

    def do_work(self, now_ns: int) -> int:
        done = 0
        for name, reader in self._rings:
            while len(self._waiting) < _MOST_BATCHES:
                records = reader.poll()
                if not len(records) and not reader.last_gap:
                    break
                self._waiting.append(Batch(name, EPOCH, records.copy(), reader.last_gap, reader.position, now_ns))
                done += len(records)
        return done

    def housekeeping(self, now_ns: int) -> None:
        for reader in self._passed:
            reader.skip_to_end()
        self._context.set_flag(DEGRADED if self._disk.full else 0)
        if now_ns >= self._next_ns and not self._disk.full:
            self._next_ns = now_ns + _EVERY_NS
            self._commit()

    def _commit(self) -> None:
        assert self._journal is not None
        waiting, self._waiting = self._waiting, []
        self._journal.append(waiting, self._names)

    def on_close(self, now_ns: int) -> None:
        while self.do_work(now_ns):
            if not self._disk.full:
                self._commit()
            elif len(self._waiting) >= _MOST_BATCHES:
                break
        if not self._disk.full:
            self._commit()
        self.vanish()

    def vanish(self) -> None:
        """The process is gone: its connection to the file with it."""
        if self._journal is not None:
            self._journal.close()
