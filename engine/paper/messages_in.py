"""Requests of a client, read from their fields into small values. One reader per message id in ``READERS``."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from engine.paper.client_requests import (
    AccountUpdates,
    Bare,
    ById,
    CancelOrder,
    ContractRequest,
    Executions,
    ForAccount,
    HistoricalData,
    HistoricalTicks,
    MktData,
    MktDepth,
    Named,
    Numbered,
    RealTimeBars,
    Request,
    StartApi,
    TickByTick,
)
from engine.paper.fields import UNSET_INTEGER, FieldError, FieldReader
from engine.paper.place_order import read_contract, read_place_order


class In(IntEnum):
    """Message ids that the gateway answers."""

    MKT_DATA = 1
    CANCEL_MKT_DATA = 2
    PLACE_ORDER = 3
    CANCEL_ORDER = 4
    OPEN_ORDERS = 5
    ACCOUNT_UPDATES = 6
    EXECUTIONS = 7
    IDS = 8
    CONTRACT_DETAILS = 9
    MKT_DEPTH = 10
    CANCEL_MKT_DEPTH = 11
    LOG_LEVEL = 14
    AUTO_OPEN_ORDERS = 15
    ALL_OPEN_ORDERS = 16
    MANAGED_ACCOUNTS = 17
    HISTORICAL_DATA = 20
    CANCEL_HISTORICAL_DATA = 25
    CURRENT_TIME = 49
    REAL_TIME_BARS = 50
    CANCEL_REAL_TIME_BARS = 51
    GLOBAL_CANCEL = 58
    MARKET_DATA_TYPE = 59
    POSITIONS = 61
    ACCOUNT_SUMMARY = 62
    CANCEL_ACCOUNT_SUMMARY = 63
    CANCEL_POSITIONS = 64
    START_API = 71
    POSITIONS_MULTI = 74
    CANCEL_POSITIONS_MULTI = 75
    ACCOUNT_UPDATES_MULTI = 76
    CANCEL_ACCOUNT_UPDATES_MULTI = 77
    SEC_DEF_OPT_PARAMS = 78
    FAMILY_CODES = 80
    MATCHING_SYMBOLS = 81
    DEPTH_EXCHANGES = 82
    SMART_COMPONENTS = 83
    HEAD_TIMESTAMP = 87
    CANCEL_HEAD_TIMESTAMP = 90
    MARKET_RULE = 91
    PNL = 92
    CANCEL_PNL = 93
    PNL_SINGLE = 94
    CANCEL_PNL_SINGLE = 95
    HISTORICAL_TICKS = 96
    TICK_BY_TICK = 97
    CANCEL_TICK_BY_TICK = 98
    COMPLETED_ORDERS = 99
    USER_INFO = 104


Reader = Callable[[FieldReader, int], Request]


def _bare(reader: FieldReader, version: int) -> Request:
    return Bare()


def _by_id(reader: FieldReader, version: int) -> Request:
    """Requests of the older kind, with a version before the id."""
    reader.skip("version")
    return ById(reader.integer("reqId"))


def _by_plain_id(reader: FieldReader, version: int) -> Request:
    return ById(reader.integer("reqId"))


def _start_api(reader: FieldReader, version: int) -> Request:
    reader.skip("version")
    return StartApi(reader.integer("clientId"))


def _mkt_data(reader: FieldReader, version: int) -> Request:
    reader.skip("version")
    req_id = reader.integer("reqId")
    contract = read_contract(reader)
    if contract.sec_type == "BAG":
        for _ in range(reader.count_of("comboLegs")):
            reader.skip("conId ratio action exchange")
    if reader.flag("deltaNeutralContract"):
        reader.skip("conId delta price")
    generic = frozenset(part.strip() for part in reader.text("genericTickList").split(",") if part.strip())
    return MktData(req_id, contract, generic, reader.flag("snapshot"))


def _mkt_depth(reader: FieldReader, version: int) -> Request:
    reader.skip("version")
    req_id = reader.integer("reqId")
    contract = read_contract(reader)
    rows = reader.integer("numRows")
    return MktDepth(req_id, contract, rows, reader.flag("isSmartDepth"))


def _cancel_order(reader: FieldReader, version: int) -> Request:
    reader.skip("version")
    order_id = reader.integer("orderId")
    if version >= 169:
        reader.skip("manualOrderCancelTime")
    return CancelOrder(order_id)


def _account_updates(reader: FieldReader, version: int) -> Request:
    reader.skip("version")
    return AccountUpdates(reader.flag("subscribe"), reader.text("acctCode"))


def _executions(reader: FieldReader, version: int) -> Request:
    reader.skip("version")
    req_id = reader.integer("reqId")
    client_id = reader.integer("clientId")
    names = ("acctCode", "time", "symbol", "secType", "exchange", "side")
    return Executions(req_id, 0 if client_id == UNSET_INTEGER else client_id, *(reader.text(n) for n in names))


def _contract_details(reader: FieldReader, version: int) -> Request:
    reader.skip("version")
    return ContractRequest(reader.integer("reqId"), read_contract(reader))


def _head_timestamp(reader: FieldReader, version: int) -> Request:
    return ContractRequest(reader.integer("reqId"), read_contract(reader))


def _historical_data(reader: FieldReader, version: int) -> Request:
    req_id = reader.integer("reqId")
    contract = read_contract(reader)
    reader.skip("includeExpired")
    end, bar_size, duration = reader.text("endDateTime"), reader.text("barSize"), reader.text("duration")
    reader.skip("useRTH")
    what, date_format = reader.text("whatToShow"), reader.integer("formatDate", 1)
    if contract.sec_type == "BAG":
        for _ in range(reader.count_of("comboLegs")):
            reader.skip("conId ratio action exchange")
    return HistoricalData(req_id, contract, end, bar_size, duration, what, date_format, reader.flag("keepUpToDate"))


def _historical_ticks(reader: FieldReader, version: int) -> Request:
    req_id = reader.integer("reqId")
    contract = read_contract(reader)
    reader.skip("includeExpired")
    start, end = reader.text("startDateTime"), reader.text("endDateTime")
    return HistoricalTicks(req_id, contract, start, end, reader.integer("numberOfTicks"), reader.text("whatToShow"))


def _real_time_bars(reader: FieldReader, version: int) -> Request:
    reader.skip("version")
    req_id = reader.integer("reqId")
    contract = read_contract(reader)
    reader.skip("barSize")
    return RealTimeBars(req_id, contract, reader.text("whatToShow"))


def _tick_by_tick(reader: FieldReader, version: int) -> Request:
    req_id = reader.integer("reqId")
    contract = read_contract(reader)
    tick_type = reader.text("tickType")
    if tick_type not in ("Last", "AllLast", "BidAsk", "MidPoint"):
        raise FieldError(f"field 'tickType' is {tick_type[:20]!r}, allowed are Last, AllLast, BidAsk, MidPoint")
    return TickByTick(req_id, contract, tick_type)


def _account_summary(reader: FieldReader, version: int) -> Request:
    reader.skip("version")
    req_id = reader.integer("reqId")
    reader.skip("groupName")
    return Named(req_id, reader.text("tags"))


def _multi(reader: FieldReader, version: int) -> Request:
    reader.skip("version")
    return ForAccount(reader.integer("reqId"), reader.text("account"), 0)


def _pnl(reader: FieldReader, version: int) -> Request:
    return ForAccount(reader.integer("reqId"), reader.text("account"), 0)


def _pnl_single(reader: FieldReader, version: int) -> Request:
    req_id, account = reader.integer("reqId"), reader.text("account")
    reader.skip("modelCode")
    return ForAccount(req_id, account, reader.integer("conId"))


def _named(reader: FieldReader, version: int) -> Request:
    return Named(reader.integer("reqId"), reader.text("name"))


def _market_rule(reader: FieldReader, version: int) -> Request:
    return Numbered(reader.integer("marketRuleId"))


def _versioned_number(reader: FieldReader, version: int) -> Request:
    reader.skip("version")
    return Numbered(reader.integer("value"))


READERS: dict[int, Reader] = {
    In.MKT_DATA: _mkt_data,
    In.CANCEL_MKT_DATA: _by_id,
    In.PLACE_ORDER: read_place_order,
    In.CANCEL_ORDER: _cancel_order,
    In.OPEN_ORDERS: _bare,
    In.ACCOUNT_UPDATES: _account_updates,
    In.EXECUTIONS: _executions,
    In.IDS: _bare,
    In.CONTRACT_DETAILS: _contract_details,
    In.MKT_DEPTH: _mkt_depth,
    In.CANCEL_MKT_DEPTH: _by_id,
    In.LOG_LEVEL: _bare,
    In.AUTO_OPEN_ORDERS: _versioned_number,
    In.ALL_OPEN_ORDERS: _bare,
    In.MANAGED_ACCOUNTS: _bare,
    In.HISTORICAL_DATA: _historical_data,
    In.CANCEL_HISTORICAL_DATA: _by_id,
    In.CURRENT_TIME: _bare,
    In.REAL_TIME_BARS: _real_time_bars,
    In.CANCEL_REAL_TIME_BARS: _by_id,
    In.GLOBAL_CANCEL: _bare,
    In.MARKET_DATA_TYPE: _versioned_number,
    In.POSITIONS: _bare,
    In.ACCOUNT_SUMMARY: _account_summary,
    In.CANCEL_ACCOUNT_SUMMARY: _by_id,
    In.CANCEL_POSITIONS: _bare,
    In.START_API: _start_api,
    In.POSITIONS_MULTI: _multi,
    In.CANCEL_POSITIONS_MULTI: _by_id,
    In.ACCOUNT_UPDATES_MULTI: _multi,
    In.CANCEL_ACCOUNT_UPDATES_MULTI: _by_id,
    In.SEC_DEF_OPT_PARAMS: _by_plain_id,
    In.FAMILY_CODES: _bare,
    In.MATCHING_SYMBOLS: _named,
    In.DEPTH_EXCHANGES: _bare,
    In.SMART_COMPONENTS: _named,
    In.HEAD_TIMESTAMP: _head_timestamp,
    In.CANCEL_HEAD_TIMESTAMP: _by_plain_id,
    In.MARKET_RULE: _market_rule,
    In.PNL: _pnl,
    In.CANCEL_PNL: _by_plain_id,
    In.PNL_SINGLE: _pnl_single,
    In.CANCEL_PNL_SINGLE: _by_plain_id,
    In.HISTORICAL_TICKS: _historical_ticks,
    In.TICK_BY_TICK: _tick_by_tick,
    In.CANCEL_TICK_BY_TICK: _by_plain_id,
    In.COMPLETED_ORDERS: _bare,
    In.USER_INFO: _by_plain_id,
}
