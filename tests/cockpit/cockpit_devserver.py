"""Development harness: a cockpit over a plant that moves.

``python tests/cockpit/cockpit_devserver.py [PORT]`` prints a login URL."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from cockpit_plant import Plant

from engine.cockpit.login import create_login
from engine.procs.cockpit import create
from engine.runtime.clock import SystemClock


async def serve(port: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as directory:
        state_dir = Path(directory) / "state"
        clock = SystemClock(time.time_ns(), time.monotonic_ns())
        plant = Plant(state_dir, clock, {"cockpit": {"port": port, "health_port": port + 1}})
        ctx = plant.instance.context("cockpit")
        ctx.start_heartbeat(clock.now_ns()).set_state(3, clock.now_ns())  # type: ignore[arg-type]
        for i in range(8):
            plant.position(i, (-1) ** i * 20.0 * (i % 4), plant.prices[i] * 1.0004)
        plant.morning()
        for _ in range(400):
            plant.step()
        stop = asyncio.Event()
        cockpit = asyncio.create_task(create(ctx).run(lambda: None, stop))
        print(f"http://localhost:{port}/cockpit#k={create_login(state_dir, clock.wall_ns(clock.now_ns()))}", flush=True)
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end and not cockpit.done():
                plant.step()
                await asyncio.sleep(0.04)
        finally:
            stop.set()
            await cockpit
            plant.close()


if __name__ == "__main__":
    asyncio.run(
        serve(int(sys.argv[1]) if len(sys.argv) > 1 else 3100, float(sys.argv[2]) if len(sys.argv) > 2 else 3600.0)
    )
