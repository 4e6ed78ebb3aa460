"""Ring, gated ring and cell against lists, over every mixture of publishing, reading, dying and inheriting."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shm import kernels
from shm.cell import CellReader, CellWriter, cell_spec, check_cells
from shm.kernels import SLOTS, WRITING
from shm.layouts import INTENT, LEASE, TICK
from shm.region import Region, check_region
from shm.ring import (
    Gate,
    RingFull,
    RingReader,
    RingWriter,
    check_cursor,
    check_ring,
    cursor_at,
    cursor_spec,
    ring_spec,
)

CAPACITY = 16


class InMemory(RuleBasedStateMachine):
    """A directory of its own for each run."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="l2dash-shm-machine-", dir="/dev/shm"))

    def teardown(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


def records(first: int, count: int) -> np.ndarray:
    made = np.zeros(count, TICK)
    made["price"] = np.arange(first, first + count)
    made["t_exchange_ns"] = -np.arange(first, first + count)
    return made


class Broadcast(InMemory):
    """One writer that may die at any point, a reader of batches, a reader of single records."""

    def __init__(self) -> None:
        super().__init__()
        self.region = Region.create(self.directory, ring_spec("r", TICK, CAPACITY), 1)
        self.cursors = Region.create(self.directory, cursor_spec("c", 2), 1)
        self.writer = RingWriter(self.region, TICK)
        self.reader = RingReader(self.region, TICK, self.cursors.words, cursor_at(0), batch=7)
        self.out = np.zeros(8, np.int64)
        self.published: list[int] = []
        self.at = [0, 0]

    @rule(count=st.integers(1, 3 * CAPACITY))
    def publish(self, count: int) -> None:
        first = len(self.published)
        assert self.writer.publish(records(first, count)) == first + count
        self.published += range(first, first + count)

    @rule(claimed=st.integers(1, CAPACITY // 2), whole=st.integers(0, CAPACITY // 2))
    def die_in_a_batch(self, claimed: int, whole: int) -> None:
        """Marks, scribble, some records whole, no tail; then an heir."""
        first, words = len(self.published), self.region.words
        whole = min(whole, claimed)
        for n in range(first, first + claimed):
            slot = SLOTS + n % CAPACITY * 8
            words[slot : slot + 8] = 0x0BAD
            words[slot] = WRITING - n
        for n in range(first, first + whole):
            slot = SLOTS + n % CAPACITY * 8
            words[slot + 1 : slot + 8] = records(n, 1).view(np.int64)[1:]
            words[slot] = n
        assert check_ring(self.region) == []
        self.writer = RingWriter(self.region, TICK)
        self.published += range(first, first + whole)
        assert self.writer.tail == len(self.published)

    @rule()
    def poll(self) -> None:
        got = self.reader.poll()
        self.at[0] += self.reader.last_gap
        want = self.published[self.at[0] : self.at[0] + len(got)]
        assert got["price"].tolist() == want
        assert got["sequence"].tolist() == want
        assert (-got["t_exchange_ns"]).tolist() == want
        self.at[0] += len(got)
        assert self.reader.waiting == len(self.published) - self.at[0]

    @rule()
    def poll_one(self) -> None:
        got = int(kernels.ring_poll_one(self.region.words, self.cursors.words, cursor_at(1), self.out, CAPACITY, 8))
        if got < 0:
            self.at[1] += kernels.LAPPED - got
        elif got == 1:
            record = self.out.view(TICK)[0]
            assert (record["price"], record["sequence"]) == (self.at[1], self.published[self.at[1]])
            self.at[1] += 1
        else:
            assert self.at[1] == len(self.published)

    @rule(count=st.integers(1, 20))
    def peek_and_commit_some(self, count: int) -> None:
        seen = self.reader.peek_count()
        self.at[0] += self.reader.last_gap
        want = self.published[self.at[0] : self.at[0] + seen]
        assert self.reader.buffer[:seen]["price"].tolist() == want
        done = min(count, seen)
        if done:
            self.reader.commit(done)
            self.at[0] += done

    @rule()
    def another_reader_takes_over(self) -> None:
        lost = self.reader.lost
        self.reader = RingReader(self.region, TICK, self.cursors.words, cursor_at(0), batch=7)
        self.reader.lost = lost
        self.at[0] = self.reader.position

    @invariant()
    def everything_is_sound(self) -> None:
        assert check_ring(self.region) == []
        assert check_region(self.region) == []
        for line in (0, 1):
            assert check_cursor(self.cursors.words, cursor_at(line), self.region) == []


class Gated(InMemory):
    """An order ring with two gating readers: a queue that says when it is full."""

    def __init__(self) -> None:
        super().__init__()
        self.region = Region.create(self.directory, ring_spec("o", INTENT, CAPACITY), 1)
        self.cursors = Region.create(self.directory, cursor_spec("c", 2), 1)
        self.inherit()
        self.readers = [
            RingReader(self.region, INTENT, self.cursors.words, cursor_at(n), batch=5 + n) for n in range(2)
        ]
        self.published = 0
        self.at = [0, 0]

    @rule()
    def inherit(self) -> None:
        gates = tuple(Gate(self.cursors.words, cursor_at(n)) for n in range(2))
        self.writer = RingWriter(self.region, INTENT, gates)

    @rule(count=st.integers(1, CAPACITY + 2))
    def publish(self, count: int) -> None:
        batch = np.zeros(count, INTENT)
        batch["intent_id"] = np.arange(self.published, self.published + count)
        if self.published + count - min(self.at) > CAPACITY:
            with pytest.raises(RingFull, match=f"o is full: {CAPACITY} records"):
                self.writer.publish(batch)
            assert self.writer.tail == self.published
        else:
            self.writer.publish(batch)
            self.published += count

    @rule(n=st.integers(0, 1))
    def poll(self, n: int) -> None:
        got = self.readers[n].poll()
        assert got["intent_id"].tolist() == list(range(self.at[n], self.at[n] + len(got)))
        assert len(got) == min(self.published - self.at[n], 5 + n)
        self.at[n] += len(got)

    @invariant()
    def nothing_is_lost_and_room_is_what_is_left(self) -> None:
        assert [r.lost for r in self.readers] == [0, 0]
        assert self.writer.room() == CAPACITY - (self.published - min(self.at))
        assert check_ring(self.region) == []


class Latest(InMemory):
    """Two cells whose writer may die while it writes one."""

    def __init__(self) -> None:
        super().__init__()
        self.region = Region.create(self.directory, cell_spec("l", LEASE, 2), 1)
        self.writer = CellWriter(self.region, LEASE)
        self.reader = CellReader(Region.attach(self.directory, self.region.spec), LEASE)
        self.now, self.seen, self.torn = [0, 0], [0, 0], [False, False]
        self.count = 0

    @rule(n=st.integers(0, 1))
    def publish(self, n: int) -> None:
        self.count += 1
        self.writer.value[n]["epoch"] = self.writer.value[n]["fence"] = self.count
        self.writer.publish(n)
        self.now[n], self.torn[n] = self.count, False

    @rule(n=st.integers(0, 1))
    def read(self, n: int) -> None:
        value = self.reader.read(n)
        assert bool(self.reader.torn[n]) == self.torn[n]
        if not self.torn[n]:
            self.seen[n] = self.now[n]
        assert (int(value["epoch"]), int(value["fence"])) == (self.seen[n], self.seen[n])

    @precondition(lambda self: not any(self.torn))
    @rule(n=st.integers(0, 1))
    def die_while_writing(self, n: int) -> None:
        at = SLOTS + n * 8
        self.region.words[at] |= 1
        self.region.words[at + 1] = 0x0BAD
        self.torn[n] = True
        assert "torn" in check_cells(self.region)[0]

    @rule()
    def inherit(self) -> None:
        self.writer = CellWriter(self.region, LEASE)
        for n in range(2):
            if not self.torn[n]:
                assert int(self.writer.value[n]["epoch"]) == self.now[n]

    @invariant()
    def sound_unless_torn(self) -> None:
        assert len(check_cells(self.region)) == sum(self.torn)


TestBroadcast, TestGated, TestLatest = Broadcast.TestCase, Gated.TestCase, Latest.TestCase
TestBroadcast.settings = TestGated.settings = TestLatest.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None
)
