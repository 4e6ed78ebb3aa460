"""The data flow, all of it: services, rings and cells, who writes and who reads, with which loss policy.

Regions, permissions, heartbeats, the watchdog's list, ``l2dash up``, ``l2dash status``, systemd units, compose
services and the diagram in the docs are derived from these tables. ``check`` runs before anything starts.

Loss policies
* lossy:  the writer never waits; a lapped reader learns its exact gap and resynchronises from cells.
* gate:   the writer never overwrites what this reader has not passed; a full ring is an answer to the writer.

Order and command rings gate on ``broker-bridge`` (and commands on ``watchdog``), because an order that vanishes
silently is worse than one that is refused. Nothing else gates: market data must never wait for an observer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from engine.domain.codes import Refusal
from engine.domain.instruments import MAX_SYMBOLS
from shm import layouts
from shm.cell import cell_spec
from shm.counters import counter_spec
from shm.region import RegionSpec
from shm.ring import cursor_spec, ring_spec

CLI = "cli"
"""Not a service: the command line, one writer under a file lock."""


@dataclass(frozen=True, slots=True)
class Service:
    """A process. ``hot`` ones get a core of their own where there are enough."""

    name: str
    does: str
    hot: bool
    after: tuple[str, ...] = ()
    """Services that must be READY before this one is started."""
    ready_s: float = 60.0
    attached: bool = True
    """False: it is not attached to shared memory but for its heartbeat."""
    polls: bool = False
    """Its loop reads a socket and may poll it without sleeping (``runtime.poll_socket``)."""
    beat_s: float = 1.0
    """Silent for longer than this, it counts as hung."""
    sleep_ms: float = 1.0
    """Longest sleep when nothing rings: the bound that a lost wake-up costs at most."""
    modes: tuple[str, ...] = ("sim", "paper", "live")
    counters: tuple[str, ...] = ()
    histograms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ring:
    name: str
    record: str
    capacity: int
    writer: str
    lossy: tuple[str, ...] = ()
    gate: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cell:
    name: str
    record: str
    writer: str
    readers: tuple[str, ...]
    count: int = 1


BRIDGE, ML, ALGO, WATCHDOG = "broker-bridge", "ml-service", "algo", "watchdog"
RECORDER, COCKPIT, PAPER = "recorder", "cockpit", "paper-gateway"

REFUSED = tuple(f"refused:{r.name.lower()}" for r in Refusal if r != Refusal.NONE)
"""One counter for each reason of the gate: a metric with the reason as its label."""

SERVICES: tuple[Service, ...] = (
    Service(RECORDER, "journal, tick store, alerts", hot=False, beat_s=5.0, sleep_ms=20.0,
            counters=("ticks_written", "events_written", "bytes_written", "gaps", "alerts_sent", "sync_errors")),
    Service(WATCHDOG, "guardrails, stops, lease, flatten", hot=True,
            counters=("cycles", "kills", "flattens", "overruns"), histograms=("period_ns", "evaluate_ns")),
    Service(PAPER, "the embedded broker (sim only)", hot=False, attached=False, modes=("sim",), beat_s=5.0,
            counters=("clients", "messages_out", "messages_in", "fills")),
    Service(BRIDGE, "the trading connection: market data in, gate, orders out", hot=True, polls=True,
            after=(RECORDER, WATCHDOG, PAPER),
            counters=("ticks", "bad_frames", "orders_sent", "orders_refused", "cancels_sent", "executions", "reconnects", "resyncs", *REFUSED),
            histograms=("socket_to_decoded_ns", "intent_to_gate_ns", "gate_ns", "gate_to_wire_ns", "tick_to_order_ns",
                        "order_to_ack_ns", "order_to_fill_ns", "rtt_ns")),
    Service(ML, "books, features, regime filter, fair value", hot=True, after=(BRIDGE,), sleep_ms=5.0,
            counters=("ticks", "bars", "book_resyncs", "model_swaps"), histograms=("tick_to_signal_ns", "decoded_to_signal_ns")),
    Service(ALGO, "signals to order intents", hot=True, after=(ML,), sleep_ms=5.0,
            counters=("signals", "intents", "cancels"), histograms=("signal_to_intent_ns",)),
    Service(COCKPIT, "pages, stream, API, health", hot=False, beat_s=5.0,
            counters=("frames", "clients", "dropped", "requests", "refused"), histograms=("frame_ns", "sse_ns")),
)  # fmt: skip

ORDER_SLOTS, COMMAND_SLOTS, EVENT_SLOTS = 2**10, 2**8, 2**12

RINGS: tuple[Ring, ...] = (
    # name               record       slots      writer    lossy readers                                 gating readers
    Ring("ticks",        "tick",      2**18,     BRIDGE,   (ML, ALGO, WATCHDOG, RECORDER)),
    Ring("signals",      "signal",    2**14,     ML,       (ALGO, RECORDER, COCKPIT)),
    Ring("executions",   "execution", 2**14,     BRIDGE,   (ALGO, WATCHDOG, RECORDER, COCKPIT)),
    Ring("orders.algo",     "intent", ORDER_SLOTS, ALGO,     (RECORDER,),                                  (BRIDGE,)),
    Ring("orders.operator", "intent", ORDER_SLOTS, COCKPIT,  (RECORDER,),                                  (BRIDGE,)),
    Ring("orders.cli",      "intent", ORDER_SLOTS, CLI,      (RECORDER,),                                  (BRIDGE,)),
    Ring("orders.watchdog", "intent", ORDER_SLOTS, WATCHDOG, (RECORDER,),                                  (BRIDGE,)),
    Ring("commands.operator", "command", COMMAND_SLOTS, COCKPIT,  (RECORDER, ML),                          (BRIDGE, WATCHDOG)),
    Ring("commands.cli",      "command", COMMAND_SLOTS, CLI,      (RECORDER, ML),                          (BRIDGE, WATCHDOG)),
    Ring("commands.watchdog", "command", COMMAND_SLOTS, WATCHDOG, (RECORDER,),                             (BRIDGE,)),
    *(Ring(f"events.{s.name}", "event", EVENT_SLOTS, s.name, (RECORDER, COCKPIT, WATCHDOG, ALGO) if s.name == BRIDGE else (RECORDER, COCKPIT))
      for s in SERVICES if s.attached),
    Ring("events.cli",   "event",     EVENT_SLOTS, CLI,      (RECORDER, COCKPIT)),
)  # fmt: skip

_ALL = (BRIDGE, ML, ALGO, WATCHDOG, RECORDER, COCKPIT)
SYMBOLS = MAX_SYMBOLS

CELLS: tuple[Cell, ...] = (
    # name            record        writer    readers
    Cell("account",    "account",    BRIDGE,   (ALGO, WATCHDOG, RECORDER, COCKPIT)),
    Cell("positions",  "position",   BRIDGE,   (ALGO, WATCHDOG, RECORDER, COCKPIT), SYMBOLS),
    Cell("broker",     "broker",     BRIDGE,   (ALGO, ML, WATCHDOG, RECORDER, COCKPIT)),
    Cell("book",       "book",       ML,       (BRIDGE, ALGO, WATCHDOG, RECORDER, COCKPIT), SYMBOLS),
    Cell("model",      "model",      ML,       (ALGO, WATCHDOG, RECORDER, COCKPIT), SYMBOLS),
    Cell("guardrails", "guardrails", WATCHDOG, (BRIDGE, ALGO, RECORDER, COCKPIT)),
    Cell("flatten",    "flatten",    WATCHDOG, (BRIDGE, RECORDER, COCKPIT)),
    Cell("lease",      "lease",      WATCHDOG, (BRIDGE, ALGO, RECORDER, COCKPIT)),
    Cell("stop.watchdog", "stop",    WATCHDOG, _ALL),
    Cell("stop.bridge",   "stop",    BRIDGE,   _ALL),
    Cell("stop.operator", "stop",    COCKPIT,  _ALL),
    Cell("stop.cli",      "stop",    CLI,      _ALL),
    Cell("arm",        "arm",        COCKPIT,  (WATCHDOG, RECORDER)),
    *(Cell(f"heartbeat.{s.name}", "heartbeat", s.name, _ALL) for s in SERVICES),
)  # fmt: skip

STOP_CELLS = ("stop.watchdog", "stop.bridge", "stop.operator", "stop.cli")
ORDER_RINGS = ("orders.watchdog", "orders.cli", "orders.operator", "orders.algo")
"""In order of priority: what closes risk is drained before what opens it."""
COMMAND_RINGS = ("commands.watchdog", "commands.cli", "commands.operator")

EXCEPTIONS = {
    (
        ALGO,
        BRIDGE,
    ): "the order/fill cycle: orders gate on the bridge, executions come back lossy and never wait for algo",
}
"""Gating edges that close a cycle, and why that can't dead-lock."""


def service(name: str) -> Service:
    """Raises KeyError with the known names."""
    for s in SERVICES:
        if s.name == name:
            return s
    raise KeyError(f"no service {name!r}: known are {', '.join(s.name for s in SERVICES)}")


def services(mode: str) -> tuple[Service, ...]:
    """Services of a mode in start order."""
    return tuple(s for s in SERVICES if mode in s.modes)


def ring(name: str) -> Ring:
    return next(r for r in RINGS if r.name == name)


def cell(name: str) -> Cell:
    return next(c for c in CELLS if c.name == name)


def reads(reader: str) -> tuple[Ring, ...]:
    """Rings that a service reads, in the order of its cursor lines."""
    return tuple(r for r in RINGS if reader in r.lossy or reader in r.gate)


def cursor_line(reader: str, ring_name: str) -> int:
    return [r.name for r in reads(reader)].index(ring_name)


def ring_region(r: Ring) -> RegionSpec:
    return ring_spec(r.name, layouts.RING_RECORDS[r.record], r.capacity)


def cell_region(c: Cell) -> RegionSpec:
    return cell_spec(c.name, layouts.CELL_RECORDS[c.record], c.count)


def cursor_region(reader: str) -> RegionSpec:
    """One line per ring, and a last one that says whether the service sleeps."""
    return cursor_spec(f"cursors.{reader}", len(reads(reader)) + 1)


def sleep_line(reader: str) -> int:
    return len(reads(reader))


def metrics_region(s: Service) -> RegionSpec:
    return counter_spec(f"metrics.{s.name}", max(1, len(s.counters)), len(s.histograms))


def doorbell_name(reader: str) -> str:
    """FIFO that wakes a sleeping service."""
    return f"doorbell.{reader}"


def regions() -> Iterator[RegionSpec]:
    """Every region of an instance."""
    for r in RINGS:
        yield ring_region(r)
    for c in CELLS:
        yield cell_region(c)
    for s in SERVICES:
        yield metrics_region(s)
        yield cursor_region(s.name)


@dataclass(slots=True)
class _Graph:
    edges: dict[str, set[str]] = field(default_factory=dict)

    def cyclic_from(self, start: str) -> bool:
        stack, seen = list(self.edges.get(start, ())), set()
        while stack:
            node = stack.pop()
            if node == start:
                return True
            if node not in seen:
                seen.add(node)
                stack.extend(self.edges.get(node, ()))
        return False


def check() -> None:
    """Raise ValueError naming the first broken rule: unique names, one living writer, a reader, sizes, acyclic gates."""
    names = [r.name for r in RINGS] + [c.name for c in CELLS]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"topology: the name {name} is used twice")
    known = {s.name for s in SERVICES} | {CLI}
    gates = _Graph()
    for r in RINGS:
        if r.capacity & (r.capacity - 1):
            raise ValueError(f"topology: ring {r.name} has {r.capacity} slots, not a power of two")
        if not (r.lossy or r.gate):
            raise ValueError(f"topology: nobody reads ring {r.name}")
        for party in (r.writer, *r.lossy, *r.gate):
            if party not in known:
                raise ValueError(f"topology: ring {r.name} names {party}, which is no service")
        for reader in r.gate:
            if (r.writer, reader) not in EXCEPTIONS:
                gates.edges.setdefault(r.writer, set()).add(reader)
    for c in CELLS:
        if not c.readers:
            raise ValueError(f"topology: nobody reads cell {c.name}")
        for party in (c.writer, *c.readers):
            if party not in known:
                raise ValueError(f"topology: cell {c.name} names {party}, which is no service")
    for name in known:
        if gates.cyclic_from(name):
            raise ValueError(f"topology: gating edges form a cycle through {name} and no exception states why")
    started: set[str] = set()
    for s in SERVICES:
        for before in s.after:
            if before not in started:
                raise ValueError(f"topology: {s.name} starts after {before}, which is listed later")
        started.add(s.name)
    _ = np.dtype  # layouts are checked at import


HOSTED = (BRIDGE, ML, ALGO)
"""In ``shared`` placement these agents live in one process on one thread, and a hop costs a function call. The first one
leads: the process is its process and ends with it; the others are started, stopped and started anew inside it."""
FUSED = "engine.procs.hot_path"
"""Module whose ``compose`` makes one compiled turn of all of them."""


def placement(cores: int, setting: str) -> str:
    """``dedicated`` (a process and, where there are enough cores, a core for each hot service) or ``shared``."""
    if setting != "auto":
        return setting
    return "dedicated" if enough_cores(cores) else "shared"


def enough_cores(cores: int) -> bool:
    """Can each hot service own a core, with two left for everything else?"""
    return cores >= sum(s.hot for s in SERVICES) + 2


def core_plan(cores: int, placed: str) -> dict[str, int]:
    """Core for each service in a placement (``dedicated`` or ``shared``); -1 means not pinned.

    Dedicated processes are pinned only where each has a core of its own: a pinned process that must share its core
    only loses the freedom to move away from a busy neighbour. The shared host gets the last core: interrupts and
    everything else prefer the first ones.
    """
    hot = [s.name for s in SERVICES if s.hot]
    plan = {s.name: -1 for s in SERVICES}
    if placed == "shared":
        apart = [name for name in hot if name not in HOSTED]
        if cores > 1:
            plan |= dict.fromkeys(HOSTED, cores - 1)
        if cores > len(apart) + 2:
            plan |= {name: cores - 2 - i for i, name in enumerate(apart)}
    elif cores > len(hot):
        plan |= {name: 1 + i for i, name in enumerate(hot)}
    return plan


def mermaid() -> str:
    """The diagram of docs/TOPOLOGY.md."""
    lines = ["flowchart LR"]
    for s in SERVICES:
        lines.append(f'  {s.name.replace("-", "_")}["{s.name}<br/>{s.does}"]')
    lines.append('  cli(["l2dash CLI"])')
    for r in RINGS:
        if r.name.startswith("events."):
            continue
        for reader in r.gate:
            lines.append(f"  {r.writer.replace('-', '_')} ==>|{r.name}| {reader.replace('-', '_')}")
        for reader in r.lossy:
            lines.append(f"  {r.writer.replace('-', '_')} -->|{r.name}| {reader.replace('-', '_')}")
    lines.append(f"  {PAPER.replace('-', '_')} <-->|TWS protocol, TCP| {BRIDGE.replace('-', '_')}")
    return "\n".join(lines) + "\n"


check()
