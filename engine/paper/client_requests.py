"""What clients ask for, as values: one small type for each shape of request."""

from __future__ import annotations

from dataclasses import dataclass

from engine.paper.place_order import ContractKey, OrderRequest


@dataclass(frozen=True, slots=True)
class Bare:
    """A request without arguments that matter."""


@dataclass(frozen=True, slots=True)
class ById:
    """A request or cancellation that consists of its id."""

    req_id: int


@dataclass(frozen=True, slots=True)
class StartApi:
    client_id: int


@dataclass(frozen=True, slots=True)
class MktData:
    req_id: int
    contract: ContractKey
    generic_ticks: frozenset[str]
    snapshot: bool


@dataclass(frozen=True, slots=True)
class MktDepth:
    req_id: int
    contract: ContractKey
    rows: int
    smart: bool


@dataclass(frozen=True, slots=True)
class CancelOrder:
    order_id: int


@dataclass(frozen=True, slots=True)
class AccountUpdates:
    subscribe: bool
    account: str


@dataclass(frozen=True, slots=True)
class Executions:
    """Filter of reqExecutions; zero or empty means any."""

    req_id: int
    client_id: int
    account: str
    since: str
    symbol: str
    sec_type: str
    exchange: str
    side: str


@dataclass(frozen=True, slots=True)
class ContractRequest:
    """A request about one contract."""

    req_id: int
    contract: ContractKey


@dataclass(frozen=True, slots=True)
class HeadTimestamp:
    req_id: int
    contract: ContractKey
    what: str
    use_rth: bool
    date_format: int


@dataclass(frozen=True, slots=True)
class HistoricalData:
    req_id: int
    contract: ContractKey
    end: str
    bar_size: str
    duration: str
    what: str
    date_format: int
    use_rth: bool
    keep_up_to_date: bool


@dataclass(frozen=True, slots=True)
class HistoricalTicks:
    req_id: int
    contract: ContractKey
    start: str
    end: str
    count: int
    what: str
    use_rth: bool
    ignore_size: bool


@dataclass(frozen=True, slots=True)
class RealTimeBars:
    req_id: int
    contract: ContractKey
    width_s: int
    what: str
    use_rth: bool


@dataclass(frozen=True, slots=True)
class TickByTick:
    req_id: int
    contract: ContractKey
    tick_type: str
    count: int
    ignore_size: bool


@dataclass(frozen=True, slots=True)
class Named:
    """A request id with one text: account, pattern, tags."""

    req_id: int
    name: str


@dataclass(frozen=True, slots=True)
class ForAccount:
    req_id: int
    account: str
    con_id: int


@dataclass(frozen=True, slots=True)
class Numbered:
    """A request that carries one number: market rule, market data type."""

    value: int


Request = (
    Bare
    | ById
    | StartApi
    | MktData
    | MktDepth
    | OrderRequest
    | CancelOrder
    | AccountUpdates
    | Executions
    | ContractRequest
    | HeadTimestamp
    | HistoricalData
    | HistoricalTicks
    | RealTimeBars
    | TickByTick
    | Named
    | ForAccount
    | Numbered
)
