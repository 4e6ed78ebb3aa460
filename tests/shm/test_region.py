from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shm.cell import CellReader, cell_spec
from shm.errors import RegionExists, RegionForeign, RegionFull, RegionMismatch, RegionMissing, WriterTaken
from shm.layouts import LAYOUT_VERSION, LEASE, SIGNAL, TICK, dtype_hash
from shm.region import RETIRED, Region, RegionKind, check_region, process_name
from shm.ring import RingReader, RingWriter, ring_spec


def test_regions_are_private_to_their_owner(shm_dir: Path) -> None:
    region = Region.create(shm_dir, ring_spec("r", TICK, 8), 1)
    assert stat.S_IMODE(region.path.stat().st_mode) == 0o600


def test_creating_twice_is_refused_by_name(shm_dir: Path) -> None:
    Region.create(shm_dir, ring_spec("r", TICK, 8), 1)
    with pytest.raises(RegionExists, match="region r"):
        Region.create(shm_dir, ring_spec("r", TICK, 8), 1)


def test_missing_region_says_what_to_do(shm_dir: Path) -> None:
    with pytest.raises(RegionMissing, match="l2dash up"):
        Region.attach(shm_dir, ring_spec("r", TICK, 8))


@pytest.mark.parametrize(("word", "field"), [(1, "layout version"), (2, "kind"), (3, "dtype hash"), (9, "boot id")])
def test_attach_names_the_field_and_both_values(shm_dir: Path, word: int, field: str) -> None:
    region = Region.create(shm_dir, ring_spec("r", TICK, 8), 1)
    expected = int(region.words[word])
    region.words[word] = 4711
    with pytest.raises(RegionMismatch, match=f"{field} is 4711, this program expects {expected}"):
        Region.attach(shm_dir, ring_spec("r", TICK, 8))


def test_other_capacity_is_refused(shm_dir: Path) -> None:
    Region.create(shm_dir, ring_spec("r", TICK, 8), 1)
    with pytest.raises(RegionMismatch, match="capacity is 8, this program expects 16"):
        Region.attach(shm_dir, ring_spec("r", TICK, 16))


def test_foreign_and_truncated_files_are_refused(shm_dir: Path) -> None:
    (shm_dir / "r").write_bytes(b"x" * 10)
    with pytest.raises(RegionForeign, match="10 bytes"):
        Region.attach(shm_dir, ring_spec("r", TICK, 8))
    (shm_dir / "r").write_bytes(b"x" * 8192)
    with pytest.raises(RegionForeign, match="not one of ours"):
        Region.attach(shm_dir, ring_spec("r", TICK, 8))
    Region.create(shm_dir, ring_spec("t", TICK, 8), 1)
    os.truncate(shm_dir / "t", 4096)
    with pytest.raises(RegionMismatch, match="truncated"):
        Region.attach(shm_dir, ring_spec("t", TICK, 8))


def test_no_room_is_an_error_at_creation_and_leaves_nothing(shm_dir: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(RegionFull, match="no room for region r"):
            Region.create(shm_dir, ring_spec("r", TICK, 1024), 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert list(shm_dir.iterdir()) == []


def test_second_living_writer_is_refused_with_the_pid_of_the_first(shm_dir: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from shm.region import Region\nfrom shm.ring import RingWriter, ring_spec\nfrom shm.layouts import TICK\n"
        "r = Region.attach(pathlib.Path(sys.argv[1]), ring_spec('r', TICK, 8), writable=True)\n"
        "RingWriter(r, TICK); print('ok', flush=True); sys.stdin.read()\n"
    )
    region = Region.create(shm_dir, ring_spec("r", TICK, 8), 1)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(shm_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "ok"
        name = process_name(other.pid)
        assert name not in ("", "?")
        with pytest.raises(WriterTaken, match=f"has a living writer, {name} with pid {other.pid}") as refused:
            RingWriter(region, TICK)
        assert f"pid {os.getpid()}) may not write" in str(refused.value)
        other.kill()
        other.wait()
    assert RingWriter(region, TICK).incarnation == 2


def test_a_write_through_a_read_only_mapping_faults(shm_dir: Path) -> None:
    Region.create(shm_dir, ring_spec("r", TICK, 8), 1)
    code = (
        "import sys, pathlib\nfrom shm.region import Region\n"
        "from shm.ring import ring_spec\nfrom shm.layouts import TICK\n"
        "r = Region.attach(pathlib.Path(sys.argv[1]), ring_spec('r', TICK, 8))\nr.words[100] = 1\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(shm_dir)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGSEGV


@pytest.mark.parametrize("found", [LAYOUT_VERSION - 1, LAYOUT_VERSION + 1], ids=["older", "newer"])
def test_older_and_newer_regions_are_refused_with_both_versions(shm_dir: Path, found: int) -> None:
    region = Region.create(shm_dir, ring_spec("r", TICK, 8), 1)
    region.words[1] = found
    with pytest.raises(RegionMismatch, match=f"layout version is {found}, this program expects {LAYOUT_VERSION}"):
        Region.attach(shm_dir, ring_spec("r", TICK, 8))


def test_a_ring_of_other_records_is_refused_with_both_hashes(shm_dir: Path) -> None:
    region = Region.create(shm_dir, ring_spec("r", TICK, 8), 1)
    both = f"dtype hash is {dtype_hash(TICK)}, this program expects {dtype_hash(SIGNAL)}"
    with pytest.raises(RegionMismatch, match=both):
        Region.attach(shm_dir, ring_spec("r", SIGNAL, 8))
    for side in (lambda: RingWriter(region, SIGNAL), lambda: RingReader(region, SIGNAL, np.zeros(8, np.int64), 0)):
        with pytest.raises(RegionMismatch, match=f"hash {dtype_hash(TICK)} and 64 bytes, this program wants"):
            side()


def test_a_cell_is_no_ring(shm_dir: Path) -> None:
    cells = Region.create(shm_dir, cell_spec("l", LEASE), 1)
    ring = Region.create(shm_dir, ring_spec("r", TICK, 8), 1)
    with pytest.raises(RegionMismatch, match="region l is a CELL, this program wants a RING"):
        RingWriter(cells, LEASE)
    with pytest.raises(RegionMismatch, match="region r is a RING, this program wants a CELL"):
        CellReader(ring, TICK)


def test_of_two_heirs_that_come_at_once_one_is_refused(shm_dir: Path) -> None:
    """Many times over: two processes take the place of a dead writer at the same moment."""
    code = (
        "import sys, pathlib\n"
        "from shm.region import Region\nfrom shm.errors import WriterTaken\n"
        "from shm.ring import ring_spec\nfrom shm.layouts import TICK\n"
        "d = pathlib.Path(sys.argv[1])\n"
        "for n in range(40):\n"
        "    r = Region.attach(d, ring_spec(f'r{n}', TICK, 8), writable=True)\n"
        "    print('ready', flush=True); sys.stdin.readline()\n"
        "    try: r.take_writer(); print('mine', flush=True)\n"
        "    except WriterTaken: print('taken', flush=True)\n"
    )
    for n in range(40):
        Region.create(shm_dir, ring_spec(f"r{n}", TICK, 8), 1).close()
    command = [sys.executable, "-c", code, str(shm_dir)]
    heirs = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for _ in range(40):
            assert [h.stdout.readline().strip() for h in heirs] == ["ready"] * 2  # type: ignore[union-attr]
            for h in heirs:
                h.stdin.write("\n")  # type: ignore[union-attr]
                h.stdin.flush()  # type: ignore[union-attr]
            assert sorted(h.stdout.readline().strip() for h in heirs) == ["mine", "taken"]  # type: ignore[union-attr]
    finally:
        for h in heirs:
            h.kill()
            h.communicate()


def test_check_names_every_header_word_that_is_wrong(shm_dir: Path) -> None:
    region = Region.create(shm_dir, ring_spec("r", TICK, 8), 3)
    assert check_region(region) == []
    region.words[4], region.words[16] = 99, 1
    region.path.chmod(0o644)
    assert check_region(region) == [
        "r: capacity is 99, not 8", "r: writer pid 1 with incarnation 0", "r: mode 644, not 600",
    ]  # fmt: skip
    region.retire()
    assert f"r: generation is {RETIRED}, not 3" in check_region(region)
    assert region.spec.kind is RegionKind.RING
