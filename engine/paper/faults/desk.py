"""Faults on command: what brokers, networks and markets do to a client. ``FAULTS`` has one row for each.

The desk carries them out on one gateway, once or by a plan, and undoes those that last for a time.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.paper.faults.args import Arg, FaultError, Values
from engine.paper.faults.plan import Plan

if TYPE_CHECKING:
    from engine.paper.server import Gateway
    from engine.paper.session import Session

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: what it does in a line, how it is carried out, which arguments it takes."""

    help: str
    run: Callable[[FaultDesk, Values], str]
    args: Mapping[str, Arg] = field(default_factory=dict)


class FaultDesk:
    """``table`` is ``FAULTS``; ``seed`` decides every chance of plans and of armed faults."""

    def __init__(self, gateway: Gateway, table: Mapping[str, Fault] | None = None, seed: int | None = None) -> None:
        if table is None:
            from engine.paper.faults.table import FAULTS

            table = FAULTS
        self.gateway = gateway
        self.table = table
        self._timers: set[asyncio.TimerHandle] = set()
        self._plans = 0
        self.chances: random.Random | None = None  # of the command that is carried out; None: it has no seed
        self.reseed(gateway.config.seed if seed is None else seed)

    def reseed(self, seed: int) -> None:
        """Begin all chances anew."""
        self._seed = seed
        self._plans = 0
        self.gateway.desk.faults.rng.seed(seed)

    def check(self, name: str, given: Mapping[str, Any]) -> tuple[Fault, Values]:
        """The fault of that name with its checked arguments. Raises FaultError."""
        return checked(self.table, name, given)

    def apply(self, name: str, given: Mapping[str, Any], chances: random.Random | None = None) -> str:
        """Carry out a fault by name; returns what was done. Raises FaultError.

        ``chances`` decides what it leaves to chance; None: the generator of all.
        """
        fault, values = self.check(name, given)
        self.chances = chances
        try:
            result = fault.run(self, values)
        except ValueError as error:
            raise FaultError(f"{name}: {error}") from error
        finally:
            self.chances = None
        self.gateway.pump()
        self.gateway.flush_all()
        return result

    def plan(self, name: str, given: Mapping[str, Any], plan: Plan) -> str:
        """Carry out a fault at the times of a plan. Raises FaultError for what can be known beforehand."""
        chances = None if plan.seed is None else random.Random(f"{plan.seed}:chances")
        if plan.at_once:
            return self.apply(name, given, chances)
        self.check(name, given)
        if plan.seed is None:
            self._plans += 1
        own = f"{self._seed}:{self._plans}" if plan.seed is None else f"{plan.seed}:times"
        times = plan.occurrences(random.Random(own))
        self._next(name, dict(given), times, asyncio.get_running_loop().time(), chances)
        often = "for ever" if plan.times == 0 else f"{plan.times} times" if plan.times > 1 else "once"
        return f"{name} is planned {often}, first after {plan.after_s:g} s, with probability {plan.probability:g}"

    def _next(
        self,
        name: str,
        given: dict[str, Any],
        times: Iterator[float],
        origin_s: float,
        chances: random.Random | None,
    ) -> None:
        at_s = next(times, None)
        if at_s is None:
            return

        def carry_out() -> None:
            self._timers.discard(timer)
            try:
                log.warning("fault at %g s: %s: %s", at_s, name, self.apply(name, given, chances))
            except FaultError as error:
                log.error("fault at %g s: %s", at_s, error)
            self._next(name, given, times, origin_s, chances)

        timer = asyncio.get_running_loop().call_at(origin_s + at_s, carry_out)
        self._timers.add(timer)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after a while; no seconds means never."""
        if seconds <= 0:
            return

        def act() -> None:
            self._timers.discard(timer)
            action()
            self.gateway.flush_all()

        timer = asyncio.get_running_loop().call_later(seconds, act)
        self._timers.add(timer)

    def close(self) -> None:
        """Drop everything that is planned or would be undone later."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def sessions(self, values: Values) -> list[Session]:
        """The connection named by argument ``client``, or all."""
        client_id = values.count("client")
        if client_id < 0:
            return list(self.gateway.sessions)
        return [s for s in self.gateway.clients() if s.client_id == client_id]

    def symbols(self, values: Values) -> list[int]:
        """The symbol named by argument ``symbol``, or all that are traded."""
        name = values.text("symbol")
        instruments = self.gateway.catalog.instruments.values()
        chosen = [i.index for i in instruments if (i.symbol == name if name else i.tradable)]
        if not chosen:
            raise FaultError(f"argument 'symbol' is {name!r}, allowed are {', '.join(i.symbol for i in instruments)}")
        return chosen


def checked(table: Mapping[str, Fault], name: str, given: Mapping[str, Any]) -> tuple[Fault, Values]:
    """A row of the table and the arguments of one command. Pure. Raises FaultError."""
    fault = table.get(name)
    if fault is None:
        raise FaultError(f"fault {name!r} is unknown; allowed are {', '.join(table)}")
    try:
        return fault, Values(fault.args, given)
    except FaultError as error:
        raise FaultError(f"{name}: {error}") from None
