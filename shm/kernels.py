"""Compiled access to rings and cells, on the int64 words of a mapped region.

A ring's words (offsets in words)

    0..63     header (``shm.region``)
    64        tail: number of records published, ever       [store-release by the writer]
    512..     slots: capacity × record words; the first word of a slot is its mark

The mark of a slot is n once record n stands there whole, and WRITING - n (negative) while it is being written.

Invariants of a ring
1. One writer. Marks of a slot and the tail only rise (in record number), over restarts of the writer as well.
2. Writer, for a chunk of k records from n: k marks WRITING - n; StoreStore fence; then for each record its words, and
   its mark n with release; last tail = n + k with release. k is at most half the ring.
3. Reader of records p to q: ``ring_poll`` takes the tail with acquire and it exceeds q, or ``ring_poll_one`` takes the
   mark of p with acquire and it is p. It copies; LoadLoad fence; the mark of p must (still) be p. Records are
   overwritten in order and marked before any of their words change, so that one look covers the whole batch.
   Otherwise the copy is void and the reader was lapped.
4. A lapped reader resumes half a ring behind the tail: no writer, alive or dead, has claimed that slot. It knows its
   exact gap.
5. A writer that died may have published marks beyond the tail, and a reader may have taken those records: the heir
   moves the tail over them before it writes (``ring_recover``).
6. Gated (order and command) rings: the writer claims no slot that a gating reader's cursor has not passed. It remembers
   the cursors and reads them again only when the remembered ones leave no room. Full is an answer, not a wait.

The mark makes a record and its announcement one cache line: a reader that polls one record at a time pays a single
transfer between cores, like a bare ping-pong. Rejected: an intent word beside the tail (Aeron's broadcast buffer), with
which every record costs three lines.

A cell's words: 0 version (even stable, odd writing), 1 writes; then padding to one line; then the payload.

Invariants of a cell
7. One writer. Version odd; StoreStore fence; payload; version even with release. A version left odd by a dead writer
   stays odd until the heir's next write.
8. Reader: version with acquire, even; copy; LoadLoad fence; the version must be the same. Tries are bounded.
"""

from __future__ import annotations

from shm.atomics import (
    cpu_pause,
    fence_acquire,
    fence_release,
    head_line_to_shared,
    line_from_shared,
    line_to_shared,
    load_acquire,
    load_relaxed,
    store_relaxed,
    store_release,
    words_of_line,
    words_to_shared,
)
from shm.jit import kernel

TAIL = 64
SLOTS = 512
"""Word offset of the first slot of a ring, and of the first cell of a cell region: one page after the start."""
LINE = 8
"""Words of a cache line."""
WRITING = -1
"""Mark of a slot while record n is written to it: WRITING - n."""
CHUNK = 64
"""Most records that the writer claims at once: their lines stay in its first-level cache."""
LAPPED = -1
TORN = -1


@kernel("int64(int64[::1], int64[::1], int64, int64, int64)", inline=True)
def ring_publish_one(ring, records, at, capacity, words):  # type: ignore[no-untyped-def]
    """Publish the record at word ``at`` of ``records``: the path of least latency. Returns the sequence after it."""
    tail = load_relaxed(ring, TAIL)
    slot = SLOTS + (tail & (capacity - 1)) * words
    head = words_of_line(
        records, at
    )  # before the mark: it was filled a moment ago, and a line half written is in demand
    store_relaxed(ring, slot, WRITING - tail)
    fence_release()
    for w in range(LINE, words, LINE):
        words_to_shared(ring, slot + w, records[at + w], words_of_line(records, at + w))
    words_to_shared(ring, slot, WRITING - tail, head)
    store_release(ring, slot, tail)
    store_release(ring, TAIL, tail + 1)
    return tail + 1


@kernel("void(int64[::1], int64[::1], int64, int64, int64, int64, int64)", inline=True)
def _write_chunk(ring, records, at, first, count, mask, words):  # type: ignore[no-untyped-def]
    """Invariant 2 for ``count`` records from number ``first``, which stand at word ``at`` of ``records``."""
    for i in range(count):
        store_relaxed(ring, SLOTS + ((first + i) & mask) * words, WRITING - (first + i))
    fence_release()
    for i in range(count):
        slot = SLOTS + ((first + i) & mask) * words
        source = at + i * words
        for w in range(LINE, words, LINE):
            line_to_shared(ring, slot + w, records, source + w)
        head_line_to_shared(ring, slot, WRITING - (first + i), records, source)
        store_release(ring, slot, first + i)


@kernel("int64(int64[::1], int64[::1], int64, int64, int64)")
def ring_publish(ring, records, count, capacity, words):  # type: ignore[no-untyped-def]
    """Publish ``count`` records (``count × words`` int64 words). Returns the sequence after the last one."""
    if count == 1:
        return ring_publish_one(ring, records, 0, capacity, words)
    limit = min(CHUNK, capacity >> 1)
    tail = load_relaxed(ring, TAIL)
    done = 0
    while done < count:
        chunk = min(count - done, limit)
        if words == LINE:  # the same code with its inner loop gone
            _write_chunk(ring, records, done * LINE, tail, chunk, capacity - 1, LINE)
        else:
            _write_chunk(ring, records, done * words, tail, chunk, capacity - 1, words)
        tail += chunk
        store_release(ring, TAIL, tail)
        done += chunk
    return tail


@kernel("int64(int64[::1], int64[::1], int64, int64, int64)")
def _resume(ring, cursor, at, position, capacity):  # type: ignore[no-untyped-def]
    """Move a lapped reader half a ring behind the tail; 0 while the tail it can see does not show the lapping yet."""
    oldest = load_acquire(ring, TAIL) - (capacity >> 1)
    if oldest <= position:
        return 0
    store_release(cursor, at, oldest)
    return LAPPED - (oldest - position)


@kernel("void(int64[::1], int64[::1], int64, int64, int64, int64)", inline=True)
def _copy_out(ring, out, first, count, mask, words):  # type: ignore[no-untyped-def]
    for i in range(count):
        slot = SLOTS + ((first + i) & mask) * words
        for w in range(0, words, LINE):
            line_from_shared(out, i * words + w, ring, slot + w)


@kernel("int64(int64[::1], int64[::1], int64, int64[::1], int64, int64)")
def ring_poll(ring, cursor, at, out, capacity, words):  # type: ignore[no-untyped-def]
    """Copy waiting records to ``out`` and advance ``cursor[at]``.

    Returns the number copied, or ``LAPPED - lost`` (negative) after having moved the cursor over ``lost`` records.
    """
    mask = capacity - 1
    position = load_relaxed(cursor, at)
    tail = load_acquire(ring, TAIL)
    ready = min(tail - position, out.shape[0] // words)
    if ready <= 0:
        return 0
    if tail - position <= capacity:
        if words == LINE:
            _copy_out(ring, out, position, ready, mask, LINE)
        else:
            _copy_out(ring, out, position, ready, mask, words)
        fence_acquire()
        if load_relaxed(ring, SLOTS + (position & mask) * words) == position:
            store_release(cursor, at, position + ready)
            return ready
    return _resume(ring, cursor, at, position, capacity)


@kernel("int64(int64[::1], int64[::1], int64, int64[::1], int64, int64)", inline=True)
def ring_poll_one(ring, cursor, at, out, capacity, words):  # type: ignore[no-untyped-def]
    """Copy the next record, if it is there, to ``out`` and advance ``cursor[at]``: the path of least latency.

    It looks at nothing but the record itself. Returns 1, 0, or ``LAPPED - lost`` like ``ring_poll``.
    """
    position = load_relaxed(cursor, at)
    slot = SLOTS + (position & (capacity - 1)) * words
    mark = load_acquire(ring, slot)
    if mark == position:
        for w in range(words):
            out[w] = load_relaxed(ring, slot + w)
        fence_acquire()
        mark = load_relaxed(ring, slot)
        if mark == position:
            store_release(cursor, at, position + 1)
            return 1
    if mark < 0:
        mark = WRITING - mark
    if mark <= position:
        return 0
    return _resume(ring, cursor, at, position, capacity)


@kernel("int64(int64[::1], int64, int64)")
def ring_recover(ring, capacity, words):  # type: ignore[no-untyped-def]
    """Move the tail over records that a dead writer published without having moved it. Returns the tail."""
    tail = load_relaxed(ring, TAIL)
    while load_acquire(ring, SLOTS + (tail & (capacity - 1)) * words) == tail:
        tail += 1
    store_release(ring, TAIL, tail)
    return tail


@kernel("int64(int64[::1])")
def ring_tail(ring):  # type: ignore[no-untyped-def]
    """Number of records ever published."""
    return load_acquire(ring, TAIL)


@kernel("int64(int64[::1], int64)")
def word_load(words, at):  # type: ignore[no-untyped-def]
    return load_acquire(words, at)


@kernel("void(int64[::1], int64, int64)")
def word_store(words, at, value):  # type: ignore[no-untyped-def]
    store_release(words, at, value)


@kernel("void(int64[::1], int64, int64[::1])")
def cell_write(region, at, record):  # type: ignore[no-untyped-def]
    """Publish ``record`` in the cell at word ``at``. A version left odd by a dead writer is repaired."""
    version = load_relaxed(region, at) | 1
    head = words_of_line(record, 0)  # before the mark, see ring_publish_one
    store_relaxed(region, at, version)
    fence_release()
    for w in range(LINE, record.shape[0], LINE):
        line_to_shared(region, at + w, record, w)
    words_to_shared(region, at, version, head)
    store_release(region, at, version + 1)


@kernel("int64(int64[::1], int64, int64[::1], int64)")
def cell_read(region, at, out, retries):  # type: ignore[no-untyped-def]
    """Copy the cell to ``out``. Returns its even version (0: never written), or TORN after ``retries`` vain tries."""
    for _ in range(retries):
        before = load_acquire(region, at)
        if before & 1 == 0:
            for w in range(0, out.shape[0], LINE):
                line_from_shared(out, w, region, at + w)
            fence_acquire()
            if load_relaxed(region, at) == before:
                return before
        # Without a breath the line never leaves this core's cache for long enough: the writer that has to finish waits,
        # and so does everybody who waits for it.
        cpu_pause()
    return TORN


@kernel("int64(int64[::1], int64, int64[::1], int64[::1])")
def cells_moved(region, words, known, moved):  # type: ignore[no-untyped-def]
    """Numbers, into ``moved``, of the cells of ``words`` that were written since the ``known`` versions; how many."""
    n = 0
    for i in range(known.shape[0]):
        version = load_acquire(region, SLOTS + i * words)
        if version != known[i]:
            known[i] = version
            moved[n] = i
            n += 1
    return n
