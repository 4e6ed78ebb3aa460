"""openOrder, the longest answer: an order with its state, margins and commission, in the layout of a server version."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.domain.instruments import Instrument
from engine.paper.account import Margins
from engine.paper.catalog import contract_fields
from engine.paper.fields import UNSET_DOUBLE_TEXT, UNSET_INTEGER, number, payload, price, text
from engine.paper.orders import PaperOrder


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
    UNSET_DOUBLE_TEXT,  # trailStopPrice
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


def open_order(order: PaperOrder, instrument: Instrument, version: int, what_if: WhatIf | None = None) -> bytes:
    """One openOrder. With ``what_if`` it is the answer to a what-if request; commission is shown once it is known."""
    contract = list(contract_fields(instrument, order.exchange))
    contract[5] = "?"
    commission = what_if.commission if what_if else order.commission
    values: list[object] = [
        5,
        order.order_id,
        *contract,
        order.action,
        number(order.quantity),
        order.order_type,
        "0.0" if math.isnan(order.limit) else price(order.limit),
        "0.0" if math.isnan(order.aux) else price(order.aux),
        order.tif,
        order.oca_group,
        order.account,
        order.open_close,
        0,  # origin
        order.order_ref,
        order.client_id,
        order.perm_id,
        order.outside_rth,
        _AFTER_OUTSIDE_RTH,
        f"{order.perm_id}.0/{order.account}/100",  # sharesAllocation
        _BEFORE_OCA_TYPE,
        order.oca_type,
        _BEFORE_PARENT,
        order.parent_order_id,
        _BEFORE_TRAIL,
        price(order.trail_stop),
        price(order.trail_percent),
        _AFTER_TRAIL,
        what_if is not None,
        "PreSubmitted" if what_if else order.status,
        *(what_if.fields() if what_if else (_NO_MARGINS,)),
        price(commission) if commission else UNSET_DOUBLE_TEXT,
        _MIN_MAX_COMMISSION,
        "USD" if commission else "",
        _AFTER_COMMISSION_CURRENCY,
    ]
    if version >= 159:
        values.append(UNSET_INTEGER)  # duration
    if version >= 160:
        values.append(UNSET_INTEGER)  # postToAts
    if version >= 162:
        values.append(0)  # autoCancelParent
    if version >= 170:
        values += ["", "", "", "", ""]  # minTradeQty and the four pegging fields
    return payload(*values)
