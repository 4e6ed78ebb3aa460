"""The doorbell: how an idle service sleeps and how whoever publishes for it wakes it.

A service that waits for rings only sleeps on the futexes of their tails (``shm.wait``). One that waits for sockets as
well can't: it has one FIFO in the instance directory, which sockets and rings share an epoll with. Either way one word
of the sleeper's says how it wants to be woken, and a producer pays for a system call only if it sleeps.

Sleeper: announce, full fence, look again, sleep with a bound. Producer: publish, full fence, look at the word, wake.
With a fence missing on either side both could miss each other; the bound turns even that into a delay.

Rejected: futexes for everybody, which can't be waited for together with a socket; an eventfd, which needs descriptor
passing; a FIFO for everybody, where a ring costs a write, a read and an epoll more than the futex does.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from select import EPOLLIN, epoll

from shm.region import Words
from shm.wait import AWAKE, DOORBELL, FUTEX, Sleep, announce, asleep, wake_all


class Doorbell:
    """The sleeper's side. ``rings``: the words of every ring it reads; empty to sleep on the FIFO always."""

    def __init__(self, path: Path, words: Words, at: int, rings: Sequence[Words] = ()) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._words, self._at = words, at
        self._epoll = epoll()
        self._epoll.register(self._fd, EPOLLIN)
        self._fds: tuple[int, ...] = ()
        self._futexes = Sleep(rings) if rings else None

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
        """From now on producers wake. Look for work once more before ``sleep``."""
        if self._futexes is None or self._fds:
            announce(self._words, self._at, DOORBELL)
        else:
            announce(self._words, self._at, FUTEX)
            self._futexes.remember()

    def sleep(self, timeout_s: float) -> None:
        """Wait for a producer, a watched descriptor or the bound; then stop being woken."""
        if self._futexes is not None and not self._fds:
            if timeout_s > 0:
                self._futexes.sleep(timeout_s)
            announce(self._words, self._at, AWAKE)
            return
        events = self._epoll.poll(timeout_s)
        announce(self._words, self._at, AWAKE)
        for fd, _ in events:
            if fd == self._fd:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._fd, 4096)

    def close(self) -> None:
        self._epoll.close()
        os.close(self._fd)


class Bell:
    """A producer's side: wakes one service if it sleeps. ``tail``: futex of a ring that it reads and we write, or 0."""

    def __init__(self, path: Path, words: Words, at: int, tail: int = 0) -> None:
        self._path, self._words, self._at, self._tail = path, words, at, tail
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
        how = asleep(self._words, self._at)
        if how == AWAKE:
            return
        if how == FUTEX:
            if self._tail:
                wake_all(self._tail)
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
