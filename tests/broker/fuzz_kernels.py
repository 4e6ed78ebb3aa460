"""Mutated frames in compiled batches: ten million of them in the time that Python needs for a few thousand."""

from __future__ import annotations

from engine.broker.decode import BAD, COLD, FULL, decode
from engine.market.ktypes import TICKS
from shm.jit import kernel

from numba import types  # isort: skip

_i8, _U1, _I1, _F1 = types.int64, types.uint8[::1], types.int64[::1], types.float64[::1]
SEEN, CORPUS, TICKS_OUT, COLDS, BADS, FRAMES, BROKEN = range(7)
TAIL = 48
SEEDS = 12
"""Entries of the corpus that are well-formed."""
SIGNATURES = 1 << 16


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


@kernel(_i8(_U1, _I1, _I1, _i8, _U1, _I1, _F1, _I1, TICKS, _I1, types.uint64[::1], types.uint8[::1], _I1, _i8, _i8))
def campaign(  # type: ignore[no-untyped-def]
    corpus, starts, ends, count, buf, lines, ten, fields, ticks, out, seed, seen, totals, frames, symbols
):
    """Decode mutated batches until ``frames`` frames were taken. Frames with an outcome that was not seen before join
    the corpus. Returns the corpus' size; ``totals`` counts outcomes, and in BROKEN whatever must never happen."""
    used = ends[count - 1]
    while totals[FRAMES] < frames:
        size = compose(corpus, starts, ends, count, buf, seed)
        start = 0
        while start < size:
            before = start
            why = decode(buf, start, size, lines, 7, ten, fields, ticks, 0, out)
            start = out[0]
            totals[FRAMES] += out[2]
            totals[TICKS_OUT] += out[1]
            if start < before or start > size or out[1] < 0 or out[1] > ticks.shape[0]:
                totals[BROKEN] += 1
                return count
            for i in range(out[1]):
                if sound(ticks, i, symbols) == 0:
                    totals[BROKEN] += 1
            if why == COLD:
                totals[COLDS] += 1
                first, last = out[3] + 4, out[4]
                kind = types.int64(buf[first]) * 8 + min(last - first, 7)
                nuls = 0
                for i in range(first, last):
                    nuls += 1 if buf[i] == 0 else 0
                signature = (kind * 32 + min(nuls, 31)) % SIGNATURES
                if seen[signature] == 0 and count < starts.shape[0] and used + last - first < corpus.shape[0]:
                    seen[signature] = 1
                    totals[SEEN] += 1
                    starts[count] = used
                    for i in range(first, min(last, first + 256)):
                        corpus[used] = buf[i]
                        used += 1
                    ends[count] = used
                    count += 1
            elif why == BAD:
                totals[BADS] += 1
                break
            elif why != FULL:
                break
    totals[CORPUS] = count
    return count
