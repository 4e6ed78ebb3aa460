"""The paper gateway on a free port, in a thread with a loop of its own."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from engine.paper.main import PaperConfig, serve


class PaperThread:
    def __init__(self, state_file: Path | None = None, **settings: object) -> None:
        self._config = PaperConfig(port=0, messages_per_s=200.0, state_file=state_file, **settings)  # type: ignore[arg-type]
        self._ready = threading.Event()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        async def main() -> None:
            self._stop = asyncio.Event()

            def ready(port: int) -> None:
                self.port = port
                self._ready.set()

            await serve(self._config, ready, self._stop)

        self._loop.run_until_complete(main())

    def __enter__(self) -> PaperThread:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
