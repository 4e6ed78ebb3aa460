"""What a link tells the bridge, one small record per broker message. No behaviour, no library types."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinkUp:
    """The API session stands: ids and accounts have arrived."""

    accounts: tuple[str, ...]
    next_order_id: int
    server_version: int


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The session is gone, or could not be made."""

    reason: str
    refused: bool = False
    """Nobody listens there: nothing was connected."""


@dataclass(frozen=True, slots=True)
class OrderStatusNews:
    order_id: int
    client_id: int
    perm_id: int
    status: str
    filled: float
    remaining: float
    avg_price: float
    why_held: str = ""


@dataclass(frozen=True, slots=True)
class OpenOrderNews:
    """An order as the broker holds it. ``side`` is +1 or -1; ``limit_price`` NaN for market orders."""

    order_id: int
    client_id: int
    perm_id: int
    con_id: int
    symbol: str
    account: str
    side: int
    qty: float
    order_type: str
    limit_price: float
    tif: str
    order_ref: str
    status: str


@dataclass(frozen=True, slots=True)
class OpenOrdersEnd:
    pass


@dataclass(frozen=True, slots=True)
class ExecutionNews:
    """``req_id`` is -1 for a live execution, else the request that read it back. ``side`` is +1 or -1."""

    req_id: int
    exec_id: str
    order_id: int
    client_id: int
    perm_id: int
    con_id: int
    symbol: str
    account: str
    side: int
    qty: float
    price: float
    cum_qty: float
    avg_price: float
    t_exec_wall_ns: int
    order_ref: str
    t_socket_ns: int


@dataclass(frozen=True, slots=True)
class ExecutionsEnd:
    req_id: int


@dataclass(frozen=True, slots=True)
class CommissionNews:
    exec_id: str
    commission: float
    currency: str
    realized_pnl: float
    """NaN when the broker does not say (opening fills)."""


@dataclass(frozen=True, slots=True)
class PositionNews:
    account: str
    con_id: int
    symbol: str
    sec_type: str
    qty: float
    avg_cost: float


@dataclass(frozen=True, slots=True)
class PositionsEnd:
    pass


@dataclass(frozen=True, slots=True)
class AccountValueNews:
    key: str
    value: str
    currency: str
    account: str


@dataclass(frozen=True, slots=True)
class AccountEnd:
    account: str


@dataclass(frozen=True, slots=True)
class ErrorNews:
    """``ref`` is an order id, a request id, or -1 for the system; ``symbol`` the subscription it belongs to or -1."""

    ref: int
    code: int
    text: str
    symbol: int = -1
    line: str = ""
    """Kind of subscription: depth, quotes, prints, details; empty for orders and the system."""


@dataclass(frozen=True, slots=True)
class TimeNews:
    epoch_s: int
    t_socket_ns: int


@dataclass(frozen=True, slots=True)
class ContractNews:
    """Contract details. Hours are the broker's strings; ``rules`` maps exchange to market rule id."""

    symbol: int
    con_id: int
    exchange: str
    primary_exchange: str
    min_tick: float
    time_zone: str
    trading_hours: str
    liquid_hours: str
    rules: tuple[tuple[str, int], ...]
    long_name: str


@dataclass(frozen=True, slots=True)
class ContractEnd:
    symbol: int


@dataclass(frozen=True, slots=True)
class MarketRuleNews:
    rule_id: int
    steps: tuple[tuple[float, float], ...]
    """(low edge, increment), rising."""


@dataclass(frozen=True, slots=True)
class ShortableNews:
    symbol: int
    value: float
    """Above 2.5: at least 1,000 shares; above 1.5: to be located; else none."""


@dataclass(frozen=True, slots=True)
class HaltNews:
    symbol: int
    halted: bool


@dataclass(frozen=True, slots=True)
class DataTypeNews:
    """1 live, 2 frozen, 3 delayed, 4 delayed and frozen."""

    symbol: int
    kind: int


@dataclass(frozen=True, slots=True)
class UnreadableNews:
    """A message that the library's decoder could not read. ``message``: its number, 0 none."""

    message: int
    name: str
    why: str


News = (
    LinkUp
    | LinkDown
    | OrderStatusNews
    | OpenOrderNews
    | OpenOrdersEnd
    | ExecutionNews
    | ExecutionsEnd
    | CommissionNews
    | PositionNews
    | PositionsEnd
    | AccountValueNews
    | AccountEnd
    | ErrorNews
    | TimeNews
    | ContractNews
    | ContractEnd
    | MarketRuleNews
    | ShortableNews
    | HaltNews
    | DataTypeNews
    | UnreadableNews
)
