from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from shm import layouts
from shm.errors import RegionExists, RegionForeign, RegionFull, RegionMismatch, RegionMissing, WriterTaken
from shm.layouts import TICK
from shm.region import Region
from shm.ring import RingWriter, ring_spec


def test_layout_sizes_and_offsets_are_frozen() -> None:
    layouts.check()
    golden = {"t_socket_ns": 8, "symbol": 24, "kind": 26, "flags": 30, "price": 32, "t_exchange_ns": 56}
    assert {name: TICK.fields[name][1] for name in golden} == golden  # type: ignore[index]


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
        with pytest.raises(WriterTaken, match=f"pid {other.pid}"):
            RingWriter(region, TICK)
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
