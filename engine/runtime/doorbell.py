"""The doorbell: how a sleeping service is woken when it waits for sockets and rings at once.

One FIFO per service in the instance directory, and one word that says whether the service sleeps. A producer pays for
a wake-up only if somebody sleeps. Sleeper: announce, full fence, look once more, sleep with a bound. Producer: publish,
full fence, look at the word, write one byte. With a fence missing on either side both could miss each other; the bound
turns even that into a delay.

Rejected: a futex, which can't be waited for together with a socket; an eventfd, which needs descriptor passing.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from select import EPOLLIN, epoll

from shm.atomics import fence_full, load_acquire, store_relaxed
from shm.jit import kernel
from shm.region import Words


@kernel("void(int64[::1], int64, int64)")
def _announce(words, at, value):  # type: ignore[no-untyped-def]
    store_relaxed(words, at, value)
    fence_full()


@kernel("int64(int64[::1], int64)")
def _sleeps(words, at):  # type: ignore[no-untyped-def]
    fence_full()
    return load_acquire(words, at)


class Doorbell:
    """The sleeper's side."""

    def __init__(self, path: Path, words: Words, at: int) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._words, self._at = words, at
        self._epoll = epoll()
        self._epoll.register(self._fd, EPOLLIN)
        self._fds: tuple[int, ...] = ()

    def watch(self, fds: tuple[int, ...]) -> None:
        """Also wake for these descriptors (a changed set replaces the former)."""
        if fds == self._fds:
            return
        for fd in self._fds:
            with contextlib.suppress(OSError, ValueError):
                self._epoll.unregister(fd)
        for fd in fds:
            with contextlib.suppress(FileExistsError):
                self._epoll.register(fd, EPOLLIN)
        self._fds = fds

    def announce(self) -> None:
        """From now on producers ring. Look for work once more before ``sleep``."""
        _announce(self._words, self._at, 1)

    def sleep(self, timeout_s: float) -> None:
        """Wait for a ring, a watched descriptor or the bound; then stop being rung."""
        events = self._epoll.poll(timeout_s)
        _announce(self._words, self._at, 0)
        for fd, _ in events:
            if fd == self._fd:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._fd, 4096)

    def close(self) -> None:
        self._epoll.close()
        os.close(self._fd)


class Bell:
    """A producer's side: rings one service if it sleeps."""

    def __init__(self, path: Path, words: Words, at: int) -> None:
        self._path, self._words, self._at = path, words, at
        self._fd = -1

    @property
    def address(self) -> int:
        """Of the word that says whether the service sleeps, for kernels."""
        return int(self._words.ctypes.data + self._at * 8)

    @property
    def fd(self) -> int:
        """Of the FIFO; -1 while it has not been needed yet."""
        return self._fd

    def ring(self) -> None:
        if not _sleeps(self._words, self._at):
            return
        try:
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.write(self._fd, b"\0")
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENXIO, errno.ENOENT, errno.EPIPE):
                raise  # full, nobody there, or not yet made: the sleeper's bound covers it

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
