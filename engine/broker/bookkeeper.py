"""Broker news to books: what each message does to orders, executions, positions and the account.

Everything decided here is decided by pure functions (``orders``, ``accounting``); this file applies them.
"""

from __future__ import annotations

import math
from dataclasses import replace

from engine.broker import news as n
from engine.broker import orders as life
from engine.broker.cells import mode_of
from engine.broker.facts import MODES
from engine.broker.orders import Order
from engine.broker.reconciler import Reconciler
from engine.broker.sync import Part
from engine.domain.codes import EventKind, ExecFlag, ExecKind, IntentFlag, Mode, Severity
from engine.domain.sessions import session_date
from engine.risk.accounting import Applied, Fill, split_exec_id
from engine.runtime.ids import intent_of


class Bookkeeper(Reconciler):
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

    def order_status(self, news: n.OrderStatusNews, now_ns: int) -> None:
        self.cells.order_event()
        order = self._of_news(news.order_id, news.client_id, news.perm_id)
        if order is not None:
            self._put(life.on_status(order, news, now_ns))

    def open_order(self, news: n.OpenOrderNews, now_ns: int) -> None:
        if news.account and news.account != self._account:
            return
        reading = self.reading_of(Part.ORDERS)
        if reading is None:
            self.cells.order_event()
        elif news.status in life.LISTED_AS_OPEN:
            reading.open_orders.append(news)
        if news.client_id == self._config.gateway.client_id and news.order_id > 0:
            self._ids.raise_to(news.order_id + 1)
        order = self._of_row(news)
        if order is not None:
            listed_ns = reading.begin_ns if reading is not None else 0
            self._put(life.on_open(order, news, now_ns, listed_ns=listed_ns))
            if reading is not None and news.status == life.INACTIVE and self.register.by_intent[order.intent_id].active:
                reading.open_orders.append(news)  # parked: what is over stays inactive in the list for a day
            return
        symbol = self.symbol_of(news.con_id, news.symbol)
        intent_id = intent_of(news.order_ref)
        if symbol < 0 or news.status not in life.LISTED_AS_OPEN or not (intent_id or self._dedicated):
            return
        own = news.client_id == self._config.gateway.client_id
        held = self.accounts.holdings[symbol].qty
        entry = held * news.side >= 0 or news.qty > abs(held)
        twin = self.register.find(intent_id=intent_id)
        key = intent_id if intent_id and twin is None else -news.perm_id or self._nameless(news)
        order = life.adopted(news, key, symbol, entry, own, now_ns)
        if twin is not None:
            order = replace(order, text=f"a second order with the orderRef {news.order_ref}")
        self.register.put(order)
        self.changed(None, order)
        if twin is not None:
            name = self._instruments[symbol].symbol
            self._events.emit(
                EventKind.RECONCILE, symbol=symbol, severity=Severity.P2, ref_id=twin.intent_id, qty=order.signed_qty,
                text=f"{name}: permId {news.perm_id} of client {news.client_id} carries the orderRef of our order "
                f"{twin.order_id} (permId {twin.perm_id}): both count; cancel the one that is not wanted",
            )  # fmt: skip

    def order_error(self, order: Order, code: int, text: str, now_ns: int) -> None:
        self._put(life.on_error(order, code, text, now_ns))

    def execution(self, news: n.ExecutionNews, now_ns: int) -> None:
        replayed = news.req_id > 0
        if not replayed:
            self.cells.order_event()
        elif self.reading is not None and news.req_id == self.reading.executions_id:
            self.reading.executions += 1
        if news.client_id == self._config.gateway.client_id and news.order_id > 0:
            self._ids.raise_to(news.order_id + 1)
        symbol = self.symbol_of(news.con_id, news.symbol)
        if symbol < 0 or news.account != self._account:
            return
        date = self._session_of(news, replayed)
        if replayed and date not in (self.date, self._date_before):
            return  # part of the position that the day began with
        order = self._of_news(news.order_id, news.client_id, news.perm_id, news.order_ref)
        intent_id = intent_of(news.order_ref)
        named = intent_id if self.register.find(intent_id=intent_id) is None else 0  # not if that is another order
        key = order.intent_id if order is not None else named or -news.perm_id
        fill = Fill(news.exec_id, symbol, news.side, news.qty, news.price, news.t_exec_wall_ns, key)
        if date != self.date:
            self._of_former_session(news, fill, order, date, now_ns)
            return
        applied = self.accounts.apply(fill)
        if applied == Applied.DUPLICATE:
            return
        source = order.source if order is not None else max(0, key >> 56)
        flatten = order is not None and bool(order.flags & IntentFlag.FLATTEN)
        kind = ExecKind.FILL if applied == Applied.NEW else ExecKind.CORRECTION
        self._publish_execution(news, fill, kind, source, replayed, flatten)
        self._counters.add("executions")
        if applied == Applied.NEW and not replayed:
            if order is not None and order.filled == 0.0 and order.sent_ns:
                self._counters.record("order_to_fill_ns", max(0, news.t_socket_ns - order.sent_ns))
            self.gate.executed(symbol, news.side, now_ns)
            if not flatten:
                self.cells.account["trades"] += 1
        self.dirty.add(symbol)
        self.account_dirty = self.save_due = True
        self.gate.symbol_changed(symbol)
        self.cells.compare(symbol, now_ns)
        if order is not None:
            self.executions(order, now_ns)

    def _session_of(self, news: n.ExecutionNews, replayed: bool) -> int:
        """The session (YYYYMMDD) that an execution is booked to.

        A new one that comes by itself is this session's, however late. A correction is no new shares: it belongs to
        the session of what it corrects.
        """
        if self.accounts.fill_of(news.exec_id) is not None:
            return self.date
        if self.accounts.is_past(news.exec_id):
            return self._date_before
        corrects = split_exec_id(news.exec_id)[1] > 1
        return session_date(news.t_exec_wall_ns, self._sim) if replayed or corrects else self.date

    def _of_former_session(
        self, news: n.ExecutionNews, fill: Fill, order: Order | None, date: int, now_ns: int
    ) -> None:  # fmt: skip
        """A fill of the session before that was missed then, with the link away over the turn of the session, is in
        the position that the broker tells. So is what a correction of an older one has changed."""
        known = date == self._date_before
        applied = self.accounts.apply_past(fill) if known else self.accounts.note_past(fill.exec_id)
        if applied == Applied.DUPLICATE:
            return
        new = applied == Applied.NEW
        source = order.source if order is not None else max(0, fill.order_key >> 56)
        flatten = order is not None and bool(order.flags & IntentFlag.FLATTEN)
        self._publish_execution(news, fill, ExecKind.FILL if new else ExecKind.CORRECTION, source, True, flatten)
        self._counters.add("executions")
        name, what = self._instruments[fill.symbol].symbol, f"{fill.signed:+g} at {fill.price:g}"
        self._events.emit(
            EventKind.RECONCILE, symbol=fill.symbol, severity=Severity.P2, ref_id=max(0, fill.order_key),
            qty=fill.signed, price=fill.price,
            text=f"{name}: {what} of the session before was missed: the day began with it"
            if new
            else f"{name}: execution {fill.exec_id} of a former session was corrected to {what}",
        )  # fmt: skip
        self.dirty.add(fill.symbol)
        self.account_dirty = self.save_due = True
        self.gate.symbol_changed(fill.symbol)
        self.cells.compare(fill.symbol, now_ns)
        if new and order is not None:
            self._put(life.on_past_execution(order, fill.qty, fill.price, now_ns))

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
        ours = news.currency in ("USD", "")
        if not ours and news.currency not in self.currencies_told:
            self.currencies_told.add(news.currency)
            self._events.emit(
                EventKind.ALERT, severity=Severity.P2, value=news.commission,
                text=f"commission of {news.commission:g} {news.currency}: only USD is supported; commissions in "
                f"{news.currency} are missing in profit and loss",
            )  # fmt: skip
        symbol = self.accounts.commission(news.exec_id, news.commission if ours else 0.0)
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
        reading = self.reading_of(Part.POSITIONS)
        if reading is not None:
            if symbol < 0 and news.qty != 0.0:
                reading.foreign[news.con_id] = f"{news.symbol} {news.sec_type} {news.qty:+g}"
            elif symbol < 0:
                reading.foreign.pop(news.con_id, None)
            elif news.qty != 0.0:
                reading.positions[symbol], reading.costs[symbol] = news.qty, news.avg_cost
            else:
                reading.positions.pop(symbol, None)
        if symbol >= 0:
            self.gate.broker_qty[symbol] = news.qty
            self.cells.broker_position(symbol, news.qty, now_ns)
            self.dirty.add(symbol)
