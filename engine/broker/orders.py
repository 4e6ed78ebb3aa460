"""Life of an order as far as the broker has told it: a pure state machine.

Invariants
1. Only orderStatus, openOrder, executions and a complete list of open orders decide an order's fate. An error never
   does: it puts the order in question, and the bridge asks (several error codes come for orders that live on).
2. ``filled`` never falls, whatever is repeated, reordered or late. Filled in full is FILLED, also after Cancelled.
3. A terminal state is left only by a fill (to FILLED), by the broker listing the order as open, or, where we only
   concluded the end from the order's absence (``presumed``), by any sign of life.
4. Inactive alone ends nothing, for the broker may take it up again: the order is parked, which is UNKNOWN, until a list
   lacks it. With a final error, before or after, it is over.
5. An order that may live counts as exposure with all that is not filled: SENT, UNKNOWN, PENDING_CANCEL included. What
   a status reports as filled and no execution has booked yet counts too, also after the order's end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from engine.broker.news import OpenOrderNews, OrderStatusNews
from engine.domain.codes import OrderState, OrderType, Source

_EPS = 1e-9
UNLISTED_NS = 1_000_000_000
"""How long a new order may be missing from the broker's list without being lost, and a change from its terms."""
TERMINAL = frozenset((OrderState.REFUSED, OrderState.FILLED, OrderState.CANCELLED, OrderState.REJECTED))
WARNINGS = frozenset((399, 404, 434, 492, 2109, 10167, 10349))
"""Codes that come with an order id and question nothing. Not 202: a status belongs to it, and may be lost."""
FINAL = frozenset((110, 200, 201, 202, 203))
"""Codes that, with Inactive, end an order: price off its increment, no contract, rejected, cancelled, not allowed."""
PARKED = "inactive at the broker, who may still take it up: it counts"
INACTIVE = "Inactive"
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
    booked: float = 0.0
    """Shares of it that are part of the position: by the day's executions, and ``base`` without or before them."""
    base: float = 0.0
    replace_sent_ns: int = 0
    cancel_wanted: bool = False
    """Somebody asked for its cancel: asked for again if the first request got lost."""
    presumed: bool = False
    """Its end was concluded from its absence in the broker's list, not told."""
    key: bytes = b""
    """Idempotency key of the requester."""
    inactive: bool = False
    """Called Inactive, and no list has shown it otherwise since."""
    turned_down: bool = False
    """A final error has come, and no proof of acceptance since."""

    @property
    def active(self) -> bool:
        return self.state not in TERMINAL

    @property
    def parked(self) -> bool:
        """Inactive, as far as we know: it may come back, or be over."""
        return self.inactive and self.state in (OrderState.UNKNOWN, OrderState.PENDING_CANCEL)

    @property
    def unbooked(self) -> float:
        """Reported as filled and not yet part of the position."""
        return max(0.0, self.filled - self.booked)

    @property
    def open(self) -> bool:
        """Does it count: may it still be filled, or has a fill not been booked?"""
        return self.active or self.unbooked > _EPS

    @property
    def remaining(self) -> float:
        """Shares that may still reach the position, the worse of both sizes while a replacement is under way."""
        if not self.active:
            return self.unbooked
        worst = self.qty if math.isnan(self.next_qty) else max(self.qty, self.next_qty)
        return max(0.0, max(worst, self.filled) - self.booked)

    @property
    def signed_qty(self) -> float:
        return self.side * self.qty


def _settle(order: Order, filled: float, avg_price: float, now_ns: int) -> Order:
    """Take over a filled quantity, which never falls; in full it decides."""
    grown = max(order.filled, filled)
    if grown > order.filled + _EPS:
        price = avg_price if avg_price > 0.0 else order.avg_price
        order = replace(order, filled=grown, avg_price=price, changed_ns=now_ns, turned_down=False)
        if order.state in (OrderState.SENT, OrderState.UNKNOWN, OrderState.WORKING):
            question_ns = now_ns if order.inactive else 0
            order = replace(order, state=OrderState.PARTIAL, acked_ns=order.acked_ns or now_ns, question_ns=question_ns)
        elif order.parked:
            order = replace(order, inactive=False)
        elif order.presumed and not order.active:
            order = _revived(order, now_ns)
    if order.filled >= order.qty - _EPS and order.state != OrderState.FILLED and not _growing(order):
        order = _over(order, OrderState.FILLED, now_ns)
    return order


def _over(order: Order, state: OrderState, now_ns: int) -> Order:
    """The broker says that it is done. What was to be changed is void."""
    return replace(
        order, state=state, question_ns=0, changed_ns=now_ns, next_qty=math.nan, next_limit=math.nan, presumed=False,
        inactive=False, turned_down=False, text=_unparked(order),
    )  # fmt: skip


def _revived(order: Order, now_ns: int) -> Order:
    """A sign of life of an order that we took for done: it counts again, and the broker is asked."""
    return replace(order, state=OrderState.UNKNOWN, question_ns=now_ns, changed_ns=now_ns, presumed=False)


def _growing(order: Order) -> bool:
    return not math.isnan(order.next_qty) and order.next_qty > order.qty + _EPS


def on_status(order: Order, news: OrderStatusNews, now_ns: int) -> Order:
    """An orderStatus. Returns ``order`` itself when it says nothing new."""
    if news.perm_id and news.perm_id != order.perm_id:
        order = replace(order, perm_id=news.perm_id)
    order = _settle(order, news.filled, news.avg_price, now_ns)
    if news.status == "Filled" and order.active:
        return _short_filled(order, now_ns)
    return _on_word(order, news.status, now_ns, news.why_held)


def _short_filled(order: Order, now_ns: int) -> Order:
    """Filled, with fewer shares than we know of: in full at the size of a replacement, else a matter to ask about."""
    if not math.isnan(order.next_qty) and abs(order.filled - order.next_qty) < _EPS:
        return _over(replace(order, qty=order.next_qty, limit_price=order.next_limit), OrderState.FILLED, now_ns)
    return order if order.question_ns else replace(order, question_ns=now_ns)


def _on_word(order: Order, status: str, now_ns: int, why_held: str = "") -> Order:
    state = order.state
    if state in TERMINAL:
        if order.presumed and status in _GONE:
            return replace(order, presumed=False)
        return _revived(order, now_ns) if order.presumed and status in LISTED_AS_OPEN else order
    if status in _GONE:
        return _over(order, OrderState.CANCELLED, now_ns)
    if status == INACTIVE:
        # While shares are located it is held, and lives.
        return order if "locate" in why_held else _on_inactive(order, now_ns)
    if order.inactive and (status in _ACCEPTED or status == "PendingCancel"):
        return _taken_up(order, status, now_ns)
    open_ns = 0
    if order.turned_down and (status in _ACCEPTED or status == "PendingCancel"):
        order, open_ns = replace(order, turned_down=False), order.question_ns  # or it is older than the error
    if status == "PendingCancel":
        new = OrderState.PENDING_CANCEL
    elif status in _ACCEPTED:
        if state == OrderState.PENDING_CANCEL:
            return order  # sent before the broker knew of the cancel
        new = OrderState.PARTIAL if order.filled > 0 else OrderState.WORKING
    elif status in _UNSENT:
        if order.inactive:
            return order  # older than that, or of a change to it
        new = OrderState.SENT if state == OrderState.UNKNOWN else state
    else:
        return order
    acked = order.acked_ns or (0 if status in _UNSENT else now_ns)
    if new == state and acked == order.acked_ns and not order.question_ns:
        return order
    return replace(order, state=new, acked_ns=acked, question_ns=open_ns, changed_ns=now_ns)


def _on_inactive(order: Order, now_ns: int) -> Order:
    """Inactive: rejected if a final error says so, else parked, and a matter to ask about."""
    if order.turned_down:
        return _rejected(order, now_ns)
    if order.parked:
        return order
    state = order.state if order.state == OrderState.PENDING_CANCEL else OrderState.UNKNOWN
    question_ns = order.question_ns or now_ns
    return replace(
        order, state=state, inactive=True, question_ns=question_ns, changed_ns=now_ns, text=order.text or PARKED
    )


def _taken_up(order: Order, status: str, now_ns: int) -> Order:
    """Inactive, and now at work, or once more as it was before: which of the two, the next list tells."""
    if status == "PendingCancel" or order.state == OrderState.PENDING_CANCEL:
        state = OrderState.PENDING_CANCEL
    else:
        state = OrderState.PARTIAL if order.filled > 0 else OrderState.WORKING
    return replace(
        order, state=state, inactive=state != OrderState.PENDING_CANCEL, turned_down=False, text=_unparked(order),
        acked_ns=order.acked_ns or now_ns, question_ns=order.question_ns or now_ns,
        changed_ns=order.changed_ns if state == order.state else now_ns,
    )  # fmt: skip


def _rejected(order: Order, now_ns: int) -> Order:
    cancelled = order.filled > 0 or order.cancel_sent_ns
    return _over(order, OrderState.CANCELLED if cancelled else OrderState.REJECTED, now_ns)


def _unparked(order: Order) -> str:
    return "" if order.text == PARKED else order.text


def on_open(order: Order, news: OpenOrderNews, now_ns: int, *, listed_ns: int = 0) -> Order:
    """An openOrder. ``listed_ns``: part of a complete list that was asked for then, 0 of none.

    A list revives what we took for done, ends a doubt about a cancel, and its terms are the order's.
    """
    if news.perm_id and news.perm_id != order.perm_id:
        order = replace(order, perm_id=news.perm_id)
    order = _on_terms(order, news, now_ns, listed_ns)
    if order.state == OrderState.FILLED:
        return order
    if listed_ns and news.status == INACTIVE:
        return _on_listed_inactive(order, now_ns, listed_ns)
    if listed_ns and news.status in LISTED_AS_OPEN:
        if news.status not in _UNSENT and (order.inactive or order.turned_down):
            order = replace(order, inactive=False, turned_down=False, text=_unparked(order), question_ns=0)
        late = order.state == OrderState.PENDING_CANCEL and order.cancel_sent_ns < listed_ns - UNLISTED_NS
        if order.state in TERMINAL or late:
            state = OrderState.PARTIAL if order.filled > 0 else OrderState.WORKING
            order = replace(order, state=state, inactive=False, question_ns=0, changed_ns=now_ns, presumed=False)
    if news.status != "Filled":  # then the quantity comes with orderStatus or the executions
        order = _on_word(order, news.status, now_ns)
    if not listed_ns and order.active and not _agree(order, news):
        # Either an old message, or a change that somebody else made: the next list tells.
        return replace(order, question_ns=order.question_ns or now_ns)
    return order


def _on_listed_inactive(order: Order, now_ns: int, listed_ns: int) -> Order:
    """The broker has it, inactive: there is no more to ask. A list that was asked for a second after our cancel shows
    what is left of it."""
    order = _on_inactive(order, now_ns) if order.active else order
    if not order.active:
        return order
    if order.state == OrderState.PENDING_CANCEL and 0 < order.cancel_sent_ns < listed_ns - UNLISTED_NS:
        return _absent(order, now_ns, _unparked(order) or "cancelled while inactive")
    return replace(order, question_ns=0) if order.question_ns else order


def _agree(order: Order, news: OpenOrderNews) -> bool:
    """Are these the terms that we know, or those that we have asked for?"""
    if not math.isnan(order.next_qty):
        return True
    return _same(order.qty, news.qty) and (_same(order.limit_price, news.limit_price) or math.isnan(news.limit_price))


def _on_terms(order: Order, news: OpenOrderNews, now_ns: int, listed_ns: int) -> Order:
    """Quantity and price as the broker has them."""
    changing = not math.isnan(order.next_qty)
    arrived = changing and _same(order.next_qty, news.qty) and _same(order.next_limit, news.limit_price)
    if not arrived and (not listed_ns or (not changing and _agree(order, news))):
        return order
    if not arrived and changing and order.replace_sent_ns > listed_ns - UNLISTED_NS:
        return order  # the change may still be on its way
    limit = order.limit_price if math.isnan(news.limit_price) else news.limit_price
    order = replace(order, qty=news.qty, limit_price=limit, next_qty=math.nan, next_limit=math.nan, changed_ns=now_ns)
    return _settle(order, order.filled, order.avg_price, now_ns)


def _same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or abs(a - b) < 1e-9


def on_executions(order: Order, executed: float, avg_price: float, now_ns: int) -> Order:
    """The sum of this order's executions of the day (each counted once), which is what the position has of it."""
    booked = order.base + executed
    if booked != order.booked:
        order = replace(order, booked=booked)
        if order.question_ns and not order.open:
            order = replace(order, question_ns=0)
    return _settle(order, booked, avg_price, now_ns)


def on_past_execution(order: Order, qty: float, price: float, now_ns: int) -> Order:
    """A fill of the day before that is learnt of only now: no execution of this day will ever account for it."""
    order = replace(order, base=order.base + qty, booked=order.booked + qty)
    return _settle(order, order.booked, price, now_ns)


def on_reading(order: Order, begin_ns: int) -> Order:
    """All executions since the day's begin were read after ``begin_ns``: what is filled and was not among them belongs
    to a position that the broker has told us."""
    if order.unbooked > _EPS and order.changed_ns < begin_ns:
        question_ns = order.question_ns if order.active else 0
        return replace(order, booked=order.filled, base=order.base + order.unbooked, question_ns=question_ns)
    return order


def on_new_day(order: Order) -> Order:
    """The day's executions count from zero again."""
    return order if order.base == order.booked else replace(order, base=order.booked)


def on_error(order: Order, code: int, text: str, now_ns: int) -> Order:
    """An error with this order's id: words, and a question unless it is a mere warning."""
    words = f"{code} {text}"
    if order.state in TERMINAL:
        return order if order.text else replace(order, text=words)
    if code in WARNINGS:
        return replace(order, text=words)
    final = code in FINAL and math.isnan(order.next_qty)  # else it may be the change that is rejected
    if final and order.parked:
        return _rejected(replace(order, text=words), now_ns)
    state = OrderState.UNKNOWN if order.state == OrderState.SENT else order.state
    return replace(
        order, state=state, text=words, question_ns=order.question_ns or now_ns, changed_ns=now_ns,
        turned_down=order.turned_down or final,
    )  # fmt: skip


def on_cancel_sent(order: Order, now_ns: int) -> Order:
    if order.state in TERMINAL:
        return order
    return replace(
        order, state=OrderState.PENDING_CANCEL, cancel_sent_ns=now_ns, changed_ns=now_ns, cancel_wanted=True,
        inactive=order.parked,
    )  # fmt: skip


def on_replace_sent(order: Order, qty: float, limit_price: float, now_ns: int) -> Order:
    return replace(order, next_qty=qty, next_limit=limit_price, replace_sent_ns=now_ns, changed_ns=now_ns)


def on_link_lost(order: Order, now_ns: int) -> Order:
    """From now on its fate is not known."""
    if order.state in TERMINAL or (order.state == OrderState.UNKNOWN and order.question_ns):
        return order
    return replace(order, state=OrderState.UNKNOWN, inactive=order.parked, question_ns=now_ns, changed_ns=now_ns)


def on_silence(order: Order, now_ns: int, patience_ns: int) -> Order:
    """No answer to the order, its cancel or its change, or a fill without its execution, for too long: in question."""
    since_ns = 0 if order.question_ns else _waiting_since(order)
    if not since_ns or now_ns - since_ns <= patience_ns:
        return order
    if order.state == OrderState.SENT:
        return replace(order, state=OrderState.UNKNOWN, question_ns=now_ns, changed_ns=now_ns)
    return replace(order, question_ns=now_ns)


def _waiting_since(order: Order) -> int:
    """Since when something about it has been without an answer; 0 if nothing is."""
    waits = []
    if order.state == OrderState.SENT:
        waits.append(order.sent_ns)
    if order.state == OrderState.PENDING_CANCEL:
        waits.append(order.cancel_sent_ns)
    if order.active and not math.isnan(order.next_qty):
        waits.append(order.replace_sent_ns)
    if order.unbooked > _EPS:
        waits.append(order.changed_ns)
    return min(waits, default=0)


def on_missing(order: Order, begin_ns: int, now_ns: int) -> Order:
    """Not in a complete list of open orders that was asked for at ``begin_ns``: it is done, if it was sent before.

    An order that was never acknowledged must have been sent a second before: it may still be on its way inside.
    """
    settled_ns = begin_ns if order.acked_ns else begin_ns - UNLISTED_NS
    if order.state in TERMINAL or order.sent_ns > settled_ns:
        return order
    return _absent(order, now_ns, _unparked(order) or "not among the broker's open orders")


def _absent(order: Order, now_ns: int, text: str) -> Order:
    """Nobody has said that it is over; it can't be otherwise."""
    done = OrderState.CANCELLED if order.acked_ns or order.filled > 0 or order.cancel_sent_ns else OrderState.REJECTED
    return replace(_over(order, done, now_ns), text=text, presumed=True)


def after_restart(order: Order, now_ns: int, same_boot: bool) -> Order:
    """As a new process finds it in the store. PENDING never left; what may live is UNKNOWN until it is read back.

    After a reboot the machine's clock began anew: what was sent counts as sent now.
    """
    if not same_boot:
        order = replace(order, sent_ns=now_ns, acked_ns=now_ns if order.acked_ns else 0, changed_ns=now_ns,
                        cancel_sent_ns=0, replace_sent_ns=now_ns)  # fmt: skip
    if order.state == OrderState.PENDING:
        text = "the bridge ended before the order left"
        return replace(order, state=OrderState.REFUSED, text=text, changed_ns=now_ns)
    if order.state in TERMINAL:
        return replace(order, booked=order.filled, base=0.0, question_ns=0)
    # The day's executions are read back; what was filled before them is settled by the reading after that.
    return replace(order, state=OrderState.UNKNOWN, booked=0.0, base=0.0, question_ns=now_ns, changed_ns=now_ns)


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
    return on_open(order, news, now_ns, listed_ns=now_ns)
