"""placeOrder, the longest request: read forward, because optional blocks move everything behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.domain.instruments import Instrument
from engine.paper.fields import UNSET_DOUBLE, FieldError, FieldReader

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


_USED: Mapping[str, tuple[str, ...]] = {
    "LMT": ("lmtPrice",),
    "STP": ("auxPrice",),
    "STP LMT": ("lmtPrice", "auxPrice"),
    "TRAIL": ("auxPrice", "trailStopPrice", "trailingPercent"),
}
"""Prices that each order type acts upon."""

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

    @property
    def plain(self) -> bool:
        """True for limit orders without anything that belongs to other types."""
        unset = self.trail_stop != self.trail_stop and self.trail_percent != self.trail_percent
        return unset and self.order_type == "LMT"

    def idle(self, request: OrderRequest) -> list[str]:
        """Prices that a request sets although its order type has no use for them."""
        used = _USED.get(self.order_type, ())
        given = (
            ("lmtPrice", request.limit),
            ("auxPrice", request.aux),
            ("trailStopPrice", self.trail_stop),
            ("trailingPercent", self.trail_percent),
        )
        return [name for name, value in given if value == value and value != 0.0 and name not in used]


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


_UNSET = frozenset(("", "0", "0.0", "0.00", "false", "False", "2147483647", "1.7976931348623157E308"))
"""How libraries write a field that nobody has set; Python's own text of the largest double is the last one."""
_LARGEST = repr(UNSET_DOUBLE)
_HARMLESS: Mapping[str, frozenset[str]] = {
    "exemptCode": frozenset(("-1",)),
    "clearingIntent": frozenset(("IB",)),
    "triggerMethod": frozenset(("2",)),  # the last price, which is what triggers here
    "deltaNeutralOrderType": frozenset(("None",)),
    "adjustedOrderType": frozenset(("None",)),
    "dontUseAutoPriceForHedge": frozenset(("1",)),  # of hedge orders, which are refused
    "overridePercentageConstraints": frozenset(("1",)),  # there are none
    "eTradeOnly": frozenset(("1",)),  # the official client of 2020 sets both in every order
    "firmQuoteOnly": frozenset(("1",)),
}
"""What else means the same as not being set; openOrder says some of it, and a program may send that back."""


class _Unused:
    """Reads fields that the gateway doesn't act upon, and notes the first one that its client has set.

    Nothing that a user sets may be ignored in silence: the order is refused, and the refusal names the field.
    """

    __slots__ = ("_reader", "first")

    def __init__(self, reader: FieldReader) -> None:
        self._reader = reader
        self.first = ""

    def note(self, what: str, present: bool = True) -> None:
        if present and not self.first:
            self.first = what

    def read(self, names: str) -> None:
        """One field for each word in ``names``."""
        for name in names.split():
            value = self._reader.text(name)
            if value in _UNSET or value == _LARGEST or value in _HARMLESS.get(name, ()):
                continue
            self.note(f"{name} {value[:40]}")


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
    unused = _Unused(reader)
    order_id = reader.integer("orderId")
    contract = read_contract(reader)
    unused.read("secIdType secId")
    action = reader.text("action")
    quantity = reader.number("totalQuantity")
    order_type = reader.text("orderType")
    limit = reader.number("lmtPrice")
    aux = reader.number("auxPrice")
    tif = reader.text("tif")
    oca_group = reader.text("ocaGroup")
    account = reader.text("account")
    open_close = reader.text("openClose")
    unused.read("origin")
    order_ref = reader.text("orderRef")
    transmit = reader.flag("transmit")
    parent_id = reader.integer("parentId")
    unused.read("blockOrder sweepToFill displaySize triggerMethod")
    outside_rth = reader.flag("outsideRth")
    unused.read("hidden")
    if contract.sec_type == "BAG":
        unused.note("combination orders")
        _skip_legs(reader)
    unused.read("sharesAllocation discretionaryAmt goodAfterTime goodTillDate")
    unused.read("faGroup faMethod faPercentage faProfile modelCode shortSaleSlot designatedLocation exemptCode")
    oca_type = reader.integer("ocaType")
    unused.read("rule80A settlingFirm allOrNone minQty percentOffset eTradeOnly firmQuoteOnly nbboPriceCap")
    unused.read("auctionStrategy startingPrice stockRefPrice delta stockRangeLower stockRangeUpper")
    unused.read("overridePercentageConstraints")
    _read_volatility(reader, unused)
    trail_stop, trail_percent = reader.number("trailStopPrice"), reader.number("trailingPercent")
    _read_strategies(reader, unused)
    what_if = reader.flag("whatIf")
    unused.read("orderMiscOptions solicited randomizeSize randomizePrice")
    if order_type == "PEG BENCH":
        reader.skip("refConId pegDecrease pegAmount refAmount refExchange")
    unused.note("order conditions", _read_conditions(reader) > 0)
    unused.read("adjustedOrderType triggerPrice lmtPriceOffset adjustedStopPrice adjustedStopLimitPrice")
    unused.read("adjustedTrailingAmount adjustableTrailingUnit extOperator softDollarTierName softDollarTierValue")
    unused.read("cashQty mifid2DecisionMaker mifid2DecisionAlgo mifid2ExecutionTrader mifid2ExecutionAlgo")
    unused.read("dontUseAutoPriceForHedge isOmsContainer discretionaryUpToLimitPrice usePriceMgmtAlgo")
    for since, name in (
        (158, "duration"),
        (160, "postToAts"),
        (162, "autoCancelParent"),
        (166, "advancedErrorOverride"),
        (169, "manualOrderTime"),
    ):
        if version >= since:
            unused.read(name)
    if version >= 170:
        _skip_pegged(reader, contract.exchange, order_type)
    reader.end()
    kind = OrderKind(
        contract,
        order_type.upper(),
        tif.upper(),
        account,
        open_close,
        transmit,
        outside_rth,
        what_if,
        unused.first,
        oca_group,
        oca_type or 3,
        parent_id,
        trail_stop,
        trail_percent,
    )
    return OrderRequest(order_id, kind, action.upper(), quantity, limit, aux, order_ref)


def _read_volatility(reader: FieldReader, unused: _Unused) -> None:
    unused.read("volatility volatilityType")
    delta_neutral_type = reader.text("deltaNeutralOrderType")
    unused.note(f"deltaNeutralOrderType {delta_neutral_type[:40]}", delta_neutral_type not in ("", "None"))
    unused.read("deltaNeutralAuxPrice")
    if delta_neutral_type:
        reader.skip(
            "dnConId dnSettlingFirm dnClearingAccount dnClearingIntent dnOpenClose dnShortSale dnSlot dnLocation"
        )
    unused.read("continuousUpdate referencePriceType")


def _read_strategies(reader: FieldReader, unused: _Unused) -> None:
    """Scale, hedge, clearing and algorithm: blocks of which the first field says whether there are more."""
    unused.read("scaleInitLevelSize scaleSubsLevelSize")
    scale = reader.number("scalePriceIncrement")
    if scale > 0 and math.isfinite(scale):
        unused.note("scale orders")
        reader.skip("adjustValue adjustInterval profitOffset autoReset initPosition initFillQty randomPercent")
    unused.read("scaleTable activeStartTime activeStopTime")
    if reader.text("hedgeType"):
        unused.note("hedge orders")
        reader.skip("hedgeParam")
    unused.read("optOutSmartRouting clearingAccount clearingIntent notHeld")
    if reader.flag("deltaNeutralContract"):
        unused.note("deltaNeutralContract")
        reader.skip("conId delta price")
    algo = reader.text("algoStrategy")
    if algo:
        unused.note(f"algorithm {algo[:40]}")
        for _ in range(reader.count_of("algoParams")):
            reader.skip("tag value")
    unused.read("algoId")


def _skip_pegged(reader: FieldReader, exchange: str, order_type: str) -> None:
    if exchange == "IBKRATS":
        reader.skip("minTradeQty")
    if order_type == "PEG BEST":
        reader.skip("minCompeteSize")
        if math.isinf(reader.number("competeAgainstBestOffset")):
            reader.skip("midOffsetAtWhole midOffsetAtHalf")
    elif order_type == "PEG MID":
        reader.skip("midOffsetAtWhole midOffsetAtHalf")
