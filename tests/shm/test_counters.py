from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shm.counters import BUCKETS, Counters, bucket_low, bucket_of, check_counters, counter_spec, percentiles
from shm.region import Region

EDGES = bucket_low(np.arange(BUCKETS, dtype=np.int64))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**40 - 1))
def test_a_bucket_holds_its_value_within_three_percent(value: int) -> None:
    bucket = int(bucket_of(value))
    assert bucket == int(bucket_of.py_func(value))
    assert EDGES[bucket] <= value
    assert value < EDGES[bucket] * 1.0323 + 1


def test_out_of_range_values_are_kept_at_the_ends() -> None:
    assert bucket_of(-5) == 0
    assert bucket_of(2**62) == BUCKETS - 1


def test_counts_and_percentiles_are_seen_by_another_mapping(shm_dir: Path) -> None:
    spec = counter_spec("m", 2, 2)
    mine = Counters(Region.create(shm_dir, spec, 1), ("a", "b"), ("h", "k"))
    theirs = Counters(Region.attach(shm_dir, spec), ("a", "b"), ("h", "k"))
    for value in range(1, 1001):
        mine.record("k", value * 1000)
    mine.add("b", 3)
    mine.add("b", 4)
    assert theirs.get("b") == 7
    assert theirs.histogram("h").sum() == 0
    p50, _, p99, _ = percentiles(theirs.histogram("k"))
    assert abs(p50 - 500_000) < 0.04 * 500_000
    assert abs(p99 - 990_000) < 0.04 * 990_000
    assert np.isnan(percentiles(theirs.histogram("h"))).all()


def test_check_finds_a_bucket_below_zero_and_a_region_of_another_size(shm_dir: Path) -> None:
    region = Region.create(shm_dir, counter_spec("m", 2, 2), 1)
    mine = Counters(region, ("a", "b"), ("h", "k"))
    mine.record("k", 1000)
    assert check_counters(region, 2, 2) == []
    assert "not" in check_counters(region, 2, 3)[0]
    region.words[mine.histogram_word("k") + 7] = -1
    assert check_counters(region, 2, 2) == ["m: bucket 7 of histogram 1 counts -1"]
