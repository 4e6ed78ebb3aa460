"""Mutated frames in compiled batches: ten million of them in the time that Python needs for a few thousand."""

from __future__ import annotations

from engine.broker.decode import BAD, COLD, DONE, decode
from engine.market.ktypes import TICKS
from shm.jit import kernel

from numba import types  # isort: skip

_i8, _U1, _I1, _F1 = types.int64, types.uint8[::1], types.int64[::1], types.float64[::1]
BATCH, CORPUS, TICKS_OUT, COLDS, BADS, FRAMES, BROKEN = range(7)
TAIL = 48
SEEDS = 12
"""Entries of the corpus that are well-formed; they come first."""
EDGES = 7 * 3 * 16 * 8
"""Message × outcome × field × looks: what there is to reach."""
KEPT = 256
"""Bytes of the longest message that joins the corpus."""

_strtod = types.ExternalFunction("strtod", types.float64(_i8, _i8))


@kernel(types.uint64(types.uint64[::1]))
def draw(seed):  # type: ignore[no-untyped-def]
    """xorshift64*."""
    x = seed[0]
    x ^= x >> types.uint64(12)
    x ^= x << types.uint64(25)
    x ^= x >> types.uint64(27)
    seed[0] = x
    return x * types.uint64(2685821657736338717)


@kernel(_i8(_U1, _I1, _I1, _i8, _U1, types.uint64[::1]))
def compose(corpus, starts, ends, count, buf, seed):  # type: ignore[no-untyped-def]
    """Fill ``buf`` with mutated frames of the corpus; returns the bytes written. A few lengths are wrong."""
    at = 0
    while at + 600 < buf.shape[0]:
        # Half of the picks are well-formed: what is odd joins the corpus and would soon crowd them out.
        pool = count if draw(seed) % types.uint64(2) == 0 else SEEDS
        pick = draw(seed) % types.uint64(pool)
        begin, end = starts[pick], ends[pick]
        body = at + 4
        n = 0
        for i in range(begin, end):
            what = draw(seed) % types.uint64(512)
            if what == 0:
                buf[body + n] = draw(seed) % types.uint64(256)  # another byte
                n += 1
            elif what == 1:
                buf[body + n] = 0  # a field ends early
                n += 1
            elif what == 2:
                pass  # a byte is missing
            elif what == 3:
                buf[body + n] = corpus[i]
                buf[body + n + 1] = 48 + draw(seed) % types.uint64(10)  # a digit too many
                n += 2
            else:
                buf[body + n] = corpus[i]
                n += 1
        if draw(seed) % types.uint64(16) == 0:
            other = draw(seed) % types.uint64(count)  # the end of another message
            for i in range(max(starts[other], ends[other] - TAIL), ends[other]):
                buf[body + n] = corpus[i]
                n += 1
        n = max(n, 1)
        size = n
        if draw(seed) % types.uint64(4096) == 0:
            size = types.int64(draw(seed) % types.uint64(4294967296))  # a length that is none
        buf[at] = (size >> 24) & 255
        buf[at + 1] = (size >> 16) & 255
        buf[at + 2] = (size >> 8) & 255
        buf[at + 3] = size & 255
        at = body + n
    return at


@kernel(_i8(TICKS, _i8, _i8))
def sound(ticks, i, symbols):  # type: ignore[no-untyped-def]
    """1 if tick ``i`` is one that a book may be given: known symbol and kind, numbers where numbers must be."""
    t = ticks[i]
    if t.symbol >= symbols or t.kind < 1 or t.kind > 6:
        return 0
    if t.kind == 1:
        finite = abs(t.price) < 1e300 and abs(t.size) < 1e300
        return 1 if finite and t.side <= 1 and t.op <= 2 else 0
    if t.kind == 5:
        return 1 if abs(t.price) < 1e300 and abs(t.size) < 1e300 else 0
    return 1


@kernel(_i8(_U1, _i8, _i8))
def looks(buf, start, end):  # type: ignore[no-untyped-def]
    """What a field looks like: 0 empty, 1 digits, 2 too many of them, 3 negative, 4 decimal, 5 words, 6 no text."""
    digits = 0
    points = 0
    minus = 0
    for i in range(start, end):
        c = buf[i]
        if 48 <= c <= 57:
            digits += 1
        elif c == 46:
            points += 1
        elif c == 45 and i == start:
            minus = 1
        elif c < 32 or c > 126:
            return 6
        else:
            return 5
    if digits > 15:
        return 2
    if minus:
        return 3
    if points:
        return 4
    return 1 if digits else 0


@kernel(_i8(_U1, _i8, _i8, _i8, types.uint8[::1]))
def covers(buf, start, end, outcome, seen):  # type: ignore[no-untyped-def]
    """Mark what this message reached: message × outcome × field × looks of the field. Returns how much of it is new."""
    first, second, third = buf[start], 0, 1
    if start + 1 < end:
        second = buf[start + 1]
    if start + 2 < end:
        third = buf[start + 2]
    message = 0
    if second == 0:
        message = 1 if first == 49 else 2 if first == 50 else 0
    elif third == 0:
        number = (first - 48) * 10 + second - 48
        message = 3 if number == 12 else 4 if number == 13 else 5 if number == 46 else 6 if number == 99 else 0
    if message == 0 or message == 5:  # left alone or skipped whatever its fields say
        edge = (message * 3 + outcome) * 128
        new = 1 - seen[edge]
        seen[edge] = 1
        return new
    new = 0
    field = 0
    begin = start
    for i in range(start, end):
        if buf[i] == 0:
            edge = ((message * 3 + outcome) * 16 + min(field, 15)) * 8 + looks(buf, begin, i)
            if seen[edge] == 0:
                seen[edge] = 1
                new += 1
            begin = i + 1
            field += 1
    return new


@kernel(_i8(TICKS, _i8, TICKS, _i8))
def same(a, i, b, j):  # type: ignore[no-untyped-def]
    x, y = a[i], b[j]
    price = x.price == y.price or (x.price != x.price and y.price != y.price)
    size = x.size == y.size or (x.size != x.size and y.size != y.size)
    what = x.symbol == y.symbol and x.kind == y.kind and x.side == y.side and x.op == y.op and x.level == y.level
    rest = x.flags == y.flags and x.venue == y.venue and x.t_exchange_ns == y.t_exchange_ns
    return 1 if price and size and what and rest else 0


@kernel(_i8(_U1, _i8, _I1, TICKS))
def numbers(buf, body, fields, ticks):  # type: ignore[no-untyped-def]
    """1 if price and size of the first tick are what the C library reads in the same text."""
    t = ticks[0]
    at = buf.ctypes.data
    price, size = 4, 5
    if t.kind == 1:
        price, size = (7, 8) if buf[body + 1] == 51 else (6, 7)
    elif t.kind == 4:
        price, size = -1, 4
    if price >= 0:
        value = _strtod(at + fields[price], 0)
        negative = value < 0.0 and (t.kind == 3 or t.kind == 6)
        if t.price != value and not (negative and t.price != t.price):
            return 0
    return 1 if t.size == _strtod(at + fields[size], 0) else 0


@kernel(
    _i8(
        _U1, _I1, _I1, _i8, _U1, _I1, _F1, _I1, TICKS, _I1, TICKS, _I1, types.uint64[::1], types.uint8[::1], _I1, _i8,
        _i8,
    )
)  # fmt: skip
def campaign(  # type: ignore[no-untyped-def]
    corpus, starts, ends, count, buf, lines, ten, fields, ticks, out, single, alone, seed, seen, totals, frames, symbols
):
    """Decode mutated batches until ``frames`` frames were taken, and every frame once more by itself.

    A frame that reaches something new (``covers``) joins the corpus and is mutated in its turn. Returns the corpus'
    size; ``totals`` counts outcomes, and in BROKEN whatever must never happen: an unsound tick, one that is another in
    company than alone, a number that is not the C library's, an offset that goes back or beyond.
    """
    used = ends[count - 1]
    totals[BATCH] = 0
    while totals[FRAMES] < frames:
        size = compose(corpus, starts, ends, count, buf, seed)
        totals[BATCH] = size
        start = 0
        end = size
        while start < size:
            if end == size and draw(seed) % types.uint64(4) == 0:  # the rest comes later
                end = start + 1 + types.int64(draw(seed) % types.uint64(size - start))
            else:
                end = size
            why = decode(buf, start, end, lines, 7, ten, fields, ticks, 0, out)
            stop, made, taken = out[0], out[1], out[2]
            totals[FRAMES] += taken
            totals[TICKS_OUT] += made
            totals[COLDS] += why == COLD
            if stop < start or stop > end or made < 0 or made > ticks.shape[0] or made > taken:
                totals[BROKEN] += 1
                return count
            at = start
            n = 0
            for _ in range(taken):
                body = at + 4
                last = body + (types.int64(buf[at]) << 24 | types.int64(buf[at + 1]) << 16
                               | types.int64(buf[at + 2]) << 8 | types.int64(buf[at + 3]))  # fmt: skip
                by_itself = decode(buf, at, last, lines, 7, ten, fields, single, 0, alone)
                outcome = 2 if by_itself == COLD else alone[1]
                if alone[0] != last or alone[2] != 1:
                    totals[BROKEN] += 1
                elif alone[1] == 1:
                    if n >= made or same(ticks, n, single, 0) == 0:
                        totals[BROKEN] += 1
                    if sound(single, 0, symbols) == 0 or numbers(buf, body, fields, single) == 0:
                        totals[BROKEN] += 1
                    n += 1
                room = count < starts.shape[0] and used + KEPT < corpus.shape[0] and last - body <= KEPT
                if room and covers(buf, body, last, outcome, seen) > 0:
                    starts[count] = used
                    for i in range(body, last):
                        corpus[used] = buf[i]
                        used += 1
                    ends[count] = used
                    count += 1
                at = last
            if n != made or at != stop:
                totals[BROKEN] += 1
            start = stop
            if why == BAD:
                totals[BADS] += 1
                break
            if why == DONE and end == size:
                break
    totals[CORPUS] = count
    return count
