"""An instance: the directory of regions under /dev/shm, its life cycle and who lives in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engine import topology
from engine.config import Config, dump, load
from engine.domain.codes import ServiceState
from shm import janitor
from shm.cell import CellReader, check_cells
from shm.counters import check_counters
from shm.errors import RegionMissing, ShmError
from shm.layouts import HEARTBEAT
from shm.region import Region, RegionKind, check_region, start_ticks
from shm.ring import check_cursor, check_ring, cursor_at

CONFIG_FILE = "config.toml"
_TORN_TRIES, _TORN_PAUSE_S = 10, 0.0005


class InstanceRunning(Exception):
    """A second instance was asked for; the text names the pid of the first."""


@dataclass(frozen=True, slots=True)
class Life:
    """What a service's heartbeat says."""

    service: str
    pid: int
    alive: bool
    state: ServiceState
    t_beat_ns: int
    incarnation: int
    torn: bool = False
    """The cell could not be read: its writer was preempted, stopped or killed in it. State and time are void."""


def heartbeat(config: Config, service: str) -> Life:
    """Last heartbeat of a service. Raises ShmError if the instance is not there."""
    spec = topology.cell_region(topology.cell(f"heartbeat.{service}"))
    with Region.attach(config.shm_dir, spec) as region:
        reader = CellReader(region, HEARTBEAT)
        beat = reader.read()
        for _ in range(_TORN_TRIES):
            if not reader.torn[0]:
                break
            time.sleep(_TORN_PAUSE_S)  # a busy host preempts writers in the middle: that is no news about the service
            beat = reader.read()
        if reader.torn[0]:
            return Life(service, region.writer_pid, region.writer_alive, ServiceState.DOWN, 0, 0, torn=True)
        pid, ticks = int(beat["pid"]), int(beat["start_ticks"])
        return Life(
            service,
            pid,
            pid > 0 and start_ticks(pid) == ticks,
            ServiceState(int(beat["state"])),
            int(beat["t_beat_ns"]),
            int(beat["incarnation"]),
        )


def living(config: Config) -> list[Life]:
    """Services of the instance whose process lives; empty if there is no instance."""
    found = []
    for service in topology.SERVICES:
        with contextlib.suppress(ShmError):
            life = heartbeat(config, service.name)
            if life.alive:
                found.append(life)
    return found


def create(config: Config) -> int:
    """Make every region, or continue with those of an instance whose processes are all gone. Returns the generation.

    What dead boots and crashed creators left is removed first. Raises InstanceRunning, RegionMismatch (another layout),
    RegionFull, RegionReadOnly.
    """
    directory = config.shm_dir
    alive = living(config)
    if alive:
        raise InstanceRunning(
            f"instance {config.instance.name} is running ({alive[0].service} has pid {alive[0].pid}); "
            f"stop it with `l2dash down` or choose another instance.name"
        )
    janitor.sweep(directory.parent)
    generation = 1
    if directory.exists():
        missing = []
        for spec in topology.regions():
            try:
                with Region.attach(directory, spec) as region:
                    generation = max(generation, region.generation)
            except RegionMissing:
                missing.append(spec)
        if missing:
            generation += 1  # a cursor into a region that is gone must not count in the one that takes its place
        for spec in missing:
            Region.create(directory, spec, generation).close()
        _write_config(config)
        return generation
    directory.mkdir(mode=0o700, parents=True)
    try:
        for spec in topology.regions():
            Region.create(directory, spec, generation).close()
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    _write_config(config)
    return generation


def _write_config(config: Config) -> None:
    path = config.shm_dir / CONFIG_FILE
    temporary = path.with_name(f".{CONFIG_FILE}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(dump(config))
    temporary.replace(path)


def check(config: Config) -> list[str]:
    """Every broken invariant of the instance's shared memory, in words; empty if sound. Raises ShmError.

    Writers may be at work meanwhile: what is gone at a second or third look was one of them in the middle.
    """
    broken: list[str] = []
    rings = {r.name: topology.ring_region(r) for r in topology.RINGS}
    for spec in topology.regions():
        with Region.attach(config.shm_dir, spec) as region:
            broken += check_region(region)
            if spec.kind == RegionKind.RING:
                broken += _lasting(partial(check_ring, region))
            elif spec.kind == RegionKind.CELL:
                broken += _lasting(partial(check_cells, region))
    for s in topology.SERVICES:
        with Region.attach(config.shm_dir, topology.metrics_region(s)) as region:
            broken += check_counters(region, max(1, len(s.counters)), len(s.histograms))
        with Region.attach(config.shm_dir, topology.cursor_region(s.name)) as cursors:
            for read in topology.reads(s.name):
                at = cursor_at(topology.cursor_line(s.name, read.name))
                with Region.attach(config.shm_dir, rings[read.name]) as ring:
                    found = _lasting(partial(check_cursor, cursors.words, at, ring))
                    broken += [f"{s.name}: {text}" for text in found]
    return broken


def _lasting(look: Callable[[], list[str]]) -> list[str]:
    found = look()
    for _ in range(2):
        if not found:
            break
        time.sleep(0.01)
        again = look()
        found = again if len(again) <= len(found) else found
    return found


def remove(config: Config) -> None:
    """Remove all regions. Raises InstanceRunning while a service lives."""
    alive = living(config)
    if alive:
        raise InstanceRunning(f"{alive[0].service} still runs with pid {alive[0].pid}")
    janitor.remove(config.shm_dir)


def running_config(name: str = "default", shm_root: str = "/dev/shm") -> Config | None:
    """Configuration of an instance that exists, as it was started; None if there is none."""
    path = Path(shm_root) / f"l2dash-{name}" / CONFIG_FILE
    return load(path) if path.is_file() else None
