"""Cells: the latest value of one record, published by seqlock. One writer; readers never block it.

Invariants: 7 and 8 of ``shm.kernels``. A reader retries a bounded number of times. A cell that stays odd belongs to a
writer that died (or was stopped) while writing: that is reported as ``torn``, the last good value stays in the reader's
buffer, and the next writer repairs it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from shm import kernels, lines
from shm.kernels import SLOTS
from shm.layouts import CACHE_LINE, dtype_hash
from shm.region import Region, RegionKind, RegionSpec, Words

RETRIES = 10_000
"""About 100 µs for a small cell: longer than any write takes, short enough for a hot reader to give up."""


def cell_spec(name: str, dtype: np.dtype[np.void], count: int = 1) -> RegionSpec:
    """Region of ``count`` cells of ``dtype``."""
    if dtype.itemsize % CACHE_LINE or not dtype.itemsize:
        raise ValueError(f"cell {name}: record of {dtype.itemsize} bytes is not whole cache lines of {CACHE_LINE}")
    words = dtype.itemsize // 8
    return RegionSpec(name, RegionKind.CELL, dtype_hash(dtype), count, words, (SLOTS + count * words) * 8)


class CellWriter:
    """The one writer of a region of cells. Fill ``value[i]`` and ``publish(i)``."""

    def __init__(self, region: Region, dtype: np.dtype[np.void]) -> None:
        region.expect(RegionKind.CELL, dtype)
        self.count = region.spec.capacity
        self._region = region
        self._words = dtype.itemsize // 8
        self.incarnation = region.take_writer()
        self.value: npt.NDArray[np.void] = lines.zeros(self.count, dtype)
        self._flat = self.value.view(np.int64).reshape(self.count, self._words)
        out = lines.zeros(self._words, np.int64)
        for i in range(self.count):  # continue from the predecessor's values
            if kernels.cell_read(region.words, self._at(i), out, RETRIES) > 0:
                self._flat[i] = out

    @property
    def words(self) -> Words:
        """The whole region, for kernels that publish by themselves."""
        return self._region.words

    def _at(self, index: int) -> int:
        return SLOTS + index * self._words

    def publish(self, index: int = 0) -> None:
        kernels.cell_write(self._region.words, self._at(index), self._flat[index])


class CellReader:
    """A reader of a region of cells. ``read(i)`` refreshes and returns ``value[i]``."""

    def __init__(self, region: Region, dtype: np.dtype[np.void]) -> None:
        region.expect(RegionKind.CELL, dtype)
        self.count = region.spec.capacity
        self._region = region
        self._words = dtype.itemsize // 8
        self.value: npt.NDArray[np.void] = lines.zeros(self.count, dtype)
        self.version: npt.NDArray[np.int64] = np.zeros(self.count, np.int64)
        """Even version of each cell as last read: 0 never written."""
        self.torn: npt.NDArray[np.bool_] = np.zeros(self.count, np.bool_)
        """The last read of this cell gave up: its writer died or hangs while writing; ``value`` is the previous one."""
        self._flat = self.value.view(np.int64).reshape(self.count, self._words)
        self._out = lines.zeros(self._words, np.int64)

    def read(self, index: int = 0) -> np.void:
        at = SLOTS + index * self._words
        version = int(kernels.cell_read(self._region.words, at, self._out, RETRIES))
        if version == kernels.TORN:
            self.torn[index] = True
        else:
            self.torn[index] = False
            if version != self.version[index]:
                self._flat[index] = self._out
                self.version[index] = version
        result: np.void = self.value[index]
        return result

    def moved(self, index: int = 0) -> bool:
        """Has it been written since it was read last, or could it not be read then?"""
        at = SLOTS + index * self._words
        return bool(self.torn[index] or kernels.word_load(self._region.words, at) != self.version[index])

    @property
    def words(self) -> Words:
        """The whole region, for kernels that read by themselves."""
        return self._region.words

    def read_all(self) -> npt.NDArray[np.void]:
        for i in range(self.count):
            self.read(i)
        return self.value

    @property
    def writer_alive(self) -> bool:
        return self._region.writer_alive


def check_cells(region: Region) -> list[str]:
    """Every broken invariant of a region of cells at rest, in words; a cell left torn by a dead writer is one."""
    words, broken = region.words, []
    for i in range(region.spec.capacity):
        at = SLOTS + i * region.spec.words
        version = int(words[at])
        if version < 0:
            broken.append(f"{region.spec.name}[{i}]: version {version} is negative")
        elif version & 1:
            broken.append(f"{region.spec.name}[{i}]: torn, version {version} was left odd")
    return broken
