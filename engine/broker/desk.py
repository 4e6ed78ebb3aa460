"""Intents to orders: gate, governor, wire, verdicts. The link's flush is the caller's, once for everything.

Entries are encoded last: after all rings are drained, stops and lease are read once more and only then do they enter
the buffer that ``flush`` hands to the kernel. What closes or cancels goes first and is never held back by them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from engine.broker import orders as life
from engine.broker.efficiency import Efficiency
from engine.broker.facts import Gatekeeper
from engine.broker.governor import Governor, Priority
from engine.broker.link import BrokerLink, LinkPhase, WireOrder
from engine.broker.orders import Order
from engine.broker.register import Register
from engine.broker.repeats import CANCEL_AGAIN_NS, CANCELS, cancel_after_ns
from engine.broker.statefile import OrderIds
from engine.domain.codes import IntentFlag, IntentKind, OrderState, OrderType, Refusal, TimeInForce
from engine.risk import pretrade
from engine.runtime.ids import order_ref
from shm.layouts import INTENT

_TYPES = {int(OrderType.MKT): "MKT", int(OrderType.LMT): "LMT"}
_TIFS = {int(TimeInForce.DAY): "DAY", int(TimeInForce.IOC): "IOC", int(TimeInForce.GTC): "GTC"}


@dataclass(slots=True)
class Verdict:
    """What an intent came to; told to the world after the socket write."""

    intent: npt.NDArray[np.void]
    refusal: Refusal = Refusal.NONE
    value: float = math.nan
    limit: float = math.nan
    order: Order | None = None
    gate_ns: int = 0
    gated_ns: int = 0
    closing: bool = False
    text: str = ""
    fused: bool = False
    """Gated and sent by the fused hot path, which has measured its hops already."""


class Desk:
    """``now`` is the clock for the cost of the gate; every decision takes its time from the caller."""

    def __init__(
        self,
        link: BrokerLink,
        governor: Governor[Callable[[int], None]],
        register: Register,
        gate: Gatekeeper,
        ids: OrderIds,
        account: str,
        now: Callable[[], int],
        changed: Callable[[Order | None, Order], None],
        efficiency: Efficiency,
    ) -> None:
        self._link = link
        self._efficiency = efficiency
        self._governor = governor
        self._register = register
        self._gate = gate
        self._ids = ids
        self._account = account
        self._now = now
        self._changed = changed
        self._out = np.zeros(3)
        self._seen: dict[int, None] = {}
        self._keys: dict[tuple[int, bytes], None] = {}
        self._before: frozenset[int] = frozenset()
        """Intents that the process before us has answered."""
        self._entries: list[Verdict] = []
        self._sent_id = 0
        """The highest order id that has left: the broker takes rising ones only."""
        self._cancelling: set[int] = set()
        self._cancels: dict[int, int] = {}
        """Cancels of an order that were sent in a row, by intent."""
        self._given_up: set[int] = set()
        self.gave_up: Callable[[Order], None] = lambda order: None
        """Called once for an order that lives on after all its cancels."""
        self.verdicts: list[Verdict] = []
        """Verdicts since the last flush; the caller empties it."""
        self.closes_written = False
        self.cancels_written = 0

    @property
    def connected(self) -> bool:
        """Does a socket take what is sent now? Whether the gateway has the broker is another question."""
        return self._link.phase == LinkPhase.OPEN

    def entitled(self, now_ns: int) -> bool:
        """Is the right to send ours, by the lease as it stands?"""
        self._gate.authority(now_ns)
        return self._gate.owner_ours

    # Intents.

    def handle(self, record: npt.NDArray[np.void], now_ns: int) -> None:
        """One intent (a record array of length 1, ours to keep). Leaves exactly one verdict, now or when it is sent."""
        verdict = Verdict(record)
        intent = record[0]
        kind, intent_id = int(intent["kind"]), int(intent["intent_id"])
        if kind == IntentKind.CANCEL:
            self._cancel_intent(verdict, now_ns)
            return
        if intent_id in self._before:
            return  # it lay in the ring when that process ended; what it came to is told already
        key = (int(intent["source"]), bytes(intent["key"]))
        if intent_id in self._seen or (key[1] and key in self._keys):
            self._refuse(verdict, Refusal.DUPLICATE, 0.0, 0.0, "this intent, or its idempotency key, was seen before")
            return
        self._remember(intent_id, key)
        if kind == IntentKind.NEW:
            self._new(verdict, now_ns)
        elif kind == IntentKind.REPLACE:
            self._replace_intent(verdict, now_ns)
        else:
            self._refuse(verdict, Refusal.UNKNOWN_ORDER, text=f"intent kind {kind} is none of NEW, CANCEL, REPLACE")

    def restored(self) -> None:
        """The register holds the orders of the process before us: none of their intents may leave again."""
        for order in self._register.by_intent.values():
            self._remember(order.intent_id, (order.source, order.key))
        self._before = frozenset(self._register.by_intent)

    def _remember(self, intent_id: int, key: tuple[int, bytes]) -> None:
        self._seen[intent_id] = None
        if key[1]:
            self._keys[key] = None
        if len(self._seen) > 100_000:
            self._seen.pop(next(iter(self._seen)))
        if len(self._keys) > 20_000:
            self._keys.pop(next(iter(self._keys)))

    def _refuse(
        self, verdict: Verdict, code: Refusal, value: float = math.nan, limit: float = math.nan, text: str = ""
    ) -> None:
        verdict.refusal, verdict.value, verdict.limit, verdict.text = code, value, limit, text
        self.verdicts.append(verdict)

    def _ask(self, verdict: Verdict, now_ns: int) -> int:
        gate = self._gate
        intent = verdict.intent[0]
        symbol = int(intent["symbol"])
        gate.authority(now_ns)
        if symbol < len(gate.facts):
            gate.market(symbol, now_ns)
        account = gate.account
        account["now_ns"] = now_ns
        account["budget"] = self._governor.room(Priority.ORDER, now_ns) > len(self._entries)
        begin = self._now()
        code = int(pretrade.check(verdict.intent, gate.facts, account, self._out))
        verdict.gated_ns = self._now()
        verdict.gate_ns = verdict.gated_ns - begin
        return code

    def _new(self, verdict: Verdict, now_ns: int) -> None:
        code = self._ask(verdict, now_ns)
        if code:
            self._refuse(verdict, Refusal(code), float(self._out[0]), float(self._out[1]))
            return
        reducing = bool(self._out[2])
        if not reducing and not self._ids.ready():
            text = "no order ids are reserved on disk: is state_dir full or not writable? what reduces still passes"
            self._refuse(verdict, Refusal.NOT_CONNECTED, text=text)
            return
        if not reducing and self._efficiency.left <= len(self._entries):
            self._refuse(verdict, Refusal.ORDER_EFFICIENCY, self._efficiency.ratio, self._efficiency.limit)
            return
        order = self._order_of(
            verdict.intent, self._ids.take(closing=reducing), not reducing, OrderState.PENDING, now_ns
        )
        verdict.order, verdict.closing = order, reducing
        # From here on it counts as exposure, so that the next intent of this batch sees it.
        self._store(order)
        self._gate.passed(order.symbol, order.source, order.signed_qty, order.limit_price, reducing, now_ns)
        if not reducing:
            self._entries.append(verdict)
        elif self._governor.waiting_urgent == 0 and self._governor.spend(Priority.URGENT, now_ns):
            self._send(verdict, now_ns)
        else:
            mid = float(self._gate.facts["mid"][order.symbol])
            rank = -order.qty * (mid if mid > 0 else 1e12)
            self._governor.submit(Priority.URGENT, lambda t: self._send(verdict, t), rank)

    @staticmethod
    def _order_of(intent: npt.NDArray[np.void], order_id: int, entry: bool, state: OrderState, now_ns: int) -> Order:
        i = intent[0]
        return Order(
            intent_id=int(i["intent_id"]),
            order_id=order_id,
            symbol=int(i["symbol"]),
            source=int(i["source"]),
            side=int(i["side"]),
            qty=float(i["qty"]),
            order_type=int(i["order_type"]),
            limit_price=float(i["limit_price"]) if i["order_type"] == OrderType.LMT else math.nan,
            tif=int(i["tif"]) or int(TimeInForce.DAY),
            flags=int(i["flags"]),
            entry=entry,
            state=state,
            sent_ns=now_ns,
            t_socket_ns=int(i["t_socket_ns"]),
            changed_ns=now_ns,
            key=bytes(i["key"]),
        )

    # The fused hot path (``engine.procs.hot_path``), which gates and sends by itself.

    def room(self, now_ns: int) -> int:
        """Entries that could leave right now by themselves: none while anything waits, or without an order id."""
        waits = self._entries or self.verdicts or self._governor.waiting or not self._ids.ready()
        return 0 if waits else min(self._governor.room(Priority.ORDER, now_ns), self._efficiency.left)

    @property
    def next_order_id(self) -> int:
        """The id of the next order."""
        return self._ids.peek()

    def left(self, record: npt.NDArray[np.void], reducing: bool, t_wire_ns: int, gate_ns: int, gated_ns: int) -> None:
        """An intent (a record array of length 1, ours to keep) has passed the gate and is on the socket as the order
        ``next_order_id``: the books take it over as if it had been sent from here."""
        i = record[0]
        self._remember(int(i["intent_id"]), (int(i["source"]), bytes(i["key"])))
        order = self._order_of(record, self._ids.take(closing=reducing), not reducing, OrderState.SENT, t_wire_ns)
        self._sent_id = order.order_id
        self._store(order)
        self._gate.passed(order.symbol, order.source, order.signed_qty, order.limit_price, reducing, t_wire_ns)
        self._governor.spend(Priority.URGENT if reducing else Priority.ORDER, t_wire_ns)
        self._efficiency.requests += 1
        self.closes_written |= reducing
        self.verdicts.append(
            Verdict(record, order=order, gate_ns=gate_ns, gated_ns=gated_ns, closing=reducing, fused=True)
        )

    def recover(self, record: npt.NDArray[np.void], order_id: int, now_ns: int) -> Order | None:
        """The process before us died while this order was on its way: it may live, and must not be sent again."""
        if int(record[0]["intent_id"]) in self._register.by_intent:
            return None
        order = self._order_of(record, order_id, True, OrderState.SENT, now_ns)
        self._ids.raise_to(order_id + 1)
        order = life.after_restart(order, now_ns, True)
        self._register.put(order)
        return order

    def release_entries(self, now_ns: int) -> None:
        """Stops and lease once more, then encode the entries of this batch."""
        if not self._entries:
            return
        entries, self._entries = self._entries, []
        allowed = self._gate.authority(now_ns)
        for verdict in entries:
            assert verdict.order is not None
            blocked = bool(self._gate.facts["blocked"][verdict.order.symbol])
            if allowed and not blocked and self._governor.spend(Priority.ORDER, now_ns):
                self._send(verdict, now_ns)
                continue
            stops = self._gate.stops
            code = (
                Refusal.KILLED if stops.kill else Refusal.PAUSED if stops.pause
                else Refusal.LEASE if not self._gate.lease_valid
                else Refusal.BLOCKED if stops.block or blocked else Refusal.MESSAGE_RATE
            )  # fmt: skip
            self._withdraw(verdict, code, now_ns)

    def _withdraw(self, verdict: Verdict, code: Refusal, now_ns: int) -> None:
        assert verdict.order is not None
        self._store(replace(verdict.order, state=OrderState.REFUSED, changed_ns=now_ns))
        verdict.order = None
        self._refuse(
            verdict, code, float(self._gate.account[0]["rate_per_s"]) + 1, float(self._gate.account[0]["rate_per_s"])
        )

    def _send(self, verdict: Verdict, now_ns: int) -> None:
        assert verdict.order is not None
        order = self._register.by_intent[verdict.order.intent_id]
        if not self._gate.owner_ours:
            self._withdraw(verdict, Refusal.LEASE, now_ns)
            return
        if not self.connected or not self._gate.account[0]["connected"]:
            self._withdraw(verdict, Refusal.NOT_CONNECTED, now_ns)
            return
        if order.order_id < self._sent_id:  # one that was numbered later has left before
            if not verdict.closing and not self._ids.ready():
                self._withdraw(verdict, Refusal.NOT_CONNECTED, now_ns)
                return
            order = self._register.renumber(order, self._ids.take(closing=verdict.closing))
        self._sent_id = order.order_id
        self._link.place(self._wire(order))
        self._efficiency.requests += 1
        verdict.order = replace(order, state=OrderState.SENT, sent_ns=now_ns, changed_ns=now_ns)
        self._store(verdict.order, tell=False)
        self.closes_written |= verdict.closing
        self.verdicts.append(verdict)

    def _wire(self, o: Order) -> WireOrder:
        return WireOrder(
            o.order_id, o.symbol, o.side, o.qty, _TYPES[o.order_type], o.limit_price, _TIFS.get(o.tif, "DAY"),
            bool(o.flags & IntentFlag.OUTSIDE_RTH), order_ref(o.intent_id), self._account,
        )  # fmt: skip

    def _store(self, order: Order, tell: bool = False) -> None:
        old = self._register.put(order)
        self._gate.symbol_changed(order.symbol)
        if tell:
            self._changed(old, order)

    # Cancels and replacements.

    def _cancel_intent(self, verdict: Verdict, now_ns: int) -> None:
        order = self._register.find(intent_id=int(verdict.intent[0]["target_id"]))
        self._gate.authority(now_ns)
        if order is None or not order.active:
            state = "unknown" if order is None else order.state.name
            self._refuse(verdict, Refusal.UNKNOWN_ORDER, text=f"nothing to cancel: the order is {state}")
        elif not order.own:
            self._refuse(
                verdict, Refusal.UNKNOWN_ORDER, text="placed under another client id: cancel it where it was placed"
            )
        elif not self._gate.account[0]["connected"]:
            self._refuse(verdict, Refusal.NOT_CONNECTED)
        elif not self._gate.owner_ours:
            self._refuse(verdict, Refusal.LEASE)
        else:
            verdict.order = order
            self.verdicts.append(verdict)
            self.cancel([order], now_ns)

    def cancel(self, orders: Iterable[Order], now_ns: int, *, patient: bool = False) -> int:
        """Ask for cancels of own living orders, ahead of everything else; returns how many. ``patient``: nobody asks
        anew, so one that the broker keeps refusing waits its time, and is not repeated for ever."""
        count = 0
        for order in orders:
            if not order.active or not order.own:
                continue
            if not order.cancel_wanted:
                order = replace(order, cancel_wanted=True)
                self._store(order)
            if order.state == OrderState.PENDING:
                continue  # it has not left: its cancel follows it
            if order.state == OrderState.PENDING_CANCEL and now_ns - order.cancel_sent_ns < CANCEL_AGAIN_NS:
                continue
            if order.intent_id in self._cancelling:
                continue
            sent = self._cancels.get(order.intent_id, 0)
            if patient and sent and (sent >= CANCELS or now_ns - order.cancel_sent_ns <= cancel_after_ns(sent)):
                continue
            if sent >= CANCELS:
                del self._cancels[order.intent_id]
                self._given_up.discard(order.intent_id)  # asked anew by somebody: told anew if that is in vain too
            count += 1
            self._cancelling.add(order.intent_id)
            self._governor.submit(Priority.URGENT, self._canceller(order.intent_id), -math.inf)
        return count

    def cancel_again(self, now_ns: int) -> int:
        """Cancels that were wanted and got lost, with a link or before an order had left, or that the broker refused;
        returns how many."""
        if self._cancels:
            living = {o.intent_id for o in self._register.active() if o.active}
            self._cancels = {k: v for k, v in self._cancels.items() if k in living}
            self._given_up &= living
        wanted = [o for o in self._register.active() if o.cancel_wanted and o.own and self._lives_on(o)]
        for order in wanted:
            if self._cancels.get(order.intent_id, 0) >= CANCELS and order.intent_id not in self._given_up:
                self._given_up.add(order.intent_id)
                self.gave_up(order)
        return self.cancel([o for o in wanted if now_ns - o.cancel_sent_ns > CANCEL_AGAIN_NS], now_ns, patient=True)

    @staticmethod
    def _lives_on(order: Order) -> bool:
        """Has the broker it, without a cancel under way?"""
        if order.parked:
            return order.state == OrderState.UNKNOWN and not order.question_ns
        return order.state in (OrderState.WORKING, OrderState.PARTIAL)

    def _count_cancel(self, order: Order) -> None:
        """Repeats don't count as requests of the day: they say nothing about how the strategy trades."""
        self._cancels[order.intent_id] = self._cancels.get(order.intent_id, 0) + 1
        self._efficiency.requests += not order.cancel_sent_ns

    def _canceller(self, intent_id: int) -> Callable[[int], None]:
        def send(now_ns: int) -> None:
            self._cancelling.discard(intent_id)
            order = self._register.find(intent_id=intent_id)
            if order is None or not order.active or not self._gate.owner_ours or not self.connected:
                return  # ``cancel_again`` asks when it may and can
            self._link.cancel(order.order_id)
            self.cancels_written += 1
            self._count_cancel(order)
            self._store(life.on_cancel_sent(order, now_ns), tell=True)

        return send

    def global_cancel(self, now_ns: int) -> None:
        """Everything in the account, in one message. Our own orders are asked for again if that message can't leave."""
        for order in self._register.active():
            if order.own and order.state != OrderState.PENDING and not order.cancel_wanted:
                self._store(replace(order, cancel_wanted=True))

        def send(t_ns: int) -> None:
            if not self._gate.owner_ours or not self.connected:
                return
            self._link.global_cancel()
            self.cancels_written += 1
            for order in self._register.active():
                if order.state != OrderState.PENDING:
                    self._count_cancel(order)
                    self._store(life.on_cancel_sent(order, t_ns), tell=True)

        self._governor.submit(Priority.URGENT, send, -math.inf)

    def _replace_intent(self, verdict: Verdict, now_ns: int) -> None:
        i = verdict.intent[0]
        order = self._register.find(intent_id=int(i["target_id"]))
        if order is None or not order.active or not order.own or order.order_type != OrderType.LMT:
            self._refuse(
                verdict, Refusal.UNKNOWN_ORDER, text="nothing to replace: no living limit order of ours has that id"
            )
            return
        if order.state not in (OrderState.WORKING, OrderState.PARTIAL) or not math.isnan(order.next_qty):
            self._refuse(
                verdict, Refusal.UNKNOWN_ORDER, text=f"the order is {order.state.name}: wait for its last change"
            )
            return
        qty, limit = float(i["qty"]), float(i["limit_price"])
        if qty <= order.filled:
            self._refuse(
                verdict, Refusal.QUANTITY, qty, order.filled + 1, f"{order.filled:.0f} shares are filled already"
            )
            return
        # The gate judges what would then be open, as if the old order were gone.
        f = self._gate.facts[order.symbol]
        saved = f.copy()
        name = "buy" if order.side > 0 else "sell"
        f[f"working_{name}"] -= order.remaining
        f[f"active_{name}"] -= 1
        trial = verdict.intent.copy()
        trial["symbol"], trial["side"], trial["qty"] = order.symbol, order.side, qty - order.filled
        trial["order_type"], trial["limit_price"] = int(OrderType.LMT), limit
        asked = Verdict(trial)
        code = self._ask(asked, now_ns)
        self._gate.facts[order.symbol] = saved
        verdict.gate_ns, verdict.gated_ns = asked.gate_ns, asked.gated_ns
        priority = Priority.URGENT if self._out[2] else Priority.ORDER
        if code:
            self._refuse(verdict, Refusal(code), float(self._out[0]), float(self._out[1]))
        elif priority == Priority.ORDER and not self._efficiency.left:
            self._refuse(verdict, Refusal.ORDER_EFFICIENCY, self._efficiency.ratio, self._efficiency.limit)
        elif not self._governor.spend(priority, now_ns):
            self._refuse(verdict, Refusal.MESSAGE_RATE, limit=float(self._gate.account[0]["rate_per_s"]))
        else:
            self._link.place(self._wire(replace(order, qty=qty, limit_price=limit)))
            self._efficiency.requests += 1
            self._register.alias(int(i["intent_id"]), order)
            changed = life.on_replace_sent(order, qty, limit, now_ns)
            self._store(changed)
            verdict.order = changed
            self.verdicts.append(verdict)

    def abandon(self, now_ns: int) -> None:
        """The link is gone: what waits for budget will never leave."""
        self._entries.clear()
        self._cancelling.clear()
        self._cancels.clear()
        self._given_up.clear()
        self._governor.drop(Priority.URGENT)
        self._governor.drop(Priority.ORDER)
        for order in self._register.active():
            if order.state == OrderState.PENDING:
                intent = np.zeros(1, INTENT)
                intent["intent_id"], intent["source"], intent["symbol"] = order.intent_id, order.source, order.symbol
                self._withdraw(Verdict(intent, order=order), Refusal.NOT_CONNECTED, now_ns)
