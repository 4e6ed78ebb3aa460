"""A strict reader of market events: rebuilds books from row operations the way a client does, and checks as it goes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from engine.domain.codes import DepthOp
from engine.paper.port import MARKET_EVENT, MarketEventKind, MarketSource

Row = tuple[float, float]


@dataclass
class Reader:
    """Applies every event. ``books[symbol][side]`` are the rows, best first."""

    levels: int
    allow_crossed: bool = False
    books: dict[int, list[list[Row]]] = field(default_factory=dict)
    quotes: dict[tuple[int, int], Row] = field(default_factory=dict)
    last_t_ns: int = 0
    fills: list[tuple[int, float, float, int, int]] = field(default_factory=list)  # key, price, size, side, passive
    done: list[tuple[int, float, int]] = field(default_factory=list)  # key, remaining, flag
    trades: list[tuple[int, float, float, int]] = field(default_factory=list)  # symbol, price, size, aggressor
    index: list[tuple[int, float]] = field(default_factory=list)
    halts: list[tuple[int, int]] = field(default_factory=list)
    resets: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)

    def apply(self, e: np.void) -> None:
        assert e["t_ns"] >= self.last_t_ns, "events must be in time order"
        self.last_t_ns = int(e["t_ns"])
        kind, symbol, side = int(e["kind"]), int(e["symbol"]), int(e["side"])
        price, size = float(e["price"]), float(e["size"])
        self.kinds.append(kind)
        if kind == MarketEventKind.DEPTH:
            self._depth(symbol, side, int(e["op"]), int(e["level"]), (price, size))
        elif kind == MarketEventKind.QUOTE:
            self.quotes[symbol, side] = (price, size)
        elif kind == MarketEventKind.TRADE:
            self.trades.append((symbol, price, size, side))
        elif kind == MarketEventKind.OWN_FILL:
            self.fills.append((int(e["order_key"]), price, size, side, int(e["flag"])))
        elif kind == MarketEventKind.OWN_DONE:
            self.done.append((int(e["order_key"]), size, int(e["flag"])))
        elif kind == MarketEventKind.INDEX:
            self.index.append((int(e["t_ns"]), price))
        elif kind == MarketEventKind.HALT:
            self.halts.append((symbol, int(e["flag"])))
        elif kind == MarketEventKind.RESET:
            self.books[symbol] = [[], []]
            self.resets.append(symbol)
        else:
            raise AssertionError(f"unknown kind {kind}")

    def _depth(self, symbol: int, side: int, op: int, level: int, row: Row) -> None:
        rows = self.books.setdefault(symbol, [[], []])[side]
        if op == DepthOp.INSERT:
            assert level <= len(rows), "insert past the end"
            rows.insert(level, row)
        elif op == DepthOp.UPDATE:
            assert level < len(rows), "update of a row that is not there"
            assert rows[level][0] == row[0]
            rows[level] = row
        else:
            assert level < len(rows), "delete of a row that is not there"
            assert rows.pop(level)[0] == row[0]
        assert len(rows) <= self.levels, "more rows than the source displays"
        sign = -1 if side == 1 else 1
        prices = [sign * p for p, _ in rows]
        assert prices == sorted(set(prices)), "rows must be ordered, best first"
        asks, bids = self.books[symbol]
        if not self.allow_crossed and asks and bids:
            assert bids[0][0] < asks[0][0], "crossed or locked"

    def drain(self, market: MarketSource) -> npt.NDArray[np.void]:
        """Poll and apply everything that waits; returns it."""
        out = np.zeros(4096, MARKET_EVENT)
        parts = []
        while count := market.poll(out):
            parts.append(out[:count].copy())
            for e in out[:count]:
                self.apply(e)
        return np.concatenate(parts) if parts else out[:0]

    def assert_equals_snapshot(self, market: MarketSource, symbol: int) -> None:
        bids, asks = market.snapshot(symbol)
        for side, rows in ((1, bids), (0, asks)):
            assert self.books.get(symbol, [[], []])[side] == [(float(p), float(s)) for p, s in rows]
            best = (float(rows[0][0]), float(rows[0][1])) if len(rows) else (0.0, 0.0)
            assert self.quotes.get((symbol, side), (0.0, 0.0)) == best


def check_market(market: object) -> None:
    """Every invariant of a ``SyntheticMarket``'s memory; says what broke."""
    from engine.paper.market.layout import C_OWN, EPS, RESTING

    m = market._memory  # type: ignore[attr-defined]
    own = m.own[: m.control[C_OWN]]
    for slot in range(len(m.symbols)):
        me = m.symbols[slot]
        bids, asks = np.flatnonzero(m.grid[slot, 1] > EPS), np.flatnonzero(m.grid[slot, 0] > EPS)
        assert (m.grid[slot] >= 0).all()
        assert me["bid"] == (bids[-1] if len(bids) else 0), "best bid is not the highest level"
        assert me["ask"] == (asks[0] if len(asks) else 0), "best ask is not the lowest level"
        assert not (len(bids) and len(asks)) or bids[-1] < asks[0], "crossed"
        mine = own[own["slot"] == slot]
        assert len(mine) == me["own"]
        resting = mine[mine["state"] == RESTING]
        for side, sign in ((1, 1), (0, -1)):
            for price in set(resting["price"][resting["side"] == sign]):
                queue = resting[(resting["side"] == sign) & (resting["price"] == price)]
                background = m.grid[slot, side, price] - queue["left"].sum()
                assert background >= -1e-6, "client orders exceed their level"
                assert (np.diff(queue["ahead"]) >= -1e-6).all(), "queue positions are out of arrival order"
                assert queue["ahead"].min() >= 0
                assert queue["ahead"].max() <= background + 1e-6
