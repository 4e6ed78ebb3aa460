"""A bridge on a simulated clock whose link a test writes by hand: what the broker holds, and what it says when."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engine import topology
from engine.broker import news as n
from engine.broker.link import LinkPhase, WireOrder
from engine.broker.orders import Order
from engine.domain.codes import CommandKind, EventKind, OrderState, Owner, Source
from engine.procs.broker_bridge import BrokerBridge
from engine.runtime.ids import order_ref
from engine.runtime.testing import instance
from shm.layouts import COMMAND, TICK

MS, S = 1_000_000, 1_000_000_000
CLIENT = 11
ACCOUNT = "DUSIM001"
STOCKS = ("AAPL", "MSFT", "AMZN")


class ScriptedLink:
    """Answers at the next poll from ``orders``, ``positions`` and ``fills``, except for requests named in ``held``."""

    def __init__(self, now: Callable[[], int]) -> None:
        self.phase = LinkPhase.CLOSED
        self.news: deque[n.News] = deque()
        self.ticks = np.zeros(8, TICK)
        self.tick_count = self.messages_sent = self.bad_frames = 0
        self.last_message_ns = 0
        self.sent: list[tuple[int, str]] = []
        """(when, what) of every message."""
        self.placed: list[WireOrder] = []
        self.orders: dict[int, n.OpenOrderNews] = {}
        self.positions: dict[int, n.PositionNews] = {}
        self.fills: list[n.ExecutionNews] = []
        self.held: set[str] = set()
        self.late: dict[str, list[n.News]] = {}
        """Answers that were held back, to be told by ``say``."""
        self.on_cancel: Callable[[int], list[n.News]] = self._cancelled
        self.refuse = False
        self._now = now
        self._told: deque[n.News] = deque()
        self._requests = 0

    # What a test does.

    def say(self, *news: n.News) -> None:
        self._told.extend(news)

    def release(self, what: str) -> None:
        self.held.discard(what)
        self.say(*self.late.pop(what, []))

    def names(self, since: int = 0) -> list[str]:
        return [what for _, what in self.sent[since:]]

    # The port.

    def connect(self, now_ns: int) -> None:
        if self.refuse:
            self.news.append(n.LinkDown("connection refused", refused=True))
            return
        self.phase = LinkPhase.OPEN
        self._write("startApi")
        self._told.append(n.LinkUp((ACCOUNT,), 1, 176))

    def disconnect(self, reason: str) -> None:
        if self.phase != LinkPhase.CLOSED:
            self.phase = LinkPhase.CLOSED
            self._told.clear()
            self.late.clear()
            self.news.append(n.LinkDown(reason))

    def poll(self, now_ns: int) -> int:
        count = len(self._told)
        self.news.extend(self._told)
        self._told.clear()
        if count:
            self.last_message_ns = now_ns
        return count

    def take_ticks(self) -> Any:
        return self.ticks[:0]

    def flush(self) -> bool:
        return True

    def fileno(self) -> int:
        return -1

    def _write(self, what: str, *answer: n.News) -> None:
        self.messages_sent += 1
        self.sent.append((self._now(), what))
        if what in self.held:
            self.late.setdefault(what, []).extend(answer)
        else:
            self._told.extend(answer)

    def place(self, order: WireOrder) -> None:
        self.placed.append(order)
        self._write("place")

    def _cancelled(self, order_id: int) -> list[n.News]:
        order = self.orders.pop(order_id, None)
        perm = order.perm_id if order is not None else 0
        return [n.OrderStatusNews(order_id, CLIENT, perm, "Cancelled", 0.0, 0.0, 0.0)]

    def cancel(self, order_id: int) -> None:
        self._write("cancel", *self.on_cancel(order_id))

    def global_cancel(self) -> None:
        self._write("global_cancel", *[x for order_id in list(self.orders) for x in self.on_cancel(order_id)])

    def request_open_orders(self) -> None:
        self._write("orders", *self.orders.values(), n.OpenOrdersEnd())

    def request_executions(self) -> int:
        self._requests += 1
        fills = [replace(f, req_id=self._requests) for f in self.fills]
        self._write("executions", *fills, n.ExecutionsEnd(self._requests))
        return self._requests

    def request_positions(self) -> None:
        self._write("positions", *self.positions.values(), n.PositionsEnd())

    def request_account(self, account: str) -> None:
        self._write("account", n.AccountValueNews("NetLiquidation", "1e6", "USD", account), n.AccountEnd(account))

    def probe(self) -> None:
        self._write("probe", n.TimeNews(self._now() // S, self._now()))

    def subscribe(self, symbol: int, line: Any) -> None:
        self._write("subscribe")

    def unsubscribe(self, symbol: int, line: Any) -> None:
        self._write("unsubscribe")

    def request_details(self, symbol: int) -> None:
        self._write("details")

    def request_market_rule(self, rule_id: int) -> None:
        self._write("rule")

    def qualify(self, symbol: int, con_id: int, primary_exchange: str) -> None: ...


class Scripted:
    """One bridge, its clock, its link and the watchdog's lease. ``client``: the configured gateway.client_id."""

    def __init__(self, directory: Path, client: int = CLIENT, scope: str = "dedicated", **gateway: Any) -> None:
        self.directory = directory
        self.instance = instance(
            directory,
            {
                "universe": {"stocks": [{"symbol": s} for s in STOCKS], "index": "none"},
                "gateway": {"client_id": client, "account": ACCOUNT, "account_scope": scope, **gateway},
            },
        )
        self.clock = self.instance.clock
        self.clock.advance(100 * S)
        self.watchdog = self.instance.context(topology.WATCHDOG)
        self._lease = self.watchdog.cell_writer("lease")
        self._commands = self.watchdog.ring_writer("commands.watchdog")
        self.events = self.watchdog.ring_reader(f"events.{topology.BRIDGE}")
        self.executions = self.watchdog.ring_reader("executions")
        self.seen: list[np.void] = []
        self.context = self.instance.context(topology.BRIDGE)
        self.link = ScriptedLink(self.clock.now_ns)
        self.bridge = BrokerBridge(self.context, self.link)
        self.books, self.register = self.bridge.books, self.bridge.register
        self.bridge.on_start(self.clock.now)

    def close(self) -> None:
        self.bridge._writer.drain(5.0)
        self.bridge._writer.close()
        self.instance.close()

    # Time.

    def run(self, seconds: float, step_ms: int = 20) -> None:
        end_ns = self.clock.now + int(seconds * S)
        while self.clock.now < end_ns:
            self.clock.advance(step_ms * MS)
            self.turn()

    def turn(self) -> None:
        now_ns = self.clock.now
        lease = self._lease.value[0]
        lease["epoch"], lease["owner"] = max(1, lease["epoch"]), int(Owner.BRIDGE)
        lease["granted_ns"], lease["expires_ns"] = now_ns, now_ns + 250 * MS
        self._lease.publish()
        self.bridge.do_work(now_ns)
        self.bridge.housekeeping(now_ns)
        self.seen.extend(self.events.poll().copy())

    def until(self, holds: Callable[[], Any], seconds: float = 10.0, what: str = "") -> Any:
        end_ns = self.clock.now + int(seconds * S)
        while self.clock.now < end_ns:
            found = holds()
            if found:
                return found
            self.run(0.02)
        raise AssertionError(f"not reached within {seconds:g} simulated s: {what}; {self.texts()[-12:]}")

    def up(self) -> None:
        self.until(lambda: self.books.reconciled and self.books.reading is None, 20.0, "reconciled")

    # The world.

    def working(self, number: int = 1, symbol: int = 0, qty: float = 10.0, **more: Any) -> int:
        """An order of ours that works at the broker; returns its intent id."""
        intent = int(Source.OPERATOR) << 56 | number
        order = Order(
            intent_id=intent, order_id=number, symbol=symbol, source=int(Source.OPERATOR), side=1, qty=qty,
            order_type=2, limit_price=10.0, tif=1, flags=0, entry=True, state=OrderState.WORKING,
            sent_ns=self.clock.now - S, acked_ns=self.clock.now - S, perm_id=1000 + number,
        )  # fmt: skip
        self.link.orders[number] = self.row(
            order_id=number, symbol=symbol, qty=qty, order_ref=order_ref(intent), **more
        )
        self.register.put(order)
        self.bridge._ids.raise_to(number + 1)
        return intent

    def row(self, **more: Any) -> n.OpenOrderNews:
        symbol = more.pop("symbol", 0)
        number = more.get("order_id", 1)
        values = {
            "order_id": number, "client_id": CLIENT, "perm_id": 1000 + number, "con_id": self.con_id(symbol),
            "symbol": STOCKS[symbol], "account": ACCOUNT, "side": 1, "qty": 10.0, "order_type": "LMT",
            "limit_price": 10.0, "tif": "DAY", "order_ref": "", "status": "Submitted", **more,
        }  # fmt: skip
        return n.OpenOrderNews(**values)

    def con_id(self, symbol: int) -> int:
        return self.context.instruments[symbol].con_id or 5000 + symbol

    def holds(self, symbol: int, qty: float) -> n.PositionNews:
        """The broker's position from now on; the row that tells it."""
        row = n.PositionNews(ACCOUNT, self.con_id(symbol), STOCKS[symbol], "STK", qty, 10.0)
        self.link.positions[symbol] = row
        return row

    def fill(self, exec_id: str, symbol: int, qty: float, **more: Any) -> n.ExecutionNews:
        """An execution of the broker's, found by whoever asks from now on."""
        values = {
            "req_id": -1, "exec_id": exec_id, "order_id": 0, "client_id": 0, "perm_id": 0,
            "con_id": self.con_id(symbol), "symbol": STOCKS[symbol], "account": ACCOUNT, "side": 1 if qty > 0 else -1,
            "qty": abs(qty), "price": 10.0, "cum_qty": abs(qty), "avg_price": 10.0,
            "t_exec_wall_ns": self.clock.wall_ns(self.clock.now), "order_ref": "", "t_socket_ns": self.clock.now,
            **more,
        }  # fmt: skip
        found = n.ExecutionNews(**values)
        self.link.fills.append(found)
        return found

    def command(self, kind: CommandKind, flags: int = 0, symbol: int = 0) -> int:
        record = np.zeros(1, COMMAND)
        c = record[0]
        c["command_id"], c["kind"], c["source"] = self.watchdog.ids.next(Source.WATCHDOG), int(kind), 3
        c["flags"], c["t_ns"], c["symbol"] = flags, self.clock.now, symbol
        self._commands.publish(record)
        return int(c["command_id"])

    def state(self, intent: int) -> OrderState:
        return self.register.by_intent[intent].state

    def events_of(self, kind: EventKind) -> list[np.void]:
        return [e for e in self.seen if e["kind"] == kind]

    def texts(self, kind: EventKind | None = None) -> list[str]:
        return [e["text"].decode() for e in self.seen if kind is None or e["kind"] == kind]
