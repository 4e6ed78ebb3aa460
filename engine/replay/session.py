"""A recorded day through the same agents: its ticks into ml-service and algo on a clock that follows the record.

What the broker did is taken from the journal: executions and the fate of orders come when they came. What ml-service
and algo make of it is computed anew and compared: signals that close a bar must come out as they were recorded, as
long as nothing was lost; intents are matched by symbol, side and time.

Not replayed: stops, and everything that the gate and the watchdog decided. An order that algo asks for here and not on
the day is answered as cancelled at once.
"""

from __future__ import annotations

import math
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from msgspec import structs

from engine import topology
from engine.config import Config
from engine.domain.codes import CommandKind, EventKind, ExecKind, IntentKind, OrderState, Owner, Source
from engine.model.bundle import BundleError, Registry
from engine.procs.algo import Algo
from engine.procs.ml_service import MlService
from engine.replay.observer import Observer
from engine.replay.placement import Driven
from engine.runtime import universe
from engine.runtime.clock import ManualClock
from engine.runtime.private import PrivateInstance
from engine.store.files import StoreError, day_number
from engine.store.journal import journal_path, read_only
from engine.store.read import iter_blocks
from engine.store.replay import Summary, summarise
from engine.strategy.protocol import Strategy
from shm import scratch
from shm.layouts import EVENT, EXECUTION, INTENT, SIGNAL, SIGNAL_BAR

STEP_NS = 20_000_000
"""Ticks are handed over in portions of so much recorded time."""
DUTY_NS = 100_000_000
HOLE_NS = 120_000_000_000
"""A silence longer than this is skipped: nobody was recording."""
MATCH_NS = 1_000_000_000
"""An intent is the recorded one if it comes within this time of it."""
_BACKWARD_NS = 60_000_000_000
Records = npt.NDArray[np.void]


class NoTicks(Exception):
    """The day can't be replayed: nothing of it was recorded."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Recorded against replayed. ``bars_*`` count signals that close a bar; ``differ_first`` names the first that
    differs, empty if none does."""

    bars_recorded: int
    bars_replayed: int
    bars_same: int
    bars_differ: int
    differ_first: str
    intents_recorded: int
    intents_replayed: int
    intents_same: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """``summary``: what was recorded. ``lives``: instances that made the record, one after another."""

    summary: Summary
    lives: int
    lost_ticks: int
    signals_recorded: int
    signals_replayed: int
    models: tuple[int, ...]
    missing_models: tuple[int, ...]
    comparison: Comparison
    seconds: float

    @property
    def reproduced(self) -> bool:
        """Every recorded bar came out as it was, where nothing was lost."""
        return self.comparison.bars_differ == 0 and self.comparison.bars_recorded == self.comparison.bars_same


@dataclass(frozen=True, slots=True)
class Portion:
    """Consecutive ticks of one life. ``lost``: some are missing before them."""

    life: int
    wall_offset_ns: int
    lost: bool
    ticks: Records


def portions(state_dir: Path, date: int) -> Iterator[Portion]:
    """The ticks of a day in runs without loss; a new life begins where sequences or times begin anew."""
    life, expected, last_ns, boot = 0, -1, 0, 0
    for header, records in iter_blocks(state_dir, date):
        ticks = records.copy()
        cuts = np.flatnonzero(np.diff(ticks["sequence"]) != 1) + 1
        for part in np.split(ticks, cuts):
            first, t_ns = int(part["sequence"][0]), int(part["t_socket_ns"][0])
            anew = expected >= 0 and (header.boot != boot or first < expected or t_ns < last_ns - _BACKWARD_NS)
            lost = expected >= 0 and first > expected and not anew
            life += anew
            expected, last_ns, boot = int(part["sequence"][-1]) + 1, int(part["t_socket_ns"][-1]), header.boot
            yield Portion(life, header.wall_offset_ns, lost, part)


def recorded_signals(state_dir: Path, date: int) -> Records:
    """All signals that were kept (dtype SIGNAL): those that close a bar, of the others a sample."""
    found = [records.copy() for _, records in iter_blocks(state_dir, date, "signals")]
    return np.concatenate(found) if found else np.zeros(0, SIGNAL)


class Broker:
    """The broker's side as the journal has it: executions and order events, in time order."""

    def __init__(self, state_dir: Path, date: int) -> None:
        self.executions: deque[tuple[int, Records]] = deque()
        self.states: dict[int, deque[tuple[int, Records]]] = {}
        self.intents: list[Records] = []
        if not journal_path(state_dir).exists():
            return
        with read_only(journal_path(state_dir)) as db:
            for row, wall_ns, raw in db.execute(
                "SELECT row, wall_ns, raw FROM orders WHERE day = ? AND raw IS NOT NULL ORDER BY wall_ns, id", (date,)
            ):
                if row == "INTENT":
                    intent = np.frombuffer(raw, INTENT).copy()
                    if intent[0]["source"] == Source.ALGO and intent[0]["kind"] == IntentKind.NEW:
                        self.intents.append(intent)
                elif row in ("STATE", "REFUSED"):
                    event = np.frombuffer(raw, EVENT).copy()
                    self.states.setdefault(int(event[0]["ref_id"]), deque()).append((wall_ns, event))
            for wall_ns, raw in db.execute(
                "SELECT wall_ns, raw FROM executions WHERE day = ? ORDER BY wall_ns, id", (date,)
            ):
                self.executions.append((wall_ns, np.frombuffer(raw, EXECUTION).copy()))


class Stage:
    """One life: an instance with ml-service and algo, fed from the record."""

    def __init__(
        self, config: Config, state: Path, first: Portion, broker: Broker, strategy: Strategy | None = None
    ) -> None:
        t_ns = int(first.ticks["t_socket_ns"][0])
        self.clock = ManualClock(t_ns, t_ns + first.wall_offset_ns)
        self._instance = PrivateInstance(config, state, self.clock, repeatable=True)
        context = self._instance.context
        self._broker = broker
        bridge, watchdog = context(topology.BRIDGE), context(topology.WATCHDOG)
        self._ticks = bridge.ring_writer("ticks")
        self._executions = bridge.ring_writer("executions")
        self._events = bridge.ring_writer(f"events.{topology.BRIDGE}")
        self._positions = bridge.cell_writer("positions")
        self._lease = watchdog.cell_writer("lease")
        self._orders = bridge.ring_reader("orders.algo", 256)
        self._commands = context(topology.CLI).ring_writer("commands.cli")
        self.observer = Observer(context(topology.RECORDER), beats=False)
        ml_context, algo_context = context(topology.ML), context(topology.ALGO)
        self.ml, self.algo = MlService(ml_context), Algo(algo_context, strategy)
        self._services = (Driven(ml_context, self.ml), Driven(algo_context, self.algo))
        self._renew(t_ns)
        for service in self._services:
            service.agent.on_start(t_ns)
        self._next_duty_ns = t_ns
        self._live: dict[int, int] = {}
        """Recorded intent id to the replayed one, while its fate is still to be told."""
        self.intents = self.same = 0

    def close(self) -> None:
        self._instance.close()

    def swap(self, version: int) -> None:
        """Let ml-service take another model at its next bar, as it did on the day."""
        c = self._commands.record
        c[0] = np.zeros((), c.dtype)
        c["kind"], c["arg"], c["command_id"] = int(CommandKind.SWAP_MODEL), version, self.clock.now
        self._commands.publish_record()

    def play(self, portion: Portion) -> None:
        """Hand over ticks at the times at which they were decoded."""
        ticks = portion.ticks
        if portion.lost:
            self.ml.market.invalidate(int(ticks["t_socket_ns"][0]))
        times = np.maximum.accumulate(np.maximum(ticks["t_decoded_ns"], ticks["t_socket_ns"]))
        cuts = np.flatnonzero(np.diff(times // STEP_NS)) + 1
        for begin, stop in zip((0, *cuts.tolist()), (*cuts.tolist(), len(ticks)), strict=True):
            self._idle(int(times[begin]))
            self.clock.now = max(self.clock.now, int(times[stop - 1]))
            self._ticks.publish(ticks[begin:stop])
            self._turn()

    def finish(self) -> None:
        """Let the last bar close."""
        self._idle(self.clock.now + 2 * DUTY_NS)
        self.observer.look(self.clock.now)

    def _idle(self, until_ns: int) -> None:
        if until_ns - self.clock.now > HOLE_NS:
            self._next_duty_ns = until_ns
        while self._next_duty_ns < until_ns:
            self.clock.now = max(self.clock.now, self._next_duty_ns)
            self._turn()

    def _turn(self) -> None:
        now_ns = self.clock.now
        self._tell(now_ns)
        self.ml.do_work(now_ns)
        self.algo.do_work(now_ns)
        if now_ns >= self._next_duty_ns:
            self._next_duty_ns = now_ns + DUTY_NS
            self._renew(now_ns)
            for service in self._services:
                service.duties(now_ns)
            self.observer.look(now_ns)
        self._answer(now_ns)

    def _renew(self, now_ns: int) -> None:
        lease = self._lease.value[0]
        lease["owner"], lease["epoch"], lease["granted_ns"] = int(Owner.BRIDGE), 1, now_ns
        lease["expires_ns"] = now_ns + 10 * DUTY_NS
        self._lease.publish()

    # The broker's side.

    def _tell(self, now_ns: int) -> None:
        wall_ns = self.clock.wall_ns(now_ns)
        queue = self._broker.executions
        while queue and queue[0][0] <= wall_ns:
            record = queue.popleft()[1]
            self._executions.publish(record)
            self._book(record[0])
        for recorded, mine in list(self._live.items()):
            states = self._broker.states.get(recorded, deque())
            while states and states[0][0] <= wall_ns:
                event = states.popleft()[1]
                event["ref_id"] = mine
                self._events.publish(event)
            if not states:
                del self._live[recorded]

    def _book(self, x: np.void) -> None:
        symbol = int(x["symbol"])
        p = self._positions.value[symbol]
        if x["kind"] == ExecKind.FILL:
            signed = int(x["side"]) * float(x["qty"])
            p["qty"] += signed
            p["cash_flow_usd"] -= signed * float(x["price"])
            p["executions"] += 1
        elif x["kind"] == ExecKind.COMMISSION and math.isfinite(float(x["commission_usd"])):
            p["commissions_usd"] += float(x["commission_usd"])
        self._positions.publish(symbol)

    def _answer(self, now_ns: int) -> None:
        for intent in self._orders.poll():
            if intent["kind"] != IntentKind.NEW:
                continue
            self.intents += 1
            recorded = self._recorded(intent)
            if recorded:
                self.same += 1
                self._live[recorded] = int(intent["intent_id"])
                continue
            e = self._events.record
            e[0] = np.zeros((), e.dtype)
            e["t_ns"], e["kind"], e["code"] = now_ns, int(EventKind.ORDER_STATE), int(OrderState.CANCELLED)
            e["symbol"], e["source"], e["ref_id"] = intent["symbol"], int(Source.ALGO), intent["intent_id"]
            self._events.publish_record()

    def _recorded(self, intent: np.void) -> int:
        """Id of the recorded intent that this one is, 0 if there is none; each is matched once."""
        now_ns = int(intent["t_intent_ns"])
        for n, other in enumerate(self._broker.intents):
            o = other[0]
            if int(o["t_intent_ns"]) > now_ns + MATCH_NS:
                break
            near = abs(int(o["t_intent_ns"]) - now_ns) <= MATCH_NS
            if near and o["symbol"] == intent["symbol"] and o["side"] == intent["side"]:
                del self._broker.intents[n]
                return int(o["intent_id"])
        return 0


def replay(config: Config, date: int | str, *, strategy: Callable[[], Strategy] | None = None) -> Replayed:
    """Run a recorded day; ``strategy`` makes the one to use in place of the configured one, anew for every life.

    Raises NoTicks, ValueError (not a date), BundleError (no model is left)."""
    import time

    began = time.monotonic()
    day = day_number(str(date))
    state_dir = config.state_dir
    mine = structs.replace(config, instance=structs.replace(config.instance, name="replay"))
    try:
        summary = summarise(state_dir, day, universe.instruments(config))
    except StoreError as error:
        raise NoTicks(str(error)) from error
    if not summary.ticks:
        raise NoTicks(f"no ticks were recorded on {day}: see the directories in {state_dir / 'ticks'}")
    recorded = recorded_signals(state_dir, day)
    served, swaps = _models(recorded)
    broker = Broker(state_dir, day)
    intents = len(broker.intents)
    found: list[Records] = []
    signals = asked = same = lives = 0
    with scratch.directory("l2dash-replay-") as directory:
        ours = Registry(Path(directory) / "models")
        missing = _lend(Registry(state_dir / "models"), ours, served)
        stage: Stage | None = None
        life = -1
        for portion in portions(state_dir, day):
            if portion.life != life or stage is None:
                if stage is not None:
                    found, signals, asked, same = _close(stage, found, signals, asked, same)
                life, lives = portion.life, lives + 1
                stage = Stage(mine, Path(directory), portion, broker, strategy() if strategy is not None else None)
            while swaps and swaps[0][0] <= int(portion.ticks["t_socket_ns"][-1]):
                version = swaps.popleft()[1]
                if version not in missing:
                    stage.swap(version)
                    ours.promote(version)  # what a later life begins with
            stage.play(portion)
        assert stage is not None
        found, signals, asked, same = _close(stage, found, signals, asked, same)
    bars = np.concatenate(found) if found else np.zeros(0, SIGNAL)
    total, equal, differ, first = compare(recorded[(recorded["flags"] & SIGNAL_BAR) != 0], bars, config.model.bar_s)
    return Replayed(
        summary, lives, sum(max(0, g.lost) for g in summary.gaps), len(recorded), signals, tuple(served), missing,
        Comparison(total, len(bars), equal, differ, first, intents, asked, same), time.monotonic() - began,
    )  # fmt: skip


def _close(
    stage: Stage, found: list[Records], signals: int, asked: int, same: int
) -> tuple[list[Records], int, int, int]:
    stage.finish()
    bars = stage.observer.bars
    stage.close()
    return [*found, bars], signals + stage.observer.signals, asked + stage.intents, same + stage.same


def _models(recorded: Records) -> tuple[list[int], deque[tuple[int, int]]]:
    """Versions in the order in which they served, and (time, version) of every change."""
    served: list[int] = []
    swaps: deque[tuple[int, int]] = deque()
    now = 0
    for t_ns, version in zip(recorded["t_signal_ns"].tolist(), recorded["model_id"].tolist(), strict=True):
        if version and version != now:
            if now:
                swaps.append((t_ns, version))
            now = version
            if version not in served:
                served.append(version)
    return served, swaps


def _lend(theirs: Registry, ours: Registry, served: list[int]) -> tuple[int, ...]:
    """Copy the models that served (else the current one) into a registry of our own; returns those that are gone."""
    ours.directory.mkdir(parents=True, exist_ok=True)
    missing = [v for v in served if not theirs.path(v).exists()]
    wanted = [v for v in served if v not in missing]
    if not wanted:
        current = theirs.current
        if current is None:
            raise BundleError(f"no model in {theirs.directory}: make one with `l2dash retrain`")
        wanted = [current]
    for version in wanted:
        shutil.copy2(theirs.path(version), ours.path(version))
    ours.promote(wanted[0])
    return tuple(missing)


_EXACT = ("regime", "model_id")
_CLOSE = ("confidence", "confidence_ema", "step_loglik")


def compare(recorded: Records, replayed: Records, bar_s: float) -> tuple[int, int, int, str]:
    """(recorded, same, different, words of the first difference) of signals that close bars, by symbol and bar end.

    A recorded bar that did not come out at all counts as neither: the counts tell.
    """
    bar_ns = int(bar_s * 1e9)
    mine = {(int(s["symbol"]), int(s["t_signal_ns"]) // bar_ns): s for s in replayed}
    same = differ = 0
    first = ""
    for r in recorded:
        key = (int(r["symbol"]), int(r["t_signal_ns"]) // bar_ns)
        m = mine.get(key)
        if m is None:
            continue
        wrong = [f for f in _EXACT if r[f] != m[f]]
        wrong += [f for f in _CLOSE if not np.isclose(r[f], m[f], rtol=1e-5, atol=1e-6, equal_nan=True)]
        same += not wrong
        differ += bool(wrong)
        if wrong and not first:
            words = ", ".join(f"{f} {r[f]} -> {m[f]}" for f in wrong)
            first = f"symbol {key[0]} at {int(r['t_signal_ns'])} ns: {words}"
    return len(recorded), same, differ, first
