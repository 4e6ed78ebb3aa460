"""What the gate is told: config, orders, accounts, cells and contracts, gathered into its two fact tables."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engine import topology
from engine.broker.contracts import ContractBook
from engine.broker.register import Register
from engine.config import Config
from engine.domain.codes import Mode, OrderType, Owner
from engine.domain.instruments import Instrument
from engine.risk import pretrade
from engine.risk.accounting import Accounts
from engine.risk.marks import mark
from engine.risk.reconcile import confirmed
from engine.risk.stops import Stops, effective
from engine.runtime.context import Context
from shm import lines
from shm.cell import CellReader
from shm.layouts import BOOK

STALE_INTENT_NS = 1_000_000_000
MODES = {"sim": Mode.SIM, "paper": Mode.PAPER, "live": Mode.LIVE}


class Gatekeeper:
    """Holds ``facts`` and ``account`` (see ``engine.risk.pretrade``) and keeps them true."""

    def __init__(self, context: Context, register: Register, accounts: Accounts, contracts: ContractBook) -> None:
        config = context.config
        self._config: Config = config
        self.instruments: Sequence[Instrument] = context.instruments
        self._register = register
        self._accounts = accounts
        self._contracts = contracts
        self.stop_cells: list[CellReader] = [context.cell_reader(name) for name in topology.STOP_CELLS]
        self.lease_cell = context.cell_reader("lease")
        self._book = context.cell_reader("book")
        self.stops: Stops = effective([c.value[0] for c in self.stop_cells], [False] * len(self.stop_cells))
        self._stops_read = False
        self._scratch: npt.NDArray[np.void] = lines.zeros(1, BOOK)
        self._scratch_words = self._scratch.view(np.int64)
        self.lease_valid = False
        self.owner_ours = False
        self.facts: npt.NDArray[np.void] = np.zeros(len(self.instruments), pretrade.SYMBOL_FACTS)
        self.account: npt.NDArray[np.void] = np.zeros(1, pretrade.ACCOUNT_FACTS)
        self.broker_qty: dict[int, float] = {}
        self.mismatched: set[int] = set()
        count = config.limits.repeated_executions
        self._repeats: list[tuple[deque[int], deque[int]]] = [
            (deque(maxlen=count), deque(maxlen=count)) for _ in self.instruments
        ]
        self._rate: deque[int] = deque(maxlen=config.limits.orders_per_s)
        self._stale_min_ns = config.guardrails.stale_min_s * 1e9
        self._stale_factor = config.guardrails.stale_factor
        self._constants(config, context.index_symbol)

    def _constants(self, config: Config, index_symbol: int) -> None:
        lim, a = config.limits, self.account
        for name, value in (
            ("order_qty", lim.order_qty),
            ("order_notional_usd", lim.order_notional_usd),
            ("symbol_usd", lim.gate_symbol_usd),
            ("gross_usd", lim.gate_gross_usd),
            ("collar", lim.collar_pct / 100.0),
            ("active_per_side", lim.active_orders_per_side),
            ("rate_per_s", lim.orders_per_s),
            ("duplicate_ns", int(lim.duplicate_window_s * 1e9)),
            ("repeated_ns", int(lim.repeated_window_s * 1e9)),
            ("stale_intent_ns", STALE_INTENT_NS),
            ("buying_power_usd", math.nan),
            ("mode", int(MODES[config.instance.mode])),
            ("allow_short", lim.allow_short),
            ("assume_shortable", config.instance.mode == "sim"),
        ):
            a[name] = value
        f = self.facts
        f["mid"], f["own_bid"], f["own_ask"], f["last_price"] = math.nan, -math.inf, math.inf, math.nan
        f["edge"] = math.inf
        for i, instrument in enumerate(self.instruments):
            f["tradable"][i] = instrument.tradable and i != index_symbol
            self.contract_changed(i)
        a["tradable_count"] = int(f["tradable"].sum())

    # Slow facts.

    def contract_changed(self, symbol: int) -> None:
        edges, steps = self._contracts.increments(symbol)
        self.facts["edge"][symbol], self.facts["step"][symbol] = edges, steps
        self.facts["edge"][symbol, 0] = 0.0

    def shortable(self, symbol: int, value: float) -> None:
        """Tick 46: above 2.5 at least 1,000 shares are there, above 1.5 they have to be located."""
        self.facts["shortable"][symbol] = 3 if value > 2.5 else 2 if value > 1.5 else 1

    def halted(self, symbol: int, halted: bool) -> None:
        self.facts["halted"][symbol] = halted

    def sessions(self, wall_ns: int) -> None:
        for i in range(len(self.instruments)):
            self.facts["session_open"][i] = self._contracts.session_open(i, wall_ns)
            self.facts["extended_open"][i] = self._contracts.extended_open(i, wall_ns)

    # Facts of orders and positions.

    def symbol_changed(self, symbol: int) -> None:
        """Positions or orders of a symbol have changed: recompute what the gate sees of them."""
        ours = self._accounts.holdings[symbol].qty
        f = self.facts[symbol]
        theirs = self.broker_qty.get(symbol, 0.0)
        f["qty"] = confirmed(ours, theirs) if symbol in self.mismatched else ours
        buy = sell = 0.0
        active_buy = active_sell = 0
        bid, ask = -math.inf, math.inf
        for order in self._register.active():
            if order.symbol != symbol:
                continue
            market = order.order_type == OrderType.MKT
            if not order.active:
                buy, sell = (buy + order.remaining, sell) if order.side > 0 else (buy, sell + order.remaining)
            elif order.side > 0:
                buy += order.remaining
                active_buy += 1
                bid = max(bid, math.inf if market else order.limit_price)
            else:
                sell += order.remaining
                active_sell += 1
                ask = min(ask, -math.inf if market else order.limit_price)
        f["working_buy"], f["working_sell"] = buy, sell
        f["active_buy"], f["active_sell"] = active_buy, active_sell
        f["own_bid"], f["own_ask"] = bid, ask

    def executed(self, symbol: int, side: int, now_ns: int) -> None:
        """An own execution, for the repeated-execution throttle."""
        times = self._repeats[symbol][0 if side > 0 else 1]
        times.append(now_ns)
        if len(times) == times.maxlen:
            self.facts["repeat_buy_ns" if side > 0 else "repeat_sell_ns"][symbol] = times[0]

    def passed(
        self, symbol: int, source: int, signed_qty: float, limit_price: float, reducing: bool, now_ns: int
    ) -> None:
        """An order went through the gate."""
        f = self.facts[symbol]
        f["last_ns"], f["last_source"], f["last_qty"], f["last_price"] = now_ns, source, signed_qty, limit_price
        if not reducing:
            self._rate.append(now_ns)
            self.account["rate_ns"] = self._rate[0] if len(self._rate) == self._rate.maxlen else 0

    # Fast facts.

    def market(self, symbol: int, now_ns: int) -> None:
        """Read the symbol's book cell."""
        self._mark(symbol, symbol + 1, now_ns)

    def markets(self, now_ns: int) -> None:
        """All symbols: marks of the gross exposure."""
        self._mark(0, len(self.instruments), now_ns)

    def _mark(self, first: int, end: int, now_ns: int) -> None:
        mark(
            self.facts, self._book.words, self._scratch, self._scratch_words, first, end, now_ns, self._stale_min_ns,
            self._stale_factor,
        )  # fmt: skip

    def fit(self, symbol: int, now_ns: int) -> bool:
        """Is the book valid, or is nobody there who would know?"""
        book = self._book.read(symbol)
        known = now_ns - int(book["t_socket_ns"]) < self._stale_min_ns and not self._book.torn[symbol]
        return bool(book["valid"]) or not known

    def quote(self, symbol: int) -> tuple[float, float]:
        """Best bid and ask of the last book that was read, NaN when not known."""
        book = self._book.read(symbol)
        bid, ask = float(book["bid_price"][0]), float(book["ask_price"][0])
        return (bid if bid > 0 else math.nan, ask if ask > 0 else math.nan)

    def authority(self, now_ns: int) -> bool:
        """Read stops and lease: the last thing before the socket. True if orders that add risk may leave."""
        cells, a = self.stop_cells, self.account
        if not self._stops_read or any(cell.moved() for cell in cells):
            self._stops_read = True
            for cell in cells:
                cell.read()
            self.stops = effective([c.value[0] for c in cells], [bool(c.torn[0]) for c in cells])
            a["killed"], a["paused"], a["blocked"] = self.stops.kill, self.stops.pause, self.stops.block
            mask = self.stops.symbol_block
            for symbol in range(len(self.instruments)):
                self.facts["blocked"][symbol] = mask >> symbol & 1
        lease = self.lease_cell.read()
        owner, expires, epoch = int(lease["owner"]), int(lease["expires_ns"]), int(lease["epoch"])
        fenced = epoch < int(lease["fence"])
        ours = owner == Owner.BRIDGE
        self.lease_valid = ours and now_ns < expires and not fenced and not self.lease_cell.torn[0]
        self.owner_ours = not fenced and owner != Owner.WATCHDOG
        a["lease"], a["owner"], a["epoch"] = self.lease_valid, self.owner_ours, epoch
        stops = self.stops
        return self.lease_valid and not (stops.kill or stops.pause or stops.block)

    @property
    def staleness(self) -> tuple[float, float]:
        """Least age in ns at which a book is stale, and the factor on its median gap."""
        return self._stale_min_ns, self._stale_factor

    @property
    def lease_expires_ns(self) -> int:
        return int(self.lease_cell.value[0]["expires_ns"])

    @property
    def epoch(self) -> int:
        return int(self.lease_cell.value[0]["epoch"])
