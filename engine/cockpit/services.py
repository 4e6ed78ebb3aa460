"""Services and latency: who is alive, on which core, how far behind, and how long each hop takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from engine import topology
from engine.cockpit.words import name_of
from engine.config import Config
from engine.domain.codes import ServiceState
from engine.runtime.clock import Clock
from shm.cell import CellReader
from shm.counters import Counters, percentiles
from shm.region import start_ticks


class Readers(Protocol):
    config: Config
    clock: Clock

    def cell_reader(self, name: str) -> CellReader: ...
    def counters_of(self, service: str) -> Counters: ...


@dataclass(frozen=True, slots=True)
class Hop:
    """A stretch of the way, measured by one service's histogram (ns)."""

    name: str
    service: str
    histogram: str
    words: str


HOPS = (
    Hop("tick_decode", topology.BRIDGE, "socket_to_decoded_ns", "socket to ring"),
    Hop("tick_to_signal", topology.ML, "tick_to_signal_ns", "socket to signal"),
    Hop("decoded_to_signal", topology.ML, "decoded_to_signal_ns", "ring to signal"),
    Hop("signal_to_intent", topology.ALGO, "signal_to_intent_ns", "signal to intent"),
    Hop("intent_to_gate", topology.BRIDGE, "intent_to_gate_ns", "intent to gate"),
    Hop("gate", topology.BRIDGE, "gate_ns", "pre-trade gate"),
    Hop("gate_to_wire", topology.BRIDGE, "gate_to_wire_ns", "gate to wire"),
    Hop("tick_to_order", topology.BRIDGE, "tick_to_order_ns", "tick to order"),
    Hop("order_to_ack", topology.BRIDGE, "order_to_ack_ns", "order to acknowledgement"),
    Hop("order_to_fill", topology.BRIDGE, "order_to_fill_ns", "order to its first fill"),
    Hop("rtt", topology.BRIDGE, "rtt_ns", "broker round trip"),
    Hop("watchdog_period", topology.WATCHDOG, "period_ns", "watchdog cycle period"),
    Hop("watchdog_evaluate", topology.WATCHDOG, "evaluate_ns", "guardrail evaluation"),
    Hop("sse", topology.COCKPIT, "sse_ns", "stream round trip"),
    Hop("frame", topology.COCKPIT, "frame_ns", "frame build and encode"),
)
POINTS = (50.0, 90.0, 99.0, 99.9)


class Services:
    """Heartbeats and counters of every service of the mode."""

    def __init__(self, ctx: Readers) -> None:
        self._clock = ctx.clock
        self.services = topology.services(ctx.config.instance.mode)
        self._beats = {s.name: ctx.cell_reader(f"heartbeat.{s.name}") for s in self.services}
        self.counters = {s.name: ctx.counters_of(s.name) for s in self.services}

    def rows(self, now_ns: int) -> list[dict[str, Any]]:
        """One row for each service; ``host`` names the service whose process it shares, null: it has its own."""
        rows = [self._row(s, now_ns) for s in self.services]
        leader = next((r["pid"] for r in rows if r["name"] == topology.HOSTED[0]), None)
        for row in rows:
            guest = leader is not None and row["name"] in topology.HOSTED[1:] and row["pid"] == leader
            row["host"] = topology.HOSTED[0] if guest else None
        return rows

    def _row(self, s: topology.Service, now_ns: int) -> dict[str, Any]:
        reader = self._beats[s.name]
        b = reader.read()
        pid = int(b["pid"])
        alive = pid > 0 and start_ticks(pid) == int(b["start_ticks"])
        age_ns = now_ns - int(b["t_beat_ns"])
        state = int(b["state"])
        silent = alive and state == ServiceState.READY and age_ns > s.beat_s * 1e9
        if not alive:
            word, reason = "DOWN", "never started" if not reader.version[0] else f"process {pid} is gone"
            if state == ServiceState.STOPPED:
                word, reason = "STOPPED", "stopped in order"
        elif silent:
            word, reason = "HUNG", f"no heartbeat for {age_ns / 1e9:.1f} s, allowed {s.beat_s:g} s"
        else:
            word, reason = name_of(ServiceState, state), ""
        degraded = alive and bool(int(b["flags"]) & 1)
        healthy = alive and state == ServiceState.READY and not silent
        if degraded and not reason:
            reason = "degraded: it runs but can't do all of its duty"
        return {
            "name": s.name,
            "does": s.does,
            "state": word,
            "status": "fail"
            if not healthy and word not in ("STARTING", "WARMING")
            else "warn"
            if not healthy or degraded
            else "pass",
            "healthy": healthy,
            "reason": reason,
            "pid": pid if alive else None,
            "core": int(b["core"]) if alive and b["core"] >= 0 else None,
            "heartbeat_age_s": round(max(0, age_ns) / 1e9, 3) if reader.version[0] else None,
            "allowed_age_s": s.beat_s,
            "uptime_s": round((now_ns - int(b["t_started_ns"])) / 1e9, 1) if alive and b["t_started_ns"] else None,
            "incarnation": int(b["incarnation"]),
            "lag": int(b["lag"]),
            "lost": int(b["lost"]),
            "errors": int(b["errors"]),
            "work": int(b["work_count"]),
            "busy_s": round(int(b["busy_ns"]) / 1e9, 3),
        }

    def latency(self) -> list[dict[str, Any]]:
        """Percentiles per hop in microseconds; null while a hop has no sample."""
        out = []
        for hop in HOPS:
            if hop.service not in self.counters:
                continue
            counts = self.counters[hop.service].histogram(hop.histogram)
            total = int(counts.sum())
            values = percentiles(counts, POINTS) if total else [None] * len(POINTS)
            row: dict[str, Any] = {"hop": hop.name, "words": hop.words, "service": hop.service, "count": total}
            for point, ns in zip(POINTS, values, strict=True):
                row[f"p{point:g}_us".replace(".", "_")] = None if ns is None else round(ns / 1e3, 2)
            out.append(row)
        return out

    def lost(self) -> int:
        return sum(int(r.read()["lost"]) for r in self._beats.values())
