"""The agents in one thread on a simulated clock: what the runner is to a process, ``Simulation`` is to all of them.

The clock jumps from one thing that happens to the next: something is heard, a message arrives, or a duty is due. Every
agent that can act on it is driven at that instant. A turn of all of them takes ``TURN_NS``; what computing costs beyond
that is part of the link's latency.

Not there, because they decide nothing about trades: recorder (its place in the rings is taken by ``Observer``),
cockpit, paper gateway. The watchdog is there; a second connection to the broker, for the death of the bridge, is not.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

from engine import topology
from engine.broker.emergency_codec import Message
from engine.broker.emergency_link import EmergencyConnection
from engine.domain.codes import ServiceState
from engine.procs.algo import Algo
from engine.procs.broker_bridge import BrokerBridge
from engine.procs.ml_service import MlService
from engine.procs.watchdog import Watchdog
from engine.replay.observer import Observer
from engine.replay.sim_link import SimLink
from engine.runtime.agent import Agent
from engine.runtime.context import Context
from engine.runtime.private import PrivateInstance
from engine.strategy.protocol import Strategy

DUTY_NS, IDLE_NS = 250_000_000, 900_000_000
"""How often duties are done and guardrails evaluated: with something at risk (a position, an order), and without.

The watchdog's own pace is 25 ms. Breakers see a loss late by at most this much; what blocks an entry is never late,
because the guardrails are also evaluated whenever the strategy has asked for an order, before the gate decides.
"""
TURN_NS = 500_000
"""What a turn of all services takes: what is heard meanwhile is read together afterwards, as from a socket."""
START_NS = 60_000_000_000
_ROUNDS = 64
_COLLECT_NS = 600_000_000_000


class NotReady(Exception):
    """A service did not become READY on the simulated clock; the text says which."""


class NoSecondConnection(EmergencyConnection):
    """The exchange is in this process and can't be reached twice: never up, and no socket is ever opened."""

    def poll(self, now_ns: int) -> list[Message]:
        return []


class Driven:
    """One agent with its context and heartbeat, driven by hand."""

    def __init__(self, context: Context, agent: Agent) -> None:
        self.context, self.agent = context, agent
        now_ns = context.clock.now_ns()
        self._beat = context.start_heartbeat(now_ns)
        self._beat.set_state(ServiceState.WARMING, now_ns)
        self.ready = False
        self.work = 0

    def duties(self, now_ns: int) -> None:
        self.agent.housekeeping(now_ns)
        self._beat.beat(now_ns, self.work, 1, self.agent.lag(), self.context.lost)
        self.work = 0
        if not self.ready and self.agent.ready():
            self.ready = True
            self._beat.set_state(ServiceState.READY, now_ns)

    def close(self, now_ns: int) -> None:
        self.agent.on_close(now_ns)
        self._beat.set_state(ServiceState.STOPPED, now_ns)


class Simulation:
    """Bridge, ml-service, algo and watchdog against ``link``: ``start``, ``run``, and ``close`` by leaving ``with``.

    ``strategy`` replaces the configured one.
    """

    def __init__(self, instance: PrivateInstance, link: SimLink, strategy: Strategy | None = None) -> None:
        self.instance, self.link, self.clock = instance, link, instance.clock
        self._next_duty_ns = 0
        self._next_collect_ns = 0
        context = instance.context
        self.observer = Observer(context(topology.RECORDER))
        self.watchdog = Watchdog(watchdog_context := context(topology.WATCHDOG))
        gw = instance.config.gateway
        self.watchdog.takeover.connection = NoSecondConnection(gw.host, gw.port, gw.emergency_client_id)
        self.bridge = BrokerBridge(bridge_context := context(topology.BRIDGE), link)
        self.ml = MlService(ml_context := context(topology.ML))
        self.algo = Algo(algo_context := context(topology.ALGO), strategy)
        self._watchdog = Driven(watchdog_context, self.watchdog)
        self._bridge = Driven(bridge_context, self.bridge)
        self._ml = Driven(ml_context, self.ml)
        self._algo = Driven(algo_context, self.algo)
        self.services = (self._watchdog, self._bridge, self._ml, self._algo)

    def __enter__(self) -> Simulation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Bring every service to READY. Raises NotReady."""
        for service in self.services:
            service.agent.on_start(self.clock.now_ns())
        deadline = self.clock.now_ns() + START_NS
        while not all(s.ready for s in self.services):
            if self.clock.now_ns() >= deadline:
                waiting = ", ".join(s.context.service for s in self.services if not s.ready)
                raise NotReady(f"not READY after {START_NS / 1e9:.0f} simulated seconds: {waiting}")
            self._step(min(self._next_duty_ns, max(self.clock.now_ns() + TURN_NS, self.link.next_ns())))

    def run(self, until_ns: int) -> None:
        """Drive everything until the simulated clock shows ``until_ns``."""
        with _no_collection():
            while self.clock.now < until_ns:
                self._step(min(self._next_duty_ns, until_ns, max(self.clock.now + TURN_NS, self.link.next_ns())))

    def _step(self, now_ns: int) -> None:
        self.clock.now = now_ns = max(now_ns, self.clock.now)
        self._work(now_ns)
        if now_ns < self._next_duty_ns:
            return
        self.observer.look(now_ns)
        for service in self.services:
            service.agent.do_work(now_ns)
            service.duties(now_ns)
        self._next_duty_ns = now_ns + (DUTY_NS if self.at_risk else IDLE_NS)
        if self.observer.asked:  # duties may ask for orders too
            self.observer.asked_seen()
            self._work(now_ns)
        if now_ns >= self._next_collect_ns:
            self._next_collect_ns = now_ns + _COLLECT_NS
            gc.collect()

    def _work(self, now_ns: int) -> None:
        """Drive each agent as long as what it reads may have changed."""
        heard = self.bridge.do_work(now_ns)
        for _ in range(_ROUNDS):
            if not heard:
                return
            self.ml.do_work(now_ns)
            if not self.algo.do_work(now_ns) or not self.observer.asked:
                return
            self.watchdog.do_work(now_ns)
            self._next_duty_ns = min(self._next_duty_ns, now_ns + DUTY_NS)
            self.observer.asked_seen()
            heard = self.bridge.do_work(now_ns)

    @property
    def at_risk(self) -> bool:
        """Is anything held, or working?"""
        bridge = self.bridge
        return bridge.register.active_count > 0 or any(h.qty for h in bridge.accounts.holdings)

    @property
    def ticks(self) -> int:
        """Ticks that the bridge has published."""
        return int(self._bridge.context.counters.get("ticks"))

    def close(self) -> None:
        """End in order: the strategy asks for the end of its entries, and that is waited for."""
        now_ns = self.clock.now_ns()
        self._algo.close(now_ns)
        for _ in range(100):
            if not any(o.entry for o in self.bridge.register.active()):
                break
            self._step(min(self._next_duty_ns, max(self.clock.now + TURN_NS, self.link.next_ns())))
        now_ns = self.clock.now_ns()
        self.observer.look(now_ns)
        for service in (self._ml, self._bridge, self._watchdog):
            service.close(now_ns)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Collections happen between duties only: one inside a guardrail's evaluation would count as slowness."""
    was = gc.isenabled()
    gc.disable()
    gc.freeze()  # what is there already need not be looked at again and again
    try:
        yield
    finally:
        gc.unfreeze()
        if was:
            gc.enable()
