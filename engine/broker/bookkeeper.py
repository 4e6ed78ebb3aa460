"""Broker news to books: orders, executions, positions, account; reconciliation; the day.

Everything decided here is decided by pure functions (``orders``, ``accounting``, ``reconcile``); this file applies them,
and tells the world by cells, the executions ring and events.
"""

from __future__ import annotations

import math
from dataclasses import replace

from engine.broker import news as n
from engine.broker import orders as life
from engine.broker import statefile, sync
from engine.broker.cells import Cells, mode_of
from engine.broker.contracts import ContractBook
from engine.broker.facts import MODES, Gatekeeper
from engine.broker.link import BrokerLink
from engine.broker.orders import Order, Register
from engine.broker.statefile import BridgeState, OrderIds
from engine.broker.sync import Part, Reading
from engine.domain.codes import EventKind, ExecFlag, ExecKind, IntentFlag, Mode, OrderState, Severity
from engine.domain.sessions import session_date
from engine.risk import reconcile
from engine.risk.accounting import Accounts, Applied, Fill
from engine.runtime.context import Context
from engine.runtime.ids import intent_of

REREAD_NS = 500_000_000
"""After a comparison that failed: fills may still be under way."""
COMPARISONS = 3
"""Failed in a row, this many make a mismatch."""
DRIFT_NS = 5_000_000_000
"""Ours and the broker's pushed position differ for this long: compare properly."""


class Bookkeeper:
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
        self.opened = False
        """The day's opening positions are known."""
        self.reconciled = False
        self.account_ok = False
        self.account_text = "not connected yet"
        self.reading: Reading | None = None
        self.wanted: list[tuple[int, int]] = []
        """(command id, source) of snapshots asked for while another reading runs."""
        self.reread_ns = 0
        self._failed = 0
        self.journal_mismatch: dict[int, reconcile.Mismatch] = {}
        self.live_mismatch: dict[int, reconcile.Mismatch] = {}
        self.dirty: set[int] = set(range(len(self._instruments)))
        self.account_dirty = True
        self.save_due = False
        self.news_count = 0

    def _today(self, now_ns: int) -> int:
        return session_date(self._clock.wall_ns(now_ns), self._sim)

    def symbol_of(self, con_id: int, text: str) -> int:
        """Symbol number, -1 if the contract is none of ours."""
        found = self._by_con.get(con_id, -1)
        if found >= 0:
            return found
        found = self._by_text.get(text, -1)
        return found if found >= 0 and self._instruments[found].con_id in (0, con_id) else -1

    def learn_contract(self, symbol: int, con_id: int) -> None:
        if con_id:
            self._by_con[con_id] = symbol

    # Account.

    def check_account(self, accounts: tuple[str, ...]) -> None:
        """Does the gateway's account fit the configured mode and account?"""
        mode = MODES[self._config.instance.mode]
        account = self._account
        derived = mode_of(account)
        if account not in accounts:
            self.account_text = (
                f"the gateway manages {', '.join(accounts) or 'no account'}, gateway.account is {account!r}: "
                f"log in to the right account or correct gateway.account"
            )
            self.account_ok = False
        elif derived != mode:
            allowed = {
                Mode.SIM: "DUSIM…",
                Mode.PAPER: "DU… but not DUSIM…",
                Mode.LIVE: "ids that do not begin with DU",
            }[mode]
            self.account_text = (
                f"account {account} is a {derived.name.lower()} account; mode {mode.name.lower()} accepts {allowed}"
            )
            self.account_ok = False
        else:
            self.account_ok, self.account_text = True, ""
        a = self.cells.account
        a["account"] = account.encode()[:16]
        a["mode"], a["matches"] = int(derived), self.account_ok
        self.gate.account["account_ok"] = self.account_ok
        self.account_dirty = True

    def account_value(self, news: n.AccountValueNews) -> None:
        if news.account != self._account:
            return
        name = {
            "NetLiquidation": "net_liquidation_usd",
            "TotalCashValue": "cash_usd",
            "BuyingPower": "buying_power_usd",
        }.get(news.key)
        if name is None:
            return
        if news.currency != "USD":
            self.account_ok, self.account_text = (
                False,
                f"base currency is {news.currency}; only USD is supported for now",
            )
            self.cells.account["matches"] = self.gate.account["account_ok"] = False
            return
        try:
            value = float(news.value)
        except ValueError:
            return
        self.cells.account[name] = value
        if name == "buying_power_usd":
            self.gate.account[name] = value
        if name == "net_liquidation_usd":
            self.cells.account["ready"] = 1
        self.account_dirty = True

    # Orders.

    def changed(self, old: Order | None, order: Order) -> None:
        """An order is new or different: cells, gate, event."""
        self.dirty.add(order.symbol)
        self.gate.symbol_changed(order.symbol)
        if old is not None and old.acked_ns == 0 and order.acked_ns and order.sent_ns:
            self._counters.record("order_to_ack_ns", max(0, order.acked_ns - order.sent_ns))
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

    def order_status(self, news: n.OrderStatusNews, now_ns: int) -> None:
        self.cells.order_event()
        order = self._of_news(news.order_id, news.client_id, news.perm_id)
        if order is not None:
            self._put(life.on_status(order, news, now_ns))

    def _of_news(self, order_id: int, client_id: int, perm_id: int, order_ref: str = "") -> Order | None:
        own = order_id if client_id == self._config.gateway.client_id else 0
        return self.register.find(intent_id=intent_of(order_ref), order_id=own, perm_id=perm_id)

    def open_order(self, news: n.OpenOrderNews, now_ns: int) -> None:
        if news.account and news.account != self._account:
            return
        listed = self.reading is not None and bool(self.reading.waiting & Part.ORDERS)
        if listed and self.reading is not None and news.status in life.LISTED_AS_OPEN:
            self.reading.open_orders.append(news)
        if not listed:
            self.cells.order_event()
        if news.client_id == self._config.gateway.client_id and news.order_id > 0:
            self._ids.raise_to(news.order_id + 1)
        order = self._of_news(news.order_id, news.client_id, news.perm_id, news.order_ref)
        if order is not None:
            self._put(life.on_open(order, news, now_ns, listed=listed))
            return
        symbol = self.symbol_of(news.con_id, news.symbol)
        intent_id = intent_of(news.order_ref)
        if symbol < 0 or news.status not in life.LISTED_AS_OPEN or not (intent_id or self._dedicated):
            return
        own = news.client_id == self._config.gateway.client_id
        held = self.accounts.holdings[symbol].qty
        entry = held * news.side >= 0 or news.qty > abs(held)
        order = life.adopted(news, intent_id or -news.perm_id, symbol, entry, own, now_ns)
        self.register.put(order)
        self.changed(None, order)

    def order_error(self, order: Order, code: int, text: str, now_ns: int) -> None:
        self._put(life.on_error(order, code, text, now_ns))

    def executions(self, order: Order, now_ns: int) -> None:
        """Bring an order's filled quantity up to the sum of its executions."""
        qty, price = self.accounts.executed(order.intent_id)
        if qty:
            self._put(life.on_executions(order, qty, price, now_ns))

    # Executions.

    def execution(self, news: n.ExecutionNews, now_ns: int) -> None:
        replayed = news.req_id > 0
        if not replayed:
            self.cells.order_event()
        elif self.reading is not None:
            self.reading.executions += 1
        symbol = self.symbol_of(news.con_id, news.symbol)
        if symbol < 0 or news.account != self._account:
            return
        if replayed and session_date(news.t_exec_wall_ns, self._sim) != self.date:
            return  # part of the position that the day began with
        order = self._of_news(news.order_id, news.client_id, news.perm_id, news.order_ref)
        key = order.intent_id if order is not None else intent_of(news.order_ref) or -news.perm_id
        fill = Fill(news.exec_id, symbol, news.side, news.qty, news.price, news.t_exec_wall_ns, key)
        applied = self.accounts.apply(fill)
        if applied == Applied.DUPLICATE:
            return
        source = order.source if order is not None else max(0, key >> 56)
        flatten = order is not None and bool(order.flags & IntentFlag.FLATTEN)
        kind = ExecKind.FILL if applied == Applied.NEW else ExecKind.CORRECTION
        self._publish_execution(news, fill, kind, source, replayed, flatten)
        self._counters.add("executions")
        if applied == Applied.NEW:
            if not replayed:
                self.gate.executed(symbol, news.side, now_ns)
                if not flatten:
                    self.cells.account["trades"] += 1
        self.dirty.add(symbol)
        self.account_dirty = self.save_due = True
        self.gate.symbol_changed(symbol)
        self.cells.compare(symbol, now_ns)
        if order is not None:
            self.executions(order, now_ns)

    def _publish_execution(
        self, news: n.ExecutionNews, fill: Fill, kind: ExecKind, source: int, replayed: bool, flatten: bool
    ) -> None:
        flags = (ExecFlag.REPLAYED if replayed else 0) | (ExecFlag.FLATTEN if flatten else 0)
        self._executions.record[0] = (
            0, news.t_socket_ns, news.t_exec_wall_ns, fill.symbol, fill.side, int(kind), source, flags, 0,
            news.exec_id.encode()[:32], news.order_id, news.perm_id, max(0, fill.order_key), fill.qty, fill.price,
            news.cum_qty, math.nan, math.nan,
        )  # fmt: skip
        self._executions.publish_record()

    def commission(self, news: n.CommissionNews, now_ns: int) -> None:
        symbol = self.accounts.commission(news.exec_id, news.commission if news.currency in ("USD", "") else 0.0)
        if symbol < 0:
            return
        fill = self.accounts.fill_of(news.exec_id)
        assert fill is not None
        order = self.register.find(intent_id=fill.order_key)
        self._executions.record[0] = (
            0, now_ns, fill.t_exec_wall_ns, symbol, fill.side, int(ExecKind.COMMISSION),
            order.source if order is not None else 0, 0, 0, news.exec_id.encode()[:32],
            order.order_id if order is not None else 0, order.perm_id if order is not None else 0,
            max(0, fill.order_key), fill.qty, fill.price, math.nan, news.commission, news.realized_pnl,
        )  # fmt: skip
        self._executions.publish_record()
        self.dirty.add(symbol)
        self.account_dirty = True

    def position(self, news: n.PositionNews, now_ns: int) -> None:
        if news.account != self._account:
            return
        symbol = self.symbol_of(news.con_id, news.symbol)
        reading = self.reading
        if reading is not None and reading.waiting & Part.POSITIONS:
            if symbol < 0:
                reading.foreign_positions += news.qty != 0.0
            elif news.qty != 0.0:
                reading.positions[symbol], reading.costs[symbol] = news.qty, news.avg_cost
            else:
                reading.positions.pop(symbol, None)
        if symbol >= 0:
            self.gate.broker_qty[symbol] = news.qty
            self.cells.broker_position(symbol, news.qty, now_ns)
            self.dirty.add(symbol)

    # Readings.

    def begin(self, parts: Part, now_ns: int) -> Reading:
        """Ask for the books. The caller has accounted for the messages."""
        reading = sync.begin(parts, now_ns, int(self._config.gateway.request_timeout_s * 1e9))
        if parts & Part.EXECUTIONS:
            reading.executions_id = self._link.request_executions()
        if parts & Part.ORDERS:
            self._link.request_open_orders()
        if parts & Part.POSITIONS:
            self._link.request_positions()
        if parts & Part.ACCOUNT:
            self._link.request_account(self._account)
        self.reading = reading
        self.reread_ns = 0
        return reading

    def finish(self, now_ns: int) -> bool:
        """The reading is complete: books, comparison, snapshot. True if ours and the broker's agree or are judged."""
        reading, self.reading = self.reading, None
        assert reading is not None
        listed = set()
        foreign = 0
        for news in reading.open_orders:
            order = self._of_news(news.order_id, news.client_id, news.perm_id, news.order_ref)
            if order is not None:
                listed.add(order.intent_id)
            else:
                foreign += 1
        for order in self.register.active():
            self.executions(order, now_ns)
            current = self.register.by_intent[order.intent_id]
            if current.intent_id not in listed:
                self._put(life.on_missing(current, reading.begin_ns, now_ns))
        for symbol in range(len(self._instruments)):
            self.gate.broker_qty[symbol] = reading.positions.get(symbol, 0.0)
        if not self.opened:
            self._open_day(reading, now_ns)
        for symbol in range(len(self._instruments)):
            self.cells.broker_position(symbol, reading.positions.get(symbol, 0.0), now_ns)
        self._snapshot(reading, len(listed) if not self._dedicated else len(listed) + foreign, foreign, now_ns)
        return self._compare(reading, now_ns)

    def _open_day(self, reading: Reading, now_ns: int) -> None:
        """First reading of this process: what did the day begin with?"""
        record = self._recorded if self._recorded is not None and self._recorded.account == self._account else None
        wiped = self._sim and not reading.positions and not reading.executions
        today = record is not None and record.date == self.date
        for i in self._instruments:
            theirs = reading.positions.get(i.index, 0.0)
            fills = self.accounts.day_fills(i.index)
            opening = record.day_open.get(i.symbol) if record is not None and today else None
            closing = record.qty.get(i.symbol) if record is not None and not today else None
            if wiped:
                opening = closing = None  # the embedded gateway began a new life
            found = reconcile.opening(i.index, theirs, fills, opening, closing)
            cost = record.day_open_cost.get(i.symbol, 0.0) if record is not None and opening is not None else 0.0
            self.accounts.set_open(i.index, found.qty, cost or reading.costs.get(i.index, 0.0))
            if found.mismatch is not None:
                self.journal_mismatch[i.index] = found.mismatch
                self._say_mismatch(found.mismatch, "differs from the last recorded position")
            self.dirty.add(i.index)
            self.gate.symbol_changed(i.index)
        if wiped and record is not None and any((record.day_open if today else record.qty).values()):
            self._events.emit(
                EventKind.RECONCILE, severity=Severity.P2,
                text="the embedded gateway has lost its books: positions start at zero",
            )  # fmt: skip
        self.opened = self.save_due = True

    def _say_mismatch(self, m: reconcile.Mismatch, words: str) -> None:
        name = self._instruments[m.symbol].symbol
        self._events.emit(
            EventKind.RECONCILE, symbol=m.symbol, severity=Severity.P1, value=m.ours, limit=m.theirs,
            text=f"{name}: ours {m.ours:g}, broker {m.theirs:g}: {words}; accept the broker's figure to go on",
        )  # fmt: skip

    def _compare(self, reading: Reading, now_ns: int) -> bool:
        found = reconcile.mismatches([h.qty for h in self.accounts.holdings], reading.positions)
        if not found:
            self._failed = 0
            if self.live_mismatch:
                self.live_mismatch.clear()
                self._events.emit(EventKind.RECONCILE, text="positions agree again")
            self._settle()
            return True
        self._failed += 1
        if self._failed < COMPARISONS:
            self.reread_ns = now_ns + REREAD_NS
            return False
        if {m.symbol for m in found} != set(self.live_mismatch):
            for m in found:
                self._say_mismatch(m, "executions do not explain it")
        self.live_mismatch = {m.symbol: m for m in found}
        self._settle()
        return True

    def _settle(self) -> None:
        self.gate.mismatched = set(self.live_mismatch)
        for symbol in range(len(self._instruments)):
            self.gate.symbol_changed(symbol)

    @property
    def mismatch(self) -> bool:
        return bool(self.live_mismatch or self.journal_mismatch)

    def accept(self, now_ns: int) -> str:
        """The operator takes the broker's figures."""
        if not self.mismatch:
            return "positions agree with the broker's: nothing to accept"
        words = []
        for m in (*self.journal_mismatch.values(), *self.live_mismatch.values()):
            words.append(f"{self._instruments[m.symbol].symbol} {m.ours:g} -> {m.theirs:g}")
        for symbol in self.live_mismatch:
            held = self.accounts.holdings[symbol]
            theirs = self.gate.broker_qty.get(symbol, 0.0)
            self.accounts.set_open(symbol, held.day_open_qty + theirs - held.qty, held.avg_cost)
            self.cells.compare(symbol, now_ns)
            self.dirty.add(symbol)
        self.live_mismatch.clear()
        self.journal_mismatch.clear()
        self._failed = 0
        self._settle()
        self.save_due = self.account_dirty = True
        return "accepted: " + ", ".join(words)

    def _snapshot(self, reading: Reading, open_orders: int, foreign: int, now_ns: int) -> None:
        b = self.cells.broker
        mask = 0
        for symbol, qty in reading.positions.items():
            if abs(qty) > reconcile.TOLERANCE:
                mask |= 1 << symbol
        b["snapshot_id"] += 1
        b["snapshot_begin_ns"], b["snapshot_end_ns"] = reading.begin_ns, now_ns
        b["snapshot_events"] = b["order_events"]
        b["snapshot_open_orders"], b["snapshot_positions"] = open_orders, mask
        b["foreign_positions"], b["foreign_orders"] = reading.foreign_positions, foreign

    # Duties.

    def link_lost(self, now_ns: int) -> None:
        self.reconciled = False
        self.reading = None
        self.wanted.clear()
        self.reread_ns = 0
        self._failed = 0
        for order in self.register.active():
            if order.state != OrderState.PENDING:
                self._put(life.on_link_lost(order, now_ns))

    def silence(self, now_ns: int, patience_ns: int) -> bool:
        """Orders that got no answer become UNKNOWN; True if any order's fate is in question for longer."""
        asking = False
        for order in self.register.active():
            self._put(life.on_silence(order, now_ns, patience_ns))
            question = self.register.by_intent[order.intent_id].question_ns
            asking |= bool(question) and now_ns - question > 250_000_000
        return asking

    def drifting(self, now_ns: int) -> bool:
        """Does a pushed position contradict ours for too long?"""
        since = self.cells.positions["mismatch_since_ns"]
        return bool(((since > 0) & (now_ns - since > DRIFT_NS)).any()) and not self.live_mismatch

    def roll_day(self, now_ns: int) -> bool:
        today = self._today(now_ns)
        if today == self.date:
            return False
        self.date = today
        if self.opened:
            self.accounts.begin_day()
            self.dirty.update(range(len(self._instruments)))
            self.account_dirty = self.save_due = True
        return True

    def state(self) -> BridgeState:
        """What has to survive a restart."""
        names = [i.symbol for i in self._instruments]
        if not self.opened:
            base = self._recorded or BridgeState(account=self._account)
            return statefile.with_mark(base, self._ids.mark)
        held = self.accounts.holdings
        opens = self.accounts.openings()
        # A position that the operator has not accepted yet must still be a mismatch after a restart.
        last = {name: held[k].qty for k, name in enumerate(names)}
        for m in self.journal_mismatch.values():
            last[names[m.symbol]] = m.ours
        date = self.date if not self.journal_mismatch or self._recorded is None else self._recorded.date
        return replace(
            statefile.with_mark(self._recorded or BridgeState(), self._ids.mark),
            date=date,
            account=self._account,
            day_open={name: opens[k][0] for k, name in enumerate(names)},
            day_open_cost={name: opens[k][1] for k, name in enumerate(names)},
            qty=last,
        )

    def publish(self, now_ns: int) -> None:
        """Cells that have changed."""
        if self.dirty:
            self.cells.publish_positions(self.dirty, now_ns)
            self.dirty.clear()
            self.account_dirty = True
        if self.account_dirty:
            self.account_dirty = False
            self.cells.publish_account(now_ns)
