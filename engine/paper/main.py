"""Entry point of the paper gateway: build the market, listen, run until told to stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from engine.domain.instruments import SIM_INDEX, Instrument
from engine.paper.config import PaperConfig
from engine.paper.faults import FaultDesk
from engine.paper.faults.scenario import load_scenario
from engine.paper.port import MarketSource
from engine.paper.server import Gateway, PortTaken, bind
from engine.paper.universe import stocks

DEFAULT_REPLAY_START = "09:30"

__all__ = ["PaperConfig", "PortTaken", "build_market", "run", "serve"]


def build_market(config: PaperConfig) -> tuple[MarketSource, Instrument | None]:
    """The market source that ``config.market`` names, and its index (None for a replay).

    Raises ValueError for impossible settings and the replay's own named errors for an unusable recording.
    """
    if config.market == "synthetic":
        # Imported here: it loads compiled kernels, which a replay doesn't need.
        from engine.paper.market.synthetic import SyntheticMarket

        market = SyntheticMarket(
            stocks(config.symbols),
            SIM_INDEX,
            config.seed,
            config.levels,
            start_ns=time.monotonic_ns(),
            messages_per_s=config.messages_per_s,
        )
        return market, SIM_INDEX
    from engine.paper.market.lobster import LobsterMarket

    replay = LobsterMarket(
        config.market,
        start=config.start or DEFAULT_REPLAY_START,
        start_ns=time.monotonic_ns(),
    )
    return replay, None


T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a gateway's main coroutine on the loop that wakes fastest."""
    # Imported here: a program that only builds markets has no need of it.
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def serve(
    config: PaperConfig,
    on_ready: Callable[[int], None],
    stop: asyncio.Event,
    heartbeat: Callable[[int, int], None] | None = None,
    market: tuple[MarketSource, Instrument | None] | None = None,
) -> None:
    """Run a gateway until ``stop`` is set.

    ``on_ready`` gets the port once clients can connect. ``heartbeat`` gets (monotonic ns, market events handled since
    the last turn). ``market`` replaces the source that the config names. Raises PortTaken, StateError and
    FaultError.
    """
    scenario = load_scenario(config.faults_file) if config.faults_file is not None else None
    listener = bind(config.host, config.port)
    try:
        source, index = market if market is not None else build_market(config)
        gateway = Gateway(config, source, index)
    except BaseException:
        listener.close()
        raise
    faults = FaultDesk(gateway)
    control = None
    server = None
    try:
        server = await gateway.listen(listener)
        if config.control_port:
            # Imported here: the HTTP stack costs memory that only a drill needs.
            from engine.paper.control import start_control

            control = await start_control(gateway, faults, config.control_port)
        if scenario is not None:
            scenario.start(faults)
        on_ready(server.sockets[0].getsockname()[1])
        await gateway.run(stop, heartbeat)
    finally:
        faults.close()
        if control is not None:
            await control.cleanup()
        if server is not None:
            server.close()
        listener.close()
        gateway.close()
