"""What each request does: one handler per message id in ``HANDLERS``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine.paper import client_requests as m
from engine.paper import market_requests as market
from engine.paper import messages_out as out
from engine.paper.market_requests import invalid, parse_time
from engine.paper.messages_in import In
from engine.paper.order_news import send_completed_orders, send_executions, send_open_orders
from engine.paper.place_order import OrderRequest
from engine.paper.session import Session

if TYPE_CHECKING:
    from engine.paper.server import Gateway

# Connection and account.


def start_api(gw: Gateway, client: Session, request: m.StartApi) -> None:
    gw.log_in(client, request.client_id)


def ids(gw: Gateway, client: Session, request: m.Numbered) -> None:
    client.send(out.next_valid_id(gw.next_valid_id(client.client_id)))


def managed_accounts(gw: Gateway, client: Session, request: m.Bare) -> None:
    client.send(out.managed_accounts(gw.config.account))


def current_time(gw: Gateway, client: Session, request: m.Bare) -> None:
    # The real gateway leaves a request unanswered that comes too soon after the last one.
    now_ns = gw.now_ns()
    if client.time_answered_ns and now_ns - client.time_answered_ns < gw.config.time_interval_ms * 1e6:
        return
    client.time_answered_ns = now_ns
    client.send(out.current_time(gw.wall_s()))


def ignore(gw: Gateway, client: Session, request: m.Request) -> None:
    """Accepted and without effect: log level, market data type, news bulletins (there are none)."""


def news_providers(gw: Gateway, client: Session, request: m.Bare) -> None:
    client.send(out.news_providers())


def scanner_parameters(gw: Gateway, client: Session, request: m.Bare) -> None:
    client.send(out.scanner_parameters())


def soft_dollar_tiers(gw: Gateway, client: Session, request: m.ById) -> None:
    client.send(out.soft_dollar_tiers(request.req_id))


def user_info(gw: Gateway, client: Session, request: m.ById) -> None:
    client.send(out.user_info(request.req_id))


def family_codes(gw: Gateway, client: Session, request: m.Bare) -> None:
    client.send(out.family_codes(gw.config.account))


def account_updates(gw: Gateway, client: Session, request: m.AccountUpdates) -> None:
    if request.account not in ("", gw.config.account):
        invalid(client, out.SYSTEM, f"account {request.account[:20]!r} is not managed here")
    elif request.subscribe:
        gw.account_feed.start_account(client)
    else:
        client.subscriptions.account = False


def positions(gw: Gateway, client: Session, request: m.Bare) -> None:
    gw.account_feed.start_positions(client)


def cancel_positions(gw: Gateway, client: Session, request: m.Bare) -> None:
    client.subscriptions.positions = False


def account_summary(gw: Gateway, client: Session, request: m.Named) -> None:
    gw.account_feed.start_summary(client, request.req_id, request.name)


def cancel_account_summary(gw: Gateway, client: Session, request: m.ById) -> None:
    client.subscriptions.summaries.pop(request.req_id, None)
    client.subscriptions.sent_summary.clear()


def _account_known(gw: Gateway, client: Session, request: m.ForAccount) -> bool:
    if request.account in ("", "All", gw.config.account):
        return True
    invalid(client, request.req_id, f"account {request.account[:20]!r} is not managed here")
    return False


def positions_multi(gw: Gateway, client: Session, request: m.ForAccount) -> None:
    if _account_known(gw, client, request):
        gw.account_feed.start_positions_multi(client, request.req_id)


def cancel_positions_multi(gw: Gateway, client: Session, request: m.ById) -> None:
    client.subscriptions.positions_multi.discard(request.req_id)


def account_updates_multi(gw: Gateway, client: Session, request: m.ForAccount) -> None:
    if _account_known(gw, client, request):
        gw.account_feed.start_multi(client, request.req_id)


def cancel_account_updates_multi(gw: Gateway, client: Session, request: m.ById) -> None:
    client.subscriptions.multi.discard(request.req_id)


def pnl(gw: Gateway, client: Session, request: m.ForAccount) -> None:
    if _account_known(gw, client, request):
        gw.account_feed.start_pnl(client, request.req_id)


def cancel_pnl(gw: Gateway, client: Session, request: m.ById) -> None:
    client.subscriptions.pnl.discard(request.req_id)


def pnl_single(gw: Gateway, client: Session, request: m.ForAccount) -> None:
    if _account_known(gw, client, request):
        symbol = next((i.index for i in gw.catalog.instruments.values() if i.con_id == request.con_id), -1)
        gw.account_feed.start_pnl_single(client, request.req_id, symbol)


def cancel_pnl_single(gw: Gateway, client: Session, request: m.ById) -> None:
    client.subscriptions.pnl_single.pop(request.req_id, None)


# Orders.


def place_order(gw: Gateway, client: Session, request: OrderRequest) -> None:
    gw.desk.place(client, request, gw.catch_up)


def cancel_order(gw: Gateway, client: Session, request: m.CancelOrder) -> None:
    gw.desk.cancel(client, request.order_id, gw.catch_up())


def global_cancel(gw: Gateway, client: Session, request: m.Bare) -> None:
    gw.desk.cancel_all(gw.catch_up())


def auto_open_orders(gw: Gateway, client: Session, request: m.Numbered) -> None:
    if client.client_id != 0:
        invalid(client, out.SYSTEM, "only client id 0 may have orders bound that were entered by hand")
        return
    client.auto_bind = bool(request.value)


def open_orders(gw: Gateway, client: Session, request: m.Bare) -> None:
    if client.client_id == 0:
        gw.desk.bind_manual_orders()
    send_open_orders(client, gw.desk.ledger, gw.catalog, everyone=False)


def all_open_orders(gw: Gateway, client: Session, request: m.Bare) -> None:
    send_open_orders(client, gw.desk.ledger, gw.catalog, everyone=True)


def completed_orders(gw: Gateway, client: Session, request: m.Numbered) -> None:
    send_completed_orders(client, gw.desk.ledger, gw.catalog, api_only=bool(request.value))


def executions(gw: Gateway, client: Session, request: m.Executions) -> None:
    try:
        since_s = parse_time(request.since, 0.0)
    except ValueError as error:
        invalid(client, request.req_id, str(error))
        return
    send_executions(client, gw.desk.ledger, gw.catalog, request, since_s)


HANDLERS: dict[int, Callable[[Gateway, Session, Any], None]] = {
    In.START_API: start_api,
    In.IDS: ids,
    In.MANAGED_ACCOUNTS: managed_accounts,
    In.CURRENT_TIME: current_time,
    In.LOG_LEVEL: ignore,
    In.AUTO_OPEN_ORDERS: auto_open_orders,
    In.MARKET_DATA_TYPE: ignore,
    In.NEWS_BULLETINS: ignore,
    In.CANCEL_NEWS_BULLETINS: ignore,
    In.NEWS_PROVIDERS: news_providers,
    In.SCANNER_PARAMETERS: scanner_parameters,
    In.SOFT_DOLLAR_TIERS: soft_dollar_tiers,
    In.CANCEL_HEAD_TIMESTAMP: ignore,
    In.USER_INFO: user_info,
    In.FAMILY_CODES: family_codes,
    In.ACCOUNT_UPDATES: account_updates,
    In.POSITIONS: positions,
    In.CANCEL_POSITIONS: cancel_positions,
    In.ACCOUNT_SUMMARY: account_summary,
    In.CANCEL_ACCOUNT_SUMMARY: cancel_account_summary,
    In.POSITIONS_MULTI: positions_multi,
    In.CANCEL_POSITIONS_MULTI: cancel_positions_multi,
    In.ACCOUNT_UPDATES_MULTI: account_updates_multi,
    In.CANCEL_ACCOUNT_UPDATES_MULTI: cancel_account_updates_multi,
    In.PNL: pnl,
    In.CANCEL_PNL: cancel_pnl,
    In.PNL_SINGLE: pnl_single,
    In.CANCEL_PNL_SINGLE: cancel_pnl_single,
    In.CONTRACT_DETAILS: market.contract_details,
    In.MATCHING_SYMBOLS: market.matching_symbols,
    In.MARKET_RULE: market.market_rule,
    In.DEPTH_EXCHANGES: market.depth_exchanges,
    In.SMART_COMPONENTS: market.smart_components,
    In.SEC_DEF_OPT_PARAMS: market.sec_def_opt_params,
    In.MKT_DATA: market.mkt_data,
    In.CANCEL_MKT_DATA: market.cancel_mkt_data,
    In.MKT_DEPTH: market.mkt_depth,
    In.CANCEL_MKT_DEPTH: market.cancel_mkt_depth,
    In.TICK_BY_TICK: market.tick_by_tick,
    In.CANCEL_TICK_BY_TICK: market.cancel_tick_by_tick,
    In.REAL_TIME_BARS: market.real_time_bars,
    In.CANCEL_REAL_TIME_BARS: market.cancel_bars,
    In.HISTORICAL_DATA: market.historical_data,
    In.CANCEL_HISTORICAL_DATA: market.cancel_bars,
    In.HEAD_TIMESTAMP: market.head_timestamp,
    In.HISTORICAL_TICKS: market.historical_ticks,
    In.PLACE_ORDER: place_order,
    In.CANCEL_ORDER: cancel_order,
    In.GLOBAL_CANCEL: global_cancel,
    In.OPEN_ORDERS: open_orders,
    In.ALL_OPEN_ORDERS: all_open_orders,
    In.COMPLETED_ORDERS: completed_orders,
    In.EXECUTIONS: executions,
}
