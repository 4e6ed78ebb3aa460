"""The watchdog among fakes: every other service's cells and rings, driven by hand on one clock."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from engine import topology
from engine.domain.codes import (
    ONE_SYMBOL,
    CommandKind,
    EventKind,
    IntentFlag,
    IntentKind,
    LinkState,
    OrderState,
    Refusal,
    ServiceState,
    Source,
    TickKind,
)  # fmt: skip
from engine.domain.instruments import ALL_SYMBOLS
from engine.procs.watchdog import Watchdog, create
from engine.risk.reconcile import confirmed
from engine.runtime.testing import TestInstance, instance
from shm.layouts import TICK

MS = 1_000_000
S = 1_000 * MS
OTHERS = (topology.BRIDGE, topology.ML, topology.ALGO, topology.RECORDER, topology.COCKPIT)


class World:
    """``run(seconds)`` moves everything on in steps of one millisecond (or ``step_ms``)."""

    def __init__(self, tmp_path: Path, overrides: dict[str, dict[str, Any]] | None = None, arm: bool = True) -> None:
        data: dict[str, dict[str, Any]] = {"gateway": {"port": 1}, **(overrides or {})}
        data["guardrails"] = {"cooling_s": 30.0, **data.get("guardrails", {})}
        self.inst: TestInstance = instance(tmp_path, data)
        self.state_dir = tmp_path
        if arm and self.inst.config.instance.mode != "sim" and not (tmp_path / "latch.json").exists():
            from engine.risk import latch

            latch.init(tmp_path)
        self.clock = self.inst.clock
        self.ctx = {name: self.inst.context(name) for name in (*OTHERS, topology.CLI)}
        self.n = len(
            [i for i in self.ctx[topology.BRIDGE].instruments if i.index != self.ctx[topology.BRIDGE].index_symbol]
        )
        for name in OTHERS:
            beat = self.ctx[name].start_heartbeat(self.clock.now)
            beat.set_state(ServiceState.READY, self.clock.now)
        bridge, ml, cockpit = self.ctx[topology.BRIDGE], self.ctx[topology.ML], self.ctx[topology.COCKPIT]
        self.account, self.positions = bridge.cell_writer("account"), bridge.cell_writer("positions")
        self.broker, self.bridge_stop = bridge.cell_writer("broker"), bridge.cell_writer("stop.bridge")
        self.books, self.models = ml.cell_writer("book"), ml.cell_writer("model")
        self.arm, self.operator_stop = cockpit.cell_writer("arm"), cockpit.cell_writer("stop.operator")
        self.ticks = bridge.ring_writer("ticks")
        self._commands_in = bridge.ring_reader("commands.watchdog")
        self._orders_in = bridge.ring_reader("orders.watchdog")
        self._cli = self.ctx[topology.CLI].ring_writer("commands.cli")
        self.guardrails = cockpit.cell_reader("guardrails")
        self.flatten = cockpit.cell_reader("flatten")
        self.lease = cockpit.cell_reader("lease")
        self.stop = cockpit.cell_reader("stop.watchdog")
        self._events = cockpit.ring_reader("events.watchdog")
        self.events: list[np.void] = []
        self.index = 40_000.0
        self.mids = np.full(self.n, 100.0)
        self.spread_bps = np.full(self.n, 2.0)
        self.silent: set[str] = set()
        self.quiet_symbols: set[int] = set()
        self.index_silent = False
        self.bridge_fills = True
        self.bridge_drains = True
        self.theirs: dict[int, float] = {}
        """What the broker says it holds where that differs from ours: the gate closes only what both have."""
        self.orders: list[np.void] = []
        self.commands: list[int] = []
        self.cancels: list[int] = []
        """Symbols whose orders were to be cancelled."""
        self._next_market = self._next_index = 0
        a = self.account.value[0]
        a["net_liquidation_usd"], a["ready"], a["mode"], a["matches"] = 1_000_000.0, 1, 1, 1
        b = self.broker.value[0]
        b["link"], b["reconciled"], b["rtt_count"], b["rtt_ns"] = LinkState.UP, 1, 5, 2 * MS
        for i in range(self.n):
            m = self.models.value[i]
            m["confidence"] = m["confidence_ema"] = 0.95
            m["model_id"], m["bars"], m["valid"] = 1, 100, 1
        self.agent: Watchdog = self.new_watchdog()

    def new_watchdog(self) -> Watchdog:
        self._others(force=True)
        agent = create(self.inst.context(topology.WATCHDOG))
        assert isinstance(agent, Watchdog)
        agent.on_start(self.clock.now)
        return agent

    def restart(self) -> None:
        """The watchdog dies and another takes its place."""
        self.agent._files.flush(5.0)
        self.agent.takeover.close()
        self.agent = self.new_watchdog()

    def quote(self, i: int) -> None:
        b, mid = self.books.value[i], float(self.mids[i])
        half = mid * float(self.spread_bps[i]) / 2e4
        b["t_socket_ns"] = b["top_ns"] = self.clock.now
        b["updates"] += 1
        b["quotes"] += 1
        b["bid_price"][0], b["ask_price"][0], b["bid_rows"], b["ask_rows"] = mid - half, mid + half, 10, 10
        b["bid_size"][0] = b["ask_size"][0] = 500
        b["mid"], b["spread_bps"], b["spread_median_bps"] = mid, self.spread_bps[i], 2.0
        b["gap_median_ns"], b["valid"], b["session_open"] = 20 * MS, 1, 1
        if not b["fair_value"]:
            b["fair_value"] = mid
        self.books.publish(i)

    def tick_index(self, value: float) -> None:
        record = np.zeros(1, TICK)
        record["t_socket_ns"] = record["t_decoded_ns"] = self.clock.now
        record["symbol"], record["kind"], record["price"] = (
            self.ctx[topology.BRIDGE].index_symbol,
            TickKind.INDEX,
            value,
        )
        self.ticks.publish(record)

    def _others(self, force: bool = False) -> None:
        now = self.clock.now
        if force or now >= self._next_market:
            self._next_market = now + 20 * MS
            for i in range(self.n):
                if i not in self.quiet_symbols:
                    self.quote(i)
                self.models.publish(i)
            for name in OTHERS:
                if name not in self.silent:
                    beat = self.ctx[name].heartbeat
                    assert beat is not None
                    beat.beat(now, 1, 1, 0)
            b = self.broker.value[0]
            b["updated_ns"] = b["last_message_ns"] = now
            self.broker.publish()
            self.account.publish()
        if force or now >= self._next_index:
            self._next_index = now + S
            if not self.index_silent and self.ctx[topology.BRIDGE].index_symbol >= 0:
                self.tick_index(self.index)

    def hold(self, symbol: int, qty: float, price: float | None = None) -> None:
        """A confirmed position out of nowhere (bought at ``price``)."""
        p = self.positions.value[symbol]
        price = float(self.mids[symbol]) if price is None else price
        p["cash_flow_usd"] -= (qty - p["qty"]) * price
        p["qty"], p["avg_cost"] = qty, price
        p["executions"] += 1
        self.positions.publish(symbol)
        self.broker.value[0]["order_events"] += 1

    def differ(self, symbol: int, theirs: float) -> None:
        """The broker holds something else than our books say, and that has been judged."""
        self.theirs[symbol] = theirs
        p = self.positions.value[symbol]
        p["broker_qty"], p["mismatch_since_ns"] = theirs, self.clock.now
        self.positions.publish(symbol)

    def agree(self, symbol: int) -> None:
        """The operator takes the broker's figure."""
        self.positions.value[symbol]["mismatch_since_ns"] = 0
        self.hold(symbol, self.theirs.pop(symbol))

    def serve_bridge(self) -> None:
        """The fake bridge: cancels, fills and snapshots at once."""
        if not self.bridge_drains:
            return
        b, events = self.broker.value[0], self.ctx[topology.BRIDGE].events
        for c in self._commands_in.poll().copy():
            self.commands.append(int(c["kind"]))
            if c["kind"] == CommandKind.CANCEL_ALL:
                self.cancels.append(int(c["symbol"]) if c["flags"] & ONE_SYMBOL else ALL_SYMBOLS)
            if c["kind"] == CommandKind.SNAPSHOT:
                b["snapshot_id"] += 1
                b["snapshot_begin_ns"] = b["snapshot_end_ns"] = self.clock.now
                b["snapshot_events"], b["snapshot_open_orders"] = b["order_events"], b["working_orders"]
                held = [self.theirs.get(i, float(self.positions.value[i]["qty"])) for i in range(self.n)]
                b["snapshot_positions"] = sum(1 << i for i, qty in enumerate(held) if qty)
        for o in self._orders_in.poll().copy():
            assert o["kind"] == IntentKind.NEW
            assert o["flags"] & IntentFlag.REDUCE_ONLY
            assert o["source"] == Source.WATCHDOG
            symbol, signed = int(o["symbol"]), int(o["side"]) * float(o["qty"])
            if symbol in self.theirs:
                both = confirmed(float(self.positions.value[symbol]["qty"]), self.theirs[symbol])
                if signed * both >= 0.0 or abs(signed) > abs(both):
                    events.emit(EventKind.REFUSED, Refusal.NOT_REDUCING, ref_id=int(o["intent_id"]))
                    continue
                self.differ(symbol, self.theirs[symbol] + signed)
            self.orders.append(o)
            b["last_close_sent_ns"] = self.clock.now
            events.emit(EventKind.ORDER_STATE, OrderState.SENT, ref_id=int(o["intent_id"]))
            if self.bridge_fills:
                held = float(self.positions.value[symbol]["qty"])
                self.hold(symbol, held + signed, float(self.mids[symbol]))
                events.emit(EventKind.ORDER_STATE, OrderState.FILLED, ref_id=int(o["intent_id"]))
        self.broker.publish()

    def run(self, seconds: float, step_ms: int = 2) -> None:
        for _ in range(int(seconds * 1_000 / step_ms)):
            self.clock.advance(step_ms * MS)
            self._others()
            self.serve_bridge()
            self.agent.do_work(self.clock.now)
        self.settle()

    def settle(self) -> None:
        """Let files reach the disk, and read what the watchdog has said."""
        self.agent._files.flush(5.0)
        self.agent.stops.poll(self.clock.now)
        self.agent._publish(self.clock.now)
        self.agent.housekeeping(self.clock.now)
        while len(records := self._events.poll()):
            self.events.extend(records.copy())

    def command(self, kind: CommandKind, *, flags: int = 0, who: str = "jo", reason: str = "test") -> tuple[int, str]:
        """Give a command on the command line; returns (code, text) of its result."""
        command_id = self.clock.now + 1
        r = self._cli.record
        r[0] = 0
        r["t_ns"], r["command_id"], r["symbol"], r["kind"] = self.clock.now, command_id, 0xFFFF, int(kind)
        r["source"], r["flags"], r["who"], r["reason"] = int(Source.CLI), flags, who.encode(), reason.encode()
        self._cli.publish_record()
        self.run(0.06)
        self.run(0.02)
        for e in reversed(self.events):
            if e["kind"] == EventKind.COMMAND_RESULT and e["ref_id"] == command_id:
                return int(e["code"]), bytes(e["text"]).decode()
        raise AssertionError(f"no result for {kind!r}: {self.said()}")

    def badge(self, number: int) -> np.void:
        badge: np.void = self.guardrails.read(0)["badges"][number]
        return badge

    @property
    def state(self) -> int:
        return int(self.guardrails.read(0)["trading_state"])

    @property
    def killed(self) -> bool:
        return bool(self.stop.read(0)["kill"])

    def said(self, kind: EventKind | None = None) -> list[str]:
        return [bytes(e["text"]).decode() for e in self.events if kind is None or e["kind"] == kind]

    def close(self) -> None:
        self.agent.on_close(self.clock.now)
        self.inst.close()


def wait_for_disk(path: Path, limit_s: float = 5.0) -> None:
    end = time.monotonic() + limit_s
    while not path.exists() and time.monotonic() < end:
        os.sched_yield()
