"""The session with the gateway: connect, probe, read the books, listen. Applies ``Connectivity`` and feeds the books.

After every (re)connect: executions, open orders, positions, account, all asked for at once; compared when the last has
ended; only then is the bridge reconciled. Until then entries are blocked.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from engine.broker import news as n
from engine.broker import strict, sync
from engine.broker.bookkeeper import Bookkeeper
from engine.broker.cells import Cells
from engine.broker.connectivity import BACK, BROKEN, LOST, Connectivity
from engine.broker.contracts import ContractBook
from engine.broker.desk import Desk
from engine.broker.facts import Gatekeeper
from engine.broker.feed import Feed
from engine.broker.governor import Governor, Priority
from engine.broker.link import BrokerLink
from engine.broker.statefile import OrderIds
from engine.broker.sync import Part
from engine.domain.codes import EventKind, LinkState, Severity, Source
from engine.runtime.context import Context
from shm.counters import Counters

_QUIET = frozenset((2104, 2106, 2107, 2108, 2119, 2158, 10167, 202, 399))
_TELL_AGAIN_NS = 30_000_000_000
_DETAILS_NS, _DETAILS_MOST_NS = 2_000_000_000, 600_000_000_000
"""Contract details that do not come are asked for again after so long, twice as long each time."""
_QUESTION_NS = 500_000_000
_ADVICE = {
    326: "another program uses this client id: stop it, or change gateway.client_id",
    10197: "a competing session took the market data: log out there",
    100: "too many messages: the gateway is about to disconnect us",
    1300: "the gateway changed its socket port: correct gateway.port",
}
_PART_OF = {
    strict.ORDER_STATUS: Part.ORDERS, strict.OPEN_ORDER: Part.ORDERS, strict.EXECUTION: Part.EXECUTIONS,
    strict.POSITION: Part.POSITIONS, strict.ERROR: sync.NOTHING, strict.COMMISSION: sync.NOTHING, 0: sync.SNAPSHOT,
}  # fmt: skip
"""Messages without which the books can't be trusted, and the list in which each may be a row; 0 may be any."""
_BLIND_NS = 15_000_000_000
_FARM_DOWN, _FARM_UP = (2103, 2105, 2157), (2104, 2106, 2158)


class Session:
    def __init__(
        self,
        context: Context,
        link: BrokerLink,
        conn: Connectivity,
        books: Bookkeeper,
        desk: Desk,
        feed: Feed,
        contracts: ContractBook,
        gate: Gatekeeper,
        cells: Cells,
        governor: Governor[Callable[[int], None]],
        ids: OrderIds,
        counters: Counters,
        changed: Callable[[int], None],
    ) -> None:
        self._context = context
        self._config = context.config
        self._clock = context.clock
        self._events = context.events
        self._instruments = context.instruments
        self._link, self.conn, self._books, self._desk, self._feed = link, conn, books, desk, feed
        self._contracts, self._gate, self._cells, self._governor = contracts, gate, cells, governor
        self._ids = ids
        self._counters = counters
        self._changed = changed
        """Called when the link's state or reconciliation changed, so that stops are published at once."""
        self._chance = random.Random(context.ids.next(Source.BRIDGE))
        self._void = 0
        self._told = ("", 0)
        self._next_question_ns = 0
        self._blind = 0
        """Readings in a row that are void because of a row that can't be read."""
        self._hold_ns = 0
        """No reading before this."""
        self._unread_told: dict[int, int] = {}
        self.leaving = False
        """A planned stop: the end of the session is no news."""
        self._reading_due = False
        self._details_due: list[int] = []
        self._details_next: dict[int, tuple[int, int]] = {}
        """Symbol -> (when to ask for its details again if they have not come, how often they were asked for)."""
        self._handlers: dict[type, Callable[[Any, int], None]] = {
            n.LinkUp: self._up,
            n.LinkDown: self._down,
            n.OrderStatusNews: books.order_status,
            n.OpenOrderNews: books.open_order,
            n.OpenOrdersEnd: lambda _, t: self._ended(Part.ORDERS, t),
            n.ExecutionNews: books.execution,
            n.ExecutionsEnd: self._executions_end,
            n.CommissionNews: books.commission,
            n.PositionNews: books.position,
            n.PositionsEnd: lambda _, t: self._ended(Part.POSITIONS, t),
            n.AccountValueNews: lambda news, _: books.account_value(news),
            n.AccountEnd: lambda _, t: self._ended(Part.ACCOUNT, t),
            n.ErrorNews: self._error,
            n.TimeNews: self._time,
            n.ContractNews: self._contract,
            n.ContractEnd: lambda *_: None,
            n.MarketRuleNews: self._rule,
            n.ShortableNews: lambda news, _: gate.shortable(news.symbol, news.value),
            n.HaltNews: self._halt,
            n.DataTypeNews: self._data_type,
            n.UnreadableNews: self._unreadable,
        }

    def take(self, news: n.News, now_ns: int) -> None:
        self._handlers[type(news)](news, now_ns)

    # Connecting.

    def connect_if_due(self, now_ns: int) -> None:
        # The library greets a new session with a message of its own: it needs room, like every other.
        if not self.conn.due(now_ns) or not self._governor.spend(Priority.PROBE, now_ns):
            return
        self.conn.connecting(now_ns)
        self._publish(now_ns)
        self._link.connect(now_ns)

    def reconnect(self, now_ns: int) -> None:
        """An operator's wish: drop what is there and connect now."""
        self._link.disconnect("reconnect requested")
        while self._link.news:
            self.take(self._link.news.popleft(), now_ns)
        self.conn.hurry(now_ns)
        self.connect_if_due(now_ns)

    def _publish(self, now_ns: int) -> None:
        b = self._cells.broker
        b["link"], b["down_since_ns"] = int(self.conn.state), self.conn.down_since_ns
        b["reconciled"] = self._books.reconciled
        b["farms_down"] = len(self.conn.farms_down)
        b["probe_sent_ns"] = self.conn.probe_sent_ns
        self._gate.account["connected"] = self.conn.session and self.conn.state != LinkState.BROKER_LOST
        self._gate.account["reconciled"] = self._books.reconciled
        self._cells.publish_broker(now_ns)
        self._changed(now_ns)

    def _up(self, news: n.LinkUp, now_ns: int) -> None:
        self._governor.charge(Priority.PROBE, now_ns)  # the greeting left at an unknown time since ``connect``
        self.conn.opened(now_ns)
        self._ids.raise_to(news.next_order_id)
        self._books.check_account(news.accounts)
        self._cells.broker["server_version"] = news.server_version
        self._cells.broker["reconnects"] += 1
        self._counters.add("reconnects")
        gw = self._config.gateway
        self._tell_connectivity(
            0, f"connected to {gw.host}:{gw.port}, server version {news.server_version}", Severity.INFO
        )
        if not self._books.account_ok:
            self._tell_connectivity(0, self._books.account_text, Severity.P1)
        self._void = self._blind = self._hold_ns = 0
        self._told = ("", 0)
        self._reading_due = True
        self._details_next.clear()
        self._details_due = [i.index for i in self._instruments if self._details_old(i.index, now_ns)]
        self._publish(now_ns)
        self._read_if_due(now_ns)
        self._feed.start(now_ns)
        self._ask_details(now_ns)

    def _details_old(self, symbol: int, now_ns: int) -> bool:
        facts = self._contracts.facts[symbol]
        if facts is not None and self._clock.wall_ns(now_ns) - facts.fetched_wall_ns <= 6 * 3600 * 1_000_000_000:
            return False
        return now_ns >= self._details_next.get(symbol, (0, 0))[0]

    def _ask_details(self, now_ns: int) -> None:
        due, self._details_due = self._details_due, []
        generation = self._feed.generation
        for symbol in due:
            asked = self._details_next.get(symbol, (0, 0))[1]
            self._details_next[symbol] = now_ns + min(_DETAILS_NS << min(asked, 16), _DETAILS_MOST_NS), asked + 1

            def send(_: int, symbol: int = symbol) -> None:
                if generation == self._feed.generation:
                    self._link.request_details(symbol)

            rank = 1.0 if self._contracts.facts[symbol] is not None else -1.0  # what READY waits for goes first
            self._governor.submit(Priority.SUBSCRIPTION, send, rank)

    def refresh_details(self, now_ns: int) -> None:
        """Trading hours run out: ask anew for what is older than six hours, more and more seldom if nothing comes."""
        if self.conn.state == LinkState.UP and not self._governor.waiting:
            self._details_due = [i.index for i in self._instruments if self._details_old(i.index, now_ns)]
            self._ask_details(now_ns)

    def _down(self, news: n.LinkDown, now_ns: int) -> None:
        was_up = self.conn.session
        if not was_up and not news.refused:
            self._governor.charge(Priority.PROBE, now_ns)  # the greeting may have left
        delay_ns = self.conn.lost(now_ns, self._chance.random())
        self._governor.drop(Priority.PROBE)
        self._desk.abandon(now_ns)
        self._refuse_snapshots("the connection to the gateway is lost")
        self._books.link_lost(now_ns)
        self._feed.down(now_ns)
        self._reading_due = False
        self._publish(now_ns)
        if self.leaving:
            return
        hint = ""
        if news.refused:
            hint = "; start the gateway or correct gateway.host and gateway.port"
        elif "326" in news.reason:
            hint = f"; {_ADVICE[326]}"
        text = f"{news.reason}{hint}; next attempt in {delay_ns / 1e9:.2f} s"
        told, told_ns = self._told
        if was_up or told != news.reason or now_ns - told_ns > _TELL_AGAIN_NS:
            self._told = (news.reason, now_ns)
            self._context.log.warning("gateway not connected: %s", text)
            self._tell_connectivity(502 if news.refused else 504, text, Severity.P2)

    def _tell_connectivity(self, code: int, text: str, severity: Severity) -> None:
        self._events.emit(EventKind.CONNECTIVITY, code, severity=severity, text=text)

    # Probing.

    def probe_if_due(self, now_ns: int) -> None:
        if self.conn.mute(now_ns, self._link.last_message_ns):
            silent = (now_ns - self._link.last_message_ns) / 1e9
            self._link.disconnect(f"the gateway has been mute for {silent:.1f} s although it was asked for the time")
            return
        if self.conn.probe_due(now_ns) and self._governor.spend(Priority.PROBE, now_ns):
            self._link.probe()
            self._link.flush()
            self.conn.probe_left(self._clock.now_ns())
            self._cells.broker["probe_sent_ns"] = self.conn.probe_sent_ns
            self._cells.publish_broker(now_ns)

    def _time(self, news: n.TimeNews, now_ns: int) -> None:
        rtt = self.conn.probe_answered(news.t_socket_ns)
        if rtt:
            self._counters.record("rtt_ns", rtt)
            self._cells.round_trip(rtt)
        # The gateway's time has whole seconds: its middle is the best guess.
        wall = self._clock.wall_ns(news.t_socket_ns)
        self._cells.broker["clock_offset_ns"] = news.epoch_s * 1_000_000_000 + 500_000_000 - wall
        self._cells.broker["probe_sent_ns"] = 0

    # Reading the books.

    def want_reading(self) -> None:
        """Some order's fate or a position is in question: read the books when the budget allows."""
        self._reading_due = True

    def want_reading_once(self, now_ns: int) -> None:
        """The same, at most every half second: what is in question may need another look."""
        if now_ns >= self._next_question_ns:
            self._next_question_ns = now_ns + _QUESTION_NS
            self._reading_due = True

    def snapshot(self, command_id: int = 0, source: int = 0) -> None:
        """Read the books for somebody; the answer follows as COMMAND_RESULT if ``command_id`` is given."""
        self._books.wanted.append((command_id, source))

    def _refuse_snapshots(self, why: str) -> None:
        """Nobody shall wait for an answer that can't come."""
        books = self._books
        waiting, books.wanted = books.wanted, []
        if books.reading is not None:
            waiting, books.reading.commands = waiting + books.reading.commands, []
        for command_id, source in waiting:
            if command_id:
                text = f"snapshot refused: {why}"
                self._events.emit(EventKind.COMMAND_RESULT, 1, source=source, ref_id=command_id, text=text)
            else:
                books.wanted.append((command_id, source))

    def _read_if_due(self, now_ns: int) -> None:
        books = self._books
        if not self.conn.session or self.conn.state == LinkState.BROKER_LOST or books.reading is not None:
            return
        if not books.account_ok or now_ns < self._hold_ns:
            return  # the wrong account's books are none of ours
        due = self._reading_due or bool(books.wanted) or (books.reread_ns and now_ns >= books.reread_ns)
        parts = sync.SNAPSHOT if books.reconciled else sync.FULL
        if not due and books.reconciled:
            due, parts = sync.look_due(books.read_ns, books.register.active_count > 0, now_ns), sync.LOOK
        count = parts.bit_count()
        if not due or self._governor.room(Priority.PROBE, now_ns) < count:
            return
        for _ in range(count):
            self._governor.spend(Priority.PROBE, now_ns)
        self._reading_due = False
        reading = books.begin(parts, now_ns)
        reading.commands, books.wanted = books.wanted, []

    def read_books(self, now_ns: int) -> None:
        """Begin a reading that is due; void one that is late."""
        reading = self._books.reading
        if reading is not None and reading.late(now_ns):
            self._void += 1
            self._books.reading = None
            self._books.wanted += reading.commands
            self._reading_due = True
            within = f"{self._config.gateway.request_timeout_s:g} s"
            text = f"the gateway did not finish its answer ({reading.missing}) within {within}"
            self._tell_connectivity(0, text, Severity.P2)
            if self._void >= 2:
                self._link.disconnect(f"{text}, twice")
                return
        self._read_if_due(now_ns)

    def _unreadable(self, news: n.UnreadableNews, now_ns: int) -> None:
        """Something was said and is lost. In a list, a row that is missing would pass for something that is gone."""
        part = _PART_OF.get(news.message)
        reading = self._books.reading
        words = "nothing in the books depends on it"
        if part is not None:
            self._cells.order_event()
            self._reading_due = True
            words = "the books are read again"
        if part is not None and reading is not None and reading.waiting & part:
            self._books.reading = None
            self._books.wanted += reading.commands
            self._blind += 1
            self._hold_ns = now_ns + min(_QUESTION_NS << (self._blind - 1), _BLIND_NS)
            words = "the list it belongs to is void, and read again"
            if self._blind > 1:
                self._refuse_snapshots(f"a row of the broker's books can't be read ({news.name})")
        elif part is not None:
            self._hold_ns = max(self._hold_ns, self._books.read_ns + _QUESTION_NS)
        told_ns = self._unread_told.get(news.message)
        if told_ns is None or now_ns - told_ns > _TELL_AGAIN_NS:
            self._unread_told[news.message] = now_ns
            self._tell_connectivity(news.message, f"{news.name} can't be read ({news.why}); {words}", Severity.P2)

    def _executions_end(self, news: n.ExecutionsEnd, now_ns: int) -> None:
        reading = self._books.reading
        if reading is not None and news.req_id == reading.executions_id:
            self._ended(Part.EXECUTIONS, now_ns)

    def _ended(self, part: Part, now_ns: int) -> None:
        ours, reading = self._books.ends.came(part), self._books.reading
        if not ours or reading is None or not reading.end(part):
            return
        self._void = self._blind = 0
        agreed = self._books.finish(now_ns)
        for command_id, source in reading.commands:
            if command_id:
                b = self._cells.broker
                text = f"snapshot {int(b['snapshot_id'])}: {int(b['snapshot_open_orders'])} open orders"
                self._events.emit(EventKind.COMMAND_RESULT, 0, source=source, ref_id=command_id, text=text)
        if agreed and not self._books.reconciled and self._books.account_ok:
            self._books.reconciled = True
            self.conn.synced()
            self._events.emit(
                EventKind.RECONCILE, text="executions, orders and positions read and compared: reconciled"
            )
        self._publish(now_ns)
        self._context.wake("watchdog")

    # Contracts and slow data.

    def _contract(self, news: n.ContractNews, now_ns: int) -> None:
        if news.symbol < 0:
            return
        rule = self._contracts.learn(news, self._clock.wall_ns(now_ns))
        self._details_next.pop(news.symbol, None)
        self._books.learn_contract(news.symbol, news.con_id)
        self._link.qualify(news.symbol, news.con_id, news.primary_exchange)
        self._gate.contract_changed(news.symbol)
        self._gate.sessions(self._clock.wall_ns(now_ns))
        if rule:
            self._governor.submit(Priority.SUBSCRIPTION, lambda _: self._link.request_market_rule(rule), -2.0)

    def _rule(self, news: n.MarketRuleNews, now_ns: int) -> None:
        for symbol in self._contracts.learn_rule(news):
            self._gate.contract_changed(symbol)

    def _halt(self, news: n.HaltNews, now_ns: int) -> None:
        self._gate.halted(news.symbol, news.halted)
        self._feed.halt(news.symbol, news.halted, now_ns)

    def _data_type(self, news: n.DataTypeNews, now_ns: int) -> None:
        if news.kind != 1 and news.symbol >= 0:
            name = self._instruments[news.symbol].symbol
            text = f"{name}: delayed or frozen data (type {news.kind}): check the market-data subscription"
            self._events.emit(EventKind.ALERT, news.kind, symbol=news.symbol, severity=Severity.P2, text=text)

    # Errors.

    def _error(self, news: n.ErrorNews, now_ns: int) -> None:
        code = news.code
        if news.symbol >= 0:
            self._line_error(news, now_ns)
        elif news.ref > 0:
            order = self._books.register.find(order_id=news.ref)
            if order is not None:
                self._books.order_error(order, code, news.text, now_ns)
                self._cells.order_event()
            elif code not in _QUIET:
                self._tell_connectivity(code, f"{code} {news.text} (id {news.ref})", Severity.P2)
        elif code in (LOST, BROKEN):
            self._refuse_snapshots(f"the gateway has lost the broker ({code})")
            self._broker_lost(code, now_ns)
            self._tell_connectivity(code, news.text, Severity.P2)
            self._publish(now_ns)
        elif code in BACK:
            if code == 1101:
                self._feed.start(now_ns)
            self._broker_lost(LOST, now_ns)  # what is back was gone, whether that was said or not
            self._broker_back(code, now_ns)
            self._tell_connectivity(code, news.text, Severity.INFO)
            self._publish(now_ns)
        elif code in _FARM_DOWN or code in _FARM_UP:
            farm = news.text.rpartition(":")[2] or str(code)
            known = farm in self.conn.farms_down
            if code in _FARM_DOWN:
                self.conn.farms_down.add(farm)
                if code == 2103:
                    self._feed.doubt(now_ns)
            else:
                self.conn.farms_down.discard(farm)
                if code == 2104 and self.conn.lost_code == BROKEN:
                    self._broker_back(code, now_ns)
                elif known and code == 2104:
                    self._feed.suspect(now_ns)
            if known or code in _FARM_DOWN:
                self._tell_connectivity(code, news.text, Severity.P2 if code in _FARM_DOWN else Severity.INFO)
            self._publish(now_ns)
        elif code not in _QUIET:
            advice = _ADVICE.get(code, "")
            severity = Severity.P1 if code == 100 else Severity.P2 if advice or code < 2000 else Severity.INFO
            self._tell_connectivity(code, f"{code} {news.text}{': ' + advice if advice else ''}", severity)

    def _broker_lost(self, code: int, now_ns: int) -> None:
        """Nothing that the gateway says of orders and positions is new from now on."""
        self.conn.broker_lost(now_ns, code)
        self._feed.doubt(now_ns)
        books = self._books
        books.reconciled = False
        books.absent.clear()
        if books.reading is not None:
            books.wanted += books.reading.commands
        books.reading = None

    def _broker_back(self, code: int, now_ns: int) -> None:
        self._feed.suspect(now_ns)
        if self.conn.broker_back(code):
            self._reading_due = True

    def _line_error(self, news: n.ErrorNews, now_ns: int) -> None:
        name = self._instruments[news.symbol].symbol
        if news.line == "details":
            text = f"{name}: the broker does not know this contract ({news.code} {news.text}): correct universe.stocks"
        else:
            if news.code in _QUIET:
                return
            if news.code == 317:
                self._counters.add("resyncs")
            if news.code == 316:
                self._gate.halted(news.symbol, True)
            words = self._feed.error(news, now_ns)
            text = f"{name}: {words}" if words else ""
        if text:
            self._events.emit(EventKind.ALERT, news.code, symbol=news.symbol, severity=Severity.P2, text=text)
