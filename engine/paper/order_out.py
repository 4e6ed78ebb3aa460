"""openOrder, the longest answer: an order with its state, margins and commission, in the layout of a server version."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from engine.domain.instruments import Instrument
from engine.paper.account import Margins
from engine.paper.catalog import contract_fields
from engine.paper.fields import UNSET_DOUBLE_TEXT, UNSET_INTEGER, encoded, number, price, text
from engine.paper.orders import PaperOrder
from engine.paper.place_order import AckTexts, OrderKind


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Margins before and after a hypothetical order, and its commission in USD."""

    before: Margins
    after: Margins
    commission: float

    def fields(self) -> tuple[str, ...]:
        """Initial, maintenance and equity: before, change, after."""
        before = (self.before.initial, self.before.maintenance, self.before.equity)
        after = (self.after.initial, self.after.maintenance, self.after.equity)
        change = tuple(a - b for a, b in zip(after, before, strict=True))
        return tuple(number(round(value, 2)) for value in before + change + after)


def _run(*values: object) -> str:
    """A run of fields that never change, joined once: most of the message consists of them."""
    return "\0".join(map(text, values))


_NO_MARGINS = _run(*[UNSET_DOUBLE_TEXT] * 9)
_AFTER_OUTSIDE_RTH = _run(
    0,  # hidden
    0,  # discretionaryAmt
    "",  # goodAfterTime
)
_BEFORE_OCA_TYPE = _run(
    "",  # faGroup
    "",  # faMethod
    "",  # faPercentage
    "",  # faProfile
    "",  # modelCode
    "",  # goodTillDate
    "",  # rule80A
    "",  # percentOffset
    "",  # settlingFirm
    0,  # shortSaleSlot
    "",  # designatedLocation
    -1,  # exemptCode
    0,  # auctionStrategy
    "",  # startingPrice
    "",  # stockRefPrice
    "",  # delta
    "",  # stockRangeLower
    "",  # stockRangeUpper
    UNSET_INTEGER,  # displaySize
    0,  # blockOrder
    0,  # sweepToFill
    0,  # allOrNone
    "",  # minQty
)
_BEFORE_PARENT = _run(
    0,  # eTradeOnly
    0,  # firmQuoteOnly
    "",  # nbboPriceCap
)
_BEFORE_TRAIL = _run(
    0,  # triggerMethod
    "",  # volatility
    0,  # volatilityType
    "None",  # deltaNeutralOrderType: the word, so the block of eight fields below follows
    "",  # deltaNeutralAuxPrice
    *(0, "", "", "", "?", 0, 0, ""),
    0,  # continuousUpdate
    0,  # referencePriceType
)
_AFTER_TRAIL = _run(
    "",  # basisPoints
    "",  # basisPointsType
    "",  # comboLegsDescrip
    0,  # combo legs
    0,  # order combo legs
    0,  # smart combo routing parameters
    "",  # scaleInitLevelSize
    "",  # scaleSubsLevelSize
    "",  # scalePriceIncrement
    "",  # hedgeType
    0,  # optOutSmartRouting
    "",  # clearingAccount
    "IB",  # clearingIntent
    0,  # notHeld
    0,  # deltaNeutralContract
    "",  # algoStrategy
    0,  # solicited
)
_MIN_MAX_COMMISSION = _run(UNSET_DOUBLE_TEXT, UNSET_DOUBLE_TEXT)
_AFTER_COMMISSION_CURRENCY = _run(
    "",  # warningText
    0,  # randomizeSize
    0,  # randomizePrice
    0,  # conditions
    "None",  # adjustedOrderType
    UNSET_DOUBLE_TEXT,  # triggerPrice
)
# Here comes trailStopPrice once more: a client that reads both believes this one.
_AFTER_SECOND_TRAIL = _run(
    UNSET_DOUBLE_TEXT,  # lmtPriceOffset
    UNSET_DOUBLE_TEXT,  # adjustedStopPrice
    UNSET_DOUBLE_TEXT,  # adjustedStopLimitPrice
    UNSET_DOUBLE_TEXT,  # adjustedTrailingAmount
    0,  # adjustableTrailingUnit
    "",  # softDollarTier name
    "",  # softDollarTier value
    "",  # softDollarTier display name
    0,  # cashQty
    1,  # dontUseAutoPriceForHedge
    0,  # isOmsContainer
    0,  # discretionaryUpToLimitPrice
    0,  # usePriceMgmtAlgo
)


_CONTRACT_TEXTS: dict[tuple[int, str], tuple[str, Instrument]] = {}
"""By identity of the instrument, which each entry keeps alive: to hash all its fields takes longer than the rest."""


def _contract_text(instrument: Instrument, exchange: str) -> str:
    key = (id(instrument), exchange)
    found = _CONTRACT_TEXTS.get(key)
    if found is None:
        fields = list(contract_fields(instrument, exchange))
        fields[5] = "?"
        if len(_CONTRACT_TEXTS) >= 1024:
            _CONTRACT_TEXTS.clear()
        found = _CONTRACT_TEXTS[key] = (_run(*fields), instrument)
    return found[0]


@lru_cache(maxsize=64)
def _end_of(version: int) -> str:
    """What a layout has behind the fields that all have."""
    added = (
        (159, (UNSET_INTEGER,)),  # duration
        (160, (UNSET_INTEGER,)),  # postToAts
        (162, (0,)),  # autoCancelParent
        (170, ("", "", "", "", "")),  # minTradeQty and the four pegging fields
    )
    return _run(_AFTER_SECOND_TRAIL, *(value for since, values in added if version >= since for value in values))


@lru_cache(maxsize=256)
def _tail(
    oca_type: int, parent: int, trail: tuple[str, str], state: tuple[str, str, str, str, str], version: int
) -> str:
    """Everything behind the shares allocation: a few dozen of them serve all orders of a day."""
    what_if, status, margins, commission, currency = state
    return "\0".join(
        (
            _BEFORE_OCA_TYPE,
            str(oca_type),
            _BEFORE_PARENT,
            str(parent),
            _BEFORE_TRAIL,
            *trail,
            _AFTER_TRAIL,
            what_if,
            status,
            margins,
            commission,
            _MIN_MAX_COMMISSION,
            currency,
            _AFTER_COMMISSION_CURRENCY,
            trail[0] or UNSET_DOUBLE_TEXT,
            _end_of(version),
        )
    )


_NO_TRAIL = ("", "")


def open_order(order: PaperOrder, instrument: Instrument, version: int, what_if: WhatIf | None = None) -> bytes:
    """One openOrder. With ``what_if`` it is the answer to a what-if request; commission is shown once it is known."""
    limit, aux = order.limit, order.aux
    commission = what_if.commission if what_if else order.commission
    state = (
        "0" if what_if is None else "1",
        "PreSubmitted" if what_if else order.status,
        "\0".join(what_if.fields()) if what_if else _NO_MARGINS,
        price(commission) if commission else UNSET_DOUBLE_TEXT,
        "USD" if commission else "",
    )
    perm_id = order.perm_id
    # One expression: this message is the first that a client hears of its order.
    return encoded(
        f"5\0{order.order_id}\0{_contract_text(instrument, order.exchange)}\0{order.action}\0{number(order.quantity)}\0"
        f"{order.order_type}\0{'0.0' if limit != limit else price(limit)}\0{'0.0' if aux != aux else price(aux)}\0"
        f"{order.tif}\0{order.oca_group}\0{order.account}\0{order.open_close}\0"
        f"0\0{order.order_ref}\0{order.client_id}\0{perm_id}\0{'1' if order.outside_rth else '0'}\0"
        f"{_AFTER_OUTSIDE_RTH}\0{perm_id}.0/{order.account}/100\0"
        f"{_tail(order.oca_type, order.parent_order_id, _trail(order), state, version)}\0"
    )


def acknowledgement(order: PaperOrder, kind: OrderKind, instrument: Instrument, version: int) -> bytes:
    """``open_order`` of a new order of a kind: nearly all of it is the same for all of them, and joined already."""
    texts = kind.texts.get(version)
    if texts is None:
        texts = kind.texts[version] = _ack_texts(order, instrument, version)
    contract, kind_text, reference, hours, end = texts
    limit, aux, perm_id = order.limit, order.aux, order.perm_id
    return encoded(
        f"5\0{order.order_id}{contract}{order.action}\0{number(order.quantity)}{kind_text}"
        f"{'0.0' if limit != limit else price(limit)}\0{'0.0' if aux != aux else price(aux)}{reference}"
        f"{order.order_ref}\0{order.client_id}\0{perm_id}{hours}{perm_id}{end}"
    )


def _ack_texts(order: PaperOrder, instrument: Instrument, version: int) -> AckTexts:
    state = ("0", order.status, _NO_MARGINS, UNSET_DOUBLE_TEXT, "")
    between = (
        (_contract_text(instrument, order.exchange),),
        (order.order_type,),
        (order.tif, order.oca_group, order.account, order.open_close, "0"),
        ("1" if order.outside_rth else "0", _AFTER_OUTSIDE_RTH),
    )
    contract, kind, reference, hours = ("\0".join(("", *texts, "")) for texts in between)
    end = f".0/{order.account}/100\0{_tail(order.oca_type, order.parent_order_id, _trail(order), state, version)}\0"
    return contract, kind, reference, hours, end


def _trail(order: PaperOrder) -> tuple[str, str]:
    if order.trail_stop != order.trail_stop and order.trail_percent != order.trail_percent:
        return _NO_TRAIL
    return (
        "" if order.trail_stop != order.trail_stop else price(order.trail_stop),
        "" if order.trail_percent != order.trail_percent else price(order.trail_percent),
    )


_COMPLETED_AFTER_HOURS = _run(
    0,  # hidden
    0,  # discretionaryAmt
    "",  # goodAfterTime
    *("", "", "", ""),  # faGroup, faMethod, faPercentage, faProfile
    "",  # modelCode
    "",  # goodTillDate
    "",  # rule80A
    "",  # percentOffset
    "",  # settlingFirm
    0,  # shortSaleSlot
    "",  # designatedLocation
    -1,  # exemptCode
    *("", "", ""),  # startingPrice, stockRefPrice, delta
    *("", ""),  # stockRangeLower, stockRangeUpper
    UNSET_INTEGER,  # displaySize
    0,  # sweepToFill
    0,  # allOrNone
    "",  # minQty
)
_COMPLETED_BEFORE_TRAIL = _run(
    0,  # triggerMethod
    "",  # volatility
    0,  # volatilityType
    "None",  # deltaNeutralOrderType: the word, so four fields follow its price
    "",  # deltaNeutralAuxPrice
    *(0, 0, 0, ""),
    0,  # continuousUpdate
    0,  # referencePriceType
)
_COMPLETED_AFTER_TRAIL = _run(
    "",  # comboLegsDescrip
    *(0, 0, 0),  # combo legs, order combo legs, smart combo routing parameters
    *("", "", ""),  # scaleInitLevelSize, scaleSubsLevelSize, scalePriceIncrement
    "",  # hedgeType
    "",  # clearingAccount
    "IB",  # clearingIntent
    0,  # notHeld
    0,  # deltaNeutralContract
    "",  # algoStrategy
    0,  # solicited
)
_COMPLETED_AFTER_STATUS = _run(
    0,  # randomizeSize
    0,  # randomizePrice
    0,  # conditions
)
_COMPLETED_BEFORE_FILLED = _run(
    UNSET_DOUBLE_TEXT,  # lmtPriceOffset
    0,  # cashQty
    1,  # dontUseAutoPriceForHedge
    0,  # isOmsContainer
    "",  # autoCancelDate
)
_COMPLETED_AFTER_FILLED = _run(
    UNSET_INTEGER,  # refFuturesConId
    0,  # autoCancelParent
    "",  # shareholder
    0,  # imbalanceOnly
    0,  # routeMarketableToBbo
)


def completed_order(order: PaperOrder, instrument: Instrument, version: int, ended: str, outcome: str) -> bytes:
    """One completedOrder: an order that has ended, ``ended`` when and ``outcome`` how. It carries no order id."""
    contract = list(contract_fields(instrument, order.exchange))
    limit, aux = order.limit, order.aux
    trail_stop, trail_percent = _trail(order)
    runs = (
        "101",
        _run(*contract),
        order.action,
        number(order.quantity),
        order.order_type,
        "0.0" if limit != limit else price(limit),
        "0.0" if aux != aux else price(aux),
        order.tif,
        order.oca_group,
        order.account,
        order.open_close,
        "0",  # origin
        order.order_ref,
        str(order.perm_id),
        "1" if order.outside_rth else "0",
        _COMPLETED_AFTER_HOURS,
        str(order.oca_type),
        _COMPLETED_BEFORE_TRAIL,
        trail_stop,
        trail_percent,
        _COMPLETED_AFTER_TRAIL,
        order.status,
        _COMPLETED_AFTER_STATUS,
        trail_stop or UNSET_DOUBLE_TEXT,
        _COMPLETED_BEFORE_FILLED,
        number(order.filled),
        _COMPLETED_AFTER_FILLED,
        str(order.parent or ""),
        ended,
        outcome,
        *(("", "", "", "", "") if version >= 170 else ()),  # minTradeQty and the four pegging fields
    )
    return encoded("\0".join(runs) + "\0")
