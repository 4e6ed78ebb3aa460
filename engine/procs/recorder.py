"""recorder: drains every ring into the tick store and the journal, off everybody's hot path; sends the alerts.

The agent's thread only polls rings and hands copies over. Writing and syncing belong to two sink threads, deciding and
delivering alerts to a third, sealing and retention to a child process and a slow duty. When a sink's queue is full the
agent stops polling: the backlog stays in the ring, ``lag`` and the degraded flag show it, and the watchdog blocks
entries. Positions in the rings are the stores' own (last block, journal cursor): after a kill -9 nothing that was in a
ring is lost and nothing is written twice.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from engine import topology
from engine.domain.codes import CommandKind, EventKind, ServiceState, Severity
from engine.domain.sessions import session_date
from engine.risk import latch
from engine.runtime.context import Context
from engine.runtime.heartbeat import DEGRADED
from engine.runtime.runner import StartRefused
from engine.runtime.secrets import secret
from engine.store.alert_rules import Alert
from engine.store.alerts import Channels, Dispatcher
from engine.store.blocks import BlockKind
from engine.store.files import StoreError, make_directory
from engine.store.journal import Journal, journal_path
from engine.store.read import STREAMS, ticks_root
from engine.store.retention import Caretaker
from engine.store.rows import Batch, Names
from engine.store.segments import SegmentWriter, last_position
from engine.store.sinks import JournalSink, TickSink, free_bytes
from engine.store.streams import Anchor, TickStream
from shm.layouts import COMMAND
from shm.region import Region, boot_id_hash
from shm.ring import RingReader

BATCH, JOURNAL_BATCH = 1024, 256
POLLS, JOURNAL_POLLS = 32, 8
"""Batches of one ring before the next ring has its turn."""
SLOW_DUTY_NS = 5_000_000_000
CLOSE_TIMEOUT_S = 8.0
_LEVELS = {Severity.P1: 40, Severity.P2: 30, Severity.ROUTINE: 30, Severity.INFO: 20}


@dataclass(frozen=True, slots=True)
class _Logged:
    """A ring that goes to the journal."""

    name: str
    reader: RingReader
    epoch: int


class Recorder:
    """Agent of the recorder. ``degraded``: it can't do all of its duty; entries must be blocked."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._config = ctx.config
        self._always_open = ctx.config.instance.mode == "sim"
        self._wall_offset_ns = ctx.clock.wall_ns(0)
        self._names = Names(tuple(i.symbol for i in ctx.instruments), self._wall_offset_ns, self._session_of)
        self._streams: list[TickStream] = []
        self._logged: list[_Logged] = []
        self._problems: dict[str, str] = {}
        self._ready = False
        self._date, self._date_second = 0, -1
        self._next_slow_ns = 0
        self._caretaker = Caretaker(ctx.state_dir, ctx.config.recorder.retention_days)
        self._guard_beat = ctx.cell_reader(f"heartbeat.{topology.WATCHDOG}")
        self._counted: dict[str, int] = {}
        self._ticks: TickSink
        self._journal: JournalSink
        self._alerts: Dispatcher

    # -- life cycle ---------------------------------------------------------------------------------------------

    def on_start(self, now_ns: int) -> None:
        """Open the journal, recover the segments, resume. Raises StartRefused if the stores can't be used."""
        root = ticks_root(self._ctx.state_dir)
        try:
            make_directory(root)
            latch.prepare(self._ctx.state_dir, self._config.instance.mode)  # a journal ends the directory's innocence
            journal = Journal(journal_path(self._ctx.state_dir))
            self._start_ticks(now_ns)
        except (StoreError, OSError) as error:
            text = str(error) if isinstance(error, StoreError) else f"tick store {root} can't be used: {error}"
            self._ctx.events.emit(EventKind.ALERT, severity=Severity.P1, text=f"recorder can't start: {text}")
            raise StartRefused(text) from error
        self._logged = [self._resume(journal, r) for r in topology.reads(topology.RECORDER) if r.name not in STREAMS]
        channels = Channels(
            secret("L2DASH_ALERT_P1") or "",
            secret("L2DASH_ALERT_P2") or "",
            secret("L2DASH_ALERT_ROUTINE") or "",
            self._config.alerts.deadman_url,
        )
        self._alerts = Dispatcher(
            self._ctx.state_dir,
            journal.path,
            channels,
            self._config.alerts.repeat_s,
            lambda: self._ctx.clock.wall_ns(self._ctx.clock.now_ns()),
            healthy=self._all_well,
        )
        self._journal = JournalSink(journal, lambda: self._names, self._alerts.rows)
        self._journal.start()
        self._alerts.start()
        self._ready = True

    def _start_ticks(self, now_ns: int) -> None:
        root, date = ticks_root(self._ctx.state_dir), self._session(now_ns)
        writers = {name: SegmentWriter(root, name, self._config.recorder.segment_bytes) for name in STREAMS}
        self._ticks = TickSink(writers, self._config.recorder.sync_s)
        for name, kind in STREAMS.items():
            reader = self._ctx.ring_reader(name, BATCH)
            if self._config.recorder.record_ticks:
                self._streams.append(self._open_stream(name, kind, reader, writers[name], date, now_ns))
            else:
                reader.skip_to_end()
        self._ticks.start()

    def _open_stream(
        self, name: str, kind: BlockKind, reader: RingReader, writer: SegmentWriter, date: int, now_ns: int
    ) -> TickStream:
        known = last_position(writer.root, name)
        found = writer.open(date)
        if found is not None and found.truncated_bytes:
            self._ctx.log.warning(f"{found.path}: cut off {found.truncated_bytes} bytes of an unfinished block")
        if found is not None and found.loud:
            size = sum(d.end - d.offset for d in found.quarantined)
            where = f"{found.path.parent.name}/quarantine"
            self._say(Severity.P1, f"{found.path.name}: {size} bytes of recorded data are damaged: {where}", now_ns)
        anchor = Anchor(self._epoch(name), self._wall_offset_ns, boot_id_hash())
        if known is not None:
            reader.seek(known[1] if known[0] == anchor.epoch else 0)
        return TickStream(name, kind, reader, anchor, self._ticks)

    def _epoch(self, ring: str) -> int:
        """Incarnation of a ring: the wall time at which it was created."""
        with Region.attach(self._ctx.directory, topology.ring_region(topology.ring(ring))) as region:
            return region.anchors[0]

    def _resume(self, journal: Journal, ring: topology.Ring) -> _Logged:
        reader = self._ctx.ring_reader(ring.name, JOURNAL_BATCH)
        epoch = self._epoch(ring.name)
        reader.seek(journal.cursor(ring.name, epoch) or 0)
        return _Logged(ring.name, reader, epoch)

    def on_close(self, now_ns: int) -> None:
        """Drain, write and sync everything; say loudly if that was not possible."""
        if not self._ready:
            return
        while self.do_work(now_ns):
            pass
        for stream in self._streams:
            stream.hand_over(self._session(now_ns))
        clean = self._ticks.close(CLOSE_TIMEOUT_S)
        clean = self._journal.close(CLOSE_TIMEOUT_S) and clean
        self._alerts.close()
        self._journal.release()
        self._caretaker.close()
        self._count()
        if not clean:
            text = self._journal.health.problem or self._ticks.health.problem or "the disk did not finish in time"
            self._ctx.log.error(f"closed with unwritten records, the rings still have them: {text}")

    # -- work ---------------------------------------------------------------------------------------------------

    def do_work(self, now_ns: int) -> int:
        """Copy what waits out of the rings. Journal first: it matters more and is less."""
        done, full = 0, False
        for ring in self._logged:
            for _ in range(JOURNAL_POLLS):
                if not self._journal.room:
                    full = True
                    break
                count = self._log_batch(ring, now_ns)
                done += count
                if not count:
                    break
        date = self._session(now_ns)
        for stream in self._streams:
            for _ in range(POLLS):
                if not self._ticks.room:
                    full = True
                    break
                count = stream.take(date, now_ns)
                done += count
                if stream.lost:
                    self._tell_gap(stream, now_ns)
                if not count:
                    break
        if full and not done:
            time.sleep(0.001)  # the disk is what it waits for, and nobody waits for the recorder
        return done

    def _log_batch(self, ring: _Logged, now_ns: int) -> int:
        records = ring.reader.poll()
        lost = ring.reader.last_gap
        if not len(records) and not lost:
            return 0
        if lost:
            self._ctx.counters.add("gaps")
        self._journal.offer(Batch(ring.name, ring.epoch, records.copy(), lost, ring.reader.position, now_ns))
        if records.dtype == COMMAND:
            for command in records[records["kind"] == CommandKind.ACKNOWLEDGE]:
                self._ctx.events.emit(
                    EventKind.COMMAND_RESULT,
                    source=int(command["source"]),
                    ref_id=int(command["command_id"]),
                    text="alerts acknowledged",
                    now_ns=now_ns,
                )
        return len(records)

    def _tell_gap(self, stream: TickStream, now_ns: int) -> None:
        self._ctx.counters.add("gaps")
        text = f"gap: {stream.lost} {stream.name} were overwritten before they could be recorded"
        self._say(Severity.P2, text, now_ns)

    def _session_of(self, wall_ns: int) -> int:
        return session_date(wall_ns, self._always_open)

    def _session(self, now_ns: int) -> int:
        wall = now_ns + self._wall_offset_ns
        if wall // 1_000_000_000 != self._date_second:
            self._date_second, self._date = wall // 1_000_000_000, self._session_of(wall)
        return self._date

    # -- slow duties --------------------------------------------------------------------------------------------

    def housekeeping(self, now_ns: int) -> None:
        """Hand over blocks that have waited long enough; look after health, disk, sealing and retention."""
        half = int(self._config.recorder.sync_s * 0.5e9)
        for stream in self._streams:
            if stream.age_ns(now_ns) >= half and self._ticks.room:
                stream.hand_over(self._session(now_ns))
        while self._alerts.results:
            self._ctx.log.warning(self._alerts.results.popleft())
        self._check_health(now_ns)
        self._count()
        if now_ns >= self._next_slow_ns:
            self._next_slow_ns = now_ns + SLOW_DUTY_NS
            self._check_disk(now_ns)
            self._look_after_days(now_ns)

    def _look_after_days(self, now_ns: int) -> None:
        today = self._session(now_ns)
        if not self._ticks.roll(today):
            return
        problem, gone = self._caretaker.step(today)
        if problem:
            self._say(Severity.P2, problem, now_ns)
        for day in gone:
            self._ctx.log.info(f"removed the ticks of {day}: older than recorder.retention_days")

    def _check_health(self, now_ns: int) -> None:
        self._problem("journal", self._journal.health.problem, now_ns)
        self._problem("ticks", self._ticks.health.problem, now_ns)
        limit = self._config.guardrails.recorder_behind_share
        # Half of the limit ends it: a backlog that hovers about the limit is one problem, not many.
        share = limit / 2 if "behind" in self._problems else limit
        readers = [(s.name, s.reader) for s in self._streams] + [(r.name, r.reader) for r in self._logged]
        behind = [n for n, r in readers if r.waiting > share * r.capacity]
        text = f"rings over {limit:.0%} full, the disk does not keep up: {', '.join(behind)}" if behind else ""
        self._problem("behind", text, now_ns)

    def _check_disk(self, now_ns: int) -> None:
        limit, place = self._config.recorder.min_free_bytes, self._ctx.state_dir
        text = ""
        try:
            free = free_bytes(place)
            if free < limit:
                text = f"disk low: {free >> 20} MiB free at {place}, recorder.min_free_bytes wants {limit >> 20} MiB"
        except OSError as error:
            text = f"{place} can't be examined: {error.strerror}"
        self._problem("disk", text, now_ns)

    def _problem(self, key: str, text: str, now_ns: int) -> None:
        """Note a problem, or with "" that it is over; each transition is told once."""
        known = key in self._problems
        if text:
            self._problems[key] = text
            if not known:
                self._say(Severity.P1, f"recorder degraded: {text}", now_ns)
        elif known:
            del self._problems[key]
            self._say(Severity.ROUTINE, f"recorder: {key} is well again", now_ns)
        self._ctx.set_flag(DEGRADED if self._problems else 0)

    def _say(self, severity: Severity, text: str, now_ns: int) -> None:
        """An event, journaled and alerted as every event is; directly to the alerts if the journal is what fails."""
        self._ctx.events.emit(EventKind.ALERT, severity=severity, text=text, now_ns=now_ns)
        self._ctx.log.log(_LEVELS[severity], text)
        if "journal" in self._problems:
            wall = now_ns + self._wall_offset_ns
            self._alerts.notice(Alert(now_ns, f"direct.{text[:24]}", severity, "recorder", text, wall))

    def _all_well(self) -> bool:
        """May the outside dead-man be told that all is well? Only while the watchdog beats and nothing is degraded."""
        beat = self._guard_beat.read()
        age_ns = self._ctx.clock.now_ns() - int(beat["t_beat_ns"])
        silent_ns = 5 * topology.service(topology.WATCHDOG).beat_s * 1e9
        return not self.degraded and int(beat["state"]) == ServiceState.READY and age_ns < silent_ns

    def _count(self) -> None:
        now = {
            "ticks_written": self._ticks.records_written,
            "events_written": self._journal.rows_written,
            "bytes_written": self._ticks.bytes_written,
            "alerts_sent": self._alerts.sent,
            "sync_errors": self._ticks.failures + self._journal.failures,
        }
        for name, value in now.items():
            if value != self._counted.get(name, 0):
                self._ctx.counters.add(name, value - self._counted.get(name, 0))
        self._counted = now

    # -- what the runner and the status ask ----------------------------------------------------------------------

    @property
    def degraded(self) -> bool:
        """Disk low, a failed write or sync, or a ring over its share full."""
        return bool(self._problems)

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each reason to be degraded."""
        return tuple(self._problems.values())

    def ready(self) -> bool:
        return self._ready

    def lag(self) -> int:
        """Records that wait in the rings, not yet taken."""
        return sum(s.reader.waiting for s in self._streams) + sum(r.reader.waiting for r in self._logged)

    def wait_fds(self) -> tuple[int, ...]:
        return ()


def create(ctx: Context) -> Recorder:
    """The recorder's agent."""
    return Recorder(ctx)
