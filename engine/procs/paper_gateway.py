"""paper-gateway: the embedded broker as a service. Attached to no shared memory but for its heartbeat and counters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from engine.config import Config
from engine.paper.config import PaperConfig
from engine.paper.faults import FaultError
from engine.paper.main import PortTaken, serve
from engine.paper.state import StateError
from engine.runtime.context import Context
from engine.runtime.runner import StartRefused

STATE_FILE = "paper-gateway.json"
_BEAT_NS = 100_000_000


def paper_config(config: Config) -> PaperConfig:
    """The gateway's settings from the instance's configuration. Raises ValueError for a value that can't work."""
    paper = config.paper
    return PaperConfig(
        host=config.gateway.host,
        port=config.gateway.port,
        account=config.gateway.account,
        equity_usd=paper.equity_usd,
        seed=paper.seed,
        market=paper.market,
        start=paper.start if paper.market != "synthetic" else "",
        messages_per_s=paper.messages_per_s,
        max_depth_lines=paper.max_depth_lines,
        latency_ms=paper.latency_ms,
        state_file=Path(paper.state_file) if paper.state_file else config.state_dir / STATE_FILE,
        faults_file=Path(paper.faults) if paper.faults else None,
        control_port=paper.control_port,
        levels=config.universe.depth_rows,
    )


class PaperGatewayAgent:
    """Runs the TWS server until told to stop."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._counters = context.counters
        self._work = 0
        self._next_beat_ns = 0

    async def run(self, ready: Callable[[], None], stop: asyncio.Event) -> None:
        try:
            config = paper_config(self._context.config)
            await serve(config, lambda _port: ready(), stop, self._heartbeat)
        except (PortTaken, StateError, FaultError, ValueError, OSError) as error:
            raise StartRefused(str(error)) from error

    def _heartbeat(self, now_ns: int, events: int) -> None:
        self._counters.add("messages_out", events)
        self._work += events
        if now_ns >= self._next_beat_ns:
            self._next_beat_ns = now_ns + _BEAT_NS
            self._context.beat(self._work)
            self._work = 0


def create(context: Context) -> PaperGatewayAgent:
    return PaperGatewayAgent(context)
