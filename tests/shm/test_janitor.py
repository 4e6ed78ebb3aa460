from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shm import janitor
from shm.errors import RegionReplaced
from shm.layouts import TICK
from shm.region import H_BOOT, Region
from shm.ring import RingWriter, ring_spec


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        return process.pid


def instance(root: Path, name: str, *, boot: int | None = None) -> Region:
    directory = root / f"l2dash-{name}"
    directory.mkdir()
    region = Region.create(directory, ring_spec("r", TICK, 8), 1)
    if boot is not None:
        region.words[H_BOOT] = boot
    return region


def test_regions_of_an_earlier_boot_are_removed_whatever_their_pids_say(shm_dir: Path) -> None:
    old, mine = instance(shm_dir, "old", boot=4711), instance(shm_dir, "mine")
    RingWriter(old, TICK)  # its pid lives: this very process
    assert janitor.of_dead_boot(old.path.parent)
    assert [left.path for left in janitor.sweep(shm_dir)] == [old.path.parent]
    assert not old.path.parent.exists()
    assert mine.path.exists()
    assert janitor.leftovers(shm_dir) == []


def test_a_crashed_instance_of_this_boot_keeps_its_regions(shm_dir: Path) -> None:
    region = instance(shm_dir, "crashed")
    region.words[16], region.words[17] = dead_pid(), 1
    assert janitor.sweep(shm_dir) == []
    assert region.path.exists()


def test_a_file_whose_creator_died_before_finishing_it_is_removed_and_a_living_ones_is_not(shm_dir: Path) -> None:
    directory = instance(shm_dir, "x").path.parent
    orphan, busy = directory / f".ticks.{dead_pid()}", directory / f".signals.{os.getpid()}"
    orphan.touch()
    busy.touch()
    (left,) = janitor.leftovers(shm_dir)
    assert left.path == orphan
    assert "never finished, its creator" in left.why
    janitor.sweep(shm_dir)
    assert not orphan.exists()
    assert busy.exists()


def test_foreign_directories_files_and_links_are_left_alone(shm_dir: Path) -> None:
    (shm_dir / "l2dash-file").write_bytes(b"x" * 8192)
    (shm_dir / "other").mkdir()
    Region.create(shm_dir / "other", ring_spec("r", TICK, 8), 1).words[H_BOOT] = 4711
    (shm_dir / "l2dash-link").symlink_to(shm_dir / "other")
    (shm_dir / "l2dash-foreign").mkdir()
    (shm_dir / "l2dash-foreign" / "r").write_bytes(b"y" * 8192)
    assert janitor.sweep(shm_dir) == []


def test_whoever_maps_a_removed_instance_learns_it(shm_dir: Path) -> None:
    region = instance(shm_dir, "gone")
    reader = Region.attach(region.path.parent, region.spec)
    reader.verify_generation()
    janitor.remove(region.path.parent)
    assert not region.path.parent.exists()
    with pytest.raises(RegionReplaced, match="region r was removed; this process mapped generation 1"):
        reader.verify_generation()
    with pytest.raises(RegionReplaced, match="region r was removed from"):
        RingWriter(region, TICK)
