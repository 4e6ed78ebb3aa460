"""Looks on in the recorder's place: reads what the agents tell, keeps what a result is made of, and beats.

Entries are blocked while nobody records. Here the observer is who records: into memory, and never behind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine import topology
from engine.domain.codes import EventKind, ExecKind, IntentKind, OrderState, Refusal, ServiceState, Severity
from engine.replay.tally import Tally
from engine.risk.latch import StopEvent
from engine.runtime.context import Context
from shm.layouts import SIGNAL, SIGNAL_BAR


@dataclass(frozen=True, slots=True)
class Note:
    """Something of weight that a service said. ``t_ns`` on the simulated clock."""

    t_ns: int
    service: str
    severity: int
    text: str


class Observer:
    """``tally`` has fills and equity, ``notes`` alerts and stops, ``bars`` the signals that closed a bar."""

    def __init__(self, context: Context, *, beats: bool = True) -> None:
        self._context = context
        now_ns = context.clock.now_ns()
        self._beat = context.start_heartbeat(now_ns) if beats else None
        if self._beat is not None:
            self._beat.set_state(ServiceState.READY, now_ns)
        self._executions = context.ring_reader("executions", 256)
        self._intents = context.ring_reader("orders.algo", 256)
        self._signals = context.ring_reader("signals", 4096)
        services = (topology.BRIDGE, topology.WATCHDOG, topology.ML, topology.ALGO)
        self._events = {name: context.ring_reader(f"events.{name}", 256) for name in services}
        self._positions = context.cell_reader("positions")
        self._books = context.cell_reader("book")
        self._stocks = [i.index for i in context.instruments if i.index != context.index_symbol]
        self._asked = 0
        self.tally = Tally()
        self.signals = 0
        self.intents = 0
        self.cancels = 0
        self.orders = 0
        self._unsent: set[int] = set()
        self.refused: dict[str, int] = {}
        self.notes: list[Note] = []
        self.kills: list[str] = []
        self._bars: list[npt.NDArray[np.void]] = []

    @property
    def lost(self) -> int:
        """Records that this observer itself lost: 0, or the figures are wrong."""
        return self._context.lost

    @property
    def bars(self) -> npt.NDArray[np.void]:
        """Signals that closed a bar (dtype SIGNAL), in time order."""
        return np.concatenate(self._bars) if self._bars else np.zeros(0, SIGNAL)

    @property
    def asked(self) -> bool:
        """Has the strategy asked for something since ``asked_seen``?"""
        return self._intents.position + self._intents.waiting > self._asked

    def asked_seen(self) -> None:
        self._asked = self._intents.position + self._intents.waiting

    def look(self, now_ns: int) -> None:
        """Read everything that waits; mark the equity."""
        for record in self._executions.poll():
            if record["kind"] == ExecKind.COMMISSION:
                self.tally.commission(bytes(record["exec_id"]), float(record["commission_usd"]))
            elif record["kind"] == ExecKind.FILL:
                self.tally.fill(
                    bytes(record["exec_id"]), int(record["symbol"]), int(record["side"]) * float(record["qty"]),
                    float(record["price"]), int(record["t_socket_ns"]),
                )  # fmt: skip
        for intent in self._intents.poll():
            if intent["kind"] == IntentKind.NEW:
                self.intents += 1
                self._unsent.add(int(intent["intent_id"]))
            elif intent["kind"] == IntentKind.CANCEL:
                self.cancels += 1
        while len(signals := self._signals.poll()):
            self.signals += len(signals)
            closing = signals[(signals["flags"] & SIGNAL_BAR) != 0]
            if len(closing):
                self._bars.append(closing.copy())
        for name, ring in self._events.items():
            for event in ring.poll():
                self._event(name, event)
        marks = {}
        for s in self._stocks:
            mid = float(self._books.read(s)["mid"])
            if mid > 0:
                marks[s] = mid
        self.tally.mark(marks, now_ns)
        if self._beat is not None:
            self._beat.beat(now_ns, 1, 1, 0, self.lost)

    def _event(self, service: str, event: np.void) -> None:
        kind = int(event["kind"])
        if kind == EventKind.ORDER_STATE:
            if event["code"] == OrderState.SENT and int(event["ref_id"]) in self._unsent:
                self._unsent.discard(int(event["ref_id"]))
                self.orders += 1
        elif kind == EventKind.REFUSED:
            name = Refusal(int(event["code"])).name
            self.refused[name] = self.refused.get(name, 0) + 1
        elif int(event["severity"]) >= Severity.ROUTINE or kind in (EventKind.STOP, EventKind.MODEL):
            text = bytes(event["text"]).decode(errors="replace")
            if kind == EventKind.STOP and service == topology.WATCHDOG and event["code"] == StopEvent.KILL:
                self.kills.append(text)
            self.notes.append(Note(int(event["t_ns"]), service, int(event["severity"]), text))

    def position(self, symbol: int) -> float:
        """What the bridge says is held."""
        return float(self._positions.read(symbol)["qty"])
