"""Sleeping and waking, the lease, and fencing between two senders: sound as built, and not when weakened."""

from __future__ import annotations

import pytest
from memory_model import MODELS, Act, Fence, Load, Model, Process, State, Store, violation


def sleeper_is_lost(
    model: Model, *, sleeper_fence: bool = True, producer_fence: bool = True, compare: bool = True, futex: bool = True
) -> bool:
    """One record is published while its reader goes to sleep. True if it may sleep on without ever being woken.

    A FIFO keeps a ring that came before the sleep; a futex does not, but its sleep compares the tail atomically.
    """
    full = (Fence("full"),)
    compares = ("tail", 0) if compare and futex else None
    sleeper = (
        Store("asleep", 1), *(full if sleeper_fence else ()), Load("tail", "tail"),
        Act("sleep", when=lambda r: r["tail"] == 0, needs=("tail",), compares=compares),
    )  # fmt: skip
    producer = (
        Store("tail", 1, release=True), *(full if producer_fence else ()), Load("flag", "asleep", acquire=True),
        Act("wake", when=lambda r: r["flag"] == 1, needs=("flag",)),
    )  # fmt: skip

    def sound(s: State) -> bool:
        if {"sleeper", "producer"} - s.finished or "sleep" not in s.trace:
            return True
        if not futex:
            return "wake" in s.trace
        return "wake" in s.trace[s.trace.index("sleep") :]

    return violation(model, (Process("sleeper", sleeper), Process("producer", producer)), sound)[0] is not None


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("futex", [True, False])
def test_a_sleeping_reader_is_always_woken(model: Model, futex: bool) -> None:
    assert not sleeper_is_lost(model, futex=futex)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("wrong", ["sleeper_fence", "producer_fence", "compare"])
def test_a_wake_up_is_lost_without(model: Model, wrong: str) -> None:
    """x86 too reorders a store before a later load: both fences are needed there."""
    if wrong == "compare":
        assert sleeper_is_lost(model, compare=False)
    else:
        assert sleeper_is_lost(model, futex=False, **{wrong: False})  # type: ignore[arg-type]


def lease_lies(model: Model, *, fence: bool = True) -> bool:
    """A lease that expires at 2 is replaced by a void one that expires at 9, in the same cell, while time passes.

    True if the bridge may decide to send by the expiry of the one and the validity of the other.
    """
    watchdog = (
        Store("version", 1), Fence("release"), Store("void", 1), Store("expires", 9), Store("version", 2, release=True),
    )  # fmt: skip
    look = (Fence("acquire"),) if fence else ()
    cell = (
        Load("v1", "version", acquire=True), Load("void", "void"), Load("expires", "expires"), *look,
        Load("v2", "version"),
    )  # fmt: skip

    def valid(r: object) -> bool:
        assert isinstance(r, dict)
        return r["v1"] == r["v2"] and not r["v1"] % 2 and not r["void"] and r["now"] < r["expires"]

    needs = ("v1", "v2", "void", "expires", "now")
    bridge = (*cell, Fence("full"), Load("now", "clock"), Act("decided", when=valid, needs=needs))
    clock = tuple(Store("clock", t) for t in range(1, 4))

    def sound(s: State) -> bool:
        if "decided" not in s.trace:
            return True
        r = s.registers
        return r["expires"] != 9  # the new time of expiry belongs to the void lease

    sides = (Process("watchdog", watchdog, killable=True), Process("bridge", bridge), Process("clock", clock))
    return violation(model, sides, sound, {"expires": 2})[0] is not None


@pytest.mark.parametrize("model", MODELS)
def test_a_lease_is_never_put_together_from_two(model: Model) -> None:
    assert not lease_lies(model)


def test_a_lease_read_without_the_cells_fence_lets_a_void_epoch_live_longer() -> None:
    assert lease_lies("RELAXED", fence=False)


BRIDGE, FENCED, WATCHDOG, BACK = 1, 2, 3, 4
"""The lease cell: owner bridge under epoch 1; fenced; owner watchdog; bridge again under a new epoch."""


def two_senders(model: Model, *, wait_for_exit: bool = True, new_epoch: bool = True) -> bool:
    """The bridge, its successor and the watchdog. True if the bridge's side may send after the watchdog has begun to.

    The bridge may be killed, or die by itself, at any step; the supervisor may start its successor at once.
    """
    bridge = (
        Load("lease", "lease", acquire=True),
        Act("bridge sends", when=lambda r: r["lease"] == BRIDGE, needs=("lease",)),
    )
    allowed = {BACK} if new_epoch else {BRIDGE, BACK}
    successor = (
        Load("heir.lease", "lease", acquire=True),
        Act("bridge sends", when=lambda r: r["heir.lease"] in allowed, needs=("heir.lease",)),
    )
    fencing = (Store("lease", FENCED, release=True), Act("SIGKILL"))
    taking = (Store("lease", WATCHDOG, release=True), Act("watchdog sends"), Act("watchdog is done"))
    giving_back = (Store("lease", BACK, release=True),)

    def may_take(s: State) -> bool:
        return "SIGKILL" in s.trace and (not wait_for_exit or "bridge" in s.dead or "bridge" in s.finished)

    def exited(s: State) -> bool:
        return "bridge" in s.dead

    sides = (
        Process("bridge", bridge, killable=True),
        Process("fencing", fencing),
        Process("taking", taking, after=may_take),
        Process("successor", successor, after=exited),
        Process("back", giving_back, after=lambda s: "watchdog is done" in s.trace),
    )

    def sound(s: State) -> bool:
        if "watchdog sends" not in s.trace:
            return True
        begun = s.trace.index("watchdog sends")
        ended = s.trace.index("watchdog is done") if "watchdog is done" in s.trace else len(s.trace)
        return "bridge sends" not in s.trace[begun:ended]

    return violation(model, sides, sound, {"lease": BRIDGE})[0] is not None


@pytest.mark.parametrize("model", MODELS)
def test_there_are_never_two_senders(model: Model) -> None:
    assert not two_senders(model)


@pytest.mark.parametrize(
    "wrong",
    [{"wait_for_exit": False}, {"new_epoch": False}],
    ids=["without seeing the exit", "with the predecessor's epoch"],
)
@pytest.mark.parametrize("model", MODELS)
def test_there_are_two_senders(model: Model, wrong: dict[str, bool]) -> None:
    assert two_senders(model, **wrong)
