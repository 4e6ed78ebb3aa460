"""The synthetic market: order books of several symbols under a hidden-regime order flow, with known truth.

A run is a pure function of the constructor's arguments and of the calls made: the same seed gives the same events,
and a symbol's events do not depend on which other symbols are there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engine.domain.instruments import Instrument
from engine.paper.market.commands import MarketCommands
from engine.paper.market.eventqueue import COMMAND_ROOM, MAX_WAITING_EVENTS
from engine.paper.market.flow import run
from engine.paper.market.layout import C_NOW, C_OWN, C_TRUTH, EPS, HELD, MARKET_PRICE, RESTING, RUN_ROOM
from engine.paper.market.memory import MarketMemory, grown
from engine.paper.market.orders import enter, leave
from engine.paper.market.seeding import build_memory
from engine.paper.port import MarketEventKind


class SyntheticMarket(MarketCommands):
    """A ``MarketSource`` with its own matching engine. See ``MarketCommands`` for drills (shock, halt, freeze, ...).

    Parameters: ``index`` is the index instrument whose value is printed four times a second, or None;
    ``messages_per_s`` depth messages of all symbols together in an average regime (default 125 a symbol times
    ``rate_scale``); ``start_ns`` the clock's origin; ``log_truth`` keeps every regime change for ``truth_log()``.

    Raises ValueError for an empty or repeated universe, levels outside 1..20, or a rate that is not positive.
    """

    def __init__(
        self,
        instruments: Sequence[Instrument],
        index: Instrument | None = None,
        seed: int = 1,
        levels: int = 10,
        rate_scale: float = 1.0,
        start_ns: int = 0,
        *,
        messages_per_s: float | None = None,
        log_truth: bool = False,
    ) -> None:
        self.instruments: tuple[Instrument, ...] = tuple(instruments)
        self.index = index
        self.seed = seed
        self.levels = levels
        self._memory: MarketMemory = build_memory(
            self.instruments, index, seed, levels, rate_scale, messages_per_s, start_ns, log_truth
        )
        self._slot = {instrument.index: slot for slot, instrument in enumerate(self.instruments)}
        self._full = False

    # -- time ---------------------------------------------------------------------------------------------------

    def advance(self, now_ns: int) -> None:
        """Let the market run up to ``now_ns``.

        With a million events unread it stops before that and goes on at the next call after a ``poll``, so a reader
        that stalls delays this market instead of exhausting memory.
        """
        m = self._memory
        while not run(*m.book, m.queue.events, m.control, *m.rates, m.truth, m.index, now_ns):
            if m.control[C_TRUTH] + 8 > len(m.truth):
                m.truth = grown(m.truth, len(m.truth) * 2)
                continue
            room = RUN_ROOM + 8 * self.levels + 4 * int(m.control[C_OWN])
            if not m.queue.make_room(max(room, len(m.queue.events) // 4), MAX_WAITING_EVENTS):
                self._full = True
                return
        self._full = False

    def next_ns(self) -> int:
        """Time of the next background event or index print; the time already reached while the queue is full."""
        m = self._memory
        if self._full:
            return int(m.control[C_NOW])
        return m.next_ns()

    @property
    def now_ns(self) -> int:
        """Time the market has reached."""
        return int(self._memory.control[C_NOW])

    # -- observation --------------------------------------------------------------------------------------------

    def poll(self, out: npt.NDArray[np.void]) -> int:
        """Move waiting events to ``out`` (MARKET_EVENT); returns how many."""
        return self._memory.queue.poll(out)

    def snapshot(self, symbol: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Displayed bids and asks of a symbol, each (rows, 2): price and shares, best first."""
        return self._memory.rows(self._slot_of(symbol))

    def truth(self, symbol: int) -> int:
        """The symbol's hidden regime now (``Regime``). Research only."""
        return int(self._memory.symbols[self._slot_of(symbol)]["regime"])

    def truth_log(self) -> npt.NDArray[np.void]:
        """Every regime change so far (dtype TRUTH), in time order per symbol; empty unless ``log_truth``."""
        m = self._memory
        return m.truth[: m.control[C_TRUTH]].copy()

    # -- client orders ------------------------------------------------------------------------------------------

    def submit(self, order_key: int, symbol: int, side: int, qty: float, limit: float, ioc: bool, now_ns: int) -> None:
        """A client order, matched at once; during a halt it waits for the end of it.

        A market order that exhausts the book rests at the last traded price. Raises ValueError for a negative or
        repeated key, a side other than +1 and -1, or a quantity that is not above 0.
        """
        slot = self._slot_of(symbol)
        if order_key < 0 or self._find(order_key) is not None:
            raise ValueError(f"order_key = {order_key}: must not be negative or that of an order still in the book")
        if side not in (-1, 1):
            raise ValueError(f"side = {side}: must be 1 (buy) or -1 (sell)")
        if not (qty > 0 and math.isfinite(qty)):
            raise ValueError(f"qty = {qty}: must be above 0 and finite")
        self._enter(order_key, slot, side, qty, qty, self._ticks(slot, side, limit), ioc, now_ns)

    def cancel(self, order_key: int, now_ns: int) -> bool:
        """Take an order out of the book; False if it is not there."""
        row = self._find(order_key)
        if row is None:
            return False
        order = self._memory.own[row].copy()
        self._leave(row, now_ns)
        self._write_done(order, float(order["left"]), now_ns)
        return True

    def replace(self, order_key: int, qty: float, limit: float, now_ns: int) -> bool:
        """Change total quantity and limit (NaN: market); False if the order is not in the book.

        A quantity at or below what is already filled ends the order.
        """
        row = self._find(order_key)
        if row is None:
            return False
        if not math.isfinite(qty):
            raise ValueError(f"qty = {qty}: must be finite")
        m = self._memory
        order = m.own[row].copy()
        slot, side = int(order["slot"]), int(order["side"])
        left = qty - float(order["qty"] - order["left"])
        ticks = self._ticks(slot, side, limit)
        if left <= EPS:
            self._leave(row, now_ns)
            self._write_done(order, 0.0, now_ns)
        elif ticks == order["price"] and left <= order["left"] and order["state"] == RESTING:
            # priority stays: the queue before it is untouched, only its own tail goes
            m.own[row]["qty"] = qty
            m.own[row]["left"] = left
            m.shrink_level(slot, side, ticks, float(order["left"]) - left, self._at(now_ns))
        else:
            self._leave(row, now_ns)
            self._enter(order_key, slot, side, qty, left, ticks, False, now_ns)
        return True

    # -- inner --------------------------------------------------------------------------------------------------

    def _at(self, now_ns: int) -> int:
        """Time stamp of a command: never before what the market has already written."""
        return max(now_ns, int(self._memory.control[C_NOW]))

    def _slot_of(self, symbol: int) -> int:
        try:
            return self._slot[symbol]
        except KeyError:
            known = ", ".join(str(i.index) for i in self.instruments)
            raise ValueError(f"symbol = {symbol}: not in this market, which has {known}") from None

    def _ticks(self, slot: int, side: int, limit: float) -> int:
        """Limit price in ticks, rounded to the passive side; MARKET_PRICE for NaN."""
        if math.isnan(limit):
            return MARKET_PRICE
        me = self._memory.symbols[slot]
        exact = min(max(limit * float(me["tick_den"]) / float(me["tick_num"]), -1.0), 1e12)
        ticks = math.floor(exact + 1e-6) if side > 0 else math.ceil(exact - 1e-6)
        # 0 is the code for "market": a buy below one tick is unreachable, a sell there is the most aggressive price
        return ticks if ticks >= 1 else (-1 if side > 0 else 1)

    def _find(self, order_key: int) -> int | None:
        m = self._memory
        rows = np.flatnonzero(m.own["key"][: m.control[C_OWN]] == order_key)
        return int(rows[0]) if len(rows) else None

    def _enter(
        self, key: int, slot: int, side: int, qty: float, left: float, ticks: int, ioc: bool, now_ns: int
    ) -> None:
        m = self._memory
        if m.control[C_OWN] + 1 >= len(m.own):
            m.own = grown(m.own, 2 * len(m.own))
        if m.symbols[slot]["halted"]:
            m.hold(key, slot, side, qty, left, ticks, ioc)
            return
        self._room_for_command()
        enter(*m.book, m.queue.events, m.control, slot, key, side, qty, left, ticks, ioc, self._at(now_ns))
        m.queue.check()

    def _leave(self, row: int, now_ns: int) -> None:
        m = self._memory
        self._room_for_command()
        leave(*m.book, m.queue.events, m.control, row, self._at(now_ns))

    def _release_held(self, slot: int, now_ns: int) -> None:
        m = self._memory
        while True:
            own = m.own[: m.control[C_OWN]]
            rows = np.flatnonzero((own["slot"] == slot) & (own["state"] == HELD))
            if not len(rows):
                return
            order = own[rows[0]].copy()
            self._leave(int(rows[0]), now_ns)
            side, ioc = int(order["side"]), bool(order["ahead"])
            self._enter(
                int(order["key"]),
                slot,
                side,
                float(order["qty"]),
                float(order["left"]),
                int(order["price"]),
                ioc,
                now_ns,
            )

    def _write_done(self, order: np.void, size: float, now_ns: int) -> None:
        self._memory.queue.write(
            t_ns=self._at(now_ns),
            order_key=int(order["key"]),
            size=size,
            symbol=self.instruments[int(order["slot"])].index,
            kind=MarketEventKind.OWN_DONE,
            side=int(order["side"]),
            flag=1,
        )

    def _room_for_command(self) -> None:
        m = self._memory
        m.queue.make_room(COMMAND_ROOM + 2 * int(m.control[C_OWN]) + 8 * self.levels)
