"""The regime strategy's decision, compiled: what ``engine.strategy.regime.decide`` decides, over records.

``regime.decide`` is the readable form and the oracle: tests compare both over arbitrary situations. Nothing here is
kept between calls but the records that are passed in.
"""

# ruff: noqa: I001  (shm.jit sets the kernel cache before numba is imported)
from __future__ import annotations

import math

import numpy as np

from shm.jit import kernel, rec
from numba import types

from engine.domain.codes import TimeInForce
from engine.strategy.protocol import Purpose

NS = 1_000_000_000
ENTRY_GAP_NS = 6 * NS
"""Between entries of all symbols: with commissions, trading more often only costs more."""
SIDE_GAP_NS = 300_000_000
RECANCEL_NS = 2 * NS
STOP_SPREADS = 4.0
WIDE_FACTOR = 3.0
"""No entry while the spread is above this many times its 5-minute median."""
TAKE_TICKS = 3
"""How far through the touch a taking order may trade."""
EPS = 1e-9

SITUATION = np.dtype(
    [
        ("symbol", "<i8"),
        ("tick_size", "<f8"),
        ("bid", "<f8"),
        ("ask", "<f8"),
        ("bid_size", "<f8"),
        ("ask_size", "<f8"),
        ("micro_price", "<f8"),
        ("spread_median_bps", "<f8"),
        ("book_valid", "<i8"),
        ("model_valid", "<i8"),
        ("warming", "<i8"),
        ("regime", "<i8"),
        ("states", "<i8"),
        ("confidence_ema", "<f8"),
        ("qty", "<f8"),
        ("held_qty", "<f8"),
        ("working_buy_qty", "<f8"),
        ("working_sell_qty", "<f8"),
        ("gross_usd", "<f8"),
        ("day_pnl_usd", "<f8"),
        ("entries_allowed", "<i8"),
        ("exits_allowed", "<i8"),
    ]
)
"""``protocol.Situation`` as a record."""

WORKING = np.dtype(
    [
        ("intent_id", "<i8"),
        ("side", "<i8"),
        ("limit_price", "<f8"),
        ("purpose", "<i8"),
        ("sent_ns", "<i8"),
        ("cancel_ns", "<i8"),
    ]
)
"""``protocol.Working`` as a record."""

MEMORY = np.dtype([("opened_ns", "<i8"), ("entry_price", "<f8"), ("calm_until_ns", "<i8")])
"""``regime.Memory`` of one symbol."""

PARAMETERS = np.dtype(
    [
        ("symbol_usd", "<f8"),
        ("gross_usd", "<f8"),
        ("order_usd", "<f8"),
        ("daily_stop_usd", "<f8"),
        ("min_confidence", "<f8"),
        ("entry_imbalance", "<f8"),
        ("hold_ns", "<i8"),
        ("order_ttl_ns", "<i8"),
        ("cooldown_ns", "<i8"),
        ("entry_gap_ns", "<i8"),
        ("next_entry_ns", "<i8"),  # state, not a parameter: entries of all symbols keep this distance
    ]
)

DECISION = np.dtype(
    [
        ("action", "<i8"),
        ("intent_id", "<i8"),  # to cancel
        ("side", "<i8"),
        ("qty", "<f8"),
        ("limit_price", "<f8"),
        ("purpose", "<i8"),
        ("tif", "<i8"),
        ("why", "<i8"),  # index of WHY
        ("lean", "<f8"),
    ]
)
NOTHING, PLACE, CANCEL = 0, 1, 2
WHY = (
    "", "longest hold", "imbalance turned", "loss limit", "volatile regime", "a stop holds", "book invalid",
    "time to live", "the touch moved", "take instead", "offer at the touch", "imbalance",
)  # fmt: skip
_HOLD, _TURNED, _LOSS, _VOLATILE, _STOP, _INVALID, _TTL, _MOVED, _TAKE, _OFFER, _LEAN = range(1, 12)
_ENTRY, _EXIT = int(Purpose.ENTRY), int(Purpose.EXIT)
_DAY, _IOC = int(TimeInForce.DAY), int(TimeInForce.IOC)

_S, _W, _M, _P, _D = rec(SITUATION), rec(WORKING), rec(MEMORY), rec(PARAMETERS), rec(DECISION)
_i8, _f8 = types.int64, types.float64


@kernel(_f8(_f8, _f8))
def on_tick(price, tick):  # type: ignore[no-untyped-def]
    """Nearest multiple of ``tick``, rounded to 6 decimals (correctly, as Python's ``round`` does)."""
    return np.floor(np.rint(price / tick) * tick * 1e6 + 0.5) / 1e6


@kernel(_i8(_S, _M, _i8, _P, _f8, _i8))
def must_take(s, m, k, p, lean, now_ns):  # type: ignore[no-untyped-def]
    """Why a position has to go now (index of WHY), or 0."""
    now, me, par = s[0], m[k], p[0]
    if now_ns - me.opened_ns >= par.hold_ns:
        return _HOLD
    sign = 1.0 if now.qty > 0 else -1.0
    if sign * lean < -par.entry_imbalance:
        return _TURNED
    limit = STOP_SPREADS * max(now.ask - now.bid, now.tick_size)
    mid = 0.5 * (now.bid + now.ask)
    if me.entry_price == me.entry_price and sign * (mid - me.entry_price) < -limit:
        return _LOSS
    if now.states > 1 and now.regime == now.states - 1 and now.model_valid != 0:
        return _VOLATILE
    return 0


@kernel(_i8(_S, _W, _i8, _M, _i8, _P, _f8, _i8))
def cancel_reason(s, orders, i, m, k, p, lean, now_ns):  # type: ignore[no-untyped-def]
    """Why working order ``i`` has to go (index of WHY), or 0."""
    now, o, par = s[0], orders[i], p[0]
    age = now_ns - o.sent_ns
    if o.purpose == _ENTRY:
        if now.entries_allowed == 0:
            return _STOP
        if now.book_valid == 0:
            return _INVALID
        if age >= par.order_ttl_ns:
            return _TTL
        if age >= SIDE_GAP_NS and o.side * lean < -par.entry_imbalance:
            return _TURNED
        return 0
    if now.exits_allowed == 0:
        return _STOP
    if now.book_valid == 0:
        return 0
    if age >= par.order_ttl_ns and o.limit_price != (now.ask if o.side < 0 else now.bid):
        return _MOVED
    if now.qty != 0 and age >= SIDE_GAP_NS and must_take(s, m, k, p, lean, now_ns) != 0:
        return _TAKE
    return 0


@kernel(types.void(_S, _M, _i8, _P, _f8, _i8, _D))
def leave(s, m, k, p, lean, now_ns, d):  # type: ignore[no-untyped-def]
    """The exit of a position, if any of it may still be closed."""
    now, out = s[0], d[0]
    if now.qty * now.held_qty <= 0:
        return
    works = now.working_sell_qty if now.qty > 0 else now.working_buy_qty
    qty = max(0.0, math.floor(min(abs(now.qty), abs(now.held_qty) - works) + EPS))
    if qty < 1:
        return
    side = -1 if now.qty > 0 else 1
    out.action = PLACE
    out.side = side
    out.qty = qty
    out.purpose = _EXIT
    out.why = must_take(s, m, k, p, lean, now_ns)
    if out.why != 0:
        touch = now.ask if side > 0 else now.bid
        out.limit_price = on_tick(touch + side * TAKE_TICKS * now.tick_size, now.tick_size)
        out.tif = _IOC
    else:
        out.limit_price = now.ask if side < 0 else now.bid
        out.tif = _DAY
        out.why = _OFFER


@kernel(types.void(_S, _M, _i8, _P, _f8, _i8, _D))
def enter(s, m, k, p, lean, now_ns, d):  # type: ignore[no-untyped-def]
    """The entry of a flat symbol, if every condition holds."""
    now, me, par, out = s[0], m[k], p[0], d[0]
    if now.entries_allowed == 0 or now.model_valid == 0 or now.warming != 0 or now_ns < me.calm_until_ns:
        return
    if now.day_pnl_usd <= -par.daily_stop_usd or not (now.confidence_ema >= par.min_confidence):
        return
    if now.states > 1 and now.regime == now.states - 1:
        return
    if abs(lean) < par.entry_imbalance:
        return
    mid = 0.5 * (now.bid + now.ask)
    spread_bps = (now.ask - now.bid) / mid * 1e4
    if spread_bps > WIDE_FACTOR * now.spread_median_bps:
        return
    side = 1 if lean > 0 else -1
    if side * (now.micro_price - mid) <= 0 or not (mid > 0):
        return
    worst = max(abs(now.held_qty + now.working_buy_qty), abs(now.held_qty - now.working_sell_qty)) * now.ask
    room = min(par.order_usd, par.symbol_usd - worst, par.gross_usd - now.gross_usd)
    qty = math.floor(room / now.ask) if room > 0 else 0.0
    if qty < 1:
        return
    touch = now.bid if side > 0 else now.ask
    wide = now.ask - now.bid >= 1.5 * now.tick_size
    out.action = PLACE
    out.side = side
    out.qty = qty
    out.limit_price = on_tick(touch + side * now.tick_size, now.tick_size) if wide else touch
    out.purpose = _ENTRY
    out.tif = _DAY
    out.why = _LEAN


@kernel(types.void(_S, _W, _i8, _M, _i8, _P, _i8, _D))
def decide(s, orders, count, m, k, p, now_ns, d):  # type: ignore[no-untyped-def]
    """The next action for the symbol of ``s[0]`` into ``d[0]``; ``m[k]`` is its memory and is updated.

    ``orders[:count]`` are its own working orders. An entry that comes too soon after the last one of any symbol is
    withheld here (``next_entry_ns``), as the strategy object does.
    """
    now, me, par, out = s[0], m[k], p[0], d[0]
    out.action = NOTHING
    out.why = 0
    if now.qty == 0 and me.opened_ns != 0:
        me.opened_ns = 0
        me.entry_price = math.nan
        me.calm_until_ns = now_ns + par.cooldown_ns
    elif now.qty != 0 and me.opened_ns == 0:
        me.opened_ns = now_ns
        me.entry_price = 0.5 * (now.bid + now.ask) if now.book_valid != 0 else math.nan
    total = now.bid_size + now.ask_size
    lean = (now.bid_size - now.ask_size) / total if total > 0 and now.book_valid != 0 else 0.0
    out.lean = lean
    for i in range(count):
        why = cancel_reason(s, orders, i, m, k, p, lean, now_ns)
        asked = orders[i].cancel_ns
        if why != 0 and (asked == 0 or now_ns - asked >= RECANCEL_NS):
            out.action = CANCEL
            out.intent_id = orders[i].intent_id
            out.why = why
            return
    if count > 0 or now.book_valid == 0:
        return
    if now.qty != 0:
        if now.exits_allowed != 0:
            leave(s, m, k, p, lean, now_ns, d)
        return
    enter(s, m, k, p, lean, now_ns, d)
    if out.action == PLACE:
        if now_ns < par.next_entry_ns:
            out.action = NOTHING
            return
        par.next_entry_ns = now_ns + par.entry_gap_ns
