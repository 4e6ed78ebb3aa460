"""Drives the flatten machine through the bridge: cells in, commands and intents out, its state on disk."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from engine import topology
from engine.domain.codes import (
    ONE_SYMBOL,
    CommandKind,
    EventKind,
    FlattenState,
    IntentFlag,
    IntentKind,
    OrderState,
    OrderType,
    Severity,
    Source,
    TimeInForce,
)  # fmt: skip
from engine.domain.instruments import ALL_SYMBOLS
from engine.procs.watchdog_parts.cells import Senses
from engine.procs.watchdog_parts.later import LateFiles
from engine.risk import flatten as fl
from engine.risk import latch as latches
from engine.risk.guardrails import kernels as k
from engine.runtime.context import Context
from shm.ring import Records, RingFull

FILE = "flatten.json"
VERDICT_NS = 5_000_000_000
"""An intent without a verdict for this long has none coming: the snapshot tells what became of it."""

LOOK_NS = 10_000_000
"""How often an idle driver looks at the bridge's news and at whether the account is still flat."""

# Plain numbers: a flag of an enumeration costs more than the rest of a record.
_NEW, _WATCHDOG, _DAY = int(IntentKind.NEW), int(Source.WATCHDOG), int(TimeInForce.DAY)
_MARKET, _LIMIT = int(OrderType.MKT), int(OrderType.LMT)
_CLOSE = int(IntentFlag.REDUCE_ONLY | IntentFlag.FLATTEN)
_CLOSE_OUTSIDE = _CLOSE | int(IntentFlag.OUTSIDE_RTH)

_SPARE = (0,)


@dataclass(slots=True)
class _Own:
    """One of the watchdog's own closes, without a verdict yet."""

    symbol: int
    signed: float
    sent_ns: int


class Flattening:
    """At most one flatten at a time; it ends only flat."""

    def __init__(self, ctx: Context, senses: Senses, files: LateFiles, epoch: Callable[[], int]) -> None:
        self._ctx, self._senses, self._files, self._epoch = ctx, senses, files, epoch
        self._counters = ctx.counters
        self._config = fl.FlattenConfig()
        self._cell = ctx.cell_writer("flatten")
        self._orders = ctx.ring_writer("orders.watchdog")
        self._commands = ctx.ring_writer("commands.watchdog")
        self._news = ctx.ring_reader("events.broker-bridge")
        self._own: dict[int, _Own] = {}
        self._rejected = 0
        self._path = ctx.state_dir / FILE
        self._boot = latches.boot_id()
        self._written: fl.Flatten | None = None
        self.state = self._published = fl.Flatten()
        self.flat_since_ns = 0
        self.symbol_flat_since_ns = 0
        """The symbols of a flatten of single ones are confirmed flat; the account is not."""
        self._seen = (0, 0)  # number of a snapshot, and the executions in scope when it was first seen
        self.flat_lost = False
        """Flat had been confirmed, and something is held or works again."""
        self._next_look_ns = 0
        self.symbol_flat_lost = False
        """The same of the symbols of a flatten of single ones."""
        self.paused_for_takeover = False

    def load(self, now_ns: int, kill_id: int) -> None:
        """Continue what a predecessor began, or remember that it has confirmed flat since the KILL of ``kill_id``.

        While KILL holds (``kill_id`` not 0) a file that can't be read means: get flat. No file means that none began.
        """
        self._load_file(now_ns, kill_id)
        left = int(self._cell.value[0]["state"])
        if not self.active and kill_id and left not in (FlattenState.IDLE, FlattenState.FLAT):
            # Memory is ahead of a disk that was full.
            self.start("continued after a restart: its file was not written", Source.WATCHDOG, now_ns)

    def _load_file(self, now_ns: int, kill_id: int) -> None:
        symbols = len(self._senses.names)
        try:
            state = fl.loads(self._path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError) as error:
            if kill_id:
                self.start(f"{self._path} can't be read ({error}) and KILL holds", Source.WATCHDOG, now_ns)
            return
        if state.active and len(state.retry_ns) == symbols:
            self.state = replace(fl.resume(state, now_ns, symbols), boot_id=self._boot)
            self._event(f"continued after a restart: {state.reason}", now_ns)
            self._publish()
        elif state.active:
            self.start(f"continued with other symbols: {state.reason}", Source.WATCHDOG, now_ns)
        elif state.state == FlattenState.FLAT and state.boot_id == self._boot:
            if self._narrow(state):
                self.state, self.symbol_flat_since_ns = state, state.flat_ns
            elif state.flat_ns >= kill_id > 0:
                self.state, self.flat_since_ns = state, state.flat_ns
            self._publish()

    @property
    def active(self) -> bool:
        return self.state.active

    def start(
        self, reason: str, source: int, now_ns: int, *, cause_ns: int = 0, flatten_id: int = 0, scope: int = -1,
        excused: int = 0, excused_foreign: int = 0,
    ) -> int:  # fmt: skip
        """Begin, unless one is running (of at least that scope). Returns the id of the running one.

        ``excused``: symbols that an operator has said he keeps, ``excused_foreign``: positions outside them."""
        if self.active:
            wider = self.state.scope | (scope if scope >= 0 else (1 << len(self._senses.names)) - 1)
            if wider != self.state.scope:
                self.state = fl.start(
                    self.state.flatten_id, len(self._senses.names), source=source, reason=reason,
                    cause_ns=cause_ns, now_ns=now_ns, scope=wider, boot_id=self._boot,
                )  # fmt: skip
            return self.state.flatten_id
        self.state = fl.start(
            flatten_id or now_ns, len(self._senses.names), source=source, reason=reason[:160], cause_ns=cause_ns,
            now_ns=now_ns, scope=scope, boot_id=self._boot,
        )  # fmt: skip
        if excused or excused_foreign:
            self.state = fl.excuse(self.state, excused, excused_foreign)
        self.flat_since_ns = self.symbol_flat_since_ns = 0
        self.flat_lost = self.symbol_flat_lost = False
        self._counters.add("flattens")
        self._event(f"started: {reason}", now_ns)
        return self.state.flatten_id

    def step(self, now_ns: int, can_send: bool) -> None:
        """Read the news, advance the machine, carry out what it asks for."""
        if self.paused_for_takeover and not self.state.active:
            return  # the bridge's cells are a dead man's: the hand that acts in its place reads the account
        if not self.state.active:
            if now_ns >= self._next_look_ns:
                self._next_look_ns = now_ns + LOOK_NS
                self._drain(now_ns)
                self._watch_flat(now_ns)
            return
        self._drain(now_ns)
        if self.paused_for_takeover:
            if self.state is not self._published:  # begun while another hand acts: a successor must know of it
                self._publish()
            return
        # A close is sized by what is known now, not a cycle ago: the broker's cell first, so that no snapshot is newer
        # than the positions it is taken to confirm.
        self._senses.broker.refresh()
        self._senses.refresh_market()
        before = self.state
        self.state, actions = fl.step(self.state, self.view(can_send), now_ns, self._config)
        self._rejected = 0
        if actions:
            self._carry_out(actions, now_ns)
        if self.state != before:
            if self.state.state != before.state:
                self._event(self._words(), now_ns)
            self._publish()

    def view(self, can_send: bool) -> fl.View:
        senses = self._senses
        n = len(senses.names)
        positions, books = senses.positions.value, senses.books.value
        b = senses.broker.value[0]
        qty = positions["qty"].tolist()
        theirs, differ = positions["broker_qty"].tolist(), positions["mismatch_since_ns"].tolist()
        buys = (positions["working_buy_qty"] + positions["unknown_buy_qty"]).tolist()
        sells = (positions["working_sell_qty"] + positions["unknown_sell_qty"]).tolist()
        busy = sum(1 << i for i in positions["working_orders"].nonzero()[0].tolist())
        for own in self._own.values():
            busy |= 1 << own.symbol
            side = buys if own.signed > 0 else sells
            side[own.symbol] += abs(own.signed)
        bids, asks = books["bid_price"][:, 0].tolist(), books["ask_price"][:, 0].tolist()
        halted = 0
        for i, flags in enumerate(senses.table[:, k.FLAGS].tolist()):
            if int(flags) & k.HALTED:
                halted |= 1 << i
        view = fl.View(
            qty=tuple(qty),
            closing=tuple(sells[i] if qty[i] > 0 else buys[i] for i in range(n)),
            bid=tuple(x if x > 0 else math.nan for x in bids),
            ask=tuple(x if x > 0 else math.nan for x in asks),
            halted=halted,
            open_orders=senses.working(),
            undecided=len(self._own),
            busy=busy,
            rejected=self._rejected,
            order_events=int(b["order_events"]),
            snapshot_id=int(b["snapshot_id"]),
            snapshot_begin_ns=int(b["snapshot_begin_ns"]),
            snapshot_end_ns=int(b["snapshot_end_ns"]),
            snapshot_events=int(b["snapshot_events"]),
            snapshot_open_orders=int(b["snapshot_open_orders"]),
            snapshot_positions=int(b["snapshot_positions"]),
            last_close_sent_ns=int(b["last_close_sent_ns"]),
            regular_hours=senses.regular_hours,
            can_send=can_send,
            foreign=senses.foreign(),
            theirs=tuple(theirs[i] if differ[i] else qty[i] for i in range(n)),
        )
        return self._narrowed(view) if self._narrow(self.state) else view

    def _narrow(self, state: fl.Flatten) -> bool:
        """A flatten of single symbols?"""
        return 0 < state.scope < (1 << len(self._senses.names)) - 1

    def _scope(self) -> list[int]:
        return [i for i in range(len(self._senses.names)) if self.state.scope >> i & 1]

    def _narrowed(self, view: fl.View) -> fl.View:
        """The other symbols trade on: their orders and events are none of a flatten of single symbols.

        The bridge puts its orders right by a snapshot before it tells it, so they stand for what the snapshot showed.
        """
        positions, scope = self._senses.positions.value, self._scope()
        working, events = int(positions["working_orders"][scope].sum()), int(positions["executions"][scope].sum())
        if view.snapshot_id != self._seen[0]:
            self._seen = (view.snapshot_id, events)
        return replace(
            view, open_orders=working, snapshot_open_orders=working, order_events=events, snapshot_events=self._seen[1]
        )

    def _cancel_all(self, now_ns: int) -> None:
        if not self._narrow(self.state):
            self.command(CommandKind.CANCEL_ALL, now_ns, wake=False)
            return
        for symbol in self._scope():
            self.command(CommandKind.CANCEL_ALL, now_ns, wake=False, symbol=symbol)

    def _drain(self, now_ns: int) -> None:
        """Verdicts on the watchdog's own closes."""
        events = self._news.poll()
        while len(events):
            if self._own:
                for event in events:
                    self._verdict(int(event["kind"]), int(event["code"]), int(event["ref_id"]))
            events = self._news.poll()
        for intent_id, own in list(self._own.items()):
            if now_ns - own.sent_ns >= VERDICT_NS:
                del self._own[intent_id]

    def _verdict(self, kind: int, code: int, intent_id: int) -> None:
        own = self._own.get(intent_id)
        if own is None:
            return
        if kind == EventKind.REFUSED or (
            kind == EventKind.ORDER_STATE and code in (OrderState.REJECTED, OrderState.REFUSED)
        ):
            self._rejected |= 1 << own.symbol
            del self._own[intent_id]
        elif kind == EventKind.ORDER_STATE and (code >= OrderState.SENT):
            del self._own[intent_id]

    def _carry_out(self, actions: tuple[fl.Action, ...], now_ns: int) -> None:
        closes = [a for a in actions if isinstance(a, fl.Close)]
        try:
            for action in actions:
                if isinstance(action, fl.CancelAll):
                    self._cancel_all(now_ns)
                elif isinstance(action, fl.RequestSnapshot):
                    self.command(CommandKind.SNAPSHOT, now_ns, wake=False)
                elif isinstance(action, fl.Alert):
                    left = self._in_words(action.remaining) or "unconfirmed"
                    text = f"FLATTEN {action.text}; remaining: {left}"
                    self._ctx.events.emit(
                        EventKind.ALERT, severity=Severity.P1, source=Source.WATCHDOG, text=text, now_ns=now_ns
                    )
                elif isinstance(action, fl.Done):
                    if self._narrow(self.state):
                        self.symbol_flat_since_ns = action.flat_ns
                    else:
                        self.flat_since_ns = action.flat_ns
            if closes:
                self._publish_closes(closes, now_ns)
        except RingFull as error:  # the bridge does not drain: fencing deals with that, the machine asks again
            self._ctx.events.emit(
                EventKind.ALERT, severity=Severity.P1, source=Source.WATCHDOG, text=str(error), now_ns=now_ns
            )
        self._ctx.wake(topology.BRIDGE)

    def rehearse(self, now_ns: int) -> None:
        """Go through all that a breach needs, without a word to anybody, so that none of it is met for the first time.

        Code and data that have not been touched for a while take three times as long.
        """
        if self.state.active or self.paused_for_takeover:
            return
        state = fl.start(1, len(self._senses.names), source=0, reason="", cause_ns=now_ns, now_ns=now_ns)
        _, actions = fl.step(state, self.view(True), now_ns, self._config)
        self._intents([a for a in actions if isinstance(a, fl.Close)], now_ns, [0] * len(actions))
        self._order(CommandKind.CANCEL_ALL, 0, now_ns)

    def _publish_closes(self, closes: list[fl.Close], now_ns: int) -> None:
        """All closes in one publish, so that the bridge finds them together and writes them together."""
        ids = [self._ctx.ids.next(Source.WATCHDOG) for _ in closes]
        records = self._intents(closes, self._ctx.clock.now_ns(), ids)
        for intent_id, close in zip(ids, closes, strict=True):
            self._own[intent_id] = _Own(close.symbol, close.qty * int(close.side), now_ns)
        try:
            self._orders.publish(records)
        except RingFull:
            for intent_id in ids:
                self._own.pop(intent_id, None)
            raise

    def _intents(self, closes: list[fl.Close], written_ns: int, ids: list[int]) -> Records:
        records = np.zeros(len(closes), self._orders.dtype)
        epoch = self._epoch()
        for n, close in enumerate(closes):
            market = math.isnan(close.limit)
            records[n] = (
                0, self.state.cause_ns, written_ns, ids[n], close.symbol, _NEW, _WATCHDOG, int(close.side),
                _MARKET if market else _LIMIT, _DAY, _CLOSE if market else _CLOSE_OUTSIDE, close.qty,
                math.nan if market else self._rounded(close), 0, 0, b"", 0, epoch, 0, (0, 0, 0), 0,
            )  # fmt: skip
        return records

    def _rounded(self, close: fl.Close) -> float:
        """On the price increment, away from the touch."""
        tick = self._senses.tradable[close.symbol].tick_size
        steps = close.limit / tick
        return round((math.ceil(steps - 1e-9) if close.side > 0 else math.floor(steps + 1e-9)) * tick, 10)

    def command(self, kind: CommandKind, now_ns: int, *, wake: bool = True, symbol: int = ALL_SYMBOLS) -> None:
        """Publish one command to the bridge."""
        self._order(kind, self._ctx.ids.next(Source.WATCHDOG), now_ns, symbol)
        self._commands.publish_record()
        if wake:
            self._ctx.wake(topology.BRIDGE)

    def _order(self, kind: CommandKind, command_id: int, now_ns: int, symbol: int = ALL_SYMBOLS) -> None:
        """Fill the record of the next command."""
        reason = self.state.reason.encode()[:48]
        self._commands.record[0] = (
            0, now_ns, command_id, symbol, int(kind), _WATCHDOG, 0 if symbol == ALL_SYMBOLS else ONE_SYMBOL, 0.0,
            b"watchdog", reason, *_SPARE
        )  # fmt: skip

    def _watch_flat(self, now_ns: int) -> None:
        """Confirmed flat lasts until something is held or works again; what an operator has excused may stay."""
        if self.flat_since_ns and (self.exposed() or self._senses.working() or self._foreign()):
            self.flat_since_ns, self.flat_lost = 0, True
        if self.symbol_flat_since_ns and self.exposed() & self.state.scope:
            self.symbol_flat_since_ns, self.symbol_flat_lost = 0, True

    def _foreign(self) -> int:
        """Positions outside the instruments, if more than an operator has excused."""
        foreign = self._senses.foreign()
        return foreign if foreign > self.state.excused_foreign else 0

    def _in_words(self, mask: int) -> str:
        return self._senses.open_in_words(mask, self._foreign())

    def exposed(self) -> int:
        """Symbols that are held and that no operator has excused."""
        return self._senses.held() & ~self.state.excused

    @property
    def whole(self) -> bool:
        """Is it over all symbols?"""
        return self.state.scope == (1 << len(self._senses.names)) - 1

    def kept(self, latch: latches.Latch) -> int:
        """Symbols that an operator keeps in this flatten or KILL; those of an earlier one bind nobody."""
        return self.state.excused if self._of_this_stop(latch) else 0

    def kept_foreign(self, latch: latches.Latch) -> int:
        """As many positions outside the symbols does he keep."""
        return self.state.excused_foreign if self._of_this_stop(latch) else 0

    def keeps(self, latch: latches.Latch) -> dict[str, int]:
        """Both, as ``start`` takes them: for a flatten of the same stop."""
        return {"excused": self.kept(latch), "excused_foreign": self.kept_foreign(latch)}

    def _of_this_stop(self, latch: latches.Latch) -> bool:
        return self.state.active or (latch.kill and self.state.started_ns >= latch.kill_id)

    def excuse(self, mask: int, foreign: int, by: str, now_ns: int) -> None:
        """An operator keeps these symbols, and as many positions outside them: the flatten confirms the rest."""
        self.state = fl.excuse(self.state, mask, foreign)
        self._event(f"excused {self._senses.open_in_words(mask, foreign)}: {by}", now_ns)
        self._publish()

    def finish(self, now_ns: int, began_ns: int, sent_ns: int) -> None:
        """Another hand (the emergency connection) has confirmed flat, which began and sent its first closes then.

        ``sent_ns`` is 0 if there was nothing to close. A flatten of before is over: its times are not this one's.
        """
        if not self.state.active:
            before = self.state
            self.state = fl.start(
                began_ns, len(self._senses.names), source=Source.WATCHDOG, reason="the bridge is gone under KILL",
                cause_ns=began_ns, now_ns=began_ns, boot_id=self._boot,
            )  # fmt: skip
            self.state = fl.excuse(self.state, before.excused, before.excused_foreign)
        self.state = replace(
            self.state,
            state=int(FlattenState.FLAT),
            boot_id=self._boot,
            sent_ns=self.state.sent_ns or sent_ns,
            flat_ns=now_ns,
            remaining=0,
        )
        self.flat_since_ns = now_ns
        self._event(self._words(), now_ns)
        self._publish()

    def resume_after_takeover(self, now_ns: int) -> None:
        """The bridge is back: whatever was under way goes on through it, from a fresh read."""
        self.paused_for_takeover = False
        self._own.clear()
        if self.state.active:
            self.state = fl.resume(self.state, now_ns, len(self._senses.names))

    def _words(self) -> str:
        state = FlattenState(self.state.state)
        if state == FlattenState.FLAT:
            took_ms = (self.state.flat_ns - self.state.started_ns) / 1e6
            return f"flat, confirmed by the broker, {took_ms:.0f} ms after the start"
        left = self._in_words(self.state.remaining)
        return f"{state.name.lower().replace('_', ' ')}, round {self.state.rounds}{': ' + left if left else ''}"

    def _event(self, text: str, now_ns: int) -> None:
        """``value``: ms from the cause to the last closing order of round one; ``limit``: ms from it to flat."""
        s = self.state
        self._ctx.events.emit(
            EventKind.FLATTEN, s.state, ref_id=s.flatten_id, source=s.source, text=text, severity=Severity.ROUTINE,
            value=(s.sent_ns - s.cause_ns) / 1e6 if s.sent_ns else math.nan,
            limit=(s.flat_ns - s.cause_ns) / 1e6 if s.flat_ns else math.nan, now_ns=now_ns,
        )  # fmt: skip

    def _publish(self) -> None:
        s, c = self.state, self._cell.value[0]
        c["flatten_id"], c["state"], c["started_ns"], c["cause_ns"] = s.flatten_id, s.state, s.started_ns, s.cause_ns
        c["sent_ns"], c["flat_ns"], c["rounds"], c["remaining"] = s.sent_ns, s.flat_ns, s.rounds, s.remaining
        c["open_orders"], c["source"] = self._senses.working(), s.source
        self._cell.publish()
        self._published = s
        if s != self._written:
            self._written = s
            self._files.write(self._path, partial(fl.dumps, s))
