"""One seed: make the world, carry out the plan, let it come to rest, judge."""

from __future__ import annotations

import gc
import math
import random
import time
from dataclasses import dataclass, field

from engine.config import Config, from_mapping
from engine.domain.codes import CommandKind, TradingState
from engine.sim.deeds import Deeds
from engine.sim.invariants import Broken
from engine.sim.judge import Counts
from engine.sim.operator import EXCUSE_REMAINING, OVERRIDE_DAY
from engine.sim.pace import PACES
from engine.sim.plan import HOUR_NS, Deed, harmless, kinds_of, plan
from engine.sim.stage import T0_NS, NotReady, Stage, synthetic
from engine.sim.strategy import Churn
from engine.strategy.protocol import Strategy

STOCKS = ("AAPL", "MSFT", "AMZN", "GOOGL")
WALL_NS = 1_704_205_800_000_000_000
"""2024-01-02 09:30 New York."""
_DAY_NS = 24 * HOUR_NS
_CALM_NS = 60_000_000_000
_RECOVERY_NS = 240_000_000_000
_FADING_NS = 60_000_000_000
_LONGEST_NS = 1_800_000_000_000
EVERY_SYMBOL = -1
_COLLECT_NS = 4 * HOUR_NS
"""Garbage is collected this often: a collection looks at everything, and hours pass within a second."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What to simulate. ``deeds`` replaces the plan that the seed gives (when shrinking). ``per_hour``: deeds.

    ``every_s``: pause of a flat symbol; ``pace``: how closely to look (``engine.sim.pace``)."""

    seed: int
    hours: float = 1.0
    faults: str = "all"
    per_hour: float = 240.0
    messages_per_s: float = 3.0
    cooling_s: float = 20.0
    deeds: tuple[Deed, ...] | None = None
    trace: bool = False
    strategy: str = "churn"
    every_s: float = 4.0
    pace: str = "close"


@dataclass(frozen=True, slots=True)
class Outcome:
    seed: int
    broken: tuple[Broken, ...]
    digest: str
    counts: Counts
    deeds: tuple[Deed, ...]
    simulated_s: float
    seconds: float
    cpu_s: float
    kills: tuple[str, ...] = ()
    trace: tuple[str, ...] = field(default=(), repr=False)

    @property
    def speed(self) -> float:
        """Simulated seconds per second of CPU: a busy host does not change it."""
        return self.simulated_s / self.cpu_s if self.cpu_s > 0 else 0.0


def settings(ask: Ask) -> Config:
    """The product's defaults on four symbols; ``cooling_s`` is shortened so that a run has more than one life."""
    return from_mapping(
        {
            "instance": {"name": "simulate"},
            "universe": {"stocks": [{"symbol": s} for s in STOCKS], "depth_rows": 5},
            "guardrails": {"cooling_s": ask.cooling_s},
            "gateway": {"account_scope": "dedicated"},
        },
        "simulate",
    )


def deeds_of(ask: Ask) -> tuple[Deed, ...]:
    """The plan of a seed. Raises UnknownFaults."""
    if ask.deeds is not None:
        return ask.deeds
    if ask.faults == "harmless":
        return harmless(ask.seed, ask.hours, ask.per_hour)
    return plan(ask.seed, ask.hours, kinds_of(ask.faults), ask.per_hour, len(STOCKS))


def simulate(ask: Ask) -> Outcome:
    """Run one seed to its end, or to the first broken invariant."""
    began, cpu = time.monotonic(), time.process_time()
    deeds = deeds_of(ask)
    chance = random.Random(ask.seed * 31 + 5)
    wall_ns = WALL_NS + ask.seed % 5 * _DAY_NS + int(chance.uniform(0, 24)) * HOUR_NS
    latency_ns = chance.choice((2_000_000, 10_000_000, 40_000_000))

    def strategy() -> Strategy | None:
        return Churn(ask.seed, ask.every_s) if ask.strategy == "churn" else None

    was = gc.isenabled()
    gc.disable()
    stage = Stage(
        settings(ask), ask.seed, wall_ns, synthetic(ask.seed, ask.messages_per_s), strategy,
        habits=ask.faults != "harmless", latency_ns=latency_ns, pace=PACES[ask.pace],
    )  # fmt: skip
    judge = stage.judge
    judge.harmless = ask.faults == "harmless" and ask.deeds is None
    if ask.trace:
        judge.log = []
    try:
        begin_ns = stage.begin()
        judge.begin(begin_ns)
        Deeds(stage, begin_ns).schedule(deeds)
        _run(stage, begin_ns + int(ask.hours * HOUR_NS))
        if not judge.broken:
            _rest(stage, ask)
    except NotReady as error:
        judge.say(12, str(error))
    finally:
        stage.close()
        if was:
            gc.enable()
    judge.counts.market = stage.gateway.market_events
    return Outcome(
        ask.seed, tuple(judge.broken), judge.digest.hexdigest(), judge.counts, deeds,
        (stage.clock.now - T0_NS) / 1e9, time.monotonic() - began, time.process_time() - cpu,
        tuple(judge.kills), tuple(judge.log or ()),
    )  # fmt: skip


def _run(stage: Stage, until_ns: int) -> None:
    collect_ns = stage.clock.now
    while stage.clock.now < until_ns and not stage.judge.broken:
        collect_ns += _COLLECT_NS
        stage.run(min(until_ns, collect_ns))
        if stage.clock.now >= collect_ns:
            gc.collect()


def _rest(stage: Stage, ask: Ask) -> None:
    """Everything ends well: troubles are over, and the system must come to rest, tell the truth, and trade again."""
    judge = stage.judge
    _end_troubles(stage)
    _run(stage, max(stage.clock.now, stage.trouble_until_ns) + _CALM_NS)
    if judge.broken:
        return
    if judge.stops().kill:
        judge.say(4, judge.left())
    calm_ns = stage.clock.now
    deadline = calm_ns + _RECOVERY_NS
    drift = Fading(calm_ns)
    never_free = EVERY_SYMBOL
    while not judge.broken and stage.clock.now < deadline:
        stops = judge.stops()
        never_free &= stops.symbol_block  # in a thin market one symbol or another is always silent for a while
        if drift.fades(judge.drift_pct(), stage.clock.now):
            deadline = max(deadline, stage.clock.now + _FADING_NS)
        bridge = stage.services["broker-bridge"].agent
        if bridge is not None and bridge.books.mismatch:
            stage.command(CommandKind.ACCEPT_POSITIONS, "cli")
        if stops.kill:
            stage.command(CommandKind.RESET, "cli", OVERRIDE_DAY | EXCUSE_REMAINING)
        elif stops.pause:
            stage.command(CommandKind.RESUME, "cli")
        elif stops.state == TradingState.ACTIVE and not never_free and judge.quiet():
            break
        _run(stage, stage.clock.now + 5_000_000_000)
    if judge.broken:
        return
    stops = judge.stops()
    if stops.state != TradingState.ACTIVE or never_free & stops.symbol_block:
        judge.say(
            12, f"{(stage.clock.now - calm_ns) / 1e9:.0f} s after the last trouble it is {stops.state.name}: {stops}"
        )
        return
    judge.say(2, judge.disagreement() if judge.quiet() else "")
    if stage.exchange.corrected_unheard:
        stage.command(CommandKind.RECONNECT, "cli")  # a broker tells of another client's corrections when asked
    _run(stage, stage.clock.now + 3_000_000_000)
    deadline = stage.clock.now + _CALM_NS
    while not judge.broken and not judge.quiet() and stage.clock.now < deadline:  # the last execution is on its way
        _run(stage, stage.clock.now + 10_000_000)
    recorder = stage.services["recorder"].agent
    if recorder is not None:
        recorder.on_close(stage.clock.now)
        judge.journal(complete=judge.quiet())


class Fading:
    """Does a value that keeps KILL from being released come nearer to its end? Pure but for what it remembers.

    The fair value's reference is a mean over minutes of fresh data. In a market where seconds pass between two quotes
    it needs longer for them than the clock; waiting for it is not being stuck as long as it goes down.
    """

    def __init__(self, now_ns: int) -> None:
        self._least, self._since_ns, self._began_ns = math.inf, now_ns, now_ns

    def fades(self, value: float, now_ns: int) -> bool:
        """``value`` NaN or 0: there is nothing to wait for. False as well after half an hour in all."""
        if not value > 0.0 or now_ns - self._began_ns > _LONGEST_NS:
            return False
        if value < self._least:
            self._least, self._since_ns = value, now_ns
        return now_ns - self._since_ns < _FADING_NS


def _end_troubles(stage: Stage) -> None:
    gateway = stage.gateway
    for trouble in gateway.trouble.values():
        trouble.refuse_until_ns = trouble.mute_until_ns = trouble.slow_until_ns = 0
        trouble.twice_until_ns = trouble.lost_until_ns = trouble.late_until_ns = 0
    stage.exchange.rejects, stage.exchange.cross_cancel = 0, False
    if stage.link is not None:
        stage.link.kill_at_flush = 0
