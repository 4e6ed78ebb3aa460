"""Requests of a client, read from their fields into small values. One reader per message id in ``READERS``.

A reader reads every field of its layout: who calls it checks that none is left over.
"""

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
    HeadTimestamp,
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
    NEWS_BULLETINS = 12
    CANCEL_NEWS_BULLETINS = 13
    LOG_LEVEL = 14
    AUTO_OPEN_ORDERS = 15
    ALL_OPEN_ORDERS = 16
    MANAGED_ACCOUNTS = 17
    HISTORICAL_DATA = 20
    SCANNER_PARAMETERS = 24
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
    SOFT_DOLLAR_TIERS = 79
    FAMILY_CODES = 80
    MATCHING_SYMBOLS = 81
    DEPTH_EXCHANGES = 82
    SMART_COMPONENTS = 83
    NEWS_PROVIDERS = 85
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


def _version(reader: FieldReader) -> None:
    """Requests of the older kind begin with a version of their own."""
    reader.integer("version")


def _bare(reader: FieldReader, version: int) -> Request:
    return Bare()


def _bare_versioned(reader: FieldReader, version: int) -> Request:
    _version(reader)
    return Bare()


def _by_id(reader: FieldReader, version: int) -> Request:
    _version(reader)
    return ById(reader.integer("reqId"))


def _by_plain_id(reader: FieldReader, version: int) -> Request:
    return ById(reader.integer("reqId"))


def _start_api(reader: FieldReader, version: int) -> Request:
    _version(reader)
    client_id = reader.integer("clientId")
    reader.text("optionalCapabilities")
    return StartApi(client_id)


def _skip_legs(reader: FieldReader) -> None:
    for _ in range(reader.count_of("comboLegs")):
        reader.skip("conId ratio action exchange")


def _mkt_data(reader: FieldReader, version: int) -> Request:
    _version(reader)
    req_id = reader.integer("reqId")
    contract = read_contract(reader)
    if contract.sec_type == "BAG":
        _skip_legs(reader)
    if reader.flag("deltaNeutralContract"):
        reader.skip("conId delta price")
    generic = frozenset(part.strip() for part in reader.text("genericTickList").split(",") if part.strip())
    snapshot, regulatory = reader.flag("snapshot"), reader.flag("regulatorySnapshot")
    reader.text("mktDataOptions")
    return MktData(req_id, contract, generic, snapshot or regulatory)


def _mkt_depth(reader: FieldReader, version: int) -> Request:
    _version(reader)
    req_id = reader.integer("reqId")
    contract = read_contract(reader)
    rows, smart = reader.integer("numRows"), reader.flag("isSmartDepth")
    reader.text("mktDepthOptions")
    return MktDepth(req_id, contract, rows, smart)


def _cancel_mkt_depth(reader: FieldReader, version: int) -> Request:
    _version(reader)
    req_id = reader.integer("reqId")
    reader.flag("isSmartDepth")
    return ById(req_id)


def _cancel_order(reader: FieldReader, version: int) -> Request:
    _version(reader)
    order_id = reader.integer("orderId")
    if version >= 169:
        reader.text("manualOrderCancelTime")
    return CancelOrder(order_id)


def _account_updates(reader: FieldReader, version: int) -> Request:
    _version(reader)
    return AccountUpdates(reader.flag("subscribe"), reader.text("acctCode"))


def _executions(reader: FieldReader, version: int) -> Request:
    _version(reader)
    req_id = reader.integer("reqId")
    client_id = reader.integer("clientId")
    names = ("acctCode", "time", "symbol", "secType", "exchange", "side")
    return Executions(req_id, 0 if client_id == UNSET_INTEGER else client_id, *(reader.text(n) for n in names))


def _completed_orders(reader: FieldReader, version: int) -> Request:
    return Numbered(int(reader.flag("apiOnly")))


def _contract_details(reader: FieldReader, version: int) -> Request:
    _version(reader)
    req_id, contract = reader.integer("reqId"), read_contract(reader)
    reader.skip("includeExpired secIdType secId")
    if version >= 176:
        reader.text("issuerId")
    return ContractRequest(req_id, contract)


def _head_timestamp(reader: FieldReader, version: int) -> Request:
    req_id, contract = reader.integer("reqId"), read_contract(reader)
    reader.flag("includeExpired")
    use_rth, what = reader.flag("useRTH"), reader.text("whatToShow")
    return HeadTimestamp(req_id, contract, what, use_rth, _date_format(reader))


def _date_format(reader: FieldReader) -> int:
    found = reader.integer("formatDate", 1)
    if found not in (1, 2):
        raise FieldError(f"field 'formatDate' is {found}, allowed are 1 and 2")
    return found


def _historical_data(reader: FieldReader, version: int) -> Request:
    req_id = reader.integer("reqId")
    contract = read_contract(reader)
    reader.flag("includeExpired")
    end, bar_size, duration = reader.text("endDateTime"), reader.text("barSize"), reader.text("duration")
    use_rth, what, date_format = reader.flag("useRTH"), reader.text("whatToShow"), _date_format(reader)
    if contract.sec_type == "BAG":
        _skip_legs(reader)
    keep = reader.flag("keepUpToDate")
    reader.text("chartOptions")
    return HistoricalData(req_id, contract, end, bar_size, duration, what, date_format, use_rth, keep)


def _historical_ticks(reader: FieldReader, version: int) -> Request:
    req_id = reader.integer("reqId")
    contract = read_contract(reader)
    reader.flag("includeExpired")
    start, end = reader.text("startDateTime"), reader.text("endDateTime")
    count, what = reader.integer("numberOfTicks"), reader.text("whatToShow")
    use_rth, ignore_size = reader.flag("useRth"), reader.flag("ignoreSize")
    reader.text("miscOptions")
    return HistoricalTicks(req_id, contract, start, end, count, what, use_rth, ignore_size)


def _real_time_bars(reader: FieldReader, version: int) -> Request:
    _version(reader)
    req_id = reader.integer("reqId")
    contract = read_contract(reader)
    width_s, what, use_rth = reader.integer("barSize"), reader.text("whatToShow"), reader.flag("useRTH")
    reader.text("realTimeBarsOptions")
    return RealTimeBars(req_id, contract, width_s, what, use_rth)


def _tick_by_tick(reader: FieldReader, version: int) -> Request:
    req_id = reader.integer("reqId")
    contract = read_contract(reader)
    tick_type = reader.text("tickType")
    if tick_type not in ("Last", "AllLast", "BidAsk", "MidPoint"):
        raise FieldError(f"field 'tickType' is {tick_type[:20]!r}, allowed are Last, AllLast, BidAsk, MidPoint")
    return TickByTick(req_id, contract, tick_type, reader.integer("numberOfTicks"), reader.flag("ignoreSize"))


def _account_summary(reader: FieldReader, version: int) -> Request:
    _version(reader)
    req_id = reader.integer("reqId")
    reader.text("groupName")
    return Named(req_id, reader.text("tags"))


def _positions_multi(reader: FieldReader, version: int) -> Request:
    _version(reader)
    return _for_account(reader)


def _for_account(reader: FieldReader) -> ForAccount:
    req_id, account = reader.integer("reqId"), reader.text("account")
    reader.text("modelCode")
    return ForAccount(req_id, account, 0)


def _account_updates_multi(reader: FieldReader, version: int) -> Request:
    _version(reader)
    request = _for_account(reader)
    reader.flag("ledgerAndNLV")
    return request


def _pnl(reader: FieldReader, version: int) -> Request:
    return _for_account(reader)


def _pnl_single(reader: FieldReader, version: int) -> Request:
    request = _for_account(reader)
    return ForAccount(request.req_id, request.account, reader.integer("conId"))


def _sec_def_opt_params(reader: FieldReader, version: int) -> Request:
    req_id = reader.integer("reqId")
    reader.skip("underlyingSymbol futFopExchange underlyingSecType underlyingConId")
    return ById(req_id)


def _named(reader: FieldReader, version: int) -> Request:
    return Named(reader.integer("reqId"), reader.text("name"))


def _market_rule(reader: FieldReader, version: int) -> Request:
    return Numbered(reader.integer("marketRuleId"))


def _versioned_number(reader: FieldReader, version: int) -> Request:
    _version(reader)
    return Numbered(reader.integer("value"))


READERS: dict[int, Reader] = {
    In.MKT_DATA: _mkt_data,
    In.CANCEL_MKT_DATA: _by_id,
    In.PLACE_ORDER: read_place_order,
    In.CANCEL_ORDER: _cancel_order,
    In.OPEN_ORDERS: _bare_versioned,
    In.ACCOUNT_UPDATES: _account_updates,
    In.EXECUTIONS: _executions,
    In.IDS: _versioned_number,
    In.CONTRACT_DETAILS: _contract_details,
    In.MKT_DEPTH: _mkt_depth,
    In.CANCEL_MKT_DEPTH: _cancel_mkt_depth,
    In.NEWS_BULLETINS: _versioned_number,
    In.CANCEL_NEWS_BULLETINS: _bare_versioned,
    In.LOG_LEVEL: _versioned_number,
    In.AUTO_OPEN_ORDERS: _versioned_number,
    In.ALL_OPEN_ORDERS: _bare_versioned,
    In.MANAGED_ACCOUNTS: _bare_versioned,
    In.HISTORICAL_DATA: _historical_data,
    In.CANCEL_HISTORICAL_DATA: _by_id,
    In.SCANNER_PARAMETERS: _bare_versioned,
    In.CURRENT_TIME: _bare_versioned,
    In.REAL_TIME_BARS: _real_time_bars,
    In.CANCEL_REAL_TIME_BARS: _by_id,
    In.GLOBAL_CANCEL: _bare_versioned,
    In.MARKET_DATA_TYPE: _versioned_number,
    In.POSITIONS: _bare_versioned,
    In.ACCOUNT_SUMMARY: _account_summary,
    In.CANCEL_ACCOUNT_SUMMARY: _by_id,
    In.CANCEL_POSITIONS: _bare_versioned,
    In.START_API: _start_api,
    In.POSITIONS_MULTI: _positions_multi,
    In.CANCEL_POSITIONS_MULTI: _by_id,
    In.ACCOUNT_UPDATES_MULTI: _account_updates_multi,
    In.CANCEL_ACCOUNT_UPDATES_MULTI: _by_id,
    In.SEC_DEF_OPT_PARAMS: _sec_def_opt_params,
    In.SOFT_DOLLAR_TIERS: _by_plain_id,
    In.FAMILY_CODES: _bare,
    In.MATCHING_SYMBOLS: _named,
    In.DEPTH_EXCHANGES: _bare,
    In.SMART_COMPONENTS: _named,
    In.NEWS_PROVIDERS: _bare,
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
    In.COMPLETED_ORDERS: _completed_orders,
    In.USER_INFO: _by_plain_id,
}
