from __future__ import annotations

from pathlib import Path

import numpy as np

from shm import kernels
from shm.cell import CellReader, CellWriter, cell_spec
from shm.layouts import BOOK, LEASE
from shm.region import Region


def test_latest_value_wins_and_the_version_is_even(shm_dir: Path) -> None:
    region = Region.create(shm_dir, cell_spec("book", BOOK, 4), 1)
    writer = CellWriter(region, BOOK)
    reader = CellReader(Region.attach(shm_dir, region.spec), BOOK)
    assert reader.version[2] == 0
    for mid in (10.0, 11.0, 12.5):
        writer.value[2]["mid"] = mid
        writer.value[2]["bid_price"] = np.arange(10)
        writer.publish(2)
    value = reader.read(2)
    assert value["mid"] == 12.5
    assert value["bid_price"].tolist() == list(range(10))
    assert reader.version[2] == 6
    assert reader.read(1)["mid"] == 0.0


def test_cell_torn_by_death_is_reported_and_keeps_the_last_good_value(shm_dir: Path) -> None:
    region = Region.create(shm_dir, cell_spec("lease", LEASE), 1)
    writer = CellWriter(region, LEASE)
    writer.value[0]["epoch"] = 7
    writer.publish()
    reader = CellReader(region, LEASE)
    assert reader.read()["epoch"] == 7
    region.words[kernels.SLOTS] |= 1  # the writer died between its odd and its even store
    region.words[kernels.SLOTS + 1] = 99
    assert reader.read()["epoch"] == 7
    assert reader.torn[0]
    heir = CellWriter(region, LEASE)
    heir.value[0]["epoch"] = 8
    heir.publish()
    assert reader.read()["epoch"] == 8
    assert not reader.torn[0]


def test_heir_continues_from_the_predecessors_values(shm_dir: Path) -> None:
    region = Region.create(shm_dir, cell_spec("lease", LEASE), 1)
    first = CellWriter(region, LEASE)
    first.value[0]["epoch"] = 41
    first.publish()
    assert CellWriter(region, LEASE).value[0]["epoch"] == 41
