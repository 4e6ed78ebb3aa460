"""A private instance for tests: any services side by side in one thread, on a clock that stands still."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from engine.config import Config, from_mapping
from engine.runtime import instance as instances
from engine.runtime.clock import ManualClock
from engine.runtime.context import Context


class TestInstance:
    """Regions in a directory of their own. ``context(service)`` gives as many services as wanted, all on ``clock``."""

    __test__ = False

    def __init__(self, state_dir: Path, overrides: dict[str, dict[str, Any]] | None = None) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="l2dash-test-", dir="/dev/shm"))
        data: dict[str, dict[str, Any]] = {k: dict(v) for k, v in (overrides or {}).items()}
        data["instance"] = {
            "name": "test",
            "state_dir": str(state_dir),
            "backup_dir": str(state_dir / "backups"),
            "shm_root": str(self._root),
            **data.get("instance", {}),
        }
        self.config: Config = from_mapping(data, "test")
        state_dir.mkdir(parents=True, exist_ok=True)
        instances.create(self.config)
        self.clock = ManualClock()
        self._contexts: list[Context] = []

    def context(self, service: str) -> Context:
        context = Context(self.config, service, self.clock)
        self._contexts.append(context)
        return context

    def close(self) -> None:
        for context in self._contexts:
            context.close()
        shutil.rmtree(self._root, ignore_errors=True)

    def __enter__(self) -> TestInstance:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def instance(state_dir: Path, overrides: dict[str, dict[str, Any]] | None = None) -> TestInstance:
    """Create a private instance. ``overrides`` is section -> key -> value of the configuration."""
    return TestInstance(state_dir, overrides)
