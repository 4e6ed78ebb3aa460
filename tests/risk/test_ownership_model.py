"""The whole ownership table as a model: bridge and watchdog as processes that die, hang and return at any moment.

The watchdog's moves are the code (``engine.risk.ownership.step``); the bridge's right follows from the lease cell by
the rule that its gate reads before every write. Every reachable world is visited.

1. Never two who may send: while the watchdog's hand acts, no process that could still write to the bridge's socket
   exists but one that the cell has already told that it owns nothing. 2. Entries leave only under a valid lease.
3. Without a watchdog for long the bridge flattens by itself, and no watchdog acts meanwhile. 4. From every world, if
   both processes live and are well, the bridge gets the right back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum

from engine.config import Guardrails
from engine.domain.codes import Owner
from engine.risk.ownership import BridgeFacts, Ownership, Step, step

G = Guardrails(leaving_s=2.0)
LONG_NS = 3_000_000_000
LIVES = 3


class Life(IntEnum):
    NONE = 0
    WELL = 1
    HUNG = 2
    """Stopped at any instruction, perhaps just before its write."""
    LEAVING = 3
    MUTE = 4
    """Alive; its connection is of no use while the emergency connection serves."""


class LeaseAge(IntEnum):
    VALID = 0
    EXPIRED = 1
    GONE = 2


@dataclass(frozen=True, slots=True)
class World:
    own: Ownership
    """The watchdog's mind; what it has published is ``cell``."""
    cell: Ownership
    watchdog: bool = True
    age: LeaseAge = LeaseAge.VALID
    bridge: Life = Life.NONE
    incarnation: int = 0
    reconciled: bool = False
    exposed: bool = False
    flattening: bool = False
    killed: bool = False
    """SIGKILL is on its way to the bridge."""

    def bridge_may_reduce(self) -> bool:
        """The gate's rule: not fenced, and nobody else owns the right."""
        return self.bridge != Life.NONE and self.cell.epoch >= self.cell.fence and self.cell.owner != Owner.WATCHDOG

    def bridge_may_open(self) -> bool:
        ours = self.cell.owner == Owner.BRIDGE and not self.cell.fencing
        return self.bridge_may_reduce() and ours and self.age == LeaseAge.VALID

    def watchdog_acts(self) -> bool:
        return self.watchdog and self.own.owner == Owner.WATCHDOG


def normal(w: World) -> World:
    """Epochs matter only by whether they lie under the fence; times only by what ``watch`` is told."""

    def plain(o: Ownership) -> Ownership:
        return replace(o, epoch=0 if o.epoch < o.fence else 1, fence=1, since_ns=0, gone_since_ns=0)

    return replace(w, own=plain(w.own), cell=plain(w.cell))


def cycle(w: World, after_ns: int) -> World:
    """One cycle of a living watchdog."""
    facts = BridgeFacts(
        incarnation=w.incarnation, alive=w.bridge != Life.NONE, hung=w.bridge == Life.HUNG,
        leaving=w.bridge == Life.LEAVING, reconciled=w.reconciled and w.bridge != Life.NONE, exposed=w.exposed,
        exit_seen=w.bridge == Life.NONE, flattening=w.flattening,
        unreachable=w.bridge == Life.MUTE and w.flattening,
    )  # fmt: skip
    own, what = step(w.own, facts, G, w.own.since_ns + after_ns)
    cell = own
    if own.fencing:  # the fence word is published, the epoch not yet raised
        cell = replace(own, epoch=min(own.epoch, own.fence - 1))
    w = replace(w, own=own, cell=cell, age=LeaseAge.VALID)
    if what in (Step.FENCE, Step.LEFT_TOO_LONG):
        w = replace(w, killed=w.bridge != Life.NONE)
    return w


def returned(w: World) -> World:
    """Another watchdog takes its place: what ``Takeover.load`` does with the cell."""
    start = Owner.LEAVING if w.cell.owner == Owner.LEAVING else Owner.BRIDGE
    own = Ownership(start, max(w.cell.epoch, w.cell.fence - 1) + 1, w.cell.fence, w.incarnation, 0)
    return replace(w, watchdog=True, own=own, cell=own, flattening=False, age=LeaseAge.VALID)


def moves(w: World) -> Iterator[World]:
    if w.watchdog:
        yield cycle(w, 0)
        yield cycle(w, LONG_NS)
        yield replace(w, watchdog=False)
        yield replace(w, flattening=not w.flattening)
    else:
        yield returned(w)
        if w.age < LeaseAge.GONE:
            yield replace(w, age=LeaseAge(w.age + 1))
    if w.killed:
        yield replace(w, bridge=Life.NONE, killed=False, reconciled=False)
    elif w.bridge == Life.NONE:
        if w.incarnation < LIVES:
            yield replace(w, bridge=Life.WELL, incarnation=w.incarnation + 1, reconciled=False)
    else:
        yield replace(w, bridge=Life.NONE, reconciled=False)
        for life in (Life.WELL, Life.HUNG, Life.LEAVING, Life.MUTE):
            yield replace(w, bridge=life)
        yield replace(w, reconciled=True)
    yield replace(w, exposed=not w.exposed)


def check(w: World) -> None:
    if w.watchdog_acts() and w.bridge != Life.NONE:
        assert w.incarnation > w.own.incarnation, f"the fenced process can still write: {w}"
        assert not w.bridge_may_reduce(), f"two who may send: {w}"
    if w.bridge_may_open():
        assert w.age == LeaseAge.VALID, f"entries without a lease: {w}"
        assert w.cell.owner == Owner.BRIDGE
    if w.age == LeaseAge.GONE:
        assert not w.watchdog_acts(), f"the dead-man and the watchdog act together: {w}"
    if w.own.fencing and w.watchdog:
        assert not w.bridge_may_open(), f"a fenced bridge may open: {w}"


def reachable() -> dict[World, World]:
    first = World(Ownership(), Ownership())
    seen, queue = {normal(first): first}, deque([first])
    while queue:
        for after in moves(queue.popleft()):
            check(after)
            key = normal(after)
            if key not in seen:
                seen[key] = after
                queue.append(after)
    return seen


def test_in_no_reachable_world_may_two_send_or_an_entry_leave_without_lease() -> None:
    assert len(reachable()) > 1_000


def test_from_every_world_a_well_bridge_gets_the_right_back() -> None:
    for w in reachable().values():
        if w.killed or w.bridge not in (Life.NONE, Life.WELL):
            w = replace(w, bridge=Life.NONE, killed=False)
        if not w.watchdog:
            w = returned(w)
        w = replace(w, flattening=False)
        w = cycle(w, 0)
        w = replace(w, bridge=Life.WELL, incarnation=w.incarnation + 1, reconciled=True)
        for _ in range(4):
            w = cycle(w, 0)
        assert w.bridge_may_open(), w


def test_rows_of_the_table() -> None:
    """Each row once, by its facts."""
    ours = Ownership(incarnation=1)
    alive = BridgeFacts(incarnation=1, alive=True, reconciled=True)
    cases = [
        ("normal", ours, alive, Owner.BRIDGE, Step.NONE),
        ("planned stop", ours, replace(alive, leaving=True), Owner.LEAVING, Step.NONE),
        ("dead and flat", ours, replace(alive, alive=False, exit_seen=True), Owner.NOBODY, Step.NONE),
        ("hung and flat", ours, replace(alive, hung=True), Owner.BRIDGE, Step.NONE),
        ("hung, exposed", ours, replace(alive, hung=True, exposed=True), Owner.BRIDGE, Step.FENCE),
        ("dead, exposed", ours, replace(alive, alive=False, exit_seen=True, exposed=True), Owner.BRIDGE, Step.FENCE),
        ("mute, flat", ours, replace(alive, unreachable=True), Owner.BRIDGE, Step.NONE),
        ("mute, exposed", ours, replace(alive, unreachable=True, exposed=True), Owner.BRIDGE, Step.FENCE),
    ]
    for name, before, facts, owner, what in cases:
        after, found = step(before, facts, G, 1)
        assert (after.owner, found, after.fencing) == (owner, what, what == Step.FENCE), name
    fenced, _ = step(ours, replace(alive, hung=True, exposed=True), G, 1)
    still, found = step(fenced, replace(alive, hung=True, exposed=True), G, 2)
    assert (still, found) == (fenced, Step.NONE), "not before the exit has been seen"
    taken, found = step(fenced, replace(alive, alive=False, exit_seen=True, exposed=True), G, 3)
    assert (taken.owner, found) == (Owner.WATCHDOG, Step.TAKE_OVER)
    new = replace(alive, incarnation=2)
    for facts in (replace(new, reconciled=False), replace(new, flattening=True), replace(new, hung=True)):
        assert step(taken, facts, G, 4)[0].owner == Owner.WATCHDOG
    back, found = step(taken, new, G, 4)
    assert (back.owner, found) == (Owner.BRIDGE, Step.HAND_BACK)
    assert back.epoch > taken.epoch
    left = Ownership(Owner.LEAVING, incarnation=1, since_ns=0)
    gone = replace(alive, alive=False, exit_seen=True, exposed=True)
    assert step(left, gone, G, LONG_NS // 2)[1] == Step.NONE
    assert step(left, gone, G, LONG_NS)[1] == Step.LEFT_TOO_LONG
    assert step(left, replace(gone, exposed=False), G, LONG_NS)[0].owner == Owner.NOBODY
