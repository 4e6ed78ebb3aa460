"""Answers of the server: one function per message that takes plain values and returns its payload.

Counts and order of fields are what clients unpack strictly; the comments name the field only where it isn't obvious.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from engine.domain.instruments import Instrument
from engine.paper.catalog import NEW_YORK, TIME_ZONE, contract_fields, details_fields, local_symbol, trading_class
from engine.paper.fields import UNSET_DOUBLE_TEXT, number, payload, price
from engine.paper.orders import Execution
from engine.paper.request_ids import SYSTEM as SYSTEM


def server_greeting(version: int, wall_s: float) -> bytes:
    """The answer to the version frame: exactly two fields."""
    stamp = datetime.fromtimestamp(wall_s, NEW_YORK)
    return payload(version, f"{stamp:%Y%m%d %H:%M:%S} {TIME_ZONE}")


def error(version: int, req_id: int, code: int, message: str, reject_json: str = "") -> bytes:
    if version >= 166:
        return payload(4, 2, req_id, code, message, reject_json)
    return payload(4, 2, req_id, code, message)


def managed_accounts(account: str) -> bytes:
    return payload(15, 1, account)


def next_valid_id(order_id: int) -> bytes:
    return payload(9, 1, order_id)


def current_time(wall_s: float) -> bytes:
    return payload(49, 1, int(wall_s))


def tick_price(req_id: int, tick_type: int, value: float, size: float, mask: int = 1) -> bytes:
    return payload(1, 6, req_id, tick_type, price(value), number(size), mask)


def tick_size(req_id: int, tick_type: int, size: float) -> bytes:
    return payload(2, 6, req_id, tick_type, number(size))


def tick_generic(req_id: int, tick_type: int, value: float) -> bytes:
    return payload(45, 6, req_id, tick_type, number(value))


def tick_string(req_id: int, tick_type: int, value: str) -> bytes:
    return payload(46, 6, req_id, tick_type, value)


def tick_snapshot_end(req_id: int) -> bytes:
    return payload(57, 1, req_id)


def market_data_type(req_id: int, kind: int) -> bytes:
    return payload(58, 1, req_id, kind)


def tick_req_params(req_id: int, min_tick: float, bbo_exchange: str) -> bytes:
    return payload(81, req_id, number(min_tick), bbo_exchange, 3)


def order_status(
    order_id: int,
    status: str,
    filled: float,
    remaining: float,
    average_price: float,
    perm_id: int,
    last_price: float,
    client_id: int,
    parent_order_id: int = 0,
) -> bytes:
    # whyHeld and mktCapPrice end it.
    return (
        f"3\0{order_id}\0{status}\0{number(filled)}\0{number(remaining)}\0{price(average_price)}\0{perm_id}\0"
        f"{parent_order_id}\0{price(last_price)}\0{client_id}\0\x000\0"
    ).encode("ascii")


def exec_details(req_id: int, instrument: Instrument, execution: Execution) -> bytes:
    stamp = datetime.fromtimestamp(execution.wall_s, NEW_YORK)
    return payload(
        11,
        req_id,
        execution.order_id,
        *contract_fields(instrument, "SMART"),
        execution.exec_id,
        f"{stamp:%Y%m%d %H:%M:%S} {TIME_ZONE}",
        execution.account,
        execution.exchange,
        "BOT" if execution.action == "BUY" else "SLD",
        number(execution.quantity),
        price(execution.price),
        execution.perm_id,
        execution.client_id,
        0,  # liquidation
        number(execution.cumulative),
        price(execution.average_price),
        execution.order_ref,
        "",  # evRule
        "",  # evMultiplier
        "",  # modelCode
        execution.liquidity,
    )


def exec_details_end(req_id: int) -> bytes:
    return payload(55, 1, req_id)


def commission_report(execution: Execution) -> bytes:
    realized = UNSET_DOUBLE_TEXT if math.isnan(execution.realized) else price(execution.realized)
    return payload(59, 1, execution.exec_id, price(execution.commission), "USD", realized, UNSET_DOUBLE_TEXT, "")


def order_bound(perm_id: int, client_id: int, order_id: int) -> bytes:
    return payload(100, perm_id, client_id, order_id)


def open_order_end() -> bytes:
    return payload(53, 1)


def completed_orders_end() -> bytes:
    return payload(102)


def contract_details(version: int, req_id: int, instrument: Instrument, exchange: str, hours: str) -> bytes:
    fields = details_fields(instrument, exchange, hours, version)
    if version < 164:
        return payload(10, 8, req_id, *fields)
    return payload(10, req_id, *fields)


def contract_details_end(req_id: int) -> bytes:
    return payload(52, 1, req_id)


def account_value(key: str, value: str, currency: str, account: str) -> bytes:
    return payload(6, 2, key, value, currency, account)


def account_time(wall_s: float) -> bytes:
    return payload(8, 1, f"{datetime.fromtimestamp(wall_s, NEW_YORK):%H:%M}")


def account_download_end(account: str) -> bytes:
    return payload(54, 1, account)


def portfolio(
    instrument: Instrument,
    quantity: float,
    mark: float,
    average_cost: float,
    unrealized: float,
    realized: float,
    account: str,
) -> bytes:
    return payload(
        7,
        8,
        instrument.con_id,
        instrument.symbol,
        instrument.sec_type,
        "",
        "0",
        "0",
        "",
        instrument.primary_exchange,
        instrument.currency,
        local_symbol(instrument),
        trading_class(instrument),
        number(quantity),
        price(mark),
        price(quantity * mark),
        price(average_cost),
        price(unrealized),
        price(realized),
        account,
    )


def position(instrument: Instrument, quantity: float, average_cost: float, account: str) -> bytes:
    # The exchange is empty in the broker's position rows.
    fields = list(contract_fields(instrument))
    fields[7] = ""
    return payload(61, 3, account, *fields, number(quantity), price(average_cost))


def position_end() -> bytes:
    return payload(62, 1)


def position_multi(req_id: int, instrument: Instrument, quantity: float, average_cost: float, account: str) -> bytes:
    return payload(71, 1, req_id, account, *contract_fields(instrument), number(quantity), price(average_cost), "")


def position_multi_end(req_id: int) -> bytes:
    return payload(72, 1, req_id)


def account_update_multi(req_id: int, account: str, key: str, value: str, currency: str) -> bytes:
    return payload(73, 1, req_id, account, "", key, value, currency)


def account_update_multi_end(req_id: int) -> bytes:
    return payload(74, 1, req_id)


def account_summary(req_id: int, account: str, tag: str, value: str, currency: str) -> bytes:
    return payload(63, 1, req_id, account, tag, value, currency)


def account_summary_end(req_id: int) -> bytes:
    return payload(64, 1, req_id)


def pnl(req_id: int, daily: float, unrealized: float, realized: float) -> bytes:
    return payload(94, req_id, price(daily), price(unrealized), price(realized))


def pnl_single(req_id: int, quantity: float, daily: float, unrealized: float, realized: float, value: float) -> bytes:
    return payload(95, req_id, number(quantity), price(daily), price(unrealized), price(realized), price(value))


def depth_exchanges(rows: Iterable[Sequence[object]]) -> bytes:
    listed = list(rows)
    return payload(80, len(listed), *(value for row in listed for value in row))


def smart_components(req_id: int, rows: Iterable[Sequence[object]]) -> bytes:
    listed = list(rows)
    return payload(82, req_id, len(listed), *(value for row in listed for value in row))


def market_rule(rule_id: int, steps: Sequence[tuple[float, float]]) -> bytes:
    return payload(93, rule_id, len(steps), *(number(value) for step in steps for value in step))


def head_timestamp(req_id: int, start_s: int, date_format: int) -> bytes:
    """Epoch seconds for format 2, the time in UTC otherwise."""
    stamp = str(start_s) if date_format == 2 else f"{datetime.fromtimestamp(start_s, UTC):%Y%m%d-%H:%M:%S}"
    return payload(88, req_id, stamp)


def symbol_samples(version: int, req_id: int, instruments: Sequence[Instrument]) -> bytes:
    values: list[object] = [79, req_id, len(instruments)]
    for i in instruments:
        values += [i.con_id, i.symbol, i.sec_type, i.primary_exchange, i.currency, 0]
        if version >= 176:
            values += [i.long_name, ""]
    return payload(*values)


def family_codes(account: str) -> bytes:
    return payload(78, 1, account, "")


def sec_def_opt_params_end(req_id: int) -> bytes:
    return payload(76, req_id)


def news_providers() -> bytes:
    """None: news are not simulated."""
    return payload(85, 0)


def scanner_parameters() -> bytes:
    """The document of a broker without scanners."""
    return payload(19, 1, '<?xml version="1.0" encoding="UTF-8"?><ScanParameterResponse></ScanParameterResponse>')


def soft_dollar_tiers(req_id: int) -> bytes:
    return payload(77, req_id, 0)


def user_info(req_id: int) -> bytes:
    return payload(107, req_id, "")


def real_time_bar(req_id: int, wall_s: int, bar: Sequence[float]) -> bytes:
    """``bar``: open, high, low, close, volume, wap, count."""
    opened, high, low, close, volume, wap, count = bar
    return payload(
        50,
        3,
        req_id,
        wall_s,
        price(opened),
        price(high),
        price(low),
        price(close),
        number(volume),
        price(wap),
        int(count),
    )


def historical_data(req_id: int, start: str, end: str, bars: Sequence[tuple[str, Sequence[float]]]) -> bytes:
    values: list[object] = [17, req_id, start, end, len(bars)]
    for stamp, (opened, high, low, close, volume, wap, count) in bars:
        values += [stamp, price(opened), price(high), price(low), price(close), number(volume), price(wap), int(count)]
    return payload(*values)


def historical_data_update(req_id: int, stamp: str, bar: Sequence[float]) -> bytes:
    opened, high, low, close, volume, wap, count = bar
    return payload(
        90, req_id, int(count), stamp, price(opened), price(close), price(high), price(low), price(wap), number(volume)
    )


def historical_ticks(message_id: int, req_id: int, rows: Sequence[Sequence[object]]) -> bytes:
    """Messages 96 (mid), 97 (bid and ask) and 98 (trades), told apart by the fields of a row."""
    return payload(message_id, req_id, len(rows), *(value for row in rows for value in row), 1)


def tick_by_tick_last(req_id: int, kind: int, wall_s: int, value: float, size: float, exchange: str) -> bytes:
    return payload(99, req_id, kind, wall_s, price(value), number(size), 0, exchange, "")


def tick_by_tick_bid_ask(req_id: int, wall_s: int, bid: float, ask: float, bid_size: float, ask_size: float) -> bytes:
    return payload(99, req_id, 3, wall_s, price(bid), price(ask), number(bid_size), number(ask_size), 0)


def tick_by_tick_mid(req_id: int, wall_s: int, mid: float) -> bytes:
    return payload(99, req_id, 4, wall_s, price(mid))
