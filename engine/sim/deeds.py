"""Carries out the deeds of a plan on a stage."""

from __future__ import annotations

from collections.abc import Callable

from engine import topology
from engine.domain.codes import CommandKind
from engine.paper.market.synthetic import SyntheticMarket
from engine.sim.gateway import BRIDGE, EMERGENCY
from engine.sim.plan import Deed, Kind
from engine.sim.stage import Stage

_COMMANDS = {
    Kind.PAUSE: CommandKind.PAUSE,
    Kind.RESUME: CommandKind.RESUME,
    Kind.FLATTEN: CommandKind.FLATTEN,
    Kind.KILL: CommandKind.KILL,
    Kind.RESET: CommandKind.RESET,
    Kind.RECONNECT: CommandKind.RECONNECT,
    Kind.CANCEL_ALL: CommandKind.CANCEL_ALL,
}
_LOSSES = ((1100, 0), (2110, 0), (2110, 2104))
"""What the gateway says when it loses the broker, and when it is back (0: 1101 or 1102)."""
_SHORT_NS = 2_000_000_000
"""What a deed without a duration is in the way of."""
_AFTER_NS = 15_000_000_000
"""Links reconnect with back-off, services come up: so long after its end a deed may still be in the way."""


class Deeds:
    """Puts a plan on the stage's agenda. ``ended_ns``: by kind, when the last one has ended."""

    def __init__(self, stage: Stage, begin_ns: int) -> None:
        self._stage, self._begin_ns = stage, begin_ns
        self.ended_ns: dict[Kind, int] = {}
        stage.judge.recent = self.recent

    def recent(self) -> dict[Kind, float]:
        """Seconds since each kind has ended; 0 while it goes on."""
        now_ns = self._stage.clock.now
        return {kind: max(0.0, (now_ns - t) / 1e9) for kind, t in self.ended_ns.items()}

    def schedule(self, deeds: tuple[Deed, ...]) -> None:
        for deed in deeds:
            self._stage.agenda.add(self._begin_ns + deed.at_ns, lambda deed=deed: self._do(deed))  # type: ignore[misc]

    def _do(self, deed: Deed) -> None:
        stage = self._stage
        stage.judge.counts.deeds += 1
        stage.judge.note(f"deed {deed}")
        self.ended_ns[deed.kind] = max(self.ended_ns.get(deed.kind, 0), stage.clock.now + deed.for_ns)
        stage.trouble((deed.for_ns or _SHORT_NS) + (_AFTER_NS if deed.kind not in (Kind.ORDER, Kind.RESUME) else 0))
        stage.heat(1.0)
        self._HANDLERS[deed.kind](self, deed)

    def _later(self, deed: Deed, what: Callable[[], None]) -> None:
        def do() -> None:
            what()
            self._stage.heat(1.0)

        self._stage.agenda.add(self._stage.clock.now + deed.for_ns, do)

    def _doors(self, deed: Deed) -> tuple[str, ...]:
        return (BRIDGE, EMERGENCY) if deed.who == "both" else (deed.who,)

    # Links.

    def _link_down(self, deed: Deed) -> None:
        gateway = self._stage.gateway
        for door in self._doors(deed):
            gateway.trouble[door].refuse_until_ns = gateway.clock.now + deed.for_ns
            found = gateway.doors.get(door)
            if found is not None:
                found.hang_up("the gateway closed the connection")

    def _gateway_restart(self, deed: Deed) -> None:
        if deed.value:
            self._rollback(deed)
        self._link_down(deed)

    def _rollback(self, deed: Deed) -> None:
        for trouble in self._stage.gateway.trouble.values():
            trouble.rollback = 400

    def _broker_lost(self, deed: Deed) -> None:
        gateway = self._stage.gateway
        if gateway.broker_lost:
            return
        code, back = _LOSSES[deed.at_ns // 1_000 % len(_LOSSES)]
        gateway.lose_broker(code)
        self._later(deed, lambda: gateway.find_broker(bool(deed.value) and not back, back))

    def _mute(self, deed: Deed) -> None:
        for door in self._doors(deed):
            trouble = self._stage.gateway.trouble[door]
            trouble.mute_until_ns = max(trouble.mute_until_ns, self._stage.clock.now + deed.for_ns)

    def _half_open(self, deed: Deed) -> None:
        for door in self._doors(deed):
            self._stage.gateway.trouble[door].half_open = True

    def _slow(self, deed: Deed) -> None:
        trouble = self._stage.gateway.trouble[BRIDGE]
        trouble.slow_ns, trouble.slow_until_ns = int(deed.value * 1e9), self._stage.clock.now + deed.for_ns

    def _fill_away(self, deed: Deed) -> None:
        """The session ends, and everything that rests is filled while nobody listens."""
        stage = self._stage
        found = stage.gateway.doors.get(BRIDGE)
        if found is not None:
            found.hang_up("the gateway closed the connection")
        for order in stage.exchange.working():
            stage.exchange.force(order, stage.clock.now)

    # Orders.

    def _reject(self, deed: Deed) -> None:
        self._stage.exchange.rejects += int(deed.value)

    def _cross(self, deed: Deed) -> None:
        self._stage.exchange.cross_cancel = True

    def _statuses(self, deed: Deed) -> None:
        trouble, until_ns = self._stage.gateway.trouble[BRIDGE], self._stage.clock.now + deed.for_ns
        if deed.kind == Kind.STATUS_TWICE:
            trouble.twice_until_ns = until_ns
        elif deed.kind == Kind.STATUS_LOST:
            trouble.lost_until_ns = until_ns
        else:
            trouble.late_until_ns = until_ns

    def _correct(self, deed: Deed) -> None:
        stage = self._stage
        news = stage.exchange.correct_last(deed.value)
        if news is not None:
            stage.gateway.spread([news], news.client_id, stage.clock.now)

    # Market.

    def _market(self, deed: Deed) -> None:
        market = self._stage.exchange.market
        if not isinstance(market, SyntheticMarket):
            return
        self._stage.exchange._touched = True
        symbol = deed.symbol
        if deed.kind == Kind.HALT:
            market.halt(symbol)
            self._later(deed, lambda: self._resume(symbol))
        elif deed.kind == Kind.STALL:
            market.freeze(symbol)
            self._later(deed, lambda: self._resume(symbol))
        elif deed.kind == Kind.WIDE:
            market.widen(symbol, deed.value)
            self._later(deed, lambda: market.widen(symbol, 0.0))
        elif deed.kind == Kind.CROSSED:
            market.cross(symbol, deed.for_ns)
        elif deed.kind == Kind.SHOCK:
            market.shock(symbol, deed.value, deed.for_ns)
        else:
            market.gap_index(deed.value, deed.for_ns)

    def _resume(self, symbol: int) -> None:
        market = self._stage.exchange.market
        assert isinstance(market, SyntheticMarket)
        market.resume(symbol)
        self._stage.exchange._touched = True

    def _data(self, deed: Deed) -> None:
        link = self._stage.link
        if link is None:
            return
        if deed.kind == Kind.NAN:
            link.poison(deed.symbol)
            # the gateway's own remedy, as after 317
            self._stage.agenda.add(self._stage.clock.now + _SHORT_NS, lambda: self._heal(deed.symbol))
        else:
            link.reset_book(deed.symbol)

    def _heal(self, symbol: int) -> None:
        if self._stage.link is not None:
            self._stage.link.reset_book(symbol)

    def _weak_model(self, deed: Deed) -> None:
        stage = self._stage
        stage.command(CommandKind.SWAP_MODEL, arg=1.0)
        self._later(deed, lambda: stage.command(CommandKind.SWAP_MODEL, arg=2.0))

    # The host.

    def _disk(self, deed: Deed) -> None:
        disk, until_ns = self._stage.disk, self._stage.clock.now + deed.for_ns
        if deed.kind == Kind.DISK_FULL:
            disk.full_until_ns = max(disk.full_until_ns, until_ns)
        else:
            disk.slow_until_ns, disk.slow_ns = until_ns, int(deed.value * 1e9)

    def _wall(self, deed: Deed) -> None:
        self._stage.exchange.clock_shift_ns += int(deed.value * 1e9)

    # Processes.

    def _crash(self, deed: Deed) -> None:
        self._stage.crash(deed.who, deed.for_ns)

    def _crash_sending(self, deed: Deed) -> None:
        if self._stage.link is not None:
            self._stage.link.kill_at_flush = 2 if deed.value else 1

    def _hang(self, deed: Deed) -> None:
        self._stage.hang(deed.who, deed.for_ns)

    def _stop(self, deed: Deed) -> None:
        self._stage.stop(deed.who, deed.for_ns)

    # The operator.

    def _command(self, deed: Deed) -> None:
        self._stage.command(_COMMANDS[deed.kind], deed.who)

    def _order(self, deed: Deed) -> None:
        """Limit orders far from, at and through the market, market orders, and some that must be refused."""
        stage = self._stage
        bids, asks = stage.exchange.market.snapshot(deed.symbol)
        side = 1 if deed.value > 0 else -1
        rows = asks if side > 0 else bids
        style = deed.for_ns
        limit = (
            float("nan")
            if style == 0 or not len(rows)
            else round(float(rows[0, 0]) * (1 - side * 0.002 * (style - 1)), 2)
        )
        stage.hands(deed.who).order(deed.symbol, side, abs(deed.value), limit)
        stage.judge.counts.commands += 1

    def _stream(self, deed: Deed) -> None:
        stage = self._stage
        service = stage.services[topology.COCKPIT]
        if not service.runs(stage.clock.now):
            return
        service.agent.hands.stream(True, bool(deed.value))
        if deed.value:
            self.ended_ns[Kind.KILL] = stage.clock.now + deed.for_ns

        def back() -> None:
            if service.agent is not None:
                service.agent.hands.stream(False, False)

        self._later(deed, back)

    _HANDLERS: dict[Kind, Callable[[Deeds, Deed], None]] = {
        Kind.LINK_DOWN: _link_down,
        Kind.GATEWAY_RESTART: _gateway_restart,
        Kind.BROKER_LOST: _broker_lost,
        Kind.MUTE: _mute,
        Kind.HALF_OPEN: _half_open,
        Kind.SLOW_API: _slow,
        Kind.ID_ROLLBACK: _rollback,
        Kind.FILL_AWAY: _fill_away,
        Kind.REJECT: _reject,
        Kind.CANCEL_CROSS: _cross,
        Kind.STATUS_TWICE: _statuses,
        Kind.STATUS_LOST: _statuses,
        Kind.STATUS_LATE: _statuses,
        Kind.CORRECTION: _correct,
        Kind.HALT: _market,
        Kind.RESET_317: _data,
        Kind.STALL: _market,
        Kind.INDEX_MOVE: _market,
        Kind.SHOCK: _market,
        Kind.WIDE: _market,
        Kind.CROSSED: _market,
        Kind.NAN: _data,
        Kind.WEAK_MODEL: _weak_model,
        Kind.DISK_FULL: _disk,
        Kind.DISK_SLOW: _disk,
        Kind.WALL_JUMP: _wall,
        Kind.CRASH: _crash,
        Kind.CRASH_SENDING: _crash_sending,
        Kind.HANG: _hang,
        Kind.PLANNED_STOP: _stop,
        Kind.PAUSE: _command,
        Kind.RESUME: _command,
        Kind.FLATTEN: _command,
        Kind.KILL: _command,
        Kind.RESET: _command,
        Kind.RECONNECT: _command,
        Kind.CANCEL_ALL: _command,
        Kind.ORDER: _order,
        Kind.STREAM_GONE: _stream,
    }
