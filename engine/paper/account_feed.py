"""Account values, portfolio, positions and P&L as clients see them, and who has subscribed to what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from engine.paper import messages_out as out
from engine.paper.account import INITIAL_MARGIN, Account
from engine.paper.catalog import Catalog
from engine.paper.fields import price

PNL_INTERVAL_NS = 1_000_000_000
UPDATE_INTERVAL_NS = 5_000_000_000
SUMMARY_INTERVAL_NS = 10_000_000_000

Value = tuple[str, str, str]
"""Key, value, currency."""


def account_values(account: Account, marks: Mapping[int, float]) -> list[Value]:
    """Everything the account reports about itself, base currency USD. Pure."""
    m = account.margins(marks)
    gross = account.gross(marks)
    net_stock = m.equity - account.cash
    usd = {
        "NetLiquidation": m.equity,
        "TotalCashValue": account.cash,
        "SettledCash": account.cash,
        "AccruedCash": 0.0,
        "BuyingPower": max(0.0, m.available) / INITIAL_MARGIN,
        "EquityWithLoanValue": m.equity,
        "PreviousDayEquityWithLoanValue": account.day_start_equity,
        "GrossPositionValue": gross,
        "RegTEquity": m.equity,
        "RegTMargin": m.initial,
        "SMA": m.available,
        "InitMarginReq": m.initial,
        "MaintMarginReq": m.maintenance,
        "AvailableFunds": m.available,
        "ExcessLiquidity": m.excess,
        "FullInitMarginReq": m.initial,
        "FullMaintMarginReq": m.maintenance,
        "FullAvailableFunds": m.available,
        "FullExcessLiquidity": m.excess,
        "LookAheadInitMarginReq": m.initial,
        "LookAheadMaintMarginReq": m.maintenance,
        "LookAheadAvailableFunds": m.available,
        "LookAheadExcessLiquidity": m.excess,
        "CashBalance": account.cash,
        "TotalCashBalance": account.cash,
        "NetLiquidationByCurrency": m.equity,
        "StockMarketValue": net_stock,
        "UnrealizedPnL": account.unrealized(marks),
        "RealizedPnL": account.realized_day,
    }
    plain = {
        "AccountType": "INDIVIDUAL",
        "AccountReady": "true",
        "Cushion": price(m.excess / m.equity) if m.equity > 0 else "0",
        "DayTradesRemaining": "-1",
        "Leverage": f"{gross / m.equity:.2f}" if m.equity > 0 else "0",
        "LookAheadNextChange": "0",
        "HighestSeverity": "0",
    }
    values = [(key, value, "") for key, value in plain.items()]
    values += [(key, f"{value:.2f}", "USD") for key, value in usd.items()]
    values += [("Currency", "USD", "USD"), ("ExchangeRate", "1.00", "USD")]
    return values


def summary_values(tags: str, values: list[Value]) -> list[Value]:
    """The values that an account summary asks for: named tags, ``All`` or ``$LEDGER``. Pure."""
    wanted = {tag.strip() for tag in tags.split(",") if tag.strip()}
    if "All" in wanted:
        return values
    ledger = any(tag.startswith("$LEDGER") for tag in wanted)
    ledger_keys = {"CashBalance", "StockMarketValue", "UnrealizedPnL", "RealizedPnL", "ExchangeRate", "Currency"}
    return [v for v in values if v[0] in wanted or (ledger and v[0] in ledger_keys)]


class FeedClient(Protocol):
    """A connection with account subscriptions."""

    subscriptions: Subscriptions

    def send(self, message: bytes) -> None: ...


@dataclass(slots=True)
class Subscriptions:
    """What one client wants to be kept informed of."""

    account: bool = False
    positions: bool = False
    summaries: dict[int, str] = field(default_factory=dict)
    multi: set[int] = field(default_factory=set)
    positions_multi: set[int] = field(default_factory=set)
    pnl: set[int] = field(default_factory=set)
    pnl_single: dict[int, int] = field(default_factory=dict)  # request id to symbol index, -1 unknown contract
    sent: dict[str, Value] = field(default_factory=dict)
    sent_summary: dict[tuple[int, str], Value] = field(default_factory=dict)
    sent_multi: dict[tuple[int, str], Value] = field(default_factory=dict)


class AccountFeed:
    """Sends account information on request, on fills and periodically."""

    def __init__(
        self,
        account_id: str,
        account: Account,
        catalog: Catalog,
        marks: Callable[[], Mapping[int, float]],
        wall_s: Callable[[], float],
    ) -> None:
        self._id = account_id
        self._account = account
        self._catalog = catalog
        self._marks = marks
        self._wall_s = wall_s
        self._pnl_ns = 0
        self._update_ns = 0
        self._summary_ns = 0

    # Requests.

    def start_account(self, client: FeedClient) -> None:
        """reqAccountUpdates: everything once, then changes."""
        client.subscriptions.account = True
        client.subscriptions.sent.clear()
        self._send_account(client)
        for symbol in list(self._account.positions):
            self._send_portfolio(client, symbol)
        client.send(out.account_time(self._wall_s()))
        client.send(out.account_download_end(self._id))

    def start_positions(self, client: FeedClient) -> None:
        client.subscriptions.positions = True
        for symbol, p in self._account.positions.items():
            if p.quantity:
                client.send(out.position(self._catalog[symbol], p.quantity, p.average_cost, self._id))
        client.send(out.position_end())

    def start_summary(self, client: FeedClient, req_id: int, tags: str) -> None:
        client.subscriptions.summaries[req_id] = tags
        self._send_summary(client, req_id, tags)
        client.send(out.account_summary_end(req_id))

    def start_multi(self, client: FeedClient, req_id: int) -> None:
        client.subscriptions.multi.add(req_id)
        client.subscriptions.sent_multi.clear()
        self._send_multi(client, req_id)
        client.send(out.account_update_multi_end(req_id))

    def start_positions_multi(self, client: FeedClient, req_id: int) -> None:
        client.subscriptions.positions_multi.add(req_id)
        for symbol, p in self._account.positions.items():
            if p.quantity:
                client.send(out.position_multi(req_id, self._catalog[symbol], p.quantity, p.average_cost, self._id))
        client.send(out.position_multi_end(req_id))

    def start_pnl(self, client: FeedClient, req_id: int) -> None:
        client.subscriptions.pnl.add(req_id)
        self._send_pnl(client, self._marks())

    def start_pnl_single(self, client: FeedClient, req_id: int, symbol: int) -> None:
        client.subscriptions.pnl_single[req_id] = symbol
        self._send_pnl_single(client, req_id, symbol, self._marks())

    # Changes.

    def traded(self, clients: list[FeedClient], symbol: int) -> None:
        """A position changed: tell everyone who follows positions or the portfolio."""
        position = self._account.positions[symbol]
        instrument = self._catalog[symbol]
        for client in clients:
            subs = client.subscriptions
            if subs.positions:
                client.send(out.position(instrument, position.quantity, position.average_cost, self._id))
            for req_id in subs.positions_multi:
                client.send(out.position_multi(req_id, instrument, position.quantity, position.average_cost, self._id))
            if subs.account:
                self._send_portfolio(client, symbol)
                self._send_account(client)
            for req_id in subs.multi:
                self._send_multi(client, req_id)

    def tick(self, clients: list[FeedClient], now_ns: int) -> None:
        """Periodic updates that are due."""
        if now_ns - self._pnl_ns < PNL_INTERVAL_NS:
            return
        self._pnl_ns = now_ns
        marks = self._marks()
        update = now_ns - self._update_ns >= UPDATE_INTERVAL_NS
        summary = now_ns - self._summary_ns >= SUMMARY_INTERVAL_NS
        self._update_ns = now_ns if update else self._update_ns
        self._summary_ns = now_ns if summary else self._summary_ns
        for client in clients:
            subs = client.subscriptions
            self._send_pnl(client, marks)
            for req_id, symbol in subs.pnl_single.items():
                self._send_pnl_single(client, req_id, symbol, marks)
            for req_id in subs.multi if update else ():
                self._send_multi(client, req_id)
            if update and subs.account:
                self._send_account(client)
                for symbol, position in self._account.positions.items():
                    if position.quantity:
                        self._send_portfolio(client, symbol)
                client.send(out.account_time(self._wall_s()))
            if summary:
                for req_id, tags in subs.summaries.items():
                    self._send_summary(client, req_id, tags)

    # Messages.

    def _send_account(self, client: FeedClient) -> None:
        sent = client.subscriptions.sent
        for value in account_values(self._account, self._marks()):
            if sent.get(value[0]) != value:
                sent[value[0]] = value
                client.send(out.account_value(*value, self._id))

    def _send_multi(self, client: FeedClient, req_id: int) -> None:
        sent = client.subscriptions.sent_multi
        for value in account_values(self._account, self._marks()):
            if sent.get((req_id, value[0])) != value:
                sent[req_id, value[0]] = value
                client.send(out.account_update_multi(req_id, self._id, *value))

    def _send_summary(self, client: FeedClient, req_id: int, tags: str) -> None:
        sent = client.subscriptions.sent_summary
        for value in summary_values(tags, account_values(self._account, self._marks())):
            if sent.get((req_id, value[0])) != value:
                sent[(req_id, value[0])] = value
                client.send(out.account_summary(req_id, self._id, *value))

    def _send_portfolio(self, client: FeedClient, symbol: int) -> None:
        p = self._account.positions[symbol]
        mark = self._marks()[symbol]
        client.send(
            out.portfolio(
                self._catalog[symbol], p.quantity, mark, p.average_cost, p.unrealized(mark), p.realized_day, self._id
            )
        )

    def _send_pnl(self, client: FeedClient, marks: Mapping[int, float]) -> None:
        for req_id in client.subscriptions.pnl:
            a = self._account
            client.send(out.pnl(req_id, a.daily_pnl(marks), a.unrealized(marks), a.realized_day))

    def _send_pnl_single(self, client: FeedClient, req_id: int, symbol: int, marks: Mapping[int, float]) -> None:
        position = self._account.positions.get(symbol)
        if position is None:
            client.send(out.pnl_single(req_id, 0.0, 0.0, 0.0, 0.0, 0.0))
            return
        mark = marks[symbol]
        client.send(
            out.pnl_single(
                req_id,
                position.quantity,
                self._account.daily_pnl_of(symbol, mark),
                position.unrealized(mark),
                position.realized_day,
                position.quantity * mark,
            )
        )
