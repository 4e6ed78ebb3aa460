"""The command line's hand in a running instance: straight through shared memory, with no server in between.

The CLI is one writer under a file lock: its stop cell, order ring, command ring and events ring have exactly one
writer at any time. Whatever an operator asks for stands in the events ring before it is carried out.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import click
import numpy as np

from engine import topology
from engine.cli.errors import CliError, Refused
from engine.config import Config
from engine.domain.codes import CommandKind, EventKind, Mode, OrderState, Severity, Source
from engine.domain.instruments import ALL_SYMBOLS, DISPLAY_NAMES, Instrument
from engine.runtime import instance
from engine.runtime.context import Context
from engine.runtime.ids import IdSource
from shm.ring import RingFull, RingReader

LOCK = "cli.lock"
LOCK_WAIT_S = 5.0
_POLL_S = 0.002
_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """A service's word on a command: ``done`` or refused, and why."""

    done: bool
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's word on an intent. ``state`` is an OrderState; ``refusal`` is set when it is REFUSED."""

    state: OrderState
    refusal: int
    text: str


def who_am_i() -> str:
    """The person behind the command, as far as the host knows: at most 32 bytes with its origin."""
    name = os.environ.get("SUDO_USER") or ""
    if not name:
        try:
            name = getpass.getuser()
        except (OSError, KeyError):
            name = f"uid {os.getuid()}"
    return f"cli:{name}"[:32]


class Access:
    """One command's attachment, exclusive while it lasts. Raises Refused while another command holds the lock."""

    def __init__(self, config: Config, *, clock: Any = None) -> None:
        self.config = config
        self._lock = self._take_lock()
        try:
            self.context = Context(config, topology.CLI, clock) if clock else Context.for_cli(config)
            self.clock = self.context.clock
            self.who = who_am_i()
            self.ids = self._ids()
            self._results: dict[str, RingReader] = {}
        except BaseException:
            os.close(self._lock)
            raise

    # -- life ---------------------------------------------------------------------------------------------------

    def _take_lock(self) -> int:
        path = self.config.shm_dir / LOCK
        if not self.config.shm_dir.is_dir():
            raise Refused(f"instance {self.config.instance.name} is not up: start it with `l2dash up`")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return fd
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(fd)
                    raise Refused(
                        f"another l2dash command holds {path} for more than {LOCK_WAIT_S:.0f} s; "
                        "end it, or use `l2dash flatten --direct`, which needs no lock"
                    ) from None
                time.sleep(0.02)

    def _ids(self) -> IdSource:
        """Ids are unique for starts in different seconds: commands of one second take later ones in turn."""
        raw = os.pread(self._lock, 32, 0).decode(errors="ignore").strip()
        last = int(raw) if raw.isdigit() else 0
        second = max(time.time_ns() // _SECOND, last + 1)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{second}\n".encode(), 0)
        return IdSource(second * _SECOND)

    def close(self) -> None:
        self.context.close()
        os.close(self._lock)

    def __enter__(self) -> Access:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- looking ------------------------------------------------------------------------------------------------

    def alive(self, service: str) -> bool:
        """Does the service's process live?"""
        return instance.heartbeat(self.config, service).alive

    def instrument(self, symbol: str) -> Instrument:
        """A tradable instrument by the broker's or the people's name. Raises UsageError naming those that exist."""
        for i in self.context.instruments:
            if symbol.upper() in (i.symbol, DISPLAY_NAMES.get(i.symbol)):
                if not i.tradable:
                    raise click.UsageError(f"{symbol.upper()} is an index: it is watched, not traded")
                return i
        known = ", ".join(i.symbol for i in self.context.instruments if i.tradable)
        raise click.UsageError(f"no symbol {symbol.upper()}: this instance trades {known}")

    # -- acting -------------------------------------------------------------------------------------------------

    def audit(self, kind: CommandKind | int, text: str, *, symbol: int = ALL_SYMBOLS, ref_id: int = 0) -> None:
        """Say who is about to do what. Comes before the act itself."""
        self.context.events.emit(
            EventKind.AUDIT, int(kind), symbol=symbol, source=Source.CLI, ref_id=ref_id, text=f"{self.who} {text}"
        )
        self.context.wake(topology.RECORDER)

    def alert(self, severity: Severity, text: str) -> None:
        """Journal an alert; the recorder sends it to people."""
        self.context.events.emit(EventKind.ALERT, 0, severity=severity, source=Source.CLI, text=text)
        self.context.wake(topology.RECORDER)

    def stop(self, *, kill: bool = False, pause: bool = False) -> int:
        """Set the command line's own stop cell at once; nobody's consent is needed. Returns the stop id."""
        cell = self.context.cell_writer("stop.cli")
        now = self.clock.now_ns()
        value = cell.value[0]
        released = self.context.cell_reader("stop.watchdog").read()
        # One id serves both flags: a stop of ours that was released must not come back with a newer id.
        if value["kill"] and int(value["stop_id"]) <= int(released["released_kill_id"]):
            value["kill"] = 0
        if value["pause"] and int(value["stop_id"]) <= int(released["released_pause_id"]):
            value["pause"] = 0
        if kill:
            value["kill"] = 1
        if pause:
            value["pause"] = 1
        value["stop_id"] = now
        value["since_ns"] = now
        cell.publish()
        for service in (topology.WATCHDOG, topology.BRIDGE, topology.ALGO):
            self.context.wake(service)
        return now

    def command(
        self,
        kind: CommandKind,
        *,
        to: str = topology.WATCHDOG,
        flags: int = 0,
        arg: float = 0.0,
        symbol: int = ALL_SYMBOLS,
        reason: str = "",
        said: str = "",
    ) -> int:
        """Audit, then write a command; returns its id. ``answer`` waits for the result. Raises CliError if full."""
        self._results[to] = self.context.ring_reader(f"events.{to}")
        command_id = self.ids.next(Source.CLI)
        self.audit(kind, said or kind.name.lower().replace("_", " "), symbol=symbol, ref_id=command_id)
        ring = self.context.ring_writer("commands.cli")
        ring.record.view(np.uint8)[:] = 0  # assigning 0 would write the text "0" into byte strings
        record = ring.record[0]
        record["t_ns"] = self.clock.now_ns()
        record["command_id"] = command_id
        record["symbol"], record["kind"], record["source"] = symbol, int(kind), int(Source.CLI)
        record["flags"], record["arg"] = flags, arg
        record["who"], record["reason"] = self.who.encode()[:32], reason.encode()[:48]
        try:
            ring.publish_record()
        except RingFull as error:
            raise CliError(f"{error}; is {to} running? (l2dash status)") from error
        self.context.wake(to)
        return command_id

    def answer(self, command_id: int, timeout_s: float, *, of: str = topology.WATCHDOG) -> Answer | None:
        """Result of a command, or None when none came in time."""
        found: list[Answer] = []

        def look() -> bool:
            for e in self._results[of].poll():
                if int(e["kind"]) == EventKind.COMMAND_RESULT and int(e["ref_id"]) == command_id:
                    found.append(Answer(int(e["code"]) == 0, e["text"].decode(errors="replace")))
            return bool(found)

        wait_until(look, timeout_s)
        return found[0] if found else None

    def send_intent(self, instrument: Instrument | None, said: str, **fields: Any) -> int:
        """Audit, then write one intent (fields of ``shm.layouts.INTENT``); returns its id. Raises CliError if full."""
        self._results[topology.BRIDGE] = self.context.ring_reader(f"events.{topology.BRIDGE}")
        intent_id = self.ids.next(Source.CLI)
        symbol = instrument.index if instrument is not None else ALL_SYMBOLS
        self.audit(0, said, symbol=symbol, ref_id=intent_id)
        ring = self.context.ring_writer("orders.cli")
        ring.record.view(np.uint8)[:] = 0  # assigning 0 would write the text "0" into byte strings
        record = ring.record[0]
        record["t_intent_ns"], record["intent_id"] = self.clock.now_ns(), intent_id
        record["symbol"], record["source"] = symbol, int(Source.CLI)
        record["mode"] = int(Mode[self.config.instance.mode.upper()])
        record["limit_price"] = float("nan")
        for name, value in fields.items():
            record[name] = value
        try:
            ring.publish_record()
        except RingFull as error:
            raise CliError(f"{error}; is {topology.BRIDGE} running? (l2dash status)") from error
        self.context.wake(topology.BRIDGE)
        return intent_id

    def verdict(
        self, intent_id: int, timeout_s: float, *, settled: Callable[[OrderState], bool] | None = None
    ) -> Verdict | None:
        """The gate's word on an intent; with ``settled`` waits on for such a state. None when nothing came in time."""
        last: list[Verdict] = []

        def look() -> bool:
            for e in self._results[topology.BRIDGE].poll():
                if int(e["ref_id"]) != intent_id:
                    continue
                text = e["text"].decode(errors="replace")
                if int(e["kind"]) == EventKind.REFUSED:
                    last.append(Verdict(OrderState.REFUSED, int(e["code"]), text))
                elif int(e["kind"]) == EventKind.ORDER_STATE:
                    last.append(Verdict(OrderState(int(e["code"])), 0, text))
            return bool(last) and (settled is None or last[-1].state == OrderState.REFUSED or settled(last[-1].state))

        wait_until(look, timeout_s)
        return last[-1] if last else None


def wait_until(condition: Callable[[], bool], timeout_s: float, poll_s: float = _POLL_S) -> bool:
    """Poll until the condition holds; False when it did not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(poll_s)
    return True


def open_positions(config: Config) -> list[tuple[str, float]]:
    """(symbol, confirmed quantity) of what is open, also when every service is dead. Empty without an instance."""
    from shm.errors import ShmError

    with contextlib.suppress(ShmError), Context.for_cli(config) as context:
        cell = context.cell_reader("positions")
        found = [(i.symbol, float(cell.read(i.index)["qty"])) for i in context.instruments if i.tradable]
        return [(symbol, qty) for symbol, qty in found if qty]
    return []


def working_orders(config: Config) -> int:
    """Orders that the bridge last knew to be working or of unknown fate."""
    from shm.errors import ShmError

    with contextlib.suppress(ShmError), Context.for_cli(config) as context:
        broker = context.cell_reader("broker").read()
        return int(broker["working_orders"]) + int(broker["unknown_orders"])
    return 0


def what_remains(config: Config) -> str:
    """Open positions and working orders in words, from the last confirmed state; empty if there is nothing."""
    parts = [f"{symbol} {qty:+g}" for symbol, qty in open_positions(config)]
    orders = working_orders(config)
    if orders:
        parts.append(f"{orders} working order{'s' if orders > 1 else ''}")
    return ", ".join(parts)
