"""Getting flat: a pure, persistable state machine that ends only when the broker has confirmed flat.

``step(state, view, now_ns, config) -> (state, actions)``. Actions are data; the caller (watchdog through the bridge,
watchdog over its emergency connection, or the bridge's dead-man) carries them out and shows the results in the next
view. One round:

    STOPPING -> ROUND_ONE -> CLOSING -> CONFIRM_CANCELS -> CLOSING -> ... -> VERIFYING -> FLAT
                                \\________ everything closed ______________/
    STUCK: what remains is halted or keeps being rejected; retried with back-off, named in an alert.

Invariants
1. A close never exceeds the confirmed position less what already works to close it.
2. After round one nothing is closed before: all cancelled, every own close has its verdict, and a snapshot that began
   after the cancel shows no open order. So a cancel that crossed a fill is counted before the next close is sized.
   Only whole shares are closed: what is left under one share is named, and excused by an operator.
   An order that does not go holds up its own symbol only: when a round is over, the others are closed, those in which
   nothing has worked since a read that has arrived was asked for.
3. FLAT needs two snapshots, the second begun at least ``apart_ns`` after the first has ended, both without open orders
   and positions in scope, and no order event since the first one ended.
4. Where all of the account is ours, a position outside the instruments can't be closed here, and it is not flat either:
   STUCK, named, and read again until somebody has closed it; what that hand has working meanwhile is left alone.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from engine.domain.codes import FlattenState, Side
from engine.risk.reconcile import confirmed

EPSILON = 1e-9
FOREIGN = "FOREIGN"
"""By this word an operator names positions outside the instruments, to keep them."""


@dataclass(frozen=True, slots=True)
class FlattenConfig:
    """Times in ns; shares of the price in bps."""

    apart_ns: int = 200_000_000
    quiet_ns: int = 1_000_000_000
    """No progress for this long: the next round begins."""
    round_ns: int = 5_000_000_000
    """A round lasts at most this long, progress or not."""
    snapshot_timeout_ns: int = 2_000_000_000
    poll_ns: int = 150_000_000
    """Least time between two requests for a snapshot: they cost messages that cancels need."""
    backoff_min_ns: int = 1_000_000_000
    backoff_max_ns: int = 30_000_000_000
    alert_every_ns: int = 60_000_000_000
    limit_step_bps: float = 10.0
    """Outside regular hours: how far through the touch the first limit goes; doubled each round."""
    limit_max_bps: float = 200.0


@dataclass(frozen=True, slots=True)
class View:
    """What is known now. Tuples run over the symbols of the instance.

    ``qty``: broker-confirmed. ``closing``: quantity (>= 0) of own working or UNKNOWN orders that reduce it, orders
    without a verdict included. ``undecided``: own intents in a ring or sent without a verdict. ``rejected``: mask of
    symbols whose close was rejected or refused since the last step. ``order_events`` and ``snapshot_*`` as in the
    broker cell. ``bid``/``ask``: NaN when not known. ``can_send`` False: nothing is emitted (link down).
    """

    qty: tuple[float, ...]
    closing: tuple[float, ...]
    bid: tuple[float, ...]
    ask: tuple[float, ...]
    halted: int
    open_orders: int
    undecided: int
    rejected: int
    order_events: int
    snapshot_id: int
    snapshot_begin_ns: int
    snapshot_end_ns: int
    snapshot_events: int
    snapshot_open_orders: int
    snapshot_positions: int
    last_close_sent_ns: int = 0
    regular_hours: bool = True
    can_send: bool = True
    busy: int = -1
    """Mask of symbols with an order that works or has no verdict; -1 when not known: all of them."""
    foreign: int = 0
    """Positions outside the instruments by the last snapshot, 0 unless all of the account is ours."""
    theirs: tuple[float, ...] = ()
    """The broker's own positions where they differ from ``qty``, else ``qty``; empty: ``qty`` is the broker's."""


@dataclass(frozen=True, slots=True)
class CancelAll:
    """Cancel every working order in scope."""


@dataclass(frozen=True, slots=True)
class Close:
    """Reduce ``symbol`` by ``qty`` shares. ``limit`` NaN: market order; else outside regular hours at that limit."""

    symbol: int
    side: Side
    qty: float
    limit: float


@dataclass(frozen=True, slots=True)
class RequestSnapshot:
    """Read all open orders and positions from the broker."""


@dataclass(frozen=True, slots=True)
class Alert:
    """P1: a person must know. ``remaining`` is the mask of symbols that are not flat."""

    text: str
    remaining: int


@dataclass(frozen=True, slots=True)
class Done:
    """The broker has confirmed flat."""

    flat_ns: int


Action = CancelAll | Close | RequestSnapshot | Alert | Done


@dataclass(frozen=True, slots=True)
class Flatten:
    """State of one flatten. ``scope`` and ``excused`` are masks of symbols; times CLOCK_MONOTONIC ns."""

    flatten_id: int = 0
    state: int = FlattenState.IDLE
    scope: int = 0
    excused: int = 0
    source: int = 0
    reason: str = ""
    cause_ns: int = 0
    started_ns: int = 0
    phase_ns: int = 0
    progress_ns: int = 0
    progress_events: int = -1
    rounds: int = 0
    asked_ns: int = 0
    asked_id: int = 0
    first_end_ns: int = 0
    first_events: int = 0
    sent_ns: int = 0
    flat_ns: int = 0
    remaining: int = 0
    alerted_ns: int = 0
    retry_ns: tuple[int, ...] = ()
    rejects: tuple[int, ...] = ()
    boot_id: str = ""
    """Boot of the host that the times belong to."""
    calm: int = 0
    """Mask of symbols in which nothing has worked since the read that is outstanding was asked for."""
    settled: int = 0
    """Those of the last read that has arrived, as far as nothing works in them now either."""
    excused_foreign: int = 0
    """So many positions outside the instruments does an operator keep; one more than that is open again."""

    @property
    def active(self) -> bool:
        return self.state not in (FlattenState.IDLE, FlattenState.FLAT)


def start(
    flatten_id: int, symbols: int, *, source: int, reason: str, cause_ns: int, now_ns: int, scope: int = -1,
    boot_id: str = "",
) -> Flatten:  # fmt: skip
    """A new flatten over ``symbols`` instruments; ``scope`` is a mask of them (-1: all)."""
    full = (1 << symbols) - 1
    return Flatten(
        flatten_id=flatten_id,
        state=FlattenState.STOPPING,
        scope=full if scope < 0 else scope & full,
        source=source,
        reason=reason,
        cause_ns=cause_ns or now_ns,
        started_ns=now_ns,
        phase_ns=now_ns,
        progress_ns=now_ns,
        retry_ns=(0,) * symbols,
        rejects=(0,) * symbols,
        boot_id=boot_id,
    )


def remaining(state: Flatten, view: View) -> int:
    """Mask of symbols in scope that still hold a position and are not excused."""
    mask = 0
    for symbol, qty in enumerate(view.qty):
        if abs(qty) > EPSILON:
            mask |= 1 << symbol
    return mask & state.scope & ~state.excused


def outside(state: Flatten, view: View) -> int:
    """Number of positions outside the instruments that are to be closed too: all of them, or none."""
    whole = state.scope == (1 << len(view.qty)) - 1
    return view.foreign if whole and view.foreign > state.excused_foreign else 0


def excuse(state: Flatten, mask: int, foreign: int = 0) -> Flatten:
    """An operator keeps what remains of these symbols, and ``foreign`` positions outside the instruments: the rest is
    still confirmed flat. Time runs on by ``step``."""
    kept = max(state.excused_foreign, foreign)
    return replace(state, excused=state.excused | (mask & state.scope), excused_foreign=kept, alerted_ns=0)


def step(state: Flatten, view: View, now_ns: int, config: FlattenConfig) -> tuple[Flatten, tuple[Action, ...]]:
    """Advance by what ``view`` shows. Call it as often as wanted: without news it emits nothing."""
    if not state.active:
        return state, ()
    left = remaining(state, view)
    state = _note(state, view, left, now_ns, config)
    if not view.can_send:
        state = replace(state, calm=0, settled=0)  # what happened at the broker meanwhile, a new read has to tell
        return _alert(state, now_ns, config, "the link to the broker is down")
    if state.state == FlattenState.STOPPING:
        return _round_one(state, view, left, now_ns, config)
    if state.state in (FlattenState.ROUND_ONE, FlattenState.CLOSING, FlattenState.STUCK):
        return _closing(state, view, left, now_ns, config)
    if state.state == FlattenState.CONFIRM_CANCELS:
        return _confirming(state, view, left, now_ns, config)
    return _verifying(state, view, left, now_ns, config)


def _note(state: Flatten, view: View, left: int, now_ns: int, config: FlattenConfig) -> Flatten:
    """Progress and rejections since the last step."""
    if view.order_events != state.progress_events or left != state.remaining:
        state = replace(state, progress_ns=now_ns, progress_events=view.order_events, remaining=left)
    if state.state == FlattenState.ROUND_ONE and view.last_close_sent_ns >= state.started_ns and not state.sent_ns:
        state = replace(state, sent_ns=view.last_close_sent_ns)
    refused = view.rejected & state.scope
    if refused:
        retry, rejects = list(state.retry_ns), list(state.rejects)
        for symbol in range(len(retry)):
            if refused >> symbol & 1:
                wait = min(config.backoff_min_ns << min(rejects[symbol], 10), config.backoff_max_ns)
                rejects[symbol] += 1
                retry[symbol] = now_ns + wait
        state = replace(state, retry_ns=tuple(retry), rejects=tuple(rejects))
    return state


def _theirs(view: View, symbol: int) -> float:
    return view.theirs[symbol] if view.theirs else view.qty[symbol]


def _closable(state: Flatten, view: View, symbol: int) -> float:
    """What of a position may be closed. Once a close was refused: only what both books have, as the gate demands.

    Not before: the broker's word may be a little late, and round one must not wait for it.
    """
    return confirmed(view.qty[symbol], _theirs(view, symbol)) if state.rejects[symbol] else view.qty[symbol]


def _shown(state: Flatten, view: View) -> int:
    """Mask of symbols in scope that the last snapshot shows a position of."""
    return view.snapshot_positions & state.scope & ~state.excused


def _closes(
    state: Flatten, view: View, left: int, now_ns: int, config: FlattenConfig, ignore_working: bool = False
) -> tuple[Close, ...]:
    """Closing orders that may leave now, the largest exposure first."""
    found: list[tuple[float, Close]] = []
    for symbol in range(len(view.qty)):
        if not left >> symbol & 1 or view.halted >> symbol & 1 or now_ns < state.retry_ns[symbol]:
            continue
        qty = _closable(state, view, symbol)
        open_qty = math.floor(abs(qty) - (0.0 if ignore_working else view.closing[symbol]) + EPSILON)
        if open_qty < 1:
            continue
        side = Side.SELL if qty > 0 else Side.BUY
        limit = math.nan
        mid = 0.5 * (view.bid[symbol] + view.ask[symbol])
        if not view.regular_hours:
            touch = view.bid[symbol] if side == Side.SELL else view.ask[symbol]
            if not touch > 0.0:
                continue  # no quote to price against; the alert names it
            bps = min(config.limit_step_bps * 2.0 ** min(state.rounds, 8), config.limit_max_bps)
            limit = touch * (1.0 + int(side) * bps / 1e4)
        found.append((open_qty * mid if mid > 0.0 else math.inf, Close(symbol, side, float(open_qty), limit)))
    found.sort(key=lambda item: -item[0])
    return tuple(close for _, close in found)


def _enter(state: Flatten, phase: FlattenState, now_ns: int, **changes: Any) -> Flatten:
    return replace(state, state=int(phase), phase_ns=now_ns, progress_ns=now_ns, **changes)


def _round_one(
    state: Flatten, view: View, left: int, now_ns: int, config: FlattenConfig
) -> tuple[Flatten, tuple[Action, ...]]:
    closes = _closes(state, view, left, now_ns, config)
    cancel: tuple[Action, ...] = (CancelAll(),)
    return _enter(state, FlattenState.ROUND_ONE, now_ns, rounds=1), cancel + closes


def _closing(
    state: Flatten, view: View, left: int, now_ns: int, config: FlattenConfig
) -> tuple[Flatten, tuple[Action, ...]]:
    """Closes are out: wait while fills arrive, then verify or begin another round."""
    if not left and not view.undecided and not view.open_orders:
        if state.state == FlattenState.STUCK and (outside(state, view) or _shown(state, view)):
            return _look_again(state, view, now_ns, config)
        return _verify(state, view, now_ns)
    quiet = now_ns - state.progress_ns >= config.quiet_ns
    if not quiet and now_ns - state.phase_ns < config.round_ns:
        return state, ()
    if left and not _can_close(state, view, left, now_ns) and not view.open_orders:
        return _stuck(state, view, left, now_ns, config)
    return _confirm(state, view, now_ns)


def _look_again(state: Flatten, view: View, now_ns: int, config: FlattenConfig) -> tuple[Flatten, tuple[Action, ...]]:
    """Only what can't be closed here remains: read now and then whether somebody has. A cancel would undo his work."""
    if now_ns - state.phase_ns < config.round_ns:
        return state, ()
    state, alert = _stuck(state, view, 0, now_ns, config)
    return state, (*alert, RequestSnapshot())


def _can_close(state: Flatten, view: View, left: int, now_ns: int) -> bool:
    for symbol in range(len(view.qty)):
        if not left >> symbol & 1 or abs(_closable(state, view, symbol)) + EPSILON < 1.0:
            continue
        if not view.halted >> symbol & 1 and now_ns >= state.retry_ns[symbol]:
            touch = view.bid[symbol] if view.qty[symbol] > 0 else view.ask[symbol]
            if view.regular_hours or touch > 0.0:
                return True
    return False


def _confirm(state: Flatten, view: View, now_ns: int) -> tuple[Flatten, tuple[Action, ...]]:
    state = _enter(
        state, FlattenState.CONFIRM_CANCELS, now_ns, asked_ns=now_ns, asked_id=view.snapshot_id, calm=_idle(view),
        settled=0,
    )  # fmt: skip
    return state, (CancelAll(), RequestSnapshot())


def _fresh(state: Flatten, view: View) -> bool:
    """A snapshot that began after it was asked for, and no order event since it ended."""
    return _arrived(state, view) and view.snapshot_events == view.order_events


def _idle(view: View) -> int:
    return (1 << len(view.qty)) - 1 & ~view.busy


def _arrived(state: Flatten, view: View) -> bool:
    """Has the read that was asked for been completed?"""
    return view.snapshot_id != state.asked_id and view.snapshot_begin_ns >= state.asked_ns


def _read_again(state: Flatten, view: View, now_ns: int, config: FlattenConfig) -> tuple[Flatten, tuple[Action, ...]]:
    """Ask for another snapshot, not too often; when one is outstanding, only after its timeout."""
    if now_ns - state.asked_ns < (config.poll_ns if _arrived(state, view) else config.snapshot_timeout_ns):
        return state, ()
    return replace(state, asked_ns=now_ns, asked_id=view.snapshot_id, calm=_idle(view)), (RequestSnapshot(),)


def _confirming(
    state: Flatten, view: View, left: int, now_ns: int, config: FlattenConfig
) -> tuple[Flatten, tuple[Action, ...]]:
    """All cancelled and read back: then close the rest, sized by what the broker has confirmed.

    A symbol in which nothing works, and nothing has since a read was asked for that has arrived, has its fills in that
    read: an order of another symbol that does not go can't change what is held of it.
    """
    calm, settled = state.calm & _idle(view), state.settled & _idle(view)
    settled = calm if _arrived(state, view) else settled
    if (calm, settled) != (state.calm, state.settled):
        state = replace(state, calm=calm, settled=settled)
    working = view.undecided or view.snapshot_open_orders or view.open_orders
    if not _fresh(state, view) or working:
        if now_ns - state.phase_ns < config.round_ns:
            return _read_again(state, view, now_ns, config)
        state, alert = _alert(state, now_ns, config, "cancels are not confirmed")
        closes = _closes(state, view, left & state.settled, now_ns, config, ignore_working=True)
        if closes:
            return _enter(state, FlattenState.CLOSING, now_ns, rounds=state.rounds + 1), alert + closes
        state, again = _confirm(state, view, now_ns)
        return state, alert + again
    if not left and not _shown(state, view) and not outside(state, view):
        return _verify(state, view, now_ns)
    closes = _closes(state, view, left, now_ns, config, ignore_working=True)
    if not closes:
        return _stuck(state, view, left, now_ns, config)
    return _enter(state, FlattenState.CLOSING, now_ns, rounds=state.rounds + 1), closes


def _verify(state: Flatten, view: View, now_ns: int) -> tuple[Flatten, tuple[Action, ...]]:
    state = _enter(
        state,
        FlattenState.VERIFYING,
        now_ns,
        asked_ns=now_ns,
        asked_id=view.snapshot_id,
        first_end_ns=0,
        first_events=0,
    )
    return state, (RequestSnapshot(),)


def _verifying(
    state: Flatten, view: View, left: int, now_ns: int, config: FlattenConfig
) -> tuple[Flatten, tuple[Action, ...]]:
    if left or view.undecided:
        return _confirm(state, view, now_ns)
    if state.first_end_ns and view.order_events != state.first_events:
        return _verify(state, view, now_ns)
    if state.asked_ns == 0:  # between the two snapshots
        if now_ns - state.first_end_ns < config.apart_ns:
            return state, ()
        return replace(state, asked_ns=now_ns, asked_id=view.snapshot_id), (RequestSnapshot(),)
    if not _fresh(state, view):
        return _read_again(state, view, now_ns, config)
    if view.snapshot_open_orders or _shown(state, view):
        return _confirm(state, view, now_ns)
    if outside(state, view):
        return _stuck(state, view, left, now_ns, config)
    if not state.first_end_ns:
        first = replace(
            state,
            first_end_ns=view.snapshot_end_ns,
            first_events=view.snapshot_events,
            asked_ns=0,
            asked_id=view.snapshot_id,
        )
        return first, ()
    if view.snapshot_begin_ns - state.first_end_ns < config.apart_ns:
        return replace(state, asked_ns=0, asked_id=view.snapshot_id), ()
    return _enter(state, FlattenState.FLAT, now_ns, flat_ns=now_ns, remaining=0), (Done(now_ns),)


def _alert(
    state: Flatten, now_ns: int, config: FlattenConfig, why: str, more: int = 0
) -> tuple[Flatten, tuple[Action, ...]]:
    """Name what remains, and ``more``, once and then every ``alert_every_ns``."""
    if state.alerted_ns and now_ns - state.alerted_ns < config.alert_every_ns:
        return state, ()
    return replace(state, alerted_ns=now_ns), (Alert(why, state.remaining | more),)


def _stuck(
    state: Flatten, view: View, left: int, now_ns: int, config: FlattenConfig
) -> tuple[Flatten, tuple[Action, ...]]:
    more = 0 if left else _shown(state, view)
    state, actions = _alert(state, now_ns, config, _why(state, view, left, more), more)
    return _enter(state, FlattenState.STUCK, now_ns), actions


def _why(state: Flatten, view: View, left: int, shown: int) -> str:
    """Why nothing can be closed now, each cause once."""
    causes: dict[str, None] = {}
    for symbol, qty in enumerate(view.qty):
        held, theirs = left >> symbol & 1, _theirs(view, symbol)
        differ = abs(theirs - qty) > EPSILON
        if differ and ((held and state.rejects[symbol]) or shown >> symbol & 1):
            causes[f"ours {qty:g}, broker {theirs:g}: accept the broker's figure in the cockpit"] = None
        elif not held:
            continue
        elif abs(qty) + EPSILON < 1.0:
            causes["a residue under one share: an operator excuses it by name"] = None
        elif view.halted >> symbol & 1:
            causes["halted"] = None
        elif state.rejects[symbol]:
            causes["rejected by the broker"] = None
        elif not view.regular_hours:
            causes["without a quote outside regular hours"] = None
    if count := outside(state, view):
        causes[
            f"{count} position{'s' if count > 1 else ''} outside the configured symbols ({FOREIGN}): close "
            f"{'them' if count > 1 else 'it'} by hand or with `l2dash flatten --direct`"
        ] = None
    return ", ".join(causes) or "nothing can be closed now"


def dumps(state: Flatten) -> bytes:
    """The state as JSON, for ``state_dir/flatten.json``."""
    return json.dumps(asdict(state)).encode()


def loads(data: bytes) -> Flatten:
    """State from ``dumps``; fields that an older version did not know take their defaults. Raises ValueError."""
    raw = json.loads(data)
    if not isinstance(raw, dict) or "state" not in raw or set(raw) - {f.name for f in fields(Flatten)}:
        raise ValueError("not a flatten state of this version")
    for name in ("retry_ns", "rejects"):
        raw[name] = tuple(raw.get(name, ()))
    for field in fields(Flatten):
        if field.name in raw and not isinstance(getattr(Flatten(), field.name), type(raw[field.name])):
            raise ValueError(f"{field.name} is {raw[field.name]!r}")
    return Flatten(**raw)


def resume(state: Flatten, now_ns: int, symbols: int) -> Flatten:
    """An interrupted flatten continues in a new process: with a fresh read, as nothing is known of its own orders.

    A reboot restarts the clock, so times of the old process are moved to now.
    """
    if not state.active:
        return state
    return replace(
        state,
        state=int(FlattenState.CLOSING),
        phase_ns=now_ns - FlattenConfig().round_ns,  # this round is over: cancel, read, and close what remains
        progress_ns=now_ns - FlattenConfig().quiet_ns,
        rounds=max(1, state.rounds),
        progress_events=-1,
        asked_ns=0,
        asked_id=-1,
        first_end_ns=0,
        alerted_ns=0,
        started_ns=min(state.started_ns, now_ns),
        cause_ns=min(state.cause_ns, now_ns),
        retry_ns=(0,) * symbols,
        rejects=(0,) * symbols,
    )
