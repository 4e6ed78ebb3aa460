"""How a reader waits for rings: busy-spin, spin-then-yield, spin-then-futex; and how a writer wakes it.

The futex word is the low half of a ring's tail: publishing changes it, and a reader needs no write permission to wait
for it. Whether somebody sleeps stands in a word of the sleeper's own (one writer per word), which writers look at.

Invariants
1. Sleeper: asleep = FUTEX; full fence; remember the tails; look for work once more; wait while the tails are the
   remembered ones; asleep = AWAKE. The kernel compares and sleeps atomically, so no publish falls in between.
2. Writer: publish; full fence; look at the sleeper's word; a system call only if it says FUTEX.
   The fences pair up: nothing weaker orders a store before a later load, and without one both sides could miss each
   other (``tests/shm/test_protocol_model.py``).
3. Every sleep has a bound: a wake-up that gets lost for a reason outside this file costs at most that.

Rejected: a futex word that writers write in the reader's region (two writers of one word), and futexes for a process
that waits for sockets as well: it has a doorbell (``engine.runtime.doorbell``).
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Sequence
from typing import Literal

from shm.atomics import cpu_pause, fence_full, load_acquire, store_relaxed
from shm.errors import ShmError
from shm.jit import kernel
from shm.kernels import TAIL, ring_tail
from shm.region import Words

Strategy = Literal["busy-spin", "spin-then-yield", "spin-then-futex"]
STRATEGIES: tuple[Strategy, ...] = ("busy-spin", "spin-then-yield", "spin-then-futex")
AWAKE, DOORBELL, FUTEX = 0, 1, 2
"""What the sleeper's word says: how it wants to be woken."""
SPINS = 2_000
"""Looks at the tail before giving up the core: some 50 µs, as long as a wake-up takes."""

_SYS_FUTEX = {"x86_64": 202, "aarch64": 98}.get(os.uname().machine, -1)
_SYS_FUTEX_WAITV = 449
_WAIT, _WAKE, _U32 = 0, 1, 2
_MOST = 128  # futexes of one futex_waitv
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


@kernel("void(int64[::1], int64, int64)")
def announce(words, at, how):  # type: ignore[no-untyped-def]
    """Say how this sleeper wants to be woken, before it looks for work once more."""
    store_relaxed(words, at, how)
    fence_full()


@kernel("int64(int64[::1], int64)")
def asleep(words, at):  # type: ignore[no-untyped-def]
    """How the owner of the word wants to be woken; call after publishing."""
    fence_full()
    return load_acquire(words, at)


@kernel("int64(int64[::1], int64, int64)")
def spin(ring, position, spins):  # type: ignore[no-untyped-def]
    """Look ``spins`` times for records beyond ``position``; 1 as soon as there are some, else 0."""
    for _ in range(spins):
        if load_acquire(ring, TAIL) > position:
            return 1
        cpu_pause()
    return 0


class _Time(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _Waiter(ctypes.Structure):
    _fields_ = [
        ("value", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("r", ctypes.c_uint32),
    ]


def tail_address(ring: Words) -> int:
    """Address of the futex word of a mapped ring."""
    return int(ring.ctypes.data) + TAIL * 8


def wake_all(address: int) -> int:
    """Wake every process that waits for the futex; returns how many did."""
    return int(_libc.syscall(_SYS_FUTEX, ctypes.c_void_p(address), _WAKE, ctypes.c_int(2**31 - 1), None, None, 0))


class Sleep:
    """A futex sleep on the tails of some rings. ``remember``, look for work, ``sleep``."""

    def __init__(self, rings: Sequence[Words]) -> None:
        if not 1 <= len(rings) <= _MOST:
            raise ValueError(f"a sleeper waits for 1 to {_MOST} rings, not for {len(rings)}")
        self._rings = tuple(rings)
        self._waiters = (_Waiter * len(rings))()
        for waiter, ring in zip(self._waiters, rings, strict=True):
            waiter.address, waiter.flags = tail_address(ring), _U32

    def remember(self) -> None:
        for waiter, ring in zip(self._waiters, self._rings, strict=True):
            waiter.value = int(ring_tail(ring)) & 0xFFFFFFFF

    def sleep(self, timeout_s: float) -> None:
        """Until one of the tails is no longer the remembered one, somebody wakes, or the bound."""
        if len(self._rings) == 1:
            self._sleep_one(timeout_s)
            return
        end = time.monotonic_ns() + int(timeout_s * 1e9)
        until = _Time(end // 1_000_000_000, end % 1_000_000_000)
        waiters = ctypes.c_void_p(ctypes.addressof(self._waiters))
        done = _libc.syscall(_SYS_FUTEX_WAITV, waiters, len(self._rings), 0, ctypes.byref(until), time.CLOCK_MONOTONIC)
        if done < 0 and ctypes.get_errno() == errno.ENOSYS:
            self._sleep_one(min(timeout_s, 0.001))  # before Linux 5.16: one ring wakes, the others are looked at soon
        elif done < 0:
            self._check(ctypes.get_errno())

    def _sleep_one(self, timeout_s: float) -> None:
        wait = _Time(int(timeout_s), int(timeout_s % 1 * 1e9))
        waiter = self._waiters[0]
        address, value = ctypes.c_void_p(waiter.address), ctypes.c_uint32(waiter.value)
        if _libc.syscall(_SYS_FUTEX, address, _WAIT, value, ctypes.byref(wait), None, 0) < 0:
            self._check(ctypes.get_errno())

    @staticmethod
    def _check(number: int) -> None:
        if number not in (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT):
            raise ShmError(f"futex wait refused: {os.strerror(number)} (errno {number})")


class Waiter:
    """Waits for one ring by a strategy. ``words[at]`` is the sleeper's own word, in a region of its own."""

    def __init__(self, ring: Words, words: Words, at: int, strategy: Strategy, *, spins: int = SPINS) -> None:
        if strategy not in STRATEGIES:
            raise ValueError(f"no wait strategy {strategy!r}: there are {', '.join(STRATEGIES)}")
        self._ring, self._words, self._at = ring, words, at
        self._strategy, self._spins = strategy, spins
        self._futex = Sleep((ring,))

    def wait(self, position: int, timeout_s: float) -> bool:
        """True as soon as a record beyond ``position`` is published, False after ``timeout_s``."""
        if spin(self._ring, position, self._spins):
            return True
        end = time.monotonic() + timeout_s
        while True:
            left = end - time.monotonic()
            if left <= 0:
                return bool(ring_tail(self._ring) > position)
            if self._strategy == "spin-then-futex":
                announce(self._words, self._at, FUTEX)
                self._futex.remember()
                if ring_tail(self._ring) <= position:
                    self._futex.sleep(left)
                announce(self._words, self._at, AWAKE)
            elif self._strategy == "spin-then-yield":
                os.sched_yield()
            if spin(self._ring, position, self._spins if self._strategy == "busy-spin" else 1):
                return True


class Waker:
    """The writer's side: wakes one sleeper, for the price of a fence and a load while that one is awake."""

    def __init__(self, ring: Words, words: Words, at: int) -> None:
        self._address, self._words, self._at = tail_address(ring), words, at

    def wake(self) -> bool:
        """Call after publishing. True if the sleeper had to be woken."""
        if asleep(self._words, self._at) != FUTEX:
            return False
        wake_all(self._address)
        return True
