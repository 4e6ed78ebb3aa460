from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from shm import janitor, scratch
from shm.errors import RegionReplaced
from shm.layouts import TICK
from shm.owner import OWNER, own
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


MAKER = """
import os, pathlib, sys, time
from shm import scratch
from shm.layouts import TICK
from shm.region import Region
from shm.ring import RingWriter, ring_spec
run = scratch.make("l2dash-sim-", sys.argv[1])
(run / "deep").mkdir()
region = Region.create(run / "deep", ring_spec("r", TICK, 8), 1)
if sys.argv[2] == "writes":
    writer = RingWriter(region, TICK)
elif os.fork() == 0:  # what a run has started may outlive it
    writer = RingWriter(region, TICK)
    print(os.getpid(), run, flush=True)
    sys.stdin.read()
    os._exit(0)
if sys.argv[2] == "writes":
    print(os.getpid(), run, flush=True)
time.sleep(60)
"""


def run_for_once(root: Path, how: str) -> tuple[subprocess.Popen[str], int, Path]:
    command = [sys.executable, "-c", MAKER, str(root), how]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    writer, path = process.stdout.readline().split()
    return process, int(writer), Path(path)


ROOT = Path(__file__).resolve().parents[2]


def test_the_directory_of_a_run_that_was_killed_goes_when_the_next_one_is_made(shm_dir: Path) -> None:
    process, _, path = run_for_once(shm_dir, "writes")
    try:
        assert janitor.sweep(shm_dir) == [], "it runs"
    finally:
        process.kill()
        process.communicate()
    (left,) = janitor.leftovers(shm_dir)
    assert (left.path, left.why) == (path, f"of a run that was killed (pid {process.pid})")
    mine = scratch.make("l2dash-bench-", shm_dir)
    assert not path.exists()
    assert [p.name for p in mine.iterdir()] == [OWNER]
    assert janitor.leftovers(shm_dir) == []


def test_what_a_killed_run_has_started_keeps_its_regions_while_it_writes(shm_dir: Path) -> None:
    process, writer, path = run_for_once(shm_dir, "child writes")
    watcher = os.pidfd_open(writer)
    try:
        process.kill()
        process.wait()
        assert janitor.sweep(shm_dir) == []
        assert path.exists()
    finally:
        process.communicate()  # closes its standard input: the child ends
    assert select.select([watcher], [], [], 30.0)[0]
    os.close(watcher)
    assert [left.path for left in janitor.sweep(shm_dir)] == [path]


@pytest.mark.parametrize("words", ["", "nonsense", "12 x 3", "4711 1"])
def test_a_directory_whose_owner_cant_be_read_is_kept(shm_dir: Path, words: str) -> None:
    directory = instance(shm_dir, "odd").path.parent
    (directory / OWNER).write_text(words)
    assert janitor.sweep(shm_dir) == []
    assert directory.exists()


def test_an_owners_pid_that_another_process_has_now_is_a_dead_owner(shm_dir: Path) -> None:
    directory = instance(shm_dir, "old").path.parent
    own(directory)
    assert janitor.leftovers(shm_dir) == []
    words = (directory / OWNER).read_text().split()
    (directory / OWNER).write_text(f"{words[0]} {int(words[1]) - 1} {words[2]}")
    assert len(janitor.leftovers(shm_dir)) == 1
    (directory / OWNER).write_text(f"{words[0]} {words[1]} {int(words[2]) - 1}")
    assert len(janitor.leftovers(shm_dir)) == 1, "of another boot"
