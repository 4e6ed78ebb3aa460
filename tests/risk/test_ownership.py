"""The ownership table, explored exhaustively: every reachable state, every combination of facts."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from itertools import product

from engine.config import Guardrails
from engine.domain.codes import Owner
from engine.risk.ownership import BridgeFacts, Ownership, Step, step

G = Guardrails(leaving_s=2.0)
SECOND = 1_000_000_000
INCARNATIONS = 3


def every_fact(incarnation: int) -> list[BridgeFacts]:
    """What can be seen of a bridge at one moment; the dead neither hang nor leave."""
    found = []
    for alive, hung, leaving, reconciled, exposed, flattening in product((False, True), repeat=6):
        if not alive and (hung or leaving):
            continue
        found.append(
            BridgeFacts(
                incarnation=incarnation,
                alive=alive,
                hung=hung,
                leaving=leaving,
                reconciled=reconciled,
                exposed=exposed,
                exit_seen=not alive,
                flattening=flattening,
            )
        )
    return found


def normal(state: Ownership) -> Ownership:
    """States that differ only in times and in how high the epoch is behave alike."""
    return replace(state, epoch=0, fence=0, since_ns=0, gone_since_ns=0)


def reachable() -> list[Ownership]:
    start = Ownership(incarnation=0)
    seen, queue = {normal(start): start}, deque([start])
    while queue:
        state = queue.popleft()
        for incarnation in range(state.incarnation, INCARNATIONS + 1):
            for facts in every_fact(incarnation):
                for now_ns in (state.since_ns, state.since_ns + 3 * SECOND):
                    after, what = step(state, facts, G, now_ns)
                    check(state, after, what, facts)
                    if normal(after) not in seen:
                        seen[normal(after)] = after
                        queue.append(after)
    return list(seen.values())


def check(before: Ownership, after: Ownership, what: Step, facts: BridgeFacts) -> None:
    assert after.epoch >= before.epoch
    if after.owner != before.owner:
        assert after.epoch > before.epoch, "a new owner needs a new epoch"
    if after.owner == Owner.WATCHDOG and before.owner != Owner.WATCHDOG:
        gone = facts.exit_seen or facts.incarnation > before.incarnation
        assert before.fencing, "the watchdog owns only what it has fenced"
        assert gone, "the watchdog owns only after the exit of the fenced bridge"
    if what == Step.HAND_BACK and before.owner == Owner.WATCHDOG:
        assert facts.reconciled
        assert not facts.flattening
    if before.fencing and after.owner == Owner.BRIDGE and not after.fencing:
        raise AssertionError("a fenced bridge got the right back without its exit having been seen")


def test_every_reachable_step_keeps_the_invariants() -> None:
    assert len(reachable()) > 8


def test_a_bridge_that_is_back_and_well_always_gets_the_right_again() -> None:
    """Also when it is back before its predecessor's exit was looked for."""
    for state in reachable():
        for exposed in (False, True):
            facts = BridgeFacts(incarnation=state.incarnation + 1, alive=True, reconciled=True, exposed=exposed)
            after = state
            for n in range(3):
                after, _ = step(after, facts, G, state.since_ns + n)
            assert after.owner == Owner.BRIDGE, f"stuck in {after} from {state}"
            assert not after.fencing
            assert after.fence <= after.epoch
