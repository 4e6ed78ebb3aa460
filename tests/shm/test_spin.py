"""The order ring and the fencing between two senders, explored by Spin; and each wrong variant, which must fail."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

MODELS = Path(__file__).parent / "spin"

pytestmark = [
    pytest.mark.stress,
    pytest.mark.skipif(
        shutil.which("spin") is None or shutil.which("gcc") is None,
        reason="needs the Debian packages spin and gcc (./ops/test.sh --all installs them)",
    ),
]


def explore(directory: Path, model: str, *defines: str, live: str = "") -> tuple[int, str]:
    """Number of errors that an exhaustive search finds, and the first one's words. ``live``: a claim to check."""
    spin = ["spin", *(f"-D{d}" for d in defines), "-a", str(MODELS / f"{model}.pml")]
    subprocess.run(spin, cwd=directory, check=True, capture_output=True)
    options = ["-DNFAIR=3"] if live else ["-DSAFETY", "-DNOCLAIM"]
    subprocess.run(["gcc", "-O2", "-w", *options, "-o", "pan", "pan.c"], cwd=directory, check=True)
    search = ["./pan", "-m1000000", *(["-a", "-f", "-N", live] if live else [])]
    done = subprocess.run(search, cwd=directory, check=True, capture_output=True, text=True)
    assert "max search depth too small" not in done.stdout
    assert "out of memory" not in done.stdout
    found = re.search(r"errors: (\d+)", done.stdout)
    assert found, done.stdout
    first = re.search(r"pan:1: (.*)", done.stdout)
    return int(found[1]), first[1] if first else ""


def test_an_order_ring_is_whole_in_order_and_never_overwritten_over_deaths_of_both_sides(tmp_path: Path) -> None:
    assert explore(tmp_path, "order_ring") == (0, "")


def test_everything_is_taken_in_the_end(tmp_path: Path) -> None:
    assert explore(tmp_path, "order_ring", live="all_taken") == (0, "")


@pytest.mark.parametrize(
    ("wrong", "broken"),
    [
        ("NO_GATE", "n<(cursor+2)"),
        ("EARLY_CURSOR", "mark[(p%2)]==p"),
        ("NO_RECOVER", "written==n"),
    ],
)
def test_a_wrong_order_ring_fails(tmp_path: Path, wrong: str, broken: str) -> None:
    errors, first = explore(tmp_path, "order_ring", wrong)
    assert errors
    assert broken in first


def test_two_senders_never_own_the_right_at_once(tmp_path: Path) -> None:
    assert explore(tmp_path, "fencing") == (0, "")


@pytest.mark.parametrize(
    ("wrong", "broken"),
    [
        ("NO_EXIT", "!(watchdog_sends)"),
        ("OLD_EPOCH", "!(watchdog_sends)"),
        ("SAME_EPOCH", "epoch>(before+1)"),
    ],
)
def test_wrong_fencing_fails(tmp_path: Path, wrong: str, broken: str) -> None:
    errors, first = explore(tmp_path, "fencing", wrong)
    assert errors
    assert broken in first
