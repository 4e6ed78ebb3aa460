"""A real paper gateway in a thread of its own, reached over TCP, with its fault desk at hand."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.paper.config import PaperConfig
from engine.paper.faults import FaultDesk
from engine.paper.main import build_market
from engine.paper.server import Gateway, bind


class PaperThread:
    """``port`` is fixed after the first start, so that a restarted gateway is found again."""

    def __init__(self, state_file: Path | None = None, **config: Any) -> None:
        self.config = PaperConfig(
            port=0, state_file=state_file, messages_per_s=config.pop("messages_per_s", 300.0), **config
        )
        self.port = 0
        self._start()

    def _start(self) -> None:
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(60.0), "the paper gateway did not start"
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self._error = error
            self._ready.set()

    async def _main(self) -> None:
        source, index = build_market(self.config)
        self.gateway = Gateway(replace(self.config, port=self.port), source, index)
        self.faults = FaultDesk(self.gateway)
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        listener = bind("127.0.0.1", self.port)
        server = await self.gateway.listen(listener)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        try:
            await self.gateway.run(self._stop)
        finally:
            self.faults.close()
            server.close()
            self.gateway.close()

    def fault(self, name: str, **values: Any) -> str:
        async def act() -> str:
            return self.faults.apply(name, values)

        return asyncio.run_coroutine_threadsafe(act(), self._loop).result(10.0)

    def call(self, function: Any) -> Any:
        """Run something on the gateway's own thread."""

        async def act() -> Any:
            return function(self.gateway)

        return asyncio.run_coroutine_threadsafe(act(), self._loop).result(10.0)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20.0)

    def restart(self) -> None:
        self.stop()
        self._start()
