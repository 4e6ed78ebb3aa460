"""Deterministic commands that make a synthetic market misbehave on purpose: the material of drills and faults."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from engine.paper.market.layout import (
    C_GAP_T0,
    C_GAP_T1,
    C_INDEX_FROZEN,
    C_NOW,
    NEVER,
    X_GAP_FROM,
    X_GAP_TO,
)
from engine.paper.market.orders import reprice
from engine.paper.port import MarketEventKind

if TYPE_CHECKING:
    from engine.domain.instruments import Instrument
    from engine.paper.market.memory import MarketMemory

LOWEST_PRICE_SHARE, HIGHEST_PRICE_SHARE = 0.1, 2.5
"""Range of a shocked price, as shares of the start price: the grid ends beyond."""


class MarketCommands:
    """Mixin of ``SyntheticMarket``. Every command takes effect at the time the market has reached.

    ``symbol`` is a symbol number as in events; moves are in percent of the current price. All raise ValueError that
    names the argument.
    """

    instruments: tuple[Instrument, ...]
    index: Instrument | None
    levels: int
    _memory: MarketMemory

    if TYPE_CHECKING:  # what the host provides

        def _slot_of(self, symbol: int) -> int: ...
        def _release_held(self, slot: int, now_ns: int) -> None: ...
        def _room_for_command(self) -> None: ...

    def shock(self, symbol: int, pct: float, over_ns: int = 0) -> None:
        """Move a symbol's price by ``pct`` within ``over_ns`` (0: in one jump) and let it stay there.

        All background quotes are re-entered at the new level; client orders in the way are traded through. A shock
        during a shock first finishes the earlier one.
        """
        slot = self._slot_of(symbol)
        m = self._memory
        me = m.symbols[slot]
        pending = int(me["shock_ticks"] - me["shock_done"])
        price = self._mid_ticks(slot) + pending
        ticks = round(price * pct / 100.0)
        low, high = LOWEST_PRICE_SHARE * float(me["start"]), HIGHEST_PRICE_SHARE * float(me["start"])
        if not (math.isfinite(pct) and low <= price + ticks <= high):
            raise ValueError(
                f"pct = {pct}: the price would leave {LOWEST_PRICE_SHARE:g} to {HIGHEST_PRICE_SHARE:g} "
                "times its start price"
            )
        if over_ns < 0:
            raise ValueError(f"over_ns = {over_ns}: must not be negative")
        if pending:
            self._reprice(slot, pending, pending)
        row = m.symbols[slot : slot + 1]
        row["anchor"] += pending
        row["shock_ticks"], row["shock_done"] = ticks, 0
        row["shock_t0"] = m.control[C_NOW]
        row["shock_t1"] = m.control[C_NOW] + over_ns
        if over_ns == 0:
            row["shock_done"] = ticks
            row["anchor"] += ticks
            self._reprice(slot, ticks, ticks)

    def gap_index(self, pct: float, over_ns: int = 0, *, with_stocks: bool = False) -> None:
        """Move the index by ``pct`` within ``over_ns``.

        By default the index alone moves and the stocks do not, which isolates the index rule; ``with_stocks`` shocks
        every stock by the same percentage instead and lets the index follow.
        """
        if self.index is None:
            raise ValueError("gap_index: this market has no index")
        if not (math.isfinite(pct) and -90.0 <= pct <= 150.0):
            raise ValueError(f"pct = {pct}: must be -90 to 150")
        if over_ns < 0:
            raise ValueError(f"over_ns = {over_ns}: must not be negative")
        if with_stocks:
            for instrument in self.instruments:
                self.shock(instrument.index, pct, over_ns)
            return
        m = self._memory
        now, t0, t1 = (int(m.control[c]) for c in (C_NOW, C_GAP_T0, C_GAP_T1))
        share = 1.0 if now >= t1 else (now - t0) / (t1 - t0)
        gap = m.index[X_GAP_FROM] + share * (m.index[X_GAP_TO] - m.index[X_GAP_FROM])
        m.index[X_GAP_FROM], m.index[X_GAP_TO] = gap, gap * (1 + pct / 100.0)
        m.control[C_GAP_T0], m.control[C_GAP_T1] = now, now + over_ns

    def halt(self, symbol: int) -> None:
        """Stop trading in a symbol: no flow, no matching; client orders may be cancelled, new ones wait."""
        slot = self._slot_of(symbol)
        me = self._memory.symbols[slot : slot + 1]
        if not me["halted"][0]:
            me["halted"], me["t_event"] = 1, NEVER
            self._announce(symbol, MarketEventKind.HALT, 1)

    def resume(self, symbol: int) -> None:
        """End a halt (orders that waited are matched in their order) and a freeze (all rows are sent anew)."""
        if self.index is not None and symbol == self.index.index:
            self._memory.control[C_INDEX_FROZEN] = 0
            return
        slot = self._slot_of(symbol)
        m = self._memory
        now = int(m.control[C_NOW])
        me = m.symbols[slot : slot + 1]
        if me["frozen"][0]:
            me["frozen"] = 0
            self._announce(symbol, MarketEventKind.RESET, 0)
            m.row_count[slot] = 0
            self._room_for_command()
            m.redraw(slot, 1, now)
            m.redraw(slot, 0, now)
        if me["halted"][0]:
            me["halted"] = 0
            me["t_event"] = now + 1_000_000
            me["t_heat"] = now
            self._announce(symbol, MarketEventKind.HALT, 0)
            self._release_held(slot, now)

    def freeze(self, symbol: int) -> None:
        """A stuck feed: no more market data of this symbol (or of the index); the market itself goes on unseen.

        Client orders are still matched and reported. ``resume`` ends it.
        """
        if self.index is not None and symbol == self.index.index:
            self._memory.control[C_INDEX_FROZEN] = 1
            return
        self._memory.symbols[self._slot_of(symbol) : self._slot_of(symbol) + 1]["frozen"] = 1

    def widen(self, symbol: int, bps: float) -> None:
        """Keep the background's spread at ``bps`` of the price or more; 0 ends it, and the flow narrows by itself."""
        slot = self._slot_of(symbol)
        if not (math.isfinite(bps) and 0 <= bps <= 2000):
            raise ValueError(f"bps = {bps}: must be 0 to 2000")
        me = self._memory.symbols[slot : slot + 1]
        mid = self._mid_ticks(slot)
        wide = math.ceil(mid * bps / 1e4)
        me["wide_ticks"] = wide
        extra = wide - int(me["ask"][0] - me["bid"][0]) if me["ask"][0] and me["bid"][0] else 0
        if extra > 0:
            self._reprice(slot, -(extra // 2), extra - extra // 2)

    def cross(self, symbol: int, for_ns: int = 1_000_000_000, ticks: int = 1) -> None:
        """Show bids ``ticks`` above the best ask for ``for_ns``, as a consolidated feed may; the book itself is right.

        ``ticks`` 0 shows a locked market.
        """
        slot = self._slot_of(symbol)
        if ticks < 0 or for_ns <= 0:
            raise ValueError(f"ticks = {ticks}, for_ns = {for_ns}: must be 0 or more, and above 0")
        m = self._memory
        me = m.symbols[slot : slot + 1]
        if not (me["ask"][0] and me["bid"][0]):
            return
        me["offset_bid"] = int(me["ask"][0] - me["bid"][0]) + ticks
        me["t_offset"] = m.control[C_NOW] + for_ns
        self._room_for_command()
        m.redraw(slot, 1, int(m.control[C_NOW]))

    def _mid_ticks(self, slot: int) -> int:
        me = self._memory.symbols[slot]
        if me["bid"] == 0 or me["ask"] == 0:
            return int(me["last"])
        return int(me["bid"] + me["ask"]) // 2

    def _reprice(self, slot: int, bid_ticks: int, ask_ticks: int) -> None:
        m = self._memory
        self._room_for_command()
        reprice(*m.book, m.queue.events, m.control, slot, bid_ticks, ask_ticks, int(m.control[C_NOW]))

    def _announce(self, symbol: int, kind: MarketEventKind, flag: int) -> None:
        m = self._memory
        m.queue.write(t_ns=int(m.control[C_NOW]), symbol=symbol, kind=kind, flag=flag)
