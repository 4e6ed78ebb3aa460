"""Both sides of the shared-memory benchmark, compiled: spin loops that a Python loop would drown."""

from __future__ import annotations

from shm.atomics import cpu_pause, load_acquire, store_release
from shm.jit import kernel
from shm.kernels import ring_poll, ring_publish

ECHO_LINE = 8
"""Word of the answer in the bare ping-pong: the next cache line."""


@kernel("void(int64[::1], int64, int64)")
def bare_ping(words, first, count):  # type: ignore[no-untyped-def]
    for i in range(first, first + count):
        store_release(words, 0, i + 1)
        while load_acquire(words, ECHO_LINE) != i + 1:
            cpu_pause()


@kernel("void(int64[::1], int64, int64)")
def bare_echo(words, first, count):  # type: ignore[no-untyped-def]
    for i in range(first, first + count):
        while load_acquire(words, 0) != i + 1:
            cpu_pause()
        store_release(words, ECHO_LINE, i + 1)


@kernel("int64(int64[::1], int64[::1], int64[::1], int64, int64[::1], int64, int64)")
def ring_ping(there, back, cursor, at, record, capacity, count):  # type: ignore[no-untyped-def]
    """Publish one 64-byte record, wait for its answer; returns a checksum so that nothing is optimised away."""
    total = 0
    for i in range(count):
        record[1] = i
        ring_publish(there, record, 1, capacity, 8)
        while ring_poll(back, cursor, at, record, capacity, 8) == 0:
            cpu_pause()
        total += record[1]
    return total


@kernel("int64(int64[::1], int64[::1], int64[::1], int64, int64[::1], int64, int64)")
def ring_echo(there, back, cursor, at, record, capacity, count):  # type: ignore[no-untyped-def]
    total = 0
    for _ in range(count):
        while ring_poll(there, cursor, at, record, capacity, 8) == 0:
            cpu_pause()
        ring_publish(back, record, 1, capacity, 8)
        total += record[1]
    return total


@kernel("int64(int64[::1], int64[::1], int64, int64, int64, int64[::1], int64)")
def stream_write(ring, batch, records, capacity, count, reader, at):  # type: ignore[no-untyped-def]
    """Write ``count`` full records in batches, never lapping the one reader: every word of every record is new."""
    written = 0
    while written < count:
        while load_acquire(reader, at) + capacity < written + records:
            cpu_pause()
        for i in range(records):
            for w in range(1, 8):
                batch[i * 8 + w] = written + i + w
        written = ring_publish(ring, batch, records, capacity, 8)
    return written


@kernel("int64(int64[::1], int64[::1], int64, int64[::1], int64, int64)")
def stream_read(ring, cursor, at, out, capacity, count):  # type: ignore[no-untyped-def]
    """Read ``count`` full records; returns the sum of all words, -1 if one was lost."""
    total = 0
    seen = 0
    while seen < count:
        got = ring_poll(ring, cursor, at, out, capacity, 8)
        if got < 0:
            return -1
        for i in range(got):
            for w in range(8):
                total += out[i * 8 + w]
        seen += got
        if got == 0:
            cpu_pause()
    return total
