"""Which orders the gateway accepts: pure checks of a request against the contract, the account and the open orders.

A refusal carries the code and text that a client sees. Codes that end an order's life with a status of its own (201 and
110) are told apart from requests that never became an order by ``Refusal.recorded``.
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.domain.instruments import Instrument
from engine.paper.account import INITIAL_MARGIN, Account
from engine.paper.commissions import Schedule, Traded
from engine.paper.order_out import WhatIf
from engine.paper.orders import HELD, Ledger, PaperOrder, on_increment
from engine.paper.place_order import OrderKind, OrderRequest, Refusal

MAX_QUANTITY = 1e8
MAX_PRICE_USD = 1e7
MAX_ACTIVE_PER_SIDE = 20
MAX_ORDER_ID = 2**31 - 2
MAX_MINIMUM = 10.0
"""USD: no commission is more than this and the value together."""
TIFS = ("DAY", "GTC", "IOC")
ORDER_TYPES = ("MKT", "LMT", "STP", "STP LMT", "TRAIL", "MOC")
OCA_TYPES = (1, 2, 3)


def rejected(reason: str) -> Refusal:
    return Refusal(201, f"Order rejected - reason:{reason}")


def _invalid(cause: str) -> Refusal:
    return Refusal(321, f"Error validating request.-'placeOrder' : cause - {cause}")


def check_kind(kind: OrderKind, instrument: Instrument, account: str) -> Refusal | None:
    """What is the same for every order of a kind, whatever its id, side and numbers."""
    if kind.account and kind.account != account:
        return _invalid(f"account {kind.account[:20]!r} is not managed here, allowed is {account}")
    if kind.order_type not in ORDER_TYPES:
        return Refusal(387, f"Unsupported order type {kind.order_type[:20]!r} for this exchange and security type")
    if kind.tif not in ("", *TIFS):
        return _invalid(f"time in force {kind.tif[:20]!r}, allowed are {', '.join(TIFS)}")
    if kind.unsupported:
        return _invalid(f"not simulated by the paper gateway: {kind.unsupported}")
    if not instrument.tradable:
        return rejected(f"{instrument.symbol} is an index and can't be traded")
    if kind.tif == "IOC" and kind.order_type not in ("MKT", "LMT"):
        return _invalid(f"time in force IOC of a {kind.order_type} order, allowed for MKT and LMT")
    if kind.oca_type not in OCA_TYPES:
        return _invalid(f"OCA type {kind.oca_type}, allowed are 1, 2 and 3")
    return None


def check_form(request: OrderRequest, instrument: Instrument, bound: bool = False) -> Refusal | None:
    """What needs only the request and its contract. ``bound``: an order with that id exists."""
    kind, quantity, limit = request.kind, request.quantity, request.limit
    if not bound and not 0 < request.order_id <= MAX_ORDER_ID:
        return _invalid(f"order id {request.order_id} is outside 1..{MAX_ORDER_ID}")
    if request.action not in ("BUY", "SELL"):
        return _invalid(f"action {request.action[:20]!r}, allowed are BUY and SELL")
    if kind.unsupported:
        return kind.refusal  # before the size, which is none if its client has set a cash quantity
    if not 0 < quantity <= MAX_QUANTITY:
        return _invalid(f"order size {quantity} is outside 1..{MAX_QUANTITY:.0f} shares")
    if quantity != int(quantity):
        return Refusal(10243, f"Fractional-sized order of {quantity} shares cannot be placed via API")
    if kind.refusal is not None:
        return kind.refusal
    if kind.order_type == "LMT" and 0 < limit <= MAX_PRICE_USD and on_increment(limit, instrument.tick_size):
        return None  # nearly all
    return _check_prices(request, instrument)


def _check_prices(request: OrderRequest, instrument: Instrument) -> Refusal | None:
    kind = request.kind
    prices = []
    if kind.limited:
        prices.append(("limit price", request.limit))
    if kind.order_type in ("STP", "STP LMT"):
        prices.append(("stop price", request.aux))
    if kind.order_type == "TRAIL":
        by_amount, by_percent = request.aux > 0, kind.trail_percent > 0
        if by_amount == by_percent:
            return _invalid("a TRAIL order needs either a trailing amount (auxPrice) or a trailingPercent")
        if by_amount:
            prices.append(("trailing amount", request.aux))
        elif not kind.trail_percent < 100:
            return _invalid(f"trailingPercent {kind.trail_percent}, allowed is above 0 and below 100")
        if kind.trail_stop == kind.trail_stop:
            prices.append(("trail stop price", kind.trail_stop))
    for name, price in prices:
        if not 0 < price <= MAX_PRICE_USD:
            return _invalid(
                f"{name} {price} of a {kind.order_type} order, allowed is above 0 and at most {MAX_PRICE_USD:,.0f}"
            )
        if not on_increment(price, instrument.tick_size):
            return Refusal(110, "The price does not conform to the minimum price variation for this contract.")
    return None


def check_parent(request: OrderRequest, parent: PaperOrder | None) -> Refusal | None:
    """An order that is to be attached needs a parent that still lives or has filled."""
    if not request.parent_id:
        return None
    if parent is None:
        return rejected(f"parent order {request.parent_id} does not exist")
    if not parent.working and not parent.filled:
        return rejected(f"parent order {request.parent_id} has ended: {parent.status}")
    return None


def _reference_price(order_type: str, limit: float, mark: float) -> float:
    return limit if order_type in ("LMT", "STP LMT") else mark


def what_if(
    request: OrderRequest, symbol: int, account: Account, marks: Mapping[int, float], schedule: Schedule
) -> WhatIf:
    """Margins and commission as if the order traded in full."""
    price = _reference_price(request.kind.order_type, request.limit, marks[symbol])
    value, sells = request.quantity * price, request.action == "SELL"
    commission = schedule(Traded(request.quantity, value, sells, month_before=account.month_of(symbol)))
    signed = request.quantity if request.action == "BUY" else -request.quantity
    after = account.margins_after(symbol, signed, price, marks, commission)
    return WhatIf(account.margins(marks), after, commission)


def check_margin(
    request: OrderRequest,
    symbol: int,
    account: Account,
    ledger: Ledger,
    marks: Mapping[int, float],
    schedule: Schedule,
    replacing: PaperOrder | None = None,
) -> Refusal | None:
    """Buying power, working orders included. What reduces a position always passes.

    ``replacing`` is the order that the request modifies: it doesn't count twice, nor does what of it has traded.
    """
    kind, quantity = request.kind, request.quantity - (replacing.filled if replacing is not None else 0.0)
    if kind.parent_id:
        return None  # it closes what its parent opens
    position = account.positions.get(symbol)
    held = position.quantity if position is not None else 0.0
    signed = quantity if request.action == "BUY" else -quantity
    if abs(held + signed) <= abs(held):
        return None
    price = request.limit if kind.limited else marks[symbol]
    value = quantity * price
    after = account.margins_after(symbol, signed, price, marks, 0.0)
    needed = after.initial
    for o in ledger.working():
        if o is not replacing and not o.parent and o.place != HELD and _adds(o, account):
            needed += o.remaining * _reference_price(o.order_type, o.limit, marks[o.symbol]) * INITIAL_MARGIN
    if needed + value + MAX_MINIMUM <= after.equity:
        return None  # plenty, whatever the commission
    after.equity -= schedule(Traded(quantity, value))
    if needed > after.equity:
        return rejected(
            f"equity with loan value {after.equity:,.2f} USD is below the initial margin {needed:,.2f} USD "
            f"that {request.action} {quantity:.0f} would need"
        )
    return None


def room_usd(account: Account, ledger: Ledger, marks: Mapping[int, float]) -> float:
    """The value of the largest order that ``check_margin`` passes whatever its side, contract and commission."""
    margins = account.margins(marks)
    pending = 0.0
    for o in ledger.working():
        if not o.parent and o.place != HELD and _adds(o, account):
            pending += o.remaining * _reference_price(o.order_type, o.limit, marks[o.symbol]) * INITIAL_MARGIN
    return (margins.available - pending - MAX_MINIMUM) / (1.0 + INITIAL_MARGIN)


def _adds(order: PaperOrder, account: Account) -> bool:
    position = account.positions.get(order.symbol)
    return position is None or position.quantity * order.sign >= 0


def check_active(request: OrderRequest, symbol: int, ledger: Ledger) -> Refusal | None:
    """The broker's limit of working orders per contract and side."""
    if ledger.working_at_most < MAX_ACTIVE_PER_SIDE:
        return None
    sign = 1 if request.action == "BUY" else -1
    active = sum(1 for o in ledger.working() if o.symbol == symbol and o.sign == sign)
    if active >= MAX_ACTIVE_PER_SIDE:
        return rejected(f"{active} working orders on this side of the contract, allowed are {MAX_ACTIVE_PER_SIDE}")
    return None


def check_modify(request: OrderRequest, order: PaperOrder, instrument: Instrument) -> Refusal | None:
    """A modification may change quantity, prices and time in force, nothing else."""
    same_kind = order.symbol == instrument.index and order.order_type == request.kind.order_type
    if not same_kind or order.action != request.action:
        return Refusal(105, "Order being modified does not match the original order.")
    if request.quantity <= order.filled:
        return Refusal(
            104, f"Can't modify a filled order: new size {request.quantity:.0f}, already filled {order.filled:.0f}"
        )
    return None
