"""Which requests carry an id of their client, and where: an error has to reach the call that waits for an answer."""

from __future__ import annotations

from collections.abc import Mapping

from engine.paper.messages_in import In

SYSTEM = -1
"""Request id of messages that concern no request."""

UNSUPPORTED: Mapping[int, tuple[str, int]] = {
    18: ("requestFA", 0),
    19: ("replaceFA", 4),
    21: ("exerciseOptions", 2),
    22: ("reqScannerSubscription", 1),
    23: ("cancelScannerSubscription", 2),
    52: ("reqFundamentalData", 2),
    53: ("cancelFundamentalData", 2),
    54: ("calculateImpliedVolatility", 2),
    55: ("calculateOptionPrice", 2),
    56: ("cancelCalculateImpliedVolatility", 2),
    57: ("cancelCalculateOptionPrice", 2),
    65: ("verifyRequest", 0),
    66: ("verifyMessage", 0),
    67: ("queryDisplayGroups", 2),
    68: ("subscribeToGroupEvents", 2),
    69: ("updateDisplayGroup", 2),
    70: ("unsubscribeFromGroupEvents", 2),
    72: ("verifyAndAuthRequest", 0),
    73: ("verifyAndAuthMessage", 0),
    84: ("reqNewsArticle", 1),
    86: ("reqHistoricalNews", 1),
    88: ("reqHistogramData", 1),
    89: ("cancelHistogramData", 1),
    100: ("reqWshMetaData", 1),
    101: ("cancelWshMetaData", 1),
    102: ("reqWshEventData", 1),
    103: ("cancelWshEventData", 1),
}
"""Requests of the protocol that are not answered here: name of the call, and which field is its id (0: it has none)."""

ADVISER_ONLY = frozenset((18, 19))
"""Those that the broker answers to financial advisers only, whoever asks."""

_FIRST = (
    In.PLACE_ORDER,
    In.HISTORICAL_DATA,
    In.SEC_DEF_OPT_PARAMS,
    In.SOFT_DOLLAR_TIERS,
    In.MATCHING_SYMBOLS,
    In.SMART_COMPONENTS,
    In.HEAD_TIMESTAMP,
    In.CANCEL_HEAD_TIMESTAMP,
    In.PNL,
    In.CANCEL_PNL,
    In.PNL_SINGLE,
    In.CANCEL_PNL_SINGLE,
    In.HISTORICAL_TICKS,
    In.TICK_BY_TICK,
    In.CANCEL_TICK_BY_TICK,
    In.USER_INFO,
)
_SECOND = (
    In.MKT_DATA,
    In.CANCEL_MKT_DATA,
    In.CANCEL_ORDER,
    In.EXECUTIONS,
    In.CONTRACT_DETAILS,
    In.MKT_DEPTH,
    In.CANCEL_MKT_DEPTH,
    In.CANCEL_HISTORICAL_DATA,
    In.REAL_TIME_BARS,
    In.CANCEL_REAL_TIME_BARS,
    In.ACCOUNT_SUMMARY,
    In.CANCEL_ACCOUNT_SUMMARY,
    In.POSITIONS_MULTI,
    In.CANCEL_POSITIONS_MULTI,
    In.ACCOUNT_UPDATES_MULTI,
    In.CANCEL_ACCOUNT_UPDATES_MULTI,
)
ID_FIELD: Mapping[int, int] = {
    **dict.fromkeys(map(int, _FIRST), 1),
    **dict.fromkeys(map(int, _SECOND), 2),
    **{message_id: field for message_id, (_, field) in UNSUPPORTED.items() if field},
}
"""Which field of a request is its id, by message id."""


def concerned(fields: list[str], message_id: int) -> int:
    """Request or order id of a request that can't be carried out; SYSTEM if it has none, or none that can be read."""
    position = ID_FIELD.get(message_id, 0)
    if 0 < position < len(fields):
        text = fields[position]
        if text.isascii() and text.isdigit() and len(text) < 12:
            return int(text)
    return SYSTEM
