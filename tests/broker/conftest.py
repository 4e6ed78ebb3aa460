"""Shared rigs: a paper gateway and a bridge against it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bridge_paper import PaperThread
from bridge_rig import Rig


@pytest.fixture(scope="module")
def market() -> Iterator[PaperThread]:
    """A gateway that several tests share; nobody breaks it."""
    gateway = PaperThread()
    yield gateway
    gateway.stop()


@pytest.fixture(scope="module")
def _shared(market: PaperThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    bridge = Rig(tmp_path_factory.mktemp("state"), market.port)
    bridge.ready()
    yield bridge
    bridge.close()


@pytest.fixture
def rig(_shared: Rig) -> Rig:
    """A ready bridge that is flat and has no orders."""
    _shared.tidy()
    return _shared


@pytest.fixture
def paper(tmp_path: Path) -> Iterator[PaperThread]:
    """A gateway of the test's own, which it may break."""
    gateway = PaperThread(tmp_path / "paper.json")
    yield gateway
    gateway.stop()


@pytest.fixture
def own(paper: PaperThread, tmp_path: Path) -> Iterator[Rig]:
    """A bridge of the test's own at ``paper``."""
    bridge = Rig(tmp_path / "state", paper.port)
    bridge.ready()
    yield bridge
    bridge.close()
