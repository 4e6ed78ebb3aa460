"""The hot path of the shared host as one compiled call: bytes from the socket to an order on the socket.

``turn`` looks at what the socket shows, decodes, brings books and features up to date, lets the strategy decide, writes
the intent into ``orders.algo``, judges it with the pre-trade gate, encodes the order and sends it. Then it publishes
ticks, book cells and signals, and takes the bytes off the socket. It calls the kernels that the separate agents call,
on the arrays that they own, and writes the same rings, cells, cursors, counters and histograms: every record is where
it would be in separate processes.

It takes the straight way only. Whatever is not the expected case is left exactly as the agents would find it (records
published, cursors not moved) and handed to them by a flag: a frame for the library, the end of a bar, a cancel, a
refusal, a full ring, a stop or lease that has changed. So nothing is decided here that they would decide otherwise.

Looking and taking are two calls, since a read that empties the socket makes the kernel acknowledge what came, which
costs as much as sending an order: that has time until the order, which carries the acknowledgement anyway, has left.

Invariants
1. A record is consumed (its reader's cursor moved) if and only if it was dealt with here to the end.
2. Nothing is done before the send that could be done after it, but for this: an intent stands in ``orders.algo`` before
   anything of it can reach the socket, and ``flight`` (in shared memory) names it and its order id before the bridge's
   cursor passes it. Who dies in between leaves an order of unknown fate to its successor, and never sends it twice.
3. Stop cells and lease are read as the last thing before the socket, after everything else has been decided.
4. At most one order leaves per call; the agents' books take it over before the next call.

All arrays are passed by address in one table, because checking forty array arguments costs more than the whole way.
"""

# ruff: noqa: I001  (shm.jit sets the kernel cache before numba is imported)
from __future__ import annotations

import math
from enum import IntFlag
from typing import Any

import numpy as np

from shm.jit import kernel, rec
import numba
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from engine.broker.decode import COLD, DONE, decode
from engine.broker.encode import TEMPLATE, encode_order
from engine.domain.codes import IntentFlag, IntentKind, OrderType, Owner, Source
from engine.market.features import drain
from engine.market.layout import C_FAULTS, CONTROL_WORDS, SYMBOL
from engine.market.publish import publish
from engine.risk.pretrade import ACCOUNT_FACTS, SYMBOL_FACTS, check
from engine.strategy.pace import take_token
from engine.strategy.regime_kernel import CANCEL, DECISION, MEMORY, NOTHING, PARAMETERS, SITUATION, WORKING, decide
from engine.strategy.protocol import EXPIRY_NS, OWN_ORDERS, Purpose
from shm.atomics import cpu_pause, fence_full, load_acquire, store_release
from shm.counters import counter_add, histogram_record
from shm.wait import AWAKE, FUTEX
from shm.kernels import SLOTS, TAIL, TORN, cell_read, cell_write, ring_publish, ring_tail
from shm.layouts import BOOK, INTENT, LEASE, MODEL, SIGNAL, SIGNAL_VALID, SIGNAL_WARMING, TICK


CARD = np.dtype(
    [
        ("tradable", "<i8"),
        ("tick_size", "<f8"),
        ("qty", "<f8"),
        ("held_qty", "<f8"),
        ("working_buy_qty", "<f8"),
        ("working_sell_qty", "<f8"),
        ("orders", "<i8"),  # own working orders; more than OWN_ORDERS: the agent decides
        ("clear", "<i8"),  # no stop holds back orders in this symbol
        ("entries", "<i8"),  # and entries are wanted
    ]
)
"""What the strategy's agent knows about one symbol besides the market."""


_NAMES = """
fd buf buf_size start end ticks tick_room lines lines_n ten fields decoded time
ticks_ring ticks_cap signals_ring signals_cap orders_ring orders_cap
ml_ticks_cursor algo_signals_cursor bridge_orders_cursor flight
watch watch_n bells bells_n bell_byte
state symbols control books books_n models signals changed book_region book_region_n last_tick faults_seen
cards orders memory memory_n parameters situation decision bucket filled until intent next_intent mode decides
facts account verdict templates frame frame_size sends room next_order
lease_region lease_region_n lease lease_was stops stops_n
bridge_words bridge_words_n ml_words ml_words_n algo_words algo_words_n
n_ticks n_ml_ticks n_signals
h_decoded h_signal h_decoded_signal h_intent h_intent_gate h_gate h_gate_wire h_order
frames busy_ns applied signals_made taken sent length reducing ml_count signal_count
t_socket t_decoded t_signal t_intent t_gate t_gated t_wire
"""
HOT = np.dtype([(name, "<i8") for name in _NAMES.split()] + [("stale_min_ns", "<f8"), ("stale_factor", "<f8")])
"""The table. Names of arrays are addresses; ``_n``, ``_cap`` and ``_size`` are lengths; ``n_`` and ``h_`` are the words
of counters and histograms in their service's region; from ``frames`` on it holds what the last call did.

``flight``: two words in shared memory, sequence + 1 of the intent on its way and its order id (invariant 2).
``watch``: pairs of addresses, tail and cursor of every other ring that the three agents read.
``bells``: pairs of a sleep word's address and the descriptor of that sleeper's FIFO (-1 not open).
``stops``: pairs of a stop cell's address and the version under which flags and facts here hold.
``decides``: the strategy is the compiled one and its cards are up to date. ``sends``: the bridge could send now: link
open, nothing queued, an order id reserved. ``room``: orders that the governor lets leave.
"""


class F(IntFlag):
    """What ``turn`` leaves to the agents; 0: nothing came."""

    WORK = 1  # something was done
    COLD_FRAME = 2  # a frame for the library; ``decoded[3:5]`` says where
    SOCKET = 4  # the bridge must look at the socket itself: no room, an error, the end
    OTHERS = 8  # something waits in another ring, or an intent that did not leave here
    MARKET = 16  # ticks wait for ml-service: a bar has ended, or it lagged
    STRATEGY = 32  # signals wait for algo: a cancel, or what comes after an order
    ORDER = 64  # an order has left
    PLACED = 128  # an intent was written into orders.algo
    FAULT = 256  # a book has a new fault
    WAKE = 512  # somebody sleeps whose FIFO is not open
    SHORT = 1024  # the socket did not give the bytes that it had shown
    GUARD = 2048  # a stop was written, or the lease is not what it was


_WORK, _COLD_FRAME, _SOCKET, _OTHERS, _MARKET = 1, 2, 4, 8, 16
_STRATEGY, _ORDER, _PLACED, _FAULT, _WAKE, _SHORT, _GUARD = 32, 64, 128, 256, 512, 1024, 2048
_NEW, _LMT, _ALGO = int(IntentKind.NEW), int(OrderType.LMT), int(Source.ALGO)
_REDUCE, _EXIT = int(IntentFlag.REDUCE_ONLY), int(Purpose.EXIT)
_OWNER_BRIDGE, _OWNER_WATCHDOG = int(Owner.BRIDGE), int(Owner.WATCHDOG)
_DONTWAIT_NOSIGNAL = 0x40 | 0x4000
_LOOK, _DISCARD = 0x40 | 0x2, 0x40 | 0x20
"""recv: show what is there and leave it (MSG_PEEK); drop it without a copy (MSG_TRUNC). Neither waits."""
_EAGAIN = 11
_GUARD_EVERY = 15
"""Stops and lease are looked at every 16th time, some 10 µs."""
_LEASE_WORDS = LEASE.itemsize // 8
_BOOK_WORDS = BOOK.itemsize // 8
_TICK_WORDS, _SIGNAL_WORDS, _INTENT_WORDS = TICK.itemsize // 8, SIGNAL.itemsize // 8, INTENT.itemsize // 8
_BOOK_BYTES, _CELL_WORDS = BOOK.itemsize, BOOK.itemsize // 8
_RETRIES = 1000
_TAIL = 8 * TAIL
_TEN_N, _FIELDS_N = 23, 14

_recv = types.ExternalFunction("recv", types.int64(types.int32, types.int64, types.int64, types.int32))
_send = types.ExternalFunction("send", types.int64(types.int32, types.int64, types.int64, types.int32))
_write = types.ExternalFunction("write", types.int64(types.int32, types.int64, types.int64))
_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.int64))
_errno_location = types.ExternalFunction("__errno_location", types.int64())
_i8, _I8 = types.int64, types.int64[::1]


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(typingctx: Any, address: Any) -> Any:
    """An address as a pointer."""
    signature = types.voidptr(types.int64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return signature, codegen


@kernel(_i8(_i8))
def clock_ns(time):  # type: ignore[no-untyped-def]
    """CLOCK_MONOTONIC; ``time`` is the address of two words of scratch."""
    _clock_gettime(1, time)
    t = numba.carray(_pointer(time), (2,), np.int64)
    return t[0] * 1_000_000_000 + t[1]


@kernel(_i8(_i8))
def word_at(address):  # type: ignore[no-untyped-def]
    """The word at an address, with acquire."""
    return load_acquire(numba.carray(_pointer(address), (1,), np.int64), 0)


@kernel(types.void(_i8, _i8))
def set_word(address, value):  # type: ignore[no-untyped-def]
    """Store with release."""
    store_release(numba.carray(_pointer(address), (1,), np.int64), 0, value)


@kernel(_i8(_i8, _i8))
def all_read(pairs, count):  # type: ignore[no-untyped-def]
    """1 if every ring of ``watch`` has been read to its tail."""
    p = numba.carray(_pointer(pairs), (2 * count,), np.int64)
    for i in range(count):
        if word_at(p[2 * i]) != word_at(p[2 * i + 1]):
            return 0
    return 1


@kernel(_i8(_i8, _i8))
def stops_as_known(pairs, count):  # type: ignore[no-untyped-def]
    """1 if no stop cell was written since flags and facts were derived from them."""
    p = numba.carray(_pointer(pairs), (2 * count,), np.int64)
    for i in range(count):
        if word_at(p[2 * i]) != p[2 * i + 1]:
            return 0
    return 1


@kernel(_i8(rec(HOT), _i8))
def read_lease(hot, now):  # type: ignore[no-untyped-def]
    """Read the lease into ``lease`` and what it allows into the gate's facts, as ``Gatekeeper.authority`` does.

    Returns 2: ours and valid; 1: ours to reduce only; 0: not ours, or not readable.
    """
    h = hot[0]
    region = numba.carray(_pointer(h.lease_region), (h.lease_region_n,), np.int64)
    words = numba.carray(_pointer(h.lease), (_LEASE_WORDS,), np.int64)
    account = numba.carray(_pointer(h.account), (1,), ACCOUNT_FACTS)
    if cell_read(region, SLOTS, words, _RETRIES) == TORN:
        return 0
    lease = numba.carray(_pointer(h.lease), (1,), LEASE)[0]
    fenced = lease.epoch < lease.fence
    ours = not fenced and lease.owner != _OWNER_WATCHDOG
    valid = lease.owner == _OWNER_BRIDGE and now < lease.expires_ns and not fenced
    account[0].lease = 1 if valid else 0
    account[0].owner = 1 if ours else 0
    account[0].epoch = lease.epoch
    return 2 if valid and ours else 1 if ours else 0


@kernel(types.void(rec(HOT), _i8))
def describe(hot, s):  # type: ignore[no-untyped-def]
    """The situation of symbol ``s`` for the strategy, as ``Algo._situation`` sees it."""
    h = hot[0]
    book = numba.carray(_pointer(h.books), (h.books_n,), BOOK)[s]
    model = numba.carray(_pointer(h.models), (h.books_n,), MODEL)[s]
    card = numba.carray(_pointer(h.cards), (h.memory_n,), CARD)[s]
    now = numba.carray(_pointer(h.situation), (1,), SITUATION)[0]
    quoted = book.valid != 0 and book.bid_rows > 0 and book.ask_rows > 0
    now.symbol = s
    now.tick_size = card.tick_size
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
    now.qty = card.qty
    now.held_qty = card.held_qty
    now.working_buy_qty = card.working_buy_qty
    now.working_sell_qty = card.working_sell_qty
    now.entries_allowed = card.entries
    now.exits_allowed = card.clear


@kernel(_i8(rec(HOT), _i8, _i8))
def dispatch(hot, s, sequence):  # type: ignore[no-untyped-def]
    """Gate, encode and send the intent with ``sequence`` in the orders ring. Returns 1 if the order has left.

    Anything but a clear yes leaves the intent to the bridge, which judges it again and says what is wrong.
    """
    h = hot[0]
    if h.sends == 0 or h.room < 1:
        return 0
    intent = numba.carray(_pointer(h.intent), (1,), INTENT)
    facts = numba.carray(_pointer(h.facts), (h.symbols,), SYMBOL_FACTS)
    account = numba.carray(_pointer(h.account), (1,), ACCOUNT_FACTS)
    verdict = numba.carray(_pointer(h.verdict), (3,), np.float64)
    book = numba.carray(_pointer(h.books), (h.books_n,), BOOK)[s]
    frame = numba.carray(_pointer(h.frame), (h.frame_size,), np.uint8)
    templates = numba.carray(_pointer(h.templates), (h.symbols,), TEMPLATE)
    now = clock_ns(h.time)
    h.t_gate = now
    read_lease(hot, now)
    limit = h.stale_min_ns
    if book.gap_median_ns > 0.0:
        limit = max(limit, h.stale_factor * book.gap_median_ns)
    age = float(now - book.t_socket_ns)
    facts[s].mid = book.mid if book.mid > 0.0 else math.nan
    facts[s].fresh = 1 if book.valid != 0 and book.t_socket_ns > 0 and age <= limit else 0
    account[0].now_ns = now
    account[0].budget = 1
    if check(intent, facts, account, verdict) != 0:
        return 0
    i = intent[0]
    end = encode_order(
        templates, s, frame, 0, h.next_order, np.int64(i.side), i.qty, np.int64(i.order_type), i.limit_price,
        np.int64(i.tif), i.intent_id, 0,
    )  # fmt: skip
    if end < 0:
        return 0
    now = clock_ns(h.time)
    h.t_gated = now
    h.length = end
    h.reducing = 1 if verdict[2] > 0.0 else 0
    flight = numba.carray(_pointer(h.flight), (2,), np.int64)
    store_release(flight, 1, h.next_order)
    store_release(flight, 0, sequence + 1)
    # The last thing before the socket: does everything still hold that was decided on?
    allowed = read_lease(hot, now)
    if stops_as_known(h.stops, h.stops_n) == 0 or allowed < (1 if h.reducing == 1 else 2):
        store_release(flight, 0, 0)
        return 0
    set_word(h.bridge_orders_cursor, sequence + 1)
    h.sent = _send(np.int32(h.fd), h.frame, end, np.int32(_DONTWAIT_NOSIGNAL))
    h.t_wire = clock_ns(h.time)
    return 1


@kernel(_i8(rec(HOT), rec(SIGNAL), _i8, _i8))
def consider(hot, signals, n, sequence):  # type: ignore[no-untyped-def]
    """Let the strategy decide on signal ``n`` (number ``sequence`` of its ring). Returns flags.

    ``_STRATEGY``: not decided here, the signal is still to be read by the agent.
    """
    h = hot[0]
    signal = signals[n]
    s = np.int64(signal.symbol)
    card = numba.carray(_pointer(h.cards), (h.memory_n,), CARD)[s]
    if card.tradable == 0:
        return 0
    if card.orders > OWN_ORDERS or stops_as_known(h.stops, h.stops_n) == 0:
        return _STRATEGY
    now = clock_ns(h.time)
    if card.orders == 0 and now < numba.carray(_pointer(h.until), (h.memory_n,), np.int64)[s]:
        return 0
    describe(hot, s)
    all_orders = numba.carray(_pointer(h.orders), (h.memory_n * OWN_ORDERS,), WORKING)
    memory = numba.carray(_pointer(h.memory), (h.memory_n,), MEMORY)
    parameters = numba.carray(_pointer(h.parameters), (1,), PARAMETERS)
    situation = numba.carray(_pointer(h.situation), (1,), SITUATION)
    decision = numba.carray(_pointer(h.decision), (1,), DECISION)
    orders = all_orders[s * OWN_ORDERS : (s + 1) * OWN_ORDERS]
    decide(situation, orders, card.orders, memory, s, parameters, now, decision)
    d = decision[0]
    if d.action == NOTHING:
        return 0
    if d.action == CANCEL:
        return _STRATEGY
    tradable = (signal["flags"] & SIGNAL_VALID) != 0 and (signal["flags"] & SIGNAL_WARMING) == 0
    if d.purpose != _EXIT and not tradable:
        return 0
    if card.clear == 0:
        return 0
    read_lease(hot, now)
    lease = numba.carray(_pointer(h.lease), (1,), LEASE)[0]
    if lease.expires_ns <= now:
        return 0
    ring = numba.carray(_pointer(h.orders_ring), (SLOTS + h.orders_cap * _INTENT_WORDS,), np.int64)
    tail = ring_tail(ring)
    read = word_at(h.bridge_orders_cursor)
    if tail - read >= h.orders_cap:
        return _STRATEGY  # full: the agent says so
    bucket = numba.carray(_pointer(h.bucket), (3,), np.float64)
    filled = numba.carray(_pointer(h.filled), (1,), np.int64)
    if take_token(bucket, filled, now) == 0:
        return 0
    words = numba.carray(_pointer(h.intent), (_INTENT_WORDS,), np.int64)
    for w in range(_INTENT_WORDS):
        words[w] = 0
    i = numba.carray(_pointer(h.intent), (1,), INTENT)[0]
    i.t_socket_ns = signal.t_socket_ns
    i.t_intent_ns = now
    i.intent_id = h.next_intent
    i.symbol = s
    i.kind = _NEW
    i.source = _ALGO
    i.side = d.side
    i.order_type = _LMT
    i.tif = d.tif
    i["flags"] = _REDUCE if d.purpose == _EXIT else 0
    i.qty = d.qty
    i.limit_price = d.limit_price
    i.expires_ns = now + EXPIRY_NS
    i.signal_sequence = sequence
    i.epoch = lease.epoch
    i.mode = h.mode
    h.t_intent = now
    ring_publish(ring, words, 1, h.orders_cap, _INTENT_WORDS)
    if tail == read and dispatch(hot, s, tail) == 1:
        return _PLACED | _ORDER
    return _PLACED | _OTHERS


@kernel(_i8(rec(HOT), _i8))
def follow(hot, n):  # type: ignore[no-untyped-def]
    """From ``n`` ticks to the strategy's decisions. ml-service had read everything before. Returns flags.

    It publishes nothing but an intent: what came of it is left in the table for ``record``.
    """
    h = hot[0]
    ticks = numba.carray(_pointer(h.ticks), (h.tick_room,), TICK)
    state = numba.carray(_pointer(h.state), (h.symbols,), SYMBOL)
    control = numba.carray(_pointer(h.control), (CONTROL_WORDS,), np.int64)
    books = numba.carray(_pointer(h.books), (h.books_n,), BOOK)
    models = numba.carray(_pointer(h.models), (h.books_n,), MODEL)
    signals = numba.carray(_pointer(h.signals), (h.symbols,), SIGNAL)
    changed = numba.carray(_pointer(h.changed), (h.symbols + 1,), np.int64)
    h.applied = drain(ticks, 0, n, state, control)
    flags = 0
    if control[C_FAULTS] != h.faults_seen:
        flags |= _FAULT
    if h.applied < n:
        return flags | _MARKET
    now = clock_ns(h.time)
    h.t_signal = now
    h.signals_made = publish(state, books, models, signals, changed, now, 0)
    if h.signals_made == 0:
        return flags
    ring = numba.carray(_pointer(h.signals_ring), (SLOTS + h.signals_cap * _SIGNAL_WORDS,), np.int64)
    tail = ring_tail(ring)
    if word_at(h.algo_signals_cursor) != tail or h.decides == 0 or all_read(h.watch, h.watch_n) == 0:
        return flags | _STRATEGY
    for k in range(h.signals_made):
        got = consider(hot, signals, k, tail + k)
        if got & _STRATEGY:
            return flags | got
        h.taken += 1
        if got != 0:
            return flags | got | (_STRATEGY if k + 1 < h.signals_made else 0)
    return flags


@kernel(types.void(rec(HOT), _i8, _i8))
def record(hot, n, flags):  # type: ignore[no-untyped-def]
    """Publish and count what the last turn did with its ``n`` ticks: nothing of it had to stand before the order."""
    h = hot[0]
    ticks = numba.carray(_pointer(h.ticks), (h.tick_room,), TICK)
    last_tick = numba.carray(_pointer(h.last_tick), (h.symbols,), np.int64)
    for k in range(n):
        ticks[k].t_decoded_ns = h.t_decoded
        last_tick[ticks[k].symbol] = h.t_socket
    ring = numba.carray(_pointer(h.ticks_ring), (SLOTS + h.ticks_cap * _TICK_WORDS,), np.int64)
    ring_publish(ring, numba.carray(_pointer(h.ticks), (n * _TICK_WORDS,), np.int64), n, h.ticks_cap, _TICK_WORDS)
    words = numba.carray(_pointer(h.bridge_words), (h.bridge_words_n,), np.int64)
    counter_add(words, h.n_ticks, n)
    histogram_record(words, h.h_decoded, h.t_decoded - h.t_socket)
    if flags & _ORDER:
        histogram_record(words, h.h_intent_gate, h.t_gated - h.t_intent)
        histogram_record(words, h.h_gate, h.t_gated - h.t_gate)
        histogram_record(words, h.h_gate_wire, h.t_wire - h.t_gated)
        histogram_record(words, h.h_order, h.t_wire - h.t_socket)
    if h.applied == 0:
        return
    set_word(h.ml_ticks_cursor, word_at(h.ml_ticks_cursor) + h.applied)
    h.ml_count += h.applied
    ml_words = numba.carray(_pointer(h.ml_words), (h.ml_words_n,), np.int64)
    counter_add(ml_words, h.n_ml_ticks, h.applied)
    if h.applied < n:
        return
    changed = numba.carray(_pointer(h.changed), (h.symbols + 1,), np.int64)
    region = numba.carray(_pointer(h.book_region), (h.book_region_n,), np.int64)
    for c in range(1, 1 + changed[0]):
        s = changed[c]
        payload = numba.carray(_pointer(h.books + s * _BOOK_BYTES), (_BOOK_WORDS,), np.int64)
        cell_write(region, SLOTS + s * _CELL_WORDS, payload)
    count = h.signals_made
    if count == 0:
        return
    signals = numba.carray(_pointer(h.signals), (h.symbols,), SIGNAL)
    ring = numba.carray(_pointer(h.signals_ring), (SLOTS + h.signals_cap * _SIGNAL_WORDS,), np.int64)
    flat = numba.carray(_pointer(h.signals), (count * _SIGNAL_WORDS,), np.int64)
    ring_publish(ring, flat, count, h.signals_cap, _SIGNAL_WORDS)
    for k in range(count):
        histogram_record(ml_words, h.h_signal, h.t_signal - signals[k].t_socket_ns)
    histogram_record(ml_words, h.h_decoded_signal, h.t_signal - h.t_decoded)
    if h.taken > 0:
        set_word(h.algo_signals_cursor, word_at(h.algo_signals_cursor) + h.taken)
        algo_words = numba.carray(_pointer(h.algo_words), (h.algo_words_n,), np.int64)
        counter_add(algo_words, h.n_signals, h.taken)
        h.signal_count += h.taken
        if flags & _PLACED:
            histogram_record(algo_words, h.h_intent, h.t_intent - h.t_signal)


@kernel(_i8(_i8, _i8, _i8))
def ring_bells(pairs, count, byte):  # type: ignore[no-untyped-def]
    """Wake whoever sleeps; 1 if one of them must be woken otherwise: by a futex, or its FIFO is not open yet."""
    p = numba.carray(_pointer(pairs), (2 * count,), np.int64)
    closed = 0
    fence_full()
    for b in range(count):
        how = word_at(p[2 * b])
        if how != AWAKE:
            if how == FUTEX or p[2 * b + 1] < 0:
                closed = 1
            else:
                _write(np.int32(p[2 * b + 1]), byte, 1)
    return closed


@kernel(_i8(rec(HOT), _i8))
def took(hot, got):  # type: ignore[no-untyped-def]
    """Everything that follows from ``got`` bytes that the socket has shown. Returns flags."""
    h = hot[0]
    t_socket = clock_ns(h.time)
    h.t_socket = t_socket
    h.applied = 0
    h.signals_made = 0
    h.taken = 0
    h.end += got
    buf = numba.carray(_pointer(h.buf), (h.buf_size,), np.uint8)
    lines = numba.carray(_pointer(h.lines), (h.lines_n,), np.int64)
    ten = numba.carray(_pointer(h.ten), (_TEN_N,), np.float64)
    fields = numba.carray(_pointer(h.fields), (_FIELDS_N,), np.int64)
    ticks = numba.carray(_pointer(h.ticks), (h.tick_room,), TICK)
    out = numba.carray(_pointer(h.decoded), (5,), np.int64)
    why = decode(buf, h.start, h.end, lines, t_socket, ten, fields, ticks, 0, out)
    h.start = out[0]
    n = out[1]
    h.frames += out[2]
    flags = _WORK
    if n > 0:
        h.t_decoded = clock_ns(h.time)
        ring = numba.carray(_pointer(h.ticks_ring), (SLOTS + h.ticks_cap * _TICK_WORDS,), np.int64)
        flags |= follow(hot, n) if ring_tail(ring) == word_at(h.ml_ticks_cursor) else _MARKET
        record(hot, n, flags)
    # Only now: reading lets the kernel send an acknowledgement, and an order that has left carried it already.
    if _recv(np.int32(h.fd), h.buf, got, np.int32(_DISCARD)) != got:
        flags |= _SHORT
    if h.start == h.end:
        h.start = 0
        h.end = 0
    if n > 0 and ring_bells(h.bells, h.bells_n, h.bell_byte) != 0:
        flags |= _WAKE
    if why == COLD:
        flags |= _COLD_FRAME
    elif why != DONE:
        flags |= _SOCKET
    h.busy_ns += clock_ns(h.time) - t_socket
    return flags


@kernel(_i8(rec(HOT)))
def others_wait(hot):  # type: ignore[no-untyped-def]
    """1 if a ring has something that one of the agents has not read."""
    h = hot[0]
    read = all_read(h.watch, h.watch_n) != 0 and word_at(h.orders_ring + _TAIL) == word_at(h.bridge_orders_cursor)
    read &= word_at(h.ticks_ring + _TAIL) == word_at(h.ml_ticks_cursor)
    return 0 if read and word_at(h.signals_ring + _TAIL) == word_at(h.algo_signals_cursor) else 1


@kernel(_i8(_i8, _i8))
def turn(table, spin_ns):  # type: ignore[no-untyped-def]
    """Read the socket and do all that follows from it; ``table`` is the address of a HOT record. Returns flags.

    With ``spin_ns`` it looks again and again for so long, until something comes that the agents have to see.
    """
    hot = numba.carray(_pointer(table), (1,), HOT)
    h = hot[0]
    h.frames = 0
    h.ml_count = 0
    h.signal_count = 0
    h.busy_ns = 0
    began = clock_ns(h.time)
    flags = 0
    looks = 0
    while True:
        room = h.buf_size - h.end
        if room < 65536:
            return flags | _SOCKET
        got = _recv(np.int32(h.fd), h.buf + h.end, room, np.int32(_LOOK))
        if got > 0:
            flags |= took(hot, got)
            if flags != _WORK:
                return flags
        elif got == 0 or numba.carray(_pointer(_errno_location()), (1,), np.int32)[0] != _EAGAIN:
            return flags | _SOCKET
        elif others_wait(hot) != 0:
            return flags | _OTHERS
        if spin_ns == 0:
            return flags
        now = clock_ns(h.time)
        if now - began > spin_ns:
            return flags
        looks += 1
        if looks & _GUARD_EVERY == 0:
            lease = read_lease(hot, now)
            if h.lease_was < 0:
                h.lease_was = lease
            if lease != h.lease_was or (h.decides != 0 and stops_as_known(h.stops, h.stops_n) == 0):
                h.lease_was = lease
                return flags | _GUARD
        cpu_pause()


@kernel(_i8(_i8))
def shows(table):  # type: ignore[no-untyped-def]
    """1 if the socket has something to read or has ended, or if a ring has: a close must not wait for a duty."""
    hot = numba.carray(_pointer(table), (1,), HOT)
    return 1 if others_wait(hot) != 0 or _recv(np.int32(hot[0].fd), hot[0].time, 1, np.int32(_LOOK)) >= 0 else 0


@kernel(_i8(_i8, _i8, _i8, _i8, _i8))
def rehearse(table, far, frame, length, reply):  # type: ignore[no-untyped-def]
    """A turn over a table of ``engine.procs.rehearsal``; returns the bytes of the order that came out, 0: none did."""
    _send(np.int32(far), frame, length, np.int32(_DONTWAIT_NOSIGNAL))
    flags = turn(table, 0)
    got = _recv(np.int32(far), reply, 4096, np.int32(_DONTWAIT_NOSIGNAL))
    h = numba.carray(_pointer(table), (1,), HOT)[0]
    # What was left to agents that are not there must not stand in the way of the next rehearsal.
    set_word(h.ml_ticks_cursor, word_at(h.ticks_ring + _TAIL))
    set_word(h.algo_signals_cursor, word_at(h.signals_ring + _TAIL))
    set_word(h.bridge_orders_cursor, word_at(h.orders_ring + _TAIL))
    return got if flags & _ORDER else 0
