"""Marks from book cells: the compiled form against the rule in words, and what a reader knows without reading."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from engine import topology
from engine.risk.marks import mark
from engine.risk.pretrade import SYMBOL_FACTS
from engine.runtime.testing import instance
from shm.kernels import SLOTS
from shm.layouts import BOOK

NOW, LEAST, FACTOR = 100_000_000_000, 5e9, 20.0


@pytest.mark.parametrize(
    ("mid", "valid", "age_s", "gap_s", "wanted"),
    [
        (100.0, 1, 1.0, math.nan, (100.0, 1)),
        (100.0, 0, 1.0, math.nan, (100.0, 0)),
        (100.0, 1, 6.0, math.nan, (100.0, 0)),
        (100.0, 1, 6.0, 0.1, (100.0, 0)),  # twenty times the gap is less than the least
        (100.0, 1, 6.0, 1.0, (100.0, 1)),
        (100.0, 1, 21.0, 1.0, (100.0, 0)),
        (0.0, 1, 1.0, math.nan, (math.nan, 1)),
        (math.nan, 1, 1.0, math.nan, (math.nan, 1)),
    ],
)
def test_a_mark_is_the_mid_of_a_book_that_is_valid_and_young_enough(
    tmp_path: Path, mid: float, valid: int, age_s: float, gap_s: float, wanted: tuple[float, int]
) -> None:
    with instance(tmp_path) as world:
        writer = world.context(topology.ML).cell_writer("book")
        reader = world.context(topology.BRIDGE).cell_reader("book")
        facts, book = np.zeros(3, SYMBOL_FACTS), np.zeros(1, BOOK)
        facts["tradable"] = 1, 1, 0
        facts["mid"] = 7.0
        b = writer.value[1]
        b["mid"], b["valid"], b["gap_median_ns"], b["t_socket_ns"] = mid, valid, gap_s * 1e9, NOW - int(age_s * 1e9)
        writer.publish(1)
        mark(facts, reader.words, book, book.view(np.int64), 1, 3, NOW, LEAST, FACTOR)
        np.testing.assert_equal((float(facts[1]["mid"]), int(facts[1]["fresh"])), wanted)
        assert [float(f["mid"]) for f in facts[[0, 2]]] == [7.0, 7.0], "not asked for; not tradable"
        # A writer that died while writing: the last mid stays, and nobody may call it fresh.
        facts["fresh"], words = 1, writer.words
        words[SLOTS + BOOK.itemsize // 8] |= 1
        mark(facts, reader.words, book, book.view(np.int64), 1, 2, NOW, LEAST, FACTOR)
        np.testing.assert_equal((float(facts[1]["mid"]), int(facts[1]["fresh"])), (wanted[0], 0))


def test_a_reader_knows_without_reading_that_a_cell_was_written(tmp_path: Path) -> None:
    with instance(tmp_path) as world:
        writer = world.context(topology.WATCHDOG).cell_writer("lease")
        reader = world.context(topology.BRIDGE).cell_reader("lease")
        writer.publish()
        assert reader.moved()
        reader.read()
        assert not reader.moved()
        writer.publish()
        assert reader.moved()
        reader.read()
        writer.words[SLOTS] |= 1  # its writer dies while writing
        reader.read()
        assert reader.torn[0]
        assert reader.moved(), "torn is looked at again and again"
