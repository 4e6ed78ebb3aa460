"""What an operator does here, on its way into shared memory: audit first, own stop cell, then the command or intent.

A stop (pause, kill, flatten) is in our own STOP cell before anything else can go wrong: it needs nobody's consent, and
the gate ORs it in. Only the watchdog releases it again.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass

from engine import topology
from engine.cockpit.tail import Result, Tail
from engine.cockpit.ticket import Ticket
from engine.domain.codes import Badge, CommandKind, EventKind, IntentKind, Severity, Source
from engine.domain.instruments import ALL_SYMBOLS
from engine.runtime.context import Context

VERDICT_S = 0.25
RELEASE_S = 1.0
"""For releases: the watchdog writes its latch file first."""
_POLL_S = 0.002
KILL_BIT = 1 << Badge.KILL


@dataclass(frozen=True, slots=True)
class Sent:
    """An action that stands in shared memory."""

    ref_id: int
    audit_failed: bool = False


class Desk:
    """The operator's writer: stop cell, commands and orders. One per cockpit."""

    def __init__(self, ctx: Context, tail: Tail) -> None:
        self._ctx = ctx
        self._tail = tail
        self._commands = ctx.ring_writer("commands.operator")
        self._orders = ctx.ring_writer("orders.operator")
        self._stop = ctx.cell_writer("stop.operator")
        self._watchdog = ctx.cell_reader("stop.watchdog")

    # -- stops ---------------------------------------------------------------------------------------------------

    def engage(self, *, kill: bool) -> int:
        """Pause (or kill) in our own stop cell, now. Returns the stop_id.

        A newer stop_id would revive a stop in this cell that was released meanwhile: those are cleared first.
        """
        now_ns = self._ctx.clock.now_ns()
        cell, released = self._stop.value[0], self._watchdog.read()
        stop_id = int(cell["stop_id"])
        held_kill = bool(cell["kill"]) and stop_id > int(released["released_kill_id"])
        held_pause = bool(cell["pause"]) and stop_id > int(released["released_pause_id"])
        cell["kill"] = kill or held_kill
        cell["kill_reason"] = KILL_BIT if kill or held_kill else 0
        cell["pause"] = not kill or held_pause
        cell["since_ns"] = now_ns
        cell["stop_id"] = now_ns
        self._stop.publish()
        return now_ns

    # -- commands ------------------------------------------------------------------------------------------------

    def command(
        self, kind: CommandKind, who: str, reason: str, *, symbol: int = ALL_SYMBOLS, flags: int = 0, arg: float = 0.0
    ) -> Sent:
        """Audit, then the command. A failed audit alarms and never holds up a stop. Raises RingFull."""
        ctx = self._ctx
        command_id = ctx.ids.next(Source.OPERATOR)
        audit_failed = not self._audit(int(kind), command_id, f"{who}: {reason}", symbol)
        record = self._commands.record
        record[0] = (
            0, ctx.clock.now_ns(), command_id, symbol, int(kind), int(Source.OPERATOR), flags, arg,
            _cut(who, 32), _cut(reason, 48), 0,
        )  # fmt: skip
        self._commands.publish_record()
        for service in topology.ring("commands.operator").gate:
            ctx.wake(service)
        return Sent(command_id, audit_failed)

    def _audit(self, code: int, ref_id: int, text: str, symbol: int) -> bool:
        try:
            self._ctx.events.emit(
                EventKind.AUDIT, code, symbol=symbol, source=int(Source.OPERATOR), ref_id=ref_id, text=text,
                severity=int(Severity.ROUTINE),
            )  # fmt: skip
        except Exception:
            self._ctx.log.exception(
                "P1: the audit event of an operator action could not be written", extra={"ref_id": ref_id}
            )
            return False
        return True

    # -- orders --------------------------------------------------------------------------------------------------

    def order(self, ticket: Ticket, who: str, key: bytes, mode: int, flags: int = 0) -> int:
        """Audit, blotter line, intent. Returns its id. Raises RingFull; raises RuntimeError if the audit failed."""
        ctx = self._ctx
        intent_id = ctx.ids.next(Source.OPERATOR)
        i = ticket.instrument
        if not self._audit(0, intent_id, f"{who}: {ticket.words}", i.index):
            raise RuntimeError("the audit event could not be written; the order was not sent")
        now_ns = ctx.clock.now_ns()
        r = self._orders.record
        r[0] = 0
        r["t_intent_ns"], r["intent_id"], r["symbol"], r["kind"] = now_ns, intent_id, i.index, int(IntentKind.NEW)
        r["source"], r["side"], r["order_type"] = int(Source.OPERATOR), int(ticket.side), int(ticket.order_type)
        r["tif"], r["flags"], r["qty"], r["limit_price"] = int(ticket.tif), flags, float(ticket.qty), ticket.limit
        r["key"], r["mode"] = key, mode
        wall_ns = ctx.clock.wall_ns(now_ns)
        self._tail.blotter.pending(
            intent_id, i.index, int(Source.OPERATOR), int(ticket.side), ticket.qty, ticket.limit, wall_ns
        )
        self._orders.publish_record()
        ctx.wake(topology.BRIDGE)
        return intent_id

    def cancel(self, target_id: int, symbol: int, who: str) -> int:
        """Ask to cancel one order by its intent id. Raises RingFull."""
        ctx = self._ctx
        intent_id = ctx.ids.next(Source.OPERATOR)
        self._audit(0, intent_id, f"{who}: CANCEL {target_id}", symbol)
        self._tail.blotter.cancel_request(intent_id, target_id)
        r = self._orders.record
        r[0] = 0
        r["t_intent_ns"], r["intent_id"], r["symbol"], r["kind"] = (
            ctx.clock.now_ns(),
            intent_id,
            symbol,
            int(IntentKind.CANCEL),
        )
        r["source"], r["limit_price"], r["target_id"] = int(Source.OPERATOR), math.nan, target_id
        self._orders.publish_record()
        ctx.wake(topology.BRIDGE)
        return intent_id

    # -- verdicts ------------------------------------------------------------------------------------------------

    async def verdict(self, ref_id: int, timeout_s: float = VERDICT_S) -> Result | None:
        """The gate's or the watchdog's answer to an intent or command; None if none came in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            self._tail.drain()
            found = self._tail.results.get(ref_id)
            if found is not None or loop.time() >= deadline:
                return found
            await asyncio.sleep(_POLL_S)


def _cut(text: str, size: int) -> bytes:
    return text.encode()[:size].decode(errors="ignore").encode()
