"""placeOrder, the longest request: read forward, because optional blocks move everything behind them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.domain.instruments import Instrument
from engine.paper.fields import FieldError, FieldReader

if TYPE_CHECKING:
    from engine.paper.express import Lane


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an order isn't taken: the code and the text that its client sees."""

    code: int
    message: str

    @property
    def recorded(self) -> bool:
        """True if the broker keeps the order, as inactive."""
        return self.code in (110, 201)


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


AckTexts = tuple[str, str, str, str, str]
"""What acknowledgements of a kind have between the fields in which they differ. See ``order_out``."""


@dataclass(slots=True, eq=False)
class OrderKind:
    """What all orders of one kind have in common: a program's orders differ in little else than id, side and numbers.

    Not to be changed, but for the fields from ``instrument`` on: what is found out once for all orders of the kind
    (``texts`` by server version, ``lane`` by ``express``). ``unsupported`` names the first feature used that the paper
    gateway doesn't simulate.
    """

    contract: ContractKey
    order_type: str
    tif: str
    account: str
    open_close: str
    transmit: bool
    outside_rth: bool
    what_if: bool
    unsupported: str
    oca_group: str = ""
    oca_type: int = 3
    parent_id: int = 0
    trail_stop: float = math.nan
    trail_percent: float = math.nan
    instrument: Instrument | None = field(default=None, repr=False)
    refusal: Refusal | None = field(default=None, repr=False)
    texts: dict[int, AckTexts] = field(default_factory=dict, repr=False)
    lane: Lane | None = field(default=None, repr=False)

    @property
    def limited(self) -> bool:
        """True if orders of this kind carry a limit price."""
        return self.order_type in ("LMT", "STP LMT")


@dataclass(slots=True)  # a frozen one takes three times as long to make
class OrderRequest:
    """One placeOrder, not to be changed. ``limit`` and ``aux`` are NaN when unset."""

    order_id: int
    kind: OrderKind
    action: str
    quantity: float
    limit: float
    aux: float
    order_ref: str

    @property
    def parent_id(self) -> int:
        return self.kind.parent_id


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
    scaled = scale > 0 and math.isfinite(scale)
    if scaled:
        reader.skip("adjustValue adjustInterval profitOffset autoReset initPosition initFillQty randomPercent")
    reader.skip("scaleTable activeStartTime activeStopTime")
    hedge = reader.text("hedgeType")
    if hedge:
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
        ("scale orders", scaled),
        ("hedge orders", bool(hedge)),
    )
    kind = OrderKind(
        contract,
        order_type.upper(),
        tif.upper(),
        account,
        open_close,
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
    return OrderRequest(order_id, kind, action.upper(), quantity, limit, aux, order_ref)


def _skip_pegged(reader: FieldReader, exchange: str, order_type: str) -> None:
    if exchange == "IBKRATS":
        reader.skip("minTradeQty")
    if order_type == "PEG BEST":
        reader.skip("minCompeteSize")
        if math.isinf(reader.number("competeAgainstBestOffset")):
            reader.skip("midOffsetAtWhole midOffsetAtHalf")
    elif order_type == "PEG MID":
        reader.skip("midOffsetAtWhole midOffsetAtHalf")
