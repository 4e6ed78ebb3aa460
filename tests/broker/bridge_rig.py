"""A bridge in one thread against a real paper gateway: driven by hand, on the machine's clock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine import topology
from engine.domain.codes import (
    CommandKind,
    EventKind,
    IntentKind,
    LinkState,
    OrderState,
    OrderType,
    Owner,
    ServiceState,
    Source,
    TickKind,
    TimeInForce,
)
from engine.procs.broker_bridge import BrokerBridge
from engine.runtime.clock import SystemClock
from engine.runtime.context import Context
from engine.runtime.testing import TestInstance, instance
from shm.layouts import COMMAND, INTENT

RINGS = {Source.ALGO: "orders.algo", Source.OPERATOR: "orders.operator", Source.WATCHDOG: "orders.watchdog"}
WRITERS = {Source.ALGO: topology.ALGO, Source.OPERATOR: topology.COCKPIT, Source.WATCHDOG: topology.WATCHDOG}


STOCKS = ("AAPL", "MSFT", "AMZN", "GOOGL")


class Rig:
    """``bridge`` with all neighbours played by the test: watchdog's lease, ml-service's books, order writers."""

    def __init__(self, state_dir: Path, port: int, overrides: dict[str, dict[str, Any]] | None = None) -> None:
        config: dict[str, dict[str, Any]] = {k: dict(v) for k, v in (overrides or {}).items()}
        config.setdefault("universe", {"stocks": [{"symbol": s} for s in STOCKS]})
        config["gateway"] = {"port": port, "request_timeout_s": 2.0, **config.get("gateway", {})}
        self.instance: TestInstance = instance(state_dir, config)
        self.instance.clock = SystemClock(time.time_ns(), time.monotonic_ns())  # type: ignore[assignment]
        self.watchdog = self.instance.context(topology.WATCHDOG)
        self.ml = self.instance.context(topology.ML)
        self.algo = self.instance.context(topology.ALGO)
        self.cockpit = self.instance.context(topology.COCKPIT)
        self._lease = self.watchdog.cell_writer("lease")
        self.stop = self.watchdog.cell_writer("stop.watchdog")
        self._beat = self.algo.cell_writer("heartbeat.algo")
        self._book = self.ml.cell_writer("book")
        contexts = {Source.ALGO: self.algo, Source.OPERATOR: self.cockpit, Source.WATCHDOG: self.watchdog}
        self._orders = {source: contexts[source].ring_writer(RINGS[source]) for source in RINGS}
        self._commands = self.watchdog.ring_writer("commands.watchdog")
        self.events = self.cockpit.ring_reader(f"events.{topology.BRIDGE}")
        self.ticks = self.ml.ring_reader("ticks", batch=4096)
        self.executions = self.cockpit.ring_reader("executions")
        self.positions = self.cockpit.cell_reader("positions")
        self.broker = self.cockpit.cell_reader("broker")
        self.account = self.cockpit.cell_reader("account")
        self.stop_bridge = self.cockpit.cell_reader("stop.bridge")
        self.seen: list[np.void] = []
        self.fills: list[np.void] = []
        self.lease_on = True
        self.books_on = True
        self.bests: dict[int, list[float]] = {}
        self._next_duty = 0
        self.context: Context
        self.bridge: BrokerBridge
        self.start()

    def start(self) -> None:
        """A new bridge process, as far as one thread can have one."""
        self.context = self.instance.context(topology.BRIDGE)
        self.bridge = BrokerBridge(self.context)
        self.bridge.on_start(self.now())

    def now(self) -> int:
        return time.monotonic_ns()

    def _renew(self, now_ns: int) -> None:
        if self.lease_on:
            lease = self._lease.value[0]
            lease["epoch"], lease["owner"] = max(1, lease["epoch"]), int(Owner.BRIDGE)
            lease["granted_ns"], lease["expires_ns"] = now_ns, now_ns + 250_000_000
            self._lease.publish()

    def _books(self, ticks: npt.NDArray[np.void], now_ns: int) -> None:
        for tick in ticks:
            if tick["kind"] == TickKind.DEPTH and tick["level"] == 0 and tick["op"] < 2:
                self.bests.setdefault(int(tick["symbol"]), [math.nan, math.nan])[int(tick["side"])] = float(
                    tick["price"]
                )
        if not self.books_on:
            return
        for symbol, (ask, bid) in self.bests.items():
            book = self._book.value[symbol]
            book["t_socket_ns"], book["mid"], book["valid"] = now_ns, (ask + bid) / 2, bid == bid and ask == ask
            book["bid_price"][0], book["ask_price"][0] = bid, ask
            self._book.publish(symbol)

    def algo_alive(self) -> None:
        """A last heartbeat of the strategy, as of now."""
        beat = self._beat.value[0]
        beat["state"], beat["t_beat_ns"] = int(ServiceState.READY), self.now()
        self._beat.publish()

    def turn(self) -> int:
        now_ns = self.now()
        self._renew(now_ns)
        work = self.bridge.do_work(now_ns)
        if now_ns >= self._next_duty:
            self._next_duty = now_ns + 5_000_000
            self.bridge.housekeeping(now_ns)
            self.bridge.ready()
        ticks = self.ticks.poll()
        self._books(ticks, now_ns)
        self.seen.extend(self.events.poll().copy())
        self.fills.extend(self.executions.poll().copy())
        return work

    def until(self, holds: Callable[[], Any], timeout_s: float = 10.0, what: str = "") -> Any:
        """Turn until something holds; fails with the last events."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if not self.turn():
                time.sleep(0.0005)
            found = holds()
            if found:
                return found
        last = "\n".join(
            f"{EventKind(int(e['kind'])).name} {int(e['code'])} {e['text'].decode()}" for e in self.seen[-25:]
        )
        raise AssertionError(f"not reached within {timeout_s} s: {what or holds}; last events:\n{last}")

    def ready(self, timeout_s: float = 30.0) -> None:
        self.until(lambda: self.bridge.ready() and not self.bridge.cells.stop["block"], timeout_s, "ready")
        self.until(lambda: len(self.bests) >= len(STOCKS), timeout_s, "books of all stocks")

    def tidy(self) -> None:
        """Stops released, orders cancelled, positions closed, and nothing remembered of it."""
        self.lease_on = self.books_on = True
        self.stop.value[0]["kill"] = self.stop.value[0]["pause"] = 0
        self.stop.publish()
        self.until(lambda: self.bridge.conn.state == LinkState.UP and not self.bridge.cells.stop["block"])
        if self.bridge.register.active_count:
            self.command(CommandKind.CANCEL_ALL)
            self.until(lambda: not self.bridge.register.active_count, what="no orders")
        for symbol in range(len(STOCKS)):
            if self.qty(symbol):
                self.order(symbol, -self.qty(symbol), source=Source.WATCHDOG, flags=3)
        self.until(lambda: not any(self.qty(s) for s in range(len(STOCKS))), what="flat")
        self.run(0.21)  # past the window of duplicates
        self.seen.clear()
        self.fills.clear()

    def run(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.turn():
                time.sleep(0.0005)

    # What others write.

    def order(
        self,
        symbol: int,
        qty: float,
        limit: float = math.nan,
        source: Source = Source.OPERATOR,
        flags: int = 0,
        **more: Any,
    ) -> int:
        """An intent; ``qty`` signed. Returns its id."""
        record = np.zeros(1, INTENT)
        i = record[0]
        context = {Source.ALGO: self.algo, Source.OPERATOR: self.cockpit, Source.WATCHDOG: self.watchdog}[source]
        i["intent_id"], i["kind"], i["source"] = context.ids.next(source), int(IntentKind.NEW), int(source)
        i["t_intent_ns"], i["symbol"], i["side"], i["qty"] = self.now(), symbol, 1 if qty > 0 else -1, abs(qty)
        i["order_type"] = int(OrderType.MKT if math.isnan(limit) else OrderType.LMT)
        i["limit_price"], i["tif"], i["flags"] = limit, int(TimeInForce.DAY), flags
        for name, value in more.items():
            i[name] = value
        self._orders[source].publish(record)
        return int(i["intent_id"])

    def filled(self, symbol: int, qty: float) -> int:
        """A market order, waited for until it is filled."""
        intent = self.order(symbol, qty)
        self.until(lambda: OrderState.FILLED in self.states(intent))
        return intent

    def cancel(self, target: int, source: Source = Source.OPERATOR) -> int:
        return self.order(0, 1.0, source=source, kind=int(IntentKind.CANCEL), target_id=target)

    def command(self, kind: CommandKind, flags: int = 0) -> int:
        record = np.zeros(1, COMMAND)
        c = record[0]
        c["command_id"], c["kind"], c["source"], c["flags"] = (
            self.watchdog.ids.next(Source.WATCHDOG),
            int(kind),
            int(Source.WATCHDOG),
            flags,
        )
        c["t_ns"] = self.now()
        self._commands.publish(record)
        return int(c["command_id"])

    # What they see.

    def states(self, intent_id: int) -> list[OrderState]:
        return [
            OrderState(int(e["code"]))
            for e in self.seen
            if e["kind"] == EventKind.ORDER_STATE and e["ref_id"] == intent_id
        ]

    def refusal(self, intent_id: int) -> np.void | None:
        return next((e for e in self.seen if e["kind"] == EventKind.REFUSED and e["ref_id"] == intent_id), None)

    def result(self, command_id: int) -> np.void | None:
        return next((e for e in self.seen if e["kind"] == EventKind.COMMAND_RESULT and e["ref_id"] == command_id), None)

    def qty(self, symbol: int) -> float:
        return float(self.positions.read(symbol)["qty"])

    def texts(self, kind: EventKind) -> list[str]:
        return [e["text"].decode() for e in self.seen if e["kind"] == kind]

    def near(self, symbol: int, away: float) -> float:
        """A price on the increment, ``away`` (a share of the mid) from it."""
        ask, bid = self.bests[symbol]
        return round((ask + bid) / 2 * (1 + away), 2)

    def kill_bridge(self) -> None:
        """As kill -9 would: nothing is said, cancelled or written."""
        self.bridge.link.disconnect("killed")
        self.bridge._writer.close()

    def close(self) -> None:
        self.bridge.link.disconnect("test ends")
        self.bridge._writer.close()
        self.instance.close()
