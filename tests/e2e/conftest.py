"""When a test of the running system fails, what the system said and did last is part of the report."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from system import System


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    outcome = yield
    report = outcome.get_result()
    running = getattr(item, "funcargs", {}).get("system")
    if report.failed and isinstance(running, System):
        report.sections.append(("system", running.report()))
