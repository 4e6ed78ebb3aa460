"""placeOrder, the longest request: read forward, because optional blocks move everything behind them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.paper.fields import UNSET_DOUBLE, FieldError, FieldReader


@dataclass(frozen=True, slots=True)
class ContractKey:
    """What a client says about a contract; empty or zero fields are not set."""

    con_id: int
    symbol: str
    sec_type: str
    exchange: str
    primary_exchange: str
    currency: str
    local_symbol: str


@dataclass(slots=True)  # a frozen one takes three times as long to make
class OrderRequest:
    """One placeOrder, not to be changed. ``limit`` and ``aux`` are NaN when unset. ``unsupported`` names the first
    feature used that the paper gateway doesn't simulate, empty if there is none."""

    order_id: int
    contract: ContractKey
    action: str
    quantity: float
    order_type: str
    limit: float
    aux: float
    tif: str
    account: str
    open_close: str
    order_ref: str
    transmit: bool
    outside_rth: bool
    what_if: bool
    unsupported: str
    oca_group: str = ""
    oca_type: int = 3
    parent_id: int = 0
    trail_stop: float = math.nan
    trail_percent: float = math.nan


def read_contract(reader: FieldReader) -> ContractKey:
    """The 12 contract fields of most requests."""
    con_id = reader.integer("conId")
    symbol = reader.text("symbol")
    sec_type = reader.text("secType")
    reader.skip("lastTradeDate strike right multiplier")
    exchange = reader.text("exchange")
    primary = reader.text("primaryExchange")
    currency = reader.text("currency")
    local_symbol = reader.text("localSymbol")
    reader.skip("tradingClass")
    return ContractKey(con_id, symbol, sec_type, exchange, primary, currency, local_symbol)


def _read_conditions(reader: FieldReader) -> int:
    """Skip the condition block; returns how many conditions there were."""
    lengths = {1: 6, 3: 3, 4: 3, 5: 4, 6: 5, 7: 5}  # price, time, margin, execution, volume, percent change
    count = reader.count_of("conditionsCount", 100)
    for _ in range(count):
        kind = reader.integer("conditionType")
        if kind not in lengths:
            raise FieldError(f"field 'conditionType' is {kind}, allowed are {sorted(lengths)}")
        for _ in range(lengths[kind]):
            reader.text("condition")
    if count:
        reader.skip("conditionsIgnoreRth conditionsCancelOrder")
    return count


def _skip_legs(reader: FieldReader) -> None:
    for _ in range(reader.count_of("comboLegs")):
        reader.skip("conId ratio action exchange openClose shortSaleSlot designatedLocation exemptCode")
    for _ in range(reader.count_of("orderComboLegs")):
        reader.skip("legPrice")
    for _ in range(reader.count_of("smartComboRoutingParams")):
        reader.skip("tag value")


def read_place_order(reader: FieldReader, version: int) -> OrderRequest:
    """Everything after the message id. ``version`` is the connection's server version (157..176)."""
    order_id = reader.integer("orderId")
    contract = read_contract(reader)
    reader.skip("secIdType secId")
    action = reader.text("action")
    quantity = reader.number("totalQuantity")
    order_type = reader.text("orderType")
    limit = reader.number("lmtPrice")
    aux = reader.number("auxPrice")
    tif = reader.text("tif")
    oca_group = reader.text("ocaGroup")
    account = reader.text("account")
    open_close = reader.text("openClose")
    reader.skip("origin")
    order_ref = reader.text("orderRef")
    transmit = reader.flag("transmit")
    parent_id = reader.integer("parentId")
    reader.skip("blockOrder sweepToFill displaySize triggerMethod")
    outside_rth = reader.flag("outsideRth")
    reader.skip("hidden")
    if contract.sec_type == "BAG":
        _skip_legs(reader)
    reader.skip("sharesAllocation discretionaryAmt")
    good_after = reader.text("goodAfterTime")
    reader.skip("goodTillDate faGroup faMethod faPercentage faProfile modelCode shortSaleSlot designatedLocation")
    reader.skip("exemptCode")
    oca_type = reader.integer("ocaType")
    reader.skip("rule80A settlingFirm")
    all_or_none = reader.flag("allOrNone")
    reader.skip("minQty percentOffset eTradeOnly firmQuoteOnly nbboPriceCap auctionStrategy startingPrice")
    reader.skip("stockRefPrice delta stockRangeLower stockRangeUpper overridePercentageConstraints volatility")
    reader.skip("volatilityType")
    delta_neutral_type = reader.text("deltaNeutralOrderType")
    reader.skip("deltaNeutralAuxPrice")
    if delta_neutral_type:
        reader.skip(
            "dnConId dnSettlingFirm dnClearingAccount dnClearingIntent dnOpenClose dnShortSale dnSlot dnLocation"
        )
    reader.skip("continuousUpdate referencePriceType")
    trail_stop, trail_percent = reader.number("trailStopPrice"), reader.number("trailingPercent")
    reader.skip("scaleInit scaleSubs")
    scale = reader.number("scalePriceIncrement")
    if scale > 0 and math.isfinite(scale):
        reader.skip("adjustValue adjustInterval profitOffset autoReset initPosition initFillQty randomPercent")
    reader.skip("scaleTable activeStartTime activeStopTime")
    if reader.text("hedgeType"):
        reader.skip("hedgeParam")
    reader.skip("optOutSmartRouting clearingAccount clearingIntent notHeld")
    if reader.flag("deltaNeutralContract"):
        reader.skip("conId delta price")
    algo = reader.text("algoStrategy")
    if algo:
        for _ in range(reader.count_of("algoParams")):
            reader.skip("tag value")
    reader.skip("algoId")
    what_if = reader.flag("whatIf")
    reader.skip("orderMiscOptions solicited randomizeSize randomizePrice")
    if order_type == "PEG BENCH":
        reader.skip("refConId pegDecrease pegAmount refAmount refExchange")
    conditions = _read_conditions(reader)
    reader.skip("adjustedOrderType triggerPrice lmtPriceOffset adjustedStop adjustedStopLimit adjustedTrailing")
    reader.skip("adjustableTrailingUnit extOperator softDollarName softDollarValue cashQty")
    reader.skip("mifidDecisionMaker mifidDecisionAlgo mifidTrader mifidAlgo")
    reader.skip("dontUseAutoPriceForHedge isOmsContainer discretionaryUpToLimitPrice usePriceMgmtAlgo")
    for since, name in (
        (158, "duration"),
        (160, "postToAts"),
        (162, "autoCancelParent"),
        (166, "advancedErrorOverride"),
        (169, "manualOrderTime"),
    ):
        if version >= since:
            reader.skip(name)
    if version >= 170:
        _skip_pegged(reader, contract.exchange, order_type)
    reader.end()
    used = (
        ("combination orders", contract.sec_type == "BAG"),
        ("goodAfterTime", bool(good_after)),
        ("allOrNone", all_or_none),
        (f"algorithm {algo}", bool(algo)),
        ("order conditions", conditions > 0),
    )
    return OrderRequest(
        order_id,
        contract,
        action.upper(),
        quantity,
        order_type.upper(),
        limit,
        aux,
        tif.upper(),
        account,
        open_close,
        order_ref,
        transmit,
        outside_rth,
        what_if,
        next((name for name, present in used if present), ""),
        oca_group,
        oca_type or 3,
        parent_id,
        trail_stop,
        trail_percent,
    )


class OrderTemplates:
    """Reads the orders of one connection faster: a program's orders differ in a few fields, the rest is read once.

    A message that differs elsewhere, or holds anything unusual in those fields, is left to ``read_place_order``.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], OrderRequest] = {}

    def read(self, message: bytes, version: int) -> OrderRequest | None:
        """The request, or None for one that has to be read in full. ``message`` begins with the id of placeOrder."""
        parts = message.split(b"\0", _TAIL)
        if len(parts) <= _TAIL:
            return None
        # contract .. secId; type; tif .. origin; transmit and all behind it
        key = (*parts[2:16], parts[18], *parts[21:26], parts[_TAIL])
        known = self._known.get(key)
        order_id, action, reference = parts[1], parts[16], parts[26]
        if len(order_id) > 12 or len(action) > 12 or not reference.isascii():
            return None
        if known is None:
            try:
                reader = FieldReader(message)
                reader.skip("messageId")
                known = read_place_order(reader, version)
            except FieldError:
                return None  # whoever reads it in full says what is wrong
            if len(self._known) >= _TEMPLATES:
                self._known.clear()
            self._known[key] = known
            return known
        try:
            quantity, limit, aux = (float(part) if part else math.nan for part in (parts[17], parts[19], parts[20]))
            number = int(order_id)
        except ValueError:
            return None
        if quantity == UNSET_DOUBLE or limit == UNSET_DOUBLE or aux == UNSET_DOUBLE:
            return None
        return OrderRequest(
            number,
            known.contract,
            action.decode("utf-8", "replace").upper(),
            quantity,
            known.order_type,
            limit,
            aux,
            known.tif,
            known.account,
            known.open_close,
            reference.decode("ascii"),
            known.transmit,
            known.outside_rth,
            known.what_if,
            known.unsupported,
            known.oca_group,
            known.oca_type,
            known.parent_id,
            known.trail_stop,
            known.trail_percent,
        )


_TAIL = 27
_TEMPLATES = 256


def _skip_pegged(reader: FieldReader, exchange: str, order_type: str) -> None:
    if exchange == "IBKRATS":
        reader.skip("minTradeQty")
    if order_type == "PEG BEST":
        reader.skip("minCompeteSize")
        if math.isinf(reader.number("competeAgainstBestOffset")):
            reader.skip("midOffsetAtWhole midOffsetAtHalf")
    elif order_type == "PEG MID":
        reader.skip("midOffsetAtWhole midOffsetAtHalf")
