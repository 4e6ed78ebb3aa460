"""Where a service runs and how it waits: pure decisions from configuration, number of cores and placement."""

from __future__ import annotations

import os

from engine import topology
from engine.config import Runtime

SLEEPS = ("doorbell", "spin-then-futex")
"""Ways to wait that end in a sleep."""


def allowed_cores() -> list[int]:
    """Cores that this process may use, in order."""
    return sorted(os.sched_getaffinity(0))


def waits(runtime: Runtime, service: str, cores: int, placed: str) -> str:
    """``busy-spin``, ``yield`` or ``doorbell`` for a hot or cold service on a host with ``cores`` cores.

    Only who owns a core spins by itself: a spinning process on a shared core starves those it waits for.
    """
    spec = topology.service(service)
    if spec.polls and runtime.poll_socket != "auto":
        return "busy-spin" if runtime.poll_socket == "always" else "doorbell"
    if runtime.wait != "auto":
        return runtime.wait
    owns = runtime.pin and topology.enough_cores(cores) and topology.core_plan(cores, placed)[service] >= 0
    return "busy-spin" if owns and spec.hot else "doorbell"


def affinity(runtime: Runtime, service: str, cores: list[int], placed: str) -> set[int]:
    """Cores for a service; all of them means not pinned.

    A loop that polls a socket on a small host has its core to itself: all others are kept off it. So is the watchdog
    from any core of the host.
    """
    everything = set(cores)
    if not runtime.pin:
        return everything
    plan = topology.core_plan(len(cores), placed)
    core = plan[service]
    if core >= 0:
        return {cores[core]}
    leader = topology.HOSTED[0]
    if plan[leader] < 0:
        return everything
    polled = waits(runtime, leader, len(cores), placed) == "busy-spin"
    # The watchdog, which goes first wherever it is, must not hold up the host that it has just given its closes to.
    if polled or service == topology.WATCHDOG:
        return everything - {cores[plan[leader]]} or everything
    return everything
