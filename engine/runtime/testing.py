"""A private instance for tests: any services side by side in one thread, on a clock that stands still."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.config import from_mapping
from engine.runtime.private import PrivateInstance


class TestInstance(PrivateInstance):
    """``overrides`` is section -> key -> value of the configuration."""

    __test__ = False

    def __init__(self, state_dir: Path, overrides: dict[str, dict[str, Any]] | None = None) -> None:
        data: dict[str, dict[str, Any]] = {k: dict(v) for k, v in (overrides or {}).items()}
        data["instance"] = {"name": "test", "backup_dir": str(state_dir / "backups"), **data.get("instance", {})}
        super().__init__(from_mapping(data, "test"), state_dir, prefix="l2dash-test-")

    def __enter__(self) -> TestInstance:
        return self


def instance(state_dir: Path, overrides: dict[str, dict[str, Any]] | None = None) -> TestInstance:
    """Create a private instance. ``overrides`` is section -> key -> value of the configuration."""
    return TestInstance(state_dir, overrides)
