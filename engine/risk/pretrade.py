"""The pre-trade gate: the last decision before the wire, for every source. Pure; time and all facts are arguments.

Invariants
1. An order that adds risk passes only if no stop holds, the lease is valid, data are fresh, the session is open, and
   the position stays under every cap in the worst case of all working and UNKNOWN orders.
2. Risk-reducing means towards zero of a position that the broker has confirmed, never past it, counting what already
   works on the same side. Such an order passes every stop, a stale or wide book, and the size caps (its size is bounded
   by the position); it is never refused for exposure.
3. FLATTEN orders of the watchdog or of the bridge's own dead-man pass whatever only paces or tidies (collar, duplicate,
   self-match, active orders): they must reduce all the same.
4. Refusals are hard. No flag overrides one.

``facts`` holds one SYMBOL_FACTS record per symbol, ``account`` one ACCOUNT_FACTS record. The caller fills them from
cells, orders and config; nothing is looked up here.
"""

# ruff: noqa: I001  (shm.jit sets the kernel cache before numba is imported)
from __future__ import annotations

import math

import numpy as np

from shm.jit import kernel, rec
from numba import types

from engine.domain.codes import IntentFlag, OrderType, Refusal, Source
from shm.layouts import INTENT

EDGES = 4
"""Price bands with an increment of their own that a market rule may have here."""

PEOPLE_FACTOR = 5
"""An entry of a person may be this many times older than the strategy's: after that its price is another one."""

SYMBOL_FACTS = np.dtype(
    [
        ("qty", "<f8"),  # broker-confirmed
        ("mid", "<f8"),  # NaN unknown
        ("working_buy", "<f8"),  # remaining of all orders that may live, UNKNOWN included
        ("working_sell", "<f8"),
        ("own_bid", "<f8"),  # highest own working buy price (+inf market), -inf none
        ("own_ask", "<f8"),  # lowest own working sell price (-inf market), +inf none
        ("repeat_buy_ns", "<i8"),  # time of the n-th last own execution on this side, 0 fewer than n
        ("repeat_sell_ns", "<i8"),
        ("last_ns", "<i8"),  # last order that passed: for duplicates
        ("last_qty", "<f8"),  # signed
        ("last_price", "<f8"),  # NaN market
        ("active_buy", "<i8"),
        ("active_sell", "<i8"),
        ("edge", "<f8", (EDGES,)),  # lower edges of price bands, rising; inf unused
        ("step", "<f8", (EDGES,)),  # increment of each band
        ("last_source", "<i8"),
        ("tradable", "u1"),
        ("session_open", "u1"),
        ("extended_open", "u1"),  # tradable outside regular hours now
        ("halted", "u1"),
        ("fresh", "u1"),  # book valid and not stale
        ("shortable", "u1"),  # 0 not known, 1 no, 2 to be located, 3 yes
        ("blocked", "u1"),  # by a stop for this symbol
        ("pad", "u1"),
    ]
)

ACCOUNT_FACTS = np.dtype(
    [
        ("now_ns", "<i8"),
        ("buying_power_usd", "<f8"),  # NaN unknown
        ("rate_ns", "<i8"),  # time of the n-th last order that adds risk, 0 fewer than n
        ("order_qty", "<f8"),
        ("order_notional_usd", "<f8"),
        ("symbol_usd", "<f8"),
        ("gross_usd", "<f8"),
        ("collar", "<f8"),  # share of the mid
        ("active_per_side", "<i8"),
        ("rate_per_s", "<i8"),
        ("duplicate_ns", "<i8"),
        ("repeated_ns", "<i8"),
        ("stale_intent_ns", "<i8"),
        ("epoch", "<i8"),
        ("tradable_count", "<i8"),
        ("connected", "u1"),
        ("reconciled", "u1"),
        ("account_ok", "u1"),
        ("owner", "u1"),  # the right to send is ours, if only to reduce
        ("lease", "u1"),  # the watchdog's lease is valid
        ("killed", "u1"),
        ("paused", "u1"),
        ("blocked", "u1"),
        ("mode", "u1"),
        ("allow_short", "u1"),
        ("assume_shortable", "u1"),  # an unknown shortability counts as yes
        ("budget", "u1"),  # the governor lets an order of this class leave
        ("pad", "u1", (4,)),
    ]
)

_KILLED, _PAUSED, _BLOCKED, _LEASE = int(Refusal.KILLED), int(Refusal.PAUSED), int(Refusal.BLOCKED), int(Refusal.LEASE)
_MODE, _UNKNOWN_SYMBOL, _SESSION = int(Refusal.MODE), int(Refusal.UNKNOWN_SYMBOL), int(Refusal.SESSION_CLOSED)
_STALE_DATA, _QUANTITY, _PRICE = int(Refusal.STALE_DATA), int(Refusal.QUANTITY), int(Refusal.PRICE)
_INCREMENT, _COLLAR, _SIZE = int(Refusal.INCREMENT), int(Refusal.COLLAR), int(Refusal.ORDER_SIZE)
_NOTIONAL, _SYMBOL_EXPOSURE = int(Refusal.ORDER_NOTIONAL), int(Refusal.SYMBOL_EXPOSURE)
_GROSS, _RATE, _ACTIVE = int(Refusal.GROSS_EXPOSURE), int(Refusal.MESSAGE_RATE), int(Refusal.ACTIVE_ORDERS)
_DUPLICATE, _REPEATED, _SELF = int(Refusal.DUPLICATE), int(Refusal.REPEATED_EXECUTION), int(Refusal.SELF_MATCH)
_SHORT, _BUYING_POWER, _NOT_REDUCING = int(Refusal.NOT_SHORTABLE), int(Refusal.BUYING_POWER), int(Refusal.NOT_REDUCING)
_STALE_INTENT, _NOT_CONNECTED = int(Refusal.STALE_INTENT), int(Refusal.NOT_CONNECTED)
_ACCOUNT, _RECONCILING, _HALTED = int(Refusal.ACCOUNT), int(Refusal.RECONCILING), int(Refusal.HALTED)
_MKT, _LMT = int(OrderType.MKT), int(OrderType.LMT)
_ALGO, _WATCHDOG, _BRIDGE = int(Source.ALGO), int(Source.WATCHDOG), int(Source.BRIDGE)
_REDUCE, _FLATTEN, _OUTSIDE = int(IntentFlag.REDUCE_ONLY), int(IntentFlag.FLATTEN), int(IntentFlag.OUTSIDE_RTH)
_EPS = 1e-9


@kernel(types.float64(rec(SYMBOL_FACTS), types.int64, types.float64))
def increment_at(facts, s, price):  # type: ignore[no-untyped-def]
    """Price increment of symbol ``s`` at ``price``, USD."""
    step = facts[s].step[0]
    for i in range(1, EDGES):
        if price >= facts[s].edge[i]:
            step = facts[s].step[i]
    return step


@kernel(types.float64(rec(SYMBOL_FACTS), types.int64, types.int64))
def reducible(facts, s, side):  # type: ignore[no-untyped-def]
    """Shares that an order on ``side`` may still close without ever going past zero."""
    qty = facts[s].qty
    if qty * side >= 0:
        return 0.0
    working = facts[s].working_buy if side > 0 else facts[s].working_sell
    return max(0.0, abs(qty) - working)


@kernel(types.float64(rec(SYMBOL_FACTS), types.int64))
def worst_qty(facts, s):  # type: ignore[no-untyped-def]
    """Largest absolute position of symbol ``s`` if the wrong side of all living orders fills; NaN: unknown."""
    if not math.isfinite(facts[s].qty + facts[s].working_buy + facts[s].working_sell):
        return math.nan
    return max(abs(facts[s].qty + facts[s].working_buy), abs(facts[s].qty - facts[s].working_sell))


@kernel(types.int64(rec(INTENT), rec(SYMBOL_FACTS), rec(ACCOUNT_FACTS), types.float64[::1]))
def check(intent, facts, account, out):  # type: ignore[no-untyped-def]
    """Verdict on a NEW intent: a Refusal code, 0 to let it go.

    ``out``: 0 the value that was found, 1 what is allowed, 2 whether the order reduces risk (1.0 or 0.0).
    """
    out[0] = math.nan
    out[1] = math.nan
    out[2] = 0.0
    a = account[0]
    i = intent[0]
    s = np.int64(i.symbol)
    side = np.int64(i.side)
    now = a.now_ns
    if s >= facts.shape[0] or facts[s].tradable == 0:
        out[0] = s
        out[1] = a.tradable_count - 1
        return _UNKNOWN_SYMBOL
    f = facts[s]
    if a.account_ok == 0:
        return _ACCOUNT
    if i.mode != 0 and i.mode != a.mode:
        out[0] = i.mode
        out[1] = a.mode
        return _MODE
    if a.connected == 0:
        return _NOT_CONNECTED
    if a.owner == 0 or (i.epoch > 0 and i.epoch < a.epoch):
        out[0] = i.epoch
        out[1] = a.epoch
        return _LEASE

    # Form.
    qty = i.qty
    out[0] = qty
    out[1] = 1.0
    if not math.isfinite(qty) or qty < 1.0 or qty != math.floor(qty) or (side != 1 and side != -1):
        return _QUANTITY
    limit = i.limit_price
    market = i.order_type == _MKT
    if not market:
        out[0] = limit
        out[1] = math.nan
        if i.order_type != _LMT or not math.isfinite(limit) or limit <= 0.0:
            return _PRICE
        step = increment_at(facts, s, limit)
        out[1] = step
        if abs(limit / step - round(limit / step)) > 1e-6:
            return _INCREMENT

    if a.reconciled == 0:
        return _RECONCILING
    flatten = (i["flags"] & _FLATTEN) != 0
    room = reducible(facts, s, side)
    reducing = qty <= room + _EPS
    if (flatten or (i["flags"] & _REDUCE) != 0) and not reducing:
        out[0] = qty
        out[1] = room
        return _NOT_REDUCING
    forced = flatten and reducing and (i.source == _WATCHDOG or i.source == _BRIDGE)
    out[2] = 1.0 if reducing else 0.0

    # Age.
    if i.source == _ALGO and now - i.t_intent_ns > a.stale_intent_ns:
        out[0] = (now - i.t_intent_ns) / 1e9
        out[1] = a.stale_intent_ns / 1e9
        return _STALE_INTENT
    if not reducing and i.t_intent_ns > 0 and now - i.t_intent_ns > PEOPLE_FACTOR * a.stale_intent_ns:
        out[0] = (now - i.t_intent_ns) / 1e9
        out[1] = PEOPLE_FACTOR * a.stale_intent_ns / 1e9
        return _STALE_INTENT
    if i.expires_ns != 0 and now > i.expires_ns:
        out[0] = (now - i.expires_ns) / 1e9
        out[1] = 0.0
        return _STALE_INTENT

    # Stops: they hold back what adds risk, and only that.
    mid = f.mid
    if not reducing:
        out[0] = math.nan
        out[1] = math.nan
        if a.killed != 0:
            return _KILLED
        if a.paused != 0:
            return _PAUSED
        if a.lease == 0:
            return _LEASE
        if f.halted != 0:
            return _HALTED
        outside = (i["flags"] & _OUTSIDE) != 0 and not market
        if f.session_open == 0 and not (outside and f.extended_open != 0):
            return _SESSION
        if f.fresh == 0 or not (mid > 0.0):
            return _STALE_DATA
        if a.blocked != 0 or f.blocked != 0:
            return _BLOCKED
        if a.budget == 0 or (a.rate_ns != 0 and now - a.rate_ns < 1_000_000_000):
            out[0] = a.rate_per_s + 1
            out[1] = a.rate_per_s
            return _RATE

    # Size and price.
    price = mid if market else limit
    if not reducing:
        out[0] = qty
        out[1] = a.order_qty
        if qty > a.order_qty:
            return _SIZE
        out[0] = qty * max(price, mid)
        out[1] = a.order_notional_usd
        if out[0] > a.order_notional_usd:
            return _NOTIONAL
    if not market and not forced and mid > 0.0 and (f.fresh != 0 or not reducing):
        bound = mid * (1.0 + side * a.collar)
        out[0] = limit
        out[1] = bound
        if (limit - bound) * side > 0.0:
            return _COLLAR

    # Order flow.
    if not forced:
        active = f.active_buy if side > 0 else f.active_sell
        out[0] = active + 1
        out[1] = a.active_per_side
        if active >= a.active_per_side:
            return _ACTIVE
        same_price = f.last_price == limit or (market and f.last_price != f.last_price)
        if (
            f.last_ns != 0
            and now - f.last_ns < a.duplicate_ns
            and f.last_source == i.source
            and f.last_qty == side * qty
            and same_price
        ):
            out[0] = (now - f.last_ns) / 1e6
            out[1] = a.duplicate_ns / 1e6
            return _DUPLICATE
        if side > 0:
            crossed = f.own_ask < math.inf and (market or limit >= f.own_ask)
            out[1] = f.own_ask
        else:
            crossed = f.own_bid > -math.inf and (market or limit <= f.own_bid)
            out[1] = f.own_bid
        out[0] = math.nan if market else limit
        if crossed:
            return _SELF
    if reducing:
        return 0
    repeat = f.repeat_buy_ns if side > 0 else f.repeat_sell_ns
    if i.source == _ALGO and repeat != 0 and now - repeat < a.repeated_ns:
        out[0] = (now - repeat) / 1e9
        out[1] = a.repeated_ns / 1e9
        return _REPEATED

    # Exposure in the worst case.
    after_sell = f.qty - f.working_sell - qty
    if side < 0 and after_sell < -_EPS:
        out[0] = after_sell
        out[1] = 0.0
        if a.allow_short == 0 or f.shortable == 1 or f.shortable == 2 or (f.shortable == 0 and a.assume_shortable == 0):
            return _SHORT
    worst = (
        max(f.qty + f.working_buy + qty, -(f.qty - f.working_sell))
        if side > 0
        else max(-after_sell, f.qty + f.working_buy)
    )
    mark = max(price, mid)
    exposure = worst * mark
    out[0] = exposure
    out[1] = a.symbol_usd
    if not (exposure <= a.symbol_usd) or math.isnan(worst_qty(facts, s)):  # unknown is above every limit
        return _SYMBOL_EXPOSURE
    gross = exposure
    for k in range(facts.shape[0]):
        if k != s:
            held = worst_qty(facts, k)
            if not (held <= 0.0):
                other = facts[k].mid
                if not (other > 0.0):
                    out[0] = math.nan
                    out[1] = a.gross_usd
                    return _GROSS
                gross += held * other
    out[0] = gross
    out[1] = a.gross_usd
    if not (gross <= a.gross_usd):
        return _GROSS
    out[0] = qty * mark
    out[1] = a.buying_power_usd
    if not (out[0] <= a.buying_power_usd):
        return _BUYING_POWER
    return 0
