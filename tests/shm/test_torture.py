"""Real processes, real kills: checksummed records, zero tears, zero unreported losses."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torture
from torture import BATCH, CAPACITY, LOST, SEEN, TORN

from shm.kernels import TAIL
from shm.layouts import TICK
from shm.region import Region
from shm.ring import check_cursor, check_ring, cursor_at, cursor_spec, ring_spec

GIVE_UP_S = 800.0
MARGIN = 400_000
"""How many records the writer may be ahead of the next stop or kill: it runs when that comes, and isn't done."""


class Side:
    """A forked process that is stopped, killed and started again."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self.kills = 0
        self.done = False
        self.start()

    def start(self) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # not to outlive a test that is killed
                self._work()
                code = 0
            finally:
                os._exit(code)

    def look(self) -> bool:
        """True once it has finished its work."""
        if not self.done:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                assert status == 0, f"a side failed by itself: {status}"
                self.done = True
        return self.done

    def kill(self) -> bool:
        os.kill(self.pid, signal.SIGKILL)
        status = os.waitpid(self.pid, 0)[1]
        if os.WIFEXITED(status):
            assert status == 0
            self.done = True
            return False
        self.kills += 1
        return True

    @contextmanager
    def stopped(self) -> Iterator[None]:
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


@dataclass(frozen=True, slots=True)
class Result:
    published: int
    seen: tuple[int, ...]
    lost: tuple[int, ...]
    kills: int


def run(directory: Path, count: int, readers: int, *, gated: bool, events: int, seed: int) -> Result:
    """``count`` records through one ring, with ``events`` stops and kills at random moments of random sides."""
    rng = random.Random(seed)
    torture.create(directory, readers)
    ring = Region.attach(directory, ring_spec("ring", TICK, CAPACITY))
    cursors = Region.attach(directory, cursor_spec("cursors", readers))
    moments = sorted(rng.randrange(count) for _ in range(events))
    leave = np.frombuffer(mmap.mmap(-1, 8), np.int64)
    leave[0] = moments[0] + MARGIN
    writer = Side(lambda: torture.write(directory, count, gated, leave))
    sides = [writer, *(Side(lambda n=n: torture.read(directory, count, n, readers)) for n in range(readers))]  # type: ignore[misc]
    end = time.monotonic() + GIVE_UP_S
    try:
        while not all(side.look() for side in sides):
            assert time.monotonic() < end, f"seed {seed}: tail {ring.words[TAIL]} after {GIVE_UP_S} s"
            if not moments or int(ring.words[TAIL]) < moments[0]:
                time.sleep(0.001)
                continue
            moments.pop(0)
            leave[0] = moments[0] + MARGIN if moments else count
            side = rng.choice([s for s in sides if not s.done] or sides)
            if side.done:
                continue
            if rng.random() < 0.5:
                with side.stopped():
                    time.sleep(rng.uniform(0.0, 0.01))
            if rng.random() < 0.7 and side.kill():
                if side is writer:
                    assert check_ring(ring) == [], f"seed {seed}"
                side.start()
    finally:
        for side in sides:
            if not side.done:
                side.kill()
    lines = [cursor_at(n) for n in range(readers)]
    assert [int(cursors.words[at + TORN]) for at in lines] == [0] * readers, f"seed {seed}"
    assert check_ring(ring) == []
    for at in lines:
        assert check_cursor(cursors.words, at, ring) == []
    result = Result(
        int(ring.words[TAIL]),
        tuple(int(cursors.words[at + SEEN]) for at in lines),
        tuple(int(cursors.words[at + LOST]) for at in lines),
        sum(s.kills for s in sides),
    )
    for side, seen, lost in zip(sides[1:], result.seen, result.lost, strict=True):
        # A reader that is killed between verifying a batch and moving its cursor verifies that batch again.
        again = seen + lost - count
        assert 0 <= again <= side.kills * (CAPACITY + 512), (
            f"seed {seed}: {again} more than {count}, {side.kills} kills"
        )
    return result


def test_killed_and_stopped_processes_leave_no_tear_and_no_unreported_loss(shm_dir: Path) -> None:
    result = run(shm_dir, 10_000_000, 3, gated=False, events=24, seed=1)
    assert result.published == 10_000_000
    assert result.kills >= 5
    assert min(result.seen) > 0


def test_a_gated_ring_loses_nothing_whoever_is_killed(shm_dir: Path) -> None:
    result = run(shm_dir, 1_000_000, 1, gated=True, events=12, seed=2)
    assert result.lost == (0,)
    assert result.published == 1_000_000
    assert result.kills >= 2


def test_the_torture_sees_a_torn_word(shm_dir: Path) -> None:
    """The instrument itself: one word of one record is changed behind the writer's back."""
    torture.create(shm_dir, 1)
    torture.write(shm_dir, BATCH, gated=False, leave=np.array([BATCH]))
    ring = Region.attach(shm_dir, ring_spec("ring", TICK, CAPACITY), writable=True)
    ring.words[512 + 17 * 8 + 5] ^= 1
    torture.read(shm_dir, BATCH, 0, 1)
    cursors = Region.attach(shm_dir, cursor_spec("cursors", 1))
    assert np.array(cursors.words[cursor_at(0) + SEEN : cursor_at(0) + TORN + 1]).tolist() == [BATCH, 0, 1]


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_eight_hundred_million_broadcast_records(shm_dir: Path) -> None:
    result = run(shm_dir, 800_000_000, 2, gated=False, events=60, seed=random.SystemRandom().randrange(10**6))
    assert result.published == 800_000_000
    assert min(result.seen) > 0


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_two_hundred_million_records_of_which_none_may_be_lost(shm_dir: Path) -> None:
    result = run(shm_dir, 200_000_000, 1, gated=True, events=40, seed=random.SystemRandom().randrange(10**6))
    assert result.lost == (0,)
    assert result.published == 200_000_000
