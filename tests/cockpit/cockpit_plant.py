"""Test helper: the other services of an instance, as far as a cockpit can see them.

It writes plausible cells, rings and heartbeats through the same writers that the real services use, answers orders as
a gate would and commands as a watchdog would. Nothing here belongs to the product.
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

from engine.domain.codes import (
    Badge,
    BadgeState,
    CommandKind,
    EventKind,
    FlattenState,
    LinkState,
    Mode,
    OrderState,
    Owner,
    Refusal,
    ServiceState,
    Severity,
    Source,
    TradingState,
)
from engine.runtime.clock import Clock
from engine.runtime.testing import TestInstance, instance

NAMES = ("recorder", "watchdog", "paper-gateway", "broker-bridge", "ml-service", "algo")
PRICES = (150.0, 410.0, 180.0, 165.0, 120.0, 500.0, 220.0, 200.0, 40_000.0)


class Plant:
    def __init__(
        self, state_dir: Path, clock: Clock | None = None, overrides: dict[str, dict[str, Any]] | None = None
    ) -> None:
        cockpit = {"port": 0, "health_port": 0}
        given = overrides or {}
        self.instance: TestInstance = instance(state_dir, {**given, "cockpit": {**cockpit, **given.get("cockpit", {})}})
        if clock is not None:
            self.instance.clock = clock  # type: ignore[assignment]
        self.clock = self.instance.clock
        self.random = random.Random(7)
        c = self.contexts = {name: self.instance.context(name) for name in NAMES}
        bridge, ml, watchdog = c["broker-bridge"], c["ml-service"], c["watchdog"]
        self.instruments = bridge.instruments
        self.account, self.positions = bridge.cell_writer("account"), bridge.cell_writer("positions")
        self.broker, self.stop_bridge = bridge.cell_writer("broker"), bridge.cell_writer("stop.bridge")
        self.executions, self.events = bridge.ring_writer("executions"), bridge.events
        self.books, self.models = ml.cell_writer("book"), ml.cell_writer("model")
        self.guardrails, self.flatten = watchdog.cell_writer("guardrails"), watchdog.cell_writer("flatten")
        self.lease, self.stop = watchdog.cell_writer("lease"), watchdog.cell_writer("stop.watchdog")
        self.orders = bridge.ring_reader("orders.operator")
        self.commands = watchdog.ring_reader("commands.operator")
        self.bridge_commands = bridge.ring_reader("commands.operator")
        self.beats = {name: c[name].start_heartbeat(self.clock.now_ns()) for name in NAMES}
        for beat in self.beats.values():
            beat.set_state(ServiceState.READY, self.clock.now_ns())
        self.beating = set(NAMES)
        self.prices = list(PRICES)
        self.seen: list[tuple[int, str]] = []
        """Commands that the watchdog has seen: (kind, who)."""
        self.refuse: Refusal | None = None
        self.gate_answers = True
        self.order_number = 100
        self.execution_number = 0
        self.steps = 0
        self.equity = 1_000_000.0
        self.watchdog_alive = True
        self.fill()

    def close(self) -> None:
        self.instance.close()

    # -- cells ---------------------------------------------------------------------------------------------------

    def fill(self) -> None:
        """A quiet, healthy morning."""
        now = self.clock.now_ns()
        a = self.account.value[0]
        a["account"], a["ready"], a["matches"], a["mode"] = b"DUSIM001", 1, 1, Mode.SIM
        a["net_liquidation_usd"], a["cash_usd"], a["buying_power_usd"] = 1_000_000, 900_000, 3_600_000
        for s in range(5):
            a["intents"][s] = 0
        self.account.publish()
        b = self.broker.value[0]
        b["link"], b["reconciled"], b["rtt_count"], b["server_version"] = LinkState.UP, 1, 5, 176
        b["rtt_ns"] = (1_400_000, 1_250_000, 1_900_000, 1_310_000, 1_720_000)
        b["last_message_ns"] = b["updated_ns"] = now
        self.broker.publish()
        for i in self.instruments:
            self._book(i.index, now)
            self._model(i.index, now)
        self._lease(now)
        self._guardrails(now)

    def _book(self, index: int, now: int) -> None:
        b, price = self.books.value[index], self.prices[index]
        tick = self.instruments[index].tick_size
        bid = math.floor(price / tick) * tick
        b["t_socket_ns"], b["mid"], b["micro_price"], b["fair_value"] = (
            now,
            bid + tick / 2,
            bid + tick * 0.6,
            price * 1.0002,
        )
        b["spread_bps"], b["spread_median_bps"] = tick / price * 1e4, 1.0
        b["gap_median_ns"], b["last_price"], b["valid"], b["session_open"] = 8e6, bid, 1, 1
        b["updates"] += 1
        if self.instruments[index].tradable:
            b["bid_rows"] = b["ask_rows"] = 10
            for level in range(10):
                b["bid_price"][level] = round(bid - level * tick, 2)
                b["ask_price"][level] = round(bid + (level + 1) * tick, 2)
                b["bid_size"][level] = 100 * self.random.randint(1, 9) + 120 * level
                b["ask_size"][level] = 100 * self.random.randint(1, 9) + 110 * level
        self.books.publish(index)

    def _model(self, index: int, now: int) -> None:
        m = self.models.value[index]
        m["t_ns"], m["states"], m["valid"], m["warming"], m["model_id"] = now, 3, 1, 0, 20240102
        top = 0.82 + 0.15 * math.sin(self.steps / 90 + index)
        if self.random.random() < 0.01:
            m["regime"] = (int(m["regime"]) + 1) % 3
        rest = (1 - top) / 2
        m["probability"][:3] = rest
        m["probability"][int(m["regime"])] = top
        m["confidence"], m["confidence_ema"], m["psi"], m["invalid_share"] = (
            top,
            0.84 + 0.1 * math.sin(self.steps / 200 + index),
            0.04,
            0.01,
        )
        m["expected_move_bps"] = 1.4 * math.sin(self.steps / 50 + index)
        m["bars"] += 1
        self.models.publish(index)

    def _lease(self, now: int) -> None:
        lease = self.lease.value[0]
        lease["owner"], lease["epoch"], lease["granted_ns"], lease["expires_ns"] = (
            Owner.BRIDGE,
            3,
            now,
            now + 250_000_000,
        )
        self.lease.publish()

    def _guardrails(self, now: int) -> None:
        g = self.guardrails.value[0]
        g["evaluated_ns"] = now
        g["cycles"] += 1
        g["equity_usd"], g["day_start_usd"] = self.equity, 1_000_000
        g["peak_usd"] = max(float(g["peak_usd"]), self.equity, 1_000_000)
        g["day_pnl_usd"] = self.equity - 1_000_000
        g["session_date"] = 20240102
        g["all_ok"] = 1
        gross = net = 0.0
        for i in self.instruments:
            if i.tradable:
                exposure = float(self.positions.value[i.index]["qty"]) * self.prices[i.index]
                gross, net = gross + abs(exposure), net + exposure
        g["gross_usd"], g["net_usd"], g["index_move_pct"] = gross, net, 0.12
        limits = (25.0, 100_000.0, 50.0, 500.0, 5_000.0, 0.0, 5.0, 2.0)
        values = (
            0.7,
            max((abs(float(self.positions.value[i]["qty"]) * self.prices[i]) for i in range(8)), default=0),
            1.0,
            1.4,
            max(0.0, float(g["peak_usd"]) - self.equity),
            0.0,
            0.0,
            0.02,
        )
        reasons = (
            "widest spread: META 0.7 bps",
            "largest: AAPL",
            "1 trade in the last second",
            "3 of 5 samples in time",
            "below the day's peak",
            "not latched",
            "0 symbols below 0.70",
            "farthest from fair value: TSLA",
        )
        for badge in Badge:
            b = g["badges"][badge]
            if b["tripped"]:
                continue
            b["value"], b["limit"], b["evaluated_ns"] = values[badge], limits[badge], now
            b["reason"] = reasons[badge].encode()
            if not b["since_ns"]:
                b["since_ns"] = now
        self.guardrails.publish()

    # -- what happens --------------------------------------------------------------------------------------------

    def badge(self, badge: Badge, state: BadgeState, value: float, limit: float, reason: str, symbols: int = 0) -> None:
        """A badge changes, with its event, and stays as set."""
        now = self.clock.now_ns()
        b = self.guardrails.value[0]["badges"][badge]
        b["state"], b["value"], b["limit"], b["reason"], b["symbols"] = state, value, limit, reason.encode(), symbols
        b["since_ns"], b["tripped"] = now, 1
        self.guardrails.publish()
        self.contexts["watchdog"].events.emit(
            EventKind.GUARDRAIL,
            int(badge),
            ref_id=int(state),
            value=value,
            limit=limit,
            text=reason,
            severity=int(Severity.P1),
        )

    def kill(self, badge: Badge = Badge.KILL) -> None:
        s, g, now = self.stop.value[0], self.guardrails.value[0], self.clock.now_ns()
        s["kill"], s["kill_reason"], s["since_ns"], s["stop_id"] = 1, 1 << badge, now, now
        self.stop.publish()
        g["killed_ns"], g["kill_reasons"], g["trading_state"] = now, 1 << badge, TradingState.KILLED
        self.guardrails.publish()

    def position(self, index: int, qty: float, cost: float) -> None:
        p = self.positions.value[index]
        p["qty"], p["avg_cost"], p["broker_qty"] = qty, cost, qty
        self.positions.publish(index)

    def order_state(
        self,
        intent_id: int,
        state: OrderState,
        *,
        symbol: int = 0,
        qty: float = 100,
        limit: float = math.nan,
        filled: float = 0.0,
        price: float = math.nan,
        source: Source = Source.ALGO,
        text: str = "",
    ) -> None:
        self.order_number += 1
        self.events.emit(
            EventKind.ORDER_STATE,
            int(state),
            symbol=symbol,
            source=int(source),
            ref_id=intent_id,
            ref2=self.order_number,
            value=filled,
            limit=limit,
            qty=qty,
            price=price,
            text=text,
        )

    def execution(
        self,
        intent_id: int,
        symbol: int,
        side: int,
        qty: float,
        price: float,
        *,
        exec_id: str = "",
        kind: int = 1,
        source: Source = Source.ALGO,
    ) -> str:
        self.execution_number += 1
        exec_id = exec_id or f"0000e0d5.{self.execution_number:08x}.01.01"
        r = self.executions.record
        r[0] = 0
        now = self.clock.now_ns()
        r["t_socket_ns"], r["t_exec_wall_ns"], r["symbol"], r["side"], r["kind"] = (
            now,
            self.clock.wall_ns(now),
            symbol,
            side,
            kind,
        )
        r["source"], r["exec_id"], r["intent_id"], r["qty"], r["price"] = (
            int(source),
            exec_id.encode(),
            intent_id,
            qty,
            price,
        )
        r["order_id"], r["perm_id"], r["commission_usd"] = self.order_number, 900_000 + self.order_number, 1.0
        self.executions.publish_record()
        return exec_id

    def answer(self) -> None:
        """The gate's verdicts and the watchdog's work on commands."""
        for r in self.orders.poll():
            if not self.gate_answers:
                continue
            symbol, intent_id = int(r["symbol"]), int(r["intent_id"])
            self.events.emit(
                EventKind.INTENT, int(r["kind"]), symbol=symbol, source=int(Source.OPERATOR), ref_id=intent_id,
                ref2=int(r["target_id"]), qty=float(r["qty"]) * int(r["side"]), price=float(r["limit_price"]),
            )  # fmt: skip
            if self.refuse is not None:
                self.events.emit(
                    EventKind.REFUSED,
                    int(self.refuse),
                    symbol=symbol,
                    source=int(Source.OPERATOR),
                    ref_id=intent_id,
                    text=f"{self.refuse.name}: refused in a test",
                )
                continue
            signed = float(r["qty"]) * int(r["side"])
            if int(r["kind"]) == 1:
                self.order_state(
                    intent_id,
                    OrderState.SENT,
                    symbol=symbol,
                    qty=signed,
                    limit=float(r["limit_price"]),
                    source=Source.OPERATOR,
                )
                self.order_state(
                    intent_id,
                    OrderState.WORKING,
                    symbol=symbol,
                    qty=signed,
                    limit=float(r["limit_price"]),
                    source=Source.OPERATOR,
                )
            else:
                self.order_state(intent_id, OrderState.SENT, symbol=symbol, source=Source.OPERATOR)
                self.order_state(int(r["target_id"]), OrderState.CANCELLED, symbol=symbol, source=Source.OPERATOR)
        self.bridge_commands.poll()
        for c in self.commands.poll():
            self.command(int(c["kind"]), int(c["command_id"]), bytes(c["who"]).decode())

    def command(self, kind: int, command_id: int, who: str) -> None:
        self.seen.append((kind, who))
        s, g, now = self.stop.value[0], self.guardrails.value[0], self.clock.now_ns()
        if kind == CommandKind.PAUSE:
            s["pause"] = 1
        elif kind == CommandKind.FLATTEN:
            s["pause"] = 1
            f = self.flatten.value[0]
            f["flatten_id"], f["state"], f["started_ns"], f["cause_ns"], f["source"] = (
                command_id,
                FlattenState.ROUND_ONE,
                now,
                now,
                Source.OPERATOR,
            )
            f["remaining"] = sum(1 << i for i in range(8) if self.positions.value[i]["qty"])
            self.flatten.publish()
        elif kind == CommandKind.KILL:
            self.kill()
        elif kind == CommandKind.RESUME:
            s["pause"], s["released_pause_id"] = 0, now
        elif kind == CommandKind.RESET:
            s["kill"], s["pause"], s["released_kill_id"], s["released_pause_id"] = 0, 0, now, now
            g["killed_ns"] = g["kill_reasons"] = 0
        self.stop.publish()
        self.guardrails.publish()
        self.contexts["watchdog"].events.emit(EventKind.COMMAND_RESULT, 0, ref_id=command_id, text="done")

    def flat(self) -> None:
        """The broker confirms flat."""
        now, f = self.clock.now_ns(), self.flatten.value[0]
        for i in range(8):
            self.position(i, 0, 0)
        f["state"], f["sent_ns"], f["flat_ns"], f["remaining"] = FlattenState.FLAT, int(f["cause_ns"]) + 800_000, now, 0
        self.flatten.publish()

    def beat(self) -> None:
        now = self.clock.now_ns()
        for name in self.beating:
            self.beats[name].beat(now, 10, 10, 0)
        if self.watchdog_alive:
            self._lease(now)
            self._guardrails(now)

    def morning(self) -> None:
        """A few lines for the alert list."""
        for name in ("recorder", "watchdog", "broker-bridge", "ml-service", "algo"):
            self.contexts[name].events.emit(
                EventKind.LIFECYCLE, int(ServiceState.READY), text="pid and core as planned"
            )
        self.events.emit(EventKind.CONNECTIVITY, 2104, text="market data farm connection is OK: usfarm")
        self.contexts["recorder"].events.emit(
            EventKind.ALERT, severity=int(Severity.P2), text="disk: 12 days left at this rate"
        )

    def step(self) -> None:
        """One moment of a moving market: prices, regimes, a few algo orders and fills."""
        self.steps += 1
        now = self.clock.now_ns()
        for i in self.instruments:
            self.prices[i.index] *= 1 + self.random.gauss(0, 2e-5)
            if self.random.random() < 0.7:
                self._book(i.index, now)
            self._model(i.index, now)
        b = self.broker.value[0]
        b["last_message_ns"] = b["updated_ns"] = now
        self.broker.publish()
        if self.random.random() < 0.06:
            self.trade()
        self.equity += self.random.gauss(1.2, 14)
        self.answer()
        self.beat()

    def trade(self) -> None:
        intent_id = self.contexts["algo"].ids.next(Source.ALGO)
        index, side = self.random.randrange(8), self.random.choice((1, -1))
        p = self.positions.value[index]
        price, qty = round(self.prices[index], 2), float(self.random.randint(1, 4) * 10)
        if abs(float(p["qty"]) + side * qty) > 120:
            side = -side
        self.order_state(intent_id, OrderState.WORKING, symbol=index, qty=side * qty, limit=price)
        if self.random.random() < 0.2:
            self.order_state(
                intent_id, OrderState.CANCELLED, symbol=index, qty=side * qty, limit=price, text="time to live is over"
            )
            return
        if self.random.random() < 0.25:
            return
        self.execution(intent_id, index, side, qty, price)
        self.order_state(
            intent_id, OrderState.FILLED, symbol=index, qty=side * qty, limit=price, filled=qty, price=price
        )
        self.position(index, float(p["qty"]) + side * qty, price)
