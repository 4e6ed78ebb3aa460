"""Compiled access to rings and cells, on the int64 words of a mapped region.

A ring's words (invariants 1 to 6; offsets in words)

    0..63     header (``shm.region``)
    64        tail: number of records published, ever       [store-release by the writer]
    72        intent: records claimed, ever                 [relaxed, then fence]
    80        sleepers' hint, not used by the protocol
    512..     slots: capacity × record words

1. One writer. ``tail`` <= ``intent``; both only rise, over restarts of the writer as well: a writer that died between
   intent and tail leaves slots of unknown content, and its heir must not lower the intent, or a reader that is busy
   with the overwritten generation of those slots would take the wreck for data.
2. Writer: intent = n + k; StoreStore fence; k records; tail = n + k with release.
3. Reader of record m: tail with acquire, must exceed m; copies; LoadLoad fence; intent must be <= m + capacity,
   else the copy is void and the reader was lapped.
4. A lapped reader resumes at the oldest record that cannot be overwritten while it looks, and knows its exact gap.
5. Gated (order and command) rings: the writer first reads every gating reader's cursor with acquire and claims no slot
   that one of them has not passed. Full is an answer, not a wait.
6. Each slot's first word is its record number: ``check`` proves the ring from any snapshot.

A cell's words: 0 version (even stable, odd writing), 1 writes; then padding to one line; then the payload.
"""

from __future__ import annotations

from shm.atomics import (
    fence_acquire,
    fence_release,
    load_acquire,
    load_relaxed,
    store_relaxed,
    store_release,
)
from shm.jit import kernel

TAIL = 64
INTENT = 72
SLOTS = 512
"""Word offset of the first slot of a ring, and of the first cell of a cell region: one page after the start."""
CELL_HEAD = 8
"""Words of a cell before its payload: one cache line."""
LAPPED = -1
TORN = -1


@kernel("int64(int64[::1], int64[::1], int64, int64, int64)")
def ring_publish(ring, records, count, capacity, words):  # type: ignore[no-untyped-def]
    """Publish ``count`` records (``count × words`` int64 words). Returns the sequence after the last one."""
    mask = capacity - 1
    tail = load_relaxed(ring, TAIL)
    intent = load_relaxed(ring, INTENT)
    done = 0
    while done < count:
        batch = min(count - done, capacity >> 1)
        if tail + batch > intent:
            intent = tail + batch
            store_relaxed(ring, INTENT, intent)
        fence_release()
        for i in range(batch):
            slot = SLOTS + ((tail + i) & mask) * words
            source = (done + i) * words
            store_relaxed(ring, slot, tail + i)
            for w in range(1, words):
                store_relaxed(ring, slot + w, records[source + w])
        tail += batch
        store_release(ring, TAIL, tail)
        done += batch
    return tail


@kernel("int64(int64[::1], int64[::1], int64, int64[::1], int64, int64)")
def ring_poll(ring, cursor, at, out, capacity, words):  # type: ignore[no-untyped-def]
    """Copy waiting records to ``out`` and advance ``cursor[at]``.

    Returns the number copied, or ``LAPPED - lost`` (negative) after having moved the cursor over ``lost`` records.
    """
    mask = capacity - 1
    position = load_relaxed(cursor, at)
    tail = load_acquire(ring, TAIL)
    room = out.shape[0] // words
    ready = min(tail - position, room)
    if ready <= 0:
        return 0
    if tail - position <= capacity:
        for i in range(ready):
            slot = SLOTS + ((position + i) & mask) * words
            target = i * words
            for w in range(words):
                out[target + w] = load_relaxed(ring, slot + w)
        fence_acquire()
        if load_relaxed(ring, INTENT) <= position + capacity:
            store_release(cursor, at, position + ready)
            return ready
    # Half a ring of distance, so that the writer does not lap the reader again while it copies the next batch.
    oldest = load_acquire(ring, TAIL) - (capacity >> 1)
    lost = oldest - position
    store_release(cursor, at, oldest)
    return LAPPED - lost


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
def cell_write(region, at, payload):  # type: ignore[no-untyped-def]
    """Publish ``payload`` in the cell whose head is word ``at``. A version left odd by a dead writer is repaired."""
    version = load_relaxed(region, at) | 1
    store_relaxed(region, at, version)
    fence_release()
    base = at + CELL_HEAD
    for w in range(payload.shape[0]):
        store_relaxed(region, base + w, payload[w])
    store_relaxed(region, at + 1, load_relaxed(region, at + 1) + 1)
    store_release(region, at, version + 1)


@kernel("int64(int64[::1], int64, int64[::1], int64)")
def cell_read(region, at, out, retries):  # type: ignore[no-untyped-def]
    """Copy the cell to ``out``. Returns its even version (0: never written), or TORN after ``retries`` vain tries."""
    base = at + CELL_HEAD
    for _ in range(retries):
        before = load_acquire(region, at)
        if before & 1:
            continue
        for w in range(out.shape[0]):
            out[w] = load_relaxed(region, base + w)
        fence_acquire()
        if load_relaxed(region, at) == before:
            return before
    return TORN
