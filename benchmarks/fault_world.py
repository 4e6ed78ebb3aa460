"""One world in one thread: the paper gateway and the broker-bridge over a real socket, on a clock that is driven.

Both are what they are in production: the gateway's server, sessions and market, the bridge's agent and its socket link.
Only their clock is ours, so that a week passes in a minute and a seed tells the same story again. The bridge's
neighbours (watchdog's lease, ml-service's books, writers of orders) are played by the world.
"""

from __future__ import annotations

import asyncio
import math
import random
import select
import socket
import struct
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engine import topology
from engine.config import from_mapping
from engine.domain.codes import (
    EventKind,
    IntentKind,
    LinkState,
    OrderState,
    OrderType,
    Owner,
    Source,
    TickKind,
    TimeInForce,
)
from engine.domain.instruments import SIM_UNIVERSE
from engine.paper.config import PaperConfig
from engine.paper.faults import FAULTS, FaultDesk
from engine.paper.market.synthetic import SyntheticMarket
from engine.paper.server import Gateway, bind
from engine.procs.broker_bridge import BrokerBridge
from engine.runtime.clock import ManualClock
from engine.runtime.context import Context
from engine.runtime.ids import order_ref
from engine.runtime.private import PrivateInstance
from shm import scratch
from shm.layouts import INTENT

MS = 1_000_000
SECOND = 1_000_000_000
START_WALL_NS = 1_704_207_600_000_000_000
"""Tuesday, 2 January 2024, 10:00 New York."""
EPS = 1e-6
FLATTEN = 3
"""Flags of a closing order: reduce only, flatten."""


class SimLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers follow the simulated clock. It must never be left to wait."""

    def __init__(self, clock: ManualClock) -> None:
        self._simulated = clock
        super().__init__()

    def time(self) -> float:
        return self._simulated.now / 1e9


def _look(fd: int, what: Callable[[socket.socket], Any]) -> Any:
    """Ask a socket that belongs to somebody else."""
    sock = socket.socket(fileno=fd)
    try:
        return what(sock)
    finally:
        sock.detach()


def _count(fd: int, at: int) -> int:
    """A 64-bit counter of the kernel's struct tcp_info: at 128 bytes received, at 200 bytes sent."""
    info = _look(fd, lambda sock: sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232))
    return int(struct.unpack_from("<Q", info, at)[0]) if len(info) >= at + 8 else 0


_NEVER: set[tuple[int, int, int]] = set()
"""What was waited for in vain (the receiver reads no more): not waited for again."""


def _carried(sender: int, receiver: int) -> None:
    """Wait, in real time, until the receiver's kernel has everything that the sender wrote."""
    try:
        sent = _count(sender, 200)
        if (sender, receiver, sent) in _NEVER:
            return
        for _ in range(200):
            if _count(receiver, 128) >= sent:
                return
            time.sleep(0.00005)
        _NEVER.add((sender, receiver, sent))
    except OSError:
        return


class Broken(AssertionError):
    """An invariant does not hold."""


class World:
    """``stocks``: the first so many of the paper market. ``books``: where the bridge's view of the market comes from:
    "ticks" (what has really arrived, so that data can go stale) or "market" (always fresh)."""

    def __init__(
        self, directory: Path, clock: ManualClock, *, seed: int = 1, stocks: int = 3, messages_per_s: float = 60.0,
        books: str = "ticks", overrides: dict[str, dict[str, Any]] | None = None,
    ) -> None:  # fmt: skip
        self.clock = clock
        self.directory = directory
        self.stocks = stocks
        self.books = books
        self.rng = random.Random(seed)
        universe = SIM_UNIVERSE[:stocks]
        self.market = SyntheticMarket(universe, None, seed, 10, start_ns=clock.now, messages_per_s=messages_per_s)
        self.paper = PaperConfig(port=0, seed=seed, state_file=None, messages_per_s=messages_per_s)
        data: dict[str, dict[str, Any]] = {
            "instance": {"name": "faults", "backup_dir": str(directory / "backups")},
            "universe": {"stocks": [{"symbol": i.symbol} for i in universe], "index": "none"},
            **(overrides or {}),
        }
        data["gateway"] = dict(data.get("gateway", {}))
        self._data = data
        self.seen: list[np.void] = []
        self.fills: list[np.void] = []
        self.mine: dict[int, str] = {}
        """orderRef of every intent that was written."""
        self.verdicts: dict[int, list[OrderState]] = {}
        self.refused: dict[int, str] = {}
        self.ticked: dict[int, int] = {}
        self.lease_on = True
        self.watch: Callable[[World], None] | None = None
        """Called after every step."""
        self._duty_ns = 0
        self._marked_ns = 0
        self._paired = False
        self._idle = 0
        self.steps = 0
        self.turns_dead_until_ns = 0

    async def begin(self) -> None:
        listener = bind("127.0.0.1", 0)
        self.gateway = Gateway(self.paper, self.market, None, self.clock.now_ns, START_WALL_NS)
        self.faults = FaultDesk(self.gateway)
        self._server = await self.gateway.listen(listener)
        self.port = self._server.sockets[0].getsockname()[1]
        self._data["gateway"]["port"] = self.port
        self.instance = PrivateInstance(
            from_mapping(self._data, "faults"), self.directory / "state", self.clock, repeatable=True
        )
        neighbour = self.instance.context
        self.watchdog, self.ml = neighbour(topology.WATCHDOG), neighbour(topology.ML)
        self.algo, self.cockpit = neighbour(topology.ALGO), neighbour(topology.COCKPIT)
        self._lease = self.watchdog.cell_writer("lease")
        self.stop = self.watchdog.cell_writer("stop.watchdog")
        self._book = self.ml.cell_writer("book")
        self._orders = {
            Source.ALGO: self.algo.ring_writer("orders.algo"),
            Source.OPERATOR: self.cockpit.ring_writer("orders.operator"),
            Source.WATCHDOG: self.watchdog.ring_writer("orders.watchdog"),
        }
        self._contexts = {Source.ALGO: self.algo, Source.OPERATOR: self.cockpit, Source.WATCHDOG: self.watchdog}
        self.events = self.cockpit.ring_reader(f"events.{topology.BRIDGE}")
        self.ticks = self.ml.ring_reader("ticks", batch=8192)
        self.executions = self.cockpit.ring_reader("executions")
        self.start_bridge()

    def start_bridge(self) -> None:
        self.context: Context = self.instance.context(topology.BRIDGE)
        self.bridge = BrokerBridge(self.context)
        self.bridge.on_start(self.clock.now)
        self._duty_ns = 0

    def kill_bridge(self) -> None:
        """As kill -9 does it: the socket is closed by the kernel, nothing is said."""
        self.bridge.link._drop()  # type: ignore[attr-defined]
        self.bridge._writer.close()

    async def end(self) -> None:
        self.kill_bridge()
        self.faults.close()
        self._server.close()
        self.gateway.close()
        for _ in range(3):
            await asyncio.sleep(0)
        self.instance.close()

    # Time.

    async def step(self, by_ns: int) -> bool:
        """Let time pass, then everybody have a turn. True if anything was said."""
        self.steps += 1
        self.clock.advance(by_ns)
        await self._let_sockets_speak()
        self.gateway.step()
        self._hear()
        now_ns = self.clock.now
        sent = self.bridge.link.messages_sent
        self._renew(now_ns)
        work = 0
        if now_ns >= self.turns_dead_until_ns:
            work = self.bridge.do_work(now_ns)
            if now_ns >= self._duty_ns:
                self._duty_ns = now_ns + 5 * MS
                self.bridge.housekeeping(now_ns)
                self.bridge.ready()
        self._listen(now_ns)
        if self.watch is not None:
            self.watch(self)
        return bool(work) or self.bridge.link.messages_sent != sent

    async def _let_sockets_speak(self) -> None:
        """What the bridge wrote is read and handled. The kernel takes its own time to carry bytes; we wait for it, so
        that simulated time does not depend on it."""
        for ours, theirs in self._pairs():
            _carried(ours, theirs)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def _hear(self) -> None:
        """Wait until what the gateway wrote, or its closing of the connection, is there to be read."""
        pairs = self._pairs()
        for ours, theirs in pairs:
            _carried(theirs, ours)
        fd = self.bridge.link.fileno()
        gone, self._paired = self._paired and not pairs, bool(pairs)
        if fd >= 0 and gone and not self.gateway._half_open:
            poller = select.poll()
            poller.register(fd, select.POLLIN)
            poller.poll(200)

    def _pairs(self) -> list[tuple[int, int]]:
        """Descriptors of both ends of the bridge's connection, if it stands."""
        fd = self.bridge.link.fileno()
        if fd < 0:
            return []
        name = _look(fd, lambda sock: sock.getsockname())
        found = []
        for session in self.gateway.sessions:
            transport = session._transport
            if transport is not None and not transport.is_closing() and transport.get_extra_info("peername") == name:
                found.append((fd, transport.get_extra_info("socket").fileno()))
        return found

    async def run(self, seconds: float, *, fine_ms: float = 5.0, coarse_ms: float = 5.0) -> None:
        """Steps of ``fine_ms`` while something goes on, growing to ``coarse_ms`` in silence."""
        end_ns = self.clock.now + int(seconds * 1e9)
        step_ns = int(fine_ms * MS)
        while self.clock.now < end_ns:
            busy = await self.step(min(step_ns, end_ns - self.clock.now))
            self._idle = 0 if busy else self._idle + 1
            if busy:
                step_ns = int(fine_ms * MS)
            elif self._idle > 20:
                step_ns = min(int(step_ns * 1.5), int(coarse_ms * MS))

    async def until(self, holds: Callable[[], Any], seconds: float = 60.0, what: str = "") -> float:
        """Run until something holds; returns how long that took, s. Raises Broken with the last events."""
        begin_ns = self.clock.now
        while not holds():
            if self.clock.now - begin_ns > seconds * SECOND:
                last = "\n".join(self.story(15))
                raise Broken(f"not reached within {seconds:g} simulated s: {what or holds}\n{last}")
            await self.step(5 * MS)
        return (self.clock.now - begin_ns) / 1e9

    def story(self, last: int = 40) -> list[str]:
        """The bridge's last events in words."""
        return [
            f"{(int(e['t_ns']) - 1_000_000_000) / 1e9:12.3f} {EventKind(int(e['kind'])).name} {int(e['code'])} "
            f"{e['text'].decode(errors='replace')}"
            for e in self.seen[-last:]
        ]

    def _renew(self, now_ns: int) -> None:
        if self.lease_on:
            lease = self._lease.value[0]
            lease["epoch"], lease["owner"] = max(1, lease["epoch"]), int(Owner.BRIDGE)
            lease["granted_ns"], lease["expires_ns"] = now_ns, now_ns + 250 * MS
            self._lease.publish()

    def _listen(self, now_ns: int) -> None:
        ticks = self.ticks.poll()
        for tick in ticks:
            kind = int(tick["kind"])
            if kind in (TickKind.DEPTH, TickKind.DEPTH_RESET):
                self.ticked[int(tick["symbol"])] = now_ns if kind == TickKind.DEPTH else 0
        due = len(ticks) or now_ns - self._marked_ns > SECOND or (self.books == "market" and now_ns != self._marked_ns)
        if due:
            self._marked_ns = now_ns
        for symbol in range(self.stocks) if due else ():
            bids, asks = self.market.snapshot(symbol)
            if not len(bids) or not len(asks):
                continue
            book = self._book.value[symbol]
            t_ns = self.ticked.get(symbol, 0) if self.books == "ticks" else now_ns
            book["t_socket_ns"], book["valid"] = t_ns, t_ns > 0
            book["mid"] = (bids[0][0] + asks[0][0]) / 2
            book["bid_price"][0], book["ask_price"][0] = bids[0][0], asks[0][0]
            self._book.publish(symbol)
        for event in self.events.poll().copy():
            self.seen.append(event)
            ref = int(event["ref_id"])
            if event["kind"] == EventKind.ORDER_STATE:
                self.verdicts.setdefault(ref, []).append(OrderState(int(event["code"])))
            elif event["kind"] == EventKind.REFUSED:
                self.refused[ref] = event["text"].decode(errors="replace")
        if len(self.seen) > 4_000:
            del self.seen[:2_000]
        self.fills.extend(self.executions.poll().copy())

    # What others write.

    def mid(self, symbol: int) -> float:
        bids, asks = self.market.snapshot(symbol)
        return float(bids[0][0] + asks[0][0]) / 2 if len(bids) and len(asks) else 100.0

    def order(
        self, symbol: int, qty: float, away: float = math.nan, source: Source = Source.OPERATOR, **more: Any
    ) -> int:
        """An intent; ``away`` from the mid (a share of it), NaN for a market order. Returns its id."""
        record = np.zeros(1, INTENT)
        i = record[0]
        i["intent_id"], i["kind"], i["source"] = self._contexts[source].ids.next(source), IntentKind.NEW, source
        i["t_intent_ns"], i["symbol"], i["side"], i["qty"] = self.clock.now, symbol, 1 if qty > 0 else -1, abs(qty)
        market = math.isnan(away)
        i["order_type"] = OrderType.MKT if market else OrderType.LMT
        i["limit_price"] = math.nan if market else round(self.mid(symbol) * (1 + away), 2)
        i["tif"] = int(TimeInForce.DAY)
        for name, value in more.items():
            i[name] = value
        self._orders[source].publish(record)
        intent = int(i["intent_id"])
        if int(i["kind"]) == IntentKind.NEW:
            self.mine[intent] = order_ref(intent)
        return intent

    def cancel(self, target: int) -> int:
        return self.order(0, 1.0, kind=int(IntentKind.CANCEL), target_id=target)

    def replace(self, target: int, symbol: int, qty: float, away: float) -> int:
        return self.order(symbol, qty, away, kind=int(IntentKind.REPLACE), target_id=target)

    def fault(self, name: str, **values: Any) -> str:
        return self.faults.apply(name, values)

    # What is true.

    @property
    def blocked(self) -> bool:
        """Would the gate refuse every entry?"""
        return bool(self.bridge.cells.stop["block"]) or not self.bridge.gate.account[0]["connected"]

    @property
    def served(self) -> bool:
        """Does the gateway hear the bridge, and the broker the gateway?"""
        session = self.gateway._by_client.get(self.bridge._config.gateway.client_id)
        return session is not None and not session.muted and self.gateway.link_up

    def position(self, symbol: int) -> float:
        held = self.gateway.account.positions.get(symbol)
        return float(held.quantity) if held is not None else 0.0

    def ledger(self) -> dict[str, list[Any]]:
        """The broker's orders by orderRef."""
        found: dict[str, list[Any]] = {}
        for order in self.gateway.desk.ledger.orders.values():
            found.setdefault(order.order_ref, []).append(order)
        return found

    def understated(self) -> str:
        """In words where the true position could go beyond what the bridge counts with; empty if nowhere."""
        if not self.bridge.books.opened:
            return ""
        for symbol in range(self.stocks):
            up = down = self.bridge.accounts.holdings[symbol].qty
            for order in self.bridge.register.active():
                if order.symbol == symbol:
                    up += order.remaining * (order.side > 0)
                    down -= order.remaining * (order.side < 0)
            true_up = true_down = self.position(symbol)
            for held in self.gateway.desk.ledger.working():
                if held.symbol == symbol:
                    rest = held.quantity - held.filled
                    true_up += rest * (held.action == "BUY")
                    true_down -= rest * (held.action == "SELL")
            if true_up > up + EPS or true_down < down - EPS:
                return f"symbol {symbol}: may reach {true_down:g}..{true_up:g}, counted with {down:g}..{up:g}"
        return ""

    def doubled(self) -> list[str]:
        """Orders that the broker has more than once, and executions that the bridge has applied more than once."""
        twice = [ref for ref, orders in self.ledger().items() if len(orders) > 1]
        return twice + self.bridge.accounts.check()

    def differences(self) -> list[str]:
        """Where the bridge's books and the broker's differ; to be asked when all is quiet."""
        found = []
        ledger = self.ledger()
        for symbol in range(self.stocks):
            ours, theirs = self.bridge.accounts.holdings[symbol].qty, self.position(symbol)
            if abs(ours - theirs) > EPS:
                found.append(f"position of symbol {symbol}: ours {ours:g}, the broker's {theirs:g}")
        for order in self.bridge.register.by_intent.values():
            held = ledger.get(order_ref(order.intent_id), [])
            if not held:
                if order.state not in (OrderState.REFUSED, OrderState.REJECTED):
                    found.append(f"order {order.intent_id:x} is {order.state.name}, the broker never had it")
                continue
            broker = held[0]
            if order.active != broker.working:
                found.append(f"order {order.intent_id:x} is {order.state.name}, the broker's {broker.status}")
            if abs(order.filled - broker.filled) > EPS and order.filled < order.qty:
                found.append(f"order {order.intent_id:x} filled {order.filled:g}, the broker's {broker.filled:g}")
        known = {order_ref(o.intent_id) for o in self.bridge.register.by_intent.values()}
        found += [f"the broker works {ref}, unknown to us" for ref, orders in ledger.items()
                  if any(o.working for o in orders) and ref not in known]  # fmt: skip
        return found

    @property
    def quiet(self) -> bool:
        """Connected, reconciled, unblocked, nothing in question, all data flowing."""
        b = self.bridge
        return (
            b.conn.state == LinkState.UP
            and b.books.reconciled
            and not b.cells.stop["block"]
            and self.served
            and not any(o.question_ns or o.state == OrderState.UNKNOWN for o in b.register.active())
        )


def simulate(story: Callable[[World], Coroutine[Any, Any, Any]], **world: Any) -> Any:
    """Make a world, let ``story`` happen in it, and clean up; returns what the story returns."""
    clock = ManualClock(SECOND, START_WALL_NS)

    async def live() -> Any:
        with scratch.directory("l2dash-faults-") as directory:
            made = World(Path(directory), clock, **world)
            await made.begin()
            try:
                return await story(made)
            finally:
                await made.end()

    with asyncio.Runner(loop_factory=lambda: SimLoop(clock)) as runner:
        return runner.run(live())


__all__ = ["FAULTS", "Broken", "World", "replace", "simulate"]
