"""What goes wrong and what the operator does: a list of deeds, all of it a function of the seed.

A plan is data, so that a failing one can be shortened deed by deed while the rest of the run stays the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

SECOND_NS = 1_000_000_000
HOUR_NS = 3600 * SECOND_NS


class Kind(StrEnum):
    """One kind of deed. The value is its name on the command line."""

    LINK_DOWN = "link-down"
    GATEWAY_RESTART = "gateway-restart"
    BROKER_LOST = "1100"
    MUTE = "mute"
    HALF_OPEN = "half-open"
    SLOW_API = "slow-api"
    ID_ROLLBACK = "id-rollback"
    FILL_AWAY = "fill-away"
    REJECT = "reject"
    CANCEL_CROSS = "cancel-cross"
    STATUS_TWICE = "status-twice"
    STATUS_LOST = "status-lost"
    STATUS_LATE = "status-late"
    CORRECTION = "correction"
    HALT = "halt"
    RESET_317 = "317"
    STALL = "stall"
    INDEX_MOVE = "index-move"
    SHOCK = "shock"
    WIDE = "wide"
    CROSSED = "crossed"
    NAN = "nan"
    WEAK_MODEL = "weak-model"
    DISK_FULL = "disk-full"
    DISK_SLOW = "disk-slow"
    WALL_JUMP = "wall-jump"
    CRASH = "crash"
    CRASH_SENDING = "crash-sending"
    HANG = "hang"
    PLANNED_STOP = "planned-stop"
    PAUSE = "pause"
    RESUME = "resume"
    FLATTEN = "flatten"
    KILL = "kill"
    RESET = "reset"
    RECONNECT = "reconnect"
    CANCEL_ALL = "cancel-all"
    ORDER = "order"
    STREAM_GONE = "stream-gone"


@dataclass(frozen=True, slots=True)
class Deed:
    """``at_ns`` since the system was READY. ``who``: a service, ``both`` or ``bridge`` for links, ``gateway`` or
    ``cli`` for actions. ``for_ns`` and ``value`` mean what the kind wants; ``symbol`` is a number."""

    at_ns: int
    kind: Kind
    who: str = ""
    for_ns: int = 0
    value: float = 0.0
    symbol: int = 0

    def __str__(self) -> str:
        words = [f"{self.at_ns / 1e9:.3f}s", self.kind.value]
        words += [self.who] if self.who else []
        words += [f"for {self.for_ns / 1e9:.3f}s"] if self.for_ns else []
        words += [f"value {self.value:g}"] if self.value else []
        return " ".join(words)


SERVICES = ("watchdog", "broker-bridge", "ml-service", "algo", "recorder", "cockpit")
_LINK = (Kind.LINK_DOWN, Kind.GATEWAY_RESTART, Kind.BROKER_LOST, Kind.MUTE, Kind.HALF_OPEN, Kind.SLOW_API,
         Kind.ID_ROLLBACK, Kind.FILL_AWAY)  # fmt: skip
_ORDERS = (Kind.REJECT, Kind.CANCEL_CROSS, Kind.STATUS_TWICE, Kind.STATUS_LOST, Kind.STATUS_LATE, Kind.CORRECTION)
_MARKET = (Kind.HALT, Kind.RESET_317, Kind.STALL, Kind.INDEX_MOVE, Kind.SHOCK, Kind.WIDE, Kind.CROSSED, Kind.NAN,
           Kind.WEAK_MODEL)  # fmt: skip
_HOST = (Kind.DISK_FULL, Kind.DISK_SLOW, Kind.WALL_JUMP)
_PROCESS = (Kind.CRASH, Kind.CRASH_SENDING, Kind.HANG, Kind.PLANNED_STOP)
_OPERATOR = (Kind.PAUSE, Kind.RESUME, Kind.FLATTEN, Kind.KILL, Kind.RECONNECT, Kind.CANCEL_ALL, Kind.ORDER,
             Kind.STREAM_GONE)  # fmt: skip

# RESET is in no group: the operator's habits ask for one often enough.
GROUPS: dict[str, tuple[Kind, ...]] = {
    "link": _LINK,
    "orders": _ORDERS,
    "market": _MARKET,
    "host": _HOST,
    "process": _PROCESS,
    "operator": _OPERATOR,
    "all": _LINK + _ORDERS + _MARKET + _HOST + _PROCESS + _OPERATOR,
    "harmless": (Kind.LINK_DOWN, Kind.GATEWAY_RESTART, Kind.PLANNED_STOP),
    "none": (),
}
"""``harmless``: what must never cause a KILL: flaps of the link under 60 s and planned restarts."""

_RARE = frozenset((Kind.KILL, Kind.INDEX_MOVE, Kind.SHOCK, Kind.WEAK_MODEL, Kind.FLATTEN, Kind.STREAM_GONE))
"""What ends in KILL or PAUSE comes a third as often, or there would be little else to see."""
_FREQUENT = frozenset((Kind.ORDER,))


class UnknownFaults(ValueError):
    """A name that is neither a group nor a kind; the text says what is allowed."""


def kinds_of(names: str) -> tuple[Kind, ...]:
    """Kinds of a comma-separated list of groups and kinds, in the order of ``Kind``; ``-name`` takes away.

    Raises UnknownFaults."""
    chosen: set[Kind] = set()
    for word in (w.strip() for w in names.split(",")):
        name = word.removeprefix("-")
        if name in GROUPS:
            found = set(GROUPS[name])
        elif name in {k.value for k in Kind}:
            found = {Kind(name)}
        else:
            allowed = ", ".join((*GROUPS, *(k.value for k in Kind)))
            raise UnknownFaults(f"faults = {names!r}: {name!r} is not known; allowed are {allowed}")
        chosen = chosen - found if word.startswith("-") else chosen | found
    return tuple(k for k in Kind if k in chosen)


def plan(seed: int, hours: float, kinds: Iterable[Kind], per_hour: float, symbols: int) -> tuple[Deed, ...]:
    """Deeds at random times, exponentially apart, ``per_hour`` on average. Pure."""
    chosen = [k for k in kinds for _ in range(9 if k in _FREQUENT else 1 if k in _RARE else 3)]
    chance = random.Random(seed * 1_000_003 + 17)
    deeds: list[Deed] = []
    t_ns, end_ns = 20.0 * SECOND_NS, hours * HOUR_NS
    while chosen:
        t_ns += chance.expovariate(per_hour / HOUR_NS)
        if t_ns >= end_ns:
            break
        deeds.append(_deed(int(t_ns), chance.choice(chosen), chance, symbols))
    return tuple(deeds)


def harmless(seed: int, hours: float, per_hour: float) -> tuple[Deed, ...]:
    """Link flaps under 60 s and planned restarts, the latter one at a time: what must never cause a KILL."""
    chance = random.Random(seed * 1_000_003 + 29)
    deeds: list[Deed] = []
    t_ns, end_ns = 60.0 * SECOND_NS, hours * HOUR_NS
    while True:
        t_ns += 90.0 * SECOND_NS + chance.expovariate(per_hour / HOUR_NS)
        if t_ns >= end_ns:
            return tuple(deeds)
        if chance.random() < 0.6:
            kind = chance.choice((Kind.LINK_DOWN, Kind.GATEWAY_RESTART))
            deeds.append(Deed(int(t_ns), kind, "bridge", int(chance.uniform(0.05, 45.0) * SECOND_NS)))
        else:
            service = chance.choice(SERVICES)
            deeds.append(Deed(int(t_ns), Kind.PLANNED_STOP, service, int(chance.uniform(0.3, 4.0) * SECOND_NS)))


def _deed(t_ns: int, kind: Kind, chance: random.Random, symbols: int) -> Deed:
    def seconds(low: float, high: float) -> int:
        return int(low * SECOND_NS * (high / low) ** chance.random())

    symbol = chance.randrange(symbols)
    if kind in (Kind.LINK_DOWN, Kind.HALF_OPEN):
        return Deed(t_ns, kind, chance.choice(("bridge", "bridge", "both", "emergency")), seconds(0.05, 90.0))
    if kind in (Kind.GATEWAY_RESTART, Kind.BROKER_LOST):
        return Deed(t_ns, kind, "both", seconds(0.2, 90.0), value=float(chance.random() < 0.5))
    if kind == Kind.MUTE:
        return Deed(t_ns, kind, chance.choice(("bridge", "both")), seconds(0.2, 12.0))
    if kind == Kind.SLOW_API:
        return Deed(t_ns, kind, "bridge", seconds(2.0, 20.0), value=chance.choice((0.05, 0.2, 0.45, 0.8, 1.5)))
    if kind == Kind.REJECT:
        return Deed(t_ns, kind, value=float(chance.choice((1, 1, 2, 5))))
    if kind in (Kind.STATUS_TWICE, Kind.STATUS_LOST, Kind.STATUS_LATE):
        return Deed(t_ns, kind, for_ns=seconds(2.0, 30.0))
    if kind == Kind.CORRECTION:
        return Deed(t_ns, kind, value=chance.choice((0.01, -0.02, 0.05)))
    if kind in (Kind.HALT, Kind.STALL):
        return Deed(t_ns, kind, symbol=symbol, for_ns=seconds(1.0, 60.0))
    if kind in (Kind.CROSSED, Kind.WIDE):
        return Deed(t_ns, kind, symbol=symbol, for_ns=seconds(0.2, 10.0), value=chance.choice((40.0, 120.0)))
    if kind in (Kind.RESET_317, Kind.NAN):
        return Deed(t_ns, kind, symbol=symbol)
    if kind == Kind.INDEX_MOVE:
        return Deed(t_ns, kind, value=chance.choice((-6.0, -3.0, 3.0, 5.5)), for_ns=seconds(0.5, 60.0))
    if kind == Kind.SHOCK:
        return Deed(t_ns, kind, symbol=symbol, value=chance.choice((-5.0, -1.5, 1.5, 5.0)), for_ns=seconds(0.5, 20.0))
    if kind == Kind.WEAK_MODEL:
        return Deed(t_ns, kind, for_ns=seconds(30.0, 240.0))
    if kind in (Kind.DISK_FULL, Kind.DISK_SLOW):
        return Deed(t_ns, kind, for_ns=seconds(0.5, 20.0), value=seconds(0.05, 2.0) / 1e9)
    if kind == Kind.WALL_JUMP:
        return Deed(t_ns, kind, value=chance.choice((-3600.0, -30.0, -2.0, 2.0, 30.0, 3600.0)))
    if kind in (Kind.CRASH, Kind.HANG, Kind.PLANNED_STOP):
        longest = 30.0 if kind == Kind.HANG else 12.0
        return Deed(t_ns, kind, chance.choice(SERVICES), seconds(0.1, longest))
    if kind == Kind.CRASH_SENDING:
        return Deed(t_ns, kind, "broker-bridge", seconds(0.3, 12.0), value=float(chance.random() < 0.5))
    who = chance.choice(("cockpit", "cockpit", "cli"))
    if kind == Kind.ORDER:
        value = chance.choice((-1.0, 1.0)) * chance.choice((1, 5, 20, 60, 200, 400, 5000, 0.5))
        return Deed(t_ns, kind, who, symbol=symbol, value=value, for_ns=chance.choice((0, 1, 2)))
    if kind == Kind.STREAM_GONE:
        return Deed(t_ns, kind, "cockpit", seconds(0.5, 10.0), value=float(chance.random() < 0.3))
    return Deed(t_ns, kind, who)
