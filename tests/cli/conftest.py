"""A private instance with the command line pointed at it, and services played by the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.cli.app import app
from engine.cli.errors import run
from engine.runtime.testing import TestInstance, instance


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestInstance]:
    """An instance in which no process lives; commands without ``--instance`` find it."""
    from engine.cli import settings

    with instance(tmp_path / "state") as made:
        monkeypatch.setenv("L2DASH_INSTANCE", made.config.instance.name)
        monkeypatch.delenv("L2DASH_CONFIG", raising=False)
        monkeypatch.setattr(settings, "running", lambda *_: made.config)
        yield made


Cli = Callable[..., tuple[int, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command in this process; returns the exit code and all that was said."""

    def call(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = run(app, list(arguments))
        said = capsys.readouterr()
        return code, said.out + said.err

    return call
