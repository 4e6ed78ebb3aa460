"""Backtest of one order-book file: train on what came before, trade what came after, by the product's own agents."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from msgspec import structs

from engine.config import Config, Symbol, check
from engine.model.bundle import Registry
from engine.model.params import Model
from engine.paper.market.lobster import LobsterMarket
from engine.paper.market.lobster_file import read_lobster
from engine.replay.exchange import SimExchange
from engine.replay.observer import Note
from engine.replay.placement import Simulation
from engine.replay.sim_link import SimLink
from engine.replay.tally import Filled
from engine.replay.training import Source, Task, Trained, train
from engine.replay.window import Windows, choose, clock
from engine.runtime import universe
from engine.runtime.clock import ManualClock
from engine.runtime.private import PrivateInstance
from engine.strategy.protocol import Strategy
from shm import scratch

ACCOUNT = "DUSIM001"
LATENCY_MS = 10.0
LEASE_MS = 2_000.0
"""In one thread the watchdog can't die unseen: its lease only has to outlive the pauses between its turns."""
_T0_NS = 1_000_000_000
_NEW_YORK = ZoneInfo("America/New_York")
_DAY = "2024-01-02"
"""Of files whose name says none."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What to run. Times are "HH:MM" or "HH:MM:SS", empty for the default (see ``window.choose``)."""

    source: Source
    symbol: str = ""
    start: str = ""
    end: str = ""
    train_until: str = ""
    in_sample: bool = False
    latency_ms: float = LATENCY_MS


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it, USD. ``gross`` is before commissions, what is still open at its last mid."""

    symbol: str
    day: str
    train_from: str
    train_until: str
    test_from: str
    test_until: str
    in_sample: bool
    training: Trained | None
    latency_ms: float
    ticks: int
    signals: int
    intents: int
    orders: int
    cancels: int
    refused: dict[str, int]
    fills: int
    shares: float
    gross_usd: float
    commissions_usd: float
    net_usd: float
    max_drawdown_usd: float
    round_trips: int
    hits: int
    open_qty: float
    kills: tuple[str, ...]
    notes: tuple[Note, ...]
    faults: tuple[str, ...]
    """Invariants that did not hold: the figures are then worth nothing."""
    executions: tuple[Filled, ...]
    simulated_s: float
    seconds: float

    @property
    def hit_rate(self) -> float | None:
        """Share of round trips that earned more than their commissions."""
        return self.hits / self.round_trips if self.round_trips else None

    @property
    def speed(self) -> float:
        """Simulated seconds per second, training not counted."""
        return self.simulated_s / self.seconds if self.seconds > 0 else 0.0


def backtest(
    ask: Ask,
    config: Config,
    *,
    model: Model | None = None,
    strategy: Strategy | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Result:
    """Run one file. ``model`` replaces the training (what it has seen is then the caller's knowledge), ``strategy``
    the configured one.

    Raises WindowError, LobsterError, TrainingFailed, NotReady.
    """
    day = read_lobster(ask.source, ask.symbol or None)
    windows = choose(
        int(day.t_ns[0]), int(day.t_ns[-1]), start=ask.start, end=ask.end, train_until=ask.train_until,
        in_sample=ask.in_sample,
    )  # fmt: skip
    mine = settings(config, day.symbol, day.levels)
    with scratch.directory("l2dash-backtest-") as directory:
        state = Path(directory)
        registry = Registry(state / "models")
        trained = None
        if model is None:
            say(
                f"{day.symbol} {day.day}: training on {clock(windows.train_from_ns)} to {clock(windows.train_until_ns)}"
            )
            trained = train(_task(ask.source, day.symbol, windows, registry, mine))
        else:
            registry.promote(registry.add(model).version)
        say(f"{day.symbol} {day.day}: trading {clock(windows.test_from_ns)} to {clock(windows.test_until_ns)}")
        return _run(ask, mine, state, day.symbol, day.day, windows, trained, strategy)


def settings(config: Config, symbol: str, levels: int) -> Config:
    """The user's configuration (strategy, limits, guardrails, model) on the simulated account, one symbol, no index."""
    found = structs.replace(
        config,
        instance=structs.replace(config.instance, name="backtest", mode="sim"),
        universe=structs.replace(
            config.universe, stocks=(Symbol(symbol=symbol),), index="none", depth_rows=min(levels, 10)
        ),
        gateway=structs.replace(config.gateway, account=ACCOUNT, account_scope="dedicated"),
        guardrails=structs.replace(config.guardrails, lease_expiry_ms=LEASE_MS, lease_renew_ms=LEASE_MS / 4),
    )
    check(found, "backtest")
    return found


def _task(source: Source, symbol: str, w: Windows, registry: Registry, config: Config) -> Task:
    paths = tuple(str(p.absolute()) for p in (source if isinstance(source, tuple) else (source,)))
    m = config.model
    return Task(
        paths, symbol, w.train_from_ns, w.train_until_ns, str(registry.directory.absolute()), m.bar_s,
        config.universe.depth_rows, m.states, m.train_seed, m.restarts,
    )  # fmt: skip


def _run(ask: Ask, config: Config, state: Path, symbol: str, day: str, w: Windows, trained: Trained | None,
    strategy: Strategy | None,
) -> Result:  # fmt: skip
    midnight = datetime.fromisoformat(day or _DAY).replace(tzinfo=_NEW_YORK)
    wall = midnight + timedelta(seconds=w.test_from_ns // 1_000_000_000)
    sim_clock = ManualClock(_T0_NS, int(wall.timestamp()) * 1_000_000_000)
    market = LobsterMarket(
        ask.source, symbol, start=clock(w.test_from_ns), levels=config.universe.depth_rows, in_process=True,
        start_ns=_T0_NS,
    )  # fmt: skip
    began = time.monotonic()
    with PrivateInstance(config, state, sim_clock, repeatable=True) as instance:
        exchange = SimExchange(
            market, universe.instruments(instance.config), ACCOUNT, config.paper.equity_usd, config.gateway.client_id,
            sim_clock.wall_ns, _T0_NS,
        )  # fmt: skip
        link = SimLink(exchange, sim_clock.now_ns, int(ask.latency_ms * 1e6))
        with Simulation(instance, link, strategy) as simulation:
            simulation.start()
            simulation.run(_T0_NS + w.test_until_ns - w.test_from_ns)
        seen = simulation.observer
        faults = tuple(seen.tally.check())
        held, theirs = seen.position(0), exchange.held(0)
        if abs(held - seen.tally.position(0)) > 1e-9 or abs(held - theirs) > 1e-9:
            faults += (f"position is {held:g}, the exchange says {theirs:g}, fills {seen.tally.position(0):g}",)
        if seen.lost:
            faults += (f"the observer lost {seen.lost} records",)
        ticks = simulation.ticks
    trips = seen.tally.trips()
    return Result(
        symbol=symbol,
        day=day,
        train_from=clock(w.train_from_ns) if trained else "",
        train_until=clock(w.train_until_ns) if trained else "",
        test_from=clock(w.test_from_ns),
        test_until=clock(w.test_until_ns),
        in_sample=w.in_sample,
        training=trained,
        latency_ms=ask.latency_ms,
        ticks=ticks,
        signals=seen.signals,
        intents=seen.intents,
        orders=seen.orders,
        cancels=seen.cancels,
        refused=dict(sorted(seen.refused.items())),
        fills=len(seen.tally.fills),
        shares=sum(abs(f.signed) for f in seen.tally.fills),
        gross_usd=seen.tally.gross_usd,
        commissions_usd=seen.tally.commissions_usd,
        net_usd=seen.tally.net_usd,
        max_drawdown_usd=seen.tally.max_drawdown_usd,
        round_trips=len(trips),
        hits=sum(t.net_usd > 0 for t in trips),
        open_qty=held,
        kills=tuple(seen.kills),
        notes=tuple(seen.notes),
        faults=faults,
        executions=tuple(seen.tally.fills),
        simulated_s=(w.test_until_ns - w.test_from_ns) / 1e9,
        seconds=time.monotonic() - began,
    )
