"""Exactly one owner of the right to send, at any time. Pure; the watchdog carries it out.

    normal                      BRIDGE, lease renewed while its process lives
    bridge says that it leaves  LEAVING for up to ``leaving_s``: nobody sends, the guard goes on watching
    bridge gone, account flat   NOBODY: restart only
    bridge gone, hung, or mute while a breach must be closed, exposure open
                                fence, kill, see the exit, then WATCHDOG
    bridge back, reconciled     BRIDGE under a new epoch

Invariants
1. The epoch only rises; every change of owner gives a new one. 2. WATCHDOG owns only after the exit of the fenced
bridge has been seen. 3. The bridge gets the right back only from NOBODY/WATCHDOG/LEAVING with a new incarnation, and
from WATCHDOG only when it has reconciled and no flatten of the watchdog's is under way. 4. Whatever came before, a
bridge that is back, reconciled and well gets the right within three steps once the watchdog has nothing left to close.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from engine.config import Guardrails
from engine.domain.codes import Owner


class Step(IntEnum):
    NONE = 0
    FENCE = 1  # publish the fence word, SIGKILL the bridge if it still runs
    TAKE_OVER = 2  # the exit has been seen: cancel at once
    HAND_BACK = 3
    LEFT_TOO_LONG = 4  # LEAVING is over, the bridge is not back, positions are open


@dataclass(frozen=True, slots=True)
class BridgeFacts:
    """``alive``: its process exists. ``hung``: alive without a heartbeat for too long, after having been READY.
    ``unreachable``: it lives, but its connection is of no use while ours serves, and what is open must be closed."""

    incarnation: int = 0
    alive: bool = False
    hung: bool = False
    leaving: bool = False
    reconciled: bool = False
    exposed: bool = False
    """Positions, working orders or orders of unknown fate."""
    exit_seen: bool = False
    flattening: bool = False
    """The watchdog's own connection is getting flat, or has sent too much in the last second to share the budget."""
    unreachable: bool = False


@dataclass(frozen=True, slots=True)
class Ownership:
    owner: Owner = Owner.BRIDGE
    epoch: int = 1
    fence: int = 0
    incarnation: int = 0
    """Of the bridge that holds, or held last, the right."""
    since_ns: int = 0
    fencing: bool = False
    gone_since_ns: int = 0


def step(state: Ownership, bridge: BridgeFacts, g: Guardrails, now_ns: int) -> tuple[Ownership, Step]:
    """Advance by what is seen of the bridge."""
    newcomer = bridge.alive and bridge.incarnation > state.incarnation
    if state.fencing:
        # A newcomer proves the exit too: it can't register while the fenced process lives, and it may be there before
        # anybody has looked. Without this the right to send would wait for an exit that nobody can see any more.
        if not (bridge.exit_seen or newcomer):
            return state, Step.NONE
        taken = replace(state, owner=Owner.WATCHDOG, epoch=state.epoch + 1, since_ns=now_ns, fencing=False)
        return taken, Step.TAKE_OVER
    if state.owner == Owner.BRIDGE:
        return _normal(state, bridge, g, now_ns, newcomer)
    if newcomer and not bridge.hung and not bridge.leaving:
        if state.owner == Owner.WATCHDOG and (not bridge.reconciled or bridge.flattening):
            return state, Step.NONE
        back = Ownership(Owner.BRIDGE, state.epoch + 1, state.fence, bridge.incarnation, now_ns)
        return back, Step.HAND_BACK
    if state.owner == Owner.LEAVING and now_ns - state.since_ns >= g.leaving_s * 1e9:
        if not bridge.exposed:
            return replace(state, owner=Owner.NOBODY, epoch=state.epoch + 1, since_ns=now_ns), Step.NONE
        return replace(state, fencing=True, fence=state.epoch + 1, gone_since_ns=now_ns), Step.LEFT_TOO_LONG
    if state.owner == Owner.NOBODY and bridge.exposed and not bridge.alive:
        return replace(state, fencing=True, fence=state.epoch + 1, gone_since_ns=now_ns), Step.FENCE
    return state, Step.NONE


def _normal(
    state: Ownership, bridge: BridgeFacts, g: Guardrails, now_ns: int, newcomer: bool
) -> tuple[Ownership, Step]:
    if newcomer:  # restarted faster than it was missed: a new process needs a new epoch
        return Ownership(Owner.BRIDGE, state.epoch + 1, state.fence, bridge.incarnation, now_ns), Step.HAND_BACK
    if bridge.leaving:
        return replace(state, owner=Owner.LEAVING, epoch=state.epoch + 1, since_ns=now_ns), Step.NONE
    if bridge.alive and not bridge.hung and not (bridge.unreachable and bridge.exposed):
        return replace(state, gone_since_ns=0), Step.NONE
    if state.incarnation == 0:
        return state, Step.NONE  # there has been no bridge yet
    if not bridge.exposed:
        if bridge.alive:
            return state, Step.NONE  # hung and flat: the supervisor restarts it
        return replace(state, owner=Owner.NOBODY, epoch=state.epoch + 1, since_ns=now_ns), Step.NONE
    return replace(state, fencing=True, fence=state.epoch + 1, gone_since_ns=now_ns), Step.FENCE
