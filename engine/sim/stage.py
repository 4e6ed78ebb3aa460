"""The world on one clock: services with lives that end and begin anew, a gateway with two doors, an operator.

The clock jumps from one thing that happens to the next. Duties (housekeeping, the guardrails, heartbeats) come as often
as there is reason to look (``pace``): every 25 ms while something has just gone wrong, seldom while nothing is at risk
and all is well. Heartbeats and lease are renewed before anybody looks at them, and what came meanwhile is heard
before anybody judges its age, so a long step is not taken for silence.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engine import topology
from engine.config import Config
from engine.domain.codes import CommandKind, LinkState, ServiceState
from engine.market.layout import FEATURE_SCHEMA, FEATURES
from engine.model.bundle import Registry
from engine.model.params import PSI_BINS, Model
from engine.paper.market.synthetic import SyntheticMarket
from engine.paper.port import MarketSource
from engine.procs.algo import Algo
from engine.procs.broker_bridge import BrokerBridge
from engine.procs.ml_service import MlService
from engine.procs.watchdog import Watchdog
from engine.runtime import universe
from engine.runtime.context import Context
from engine.runtime.private import PrivateInstance
from engine.runtime.runner import StartRefused
from engine.sim.emergency import SimEmergency, SimSocket
from engine.sim.exchange import FaultyExchange
from engine.sim.gateway import EMERGENCY, FaultLink, Gateway
from engine.sim.judge import Judge
from engine.sim.machine import NEVER, Agenda, Disk, Killed, Processes, SimClock, SimFiles, SimProcessWatch
from engine.sim.operator import OVERRIDE_DAY, Cockpit, CommandLine, Hands
from engine.sim.pace import CLOSE, HOT_NS, Pace, Situation
from engine.sim.recorder import SimRecorder
from engine.strategy.protocol import Strategy
from shm import scratch

T0_NS = 1_000_000_000
ACCOUNT = "DUSIM001"
QUANTUM_HOT_NS, QUANTUM_NS, QUANTUM_IDLE_NS = 20_000_000, 200_000_000, 3_000_000_000
"""What is heard within so much time is read together, as from a socket."""
QUANTUM_NEWS_NS = 1_000_000
"""The same for news without prices."""
_LONG_NS = 200_000_000
"""After a longer step what has come meanwhile is heard first."""
RESTART_NS = 1_000_000_000
"""A process takes at least so long until it does something: an interpreter starts, compiled code is loaded."""
STIRRED_NS = 1_500_000_000
"""After ordinary news one looks as if nothing had happened for so long."""
_ROUNDS = 16
SELDOM_NS = 1_000_000_000
_SELDOM = (topology.RECORDER, topology.COCKPIT)
"""These only listen, from rings that hold much more than a second brings: once a second is as good as always."""
_ORDER = (topology.WATCHDOG, topology.BRIDGE, topology.ML, topology.ALGO, topology.RECORDER, topology.COCKPIT)


class NotReady(Exception):
    """A service did not become READY on the simulated clock; the text says which."""


def plain_model(states: int) -> Model:
    """A model that fits everything: of one state (always sure), or of several that nobody can tell apart."""
    f = len(FEATURES)
    return Model(
        startprob=np.full(states, 1.0 / states), transmat=np.full((states, states), 1.0 / states),
        means=np.zeros((states, f)), covars=np.tile(np.eye(f) * 4.0, (states, 1, 1)), shift=np.zeros(f),
        scale=np.ones(f), loglik_floor=-1e15, psi_edges=np.tile(np.linspace(-2, 2, PSI_BINS - 1), (f, 1)),
        psi_shares=np.full((f, PSI_BINS), 1.0 / PSI_BINS), schema=FEATURE_SCHEMA, provenance="synthetic", bar_s=10.0,
        created_wall_ns=1,
    )  # fmt: skip


class SimHost:
    """What the watchdog has from the machine (see ``watchdog_parts.host``)."""

    def __init__(self, stage: Stage, context: Context) -> None:
        self._stage, self._context = stage, context

    def files(self, on_error: Callable[[Path, OSError], None]) -> SimFiles:
        return self._stage.files(topology.WATCHDOG, on_error)

    def process(self) -> SimProcessWatch:
        return SimProcessWatch(self._stage.processes)

    def connection(self) -> SimEmergency:
        g = self._context.config.gateway
        return self._connect(g.emergency_client_id, g.emergency_messages_per_s)

    def canceller(self) -> SimEmergency:
        return self._connect(self._context.config.gateway.client_id, 1)

    def _connect(self, client_id: int, messages_per_s: int) -> SimEmergency:
        g = self._context.config.gateway
        connection = SimEmergency(
            g.host, g.port, client_id, messages_per_s=messages_per_s,
            probe_interval_s=g.probe_interval_s, reconnect_min_s=g.reconnect_min_s, reconnect_max_s=g.reconnect_max_s,
            seed=self._context.clock.now_ns() & 0xFFFF,
        )  # fmt: skip
        connection.gateway = self._stage.gateway
        return connection


class Service:
    """One service over all its lives."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.agent: Any = None
        self.context: Context | None = None
        self.pid = 0
        self.hung_until_ns = 0
        self.ready = False
        self.work = 0
        self.behind = 0
        self.lives = 0

    def runs(self, now_ns: int) -> bool:
        return self.agent is not None and now_ns >= self.hung_until_ns


class CockpitAgent:
    """The cockpit as far as an operator needs it, as an ``Agent``."""

    def __init__(self, context: Context) -> None:
        self.hands = Cockpit(context)

    def on_start(self, now_ns: int) -> None:
        self.hands.stream(False, False)  # nobody is armed at a cockpit that has just begun

    def do_work(self, now_ns: int) -> int:
        return self.hands.tail.drain()

    def housekeeping(self, now_ns: int) -> None: ...

    def on_close(self, now_ns: int) -> None: ...

    def ready(self) -> bool:
        return True

    def lag(self) -> int:
        return 0


class Stage:
    """``market`` and ``strategy`` replace the synthetic market and ``Churn``. ``habits``: does the operator resume,
    accept and reset by himself?"""

    def __init__(
        self, config: Config, seed: int, wall_ns: int, make_market: Callable[[Config], MarketSource],
        make_strategy: Callable[[], Strategy | None], *, habits: bool = True, latency_ns: int = 10_000_000,
        pace: Pace = CLOSE,
    ) -> None:  # fmt: skip
        self._pace = pace
        self._root = scratch.make("l2dash-sim-", "/dev/shm")
        self.clock = SimClock(T0_NS, wall_ns)
        self.chance = random.Random(seed * 7_919 + 3)
        self._instance = PrivateInstance(config, self._root / "state", self.clock)
        self.config = self._instance.config
        registry = Registry(self.config.state_dir / "models")
        registry.add(plain_model(2))
        registry.promote(registry.add(plain_model(1)).version)
        self.disk = Disk(self.clock)
        self.agenda = Agenda()
        self.processes = Processes(self._sigkill)
        self._files: dict[str, SimFiles] = {}
        instruments = universe.instruments(self.config)
        market = make_market(self.config)
        self.exchange = FaultyExchange(
            market, instruments, ACCOUNT, self.config.paper.equity_usd, self.config.gateway.client_id,
            self.clock.wall_ns, T0_NS,
        )  # fmt: skip
        self.judge = Judge(self._context(topology.CLI), T0_NS)
        self.gateway = Gateway(self.exchange, self.clock, latency_ns, self.chance, self.judge)
        self.judge.gateway = self.gateway
        self.judge.bridge_runs = lambda: self.services[topology.BRIDGE].runs(self.clock.now)
        self._cli = CommandLine(self._context(topology.CLI))
        self._make_strategy = make_strategy
        self.services = {name: Service(name) for name in _ORDER}
        self.symbols = len(self.exchange.traded)
        self._makers: dict[str, Callable[[Context], Any]] = {
            topology.WATCHDOG: lambda c: Watchdog(c, SimHost(self, c)),  # type: ignore[arg-type]
            topology.BRIDGE: self._bridge,
            topology.ML: MlService,
            topology.ALGO: lambda c: Algo(c, self._make_strategy()),
            topology.RECORDER: lambda c: SimRecorder(c, self.disk),
            topology.COCKPIT: CockpitAgent,
        }
        self._next_duty_ns = 0
        self._hot_until_ns = self._happened_ns = 0
        self._quantum_ns = QUANTUM_NS
        self._looked_ns = self._next_seldom_ns = 0
        self._calm = False
        self._closing = ""
        self._habits = habits
        self._depth = 0
        self.trouble_until_ns = 0
        """Until when something is in the way, by the plan."""
        self.clear_since_ns = 0
        self.judge.clear_since = lambda: self.clear_since_ns
        self.link: FaultLink | None = None

    # Making and ending lives.

    def _context(self, name: str) -> Context:
        return Context(self.config, name, self.clock)

    def files(self, name: str, on_error: Callable[[Path, OSError], None] | None = None) -> SimFiles:
        found = self._files[name] = SimFiles(self.disk, on_error)
        return found

    def _bridge(self, context: Context) -> BrokerBridge:
        self.link = FaultLink(self.gateway, self.config.gateway.client_id)
        self.judge.bridge_born()
        return BrokerBridge(context, self.link, self.files(topology.BRIDGE))

    def start(self, name: str) -> bool:
        """Begin a life; False if the start was refused (it is tried again)."""
        service = self.services[name]
        if service.agent is not None:
            return True
        now_ns = self.clock.now
        context = self._context(name)
        service.context, service.pid, service.ready, service.work = context, self.processes.born(), False, 0
        beat = context.start_heartbeat(now_ns, service.pid)
        beat.set_state(ServiceState.WARMING, now_ns)
        service.lives += 1
        self.heat(1.5)
        try:
            service.agent = self._makers[name](context)
            service.agent.on_start(now_ns)
        except StartRefused as error:
            self.judge.note(f"{name} refused: {type(error).__name__}")
            beat.set_state(ServiceState.STOPPED, now_ns)
            self._bury(service)
            self.agenda.add(now_ns + 2_000_000_000, lambda: self._again(name))
            return False
        except Exception as error:
            self.judge.say(12, f"{name} can't start: {type(error).__name__}: {error}")
            self._bury(service)
            return False
        return True

    def _again(self, name: str) -> None:
        self.start(name)

    def _bury(self, service: Service) -> None:
        """What the kernel does when a process is gone."""
        agent, service.agent = service.agent, None
        self.processes.gone(service.pid)
        files = self._files.pop(service.name, None)
        if files is not None:
            files.lose()
        if service.name == topology.BRIDGE and self.link is not None:
            self.link.vanish()
        if service.name == topology.WATCHDOG:
            door = self.gateway.doors.pop(EMERGENCY, None)
            if isinstance(door, SimSocket):
                door.close()
        if isinstance(agent, SimRecorder):
            agent.vanish()
        if service.context is not None:
            service.context.close()
            service.context = None
        service.hung_until_ns = 0
        self.heat(2.0)

    def crash(self, name: str, back_after_ns: int) -> None:
        """kill -9: dropped without on_close; a new life begins later."""
        service = self.services[name]
        if service.agent is None or name == self._closing:
            return
        self.judge.counts.crashes += 1
        self.judge.note(f"{name} is killed")
        self._bury(service)
        self.agenda.add(self.clock.now + max(RESTART_NS, back_after_ns), lambda: self._again(name))

    def _sigkill(self, pid: int) -> None:
        for service in self.services.values():
            if service.pid == pid and service.agent is not None:
                self.crash(service.name, RESTART_NS * 3)

    def hang(self, name: str, for_ns: int) -> None:
        """SIGSTOP for a while."""
        self.services[name].hung_until_ns = self.clock.now + for_ns
        self.judge.note(f"{name} hangs")
        self.heat(1.0)
        self.agenda.add(self.clock.now + for_ns, lambda: self.heat(1.0))

    def stop(self, name: str, back_after_ns: int) -> None:
        """SIGTERM, as a planned restart begins: on_close runs to its end while the world goes on."""
        service = self.services[name]
        if not service.runs(self.clock.now) or self._closing:
            return
        self.judge.note(f"{name} is stopped")
        self._closing = name
        self.clock.while_paused = self._run_to
        beat = service.context.heartbeat if service.context is not None else None
        assert beat is not None
        try:
            beat.set_state(ServiceState.CLOSING, self.clock.now)
            service.agent.on_close(self.clock.now)
            beat.set_state(ServiceState.STOPPED, self.clock.now)
        except Killed:
            pass
        finally:
            self.clock.while_paused = None
            self._closing = ""
        self._bury(service)
        self.agenda.add(self.clock.now + max(RESTART_NS, back_after_ns), lambda: self._again(name))

    # Time.

    def heat(self, seconds: float) -> None:
        """Something has happened: look closely for a while."""
        self._happened_ns = self.clock.now
        self._hot_until_ns = max(self._hot_until_ns, self.clock.now + int(seconds * 1e9))
        self._next_duty_ns = min(self._next_duty_ns, self.clock.now + HOT_NS)

    def stir(self) -> None:
        """Orders and news go their ordinary way: look again soon, but not as after a fault."""
        if not self._pace.growth:
            return
        self._happened_ns = max(self._happened_ns, self.clock.now - STIRRED_NS)
        self._next_duty_ns = min(self._next_duty_ns, self.clock.now + HOT_NS)

    def trouble(self, for_ns: int) -> None:
        self.trouble_until_ns = max(self.trouble_until_ns, self.clock.now + for_ns)

    def _situation(self) -> Situation:
        now_ns = self.clock.now
        services = self.services.values()
        if any(now_ns < s.hung_until_ns for s in services):
            return Situation.HUNG
        watchdog = self.services[topology.WATCHDOG].agent
        whole = all(s.agent is not None and s.ready for s in services)
        if not whole or now_ns < self.trouble_until_ns or self.gateway.broker_lost or watchdog.flattening.active:
            return Situation.TROUBLE
        if self.services[topology.BRIDGE].agent.conn.state != LinkState.UP:
            return Situation.LINK_DOWN
        if watchdog.stops.latch.kill:
            return Situation.KILLED
        if self.exchange.working():
            return Situation.WORKING
        return Situation.HELD if any(self.exchange.held(i.index) for i in self.exchange.traded) else Situation.IDLE

    def next_ns(self) -> int:
        now_ns = self.clock.now
        due = min(self._next_duty_ns, self.agenda.next_ns())
        for files in self._files.values():
            due = min(due, files.next_ns())
        if not self._pace.prices_wake:
            heard = self.link.next_news_ns() if self.link is not None else NEVER
            return max(now_ns, min(due, self.gateway.next_ns(), max(heard, now_ns + QUANTUM_NEWS_NS)))
        quantum = QUANTUM_HOT_NS if now_ns < self._hot_until_ns else self._quantum_ns
        heard = min(self.gateway.next_ns(), self.link.next_ns() if self.link is not None else NEVER)
        door = self.gateway.doors.get(EMERGENCY)
        if isinstance(door, SimSocket):
            heard = min(heard, door.next_ns())
        return max(now_ns, min(due, max(heard, now_ns + quantum)))

    def run(self, until_ns: int) -> None:
        while self.clock.now < until_ns and not self.judge.broken:
            self.turn(min(until_ns, self.next_ns()))

    def _run_to(self, until_ns: int) -> None:
        """For what pauses while it closes."""
        self._depth += 1
        while self.clock.now < until_ns:
            self.turn(min(until_ns, self.next_ns()))
        self._depth -= 1

    # A turn.

    def turn(self, now_ns: int) -> None:
        self.clock.now = now_ns = max(now_ns, self.clock.now)
        if not self._pace.prices_wake:
            if self._only_arrivals(now_ns):
                self.gateway.pump(now_ns)
                return
            if now_ns - self._looked_ns > _LONG_NS:
                self._hear_first(now_ns)
                if now_ns >= self.agenda.next_ns():  # beats and lease are as fresh as they were all the time
                    self._duties(now_ns)
        self._looked_ns = now_ns
        self.agenda.due(now_ns)
        for files in list(self._files.values()):
            files.settle(now_ns)
        self.gateway.pump(now_ns)
        duty = now_ns >= self._next_duty_ns
        if duty:
            self._duties(now_ns)
        self._work(now_ns, duty)
        if duty:
            situation = self._situation()
            interval_ns = self._pace.interval_ns(self.clock.now, situation, self._hot_until_ns, self._happened_ns)
            self._next_duty_ns = self.clock.now + interval_ns
            self._calm = situation >= Situation.WORKING
            idle = situation == Situation.IDLE and self.clock.now >= self._hot_until_ns
            self._quantum_ns = QUANTUM_IDLE_NS if idle else QUANTUM_NS
            self._watch_clear(now_ns)
        self.judge.look(now_ns, duty)
        if self.judge.changed:
            self.heat(1.0)
        elif self.judge.stirred:
            self.stir()
        self.judge.changed = self.judge.stirred = False

    def _only_arrivals(self, now_ns: int) -> bool:
        """Is what is due now nothing but requests that reach the gateway? No service sees anything of that yet."""
        return (
            now_ns < self._next_duty_ns
            and now_ns < self.agenda.next_ns()
            and (self.link is None or now_ns < self.link.next_news_ns())
            and all(now_ns < files.next_ns() for files in self._files.values())
        )

    def _hear_first(self, now_ns: int) -> None:
        """What has come during a long step was heard when it came, long before this look."""
        self.gateway.pump(now_ns)
        for name in (topology.BRIDGE, topology.ML):
            if self._can(name):
                self.services[name].work += self._drive(name, self.services[name].agent.do_work)

    def _can(self, name: str) -> bool:
        return name != self._closing and self.services[name].runs(self.clock.now)

    def _drive(self, name: str, what: Callable[[int], Any]) -> int:
        """One call into an agent. A bug that raises ends the process, as it would."""
        try:
            return int(what(self.clock.now) or 0)
        except Killed:
            self.crash(name, RESTART_NS)
        except Exception as error:
            self.judge.say(12, f"{name} crashed: {type(error).__name__}: {error}")
            self.crash(name, RESTART_NS)
        return 0

    def _duties(self, now_ns: int) -> None:
        seldom = now_ns >= self._next_seldom_ns
        if seldom:
            self._next_seldom_ns = now_ns + SELDOM_NS
        for name in _ORDER:
            service = self.services[name]
            if self._can(name):
                assert service.context is not None
                beat = service.context.heartbeat
                assert beat is not None
                if seldom and name == topology.RECORDER:
                    service.behind = service.agent.lag()
                beat.beat(now_ns, service.work, 1, service.behind, service.context.lost)
                service.work = 0
                if not service.ready and service.agent.ready():
                    service.ready = True
                    beat.set_state(ServiceState.READY, now_ns)
        for name in _ORDER:
            if name in _SELDOM and not seldom and self.services[name].ready:
                continue
            if self._can(name):
                self.services[name].work += self._drive(name, self.services[name].agent.do_work)
            if self._can(name):
                self._drive(name, self.services[name].agent.housekeeping)

    def _work(self, now_ns: int, duty: bool) -> None:
        services = self.services
        if self._can(topology.BRIDGE):
            heard = self._drive(topology.BRIDGE, services[topology.BRIDGE].agent.do_work)
            services[topology.BRIDGE].work += heard
            if not heard and not duty:
                return
        for _ in range(_ROUNDS):
            busy = False
            for name in (topology.ML, topology.ALGO):
                if self._can(name) and services[name].agent.lag():
                    busy = True
                    services[name].work += self._drive(name, services[name].agent.do_work)
            if self._can(topology.BRIDGE) and services[topology.BRIDGE].agent.lag():
                busy = True
                if self._can(topology.WATCHDOG):
                    self._drive(topology.WATCHDOG, services[topology.WATCHDOG].agent.do_work)
                if self._can(topology.BRIDGE):
                    self._drive(topology.BRIDGE, services[topology.BRIDGE].agent.do_work)
            if not busy:
                return

    def _watch_clear(self, now_ns: int) -> None:
        """Since when is nothing in the way of a flatten?"""
        whole = all(s.runs(now_ns) and s.ready for s in self.services.values())
        bridge, watchdog = self.services[topology.BRIDGE].agent, self.services[topology.WATCHDOG].agent
        clear = (
            whole and now_ns >= self.trouble_until_ns and not self.gateway.broker_lost and not self._closing
            and bridge.conn.state == LinkState.UP and not watchdog.stops.latch.awaits_link
            and not bridge.books.mismatch and not any(bridge.gate.facts["halted"])
        )  # fmt: skip
        self.clear_since_ns = (self.clear_since_ns or now_ns) if clear else 0

    # Operator.

    def hands(self, who: str = "cockpit") -> Hands:
        """The cockpit if it lives and is asked for, else the command line."""
        if who == "cockpit" and self._can(topology.COCKPIT):
            hands: Cockpit = self.services[topology.COCKPIT].agent.hands
            return hands
        return self._cli

    def command(self, kind: CommandKind, who: str = "cockpit", flags: int = 0, arg: float = 0.0) -> None:
        command_id = self.hands(who).command(kind, "simulated", flags, arg)
        self.judge.command(command_id, kind)
        if self._pace.growth:
            self.stir()
        else:
            self.heat(0.5)
        self._next_duty_ns = self.clock.now

    def habit(self) -> None:
        """Now and then the operator looks, and does what a person would do."""
        patience = 10.0 if self._calm and self._pace.growth else 1.0
        self.agenda.add(self.clock.now + int(self.chance.uniform(3e9, 9e9) * patience), self.habit)
        if not self._habits:
            return
        stops = self.judge.stops()
        who = self.chance.choice(("cockpit", "cli"))
        bridge = self.services[topology.BRIDGE].agent
        if bridge is not None and bridge.books.mismatch and self.chance.random() < 0.5:
            self.command(CommandKind.ACCEPT_POSITIONS, who)
        if stops.kill and self.chance.random() < 0.7:
            self.command(CommandKind.RESET, who, OVERRIDE_DAY)
        elif stops.pause and self.chance.random() < 0.5:
            self.command(CommandKind.RESUME, who)

    # Beginning and end.

    def begin(self) -> int:
        """Bring everything to READY; returns that time. Raises NotReady."""
        for name in (
            topology.RECORDER,
            topology.WATCHDOG,
            topology.BRIDGE,
            topology.ML,
            topology.ALGO,
            topology.COCKPIT,
        ):
            self.start(name)
        deadline = self.clock.now + 60_000_000_000
        while not all(s.ready for s in self.services.values()):
            if self.clock.now >= deadline or self.judge.broken:
                waiting = ", ".join(s.name for s in self.services.values() if not s.ready)
                raise NotReady(f"not READY after 60 simulated seconds: {waiting} {[str(b) for b in self.judge.broken]}")
            self.turn(self.next_ns())
        self.habit()
        return self.clock.now

    def close(self) -> None:
        for service in self.services.values():
            if service.agent is not None:
                self._bury(service)
        self._instance.close()
        shutil.rmtree(self._root, ignore_errors=True)


def synthetic(seed: int, messages_per_s: float) -> Callable[[Config], MarketSource]:
    """A market of few events, so that hours pass quickly."""

    def make(config: Config) -> MarketSource:
        instruments, index = universe.instruments(config), universe.index_symbol(config)
        stocks = [i for i in instruments if i.index != index]
        return SyntheticMarket(
            stocks, instruments[index] if index >= 0 else None, seed=seed, levels=config.universe.depth_rows,
            start_ns=T0_NS, messages_per_s=messages_per_s,
        )  # fmt: skip

    return make
