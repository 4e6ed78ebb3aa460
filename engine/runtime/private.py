"""A private instance: regions of its own that no other process attaches to, and services on one simulated clock.

For simulation, replay and tests. It leaves nothing behind but what its services write into their state directory.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from msgspec import structs

from engine.config import Config
from engine.runtime import instance as instances
from engine.runtime.clock import ManualClock
from engine.runtime.context import Context
from engine.runtime.ids import IdSource
from shm import scratch

SHM_ROOT = "/dev/shm"


class PrivateInstance:
    """``config`` with its regions in a directory of their own and ``state_dir`` for what the services keep.

    ``context(service)`` gives as many services as wanted, all on ``clock``. ``repeatable``: identifiers come from that
    clock too, so that the same run names everything alike.
    """

    def __init__(
        self,
        config: Config,
        state_dir: Path,
        clock: ManualClock | None = None,
        *,
        prefix: str = "l2dash-sim-",
        repeatable: bool = False,
    ) -> None:
        state_dir.mkdir(parents=True, exist_ok=True)
        self._root = scratch.make(prefix, SHM_ROOT)
        mine = structs.replace(config.instance, state_dir=str(state_dir), shm_root=str(self._root))
        self.config: Config = structs.replace(config, instance=mine)
        self.clock = clock or ManualClock()
        self._repeatable = repeatable
        self._contexts: list[Context] = []
        try:
            instances.create(self.config)
        except BaseException:
            shutil.rmtree(self._root, ignore_errors=True)
            raise

    def context(self, service: str) -> Context:
        context = Context(self.config, service, self.clock)
        if self._repeatable:
            context.ids = IdSource(self.clock.wall_ns(self.clock.now_ns()))
        self._contexts.append(context)
        return context

    def close(self) -> None:
        for context in self._contexts:
            context.close()
        shutil.rmtree(self._root, ignore_errors=True)

    def __enter__(self) -> PrivateInstance:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
