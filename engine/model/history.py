"""Bars to train on: from the paper market's generator or from recorded days, through the live kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from engine.domain.codes import SymbolStatus, TickKind
from engine.domain.instruments import Instrument
from engine.market.layout import BAR
from engine.market.replay import collect_bars
from engine.market.state import Market
from shm.layouts import TICK

if TYPE_CHECKING:
    from engine.store.blocks import Header

Records = npt.NDArray[np.void]
Progress = Callable[[str, int, int], None]
_BACKWARD_NS = 60_000_000_000


class NoHistory(Exception):
    """There is nothing to train on; the text says where it was looked for and what to do."""


def ticks_of(events: Records) -> Records:
    """Paper-market events (dtype MARKET_EVENT) as the TICK records that the bridge would write for them."""
    from engine.paper.port import MarketEventKind as Kind

    kinds = {Kind.DEPTH: TickKind.DEPTH, Kind.TRADE: TickKind.TRADE, Kind.INDEX: TickKind.INDEX}
    kinds |= {Kind.HALT: TickKind.STATUS, Kind.RESET: TickKind.DEPTH_RESET}
    table = np.zeros(256, np.uint8)
    for event_kind, tick_kind in kinds.items():
        table[event_kind] = tick_kind
    events = events[table[events["kind"]] > 0]
    ticks = np.zeros(len(events), TICK)
    ticks["kind"] = table[events["kind"]]
    for to, source in (("t_socket_ns", "t_ns"), ("t_decoded_ns", "t_ns"), ("price", "price"), ("size", "size")):
        ticks[to] = events[source]
    ticks["symbol"] = events["symbol"]
    depth = events["kind"] == Kind.DEPTH
    ticks["side"] = np.where(depth, events["side"], 0)
    ticks["level"] = np.where(depth, events["level"], 0)
    halted = np.where(events["flag"] == 1, SymbolStatus.HALTED, SymbolStatus.LIVE)
    ticks["op"] = np.where(events["kind"] == Kind.HALT, halted, events["op"])
    return ticks


def synthetic_bars(
    instruments: Sequence[Instrument],
    seed: int,
    hours: float,
    *,
    bar_s: float = 10.0,
    messages_per_s: float | None = None,
    depth_rows: int = 10,
    progress: Progress | None = None,
) -> Records:
    """Bars of ``hours`` of a fresh paper market (dtype BAR)."""
    from engine.paper.market.history import iter_history
    from engine.paper.market.synthetic import SyntheticMarket

    stocks = [i for i in instruments if i.tradable]
    source = SyntheticMarket(stocks, None, seed, depth_rows, start_ns=1, messages_per_s=messages_per_s)
    market = Market(instruments, bar_s=bar_s, depth_rows=depth_rows)
    total = int(hours * 3600)

    def batches() -> Iterator[Records]:
        for events in iter_history(source, total):
            if progress is not None:
                progress("market", min(total, int(events["t_ns"][-1] // 1_000_000_000)), total)
            yield ticks_of(events)

    return collect_bars(market, batches())


def recording_bars(
    path: Path, *, bar_s: float = 10.0, depth_rows: int = 10, progress: Progress | None = None
) -> tuple[Records, str]:
    """Bars of a whole order-book recording (dtype BAR), and its symbol.

    Raises NoHistory naming the defect of the file.
    """
    from engine.paper.market.lobster import LobsterMarket
    from engine.paper.market.lobster_file import LobsterError
    from engine.paper.port import MARKET_EVENT

    try:
        source = LobsterMarket(path, start="00:00", in_process=True, start_ns=1)
        if source.levels > depth_rows:
            source = LobsterMarket(path, start="00:00", levels=depth_rows, in_process=True, start_ns=1)
    except (LobsterError, OSError) as error:
        raise NoHistory(str(error)) from error
    market = Market(source.instruments, bar_s=bar_s, depth_rows=depth_rows)
    events = np.zeros(1 << 16, MARKET_EVENT)

    def batches() -> Iterator[Records]:
        while not source.finished:
            source.advance(source.next_ns() + 60_000_000_000)
            while count := source.poll(events):
                yield ticks_of(events[:count])
        if progress is not None:
            progress("recording", 1, 1)

    return collect_bars(market, batches()), source.day.symbol


def recorded_bars(
    state_dir: Path,
    instruments: Sequence[Instrument],
    days: int,
    *,
    bar_s: float = 10.0,
    depth_rows: int = 10,
    progress: Progress | None = None,
) -> tuple[Records, list[int]]:
    """Bars of the last ``days`` recorded days and their dates (YYYYMMDD).

    A new recording epoch starts with empty books; lost records make the books invalid until the feed resets them.
    Raises NoHistory when no day was recorded.
    """
    from engine.store.read import iter_blocks, recorded_days

    dates = recorded_days(state_dir)[-days:]
    if not dates:
        raise NoHistory(
            f"no ticks recorded in {state_dir / 'ticks'}: record first (l2dash up --collect) or use --synthetic"
        )
    found = []
    for n, date in enumerate(dates):
        if progress is not None:
            progress("recorded days", n, len(dates))
        found.append(_day_bars(iter_blocks(state_dir, date), instruments, bar_s, depth_rows))
    if progress is not None:
        progress("recorded days", len(dates), len(dates))
    return np.concatenate(found), dates


def _day_bars(
    blocks: Iterator[tuple[Header, Records]], instruments: Sequence[Instrument], bar_s: float, depth_rows: int
) -> Records:
    found: list[Records] = []
    market = Market(instruments, bar_s=bar_s, depth_rows=depth_rows)
    expected, last_ns, boot = -1, 0, 0
    for header, records in blocks:
        ticks = records.copy()  # stored blocks are read-only views, and may lie unaligned
        if len(ticks) == 0:
            continue
        first, t_ns = int(ticks["sequence"][0]), int(ticks["t_socket_ns"][0])
        if expected >= 0 and (header.boot != boot or first < expected or t_ns < last_ns - _BACKWARD_NS):
            market = Market(instruments, bar_s=bar_s, depth_rows=depth_rows)  # another instance or another boot
        elif expected >= 0 and first > expected:
            market.invalidate(t_ns)
        expected, last_ns, boot = int(ticks["sequence"][-1]) + 1, int(ticks["t_socket_ns"][-1]), header.boot
        for n, part in enumerate(np.split(ticks, np.flatnonzero(np.diff(ticks["sequence"]) != 1) + 1)):
            if n:
                market.invalidate(int(part["t_socket_ns"][0]))
            found.append(collect_bars(market, [part]))
    return np.concatenate(found) if found else np.zeros(0, BAR)
