from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from shm import wait
from shm.layouts import TICK
from shm.region import Region
from shm.ring import RingWriter, cursor_at, cursor_spec, ring_spec
from shm.wait import AWAKE, FUTEX, STRATEGIES, Sleep, Strategy, Waiter, Waker, announce, tail_address, wake_all

LONG_S = 60.0
"""A lost wake-up would take this long; the tests' own time-out is longer and their asserts tell."""


class Pair:
    """A ring with its writer, and a reader's read-only mapping and sleep word."""

    def __init__(self, directory: Path, name: str = "r") -> None:
        region = Region.create(directory, ring_spec(name, TICK, 16), 1)
        self.writer = RingWriter(region, TICK)
        self.ring = Region.attach(directory, region.spec)
        self.cursors = Region.create(directory, cursor_spec(f"{name}.c", 2), 1)
        self.at = cursor_at(1)
        self.waker = Waker(region.words, Region.attach(directory, self.cursors.spec).words, self.at)

    def waiter(self, strategy: Strategy, spins: int = 10) -> Waiter:
        return Waiter(self.ring.words, self.cursors.words, self.at, strategy, spins=spins)

    def asleep(self) -> bool:
        return int(self.cursors.words[self.at]) == FUTEX


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_blocked_reader_wakes_on_publish(shm_dir: Path, strategy: Strategy) -> None:
    pair, found = Pair(shm_dir), []
    reader = threading.Thread(target=lambda: found.append(pair.waiter(strategy).wait(0, LONG_S)))
    reader.start()
    while strategy == "spin-then-futex" and not pair.asleep():
        time.sleep(0.001)
    begun = time.monotonic()
    pair.writer.publish_record()
    pair.waker.wake()
    reader.join()
    assert found == [True]
    assert time.monotonic() - begun < LONG_S / 2
    assert int(pair.cursors.words[pair.at]) == AWAKE


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_waiting_ends_at_its_bound_and_says_that_nothing_came(shm_dir: Path, strategy: Strategy) -> None:
    assert not Pair(shm_dir).waiter(strategy).wait(0, 0.01)


def test_a_writer_makes_no_system_call_while_the_reader_is_awake(
    shm_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, calls = Pair(shm_dir), []
    monkeypatch.setattr(wait, "wake_all", calls.append)
    pair.writer.publish_record()
    assert not pair.waker.wake()
    assert calls == []
    announce(pair.cursors.words, pair.at, FUTEX)
    assert pair.waker.wake()
    assert calls == [tail_address(pair.writer._region.words)]


def test_a_record_published_just_before_the_sleep_ends_it_at_once(shm_dir: Path) -> None:
    pair = Pair(shm_dir)
    sleep = Sleep((pair.ring.words,))
    sleep.remember()
    pair.writer.publish_record()  # nobody wakes: the kernel must see that the tail is another
    begun = time.monotonic()
    sleep.sleep(LONG_S)
    assert time.monotonic() - begun < LONG_S / 2


@pytest.mark.parametrize("published", [0, 1])
def test_a_sleeper_on_several_rings_is_woken_through_any_of_them(shm_dir: Path, published: int) -> None:
    pairs = [Pair(shm_dir, "a"), Pair(shm_dir, "b")]
    sleep = Sleep([p.ring.words for p in pairs])
    sleep.remember()
    begun = time.monotonic()
    thread = threading.Thread(target=sleep.sleep, args=(LONG_S,))
    thread.start()
    while not wake_all(tail_address(pairs[published].ring.words)) and thread.is_alive():
        time.sleep(0.001)  # until it really sleeps
    thread.join()
    pairs[published].writer.publish_record()
    sleep.sleep(LONG_S)  # the tail is no longer the remembered one
    assert time.monotonic() - begun < LONG_S / 2


def test_a_thousand_records_reach_a_sleeper_that_nobody_need_wake_twice(shm_dir: Path) -> None:
    """Publishing and falling asleep race here in earnest; a lost wake-up costs a minute."""
    pair, got = Pair(shm_dir), []

    def read() -> None:
        waiter, position = pair.waiter("spin-then-futex", spins=1), 0
        while position < 1_000 and waiter.wait(position, LONG_S):
            position += 1
            got.append(position)
            pair.cursors.words[cursor_at(0)] = position

    reader = threading.Thread(target=read)
    begun = time.monotonic()
    reader.start()
    for n in range(1_000):
        while int(pair.cursors.words[cursor_at(0)]) < n:
            time.sleep(0)
        pair.writer.publish_record()
        pair.waker.wake()
    reader.join()
    assert got == list(range(1, 1_001))
    assert time.monotonic() - begun < LONG_S


def test_an_unknown_strategy_and_a_sleep_on_nothing_are_refused() -> None:
    words = np.zeros(1024, np.int64)
    with pytest.raises(ValueError, match="no wait strategy 'nap': there are busy-spin, spin-then-yield"):
        Waiter(words, words, 0, "nap")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 to 128 rings, not for 0"):
        Sleep(())
