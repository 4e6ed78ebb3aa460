from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def shm_dir() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="l2dash-shm-test-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
