"""What a user may ask of the gateway: every request it answers, in the words of a client library and in its own.

docs/PAPER_GATEWAY.md is generated from this table; a test compares it with the readers and handlers.
"""

from __future__ import annotations

from engine.paper.messages_in import In

REQUESTS: dict[In, tuple[str, str]] = {
    In.START_API: ("connect", "accounts, next order id, farm notices 2104, 2106, 2158; 326 if the client id is in use"),
    In.IDS: ("reqIds", "the next order id of this client; it rises over restarts"),
    In.MANAGED_ACCOUNTS: ("reqManagedAccts", "the one account"),
    In.CURRENT_TIME: ("reqCurrentTime", "seconds; a second one within a second stays unanswered, as at the broker"),
    In.LOG_LEVEL: ("setServerLogLevel", "accepted, no effect"),
    In.MARKET_DATA_TYPE: ("reqMarketDataType", "accepted; data is always live"),
    In.NEWS_BULLETINS: ("reqNewsBulletins", "accepted; there are none"),
    In.CANCEL_NEWS_BULLETINS: ("cancelNewsBulletins", "accepted"),
    In.NEWS_PROVIDERS: ("reqNewsProviders", "none"),
    In.SCANNER_PARAMETERS: ("reqScannerParameters", "a document without scanners"),
    In.SOFT_DOLLAR_TIERS: ("reqSoftDollarTiers", "none"),
    In.USER_INFO: ("reqUserInfo", "empty white branding id"),
    In.FAMILY_CODES: ("reqFamilyCodes", "the account without a family code"),
    In.ACCOUNT_UPDATES: ("reqAccountUpdates", "account values, portfolio, end; then what has changed"),
    In.ACCOUNT_UPDATES_MULTI: ("reqAccountUpdatesMulti", "account values, end; then what has changed"),
    In.CANCEL_ACCOUNT_UPDATES_MULTI: ("cancelAccountUpdatesMulti", "ends it"),
    In.ACCOUNT_SUMMARY: ("reqAccountSummary", "the tags asked for, end; then what has changed"),
    In.CANCEL_ACCOUNT_SUMMARY: ("cancelAccountSummary", "ends it"),
    In.POSITIONS: ("reqPositions", "positions, end; then what has changed"),
    In.CANCEL_POSITIONS: ("cancelPositions", "ends it"),
    In.POSITIONS_MULTI: ("reqPositionsMulti", "positions, end; then what has changed"),
    In.CANCEL_POSITIONS_MULTI: ("cancelPositionsMulti", "ends it"),
    In.PNL: ("reqPnL", "daily, unrealized and realized, about once a second"),
    In.CANCEL_PNL: ("cancelPnL", "ends it"),
    In.PNL_SINGLE: ("reqPnLSingle", "the same for one position"),
    In.CANCEL_PNL_SINGLE: ("cancelPnLSingle", "ends it"),
    In.CONTRACT_DETAILS: ("reqContractDetails", "details, end; 200 if unknown, 321 for no valid security type"),
    In.MATCHING_SYMBOLS: ("reqMatchingSymbols", "symbols and names that contain the text"),
    In.MARKET_RULE: ("reqMarketRule", "price increments; 321 for an unknown rule"),
    In.DEPTH_EXCHANGES: ("reqMktDepthExchanges", "the venues"),
    In.SMART_COMPONENTS: ("reqSmartComponents", "bit numbers and letters of the venues"),
    In.SEC_DEF_OPT_PARAMS: ("reqSecDefOptParams", "the end alone: no options are traded"),
    In.MKT_DATA: (
        "reqMktData",
        "bid, ask, last, sizes, open, high, low, close, volume, halted; generic ticks 221 (mark), 233, 236, 375, "
        "others 10090 if the broker has them, else 321; snapshots",
    ),
    In.CANCEL_MKT_DATA: ("cancelMktData", "ends it; 300 if there is none"),
    In.MKT_DEPTH: (
        "reqMktDepth",
        "all rows, then every change; smart depth (message 13) or one venue (12); 309, 310, 316, 317, 321, 322, 10092",
    ),
    In.CANCEL_MKT_DEPTH: ("cancelMktDepth", "ends it; 310 if there is none"),
    In.TICK_BY_TICK: ("reqTickByTickData", "Last, AllLast, BidAsk, MidPoint; 10190 above the limit"),
    In.CANCEL_TICK_BY_TICK: ("cancelTickByTickData", "ends it; 300 if there is none"),
    In.REAL_TIME_BARS: ("reqRealTimeBars", "a bar every five seconds"),
    In.CANCEL_REAL_TIME_BARS: ("cancelRealTimeBars", "ends it"),
    In.HISTORICAL_DATA: (
        "reqHistoricalData",
        "TRADES, MIDPOINT, BID, ASK, BID_ASK bars since its start, kept up to date if asked; 162 if there are none",
    ),
    In.CANCEL_HISTORICAL_DATA: ("cancelHistoricalData", "ends updates"),
    In.HEAD_TIMESTAMP: (
        "reqHeadTimeStamp",
        "when its history of TRADES, MIDPOINT, BID, ASK or BID_ASK begins; 162 if there is none",
    ),
    In.CANCEL_HEAD_TIMESTAMP: ("cancelHeadTimeStamp", "accepted, no effect"),
    In.HISTORICAL_TICKS: ("reqHistoricalTicks", "TRADES, BID_ASK or MIDPOINT since its start, at most 1000"),
    In.PLACE_ORDER: ("placeOrder", "a new order, a modification, or margins and commission with whatIf; see Orders"),
    In.CANCEL_ORDER: ("cancelOrder", "202; 10147 if it isn't this client's, 10148 if it can't be cancelled any more"),
    In.GLOBAL_CANCEL: ("reqGlobalCancel", "every working order of the account, of all clients and entered by hand"),
    In.OPEN_ORDERS: ("reqOpenOrders", "this client's orders; client id 0 binds those entered by hand"),
    In.ALL_OPEN_ORDERS: ("reqAllOpenOrders", "everybody's, binding none"),
    In.AUTO_OPEN_ORDERS: ("reqAutoOpenOrders", "client id 0 only: later orders by hand are bound at once"),
    In.COMPLETED_ORDERS: (
        "reqCompletedOrders",
        "orders filled or cancelled today, of all clients (apiOnly: not those by hand), end",
    ),
    In.EXECUTIONS: ("reqExecutions", "executions of the day with their commissions, filtered as asked, end"),
}
"""By message id: the name of the call in most libraries, and what comes back."""
