"""The shell scripts: sound, thin, and honest about what they did."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted([*(ROOT / "ops").glob("*.sh"), *(ROOT / "tests/ops").glob("*.sh"), ROOT / ".ci/run"])


@pytest.mark.parametrize("script", [s.relative_to(ROOT).as_posix() for s in SCRIPTS])
def test_script_parses_and_stops_at_the_first_error(script: str) -> None:
    text = (ROOT / script).read_text()
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)
    if script != "ops/lib.sh":
        assert text.startswith(("#!/usr/bin/env bash\n", "#!/bin/sh\n"))
        assert "\nset -eu\n" in text or script == "ops/test.sh", "set -eu is missing"


def test_shellcheck_finds_nothing() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(
        ["shellcheck", "-x", "--severity=warning", *map(str, SCRIPTS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def sandbox(tmp_path: Path) -> Path:
    """A copy of the scripts beside a fake environment whose l2dash says how it was called."""
    shutil.copytree(ROOT / "ops", tmp_path / "ops")
    for name in ("requirements.lock", "requirements-test.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    binaries = tmp_path / ".venv/bin"
    binaries.mkdir(parents=True)
    program = binaries / "l2dash"
    program.write_text('#!/bin/sh\necho "called: $*" >> "$(dirname "$0")/calls"\n')
    program.chmod(0o755)
    (binaries / "python").symlink_to(sys.executable)
    return tmp_path


def run(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(root / command[0]), *command[1:]],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(root / "nowhere")},
    )


@pytest.mark.parametrize(
    ("command", "calls"),
    [
        (["ops/stop.sh"], ["down"]),
        (["ops/stop.sh", "--flatten"], ["down --flatten"]),
        (["ops/stop.sh", "algo"], ["stop algo"]),
        (["ops/restart.sh", "algo", "ml-service"], ["restart algo ml-service"]),
        (["ops/kill.sh", "--flatten"], ["kill --flatten"]),
        (["ops/logs.sh", "-f", "algo"], ["logs -f algo"]),
        (["ops/backup.sh"], ["backup"]),
        (["ops/restore.sh", "2024-01-02"], ["restore 2024-01-02"]),
        (["ops/retrain.sh", "--synthetic"], ["retrain --synthetic"]),
        (["ops/drill.sh", "all", "--json"], ["drill all --json"]),
    ],
)
def test_script_passes_its_arguments_on(tmp_path: Path, command: list[str], calls: list[str]) -> None:
    root = sandbox(tmp_path)
    done = run(root, *command)
    assert done.returncode == 0, done.stderr
    assert (root / ".venv/bin/calls").read_text().splitlines() == [f"called: {c}" for c in calls]


def test_emergency_scripts_install_nothing(tmp_path: Path) -> None:
    root = sandbox(tmp_path)
    assert run(root, "ops/kill.sh").returncode == 0
    assert not (root / ".venv/.installed").exists()


def stamp(root: Path) -> str:
    script = f'. {root}/ops/lib.sh; printf "base %s\\n" "$(digest "$root/requirements.lock" "$root/pyproject.toml")"'
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout


def test_installation_is_skipped_while_the_lock_is_unchanged_and_repeated_when_it_changes(tmp_path: Path) -> None:
    root = sandbox(tmp_path)
    (root / ".venv/.installed").write_text(stamp(root))
    assert run(root, "ops/run.sh", "--mode", "sim").returncode == 0
    assert (root / ".venv/bin/calls").read_text() == "called: up --mode sim\n"
    with (root / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    done = run(root, "ops/run.sh")
    assert "installing the packages" in done.stderr
    assert (root / ".venv/bin/calls").read_text() == "called: up --mode sim\n", "it must not start what did not install"


def test_a_missing_python_is_named_with_the_remedy(tmp_path: Path) -> None:
    root = sandbox(tmp_path)
    script = f". {root}/ops/lib.sh; PATH=/nonexistent; find_python"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "apt-get install" in done.stderr


def test_the_report_ends_with_totals_and_lists_what_was_not_run(tmp_path: Path) -> None:
    report = tmp_path / "tests.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="a" name="b"/>'
        '<testcase classname="a" name="c"><failure/></testcase>'
        '<testcase classname="d" name="e"><skipped message="no podman"/></testcase></testsuite></testsuites>'
    )
    command = [
        sys.executable,
        str(ROOT / "ops/report.py"),
        "--report",
        str(report),
        "--status",
        "1",
        "--passed",
        "4",
        "--all",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "5 passed, 1 failed"
    assert "d: no podman" in done.stdout


def test_a_crashed_test_run_counts_as_failed(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "ops/report.py"),
        "--report",
        str(tmp_path / "none.xml"),
        "--status",
        "3",
        "--passed",
        "7",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "7 passed, 1 failed"
