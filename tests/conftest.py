"""The order of the files, so that no worker ends long after the other; property tests without a clock of their own."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says something about the load of the machine and nothing about the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

LONGEST = (
    "test_container.py", "test_python_versions.py", "test_drills.py", "test_systemd.py", "test_simulation.py",
    "test_runbook.py", "test_recording.py", "test_mutants.py", "test_paper_conformance.py", "test_fault_table.py",
    "test_takeover_courses.py", "test_backtest_real_data.py", "test_kill.py", "test_other_library.py",
    "test_cockpit_browser.py", "test_system.py", "test_torture.py",
)  # fmt: skip
"""Longest first. A file that is missing here runs after these, in the order of its name."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
