"""The operator: what is asked for in the plan, and a person's habits: resume, accept, reset when it is time."""

from __future__ import annotations

import math

import numpy as np

from engine.cockpit.blotter import Blotter
from engine.cockpit.desk import Desk
from engine.cockpit.durable import DurableLog
from engine.cockpit.tail import Tail
from engine.cockpit.ticket import Ticket
from engine.domain.codes import Badge, CommandKind, IntentKind, OrderType, Side, Source, TimeInForce
from engine.domain.instruments import ALL_SYMBOLS
from engine.risk.release import EXCUSE_REMAINING, OVERRIDE_DAY
from engine.runtime.context import Context
from shm.ring import RingFull

WHO = "sim"
_STOPS = (CommandKind.PAUSE, CommandKind.KILL, CommandKind.FLATTEN)


class Cockpit:
    """One life of the cockpit: its desk and what it hears."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.tail = Tail(context, Blotter(context.instruments, context.clock.wall_ns), DurableLog(1))
        self.tail.prime()
        self._desk = Desk(context, self.tail)
        self._arm = context.cell_writer("arm")

    def command(self, kind: CommandKind, reason: str, flags: int = 0, arg: float = 0.0) -> int:
        """Stop cell first, as the desk does it. Returns the command's id, 0 if the ring was full."""
        if kind in _STOPS:
            self._desk.engage(kill=kind == CommandKind.KILL)
        try:
            return self._desk.command(kind, WHO, reason, flags=flags, arg=arg).ref_id
        except RingFull:
            return 0

    def order(self, symbol: int, side: int, qty: float, limit: float) -> int:
        order_type = OrderType.MKT if math.isnan(limit) else OrderType.LMT
        instrument = self._context.instruments[symbol]
        ticket = Ticket(instrument, Side(side), qty, order_type, limit, TimeInForce.DAY)  # type: ignore[arg-type]
        try:
            return self._desk.order(ticket, WHO, b"", 0)
        except RingFull:
            return 0

    def stream(self, gone: bool, kill: bool) -> None:
        """The armed stream breaks, or comes back disarmed."""
        a = self._arm.value[0]
        a["updated_ns"] = self._context.clock.now_ns()
        a["armed"], a["kill_on_gone"] = int(gone), int(kill)
        a["stream_gone_since_ns"] = self._context.clock.now_ns() if gone else 0
        self._arm.publish()


class CommandLine:
    """The command line: another writer, with rings and a stop cell of its own."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._commands = context.ring_writer("commands.cli")
        self._orders = context.ring_writer("orders.cli")
        self._stop = context.cell_writer("stop.cli")
        self._watchdog = context.cell_reader("stop.watchdog")

    def command(self, kind: CommandKind, reason: str, flags: int = 0, arg: float = 0.0) -> int:
        now_ns = self._context.clock.now_ns()
        if kind in _STOPS:
            self._engage(kind == CommandKind.KILL, now_ns)
        command_id = self._context.ids.next(Source.CLI)
        self._commands.record[0] = (
            0, now_ns, command_id, ALL_SYMBOLS, int(kind), int(Source.CLI), flags, arg,
            WHO.encode(), reason.encode(), 0,
        )  # fmt: skip
        try:
            self._commands.publish_record()
        except RingFull:
            return 0
        return command_id

    def _engage(self, kill: bool, now_ns: int) -> None:
        cell, released = self._stop.value[0], self._watchdog.read()
        stop_id = int(cell["stop_id"])
        held_kill = bool(cell["kill"]) and stop_id > int(released["released_kill_id"])
        held_pause = bool(cell["pause"]) and stop_id > int(released["released_pause_id"])
        cell["kill"], cell["pause"] = kill or held_kill, not kill or held_pause
        cell["kill_reason"] = 1 << Badge.KILL if cell["kill"] else 0
        cell["since_ns"] = cell["stop_id"] = now_ns
        self._stop.publish()

    def order(self, symbol: int, side: int, qty: float, limit: float) -> int:
        intent_id = self._context.ids.next(Source.CLI)
        r = self._orders.record
        r.view(np.uint8)[:] = 0  # assigning 0 would write the text "0" into the key
        r["t_intent_ns"], r["intent_id"], r["symbol"] = self._context.clock.now_ns(), intent_id, symbol
        r["kind"], r["source"], r["side"] = int(IntentKind.NEW), int(Source.CLI), side
        r["order_type"] = int(OrderType.MKT if math.isnan(limit) else OrderType.LMT)
        r["tif"], r["qty"], r["limit_price"] = int(TimeInForce.DAY), qty, limit
        try:
            self._orders.publish_record()
        except RingFull:
            return 0
        return intent_id


Hands = Cockpit | CommandLine
__all__ = ["EXCUSE_REMAINING", "OVERRIDE_DAY", "Cockpit", "CommandLine", "Hands"]
