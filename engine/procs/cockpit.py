"""The cockpit's process: server, stream and health around one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from engine.cockpit.server import Server, build
from engine.runtime.context import Context


class CockpitAgent:
    """An AsyncAgent: attach, bind, serve, produce frames until asked to stop."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.server: Server | None = None

    async def run(self, ready: Callable[[], None], stop: asyncio.Event) -> None:
        """Raises PortTaken (one line that names the holder) or ValueError before ``ready`` is called."""
        cockpit = build(self._ctx)
        self.server = server = Server(cockpit)
        await server.start()
        ready()
        self._ctx.log.info("cockpit on port %d, health on port %d", server.port, server.health_port)
        try:
            await cockpit.stream.produce(stop)
        finally:
            await server.close()


def create(ctx: Context) -> CockpitAgent:
    return CockpitAgent(ctx)
