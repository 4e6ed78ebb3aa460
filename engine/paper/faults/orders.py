"""Faults of orders and executions."""

from __future__ import annotations

import math
from collections.abc import Callable

from engine.paper.faults.args import Arg, FaultError, Values, flag, number, text
from engine.paper.faults.desk import Fault, FaultDesk
from engine.paper.order_faults import Armed, OrderFaults

SYMBOL = text("one symbol; empty: all", "")
COUNT = number("how many; 0 disarms", 1, 0, 1e6)
PROBABILITY = number("chance of each", 1.0, 0.0, 1.0)


def _armed(
    help: str,
    pick: Callable[[OrderFaults], Armed],
    what: str,
    more: dict[str, Arg] | None = None,
    set_up: Callable[[OrderFaults, Values], None] | None = None,
) -> Fault:
    """A fault that waits for the next events of its kind."""

    def run(desk: FaultDesk, values: Values) -> str:
        faults = desk.gateway.desk.faults
        count, probability = values.count("count"), values.number("probability")
        pick(faults).arm(count, probability, desk.chances)
        faults.armed = True
        if set_up is not None:
            set_up(faults, values)
        often = f" with probability {probability:g} each" if probability < 1 else ""
        return f"the next {count} {what}{often}"

    return Fault(help, run, {"count": COUNT, "probability": PROBABILITY} | (more or {}))


def _set_reason(faults: OrderFaults, values: Values) -> None:
    faults.reject_reason = values.text("reason")


def _set_late(faults: OrderFaults, values: Values) -> None:
    faults.late_s = values.number("ms") / 1e3


def _set_taken(faults: OrderFaults, values: Values) -> None:
    faults.order_taken = not values.flag("lost")


def _set_parts(faults: OrderFaults, values: Values) -> None:
    faults.parts = values.count("parts")


def _fill_all(desk: FaultDesk, chosen: list[int], quantity: float) -> int:
    gateway = desk.gateway
    now_ns = gateway.catch_up()
    filled = 0
    # Only what could trade now: neither what these fills will bring to life, nor stops.
    for order in [o for o in gateway.desk.ledger.working() if o.symbol in chosen and gateway.desk.could_trade(o)]:
        if order.working:
            gateway.desk.force_fill(order, quantity, now_ns)
            filled += 1
    return filled


def fill(desk: FaultDesk, values: Values) -> str:
    filled = _fill_all(desk, desk.symbols(values), values.number("quantity"))
    return f"{filled} working orders were filled at their limits"


def fill_during_disconnect(desk: FaultDesk, values: Values) -> str:
    seconds = values.number("seconds")
    chosen = list(desk.gateway.sessions)
    for session in chosen:
        session.drop("fault: fill_during_disconnect", abort=True)
    desk.gateway.refuse_until_ns = desk.gateway.now_ns() + int(seconds * 1e9)
    filled = _fill_all(desk, desk.symbols(values), values.number("quantity"))
    return f"{len(chosen)} connections dropped, {filled} working orders were filled at their limits"


def correct_execution(desk: FaultDesk, values: Values) -> str:
    corrected = desk.gateway.desk.correct_last(values.number("change"))
    if corrected is None:
        raise FaultError("there is no execution today; trade first")
    return f"execution {corrected.exec_id} now has price {corrected.price}"


def cancel_working(desk: FaultDesk, values: Values) -> str:
    gateway = desk.gateway
    now_ns = gateway.catch_up()
    chosen = set(desk.symbols(values))
    cancelled = 0
    for order in list(gateway.desk.ledger.working()):
        if order.symbol in chosen and order.working:
            gateway.desk.broker_cancels(order, values.text("reason"), now_ns)
            cancelled += 1
    return f"{cancelled} working orders were cancelled by the broker"


def manual_order(desk: FaultDesk, values: Values) -> str:
    gateway = desk.gateway
    symbol = next((i for i in gateway.catalog.instruments.values() if i.symbol == values.text("symbol")), None)
    action, limit = values.text("action").upper(), values.number("limit")
    if symbol is None or not symbol.tradable:
        raise FaultError(f"argument 'symbol' is {values.text('symbol')!r}, which can't be traded here")
    if action not in ("BUY", "SELL"):
        raise FaultError(f"argument 'action' is {action!r}, allowed are BUY and SELL")
    order = gateway.desk.manual_order(
        symbol.index, action, values.count("quantity"), limit or math.nan, gateway.catch_up()
    )
    return f"order {order.perm_id} was entered by hand"


def close_auction(desk: FaultDesk, values: Values) -> str:
    gateway = desk.gateway
    return f"{gateway.desk.close_auction(gateway.catch_up())} market-on-close orders were released"


_QUANTITY = number("shares of each order; inf: all that remain", math.inf, 1.0, math.inf)

ORDER_FAULTS: dict[str, Fault] = {
    "reject_next": _armed(
        "new orders get 201 and become Inactive",
        lambda f: f.reject,
        "orders will be rejected",
        {"reason": text("what the rejection says", "injected by a fault")},
        _set_reason,
    ),
    "preset_tif": _armed(
        "new orders become DAY, whatever they asked for: warning 10349, and the order lives",
        lambda f: f.preset_tif,
        "orders will become DAY",
    ),
    "lose_order": _armed(
        "new orders vanish: no answer, and they are in no book",
        lambda f: f.lose_order,
        "orders will vanish",
    ),
    "drop_link_on_order": _armed(
        "the connection is reset before a new order is acknowledged",
        lambda f: f.drop_link_on_order,
        "orders will lose their connection",
        {"lost": flag("the order never arrived; otherwise it works")},
        _set_taken,
    ),
    "drop_status": _armed(
        "orderStatus messages are not sent", lambda f: f.drop_status, "orderStatus messages will be dropped"
    ),
    "duplicate_status": _armed(
        "orderStatus messages are sent twice",
        lambda f: f.duplicate_status,
        "orderStatus messages will be sent twice",
    ),
    "late_status": _armed(
        "orderStatus messages come late, after what follows them",
        lambda f: f.late_status,
        "orderStatus messages will be late",
        {"ms": number("by so much", 250.0, 1.0, 60_000.0)},
        _set_late,
    ),
    "duplicate_execution": _armed(
        "execDetails and commission are sent twice",
        lambda f: f.duplicate_execution,
        "executions will be told twice",
    ),
    "zero_perm_id": _armed(
        "orderStatus and openOrder carry permId 0, which means not known yet",
        lambda f: f.zero_perm_id,
        "order messages will carry permId 0",
    ),
    "partial_fills": _armed(
        "executions come in parts",
        lambda f: f.split,
        "executions will come in parts",
        {"parts": number("parts of each", 2, 2, 100)},
        _set_parts,
    ),
    "fill_on_cancel": _armed("a cancel crosses a fill: 10148", lambda f: f.fill_on_cancel, "cancels will cross a fill"),
    "fill": Fault("working orders trade at their own limits", fill, {"symbol": SYMBOL, "quantity": _QUANTITY}),
    "fill_during_disconnect": Fault(
        "every connection is dropped, and working orders trade before it returns",
        fill_during_disconnect,
        {"symbol": SYMBOL, "quantity": _QUANTITY, "seconds": number("how long none is accepted", 2.0)},
    ),
    "cancel_working": Fault(
        "the broker cancels working orders: 202 unasked",
        cancel_working,
        {"symbol": SYMBOL, "reason": text("what the cancel says", "injected by a fault")},
    ),
    "manual_order": Fault(
        "an order is entered by hand, in the broker's own window",
        manual_order,
        {
            "symbol": text("its symbol"),
            "action": text("BUY or SELL", "BUY"),
            "quantity": number("shares", 100, 1, 1e6),
            "limit": number("USD; 0: at the market", 0.0, 0.0, 1e6),
        },
    ),
    "close_auction": Fault("market-on-close orders trade now", close_auction),
    "correct_execution": Fault(
        "the last execution gets another price, under the next revision of its id",
        correct_execution,
        {"change": number("USD", 0.01, -1e6, 1e6)},
    ),
}
