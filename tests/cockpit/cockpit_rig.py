"""A cockpit on real sockets over a plant: disconnects and slow readers behave as in production."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cockpit_plant import Plant

from engine.cockpit.login import create_login
from engine.cockpit.server import Cockpit, Server, build
from engine.domain.codes import ServiceState
from engine.runtime.clock import SystemClock

TOKEN = "test-token-of-more-than-thirty-two-characters"


@dataclass
class Rig:
    plant: Plant
    cockpit: Cockpit
    server: Server
    http: aiohttp.ClientSession
    state_dir: Path
    answering: bool = True
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def health(self) -> str:
        return f"http://127.0.0.1:{self.server.health_port}"

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {TOKEN}"}

    async def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """A program's call with the bearer token; returns status and document."""
        async with self.http.request(
            method, self.base + path, json=body, headers={**self.bearer, **(headers or {})}
        ) as r:
            return r.status, await r.json(content_type=None)

    async def browser(self) -> dict[str, str]:
        """Log in; headers of a page of this very origin."""
        key = create_login(self.state_dir, self.plant.clock.wall_ns(self.plant.clock.now_ns()))
        headers = {"Origin": self.base, "Sec-Fetch-Site": "same-origin", "X-L2Dash": "1"}
        async with self.http.post(f"{self.base}/api/login", json={"k": key}, headers=headers) as r:
            assert r.status == 200, await r.text()
            cookie = r.cookies["l2dash_session"].value
        self.http.cookie_jar.clear()
        return {**headers, "Cookie": f"l2dash_session={cookie}"}

    async def post(self, path: str, body: Any, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
        async with self.http.post(self.base + path, json=body, headers=headers) as r:
            return r.status, await r.json(content_type=None)

    async def until(self, condition: Any, what: str) -> None:
        """Wait for a condition that must come true; a bound far above any real duration."""
        for _ in range(2000):
            if condition():
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"never happened: {what}")


async def start_rig(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: dict[str, dict[str, Any]] | None = None
) -> Rig:
    monkeypatch.setenv("TRADING_TOKEN", TOKEN)
    state_dir = tmp_path / "state"
    clock = SystemClock(time.time_ns(), time.monotonic_ns())
    plant = Plant(state_dir, clock, overrides)
    ctx = plant.instance.context("cockpit")
    ctx.start_heartbeat(clock.now_ns()).set_state(ServiceState.READY, clock.now_ns())
    cockpit = build(ctx)
    server = Server(cockpit)
    await server.start()
    rig = Rig(plant, cockpit, server, aiohttp.ClientSession(), state_dir)
    stop = asyncio.Event()

    async def others() -> None:
        while True:
            if rig.answering:
                plant.answer()
            plant.beat()
            await asyncio.sleep(0.005)

    rig.tasks = [asyncio.create_task(cockpit.stream.produce(stop)), asyncio.create_task(others())]
    return rig


async def stop_rig(rig: Rig) -> None:
    for task in rig.tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await rig.http.close()
    await rig.server.close()
    rig.plant.close()


class Events:
    """Reads server-sent events from a response."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.buffer = b""

    async def next(self, *names: str) -> tuple[str, str, Any]:
        """(event, id, data) of the next event with one of these names; any if none are given."""
        import orjson

        async with asyncio.timeout(10):
            while True:
                while b"\n\n" in self.buffer:
                    raw, _, self.buffer = self.buffer.partition(b"\n\n")
                    fields = dict(line.split(": ", 1) for line in raw.decode().split("\n") if ": " in line)
                    if "event" in fields and (not names or fields["event"] in names):
                        return fields["event"], fields.get("id", ""), orjson.loads(fields["data"])
                chunk = await self.response.content.readany()
                if not chunk:
                    raise ConnectionError("the stream ended")
                self.buffer += chunk
