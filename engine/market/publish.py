"""What the world sees: book cells and signals, filled by one kernel call for all symbols with news.

Publishing looks at the rows as they stand now; the features wait for the end of the read (see ``features``), so what
is published never changes what is computed.
"""

from __future__ import annotations

import math
from typing import Any

from engine.market.book import examine, is_valid
from engine.market.features import fair_reference
from engine.market.ktypes import BOOKS, I1, MODELS, SIGNALS, STATE, i8
from engine.market.micro import price as micro_price
from shm.jit import kernel
from shm.layouts import BOOK_LEVELS, SIGNAL_BAR, SIGNAL_VALID, SIGNAL_WARMING

_ASK, _BID = 0, 1
_QUIET_NS = 5_000_000
"""Changes below the best price are published at most this often per symbol; the best price at once."""


@kernel(i8(STATE, i8, BOOKS, i8))
def fill_book(state: Any, s: int, books: Any, now_ns: int) -> int:
    """Fill one book record. Returns 1 if best prices, their sizes or the validity changed, else 0."""
    me = state[s]
    book = books[s]
    book["t_socket_ns"] = me["last_ns"]
    book["updates"] = me["updates"]
    book["resets"] = me["resets"]
    book["last_price"] = me["last_price"]
    book["last_size"] = me["last_size"]
    book["traded_qty"] = me["traded_qty"]
    book["halted"] = me["halted"]
    book["session_open"] = me["session_open"]
    book["gap_median_ns"] = me["gap_median_ns"]
    book["spread_median_bps"] = me["spread_median_bps"]
    if me["index"] == 1:
        valid = is_valid(state, s, now_ns)
        changed = 1 if book["mid"] != me["last_price"] or book["valid"] != valid else 0
        price = me["last_price"] if me["last_price"] > 0.0 else math.nan
        book["valid"] = valid
        book["mid"] = price
        book["micro_price"] = price
        book["fair_value"] = price
        book["spread_bps"] = math.nan
        if changed == 1:
            book["top_ns"] = me["last_ns"]
            book["quotes"] += 1
        return changed
    examine(state, s, me["last_ns"])
    valid = is_valid(state, s, now_ns)
    bids, asks = me["next_n"][_BID], me["next_n"][_ASK]
    bid = me["next_price"][_BID, 0] if bids > 0 else 0.0
    ask = me["next_price"][_ASK, 0] if asks > 0 else 0.0
    bid_size = me["next_size"][_BID, 0] if bids > 0 else 0.0
    ask_size = me["next_size"][_ASK, 0] if asks > 0 else 0.0
    moved = bid != book["bid_price"][0] or ask != book["ask_price"][0]
    changed = moved or bid_size != book["bid_size"][0] or ask_size != book["ask_size"][0] or book["valid"] != valid
    for side in range(2):
        n = me["next_n"][side]
        for k in range(BOOK_LEVELS):
            price = me["next_price"][side, k] if k < n else 0.0
            size = me["next_size"][side, k] if k < n else 0.0
            if side == _BID:
                book["bid_price"][k] = price
                book["bid_size"][k] = size
            else:
                book["ask_price"][k] = price
                book["ask_size"][k] = size
    book["bid_rows"] = bids
    book["ask_rows"] = asks
    if moved:
        book["quotes"] += 1
        me["quotes"] += 1
        me["top_ns"] = me["last_ns"]
    book["top_ns"] = me["top_ns"]
    book["crossed_since_ns"] = me["crossed_ns"]
    book["valid"] = valid
    if bids > 0 and asks > 0:
        mid = 0.5 * (bid + ask)
        book["mid"] = mid
        book["micro_price"] = micro_price(state, s, bid, ask, bid_size, ask_size)
        book["spread_bps"] = (ask - bid) / mid * 1e4
    else:
        # one side is gone: the last trade is the only mark left, and nobody may call it a quote (rows say so)
        book["mid"] = me["last_price"] if me["last_price"] > 0.0 else math.nan
        book["micro_price"] = math.nan
        book["spread_bps"] = math.nan
    book["fair_value"] = fair_reference(state, s)
    return 1 if changed else 0


@kernel(i8(STATE, BOOKS, MODELS, SIGNALS, I1, i8, i8))
def publish(state: Any, books: Any, models: Any, signals: Any, changed: Any, now_ns: int, everything: int) -> int:
    """Fill book records of symbols with news and one signal for each whose best price, sizes or validity changed.

    ``changed`` gets the symbols whose book cell is to be published: ``changed[0]`` their number, then the symbols.
    ``everything`` 1 looks at all symbols, news or not (staleness is no news); 2 also writes a signal for every stock,
    marked SIGNAL_BAR. Returns the number of signals.
    """
    n = 0
    changed[0] = 0
    for s in range(len(state)):
        me = state[s]
        if me["dirty"] == 0 and everything == 0:
            continue
        top = fill_book(state, s, books, now_ns)
        if top == 0 and everything == 0 and now_ns - me["published_ns"] < _QUIET_NS:
            continue
        me["dirty"] = 0
        me["published_ns"] = now_ns
        changed[0] += 1
        changed[changed[0]] = s
        if me["index"] == 1 or (top == 0 and everything != 2):
            continue
        book, model, signal = books[s], models[s], signals[n]
        n += 1
        signal["t_socket_ns"] = me["last_ns"]
        signal["t_signal_ns"] = now_ns
        signal["symbol"] = s
        signal["regime"] = model["regime"]
        flags = SIGNAL_BAR if everything == 2 else 0
        if book["valid"] == 1 and model["valid"] == 1:
            flags |= SIGNAL_VALID
        if model["warming"] == 1:
            flags |= SIGNAL_WARMING
        signal["flags"] = flags
        signal["model_id"] = model["model_id"]
        signal["confidence"] = model["confidence"]
        signal["confidence_ema"] = model["confidence_ema"]
        signal["fair_value"] = book["micro_price"]
        signal["mid"] = book["mid"]
        move_bps = (book["micro_price"] - book["mid"]) / book["mid"] * 1e4
        signal["expected_move_bps"] = move_bps
        model["expected_move_bps"] = move_bps
        signal["step_loglik"] = model["step_loglik"]
    return n
