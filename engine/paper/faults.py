"""Faults on command: what brokers, networks and markets do to a client. One row per fault in ``FAULTS``.

A handler gets the gateway's fault desk and the arguments of the command; it returns one line that says what it did.
Unknown or impossible arguments raise FaultError. Faults with a duration undo themselves.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from engine.paper.fault_args import Args, FaultError
from engine.paper.market_faults import MARKET_FAULTS

if TYPE_CHECKING:
    from engine.paper.server import Gateway
    from engine.paper.session import Session

__all__ = ["FAULTS", "FaultDesk", "FaultError"]


class FaultDesk:
    """Carries out faults on one gateway and undoes those that last for a time."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._timers: list[asyncio.TimerHandle] = []

    def apply(self, name: str, values: Mapping[str, Any]) -> str:
        """Carry out a fault by name; returns what was done. Raises FaultError."""
        handler = FAULTS.get(name)
        if handler is None:
            raise FaultError(f"fault {name!r} is unknown; allowed are {', '.join(FAULTS)}")
        args = Args(values)
        try:
            result = handler(self, args)
            args.end()
        except FaultError as error:
            raise FaultError(f"{name}: {error}") from None
        except ValueError as error:
            raise FaultError(f"{name}: {error}") from error
        self.gateway.pump()
        self.gateway.flush_all()
        return result

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after a while; no seconds means never."""
        if seconds > 0:
            self._timers.append(asyncio.get_running_loop().call_later(seconds, action))

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()

    def sessions(self, args: Args) -> list[Session]:
        """The connection named by argument ``client``, or all."""
        client_id = int(args.number("client", -1, -1))
        if client_id < 0:
            return list(self.gateway.sessions)
        return [s for s in self.gateway.clients() if s.client_id == client_id]

    def symbols(self, args: Args) -> list[int]:
        """The symbol named by argument ``symbol``, or all that are traded."""
        name = args.text("symbol", "")
        instruments = self.gateway.catalog.instruments.values()
        chosen = [i.index for i in instruments if (i.symbol == name if name else i.tradable)]
        if not chosen:
            raise FaultError(f"argument 'symbol' is {name!r}, allowed are {', '.join(i.symbol for i in instruments)}")
        return chosen


# Connections.


def disconnect(desk: FaultDesk, args: Args) -> str:
    chosen = desk.sessions(args)
    for session in chosen:
        session.drop("fault: disconnect", abort=True)
    return f"{len(chosen)} connections dropped"


def refuse(desk: FaultDesk, args: Args) -> str:
    seconds = args.number("seconds", 5.0)
    desk.gateway.refuse_until_ns = desk.gateway.now_ns() + int(seconds * 1e9)
    return f"new connections are refused for {seconds:g} s"


def mute(desk: FaultDesk, args: Args) -> str:
    seconds = args.number("seconds", 0.0)
    chosen = desk.sessions(args)
    for session in chosen:
        session.muted = True
    desk.gateway.mute = True

    def undo() -> None:
        desk.gateway.mute = False

    desk.later(seconds, undo)
    return f"{len(chosen)} connections are mute for good, new ones for {seconds:g} s (0: until unmute)"


def unmute(desk: FaultDesk, args: Args) -> str:
    # Muted connections have lost bytes of their stream; only a new connection can be answered again.
    desk.gateway.mute = False
    return "new connections are answered"


def delay(desk: FaultDesk, args: Args) -> str:
    milliseconds, seconds = args.number("ms", 500.0, 0.0, 600_000.0), args.number("seconds", 0.0)
    desk.gateway.reply_delay_s = milliseconds / 1e3

    def undo() -> None:
        desk.gateway.reply_delay_s = 0.0

    desk.later(seconds, undo)
    return f"all replies are late by {milliseconds:g} ms"


def pacing(desk: FaultDesk, args: Args) -> str:
    chosen = desk.sessions(args)
    for session in chosen:
        session.system(100, "Max rate of messages per second has been exceeded: max=50 rec=51 (3)")
        session.drop("fault: pacing")
    return f"{len(chosen)} connections closed for their message rate"


def daily_restart(desk: FaultDesk, args: Args) -> str:
    seconds = args.number("seconds", 30.0)
    refuse(desk, Args({"seconds": seconds}))
    return f"{disconnect(desk, Args({}))}, back in {seconds:g} s"


def id_rollback(desk: FaultDesk, args: Args) -> str:
    desk.gateway.id_rollback = int(args.number("by", 1000.0))
    return f"nextValidId is {desk.gateway.id_rollback} lower than it should be"


def send_error(desk: FaultDesk, args: Args) -> str:
    code, req_id = int(args.number("code")), int(args.number("req_id", -1, -1))
    text = args.text("message", "injected")
    chosen = desk.sessions(args)
    for session in chosen:
        session.error(req_id, code, text)
    return f"error {code} sent to {len(chosen)} connections"


# Connectivity behind the gateway.


def _tell(desk: FaultDesk, code: int, text: str) -> None:
    for session in desk.gateway.clients():
        session.system(code, text)


def lost_1100(desk: FaultDesk, args: Args) -> str:
    desk.gateway.link_up = False
    desk.gateway.feed.silent = True
    _tell(desk, 1100, "Connectivity between IBKR and the paper gateway has been lost.")
    return "link to the broker is down: no data, orders wait"


def restored_1101(desk: FaultDesk, args: Args) -> str:
    desk.gateway.link_up = True
    desk.gateway.feed.forget_all()
    desk.gateway.feed.silent = False
    _tell(desk, 1101, "Connectivity between IBKR and the paper gateway has been restored - data lost.")
    desk.gateway.release_held()
    return "link is up, subscriptions are gone"


def restored_1102(desk: FaultDesk, args: Args) -> str:
    dead = args.flag("dead")
    desk.gateway.link_up = True
    farms = "All data farms are connected: usfarm; ushmds; secdefil."
    _tell(desk, 1102, f"Connectivity between IBKR and the paper gateway has been restored - data maintained. {farms}")
    if not dead:
        desk.gateway.feed.speak()
    desk.gateway.release_held()
    return "link is up, " + ("but no data flows" if dead else "data flows")


def farm_2103(desk: FaultDesk, args: Args) -> str:
    desk.gateway.feed.silent = True
    _tell(desk, 2103, "Market data farm connection is broken:usfarm")
    return "market data farm is down"


def farm_2104(desk: FaultDesk, args: Args) -> str:
    _tell(desk, 2104, "Market data farm connection is OK:usfarm")
    if not args.flag("dead"):
        desk.gateway.feed.speak()
    return "market data farm is up"


def competing_session(desk: FaultDesk, args: Args) -> str:
    lines = list(desk.gateway.feed.tickers.lines)
    for line in lines:
        line.client.error(line.req_id, 10197, "No market data during competing live session")
    return f"error 10197 sent on {len(lines)} tickers"


# Orders.


def reject_next(desk: FaultDesk, args: Args) -> str:
    faults = desk.gateway.desk.faults
    faults.reject, faults.reject_reason = int(args.number("count", 1)), args.text("reason", "injected by a fault")
    return f"the next {faults.reject} orders will be rejected"


def drop_status(desk: FaultDesk, args: Args) -> str:
    desk.gateway.desk.faults.drop = int(args.number("count", 1))
    return f"the next {desk.gateway.desk.faults.drop} orderStatus messages will be dropped"


def duplicate_status(desk: FaultDesk, args: Args) -> str:
    desk.gateway.desk.faults.duplicate = int(args.number("count", 1))
    return f"the next {desk.gateway.desk.faults.duplicate} orderStatus messages will be sent twice"


def fill_on_cancel(desk: FaultDesk, args: Args) -> str:
    desk.gateway.desk.faults.fill_on_cancel = int(args.number("count", 1))
    return f"the next {desk.gateway.desk.faults.fill_on_cancel} cancels will cross a fill"


def fill(desk: FaultDesk, args: Args) -> str:
    chosen, quantity = desk.symbols(args), args.number("quantity", math.inf, 1.0, math.inf)
    gateway = desk.gateway
    now_ns = gateway.catch_up()
    filled = 0
    for order in gateway.desk.ledger.working():
        if order.symbol in chosen and order.working:
            gateway.desk.force_fill(order, quantity, now_ns)
            filled += 1
    return f"{filled} working orders were filled at their limits"


def fill_during_disconnect(desk: FaultDesk, args: Args) -> str:
    seconds = args.number("seconds", 2.0)
    gone = disconnect(desk, Args({}))
    refuse(desk, Args({"seconds": seconds}))
    return f"{gone}, {fill(desk, Args({}))}"


def correct_execution(desk: FaultDesk, args: Args) -> str:
    corrected = desk.gateway.desk.correct_last(args.number("change", 0.01, -1e6, 1e6))
    if corrected is None:
        raise FaultError("there is no execution today; trade first")
    return f"execution {corrected.exec_id} now has price {corrected.price}"


# Market.


def depth_reset(desk: FaultDesk, args: Args) -> str:
    chosen = desk.symbols(args)
    for symbol in chosen:
        desk.gateway.feed.depth.reset(symbol)
    return f"depth of {len(chosen)} symbols was reset"


def depth_malformed(desk: FaultDesk, args: Args) -> str:
    sent = sum(desk.gateway.feed.depth.malform(symbol) for symbol in desk.symbols(args))
    return f"{sent} rows out of range sent"


def depth_after_cancel(desk: FaultDesk, args: Args) -> str:
    return f"{desk.gateway.feed.depth.echo_cancelled()} late rows sent"


def clear(desk: FaultDesk, args: Args) -> str:
    gateway = desk.gateway
    gateway.refuse_until_ns = 0
    gateway.mute = False
    gateway.reply_delay_s = 0.0
    gateway.id_rollback = 0
    gateway.desk.faults.reset()
    desk.close()
    if not gateway.link_up:
        restored_1102(desk, Args({}))
    elif gateway.feed.silent:
        farm_2104(desk, Args({}))
    return "all lasting faults are over"


FAULTS: dict[str, Callable[[FaultDesk, Args], str]] = {
    "disconnect": disconnect,
    "refuse": refuse,
    "mute": mute,
    "unmute": unmute,
    "delay": delay,
    "pacing": pacing,
    "daily_restart": daily_restart,
    "id_rollback": id_rollback,
    "error": send_error,
    "1100": lost_1100,
    "1101": restored_1101,
    "1102": restored_1102,
    "2103": farm_2103,
    "2104": farm_2104,
    "competing_session": competing_session,
    "reject_next": reject_next,
    "drop_status": drop_status,
    "duplicate_status": duplicate_status,
    "fill_on_cancel": fill_on_cancel,
    "fill": fill,
    "fill_during_disconnect": fill_during_disconnect,
    "correct_execution": correct_execution,
    "depth_reset": depth_reset,
    "depth_malformed": depth_malformed,
    "depth_after_cancel": depth_after_cancel,
    **MARKET_FAULTS,
    "clear": clear,
}
