"""Life of an order as far as the broker has told it: a pure state machine, and the register of all orders.

Invariants
1. Only orderStatus, openOrder, executions and a complete list of open orders decide an order's fate. An error never
   does: it puts the order in question, and the bridge asks (several error codes come for orders that live on).
2. ``filled`` never falls, whatever is repeated, reordered or late. Filled in full is FILLED, also after Cancelled.
3. A terminal state is left only by a fill (to FILLED) or by the broker listing the order as open.
4. An order that may live counts as exposure with all that is not filled: SENT, UNKNOWN, PENDING_CANCEL included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from engine.broker.news import OpenOrderNews, OrderStatusNews
from engine.domain.codes import OrderState, OrderType, Source

_EPS = 1e-9
UNLISTED_NS = 1_000_000_000
"""How long a new order may be missing from the broker's list without being lost."""
TERMINAL = frozenset((OrderState.REFUSED, OrderState.FILLED, OrderState.CANCELLED, OrderState.REJECTED))
WARNINGS = frozenset((399, 404, 434, 492, 2109, 10167, 10349, 202))
"""Codes that come with an order id and question nothing: 202 only repeats a status that tells the truth."""
_ACCEPTED = frozenset(("PreSubmitted", "Submitted"))
_UNSENT = frozenset(("ApiPending", "PendingSubmit"))
_GONE = frozenset(("Cancelled", "ApiCancelled"))
LISTED_AS_OPEN = _ACCEPTED | _UNSENT | {"PendingCancel"}


@dataclass(frozen=True, slots=True)
class Order:
    """``side`` +1 or -1; ``limit_price`` NaN for market orders; times CLOCK_MONOTONIC ns, 0 never."""

    intent_id: int
    order_id: int
    symbol: int
    source: int
    side: int
    qty: float
    order_type: int
    limit_price: float
    tif: int
    flags: int
    entry: bool
    """It adds risk: goes first when a stop comes."""
    state: OrderState
    sent_ns: int
    t_socket_ns: int = 0
    filled: float = 0.0
    avg_price: float = math.nan
    perm_id: int = 0
    acked_ns: int = 0
    changed_ns: int = 0
    cancel_sent_ns: int = 0
    question_ns: int = 0
    """Since when its fate is in question; 0 not."""
    next_qty: float = math.nan
    """Quantity and price of a replacement under way; NaN none."""
    next_limit: float = math.nan
    text: str = ""
    own: bool = True
    """Placed under our client id: we can cancel it."""

    @property
    def active(self) -> bool:
        return self.state not in TERMINAL

    @property
    def remaining(self) -> float:
        """What may still be filled, the worse of both sizes while a replacement is under way."""
        if not self.active:
            return 0.0
        worst = self.qty if math.isnan(self.next_qty) else max(self.qty, self.next_qty)
        return max(0.0, worst - self.filled)

    @property
    def signed_qty(self) -> float:
        return self.side * self.qty


def _settle(order: Order, filled: float, avg_price: float, now_ns: int) -> Order:
    """Take over a filled quantity, which never falls; in full it decides."""
    grown = max(order.filled, filled)
    if grown > order.filled + _EPS:
        price = avg_price if avg_price > 0.0 else order.avg_price
        order = replace(order, filled=grown, avg_price=price, changed_ns=now_ns)
        if order.state in (OrderState.SENT, OrderState.UNKNOWN, OrderState.WORKING):
            order = replace(order, state=OrderState.PARTIAL, acked_ns=order.acked_ns or now_ns, question_ns=0)
    if order.filled >= order.qty - _EPS and order.state != OrderState.FILLED and not _growing(order):
        order = replace(order, state=OrderState.FILLED, question_ns=0, changed_ns=now_ns)
    return order


def _growing(order: Order) -> bool:
    return not math.isnan(order.next_qty) and order.next_qty > order.qty + _EPS


def on_status(order: Order, news: OrderStatusNews, now_ns: int) -> Order:
    """An orderStatus. Returns ``order`` itself when it says nothing new."""
    if news.perm_id and news.perm_id != order.perm_id:
        order = replace(order, perm_id=news.perm_id)
    order = _settle(order, news.filled, news.avg_price, now_ns)
    return _on_word(order, news.status, now_ns, news.why_held)


def _on_word(order: Order, status: str, now_ns: int, why_held: str = "") -> Order:
    state = order.state
    if state in TERMINAL:
        return order
    if status in _GONE:
        new = OrderState.CANCELLED
    elif status == "Inactive":
        if "locate" in why_held:
            return order  # held while shares are located: it lives
        new = OrderState.CANCELLED if order.filled > 0 else OrderState.REJECTED
    elif status == "PendingCancel":
        new = OrderState.PENDING_CANCEL
    elif status in _ACCEPTED:
        if state == OrderState.PENDING_CANCEL:
            return order  # sent before the broker knew of the cancel
        new = OrderState.PARTIAL if order.filled > 0 else OrderState.WORKING
    elif status in _UNSENT:
        new = OrderState.SENT if state == OrderState.UNKNOWN else state
    else:
        return order
    acked = order.acked_ns or (0 if status in _UNSENT else now_ns)
    if new == state and acked == order.acked_ns and not order.question_ns:
        return order
    return replace(order, state=new, acked_ns=acked, question_ns=0, changed_ns=now_ns)


def on_open(order: Order, news: OpenOrderNews, now_ns: int, *, listed: bool = False) -> Order:
    """An openOrder; ``listed``: as part of a complete list, which revives an order we took for done."""
    if news.perm_id and news.perm_id != order.perm_id:
        order = replace(order, perm_id=news.perm_id)
    if not math.isnan(order.next_qty) and _same(order.next_qty, news.qty) and _same(order.next_limit, news.limit_price):
        order = replace(
            order, qty=news.qty, limit_price=news.limit_price, next_qty=math.nan, next_limit=math.nan, changed_ns=now_ns
        )
        order = _settle(order, order.filled, order.avg_price, now_ns)
    if order.state == OrderState.FILLED:
        return order
    if listed and order.state in TERMINAL and news.status in LISTED_AS_OPEN:
        state = OrderState.PARTIAL if order.filled > 0 else OrderState.WORKING
        order = replace(order, state=state, question_ns=0, changed_ns=now_ns)
    if news.status == "Filled":
        return order  # the quantity comes with orderStatus or the executions
    return _on_word(order, news.status, now_ns)


def _same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or abs(a - b) < 1e-9


def on_executions(order: Order, executed: float, avg_price: float, now_ns: int) -> Order:
    """The sum of this order's executions (each counted once)."""
    return _settle(order, executed, avg_price, now_ns)


def on_error(order: Order, code: int, text: str, now_ns: int) -> Order:
    """An error with this order's id: words, and a question unless it is a mere warning."""
    words = f"{code} {text}"
    if order.state in TERMINAL:
        return order if order.text else replace(order, text=words)
    if code in WARNINGS:
        return replace(order, text=words)
    state = OrderState.UNKNOWN if order.state == OrderState.SENT else order.state
    return replace(order, state=state, text=words, question_ns=order.question_ns or now_ns, changed_ns=now_ns)


def on_cancel_sent(order: Order, now_ns: int) -> Order:
    if order.state in TERMINAL:
        return order
    return replace(order, state=OrderState.PENDING_CANCEL, cancel_sent_ns=now_ns, changed_ns=now_ns)


def on_replace_sent(order: Order, qty: float, limit_price: float, now_ns: int) -> Order:
    return replace(order, next_qty=qty, next_limit=limit_price, changed_ns=now_ns)


def on_link_lost(order: Order, now_ns: int) -> Order:
    """From now on its fate is not known."""
    if order.state in TERMINAL or order.state == OrderState.UNKNOWN:
        return order
    return replace(order, state=OrderState.UNKNOWN, question_ns=now_ns, changed_ns=now_ns)


def on_silence(order: Order, now_ns: int, patience_ns: int) -> Order:
    """No answer to the order, or to its cancel, for too long: put it in question."""
    if order.question_ns or order.state in TERMINAL:
        return order
    if order.state == OrderState.SENT and now_ns - order.sent_ns > patience_ns:
        return replace(order, state=OrderState.UNKNOWN, question_ns=now_ns, changed_ns=now_ns)
    if (
        order.state == OrderState.PENDING_CANCEL
        and order.cancel_sent_ns
        and now_ns - order.cancel_sent_ns > patience_ns
    ):
        return replace(order, question_ns=now_ns)
    return order


def on_missing(order: Order, begin_ns: int, now_ns: int) -> Order:
    """Not in a complete list of open orders that was asked for at ``begin_ns``: it is done, if it was sent before.

    An order that was never acknowledged must have been sent a second before: it may still be on its way inside.
    """
    settled_ns = begin_ns if order.acked_ns else begin_ns - UNLISTED_NS
    if order.state in TERMINAL or order.sent_ns > settled_ns:
        return order
    done = OrderState.CANCELLED if order.acked_ns or order.filled > 0 or order.cancel_sent_ns else OrderState.REJECTED
    text = order.text or "not among the broker's open orders"
    return replace(order, state=done, question_ns=0, text=text, changed_ns=now_ns)


def adopted(news: OpenOrderNews, intent_id: int, symbol: int, entry: bool, own: bool, now_ns: int) -> Order:
    """An order that the broker lists and we do not know: placed by our predecessor, or by a person."""
    order_type = OrderType.MKT if news.order_type == "MKT" else OrderType.LMT
    known = {s.value for s in Source}
    source = intent_id >> 56 if intent_id >> 56 in known else 0
    order = Order(
        intent_id=intent_id,
        order_id=news.order_id,
        symbol=symbol,
        source=source,
        side=news.side,
        qty=news.qty,
        order_type=int(order_type),
        limit_price=news.limit_price,
        tif={"DAY": 1, "IOC": 2, "GTC": 3}.get(news.tif, 1),
        flags=0,
        entry=entry,
        state=OrderState.UNKNOWN,
        sent_ns=0,
        changed_ns=now_ns,
        perm_id=news.perm_id,
        text="adopted from the broker's open orders",
        own=own,
    )
    return on_open(order, news, now_ns, listed=True)


class Register:
    """All orders of the day by intent, order id and permId. ``put`` returns what changed."""

    def __init__(self) -> None:
        self.by_intent: dict[int, Order] = {}
        self._intent_of_order: dict[int, int] = {}
        self._intent_of_perm: dict[int, int] = {}
        self._active: dict[int, None] = {}
        self._aliases: dict[int, int] = {}
        self.version = 0
        """Rises with every change of an order."""

    def put(self, order: Order) -> Order | None:
        """Store; returns the former order if something that people see has changed, else None."""
        key = order.intent_id
        old = self.by_intent.get(key)
        self.by_intent[key] = order
        if order.own and order.order_id:
            self._intent_of_order[order.order_id] = key
        if order.perm_id:
            self._intent_of_perm[order.perm_id] = key
        if order.active:
            self._active[key] = None
        else:
            self._active.pop(key, None)
        if old is order:
            return None
        self.version += 1
        return old

    def find(self, *, intent_id: int = 0, order_id: int = 0, perm_id: int = 0) -> Order | None:
        """By the strongest key that is given and known."""
        intent_id = self._aliases.get(intent_id, intent_id)
        if intent_id and intent_id in self.by_intent:
            return self.by_intent[intent_id]
        if perm_id and perm_id in self._intent_of_perm:
            return self.by_intent[self._intent_of_perm[perm_id]]
        if order_id and order_id in self._intent_of_order:
            return self.by_intent[self._intent_of_order[order_id]]
        return None

    def alias(self, intent_id: int, order: Order) -> None:
        """A replacement's intent id also names the order."""
        self._aliases[intent_id] = order.intent_id

    def active(self) -> Iterator[Order]:
        return (self.by_intent[key] for key in tuple(self._active))

    @property
    def active_count(self) -> int:
        return len(self._active)

    def prune(self, before_ns: int) -> int:
        """Forget orders that were done before; returns how many. Their executions stay in the accounts."""
        old = [k for k, o in self.by_intent.items() if not o.active and o.changed_ns < before_ns]
        for key in old:
            order = self.by_intent.pop(key)
            self._intent_of_order.pop(order.order_id, None)
            self._intent_of_perm.pop(order.perm_id, None)
        return len(old)
