"""Real processes, real kills: checksummed records, zero tears, zero unreported losses."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shm.layouts import TICK
from shm.region import Region
from shm.ring import check_ring, cursor_spec, ring_spec

SCRIPT = str(Path(__file__).with_name("torture.py"))


def start(role: str, directory: Path, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, SCRIPT, role, str(directory), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def torture(directory: Path, count: int, kills: int, seed: int, pause_s: float) -> tuple[int, int]:
    """Run writer and reader to ``count`` records, killing or stopping the writer ``kills`` times at random moments."""
    rng = random.Random(seed)
    region = Region.create(directory, ring_spec("ring", TICK, 1024), 1)
    Region.create(directory, cursor_spec("cursors", 1), 1)
    reader, writer = start("read", directory, count), start("write", directory, count)
    try:
        for _ in range(kills):
            while region.writer_pid != writer.pid and writer.poll() is None:
                time.sleep(0.001)  # still starting: a kill now would hit nothing
            time.sleep(rng.uniform(0.0, pause_s))
            if writer.poll() is not None:
                break
            if rng.random() < 0.5:
                writer.send_signal(signal.SIGSTOP)
                time.sleep(rng.uniform(0.0, 0.05))
            writer.kill()
            writer.wait()
            assert check_ring(region) == [], f"seed {seed}"
            writer = start("write", directory, count)
        out, _ = reader.communicate(timeout=600)
        assert reader.returncode == 0, f"seed {seed}: {out}"
        seen, lost = map(int, out.split())
        return seen, lost
    finally:
        for process in (reader, writer):
            process.kill()
            process.wait()


def test_killed_and_stopped_writers_leave_no_tear_and_no_unreported_loss(shm_dir: Path) -> None:
    count = 5_000_000
    seen, lost = torture(shm_dir, count, kills=6, seed=1, pause_s=0.1)
    assert int(Region.attach(shm_dir, ring_spec("ring", TICK, 1024)).words[18]) >= 4  # writers that really wrote
    assert seen + lost == count
    assert seen > 0


@pytest.mark.stress
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
def test_long_torture(shm_dir: Path, seed: int) -> None:
    count = 20_000_000
    seen, lost = torture(shm_dir, count, kills=10, seed=seed, pause_s=0.4)
    assert seen + lost == count
