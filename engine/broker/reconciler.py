"""Our books against the broker's: readings after every connect and on demand, comparison, the day's opening.

What is compared and judged is decided by ``engine.risk.reconcile``; this file collects and applies.
"""

from __future__ import annotations

from dataclasses import replace

from engine.broker import orders as life
from engine.broker import statefile, sync
from engine.broker.books import Books
from engine.broker.orders import Order
from engine.broker.statefile import BridgeState
from engine.broker.sync import Part, Reading
from engine.domain.codes import EventKind, OrderState, Severity
from engine.risk import reconcile

REREAD_NS = 500_000_000
"""After a comparison that failed: fills may still be under way."""
COMPARISONS = 3
"""Failed in a row, this many make a mismatch."""
ABSENT_NS = 3_000_000_000
"""An order that the first list of a connection lacks is gone if one of so much later lacks it too: a gateway that has
just logged in may not have collected all of them."""
_MOST_NS = 30_000_000_000
"""A mismatch is looked at again by itself after a second, two, four and so on, at least this often."""


class Reconciler(Books):
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
        self.ends.asked(parts)
        self.doubts.asked(self.register.active(), now_ns)
        self.reading = reading
        self.read_ns = now_ns
        self.reread_ns = 0
        return reading

    def finish(self, now_ns: int) -> bool:
        """The reading is complete: books, comparison, snapshot. True if ours and the broker's agree or are judged."""
        reading, self.reading = self.reading, None
        assert reading is not None
        listed = set()
        foreign = 0
        for news in reading.open_orders:
            order = self._of_row(news)
            if order is not None:
                listed.add(order.intent_id)
                self.absent.pop(order.intent_id, None)
            else:
                foreign += 1
        if not reading.parts & Part.EXECUTIONS:
            return self._looked(reading, listed, now_ns)
        for order in self.register.active():
            self.executions(order, now_ns)
            current = self.register.by_intent[order.intent_id]
            if current.intent_id not in listed:
                current = self._missing(current, reading.begin_ns, now_ns)
            self._put(life.on_reading(current, reading.begin_ns))
        for symbol in range(len(self._instruments)):
            self.gate.broker_qty[symbol] = reading.positions.get(symbol, 0.0)
        if not self.opened:
            self._open_day(reading, now_ns)
        for symbol in range(len(self._instruments)):
            self.cells.broker_position(symbol, reading.positions.get(symbol, 0.0), now_ns)
        self._snapshot(reading, len(listed) if not self._dedicated else len(listed) + foreign, foreign, now_ns)
        return self._compare(reading, now_ns)

    def _looked(self, reading: Reading, listed: set[int], now_ns: int) -> bool:
        """Without executions nothing is decided: what differs is read again with them, at once."""
        self._outside(reading)
        ours = [h.qty for h in self.accounts.holdings]
        active = self.register.active()
        if (
            any(o.intent_id not in listed or o.unbooked > reconcile.TOLERANCE for o in active)
            or self.mismatch
            or reconcile.mismatches(ours, reading.positions)
        ):
            self.reread_ns = now_ns
            return True
        for symbol in range(len(self._instruments)):
            self.gate.broker_qty[symbol] = reading.positions.get(symbol, 0.0)
            self.cells.broker_position(symbol, reading.positions.get(symbol, 0.0), now_ns)
        return True

    def _missing(self, order: Order, begin_ns: int, now_ns: int) -> Order:
        """Not in the list. Said if nothing has hinted at it: a message of the broker's was lost."""
        gone = life.on_missing(order, begin_ns, now_ns)
        if gone is not order and order.state != OrderState.PENDING:
            if not self.reconciled:
                self.absent.setdefault(order.intent_id, begin_ns)
            first_ns = self.absent.get(order.intent_id)
            if first_ns is not None and begin_ns - first_ns < ABSENT_NS:
                return life.on_link_lost(order, now_ns)
            self.absent.pop(order.intent_id, None)
        if order.active and not gone.active and not order.question_ns and not order.cancel_sent_ns:
            name = self._instruments[order.symbol].symbol
            self._events.emit(
                EventKind.RECONCILE, symbol=order.symbol, severity=Severity.P2, ref_id=order.intent_id,
                text=f"{name}: order {order.order_id}: ours {order.state.name}, {order.remaining:g} left; the broker "
                f"does not list it: {gone.state.name}",
            )  # fmt: skip
        return gone

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
        self._opened_date = self.date

    def _say_mismatch(self, m: reconcile.Mismatch, words: str) -> None:
        name = self._instruments[m.symbol].symbol
        # Orders whose end nobody has told are where shares that no execution explains come from.
        doubtful = [
            f"order {o.order_id} ({o.signed_qty:+g}, {o.filled:g} filled)"
            for o in self.register.by_intent.values()
            if o.symbol == m.symbol and (o.presumed or o.intent_id in self.absent)
        ]
        hint = f"; end never told: {', '.join(doubtful)}" if doubtful else ""
        self._events.emit(
            EventKind.RECONCILE, symbol=m.symbol, severity=Severity.P1, value=m.ours, limit=m.theirs,
            text=f"{name}: ours {m.ours:g}, broker {m.theirs:g}: {words}; accept the broker's figure to go on{hint}",
        )  # fmt: skip

    def _compare(self, reading: Reading, now_ns: int) -> bool:
        self._explain(reading)
        found = reconcile.mismatches([h.qty for h in self.accounts.holdings], reading.positions)
        if not found:
            self._failed = 0
            if self.live_mismatch:
                self.live_mismatch.clear()
                self._events.emit(EventKind.RECONCILE, text="positions agree again")
            self._settle()
            self._look_again(now_ns)
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
        self._look_again(now_ns)
        return True

    def _explain(self, reading: Reading) -> None:
        """Executions that came late may explain what the day began with."""
        for symbol, m in tuple(self.journal_mismatch.items()) if self.date == self._opened_date else ():
            implied = reading.positions.get(symbol, 0.0) - self.accounts.day_fills(symbol)
            if abs(implied - m.ours) > reconcile.TOLERANCE:
                continue
            del self.journal_mismatch[symbol]
            self.accounts.set_open(symbol, m.ours, self.accounts.openings()[symbol][1])
            self.dirty.add(symbol)
            self.gate.symbol_changed(symbol)
            self.save_due = True
            name = self._instruments[symbol].symbol
            text = f"{name}: executions explain the last recorded position of {m.ours:g} now"
            self._events.emit(EventKind.RECONCILE, symbol=symbol, text=text)

    def _look_again(self, now_ns: int) -> None:
        """As long as the books differ they are read again by themselves."""
        if not self.mismatch:
            self._looks = 0
            return
        self.reread_ns = now_ns + min(2 * REREAD_NS << min(self._looks, 16), _MOST_NS)
        self._looks += 1

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
        self._failed = self._looks = self.reread_ns = 0
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
        b["foreign_orders"] = foreign
        self._outside(reading)

    def _outside(self, reading: Reading) -> None:
        """Positions in contracts that are none of the instruments: in a dedicated account a person is told."""
        self.cells.broker["foreign_positions"] = len(reading.foreign)
        held = tuple(sorted(reading.foreign.values()))
        if held == self.foreign_held or not self._dedicated:
            return
        self.foreign_held = held
        text = (
            "held outside the configured symbols, unguarded; close it by hand or with `l2dash flatten --direct`: "
            f"{', '.join(held)}"
            if held
            else "nothing is held outside the configured symbols any more"
        )
        severity = Severity.P2 if held else Severity.ROUTINE
        self._events.emit(EventKind.RECONCILE, severity=severity, value=float(len(held)), text=text)

    def link_lost(self, now_ns: int) -> None:
        self.reconciled = False
        self.reading = None
        self.ends.forget()
        self.absent.clear()
        self.wanted.clear()
        self.reread_ns = 0
        self._failed = self._looks = 0
        for order in self.register.active():
            if order.state != OrderState.PENDING:
                self._put(life.on_link_lost(order, now_ns))

    def drifting(self, now_ns: int) -> bool:
        """Does a pushed position contradict ours for too long? Not while it is being read, or has been judged."""
        busy = self.reading is not None or self._failed or self.live_mismatch
        return not busy and self.cells.differences.due(now_ns)

    def roll_day(self, now_ns: int) -> bool:
        today = self._today(now_ns)
        if today == self.date:
            return False
        self._date_before, self.date = self.date if self.opened else 0, today
        self.efficiency.begin_day()
        if self.opened:
            for order in tuple(self.register.by_intent.values()):
                self._put(life.on_new_day(order))
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
