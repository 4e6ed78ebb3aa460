"""algo: signals and positions to order intents. The strategy decides; this shell knows, paces and writes.

It assumes no own orders when it starts: the bridge cancels the entries that a dead algo leaves. Its part of each
position is rebuilt from the executions that the ring still holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from engine import topology
from engine.domain.codes import (
    EventKind,
    ExecKind,
    IntentFlag,
    IntentKind,
    Mode,
    OrderState,
    OrderType,
    Severity,
    Side,
    Source,
)
from engine.risk.stops import Stops, effective
from engine.runtime.context import Context
from engine.strategy.ledger import OrderLedger, OwnPositions
from engine.strategy.pace import Pace
from engine.strategy.protocol import EXPIRY_NS, OWN_ORDERS, Cancel, Place, Purpose, Situation, Strategy
from engine.strategy.regime import NS, Parameters, RegimeStrategy
from shm.cell import CellReader
from shm.layouts import SIGNAL_VALID, SIGNAL_WARMING
from shm.ring import RingFull, RingReader

_ACCOUNT_NS = 100_000_000


class Algo:
    """The agent. See ``engine.runtime.agent.Agent``."""

    def __init__(self, ctx: Context, strategy: Strategy | None = None) -> None:
        self.ctx = ctx
        s = ctx.config.strategy
        self.strategy: Strategy = strategy or RegimeStrategy(
            Parameters(
                s.symbol_usd, s.gross_usd, s.order_usd, s.daily_stop_usd, s.min_confidence, s.entry_imbalance,
                int(s.hold_s * NS), int(s.order_ttl_s * NS), int(s.cooldown_s * NS),
            )
        )  # fmt: skip
        self.signals = ctx.ring_reader("signals", 1024)
        self._events = ctx.ring_reader("events.broker-bridge", 256)
        self._executions = ctx.ring_reader("executions", 256)
        self.orders = ctx.ring_writer("orders.algo")
        self._books = ctx.cell_reader("book")
        self.models = ctx.cell_reader("model")
        self.position_cells = ctx.cell_reader("positions")
        self._guardrails = ctx.cell_reader("guardrails")
        self._lease = ctx.cell_reader("lease")
        self._stop_cells = [ctx.cell_reader(name) for name in topology.STOP_CELLS]
        self.counters = ctx.counters
        self.stocks = [i.index for i in ctx.instruments if i.tradable and i.index != ctx.index_symbol]
        self._tick_size = {i.index: i.tick_size for i in ctx.instruments}
        self.changed: set[int] = set()
        """Symbols whose orders or own position have changed since the fused hot path took note."""
        self.ledger = OrderLedger(self.changed)
        self.own = OwnPositions(self.changed)
        self.pace = Pace()
        self.mode = Mode[ctx.config.instance.mode.upper()]
        self._stops: Stops | None = None
        self._gross_usd = math.inf
        self._pnl_usd = 0.0
        self._marks: dict[int, float] = {}
        self._session = 0
        self._stopped = False
        self._next_account = 0
        self.duties: tuple[Callable[[int], None], ...] = (self._look, self._watch)

    # -- life ---------------------------------------------------------------------------------------------------

    def on_start(self, now_ns: int) -> None:
        self.signals.skip_to_end()
        self._events.skip_to_end()
        tail = self._executions.position + self._executions.waiting
        self._executions.seek(max(0, tail - self._executions.capacity + 64))
        while self._drain_executions():
            pass
        self._look(now_ns)
        for symbol in self.stocks:
            self.own.settle(symbol, float(self.position_cells.read(symbol)["qty"]))

    def ready(self) -> bool:
        return self._stops is not None

    def lag(self) -> int:
        return self.signals.waiting + self._events.waiting + self._executions.waiting

    def wait_fds(self) -> tuple[int, ...]:
        return ()

    def on_close(self, now_ns: int) -> None:
        """Ask for the end of every own entry; exits may go on reducing."""
        for symbol in self.ledger.symbols():
            for order in self.ledger.of(symbol):
                if order.purpose == Purpose.ENTRY:
                    self._cancel(Cancel(order.intent_id, "algo stops"), symbol, now_ns)
        self.ctx.wake("broker-bridge")

    # -- work ---------------------------------------------------------------------------------------------------

    def do_work(self, now_ns: int) -> int:
        done = self._drain_events(now_ns) + self._drain_executions()
        signals = self.signals.poll()
        if len(signals):
            self.counters.add("signals", len(signals))
            newest = {symbol: i for i, symbol in enumerate(signals["symbol"].tolist())}
            for symbol, i in newest.items():
                self._decide(symbol, signals[i], now_ns)
        return done + len(signals)

    def housekeeping(self, now_ns: int) -> None:
        for duty in self.duties:
            duty(now_ns)

    def _watch(self, now_ns: int) -> None:
        """Look at what is open although nothing ticks."""
        for symbol in self.stocks:
            if self.strategy.busy(symbol) or symbol in self.ledger.symbols():
                self._decide(symbol, None, now_ns)

    def _drain_events(self, now_ns: int) -> int:
        events = self._events.poll()
        if self._events.last_gap:
            # what ended meanwhile is not known: cancels find out, an unknown order is answered as such
            for symbol in self.ledger.symbols():
                for order in self.ledger.of(symbol):
                    self._cancel(Cancel(order.intent_id, "events lost"), symbol, now_ns)
        for e in events:
            if e["source"] != Source.ALGO:
                continue
            kind = int(e["kind"])
            if kind == EventKind.ORDER_STATE:
                state = int(e["code"])
                self.ledger.on_state(int(e["ref_id"]), state, float(e["value"]))
                if state == OrderState.SENT:
                    self.pace.accepted(int(e["symbol"]))
                elif state == OrderState.REJECTED:
                    self.pace.refused(int(e["symbol"]), now_ns)
            elif kind == EventKind.REFUSED:
                symbol = self.ledger.on_refused(int(e["ref_id"]), int(e["code"]))
                if symbol >= 0:
                    self.pace.refused(symbol, now_ns)
        return len(events)

    def _drain_executions(self) -> int:
        executions = self._executions.poll()
        for x in executions:
            if x["kind"] == ExecKind.FILL:
                signed = float(x["qty"]) * int(x["side"])
                self.own.on_execution(int(x["symbol"]), signed, int(x["source"]) == Source.ALGO)
        return len(executions)

    # -- knowing ------------------------------------------------------------------------------------------------

    def _read_stops(self) -> Stops:
        cells = [c.read() for c in self._stop_cells]
        return effective(cells, [bool(c.torn[0]) for c in self._stop_cells])

    def _look(self, now_ns: int) -> None:
        if self._stops is None or any(cell.moved() for cell in self._stop_cells):
            self._stops = self._read_stops()
        if now_ns < self._next_account:
            return
        self._next_account = now_ns + _ACCOUNT_NS
        gross = pnl = 0.0
        for symbol in self.stocks:
            p, book = self.position_cells.read(symbol), self._books.read(symbol)
            mid, qty = float(book["mid"]), float(p["qty"])
            if not mid > 0:
                if qty:
                    gross = math.inf  # a position without a mark: nothing may be added
                continue
            buy, sell = self._working(symbol, p)
            gross += max(abs(qty + buy), abs(qty - sell)) * mid
            opened = float(p["day_open_qty"])
            mark = self._marks.setdefault(symbol, mid)
            pnl += float(p["cash_flow_usd"]) + qty * mid - opened * mark - float(p["commissions_usd"])
        self._gross_usd, self._pnl_usd = gross, pnl
        self._daily_stop()

    # -- the fused hot path (``engine.procs.hot_path``) ------------------------------------------------------------

    @property
    def other_rings(self) -> tuple[RingReader, RingReader]:
        """What it reads besides signals."""
        return self._events, self._executions

    @property
    def account(self) -> tuple[float, float]:
        """Gross exposure and the day's profit as the strategy sees them, USD."""
        return self._gross_usd, -math.inf if self._stopped else self._pnl_usd

    def know_stops(self) -> list[CellReader]:
        """Read the stops anew; returns the cells, whose versions say what is known."""
        self._stops = self._read_stops()
        return self._stop_cells

    def fill_cards(self, cards: npt.NDArray[np.void], orders: npt.NDArray[np.void], symbols: Iterable[int]) -> None:
        """Write what ``_situation`` knows besides the market into the cards (dtype CARD) and their working orders."""
        stops, wanted = self._stops, self.ctx.config.strategy.enabled
        for symbol in symbols:
            if symbol not in self.stocks:
                continue
            position = self.position_cells.read(symbol)
            held = float(position["qty"])
            buy, sell = self._working(symbol, position)
            clear = stops is not None and stops.entries_allowed(symbol)
            own = self.ledger.of(symbol)
            cards[symbol] = (
                1, self._tick_size[symbol], self.own.of(symbol, held), held, buy, sell, len(own), clear,
                clear and wanted,
            )  # fmt: skip
            first = symbol * OWN_ORDERS
            for i, o in enumerate(own[:OWN_ORDERS]):
                orders[first + i] = (o.intent_id, o.side, o.limit_price, o.purpose, o.sent_ns, o.cancel_ns)

    def placed_by_fused(self, intent: np.void, decision: np.void) -> None:
        """The compiled strategy has written an intent: the books take it over."""
        intent_id = self.ctx.ids.next(Source.ALGO)
        assert intent_id == intent["intent_id"]
        side, purpose = Side(int(intent["side"])), Purpose(int(decision["purpose"]))
        qty, limit = float(intent["qty"]), float(intent["limit_price"])
        self.ledger.placed(intent_id, int(intent["symbol"]), side, qty, limit, purpose, int(intent["t_intent_ns"]))
        if purpose == Purpose.ENTRY:
            self._gross_usd += qty * limit
        self.counters.add("intents")

    def _daily_stop(self) -> None:
        session = int(self._guardrails.read()["session_date"])
        if session != self._session:
            if self._session:
                self._marks.clear()
            self._session, self._stopped = session, False
        limit = self.ctx.config.strategy.daily_stop_usd
        if not self._stopped and self._pnl_usd <= -limit:
            self._stopped = True
            self.ctx.events.emit(
                EventKind.ALERT, severity=Severity.P2, source=Source.ALGO, value=self._pnl_usd, limit=-limit,
                text=f"strategy stopped for the day: {self._pnl_usd:.0f} USD after costs, its limit is {-limit:.0f}",
            )  # fmt: skip

    def _working(self, symbol: int, position: np.void) -> tuple[float, float]:
        """Shares (buy, sell) that may still fill: what the bridge counts and what it has not seen yet."""
        buy, sell, new_buy, new_sell = self.ledger.quantities(symbol)
        known_buy = float(position["working_buy_qty"]) + float(position["unknown_buy_qty"])
        known_sell = float(position["working_sell_qty"]) + float(position["unknown_sell_qty"])
        return max(known_buy + new_buy, buy), max(known_sell + new_sell, sell)

    def _situation(self, symbol: int) -> Situation:
        book, model, position = self._books.read(symbol), self.models.read(symbol), self.position_cells.read(symbol)
        held = float(position["qty"])
        buy, sell = self._working(symbol, position)
        stops = self._stops
        clear = stops is not None and stops.entries_allowed(symbol)
        valid = (
            bool(book["valid"])
            and not self._books.torn[symbol]
            and int(book["bid_rows"]) > 0
            and int(book["ask_rows"]) > 0
        )
        bid, ask = (float(book["bid_price"][0]), float(book["ask_price"][0])) if valid else (0.0, 0.0)
        return Situation(
            symbol=symbol,
            tick_size=self._tick_size[symbol],
            bid=bid,
            ask=ask,
            bid_size=float(book["bid_size"][0]),
            ask_size=float(book["ask_size"][0]),
            micro_price=float(book["micro_price"]),
            spread_median_bps=float(book["spread_median_bps"]),
            book_valid=valid and 0.0 < bid < ask,
            model_valid=bool(model["valid"]) and not self.models.torn[symbol],
            warming=bool(model["warming"]),
            regime=int(model["regime"]),
            states=int(model["states"]),
            confidence_ema=float(model["confidence_ema"]),
            qty=self.own.of(symbol, held),
            held_qty=held,
            working_buy_qty=buy,
            working_sell_qty=sell,
            gross_usd=self._gross_usd,
            day_pnl_usd=-math.inf if self._stopped else self._pnl_usd,
            entries_allowed=clear and self.ctx.config.strategy.enabled,
            exits_allowed=clear,
        )

    # -- deciding and writing -----------------------------------------------------------------------------------

    def _decide(self, symbol: int, signal: np.void | None, now_ns: int) -> None:
        orders = self.ledger.of(symbol)
        if not orders and self.pace.paused(symbol, now_ns):
            return
        situation = self._situation(symbol)
        if signal is None:
            actions = self.strategy.on_timer(situation, orders, now_ns)
        else:
            actions = self.strategy.on_signal(situation, orders, now_ns)
        for action in actions:
            if isinstance(action, Cancel):
                self._cancel(action, symbol, now_ns)
            elif signal is None or action.purpose == Purpose.EXIT or _tradable(signal):
                self._place(action, signal, now_ns)
        if actions:
            self.ctx.wake("broker-bridge")

    def _place(self, action: Place, signal: np.void | None, now_ns: int) -> None:
        # stops may have changed since housekeeping looked; the lease says whether anybody guards us at all
        stops, lease = self._read_stops(), self._lease.read()
        if not stops.entries_allowed(action.symbol) or int(lease["expires_ns"]) <= now_ns or not self.pace.take(now_ns):
            return
        record = self._intent(action.symbol, now_ns, signal)
        record["kind"] = IntentKind.NEW
        record["side"] = action.side
        record["order_type"] = OrderType.LMT
        record["tif"] = action.tif
        record["flags"] = IntentFlag.REDUCE_ONLY if action.purpose == Purpose.EXIT else 0
        record["qty"] = action.qty
        record["limit_price"] = action.limit_price
        record["epoch"] = int(lease["epoch"])
        if not self._write():
            return
        intent_id = int(record["intent_id"])
        self.ledger.placed(
            intent_id, action.symbol, action.side, action.qty, action.limit_price, action.purpose, now_ns
        )
        if action.purpose == Purpose.ENTRY:
            self._gross_usd += action.qty * action.limit_price
        self.counters.add("intents")
        if signal is not None:
            self.counters.record("signal_to_intent_ns", self.ctx.clock.now_ns() - int(signal["t_signal_ns"]))

    def _cancel(self, action: Cancel, symbol: int, now_ns: int) -> None:
        if not self.pace.take(now_ns):
            return
        record = self._intent(symbol, now_ns, None)
        record["kind"] = IntentKind.CANCEL
        record["target_id"] = action.intent_id
        record["expires_ns"] = 0  # a cancel never comes too late
        if self._write():
            self.ledger.cancelling(int(record["intent_id"]), action.intent_id, now_ns)
            self.counters.add("cancels")

    def _intent(self, symbol: int, now_ns: int, signal: np.void | None) -> np.void:
        records = self.orders.record
        records[0] = np.zeros((), records.dtype)
        record: np.void = records[0]
        record["t_intent_ns"] = now_ns
        record["intent_id"] = self.ctx.ids.next(Source.ALGO)
        record["symbol"] = symbol
        record["source"] = Source.ALGO
        record["limit_price"] = math.nan
        record["expires_ns"] = now_ns + EXPIRY_NS
        record["mode"] = self.mode
        if signal is not None:
            record["t_socket_ns"] = signal["t_socket_ns"]
            record["signal_sequence"] = signal["sequence"]
        return record

    def _write(self) -> bool:
        try:
            self.orders.publish_record()
        except RingFull as error:
            self.ctx.log.error(str(error))
            return False
        return True


def _tradable(signal: np.void) -> bool:
    flags = int(signal["flags"])
    return bool(flags & SIGNAL_VALID) and not flags & SIGNAL_WARMING


def create(ctx: Context) -> Algo:
    return Algo(ctx)
