"""The bridge's books: orders, holdings, and what the world is told of them. State and the ways to change it.

Three layers, each a file: ``Books`` (this one), ``Reconciler`` (the broker's books against ours, the day), and
``Bookkeeper`` (what each piece of broker news does).
"""

from __future__ import annotations

from engine.broker import orders as life
from engine.broker.cells import Cells
from engine.broker.contracts import ContractBook
from engine.broker.efficiency import Efficiency
from engine.broker.facts import Gatekeeper
from engine.broker.link import BrokerLink
from engine.broker.news import OpenOrderNews
from engine.broker.orders import Order
from engine.broker.register import Register, another, nameless
from engine.broker.repeats import Doubts
from engine.broker.statefile import BridgeState, OrderIds
from engine.broker.sync import Ends, Part, Reading
from engine.domain.codes import EventKind, OrderState, Severity, Source
from engine.domain.sessions import session_date
from engine.risk import reconcile
from engine.risk.accounting import Accounts
from engine.runtime.context import Context
from engine.runtime.ids import intent_of


class Books:
    def __init__(
        self,
        context: Context,
        link: BrokerLink,
        register: Register,
        accounts: Accounts,
        gate: Gatekeeper,
        cells: Cells,
        contracts: ContractBook,
        ids: OrderIds,
        recorded: BridgeState | None,
    ) -> None:
        config = context.config
        self._context = context
        self._config = config
        self._clock = context.clock
        self._events = context.events
        self._counters = context.counters
        self._executions = context.ring_writer("executions")
        self._link = link
        self.register, self.accounts, self.gate, self.cells = register, accounts, gate, cells
        self._contracts = contracts
        self._ids = ids
        self._recorded = recorded
        self._account = config.gateway.account
        self._dedicated = config.account_scope == "dedicated"
        self._sim = config.instance.mode == "sim"
        self._instruments = context.instruments
        self._by_text = {i.symbol: i.index for i in context.instruments}
        self._by_con = {i.con_id: i.index for i in context.instruments if i.con_id}
        self.date = self._today(self._clock.now_ns())
        limits = config.limits
        self.efficiency = Efficiency(limits.order_efficiency, limits.order_efficiency_from)
        if int(cells.broker["efficiency_date"]) == self.date:  # of the process before us
            self.efficiency.requests = int(cells.broker["order_requests"])
            self.efficiency.executed = int(cells.broker["orders_executed"])
        self.opened = False
        """The day's opening positions are known."""
        self._opened_date = 0
        self._date_before = 0
        """The session before, if its end was lived through with known positions."""
        self.reconciled = False
        self.account_ok = False
        self.account_text = "not connected yet"
        self.reading: Reading | None = None
        self.ends = Ends()
        self.doubts = Doubts()
        self.absent: dict[int, int] = {}
        """Orders that the first list of this connection lacks, by intent: when it was asked for."""
        self.read_ns = 0
        """When the last reading began."""
        self.wanted: list[tuple[int, int]] = []
        """(command id, source) of snapshots asked for while another reading runs."""
        self.reread_ns = 0
        self._failed = self._looks = 0
        self.journal_mismatch: dict[int, reconcile.Mismatch] = {}
        self.live_mismatch: dict[int, reconcile.Mismatch] = {}
        self.foreign_held: tuple[str, ...] = ()
        """What the account holds in contracts that are none of the instruments, as told last."""
        self.currencies_told: set[str] = set()
        """Other currencies in which commissions came, each told once."""
        self.dirty: set[int] = set(range(len(self._instruments)))
        self.account_dirty = True
        self.save_due = False
        self.rejected_closes = 0
        """Mask of symbols in which the broker rejected a closing order of the dead-man."""

    def _today(self, now_ns: int) -> int:
        return session_date(self._clock.wall_ns(now_ns), self._sim)

    def symbol_of(self, con_id: int, text: str) -> int:
        """Symbol number, -1 if the contract is none of ours."""
        found = self._by_con.get(con_id, -1)
        if found >= 0:
            return found
        found = self._by_text.get(text, -1)
        if found < 0 or self._instruments[found].con_id not in (0, con_id):
            return -1
        # An option or a foreign listing of the same name is another contract, once we have learnt ours.
        return found if not con_id or found not in self._by_con.values() else -1

    def reading_of(self, part: Part) -> Reading | None:
        """The reading that a row which comes now belongs to, if it is part of one."""
        reading = self.reading
        return reading if reading is not None and reading.waiting & part and self.ends.newest(part) else None

    def learn_contract(self, symbol: int, con_id: int) -> None:
        if con_id:
            self._by_con[con_id] = symbol

    def changed(self, old: Order | None, order: Order) -> None:
        """An order is new or different: cells, gate, event."""
        self.dirty.add(order.symbol)
        self.gate.symbol_changed(order.symbol)
        if order.state == OrderState.REJECTED and order.source == Source.BRIDGE:
            self.rejected_closes |= 1 << order.symbol
        if old is not None and old.acked_ns == 0 and order.acked_ns and order.sent_ns:
            self._counters.record("order_to_ack_ns", max(0, order.acked_ns - order.sent_ns))
        if old is not None and not old.filled and order.filled:
            self.efficiency.executed += 1
        same = old is not None and (old.state, old.filled, old.text, old.perm_id, old.limit_price, old.qty) == (
            order.state, order.filled, order.text, order.perm_id, order.limit_price, order.qty,
        )  # fmt: skip
        if not same:
            self.say(order)

    def say(self, order: Order, ref_id: int = 0, text: str = "") -> None:
        severity = Severity.P2 if order.state == OrderState.REJECTED else Severity.INFO
        words = text or order.text or (f"permId {order.perm_id}" if order.perm_id else "")
        self._events.emit(
            EventKind.ORDER_STATE, int(order.state), symbol=order.symbol, severity=severity, source=order.source,
            ref_id=ref_id or order.intent_id, ref2=order.order_id, value=order.filled, limit=order.limit_price,
            qty=order.signed_qty, price=order.avg_price, text=words,
        )  # fmt: skip

    def _put(self, order: Order) -> None:
        old = self.register.put(order)
        if old is not None:
            self.changed(old, order)

    def _of_news(self, order_id: int, client_id: int, perm_id: int, order_ref: str = "") -> Order | None:
        ours = client_id == self._config.gateway.client_id
        own = order_id if ours else 0
        intent_id = intent_of(order_ref)
        order = self.register.find(intent_id=intent_id, order_id=own, perm_id=perm_id)
        if order is not None and intent_id and another(order, own, perm_id, ours):
            order = self.register.find(order_id=own, perm_id=perm_id)
        return order

    def _of_row(self, news: OpenOrderNews) -> Order | None:
        """The order that an openOrder names."""
        found = self._of_news(news.order_id, news.client_id, news.perm_id, news.order_ref)
        if found is None and not intent_of(news.order_ref):
            found = self.register.by_intent.get(self._nameless(news))
            if found is not None and another(found, 0, news.perm_id, False):
                return None
        return found

    @staticmethod
    def _nameless(news: OpenOrderNews) -> int:
        terms = (news.con_id, news.symbol, news.side, news.qty, news.order_type, news.limit_price)
        return nameless(news.client_id, news.order_id, terms)

    def executions(self, order: Order, now_ns: int) -> None:
        """Bring an order's filled quantity up to the sum of its executions."""
        qty, price = self.accounts.executed(order.intent_id)
        if qty:
            self._put(life.on_executions(order, qty, price, now_ns))

    def silence(self, now_ns: int, patience_ns: int) -> bool:
        """Orders that got no answer become UNKNOWN; True if any order's fate is in question for longer."""
        asking = False
        for order in self.register.active():
            self._put(life.on_silence(order, now_ns, patience_ns))
            current = self.register.by_intent[order.intent_id]
            asked = bool(current.question_ns) and now_ns - current.question_ns > 250_000_000
            asking |= asked and self.doubts.due(current, now_ns)
        return asking

    def publish(self, now_ns: int) -> None:
        """Cells that have changed."""
        b, e = self.cells.broker, self.efficiency
        b["order_requests"], b["orders_executed"], b["efficiency_date"] = e.requests, e.executed, self.date
        if self.dirty:
            self.cells.publish_positions(self.dirty, now_ns)
            self.dirty.clear()
            self.account_dirty = True
        if self.account_dirty:
            self.account_dirty = False
            self.cells.publish_account(now_ns)
