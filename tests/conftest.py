"""The order of the files: what takes minutes begins first, so that no worker ends long after the other."""

from __future__ import annotations

import pytest

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
