"""Loops around the kernels that serve, so that a measurement pays for them and not for the walk through Python."""

# ruff: noqa: I001  (shm.jit sets the kernel cache before numba is imported)
from __future__ import annotations

from shm.jit import kernel, rec
from numba import types

from engine.broker.encode import TEMPLATE, encode_order
from engine.market.features import drain
from engine.market.ktypes import BOOKS, MODELS, SIGNALS, STATE, TICKS
from engine.market.layout import C_NEXT_BAR
from engine.market.publish import publish
from engine.procs.hot_kernel import clock_ns
from engine.risk.pretrade import ACCOUNT_FACTS, SYMBOL_FACTS, check
from engine.strategy.regime_kernel import DECISION, MEMORY, PARAMETERS, PLACE, SITUATION, WORKING, decide
from shm.counters import histogram_record
from shm.layouts import INTENT

_i8, _I1, _F1 = types.int64, types.int64[::1], types.float64[::1]
_FACTS, _ACCOUNT, _INTENT = rec(SYMBOL_FACTS), rec(ACCOUNT_FACTS), rec(INTENT)
SIGNALS_AT, GATED_AT, PASSED_AT = range(3)


@kernel(
    _i8(
        TICKS, _i8, STATE, _I1, BOOKS, MODELS, SIGNALS, _I1, rec(SITUATION), rec(WORKING), rec(MEMORY),
        rec(PARAMETERS), rec(DECISION), _FACTS, _ACCOUNT, _INTENT, _F1, _F1, _I1,
    )
)  # fmt: skip
def pipeline(  # type: ignore[no-untyped-def]
    ticks, at, state, control, books, models, signals, changed, situation, working, memory, parameters, decision,
    facts, account, intent, verdict, tick_sizes, counts,
):  # fmt: skip
    """Every event by itself: book and features, publication, decision, and the gate for whatever is asked for."""
    n = ticks.shape[0]
    while at < n:
        t = ticks[at].t_socket_ns
        if t >= control[C_NEXT_BAR]:
            return at
        drain(ticks, at, at + 1, state, control)
        at += 1
        for k in range(publish(state, books, models, signals, changed, t, 0)):
            counts[SIGNALS_AT] += 1
            s = types.int64(signals[k].symbol)
            book, model, now = books[s], models[s], situation[0]
            quoted = book.valid != 0 and book.bid_rows > 0 and book.ask_rows > 0
            now.symbol = s
            now.tick_size = tick_sizes[s]
            now.bid = book["bid_price"][0] if quoted else 0.0
            now.ask = book["ask_price"][0] if quoted else 0.0
            now.bid_size = book["bid_size"][0]
            now.ask_size = book["ask_size"][0]
            now.micro_price = book.micro_price
            now.spread_median_bps = book.spread_median_bps
            now.book_valid = 1 if quoted and 0.0 < now.bid < now.ask else 0
            now.model_valid = model.valid
            now.warming = model.warming
            now.regime = model.regime
            now.states = model.states
            now.confidence_ema = model.confidence_ema
            now.entries_allowed = 1
            now.exits_allowed = 1
            decide(situation, working, 0, memory, s, parameters, t, decision)
            d = decision[0]
            if d.action != PLACE:
                continue
            counts[GATED_AT] += 1
            i = intent[0]
            i.symbol = s
            i.kind = 1
            i.source = 1
            i.side = d.side
            i.order_type = 2
            i.qty = d.qty
            i.limit_price = d.limit_price
            i.t_intent_ns = t
            facts[s].mid = book.mid
            account[0].now_ns = t
            if check(intent, facts, account, verdict) == 0:
                counts[PASSED_AT] += 1
    return at


@kernel(_i8(_INTENT, _FACTS, _ACCOUNT, _F1, _i8))
def gates(intent, facts, account, out, n):  # type: ignore[no-untyped-def]
    """The same intent ``n`` times; returns how often it passed."""
    passed = 0
    for k in range(n):
        intent[0].intent_id = k
        passed += 1 if check(intent, facts, account, out) == 0 else 0
    return passed


@kernel(_i8(rec(TEMPLATE), types.uint8[::1], _i8))
def encodes(templates, out, n):  # type: ignore[no-untyped-def]
    """``n`` orders; returns the bytes written."""
    total = 0
    for k in range(n):
        total += encode_order(templates, 0, out, 0, 1000 + k, 1, 100.0, 2, 187.15, 1, 72057594037927936 + k, 0)
    return total


@kernel(types.void(_I1, _i8, _i8, _i8))
def stamps(words, clock, n, read):  # type: ignore[no-untyped-def]
    """Record ``n`` hops, with or without reading the clock for each."""
    last = clock_ns(clock)
    for k in range(n):
        now = clock_ns(clock) if read == 1 else last + k
        histogram_record(words, 0, now - last)
        if read == 1:
            last = now
