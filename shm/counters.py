"""Shared counters and latency histograms: written by one service, readable by any process at any time.

A histogram is HDR-like: values below 32 have their own bucket, above that every power of two is split into 32 buckets
(error below 3.2 %), up to 2^40 ns (18 minutes); larger values fall into the last bucket.

Invariants
1. One writer per region; each word is read and written whole, so a reader sees every count at most late, never torn.
2. Buckets are never negative and only rise; a histogram's total is the number of records.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shm.atomics import load_relaxed, store_relaxed
from shm.jit import kernel
from shm.kernels import SLOTS
from shm.region import Region, RegionKind, RegionSpec, Words

SUB_BITS = 5
SUB = 1 << SUB_BITS
MAX_BITS = 40
BUCKETS = SUB * (MAX_BITS - SUB_BITS + 1)


def counter_spec(name: str, counters: int, histograms: int) -> RegionSpec:
    """Region of ``counters`` words followed by ``histograms`` × BUCKETS words."""
    words = counters + histograms * BUCKETS
    return RegionSpec(name, RegionKind.COUNTER, counters, words, 1, (SLOTS + words) * 8)


@kernel("int64(int64)")
def bucket_of(value):  # type: ignore[no-untyped-def]
    """Bucket index of a non-negative value."""
    if value < SUB:
        return max(value, 0)
    bits = 0
    v = value >> SUB_BITS
    while v > 0:
        v >>= 1
        bits += 1
    if bits + SUB_BITS > MAX_BITS:
        return BUCKETS - 1
    return bits * SUB + ((value >> (bits - 1)) & (SUB - 1))


@kernel("void(int64[::1], int64, int64)")
def histogram_record(words, at, value):  # type: ignore[no-untyped-def]
    """Count ``value`` in the histogram that begins at word ``at``."""
    b = at + bucket_of(value)
    store_relaxed(words, b, load_relaxed(words, b) + 1)


@kernel("void(int64[::1], int64, int64)")
def counter_add(words, at, value):  # type: ignore[no-untyped-def]
    store_relaxed(words, at, load_relaxed(words, at) + value)


def bucket_low(bucket: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Lowest value of each bucket."""
    group, sub = bucket // SUB, bucket % SUB
    shift = np.maximum(group - 1, 0)
    return np.where(group == 0, sub, (sub + SUB) << shift)


def percentiles(counts: npt.NDArray[np.int64], at: tuple[float, ...] = (50.0, 90.0, 99.0, 99.9)) -> list[float]:
    """Values at the percentiles of one histogram (lower bucket edges, ns); NaN when it is empty."""
    total = int(counts.sum())
    if total == 0:
        return [float("nan")] * len(at)
    edges = bucket_low(np.arange(BUCKETS, dtype=np.int64))
    cumulative = np.cumsum(counts)
    return [float(edges[int(np.searchsorted(cumulative, total * p / 100.0))]) for p in at]


class Counters:
    """Named counters and histograms of one service, in a region."""

    def __init__(self, region: Region, counters: tuple[str, ...], histograms: tuple[str, ...]) -> None:
        self.counters = counters
        self.histograms = histograms
        self._words = region.words
        self._counter_at = {name: SLOTS + i for i, name in enumerate(counters)}
        self._histogram_at = {name: SLOTS + len(counters) + i * BUCKETS for i, name in enumerate(histograms)}

    @property
    def words(self) -> Words:
        """The whole region, for kernels that count by themselves."""
        return self._words

    def counter_word(self, name: str) -> int:
        """Word of a counter."""
        return self._counter_at[name]

    def histogram_word(self, name: str) -> int:
        """Word at which a histogram begins."""
        return self._histogram_at[name]

    def add(self, name: str, value: int = 1) -> None:
        counter_add(self._words, self._counter_at[name], value)

    def set(self, name: str, value: int) -> None:
        self._words[self._counter_at[name]] = value

    def record(self, name: str, value_ns: int) -> None:
        histogram_record(self._words, self._histogram_at[name], value_ns)

    def get(self, name: str) -> int:
        return int(self._words[self._counter_at[name]])

    def histogram(self, name: str) -> npt.NDArray[np.int64]:
        at = self._histogram_at[name]
        return self._words[at : at + BUCKETS].copy()


def check_counters(region: Region, counters: int, histograms: int) -> list[str]:
    """Every broken invariant of a metrics region, in words: its size, and no bucket below zero."""
    broken = []
    want = (SLOTS + counters + histograms * BUCKETS) * 8
    if region.words.nbytes != want:
        broken.append(f"{region.spec.name}: {region.words.nbytes} bytes for {counters} + {histograms}, not {want}")
        return broken
    buckets = np.array(region.words[SLOTS + counters :]).reshape(histograms, BUCKETS)
    for h, b in np.argwhere(buckets < 0)[:3]:
        broken.append(f"{region.spec.name}: bucket {b} of histogram {h} counts {buckets[h, b]}")
    return broken
