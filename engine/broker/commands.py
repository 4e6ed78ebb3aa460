"""Operator and watchdog commands that are the bridge's to carry out. All others are the watchdog's and pass by."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.broker.bookkeeper import Bookkeeper
from engine.broker.desk import Desk
from engine.broker.register import Register
from engine.broker.session import Session
from engine.domain.codes import ONE_SYMBOL, CommandKind, EventKind
from engine.runtime.events import EventWriter

ENTRIES_ONLY = 1
"""Bit 0 of a CANCEL_ALL's flags."""


class Commands:
    def __init__(
        self, events: EventWriter, books: Bookkeeper, desk: Desk, register: Register, session: Session, dedicated: bool
    ) -> None:
        self._events = events
        self._books = books
        self._desk = desk
        self._register = register
        self._session = session
        self._dedicated = dedicated
        self._handlers: dict[int, Callable[[np.void, int], str | None]] = {
            CommandKind.RECONNECT: self._reconnect,
            CommandKind.CANCEL_ALL: self._cancel_all,
            CommandKind.CANCEL_ENTRIES: self._cancel_entries,
            CommandKind.SNAPSHOT: self._snapshot,
            CommandKind.ACCEPT_POSITIONS: self._accept,
        }

    def handle(self, command: np.void, now_ns: int) -> None:
        handler = self._handlers.get(int(command["kind"]))
        if handler is None:
            return
        text = handler(command, now_ns)
        if text is not None:
            self._events.emit(
                EventKind.COMMAND_RESULT, 0, source=int(command["source"]), ref_id=int(command["command_id"]), text=text
            )

    def _reconnect(self, _: np.void, now_ns: int) -> str:
        self._session.reconnect(now_ns)
        return "connecting now"

    def _cancel_all(self, command: np.void, now_ns: int) -> str:
        if int(command["flags"]) & ENTRIES_ONLY:
            return self._cancel_entries(command, now_ns)
        if int(command["flags"]) & ONE_SYMBOL:
            symbol = int(command["symbol"])
            count = self._desk.cancel([o for o in self._register.active() if o.symbol == symbol], now_ns)
            return f"{count} cancels requested"
        return self.cancel_all(now_ns)

    def cancel_all(self, now_ns: int) -> str:
        """Everything in scope: in one message where the account is ours alone."""
        if self._dedicated:
            self._desk.global_cancel(now_ns)
            if not self._desk.entitled(now_ns):
                return "not ours to send: the watchdog cancels; our own orders are asked for again once it is"
            if not self._desk.connected:
                return "not connected: our own orders are cancelled as soon as we are"
            return "global cancel requested"
        count = self._desk.cancel(self._register.active(), now_ns)
        return f"{count} cancels requested"

    def _cancel_entries(self, _: np.void, now_ns: int) -> str:
        return f"{self.cancel_entries(now_ns)} cancels of entry orders requested"

    def cancel_entries(self, now_ns: int, source: int = 0, *, patient: bool = False) -> int:
        """Orders that add risk; ``source`` 0 for every source. ``patient``: see ``Desk.cancel``."""
        chosen = [o for o in self._register.active() if o.entry and (source in (0, o.source))]
        return self._desk.cancel(chosen, now_ns, patient=patient)

    def _snapshot(self, command: np.void, now_ns: int) -> str | None:
        self._session.snapshot(int(command["command_id"]), int(command["source"]))
        return None

    def _accept(self, _: np.void, now_ns: int) -> str:
        return self._books.accept(now_ns)
