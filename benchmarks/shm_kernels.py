"""Both sides of the shared-memory benchmark, compiled: spin loops that a Python loop would drown."""

from __future__ import annotations

from typing import Any

from shm.atomics import cpu_pause, load_acquire, store_release
from shm.jit import kernel
from shm.kernels import SLOTS, cell_read, cell_write, ring_poll, ring_poll_one, ring_publish, ring_publish_one

from llvmlite import ir  # isort: skip  (after shm.jit, which sets the cache directory)
from numba import types  # isort: skip
from numba.core import cgutils  # isort: skip
from numba.extending import intrinsic  # isort: skip

ECHO_LINE = 8
"""Word of the answer in the bare ping-pong: the next cache line."""
SEED = 0x1234567


@intrinsic  # type: ignore[untyped-decorator]
def now_ns(typingctx: Any, scratch: Any) -> Any:
    """CLOCK_MONOTONIC through ``clock_gettime``, which costs some 20 ns without a system call. ``scratch``: 2 words."""
    signature = types.int64(scratch)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        i64, i32 = ir.IntType(64), ir.IntType(32)
        words = context.make_array(sig.args[0])(context, builder, args[0]).data
        kind = ir.FunctionType(i32, [i32, words.type])
        builder.call(
            cgutils.get_or_insert_function(builder.module, kind, "clock_gettime"), [ir.Constant(i32, 1), words]
        )
        seconds = builder.load(words)
        return builder.add(
            builder.mul(seconds, ir.Constant(i64, 1_000_000_000)),
            builder.load(builder.gep(words, [ir.Constant(i64, 1)])),
        )

    return signature, codegen


@kernel("void(int64[::1], int64)")
def bare_ping(words, count):  # type: ignore[no-untyped-def]
    for i in range(1, count + 1):
        store_release(words, 0, i)
        while load_acquire(words, ECHO_LINE) != i:
            cpu_pause()


@kernel("void(int64[::1], int64)")
def bare_echo(words, count):  # type: ignore[no-untyped-def]
    for i in range(1, count + 1):
        while load_acquire(words, 0) != i:
            cpu_pause()
        store_release(words, ECHO_LINE, i)


@kernel("int64(int64[::1], int64[::1], int64[::1], int64, int64[::1], int64, int64)")
def ring_ping(there, back, cursor, at, record, capacity, count):  # type: ignore[no-untyped-def]
    """Publish one 64-byte record, wait for its answer; returns the sum of what came back, -1 if one was lost."""
    total = 0
    for i in range(count):
        record[1] = i
        ring_publish_one(there, record, 0, capacity, 8)
        got = 0
        while got == 0:
            got = ring_poll_one(back, cursor, at, record, capacity, 8)
            if got == 0:
                cpu_pause()
        if got < 0:
            return -1
        total += record[1]
    return total


@kernel("int64(int64[::1], int64[::1], int64[::1], int64, int64[::1], int64, int64)")
def ring_echo(there, back, cursor, at, record, capacity, count):  # type: ignore[no-untyped-def]
    for _ in range(count):
        got = 0
        while got == 0:
            got = ring_poll_one(there, cursor, at, record, capacity, 8)
            if got == 0:
                cpu_pause()
        if got < 0:
            return -1
        ring_publish_one(back, record, 0, capacity, 8)
    return 0


@kernel("int64(int64[::1], int64[::1], int64, int64, int64, int64[::1], int64)")
def stream_write(ring, batch, records, capacity, count, reader, at):  # type: ignore[no-untyped-def]
    """Write ``count`` records in batches, never lapping the one reader: every word of every record is new."""
    written = limit = 0
    while written < count:
        while limit < written + records:  # the reader's cursor, remembered until it leaves no room
            limit = load_acquire(reader, at) + capacity
            if limit < written + records:
                cpu_pause()
        for i in range(records * 8):  # one flat loop: of two nested ones LLVM makes scattered stores, a third as fast
            batch[i] = written + (i >> 3) + (i & 7) + SEED
        written = ring_publish(ring, batch, records, capacity, 8)
    return written


@kernel("int64(int64[::1], int64[::1], int64, int64[::1], int64, int64)")
def stream_read(ring, cursor, at, out, capacity, count):  # type: ignore[no-untyped-def]
    """Read ``count`` full records; returns the sum of all words, -1 if one was lost."""
    total = seen = 0
    while seen < count:
        got = ring_poll(ring, cursor, at, out, capacity, 8)
        if got < 0:
            return -1
        for i in range(got * 8):
            total += out[i]
        seen += got
        if got == 0:
            cpu_pause()
    return total


def stream_sum(count: int) -> int:
    """What ``stream_read`` must return: the ring puts the record's number in the first word of each record."""
    numbers = count * (count - 1) // 2
    return 8 * numbers + count * (28 + 7 * SEED)


@kernel("void(int64[::1], int64[::1], int64[::1], int64, int64, int64[::1])")
def publish_cost(ring, record, samples, each, capacity, scratch):  # type: ignore[no-untyped-def]
    """Nanoseconds of ``each`` single publishes, for every sample."""
    for s in range(samples.shape[0]):
        begun = now_ns(scratch)
        for i in range(each):
            record[1] = i
            ring_publish_one(ring, record, 0, capacity, 8)
        samples[s] = now_ns(scratch) - begun


@kernel("void(int64[::1], int64[::1], int64[::1], int64)")
def cell_hammer(region, payload, control, pause):  # type: ignore[no-untyped-def]
    """Write the cell without end, ``pause`` spins apart, until ``control[0]`` is set."""
    n = 0
    while load_acquire(control, 0) == 0:
        n += 1
        for w in range(payload.shape[0]):
            payload[w] = n
        cell_write(region, SLOTS, payload)
        for _ in range(pause):
            cpu_pause()


@kernel("int64(int64[::1], int64[::1], int64[::1], int64, int64[::1])")
def cell_cost(region, out, samples, retries, scratch):  # type: ignore[no-untyped-def]
    """Nanoseconds of each read, the clock's own cost included. Returns reads that gave up, -1 for a torn value."""
    gave_up = 0
    for s in range(samples.shape[0]):
        begun = now_ns(scratch)
        version = cell_read(region, SLOTS, out, retries)
        samples[s] = now_ns(scratch) - begun
        if version < 0:
            gave_up += 1
        else:
            for w in range(2, out.shape[0]):
                if out[w] != out[1]:
                    return -1
    return gave_up


@kernel("void(int64[::1], int64[::1])")
def clock_cost(samples, scratch):  # type: ignore[no-untyped-def]
    for s in range(samples.shape[0]):
        begun = now_ns(scratch)
        samples[s] = now_ns(scratch) - begun
