"""Which way imports point, and what the command line costs to start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_imports_point_down_only() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [str(program), "--config", ".importlinter", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


def modules_after(statement: str) -> set[str]:
    script = f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


TRAINING = {"hmmlearn", "sklearn", "pandas", "pyarrow", "scipy.stats", "scipy.optimize"}


@pytest.mark.parametrize(
    "module",
    ["broker_bridge", "ml_service", "algo", "watchdog", "recorder", "cockpit", "paper_gateway"],
)
def test_no_service_loads_the_training_stack(module: str) -> None:
    assert not TRAINING & modules_after(f"import engine.procs.{module}")


def test_help_loads_neither_numpy_nor_numba_nor_a_library_of_the_engine() -> None:
    loaded = modules_after("from engine.cli.errors import run\nfrom engine.cli.app import app\nrun(app, ['--help'])")
    assert not {"numpy", "numba", "aiohttp", "rich"} & loaded
    assert not [m for m in loaded if m.startswith("engine.") and not m.startswith("engine.cli")]


def test_status_loads_no_server_no_broker_library_and_no_model() -> None:
    loaded = modules_after("import engine.cockpit.view, engine.cockpit.services, engine.cli.status, engine.cli.access")
    assert not {"aiohttp", "ib_insync", "prometheus_client", *TRAINING} & loaded


def test_health_check_needs_no_numpy() -> None:
    assert not {"numpy", "numba", "rich", "msgspec"} & modules_after("import engine.cli.health")
