"""A broker with one order, told in full: the truth that the order machine is checked against.

Everything is a value: ``World`` is frozen, ``moves`` gives every world that can come next. Requests and executions keep
their order (one connection); statuses and openOrders may be repeated, left out or overtaken. A lost link drops all that
was under way to us; what was under way to the broker arrives or not. Time stands still but for ``wait``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from engine.broker import orders as life
from engine.broker.news import OpenOrderNews, OrderStatusNews
from engine.broker.orders import Order
from engine.domain.codes import OrderState

S = OrderState
SECOND = 1_000_000_000
PATIENCE_NS = 2 * SECOND
PERM = 55


@dataclass(frozen=True, slots=True)
class Truth:
    """The order as the exchange has it. ``status`` empty: never received. ``parked``: Inactive, and listed, for it may
    be taken up again; with ``leaving`` it is over, and nobody says so."""

    status: str = ""
    qty: float = 0.0
    limit: float = 10.0
    filled: float = 0.0
    parked: bool = False
    leaving: bool = False

    @property
    def live(self) -> bool:
        return self.parked or self.status in ("PreSubmitted", "Submitted", "PendingCancel")

    @property
    def potential(self) -> float:
        """Shares that can be filled in the end."""
        return self.qty if self.live else self.filled


@dataclass(frozen=True, slots=True)
class Bounds:
    """How often each thing may happen."""

    qty: float = 2.0
    cancels: int = 1
    replaces: tuple[float, ...] = (3.0,)
    losses: int = 1
    kills: int = 0
    readings: int = 1
    errors: int = 1
    tricks: int = 1
    """Repeated, dropped or overtaking messages."""
    parks: int = 0


@dataclass(frozen=True, slots=True)
class World:
    order: Order
    truth: Truth
    requests: tuple[tuple[object, ...], ...]
    messages: tuple[tuple[object, ...], ...]
    now: int
    used: tuple[int, ...] = (0, 0, 0, 0, 0, 0, 0, 0)
    booked: float = 0.0
    """Shares that executions have told us of: what the position has."""
    reading: int = 0
    """When the running reading was asked for, 0 none."""
    connected: bool = True
    reconciled: bool = True
    """The books have been read since the process began: until then nothing may be sent."""


CANCELS, REPLACES, LOSSES, KILLS, READINGS, ERRORS, TRICKS, PARKS = range(8)


def begin(bounds: Bounds) -> World:
    order = Order(
        intent_id=7, order_id=3, symbol=0, source=1, side=1, qty=bounds.qty, order_type=2, limit_price=10.0, tif=1,
        flags=0, entry=True, state=S.SENT, sent_ns=10 * SECOND, changed_ns=10 * SECOND,
    )  # fmt: skip
    return World(order, Truth(qty=bounds.qty), (("place", bounds.qty, 10.0),), (), 10 * SECOND)


def _spend(w: World, what: int) -> World:
    used = list(w.used)
    used[what] += 1
    return replace(w, used=tuple(used))


# The exchange.


def _status(t: Truth) -> tuple[object, ...]:
    return ("status", t.status, t.filled, t.qty - t.filled)


def _open(t: Truth) -> tuple[object, ...]:
    return ("open", t.status, t.qty, t.limit)


def _say(w: World, *messages: tuple[object, ...]) -> World:
    return replace(w, messages=w.messages + messages) if w.connected else w


def handle(w: World) -> World:
    """The broker takes the next request."""
    request, w = w.requests[0], replace(w, requests=w.requests[1:])
    kind, t = request[0], w.truth
    if kind == "place" and not t.status:
        t = Truth("PreSubmitted", float(request[1]), float(request[2]))  # type: ignore[arg-type]
        return _say(replace(w, truth=t), _open(t), _status(t))
    if kind == "place":
        qty = float(request[1])  # type: ignore[arg-type]
        if not t.live or qty <= t.filled:
            return _say(w, ("error", 201 if t.live else 104))  # of the change, not of the order
        t = replace(t, qty=qty, limit=float(request[2]))  # type: ignore[arg-type]
        return _say(replace(w, truth=t), _open(t), _status(t))
    if kind == "cancel":
        if not t.status:
            return _say(w, ("error", 10147))
        if not t.live:
            return _say(w, ("error", 10148))
        if t.parked:
            return replace(w, truth=replace(t, leaving=True))
        t = replace(t, status="PendingCancel")
        return _say(replace(w, truth=t), _status(t))
    if kind == "executions":
        return _say(w, ("executions", t.filled))
    rows = ("list", t.status, t.qty, t.limit, t.filled) if t.live else ("list", "")
    return _say(w, rows)


def exchange_moves(w: World, b: Bounds) -> Iterator[tuple[str, World]]:
    t = w.truth
    if not t.live:
        return
    if t.parked:
        over = replace(t, parked=False)
        if t.leaving:
            gone = replace(over, status="Cancelled")
            yield "leave", _say(replace(w, truth=gone), _status(gone), ("error", 202))
        else:
            taken = replace(over, status="Submitted")
            yield "take up", _say(replace(w, truth=taken), _status(taken))
            yield "give up", _say(replace(w, truth=over), ("error", 201))
        return
    if t.status != "PendingCancel" and w.used[PARKS] < b.parks:
        parked = replace(t, status="Inactive", parked=True)
        yield "park", _spend(_say(replace(w, truth=parked), _status(parked)), PARKS)
    if t.status == "PreSubmitted":
        accepted = replace(t, status="Submitted")
        yield "accept", _say(replace(w, truth=accepted), _status(accepted))
        rejected = replace(t, status="Inactive")
        if not t.filled:
            yield "reject", _say(replace(w, truth=rejected), ("error", 201), _status(rejected))
            yield "reject, status first", _say(replace(w, truth=rejected), _status(rejected), ("error", 201))
    filled = replace(t, filled=t.filled + 1)
    if filled.filled >= filled.qty:
        filled = replace(filled, status="Filled")
    yield "fill", _say(replace(w, truth=filled), ("execution", filled.filled), _status(filled))
    yield "fill, status first", _say(replace(w, truth=filled), _status(filled), ("execution", filled.filled))
    if t.status == "PendingCancel":
        gone = replace(t, status="Cancelled")
        yield "cancelled", _say(replace(w, truth=gone), _status(gone), ("error", 202))


# Our side.


def hear(w: World, message: tuple[object, ...]) -> World:
    kind, o, now = message[0], w.order, w.now
    if kind == "status":
        news = OrderStatusNews(3, 11, PERM, str(message[1]), float(message[2]), float(message[3]), 10.0)  # type: ignore[arg-type]
        return replace(w, order=life.on_status(o, news, now))
    if kind == "open":
        return replace(w, order=life.on_open(o, _listing(message), now))
    if kind == "error":
        return replace(w, order=life.on_error(o, int(str(message[1])), "text", now))
    if kind in ("execution", "executions"):
        booked = max(w.booked, float(message[1]))  # type: ignore[arg-type]
        order = life.on_executions(o, booked, 10.0, now) if booked else o
        return replace(w, order=order, booked=booked)
    if message[1]:
        o = life.on_open(o, _listing(message), now, listed_ns=w.reading)
        news = OrderStatusNews(3, 11, PERM, str(message[1]), float(message[4]), 0.0, 10.0)  # type: ignore[arg-type]
        o = life.on_status(o, news, now)
    elif o.active:
        o = life.on_missing(o, w.reading, now)
    return replace(w, order=life.on_reading(o, w.reading), reading=0, reconciled=True)


def _listing(message: tuple[object, ...]) -> OpenOrderNews:
    qty, limit = float(message[2]), float(message[3])  # type: ignore[arg-type]
    return OpenOrderNews(3, 11, PERM, 1, "AAPL", "DU1", 1, qty, "LMT", limit, "DAY", "L2:7", str(message[1]))


def wait(w: World) -> World:
    """Time passes until nothing can be under way inside the broker any more."""
    now = w.now + 3 * SECOND
    return replace(w, now=now, order=life.on_silence(w.order, now, PATIENCE_NS))


def read(w: World) -> World:
    return replace(
        w, now=w.now + 1, reading=w.now, connected=True, requests=(*w.requests, ("executions",), ("orders",))
    )


def lose(w: World, arrived: bool, killed: bool) -> World:
    w = replace(w, connected=False, messages=(), reading=0)
    while arrived and w.requests:
        w = handle(w)
    w = replace(w, requests=())
    if not killed:
        return replace(w, order=life.on_link_lost(w.order, w.now))
    return replace(w, order=life.after_restart(w.order, w.now, True), booked=0.0, reconciled=False)


def cancel(w: World) -> World:
    return replace(w, order=life.on_cancel_sent(w.order, w.now), requests=(*w.requests, ("cancel",)))


def moves(w: World, b: Bounds) -> Iterator[tuple[str, World]]:
    o, used = w.order, w.used
    yield from exchange_moves(w, b)
    if w.requests:
        yield f"handle {w.requests[0][0]}", handle(w)
    if w.messages:
        yield f"hear {w.messages[0][0]}", hear(replace(w, messages=w.messages[1:]), w.messages[0])
    if used[TRICKS] < b.tricks:
        for k, message in enumerate(w.messages):
            if message[0] not in ("status", "open"):
                continue
            rest = _spend(replace(w, messages=w.messages[:k] + w.messages[k + 1 :]), TRICKS)
            if k:
                yield f"hear {message[0]} {k} too early", hear(rest, message)
            yield f"drop {message[0]}", rest
            yield f"repeat {message[0]}", hear(_spend(w, TRICKS), message)
            yield f"delay {message[0]}", replace(rest, messages=(*rest.messages, message))
    if w.connected and not w.reading:
        if used[CANCELS] < b.cancels and o.active:
            yield "cancel", _spend(cancel(w), CANCELS)
        if used[REPLACES] < len(b.replaces) and o.state in (S.WORKING, S.PARTIAL) and math.isnan(o.next_qty):
            qty = b.replaces[used[REPLACES]]
            if qty > o.filled:
                order = life.on_replace_sent(o, qty, 11.0, w.now)
                yield "replace", _spend(replace(w, order=order, requests=(*w.requests, ("place", qty, 11.0))), REPLACES)
    if w.connected and used[LOSSES] < b.losses:
        yield "lose, all arrives", _spend(lose(w, True, False), LOSSES)
        yield "lose, nothing arrives", _spend(lose(w, False, False), LOSSES)
    if w.connected and used[KILLS] < b.kills:
        yield "kill, all arrives", _spend(lose(w, True, True), KILLS)
        yield "kill, nothing arrives", _spend(lose(w, False, True), KILLS)
    if not w.reading and (not w.connected or used[READINGS] < b.readings):
        yield "read", _spend(read(w), READINGS) if w.connected else read(w)
    if w.connected and used[ERRORS] < b.errors:
        for code in (161, 10349):
            yield f"error {code}", _spend(_say(w, ("error", code)), ERRORS)


# What must hold.


def unsafe(w: World) -> str:
    """In words why the machine understates what may still reach the position; empty if it does not."""
    if not w.reconciled:
        return ""
    if not w.connected and w.order.active and w.order.state != S.UNKNOWN:
        return f"the link is lost and the order is still called {w.order.state.name}"
    possible = w.truth.potential
    for request in w.requests:
        if request[0] == "place" and (not w.truth.status or w.truth.live):
            possible = max(possible, float(request[1]))  # type: ignore[arg-type]
    if w.booked + w.order.remaining < possible - 1e-9:
        return f"booked {w.booked:g} and open {w.order.remaining:g}, but {possible:g} may be filled"
    return ""


def settle(w: World) -> World:
    """Let everything arrive, then look as the bridge does: silence, readings, lost cancels once more."""
    looked = not w.used[PARKS]  # that it was parked may have gone unsaid: the regular look finds it
    for _ in range(8):
        while w.requests or w.messages:
            w = hear(replace(w, messages=w.messages[1:]), w.messages[0]) if w.messages else handle(w)
        w = wait(w)
        parked = w.order.parked and w.order.state == S.UNKNOWN
        if w.connected and not w.order.question_ns and (parked or w.order.state not in (S.UNKNOWN, S.SENT)):
            lost = w.order.cancel_wanted and (parked or w.order.state in (S.WORKING, S.PARTIAL))
            if lost:
                w = cancel(w)
            elif looked or not w.order.active:
                break
            else:
                looked, w = True, read(w)
        else:
            w = read(w)
    return w


def wrong(w: World) -> str:
    """After ``settle``: in words where machine and truth differ; empty if they agree."""
    o, t = w.order, w.truth
    expected = {
        "": S.REJECTED,
        "PreSubmitted": S.PARTIAL if t.filled else S.WORKING,
        "Submitted": S.PARTIAL if t.filled else S.WORKING,
        "PendingCancel": S.PENDING_CANCEL,
        "Filled": S.FILLED,
        "Cancelled": S.CANCELLED,
        "Inactive": S.UNKNOWN if t.parked and not t.leaving else S.REJECTED,
    }[t.status]
    alike = {S.REJECTED: (S.REJECTED, S.CANCELLED), S.FILLED: (S.FILLED, S.CANCELLED)}.get(expected, (expected,))
    if expected == S.CANCELLED and o.qty <= t.filled < t.qty:
        alike = (
            S.CANCELLED,
            S.FILLED,
        )  # a growth that we have never heard of was cancelled: all that we knew of is filled
    if o.state not in alike or o.parked != (o.state == S.UNKNOWN):
        return f"the broker has {t.status or 'nothing'}, we have {o.state.name}"
    if (o.filled, w.booked, o.unbooked) != (t.filled, t.filled, 0.0):
        return f"filled: broker {t.filled:g}, we {o.filled:g}, position {w.booked:g}, unbooked {o.unbooked:g}"
    if t.live and not t.leaving and ((o.qty, o.limit_price) != (t.qty, t.limit) or not math.isnan(o.next_qty)):
        return f"terms: broker {t.qty:g} at {t.limit:g}, we {o.qty:g} at {o.limit_price:g}, changing to {o.next_qty:g}"
    return ""
