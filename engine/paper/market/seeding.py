"""Builds the memory of a synthetic market: seeds, grids, first books, and the speed that a message rate needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.domain.codes import Regime
from engine.domain.instruments import MAX_SYMBOLS, Instrument
from engine.paper.market.eventqueue import EventQueue
from engine.paper.market.flow import next_regime
from engine.paper.market.layout import (
    C_INDEX_NUMBER,
    C_INDEX_T,
    C_LOG,
    C_NOW,
    CONTROL_WORDS,
    INDEX_PERIOD_NS,
    INDEX_WORDS,
    NEVER,
    OWN_ORDER,
    P_LIMIT,
    SYMBOL_STATE,
    TRUTH,
    X_BASE,
    X_GAP_FROM,
    X_GAP_TO,
    X_VALUE,
)
from engine.paper.market.memory import MarketMemory
from engine.paper.market.regimes import DISTANCES, LOT, RateTables, rate_tables

DEFAULT_MESSAGES_PER_S_PER_SYMBOL = 125.0
GRID_HEADROOM = 3
"""The price grid ends at this multiple of the start price. It is absolute, so nothing is ever recentred or lost."""
MAX_LEVELS = 20
_SEEDED_TICKS = 200
_MASK = (1 << 64) - 1


def splitmix64(x: int) -> int:
    """One step of splitmix64: turns related seeds into unrelated, non-zero generator states."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return (x ^ (x >> 31)) or 1


def tick_fraction(tick_size: float) -> tuple[float, float]:
    """Tick size as numerator and denominator, such that ticks * num / den is the correctly rounded price."""
    if tick_size < 1:
        den = round(1 / tick_size)
        if abs(den * tick_size - 1) < 1e-9:
            return 1.0, float(den)
    return float(tick_size), 1.0


def speed_for(messages_per_s: float) -> float:
    """Scale of the base rates that gives one symbol so many depth messages per second at ten rows, within a few %."""
    per_message = np.interp(np.log(messages_per_s), np.log(_MEASURED_MESSAGES), _SPEED_PER_MESSAGE)
    return float(messages_per_s * per_message)


_MEASURED_MESSAGES = np.array([6.2, 30.6, 60.7, 125.8, 249.0, 567.0, 1393.0, 3673.0, 7326.0])
_MEASURED_SPEED = np.array([0.1, 0.5, 1.0, 2.35, 5.0, 12.0, 30.0, 80.0, 160.0])
_SPEED_PER_MESSAGE = _MEASURED_SPEED / _MEASURED_MESSAGES


def build_memory(
    instruments: Sequence[Instrument],
    index: Instrument | None,
    seed: int,
    levels: int,
    rate_scale: float,
    messages_per_s: float | None,
    start_ns: int,
    log_truth: bool,
) -> MarketMemory:
    """Fresh memory with seeded books, whose first rows wait in the queue as inserts."""
    _check(instruments, levels, rate_scale, messages_per_s)
    n = len(instruments)
    if messages_per_s is None:
        messages_per_s = DEFAULT_MESSAGES_PER_S_PER_SYMBOL * n * rate_scale
    tables = rate_tables(speed_for(messages_per_s / n))
    fractions = [tick_fraction(i.tick_size) for i in instruments]
    starts = [round(i.start_price * den / num) for i, (num, den) in zip(instruments, fractions, strict=True)]
    control = np.zeros(CONTROL_WORDS, np.int64)
    memory = MarketMemory(
        symbols=np.zeros(n, SYMBOL_STATE),
        grid=np.zeros((n, 2, max(starts) * GRID_HEADROOM + 2 * _SEEDED_TICKS)),
        own=np.zeros(64, OWN_ORDER),
        row_price=np.zeros((n, 2, levels), np.int64),
        row_size=np.zeros((n, 2, levels)),
        row_count=np.zeros((n, 2), np.int64),
        scratch_price=np.zeros(levels, np.int64),
        scratch_size=np.zeros(levels),
        queue=EventQueue(control),
        control=control,
        rates=(tables.parameters, tables.limit, tables.cancel, tables.jump),
        truth=np.zeros(max(64, 16 * n), TRUTH),
        index=np.zeros(INDEX_WORDS),
    )
    control[C_NOW] = start_ns
    control[C_LOG] = int(log_truth)
    control[C_INDEX_T] = NEVER if index is None else start_ns + INDEX_PERIOD_NS
    if index is not None:
        control[C_INDEX_NUMBER] = index.index
        memory.index[[X_BASE, X_VALUE]] = index.start_price
    memory.index[[X_GAP_FROM, X_GAP_TO]] = 1.0
    for slot, instrument in enumerate(instruments):
        me = memory.symbols[slot : slot + 1]
        me["rng"] = splitmix64(splitmix64(seed & _MASK) ^ (instrument.index * 0x632BE59BD9B4E019 & _MASK))
        me["tick_num"], me["tick_den"] = fractions[slot]
        me["number"] = instrument.index
        me["start"] = me["anchor"] = starts[slot]
        me["last"] = starts[slot]
        me["regime"] = splitmix64(seed + 7 + instrument.index) % len(Regime)  # next_regime never stays: start anywhere
        me["t_event"] = me["t_heat"] = me["t_regime"] = start_ns
        _seed_book(memory, slot, starts[slot], tables)
        next_regime(memory.symbols, tables.jump, memory.truth, control, slot)
        memory.redraw(slot, 1, start_ns)
        memory.redraw(slot, 0, start_ns)
    return memory


def _seed_book(memory: MarketMemory, slot: int, start: int, tables: RateTables) -> None:
    """Fill both sides with the depth that the calm regime's rates settle at, and what lies beyond with its tail."""
    share = np.diff(tables.limit[Regime.CALM], prepend=0.0) * tables.parameters[Regime.CALM, P_LIMIT]
    shares = np.maximum(LOT, np.round(share / tables.cancel[Regime.CALM] / LOT) * LOT)
    profile = np.concatenate((shares, np.full(_SEEDED_TICKS - DISTANCES, shares[-1])))
    reach = min(_SEEDED_TICKS, start - 1)
    memory.grid[slot, 1, start - reach + 1 : start + 1] = profile[:reach][::-1]
    memory.grid[slot, 0, start + 1 : start + 1 + _SEEDED_TICKS] = profile
    me = memory.symbols[slot : slot + 1]
    me["bid"], me["ask"] = start, start + 1


def _check(instruments: Sequence[Instrument], levels: int, rate_scale: float, messages_per_s: float | None) -> None:
    if not 1 <= len(instruments) <= MAX_SYMBOLS:
        raise ValueError(f"instruments: {len(instruments)} given, 1 to {MAX_SYMBOLS} are possible")
    if len({i.index for i in instruments}) != len(instruments):
        raise ValueError("instruments: two share one index; every symbol needs its own")
    for i in instruments:
        if not (i.tick_size > 0 and i.start_price >= 100 * i.tick_size):
            raise ValueError(
                f"instrument {i.symbol}: start_price = {i.start_price} with tick_size = {i.tick_size}; "
                "the price must be at least 100 ticks"
            )
    if not 1 <= levels <= MAX_LEVELS:
        raise ValueError(f"levels = {levels}: must be 1 to {MAX_LEVELS}")
    for name, value in (("rate_scale", rate_scale), ("messages_per_s", messages_per_s)):
        if value is not None and not 0 < value < 1e9:
            raise ValueError(f"{name} = {value}: must be above 0 and finite")
