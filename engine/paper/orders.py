"""Pure order book-keeping: orders, executions, their states and the numbers that identify them. No I/O, no clock."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

PRE_SUBMITTED = "PreSubmitted"
SUBMITTED = "Submitted"
PENDING_CANCEL = "PendingCancel"
CANCELLED = "Cancelled"
FILLED = "Filled"
INACTIVE = "Inactive"

WORKING = frozenset({PRE_SUBMITTED, SUBMITTED, PENDING_CANCEL})

FIRST_PERM_ID = 1_500_000_001

HELD = "held"
"""Not transmitted yet: nobody is told of it."""
WAITING = "waiting"
"""Attached to an order that has not filled yet."""
DESK = "desk"
"""Watched by the desk until its trigger or its limit is reached, the close comes or the session opens."""
MARKET = "market"
"""In the market source."""


@dataclass(slots=True)
class PaperOrder:
    """One order of a client. ``quantity`` and ``filled`` in shares, prices in USD, NaN where there is none.

    ``perm_id`` is unique in the account and never 0; it is also the order's key in the market source. ``aux`` is the
    stop price, of TRAIL the trailing amount; ``trail_stop`` the stop that follows the price. ``place`` says where the
    order is (HELD, WAITING, DESK or MARKET); ``parent`` is the permId of the order it is attached to, 0 for none.
    """

    perm_id: int
    client_id: int
    order_id: int
    symbol: int
    action: str
    quantity: float
    order_type: str
    limit: float
    tif: str
    account: str
    exchange: str = "SMART"
    order_ref: str = ""
    open_close: str = ""
    outside_rth: bool = False
    status: str = PRE_SUBMITTED
    filled: float = 0.0
    filled_value: float = 0.0
    last_price: float = 0.0
    commission: float = 0.0
    day: str = ""
    filled_before: float = 0.0  # shares filled before it was last submitted to the market source
    aux: float = math.nan
    trail_stop: float = math.nan
    trail_percent: float = math.nan
    oca_group: str = ""
    oca_type: int = 3
    parent: int = 0
    parent_order_id: int = 0
    place: str = DESK
    triggered: bool = False
    added: float = 0.0  # shares that added liquidity
    ended_s: float = 0.0  # UTC seconds at which it was filled or cancelled
    end_reason: str = ""  # why it was cancelled; empty: its client asked for it

    @property
    def limit_now(self) -> float:
        """The limit at which it may trade as it is now; NaN at any price."""
        return self.limit if self.order_type in ("LMT", "STP LMT") else math.nan

    @property
    def group(self) -> str:
        """Orders of which one replaces the others: a named group, or the orders attached to one parent."""
        return f"oca:{self.oca_group}" if self.oca_group else f"parent:{self.parent}" if self.parent else ""

    @property
    def remaining(self) -> float:
        return self.quantity - self.filled

    @property
    def average_price(self) -> float:
        return self.filled_value / self.filled if self.filled else 0.0

    @property
    def working(self) -> bool:
        return self.status in WORKING

    @property
    def sign(self) -> int:
        """+1 for a buy, -1 for a sell."""
        return 1 if self.action == "BUY" else -1

    def fill(self, quantity: float, price: float, commission: float) -> None:
        """Apply an execution. Raises ValueError if it exceeds what remains."""
        if not 0 < quantity <= self.remaining + 1e-9:
            raise ValueError(f"execution of {quantity} on order {self.perm_id}, whose remainder is {self.remaining}")
        self.filled += quantity
        self.filled_value += quantity * price
        self.last_price = price
        self.commission += commission
        if self.remaining <= 1e-9:
            self.status = FILLED
        elif self.status == PRE_SUBMITTED:
            self.status = SUBMITTED


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution with its commission. ``wall_s`` is UTC seconds since 1970; ``realized`` NaN on opening fills."""

    exec_id: str
    perm_id: int
    client_id: int
    order_id: int
    symbol: int
    action: str
    quantity: float
    price: float
    cumulative: float
    average_price: float
    exchange: str
    order_ref: str
    account: str
    wall_s: float
    liquidity: int
    commission: float
    realized: float

    @property
    def signed_quantity(self) -> float:
        return self.quantity if self.action == "BUY" else -self.quantity

    @property
    def base_id(self) -> str:
        """The id without its revision: a correction has the same base."""
        return self.exec_id.rpartition(".")[0]


def corrected_id(exec_id: str) -> str:
    """The id of the next revision of an execution: the digits after the last dot plus one."""
    base, _, revision = exec_id.rpartition(".")
    return f"{base}.{int(revision) + 1:02d}"


@dataclass(slots=True)
class Ledger:
    """All orders and executions of the day, and the counters behind their ids."""

    origin: int  # distinguishes the executions of different state files
    orders: dict[int, PaperOrder] = field(default_factory=dict)  # by permId
    executions: list[Execution] = field(default_factory=list)
    next_perm_id: int = FIRST_PERM_ID
    exec_count: int = 0
    high_order_id: dict[int, int] = field(default_factory=dict)  # by client id, highest id ever used
    _by_client: dict[tuple[int, int], int] = field(default_factory=dict)
    _open: dict[int, PaperOrder] = field(default_factory=dict)  # a superset of the working orders

    def new_perm_id(self) -> int:
        perm_id = self.next_perm_id
        self.next_perm_id += 1
        return perm_id

    def new_exec_id(self) -> str:
        self.exec_count += 1
        return f"{self.origin:08x}.{self.exec_count:08x}.01.01"

    def put(self, order: PaperOrder) -> None:
        """Add or overwrite an order, keeping the counters above everything seen."""
        perm_id, client_id, order_id = order.perm_id, order.client_id, order.order_id
        self.orders[perm_id] = order
        self._open.pop(perm_id, None)
        if order.status in WORKING:
            self._open[perm_id] = order
        if order_id:
            self._by_client[(client_id, order_id)] = perm_id
        if perm_id >= self.next_perm_id:
            self.next_perm_id = perm_id + 1
        if order_id > self.high_order_id.get(client_id, 0):
            self.high_order_id[client_id] = order_id

    def put_execution(self, execution: Execution) -> None:
        """Add an execution; a correction replaces the one with the same base id."""
        for index, known in enumerate(self.executions):
            if known.base_id == execution.base_id:
                self.executions[index] = execution
                return
        self.executions.append(execution)
        self.exec_count = max(self.exec_count, int(execution.exec_id.split(".")[1], 16))

    def use_order_id(self, client_id: int, order_id: int) -> None:
        self.high_order_id[client_id] = max(order_id, self.high_order_id.get(client_id, 0))

    def new_manual_id(self) -> int:
        """Order ids of orders entered by hand are negative."""
        return min(0, *(o.order_id for o in self.orders.values() if o.client_id == 0), 0) - 1

    def next_order_id(self, client_id: int) -> int:
        """What nextValidId tells this client."""
        return self.high_order_id.get(client_id, 0) + 1

    def find(self, client_id: int, order_id: int) -> PaperOrder | None:
        perm_id = self._by_client.get((client_id, order_id))
        return None if perm_id is None else self.orders.get(perm_id)

    @property
    def working_at_most(self) -> int:
        """No more orders than this are working."""
        return len(self._open)

    def working(self) -> Iterator[PaperOrder]:
        """Working orders, oldest first."""
        for order in list(self._open.values()):
            if order.working:
                yield order
            else:
                self._open.pop(order.perm_id, None)

    def roll_day(self) -> None:
        """Forget what ended and the executions of the day that is over."""
        self.orders = {key: order for key, order in self.orders.items() if order.working}
        self._by_client = {(o.client_id, o.order_id): key for key, o in self.orders.items() if o.order_id}
        self.executions.clear()


def on_increment(price: float, tick_size: float) -> bool:
    """True if a price is a whole number of increments (within float noise), and at least one."""
    if not math.isfinite(price):
        return False
    ticks = price / tick_size
    return ticks > 0.5 and abs(ticks - round(ticks)) < 1e-6
