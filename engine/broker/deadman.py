"""The bridge without a watchdog: entries go at once; after ``gone_ns`` it latches KILL and gets flat by itself.

The decision is pure (``Lease.judge``); the flatten is the machine that the watchdog runs (``engine.risk.flatten``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from engine.broker.register import Register
from engine.domain.codes import OrderState
from engine.risk import flatten as machine
from engine.risk.accounting import Accounts


class LeaseVerdict(IntEnum):
    OK = 0
    EXPIRED = 1
    """Entries must go; only what reduces may leave."""
    GONE = 2
    """Long enough without a watchdog: get flat."""


@dataclass(slots=True)
class Lease:
    """Watches the lease. ``watch_ns``: since when its absence counts (expiry, or our reconciliation if later)."""

    gone_ns: int
    watch_ns: int = 0

    def judge(self, now_ns: int, *, valid: bool, ours: bool, responsible: bool, expires_ns: int) -> LeaseVerdict:
        """``ours``: nobody else owns the right to send. ``responsible``: reconciled, with something to lose."""
        if valid:
            self.watch_ns = 0
            return LeaseVerdict.OK
        if not ours or not responsible:
            self.watch_ns = 0
            return LeaseVerdict.EXPIRED
        if self.watch_ns == 0:
            self.watch_ns = expires_ns if 0 < expires_ns <= now_ns and now_ns - expires_ns < self.gone_ns else now_ns
        return LeaseVerdict.GONE if now_ns - self.watch_ns >= self.gone_ns else LeaseVerdict.EXPIRED


class DeadMan:
    """Runs one flatten. ``close``, ``cancel_all``, ``snapshot`` and ``alert`` carry out its actions."""

    def __init__(
        self,
        register: Register,
        accounts: Accounts,
        close: Callable[[machine.Close], None],
        cancel_all: Callable[[], None],
        snapshot: Callable[[], None],
        alert: Callable[[str, int], None],
    ) -> None:
        self._register = register
        self._accounts = accounts
        self._close, self._cancel_all, self._snapshot, self._alert = close, cancel_all, snapshot, alert
        self._config = machine.FlattenConfig()
        self.state = machine.Flatten()
        self.rejected = 0
        """Mask of symbols whose close was refused or rejected since the last step."""

    def start(self, symbols: int, scope: int, source: int, reason: str, now_ns: int) -> None:
        if not self.state.active:
            self.state = machine.start(
                now_ns, symbols, source=source, reason=reason, cause_ns=now_ns, now_ns=now_ns, scope=scope
            )

    def stop(self) -> None:
        """Its stop has been released by a person: what is held from now on is wanted."""
        self.state = machine.Flatten()
        self.rejected = 0

    @property
    def active(self) -> bool:
        return self.state.active

    def step(
        self,
        now_ns: int,
        *,
        quotes: Callable[[int], tuple[float, float]],
        halted: int,
        broker: dict[str, int],
        theirs: Callable[[int], float],
        regular_hours: bool,
        can_send: bool,
    ) -> bool:
        """Advance; True when it has just become flat. ``broker`` holds what the view takes of the broker cell.

        ``theirs``: the broker's own position where it differs from ours, else ours."""
        qty = tuple(h.qty for h in self._accounts.holdings)
        closing = [0.0] * len(qty)
        undecided = open_orders = busy = 0
        for order in self._register.active():
            open_orders += 1
            busy |= 1 << order.symbol
            undecided += order.state in (OrderState.PENDING, OrderState.SENT)
            if qty[order.symbol] * order.side < 0:
                closing[order.symbol] += order.remaining
        touch = [quotes(symbol) for symbol in range(len(qty))]
        view = machine.View(
            qty=qty,
            closing=tuple(closing),
            bid=tuple(t[0] for t in touch),
            ask=tuple(t[1] for t in touch),
            halted=halted,
            open_orders=open_orders,
            undecided=undecided,
            busy=busy,
            rejected=self.rejected,
            regular_hours=regular_hours,
            can_send=can_send,
            theirs=tuple(theirs(symbol) for symbol in range(len(qty))),
            **broker,
        )
        self.rejected = 0
        self.state, actions = machine.step(self.state, view, now_ns, self._config)
        done = False
        for action in actions:
            if isinstance(action, machine.CancelAll):
                self._cancel_all()
            elif isinstance(action, machine.Close):
                self._close(action)
            elif isinstance(action, machine.RequestSnapshot):
                self._snapshot()
            elif isinstance(action, machine.Alert):
                self._alert(action.text, action.remaining)
            else:
                done = True
        return done
