from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cockpit_rig import Events, Rig, start_rig, stop_rig


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    rig = await start_rig(tmp_path, monkeypatch)
    yield rig
    await stop_rig(rig)


@pytest.fixture
def events() -> type[Events]:
    return Events
