"""The three kinds of stop, OR-ed over their sources.

Each source (watchdog, bridge's dead-man, operator's cockpit, command line) writes its own STOP cell, so that a stop
needs nobody's consent. A release is the watchdog's alone: it publishes the highest ``stop_id`` that an operator has
released, and a source's kill or pause counts only while its ``stop_id`` is newer. ``stop_id`` is the CLOCK_MONOTONIC
time of the request, which orders stops and releases without a shared counter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.domain.codes import TradingState

WATCHDOG_CELL = 0
"""Index of the watchdog's cell in ``topology.STOP_CELLS``."""


@dataclass(frozen=True, slots=True)
class Stops:
    """What holds now. ``symbol_block`` is a mask of symbols; the reasons are masks of badges and of BlockReason."""

    kill: bool
    pause: bool
    block: bool
    symbol_block: int
    block_reasons: int
    kill_reason: int

    @property
    def state(self) -> TradingState:
        if self.kill:
            return TradingState.KILLED
        if self.pause:
            return TradingState.PAUSED
        return TradingState.BLOCKED if self.block else TradingState.ACTIVE

    def entries_allowed(self, symbol: int) -> bool:
        """May an order that adds risk in this symbol leave?"""
        return not (self.kill or self.pause or self.block or self.symbol_block >> symbol & 1)


def effective(cells: Sequence[np.void], torn: Sequence[bool]) -> Stops:
    """OR of all stop cells (dtype STOP, watchdog's first). A torn cell counts as a block: in doubt, do not trade."""
    watchdog = cells[WATCHDOG_CELL]
    kill = pause = block = False
    symbols = reasons = kill_reason = 0
    for i, cell in enumerate(cells):
        own = i == WATCHDOG_CELL
        if cell["kill"] and (own or int(cell["stop_id"]) > int(watchdog["released_kill_id"])):
            kill = True
            kill_reason |= int(cell["kill_reason"])
        if cell["pause"] and (own or int(cell["stop_id"]) > int(watchdog["released_pause_id"])):
            pause = True
        if cell["block"] or torn[i]:
            block = True
        symbols |= int(cell["symbol_block"])
        reasons |= int(cell["block_reasons"])
    return Stops(kill, pause, block, symbols, reasons, kill_reason)
