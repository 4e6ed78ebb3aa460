"""Small real file systems in a mount namespace of their own: huge pages, locked pages, full and read-only ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shm import memory
from shm.layouts import TICK
from shm.region import Region
from shm.ring import ring_spec

PRELUDE = """
import sys, pathlib
from shm import memory
from shm.errors import RegionFull, RegionReadOnly
from shm.layouts import TICK
from shm.region import Region
from shm.ring import ring_spec
d = pathlib.Path(sys.argv[1])
"""


def mounted(directory: Path, options: str, code: str, *, remount: str = "") -> str:
    """Run ``code`` where ``directory`` is a tmpfs of its own; nothing outside that process sees the mount."""
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("mounting a tmpfs needs root and unshare(1)")
    script = f"mount -t tmpfs -o {options} none {directory} && "
    if remount:
        script += f"'{sys.executable}' -c \"$2\" {directory} && mount -o remount,{remount} {directory} && "
    script += f"exec '{sys.executable}' -c \"$1\" {directory}"
    before = PRELUDE + "Region.create(d, ring_spec('old', TICK, 8), 1)\n"
    command = ["unshare", "-m", "sh", "-c", script, "sh", PRELUDE + code, before]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


TRY = """
try:
    {0}
except {1} as error:
    print(error, sorted(p.name for p in d.iterdir()))
"""


def test_a_full_file_system_is_an_error_with_both_sizes_and_leaves_nothing(tmp_path: Path) -> None:
    create = TRY.format("Region.create(d, ring_spec('r', TICK, 2**16), 1)", "RegionFull")
    said = mounted(tmp_path, "size=1m", create)
    assert f"no room for region r: {4096 + 64 * 2**16} bytes needed, " in said
    assert "free in" in said
    assert "No space left on device" in said
    assert said.strip().endswith("[]")


def test_a_read_only_file_system_is_a_named_error_for_creators_and_writers_and_none_for_readers(tmp_path: Path) -> None:
    code = TRY.format("Region.create(d, ring_spec('r', TICK, 8), 1)", "RegionReadOnly")
    code += TRY.format("Region.attach(d, ring_spec('old', TICK, 8), writable=True)", "RegionReadOnly")
    code += "print('read', Region.attach(d, ring_spec('old', TICK, 8)).generation)\n"
    said = mounted(tmp_path, "size=1m", code, remount="ro")
    assert f"region r can't be made in {tmp_path}: Read-only file system" in said
    assert f"region old in {tmp_path} can't be written: Read-only file system" in said
    assert "read 1" in said


def test_huge_pages_are_used_where_the_file_system_gives_them_and_reported_as_given(tmp_path: Path) -> None:
    code = "r = Region.create(d, ring_spec('r', TICK, 2**18), 1)\nr.words[4096::512] = 1\n"
    code += "print(memory.granted(d).huge, memory.trial(d).huge)\n"
    without = mounted(tmp_path, "size=64m,huge=never", code)
    assert without.split() == ["0", "0"]
    given, trial = map(int, mounted(tmp_path, "size=64m,huge=advise", code).split())
    if given == 0 and not Path("/sys/kernel/mm/transparent_hugepage/enabled").exists():
        pytest.skip("this kernel has no transparent huge pages")
    assert given >= 4 * memory.HUGE_PAGE
    assert trial >= memory.HUGE_PAGE


def test_locked_pages_are_read_back_from_the_kernel(shm_dir: Path) -> None:
    region = Region.create(shm_dir, ring_spec("r", TICK, 64), 1)
    assert memory.granted(shm_dir).locked == 0
    assert memory.granted(shm_dir).mapped == region.words.nbytes
    assert region.lock_pages() == ""
    assert memory.granted(shm_dir).locked == region.words.nbytes


def test_a_refused_lock_gives_the_kernels_reason(shm_dir: Path) -> None:
    """Without the capability and with no limit left; in a process of its own, which may then throw both away."""
    Region.create(shm_dir, ring_spec("r", TICK, 64), 1)
    code = PRELUDE + (
        "import os, resource\n"
        "r = Region.attach(d, ring_spec('r', TICK, 64))\n"
        "resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))\n"
        "os.setuid(65534) if os.getuid() == 0 else None\n"
        "print(r.lock_pages(), '|', memory.granted(d).locked)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(shm_dir)], capture_output=True, text=True, check=True)
    reason, locked = done.stdout.split("|")
    assert reason.strip() in ("Cannot allocate memory", "Operation not permitted")
    assert int(locked) == 0


def test_attached_pages_are_all_mapped_before_the_first_access(shm_dir: Path) -> None:
    spec = ring_spec("r", TICK, 2**14)
    Region.create(shm_dir, spec, 1).close()
    code = PRELUDE + "r = Region.attach(d, ring_spec('r', TICK, 2**14))\nprint(memory.granted(d).resident)\n"
    done = subprocess.run([sys.executable, "-c", code, str(shm_dir)], capture_output=True, text=True, check=True)
    assert int(done.stdout) == spec.bytes
