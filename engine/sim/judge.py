"""Looks on from outside: the exchange's truth against what the system says and does, after every event."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from engine import topology
from engine.broker import news as n
from engine.broker.link import WireOrder
from engine.domain.codes import Badge, BadgeState, CommandKind, EventKind, ExecKind, LinkState, Owner, Source
from engine.procs.watchdog_parts.cells import Block
from engine.procs.watchdog_parts.stops import badges_in_words
from engine.risk.stops import Stops, effective
from engine.runtime.context import Context
from engine.sim import invariants as rules
from engine.sim.gateway import BRIDGE, Gateway
from engine.sim.invariants import Broken, Exposure
from engine.sim.plan import Kind
from engine.store.fold import fold_orders
from engine.store.journal import journal_path

FLAT_WITHIN_NS = 45_000_000_000
WIDE_LOOK_NS = 20_000_000_000
"""From one look to the next at the most, with a wide pace."""
UNANSWERED_NS = 30_000_000_000
"""A RESET or RESUME that was asked this long ago may still take effect without an answer."""
"""After KILL, with nothing in the way for so long, the account must be flat."""
_MOST_BROKEN = 5
_NO_STIR = (n.TimeNews, n.AccountValueNews, n.AccountEnd, n.ExecutionsEnd, n.OpenOrdersEnd, n.PositionsEnd)


@dataclass(slots=True)
class Counts:
    """What was simulated. ``events``: market events, messages in both directions, orders, commands and deeds."""

    instants: int = 0
    heard: int = 0
    sent: int = 0
    orders: int = 0
    fills: int = 0
    deeds: int = 0
    commands: int = 0
    kills: int = 0
    crashes: int = 0
    market: int = 0

    @property
    def events(self) -> int:
        return self.market + self.heard + self.sent + self.commands + self.deeds


class Judge:
    """``recent`` tells for each kind of deed how long ago it ended, s; ``impeded_ns`` since when nothing is in the way
    of a flatten (0: something is)."""

    def __init__(self, context: Context, start_ns: int) -> None:
        self._context, self._start_ns = context, start_ns
        self._stops = [Block(context.cell_reader(name), 1) for name in topology.STOP_CELLS]
        self._lease = context.cell_reader("lease")
        self._broker = context.cell_reader("broker")
        self._positions = context.cell_reader("positions")
        self._guardrails = context.cell_reader("guardrails")
        self._executions = context.ring_reader("executions", 256)
        self._watchdog = context.ring_reader("events.watchdog", 256)
        self._bridge = context.ring_reader("events.broker-bridge", 256)
        self._limits = context.config.limits
        self._guard = context.config.guardrails
        self._height_usd = 0.0
        """Most that the account has had since the begin, or since an override of DD."""
        self._kill_reasons = 0
        self._stops_changed = True
        self.gateway: Gateway
        self.recent: Callable[[], dict[Kind, float]] = dict
        self.harmless = False
        """None of the deeds may cause a KILL."""
        self.clear_since: Callable[[], int] = lambda: 0
        self.broken: list[Broken] = []
        self.counts = Counts()
        self.digest = hashlib.blake2b(digest_size=16)
        self._sent_ns: deque[int] = deque(maxlen=rules.MESSAGES_PER_S + 1)
        self._epochs: dict[int, str] = {}
        self._bases: set[str] = set()
        self._held = (False, False)
        self._kill_since_ns = 0
        self._reset_granted = self._resume_granted = False
        self._releases: dict[int, tuple[CommandKind, int]] = {}
        """RESETs and RESUMEs without an answer, by command id: which of the two, and when."""
        self._now_ns = self._start_ns
        self._stop_acked: dict[int, CommandKind] = {}
        self.acked: list[int] = []
        """Commands that were acknowledged: the journal must have them in the end."""
        self.asked: dict[int, CommandKind] = {}
        self.refs: dict[str, int] = {}
        self.log: list[str] | None = None
        self.changed = False
        """A stop has been set or released."""
        self.stirred = False
        """Something was sent or heard that is neither a price nor the time of day."""
        self.kills: list[str] = []
        self._rows: dict[tuple[object, ...], n.News] = {}

    def begin(self, begin_ns: int) -> None:
        """The system is READY: times count from here."""
        self._start_ns = begin_ns
        self._height_usd = self._equity_usd()

    # Helpers.

    def say(self, number: int, text: str) -> None:
        if text and len(self.broken) < _MOST_BROKEN and all(b.number != number for b in self.broken):
            self.broken.append(Broken(number, self._context.clock.now_ns() - self._start_ns, text))

    def note(self, text: str) -> None:
        self.digest.update(f"{self._context.clock.now_ns()} {text}\n".encode())
        if self.log is not None:
            self.log.append(f"{(self._context.clock.now_ns() - self._start_ns) / 1e9:12.4f} {text}")

    def _read_stops(self) -> None:
        self._stops_changed |= sum([block.refresh() for block in self._stops]) > 0

    def stops(self) -> Stops:
        self._read_stops()
        return effective([b.value[0] for b in self._stops], [bool(b.torn) for b in self._stops])

    def drift_pct(self) -> float:
        """The largest drift from fair value if that badge keeps KILL from being released, else 0."""
        badge = self._guardrails.read()["badges"][Badge.DRIFT]
        return float(badge["value"]) if int(badge["state"]) != BadgeState.OK else 0.0

    def _equity_usd(self) -> float:
        """By the broker's own books."""
        exchange = self.gateway.exchange
        return exchange.account.equity(exchange.marks())

    def _unmarked(self, now_ns: int) -> bool:
        """A thin market may say nothing of what is held for a minute. With a wide pace the rule misses what comes
        between two looks and is stale again at the next one."""
        silent_ns = now_ns - self.gateway.depth_ns + WIDE_LOOK_NS
        held = self.gateway.exchange.sums()
        return any(q and silent_ns[s] >= self._guard.unmarked_kill_s * 1e9 for s, q in held.items())

    def _lost_share(self) -> float:
        limit_usd = min(self._guard.drawdown_usd, self._guard.drawdown_pct / 100.0 * self._height_usd)
        return (self._height_usd - self._equity_usd()) / limit_usd

    def exposure(self, symbol: int, without: tuple[int, int] = (0, 0)) -> Exposure:
        """Truth: what is held, works, or is on its way. ``without``: (client, order id) not to count."""
        buys = sells = 0.0
        exchange = self.gateway.exchange
        for order in exchange.working():
            if order.wire.symbol == symbol and (order.client, order.wire.order_id) != without:
                left = order.wire.qty - order.filled
                buys, sells = (buys + left, sells) if order.wire.side > 0 else (buys, sells + left)
        for key, wire in self.gateway.flying.items():
            if wire.symbol == symbol and key != without and exchange.find(wire.order_id, key[0]) is None:
                buys, sells = (buys + wire.qty, sells) if wire.side > 0 else (buys, sells + wire.qty)
        return Exposure(exchange.held(symbol), buys, sells)

    # What leaves (``gateway.Witness``).

    def placed(self, door: str, order: WireOrder, t_ns: int) -> None:
        self.counts.orders += 1
        self.stirred = True
        self.note(f"{door} > order {order.order_id} {order.symbol} {order.side * order.qty:g} {order.order_type} "
                  f"{order.limit_price} {order.tif} {order.order_ref}")  # fmt: skip
        self._sender(door)
        gateway = self.gateway
        client = gateway.doors[door].client
        known = gateway.exchange.find(order.order_id, client)
        if known is not None and not known.working and door != BRIDGE:
            known = (
                None  # told a number that is too low: the broker refuses the order, and it follows with a higher one
            )
        qty = order.qty if known is None else order.qty - known.filled
        if known is not None and known.wire.order_ref != order.order_ref:
            self.say(3, f"order id {order.order_id} is used twice: {known.wire.order_ref} and {order.order_ref}")
        truth = self.exposure(order.symbol, (client, order.order_id))
        lease = self._lease.read()
        valid = int(lease["owner"]) == Owner.BRIDGE and t_ns < int(lease["expires_ns"])
        allowed = self.stops().entries_allowed(order.symbol)
        self.say(1, rules.stopped(truth, order.side, qty, entries_allowed=allowed, lease_valid=valid))
        if not truth.reduces(order.side, qty):
            marks = gateway.exchange.marks()
            side = Exposure(truth.held, truth.buys + qty * (order.side > 0), truth.sells + qty * (order.side < 0))
            worst = side.worst() * marks[order.symbol]
            gross = worst + sum(self.exposure(s).worst() * m for s, m in marks.items() if s != order.symbol)
            self.say(
                5, rules.within_limits(worst, gross, self._limits.breaker_symbol_usd, self._limits.max_position_usd)
            )

    def cancelled(self, door: str, order_id: int, t_ns: int) -> None:
        self.stirred = True
        self.note(f"{door} > cancel {order_id or 'everything'}")
        self._sender(door)

    def _sender(self, door: str) -> None:
        lease = self._lease.read()
        epoch = int(lease["epoch"])
        self.say(7, rules.one_owner(door, int(lease["owner"]), door == BRIDGE, self._epochs.get(epoch, "")))
        self._epochs[epoch] = door

    def message(self, door: str, what: str, t_ns: int) -> None:
        self.counts.sent += 1
        self._sent_ns.append(t_ns)
        self.say(9, rules.paced(self._sent_ns))
        self.digest.update(f"{t_ns} {door} {what}\n".encode())

    def heard(self, door: str, news: n.News, t_ns: int) -> None:
        self.counts.heard += 1
        self.stirred |= type(news) not in _NO_STIR and not self._known(door, news)
        if type(news) is n.ExecutionNews and news.req_id >= 0:  # read again at every reconnect: its id says it all
            self.note(f"{door} < execution {news.exec_id}")
        else:
            self.note(f"{door} < {news}")

    def _known(self, door: str, news: n.News) -> bool:
        """Is it a row of a list that says what was said before?"""
        if type(news) is n.ExecutionNews:
            key: tuple[object, ...] = (door, news.exec_id)
            news = replace(news, req_id=0, t_socket_ns=0)
        elif type(news) is n.OpenOrderNews:
            key = (door, "order", news.perm_id)
        elif type(news) is n.PositionNews:
            key = (door, "position", news.con_id, news.symbol)
        else:
            return False
        known = self._rows.get(key) == news
        self._rows[key] = news
        return known

    # What is said.

    def bridge_born(self) -> None:
        """A new life of the bridge reads the day's executions anew."""
        self._bases.clear()

    def command(self, command_id: int, kind: CommandKind) -> None:
        """An operator has asked for something."""
        self.counts.commands += 1
        self.note(f"operator: {kind.name}")
        if command_id:
            self.asked[command_id] = kind
        if kind in (CommandKind.RESET, CommandKind.RESUME):
            self._releases[command_id] = (kind, self._now_ns)

    def look(self, now_ns: int, duty: bool) -> None:
        """After every instant."""
        self._now_ns = now_ns
        self.counts.instants += 1
        fills = self.counts.fills
        for record in self._executions.poll():
            if record["kind"] == ExecKind.FILL:
                self.counts.fills += 1
                base = bytes(record["exec_id"]).decode().rpartition(".")[0]
                if base in self._bases:
                    self.say(3, rules.applied_once((base, base)))
                self._bases.add(base)
        if self.counts.fills != fills:
            self._height_usd = max(self._height_usd, self._equity_usd())
        self._events(self._watchdog.poll())
        self._events(self._bridge.poll())
        self._watch_stops(now_ns)
        if duty:
            self._agree()
            self._watch_flat(now_ns)

    def _events(self, events: np.ndarray) -> None:  # type: ignore[type-arg]
        for e in events:
            kind = int(e["kind"])
            if self.log is not None:
                text = bytes(e["text"]).decode(errors="replace").strip("\0")
                name = EventKind(kind).name.lower()
                t_s = (int(e["t_ns"]) - self._start_ns) / 1e9
                self.log.append(f"{t_s:12.4f}     {name} {int(e['code'])} ref {int(e['ref_id'])} {text}")
            if kind == EventKind.COMMAND_RESULT and int(e["code"]):
                self._releases.pop(int(e["ref_id"]), None)  # refused: it releases nothing
            elif kind == EventKind.COMMAND_RESULT:
                command_id = int(e["ref_id"])
                asked = self.asked.get(command_id)
                if asked is not None:
                    self.acked.append(command_id)
                    self._acknowledged(asked)

    def _released(self, kind: CommandKind, now_ns: int) -> bool:
        """May an operator have released it since it was latched? Granted, or asked for lately and not yet answered: a
        watchdog that dies between the release and its answer has released all the same."""
        waiting = any(k == kind and now_ns - t < UNANSWERED_NS for k, t in self._releases.values())
        return waiting or (self._reset_granted if kind == CommandKind.RESET else self._resume_granted)

    def _acknowledged(self, kind: CommandKind) -> None:
        stops = self.stops()
        self._reset_granted |= kind == CommandKind.RESET
        self._resume_granted |= kind == CommandKind.RESUME
        reset, resumed = (self._released(k, self._now_ns) for k in (CommandKind.RESET, CommandKind.RESUME))
        if kind in (CommandKind.PAUSE, CommandKind.FLATTEN) and not stops.pause and not resumed:
            self.say(10, f"{kind.name} was acknowledged and no PAUSE holds")
        if kind == CommandKind.KILL and not stops.kill and not reset:
            self.say(10, "KILL was acknowledged and does not hold")

    def _watch_stops(self, now_ns: int) -> None:
        self._read_stops()
        if not self._stops_changed:
            return
        self._stops_changed = False
        stops = self.stops()
        now = (stops.kill, stops.pause)
        if now == self._held:
            return
        self.changed = True
        self.note(f"stops: kill {stops.kill} pause {stops.pause} reasons {stops.kill_reason:#x}")
        reset, resume = self._released(CommandKind.RESET, now_ns), self._released(CommandKind.RESUME, now_ns)
        self.say(8, rules.released(self._held, now, reset, resume))
        if stops.kill and not self._held[0]:
            self.counts.kills += 1
            self._kill_since_ns, self._reset_granted, self._kill_reasons = now_ns, False, int(stops.kill_reason)
            self.kills.append(f"{(now_ns - self._start_ns) / 1e9:.1f} s: {badges_in_words(stops.kill_reason)}")
            recent = {} if self.harmless else self.recent()
            self.say(11, rules.caused(stops.kill_reason, recent, self._lost_share(), self._unmarked(now_ns)))
        if not stops.kill:
            if self._kill_reasons >> Badge.DD & 1:  # by an override: the limit applies anew from here
                self._height_usd, self._kill_reasons = self._equity_usd(), 0
            self._kill_since_ns = 0
        if stops.pause and not self._held[1]:
            self._resume_granted = False
        self._held = now

    def quiet(self) -> bool:
        """Connected, reconciled, and nothing on its way."""
        broker = self._broker.read()
        link = self.gateway.doors.get(BRIDGE)
        return (
            int(broker["link"]) == LinkState.UP and bool(broker["reconciled"])
            and not self.gateway.busy() and link is not None and not link.behind()  # type: ignore[attr-defined]
        )  # fmt: skip

    def _agree(self) -> None:
        if self.quiet() and self.bridge_runs():
            self.say(2, self.disagreement())

    bridge_runs: Callable[[], bool] = staticmethod(lambda: True)

    def disagreement(self) -> str:
        exchange = self.gateway.exchange
        symbols = [i.index for i in exchange.traded]
        ours = [float(self._positions.read(s)["qty"]) for s in symbols]
        return rules.agrees(ours, exchange.sums(), [exchange.held(s) for s in symbols])

    def left(self) -> str:
        exchange = self.gateway.exchange
        held = {i.index: exchange.held(i.index) for i in exchange.traded}
        return rules.flat(held, len(exchange.working()))

    def _watch_flat(self, now_ns: int) -> None:
        clear = self.clear_since()
        if not self._kill_since_ns or not clear or now_ns - max(self._kill_since_ns, clear) < FLAT_WITHIN_NS:
            return
        left = self.left()
        if left:
            self.say(4, f"{(now_ns - self._kill_since_ns) / 1e9:.0f} s after KILL, nothing in the way: {left}")

    # The end.

    def journal(self, complete: bool) -> None:
        """6 and 10: what the journal says when everything has been written. ``complete``: nothing is on its way."""
        state_dir = self._context.state_dir
        with sqlite3.connect(f"file:{journal_path(state_dir)}?mode=ro", uri=True) as db:
            db.row_factory = sqlite3.Row
            rows = db.execute("SELECT exec_base, revision, side, qty, price, kind FROM executions ORDER BY id")
            ours: dict[str, tuple[float, float]] = {}
            revisions: dict[str, int] = {}
            for r in rows:
                if r["kind"] != ExecKind.COMMISSION and r["revision"] >= revisions.get(r["exec_base"], -1):
                    revisions[r["exec_base"]] = r["revision"]
                    ours[r["exec_base"]] = (r["side"] * r["qty"], r["price"])
            theirs = {base: (e.side * e.qty, e.price) for base, e in self.gateway.exchange.fills().items()}
            if not complete:
                theirs = {base: theirs[base] for base in theirs if base in ours}
            self.say(6, rules.same_fills(ours, theirs))
            results = {r[0] for r in db.execute("SELECT ref_id FROM audit WHERE row = 'RESULT'")}
            lost = [i for i in self.acked if i not in results]
            if lost:
                self.say(10, f"{self.asked[lost[0]].name} was acknowledged and the journal does not have it")
            if complete:
                self._orders([dict(r) for r in db.execute("SELECT * FROM orders ORDER BY id")])

    def _orders(self, rows: list[dict[str, object]]) -> None:
        working = {o.wire.order_ref for o in self.gateway.exchange.working()}
        known = {f"L2:{int(order['intent_id']):x}": order for order in fold_orders(rows)}
        for ref in working:
            alive = ref in known and known[ref]["state"] in (1, 3, 4, 5, 6, 7)
            if ref.startswith("L2:") and not alive:
                word = f"is in state {known[ref]['state']}" if ref in known else "is unknown"
                self.say(6, f"order {ref} works at the broker and {word} in the journal")
                return
        for ref, order in known.items():
            alive = order["state"] in (1, 3, 4, 5, 6, 7)
            if alive and ref not in working and order["source"] != Source.WATCHDOG:
                self.say(6, f"order {ref} is in state {order['state']} in the journal and does not work at the broker")
                return
