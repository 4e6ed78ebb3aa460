"""Everything a service gets, and nothing that the topology does not give it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from engine import topology
from engine.config import Config
from engine.runtime import universe
from engine.runtime.clock import Clock, SystemClock
from engine.runtime.doorbell import Bell, Doorbell
from engine.runtime.events import EventWriter
from engine.runtime.heartbeat import Heartbeat
from engine.runtime.ids import IdSource
from engine.runtime.log import open_log
from shm import layouts
from shm.cell import CellReader, CellWriter
from shm.counters import Counters
from shm.errors import NotDeclared
from shm.region import Region, RegionSpec, Words
from shm.ring import Gate, RingReader, RingWriter, cursor_at
from shm.wait import tail_address


class Context:
    """A service's (or the command line's) access to one instance. Attaches lazily; each region is mapped once."""

    def __init__(self, config: Config, service: str, clock: Clock | None = None) -> None:
        self.config = config
        self.service = service
        self.directory: Path = config.shm_dir
        self.state_dir: Path = config.state_dir
        self.instruments = universe.instruments(config)
        self.index_symbol = universe.index_symbol(config)
        self._regions: dict[tuple[str, bool], Region] = {}
        self.unlocked: dict[str, str] = {}
        """Regions that were to be locked in memory and are not (``runtime.mlock``), with the kernel's reason."""
        self._bells: dict[str, Bell] = {}
        self._readers: list[RingReader] = []
        self.clock: Clock = clock or SystemClock(*self._region(next(topology.regions())).anchors)
        # The anchored wall never jumps: after a step back of the host's clock ids would come out a second time.
        self.ids = IdSource(self.clock.wall_ns(self.clock.now_ns()))
        self._events: EventWriter | None = None
        self._log: logging.Logger | None = None
        self.heartbeat: Heartbeat | None = None
        self.replay = False
        """A recorded session is shown: there is a past to look at and nobody to take an order."""

    @classmethod
    def for_cli(cls, config: Config) -> Context:
        """Attachment of the command line. Writing needs the instance's CLI lock (``engine.cli.access``)."""
        return cls(config, topology.CLI)

    def _region(self, spec: RegionSpec, writable: bool = False) -> Region:
        key = (spec.name, writable)
        if key not in self._regions:
            region = self._regions[key] = Region.attach(self.directory, spec, writable=writable)
            if self.config.runtime.mlock and self.service != topology.CLI and (reason := region.lock_pages()):
                self.unlocked[spec.name] = reason
        return self._regions[key]

    @property
    def events(self) -> EventWriter:
        if self._events is None:
            self._events = EventWriter(self.ring_writer(f"events.{self.service}"), self.clock)
        return self._events

    @property
    def log(self) -> logging.Logger:
        if self._log is None:
            self._log = open_log(self.service, self.state_dir)
        return self._log

    @property
    def counters(self) -> Counters:
        return self.counters_of(self.service)

    def counters_of(self, service: str) -> Counters:
        """Counters of a service: writable only of its own."""
        s = topology.service(service)
        region = self._region(topology.metrics_region(s), writable=service == self.service)
        return Counters(region, s.counters, s.histograms)

    def ring_writer(self, name: str) -> RingWriter:
        ring = topology.ring(name)
        if ring.writer != self.service:
            raise NotDeclared(f"ring {name} is written by {ring.writer}, not by {self.service}")
        gates = []
        for reader in ring.gate:
            cursors = self._region(topology.cursor_region(reader))
            gates.append(Gate(cursors.words, cursor_at(topology.cursor_line(reader, name))))
        region = self._region(topology.ring_region(ring), writable=True)
        return RingWriter(region, layouts.RING_RECORDS[ring.record], tuple(gates))

    def ring_reader(self, name: str, batch: int = 1024) -> RingReader:
        """Reader with the service's persistent cursor. The command line has none and starts at the end."""
        ring = topology.ring(name)
        dtype = layouts.RING_RECORDS[ring.record]
        if self.service == topology.CLI:
            reader = RingReader(self._region(topology.ring_region(ring)), dtype, np.zeros(8, np.int64), 0, batch=batch)
            reader.skip_to_end()
            return reader
        if self.service not in ring.lossy and self.service not in ring.gate:
            raise NotDeclared(f"ring {name} is not read by {self.service} in the topology")
        cursors = self._region(topology.cursor_region(self.service), writable=True)
        at = cursor_at(topology.cursor_line(self.service, name))
        reader = RingReader(self._region(topology.ring_region(ring)), dtype, cursors.words, at, batch=batch)
        self._readers.append(reader)
        return reader

    def cell_writer(self, name: str) -> CellWriter:
        cell = topology.cell(name)
        if cell.writer != self.service:
            raise NotDeclared(f"cell {name} is written by {cell.writer}, not by {self.service}")
        return CellWriter(self._region(topology.cell_region(cell), writable=True), layouts.CELL_RECORDS[cell.record])

    def cell_reader(self, name: str) -> CellReader:
        cell = topology.cell(name)
        if self.service not in (*cell.readers, cell.writer, topology.CLI):
            raise NotDeclared(f"cell {name} is not read by {self.service} in the topology")
        return CellReader(self._region(topology.cell_region(cell)), layouts.CELL_RECORDS[cell.record])

    def spare_words(self) -> tuple[Words, int]:
        """Four persistent words of the service's own (region, word offset), zero in a new instance."""
        words = self._region(topology.cursor_region(self.service), writable=True).words
        return words, cursor_at(topology.sleep_line(self.service)) + 4

    def bell(self, service: str) -> Bell:
        """The producer's side of a service's doorbell."""
        if service not in self._bells:
            words = self._region(topology.cursor_region(service)).words
            path = self.directory / topology.doorbell_name(service)
            common = [r for r in topology.reads(service) if r.writer == self.service]
            tail = tail_address(self._region(topology.ring_region(common[0])).words) if common else 0
            self._bells[service] = Bell(path, words, cursor_at(topology.sleep_line(service)), tail)
        return self._bells[service]

    def doorbell(self, *, futex: bool = False) -> Doorbell:
        """This service's own doorbell. ``futex``: sleep on its rings while it watches no descriptors."""
        words = self._region(topology.cursor_region(self.service), writable=True).words
        path = self.directory / topology.doorbell_name(self.service)
        rings = [self._region(topology.ring_region(r)).words for r in topology.reads(self.service)] if futex else []
        return Doorbell(path, words, cursor_at(topology.sleep_line(self.service)), rings)

    def wake(self, service: str) -> None:
        """Ring a service if it sleeps. Call after publishing."""
        self.bell(service).ring()

    def start_heartbeat(self, now_ns: int, pid: int = 0) -> Heartbeat:
        """``pid`` where one process plays several (simulation)."""
        self.heartbeat = Heartbeat(self.cell_writer(f"heartbeat.{self.service}"), now_ns, pid)
        return self.heartbeat

    def beat(self, work: int = 0, *, lag: int = 0, lost: int = 0) -> None:
        """Heartbeat of an asyncio service."""
        if self.heartbeat is not None:
            self.heartbeat.beat(self.clock.now_ns(), work, 1, lag, lost)

    def set_flag(self, flags: int) -> None:
        """Flags of the heartbeat (``engine.runtime.heartbeat.DEGRADED``)."""
        if self.heartbeat is not None:
            self.heartbeat.set_flag(flags)

    @property
    def lost(self) -> int:
        """Records lost by all lossy readers of this service."""
        return sum(r.lost for r in self._readers)

    def close(self) -> None:
        for bell in self._bells.values():
            bell.close()
        self._bells.clear()
        regions, self._regions = self._regions, {}
        for region in regions.values():
            region.close()

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
