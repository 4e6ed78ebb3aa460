from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """The watchdog among fakes, half a second after its start."""
    w = World(tmp_path)
    w.run(0.5)
    yield w
    w.close()
