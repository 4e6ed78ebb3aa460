"""What must always hold, as numbered pure checks. Each returns what is broken in words, or nothing.

The numbers are those of the contract of the guardrails; 12 is the simulator's own: nothing stays stuck.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from engine.domain.codes import Badge, Owner
from engine.sim.plan import Kind

EPSILON = 1e-6
MESSAGES_PER_S = 50
SECOND_NS = 1_000_000_000

NAMES = {
    1: "no order that adds risk leaves while a stop holds",
    2: "position = sum of fills = the broker's",
    3: "each execution is applied exactly once, corrections replace",
    4: "after KILL nothing works and nothing is held",
    5: "exposure never passes a limit by an order of ours",
    6: "the journal gives the same state",
    7: "never two owners of the right to send",
    8: "PAUSE and KILL are released by an operator alone",
    9: "at most 50 messages in any second",
    10: "nothing acknowledged to an operator is lost",
    11: "no KILL without a cause",
    12: "nothing stays stuck when everything is well again",
}


@dataclass(frozen=True, slots=True)
class Broken:
    """An invariant that did not hold. ``t_ns`` since READY."""

    number: int
    t_ns: int
    text: str

    def __str__(self) -> str:
        return f"invariant {self.number} ({NAMES[self.number]}) at {self.t_ns / 1e9:.3f} s: {self.text}"


@dataclass(frozen=True, slots=True)
class Exposure:
    """Truth about one symbol when an order leaves: what is held, and what may still trade on each side (shares)."""

    held: float
    buys: float
    sells: float

    def reduces(self, side: int, qty: float) -> bool:
        """Towards zero of what is held, never past it, counting what works on that side already."""
        if self.held * side >= 0:
            return False
        return qty <= abs(self.held) - (self.buys if side > 0 else self.sells) + EPSILON

    def worst(self) -> float:
        return max(abs(self.held + self.buys), abs(self.held - self.sells))


def stopped(exposure: Exposure, side: int, qty: float, *, entries_allowed: bool, lease_valid: bool) -> str:
    """1: an order leaves. Words if it adds risk although it must not."""
    if exposure.reduces(side, qty) or (entries_allowed and lease_valid):
        return ""
    why = "a stop holds" if not entries_allowed else "the lease is not valid"
    return f"{'buy' if side > 0 else 'sell'} {qty:g} leaves although {why}; {exposure}"


def agrees(ours: Sequence[float], fills: Mapping[int, float], theirs: Sequence[float]) -> str:
    """2: positions of the bridge, sums of fills, and the broker's, by symbol."""
    for symbol, (mine, broker) in enumerate(zip(ours, theirs, strict=True)):
        summed = fills.get(symbol, 0.0)
        if abs(mine - broker) > EPSILON or abs(mine - summed) > EPSILON:
            return f"symbol {symbol}: ours {mine:g}, fills {summed:g}, broker {broker:g}"
    return ""


def applied_once(bases: Iterable[str]) -> str:
    """3: ids (without revision) of the fills that one life of the bridge has published."""
    seen: set[str] = set()
    for base in bases:
        if base in seen:
            return f"execution {base} was applied twice"
        seen.add(base)
    return ""


def same_fills(ours: Mapping[str, tuple[float, float]], theirs: Mapping[str, tuple[float, float]]) -> str:
    """3: (signed quantity, price) of every execution as journaled and as the broker has it."""
    for base in theirs:
        if base not in ours:
            return f"execution {base} was never applied"
        if ours[base] != theirs[base]:
            return f"execution {base}: ours {ours[base]}, broker {theirs[base]}"
    extra = [base for base in ours if base not in theirs]
    return f"execution {extra[0]} is not the broker's" if extra else ""


def flat(held: Mapping[int, float], working: int) -> str:
    """4: what is left at the broker after KILL had its time."""
    left = ", ".join(f"symbol {s} {q:+g}" for s, q in held.items() if q)
    if not left and not working:
        return ""
    return f"{left or 'nothing'} held, {working} orders work"


def within_limits(worst_usd: float, gross_usd: float, symbol_limit_usd: float, gross_limit_usd: float) -> str:
    """5: the worst case right after an order that adds risk."""
    if worst_usd > symbol_limit_usd:
        return f"exposure {worst_usd:,.0f} USD of a symbol, allowed are {symbol_limit_usd:,.0f}"
    if gross_usd > gross_limit_usd:
        return f"gross exposure {gross_usd:,.0f} USD, allowed are {gross_limit_usd:,.0f}"
    return ""


def one_owner(door: str, owner: int, bridge_sends: bool, epoch_sender: str) -> str:
    """7: ``door`` sends an order or a cancel while the lease names ``owner``; ``epoch_sender``: who sent before in
    this epoch; ``bridge_sends``: is it the bridge's door?"""
    rightful = Owner.BRIDGE if bridge_sends else Owner.WATCHDOG
    if owner != rightful and not (bridge_sends and owner == Owner.LEAVING):
        return f"{door} sends although the right is {Owner(owner).name}'s"
    if epoch_sender and epoch_sender != door:
        return f"{door} and {epoch_sender} have both sent in the same epoch"
    return ""


def released(before: tuple[bool, bool], now: tuple[bool, bool], reset: bool, resumed: bool) -> str:
    """8: (kill, pause) before and now; has an operator released it since it was latched?"""
    if before[0] and not now[0] and not reset:
        return "KILL is gone and nobody has reset it"
    if before[1] and not now[1] and not resumed:
        return "PAUSE is gone and nobody has resumed"
    return ""


def paced(sent_ns: Sequence[int]) -> str:
    """9: times of the last messages, oldest first, both connections together."""
    if len(sent_ns) > MESSAGES_PER_S and sent_ns[-1] - sent_ns[-1 - MESSAGES_PER_S] < SECOND_NS:
        return f"{MESSAGES_PER_S + 1} messages within {(sent_ns[-1] - sent_ns[-1 - MESSAGES_PER_S]) / 1e6:.0f} ms"
    return ""


_ANY_LINK = frozenset({Kind.LINK_DOWN, Kind.GATEWAY_RESTART, Kind.BROKER_LOST, Kind.MUTE, Kind.HALF_OPEN})
_BRIDGE_GONE = frozenset({Kind.CRASH, Kind.CRASH_SENDING, Kind.HANG, Kind.PLANNED_STOP})
CAUSES: dict[Badge, tuple[frozenset[Kind], float]] = {
    Badge.POS: (frozenset({Kind.SHOCK, Kind.ORDER}), 60.0),
    Badge.COOL: (frozenset({Kind.ORDER}), 30.0),
    Badge.LAT: (frozenset({Kind.SLOW_API, Kind.MUTE, Kind.HALF_OPEN, Kind.STREAM_GONE, Kind.BROKER_LOST}), 60.0),
    Badge.DD: (frozenset({Kind.INDEX_MOVE, Kind.SHOCK, Kind.CORRECTION}), 360.0),
    Badge.KILL: (
        frozenset({Kind.KILL, Kind.FLATTEN, Kind.STALL, Kind.HALT, Kind.NAN}) | _ANY_LINK | _BRIDGE_GONE, 180.0,
    ),
    Badge.CONF: (frozenset({Kind.WEAK_MODEL}), 400.0),
    Badge.DRIFT: (frozenset({Kind.SHOCK, Kind.HALT, Kind.STALL, Kind.INDEX_MOVE}), 360.0),
}  # fmt: skip
"""What can be behind a KILL by each badge, and for how many seconds after it has ended."""


LOST_SHARE = 0.9
"""So much of DD's limit must be lost by the broker's own books; marks differ by what is on its way."""


def caused(reasons: int, recent: Mapping[Kind, float], lost_share: float = 0.0, unmarked: bool = False) -> str:
    """11: a KILL for ``reasons`` (mask of badges); ``recent``: seconds since each kind of deed ended; ``lost_share``:
    what is lost by the broker's own books, in shares of DD's limit: whoever trades without an edge pays. ``unmarked``:
    the market itself has been silent, in a symbol that is held, for as long as equity may be unmarked."""
    for badge in Badge:
        if not reasons >> badge & 1:
            continue
        if badge == Badge.DD and (unmarked or lost_share >= LOST_SHARE):
            return ""
        kinds, within_s = CAUSES.get(badge, (frozenset(), 0.0))
        if any(recent.get(kind, 1e18) <= within_s for kind in kinds):
            return ""
    names = ", ".join(b.name for b in Badge if reasons >> b & 1) or "nothing named"
    return f"KILL by {names}, and nothing has happened that could cause it"
