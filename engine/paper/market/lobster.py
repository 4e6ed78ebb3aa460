"""Replay of one LOBSTER day as a live market that client orders can trade in."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.domain.instruments import SIM_UNIVERSE, Instrument
from engine.paper.market.eventqueue import COMMAND_ROOM, MAX_WAITING_EVENTS, EventQueue
from engine.paper.market.layout import C_NOW, C_OWN, CONTROL_WORDS, EPS, HELD, MARKET_PRICE, NEVER, OWN_ORDER, RESTING
from engine.paper.market.lobster_file import PRICE_SCALE, LobsterDay, LobsterNoRows, read_lobster
from engine.paper.market.lobster_kernels import (
    R_HALTED,
    R_ORIGIN_NS,
    R_ROW,
    R_START_NS,
    REPLAY_WORDS,
    UNKNOWN_AHEAD,
    cap_queues,
    drop,
    replay,
    show,
    sweep,
)
from engine.paper.market.memory import grown
from engine.paper.port import MarketEventKind
from engine.paper.universe import made_up_id

FLAG_CANCELLED, FLAG_IOC = 1, 2


class LobsterMarket:
    """A ``MarketSource`` over one LOBSTER day.

    ``path`` is a zip or folder with the two files, one of them, or the pair (message, orderbook). ``start`` is the
    file's time of day ("HH:MM" or "HH:MM:SS") that plays at ``start_ns`` on this source's clock. ``levels`` limits the
    displayed rows (default: all in the file). ``speed`` other than 1 needs ``in_process=True``: a client that measures
    time against a sped-up feed would draw wrong conclusions. ``number`` is the symbol number in events.

    Client orders are not added to the displayed book. Takers trade with what is displayed, and what they took stays
    gone until the file changes that level. Resting orders fill by the risk-averse queue model: the queue ahead
    shrinks on visible trades at the price and is capped by the displayed size; a trade through the price fills.

    Raises ``LobsterError`` (named by defect) and ValueError for arguments.
    """

    def __init__(
        self,
        path: str | Path | tuple[str | Path, str | Path],
        symbol: str | None = None,
        start: str = "09:30",
        speed: float = 1.0,
        levels: int | None = None,
        *,
        in_process: bool = False,
        start_ns: int = 0,
        number: int = 0,
    ) -> None:
        if not (speed > 0 and math.isfinite(speed)):
            raise ValueError(f"speed = {speed}: must be above 0")
        if speed != 1.0 and not in_process:
            raise ValueError(
                f"speed = {speed}: only 1 is possible behind a gateway; use in_process=True for a backtest"
            )
        start_of_day_ns = _time_of_day_ns(start)
        self.day: LobsterDay = read_lobster(path, symbol)
        day = self.day
        if levels is not None and not 1 <= levels <= day.levels:
            raise ValueError(f"levels = {levels}: the file has {day.levels}; use 1 to {day.levels}")
        row = int(np.searchsorted(day.t_ns, start_of_day_ns))
        if row == len(day.t_ns):
            raise LobsterNoRows(
                f"start = {start}: no rows of {day.symbol} at or after it; the file covers "
                f"{_clock(int(day.t_ns[0]))} to {_clock(int(day.t_ns[-1]))}"
            )
        self.levels = levels or day.levels
        self.speed = speed
        self._number = number
        self._control = np.zeros(CONTROL_WORDS, np.int64)
        self._control[C_NOW] = start_ns
        self._queue = EventQueue(self._control)
        self._own = np.zeros(64, OWN_ORDER)
        self._place = np.zeros(REPLAY_WORDS, np.int64)
        self._place[R_ROW], self._place[R_START_NS], self._place[R_ORIGIN_NS] = row, start_ns, start_of_day_ns
        self._place[R_HALTED] = _halted_before(day, row)
        wide = day.levels + 1
        self._seen = (np.zeros((2, wide), np.int64), np.zeros((2, wide)), np.zeros(2, np.int64))
        self._eaten = (np.zeros((2, wide), np.int64), np.zeros((2, wide)), np.zeros(2, np.int64))
        self._rows = (np.zeros((2, self.levels), np.int64), np.zeros((2, self.levels)), np.zeros(2, np.int64))
        self.instruments: tuple[Instrument, ...] = (self._instrument(row),)
        if self._place[R_HALTED]:
            self._queue.write(t_ns=start_ns, symbol=number, kind=MarketEventKind.HALT, flag=1)
        self._show(start_ns)

    # -- time ---------------------------------------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        """Time the replay has reached."""
        return int(self._control[C_NOW])

    @property
    def finished(self) -> bool:
        """True when the file has no more rows."""
        return bool(self._place[R_ROW] >= len(self.day.t_ns))

    def advance(self, now_ns: int) -> None:
        """Play the file up to ``now_ns``; with a million events unread it waits for a ``poll``."""
        day = self.day
        while not replay(
            day.t_ns,
            day.kind,
            day.size,
            day.price,
            day.direction,
            day.book,
            self.speed,
            self._own,
            self._place,
            *self._seen,
            *self._eaten,
            *self._rows,
            self._queue.events,
            self._control,
            self._number,
            now_ns,
        ):
            room = 8 * day.book.shape[1] + 64 + 32 * int(self._control[C_OWN])
            if not self._queue.make_room(max(room, len(self._queue.events) // 4), MAX_WAITING_EVENTS):
                return

    def next_ns(self) -> int:
        """Time of the next file row; far in the future when there is none."""
        if self.finished:
            return NEVER
        ahead = int(self.day.t_ns[self._place[R_ROW]]) - int(self._place[R_ORIGIN_NS])
        return int(self._place[R_START_NS]) + int(ahead / self.speed)

    # -- observation --------------------------------------------------------------------------------------------

    def poll(self, out: npt.NDArray[np.void]) -> int:
        """Move waiting events to ``out`` (MARKET_EVENT); returns how many."""
        return self._queue.poll(out)

    def snapshot(self, symbol: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Displayed bids and asks, each (rows, 2): price and shares, best first."""
        self._check_symbol(symbol)
        price, size, count = self._rows
        bids, asks = (
            np.column_stack((price[side, : count[side]] / PRICE_SCALE, size[side, : count[side]])) for side in (1, 0)
        )
        return bids, asks

    # -- client orders ------------------------------------------------------------------------------------------

    def submit(self, order_key: int, symbol: int, side: int, qty: float, limit: float, ioc: bool, now_ns: int) -> None:
        """A client order. The rest of a market order waits for the next displayed size; a halt holds every order.

        Raises ValueError for a negative or repeated key, a side other than +1 and -1, or a quantity not above 0.
        """
        self._check_symbol(symbol)
        if order_key < 0 or self._find(order_key) is not None:
            raise ValueError(f"order_key = {order_key}: must not be negative or that of an order still in the book")
        if side not in (-1, 1):
            raise ValueError(f"side = {side}: must be 1 (buy) or -1 (sell)")
        if not (qty > 0 and math.isfinite(qty)):
            raise ValueError(f"qty = {qty}: must be above 0 and finite")
        self._enter(order_key, side, qty, qty, _file_price(side, limit), ioc, now_ns)

    def cancel(self, order_key: int, now_ns: int) -> bool:
        """Take an order out; False if it is not there."""
        row = self._find(order_key)
        if row is None:
            return False
        order = self._own[row].copy()
        drop(self._own, self._control, row)
        self._done(order_key, int(order["side"]), float(order["left"]), FLAG_CANCELLED, now_ns)
        return True

    def replace(self, order_key: int, qty: float, limit: float, now_ns: int) -> bool:
        """Change total quantity and limit (NaN: market); False if the order is not there.

        A quantity at or below what is already filled ends the order.
        """
        row = self._find(order_key)
        if row is None:
            return False
        if not math.isfinite(qty):
            raise ValueError(f"qty = {qty}: must be finite")
        order = self._own[row].copy()
        side = int(order["side"])
        left = qty - float(order["qty"] - order["left"])
        price = _file_price(side, limit)
        if left > EPS and price == order["price"] and left <= order["left"]:
            self._own[row]["qty"], self._own[row]["left"] = qty, left
            return True
        drop(self._own, self._control, row)
        if left <= EPS:
            self._done(order_key, side, 0.0, FLAG_CANCELLED, now_ns)
        else:
            self._enter(order_key, side, qty, left, price, False, now_ns)
        return True

    # -- inner --------------------------------------------------------------------------------------------------

    def _enter(self, key: int, side: int, qty: float, left: float, price: int, ioc: bool, now_ns: int) -> None:
        self._queue.make_room(COMMAND_ROOM)
        t = max(now_ns, self.now_ns)
        if not self._place[R_HALTED]:
            left = sweep(
                *self._seen, *self._eaten, self._queue.events, self._control, self._number, side, left, price, 0.0,
                key, t,
            )  # fmt: skip
            self._show(t)
            self._queue.check()
        if left <= EPS:
            return
        if ioc:
            self._done(key, side, left, FLAG_IOC, t)
            return
        n = int(self._control[C_OWN])
        if n + 1 >= len(self._own):
            self._own = grown(self._own, 2 * len(self._own))
        waits = price == MARKET_PRICE or bool(self._place[R_HALTED])
        self._own[n : n + 1] = np.array(
            [(key, 0, side, price, qty, left, UNKNOWN_AHEAD, HELD if waits else RESTING)], OWN_ORDER
        )
        self._control[C_OWN] = n + 1
        cap_queues(self._own, self._control, *self._seen)

    def _show(self, t_ns: int) -> None:
        self._queue.make_room(COMMAND_ROOM)
        show(
            self.day.book, self._place, *self._seen, *self._eaten, *self._rows, self._queue.events, self._control,
            self._number, t_ns,
        )  # fmt: skip

    def _done(self, key: int, side: int, size: float, flag: int, now_ns: int) -> None:
        self._queue.write(
            t_ns=max(now_ns, self.now_ns),
            order_key=key,
            size=size,
            symbol=self._number,
            kind=MarketEventKind.OWN_DONE,
            side=side,
            flag=flag,
        )

    def _find(self, order_key: int) -> int | None:
        rows = np.flatnonzero(self._own["key"][: self._control[C_OWN]] == order_key)
        return int(rows[0]) if len(rows) else None

    def _check_symbol(self, symbol: int) -> None:
        if symbol != self._number:
            raise ValueError(f"symbol = {symbol}: this replay has only {self._number} ({self.day.symbol})")

    def _instrument(self, row: int) -> Instrument:
        day = self.day
        known = next((i for i in SIM_UNIVERSE if i.symbol == day.symbol), None)
        best = day.book[max(row - 1, 0)]
        start_price = round((int(best[0]) + int(best[2])) / 2 / PRICE_SCALE, 2)
        return Instrument(
            self._number,
            day.symbol,
            known.con_id if known else made_up_id(day.symbol),
            start_price=start_price,
            long_name=known.long_name if known else day.symbol,
            primary_exchange=known.primary_exchange if known else "NASDAQ",
        )


def _halted_before(day: LobsterDay, row: int) -> int:
    """1 if trading is halted when row ``row`` comes."""
    marks = np.flatnonzero((day.kind[:row] == 7) & (day.price[:row] != 0))
    return int(len(marks) > 0 and day.price[marks[-1]] == -1)


def _file_price(side: int, limit: float) -> int:
    """Limit in file units, rounded to the passive side; MARKET_PRICE for NaN."""
    if math.isnan(limit):
        return MARKET_PRICE
    exact = min(max(limit * PRICE_SCALE, -1.0), 1e12)
    price = math.floor(exact + 1e-6) if side > 0 else math.ceil(exact - 1e-6)
    # 0 is the code for "market": a buy at or below 0 is unreachable, a sell there takes any price
    return price if price >= 1 else (-1 if side > 0 else 1)


def _time_of_day_ns(text: str) -> int:
    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(p.isdigit() for p in parts):
        raise ValueError(f'start = "{text}": must be "HH:MM" or "HH:MM:SS"')
    hours, minutes, seconds = (*map(int, parts), 0)[:3]
    if hours > 23 or minutes > 59 or seconds > 59:
        raise ValueError(f'start = "{text}": no such time of day')
    return ((hours * 60 + minutes) * 60 + seconds) * 1_000_000_000


def _clock(t_ns: int) -> str:
    seconds = t_ns // 1_000_000_000
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
