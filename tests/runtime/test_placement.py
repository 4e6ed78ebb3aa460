"""Who spins, and who is kept off whose core."""

from __future__ import annotations

import subprocess
import sys

from engine import topology
from engine.config import Runtime
from engine.runtime.placement import affinity, waits

BRIDGE, COCKPIT, WATCHDOG = topology.BRIDGE, topology.COCKPIT, topology.WATCHDOG


def test_nobody_spins_by_itself_on_a_small_host() -> None:
    for service in topology.SERVICES:
        for placed in ("shared", "dedicated"):
            assert waits(Runtime(), service.name, 2, placed) == "doorbell"


def test_hot_services_that_own_a_core_spin() -> None:
    assert waits(Runtime(), BRIDGE, 8, "dedicated") == "busy-spin"
    assert waits(Runtime(), WATCHDOG, 8, "dedicated") == "busy-spin"
    assert waits(Runtime(), COCKPIT, 8, "dedicated") == "doorbell"
    assert waits(Runtime(pin=False), BRIDGE, 8, "dedicated") == "doorbell"


def test_polling_the_socket_is_asked_for_and_concerns_its_reader_alone() -> None:
    always = Runtime(poll_socket="always")
    assert waits(always, BRIDGE, 2, "shared") == "busy-spin"
    assert waits(always, WATCHDOG, 2, "shared") == "doorbell"
    assert waits(Runtime(poll_socket="never"), BRIDGE, 8, "dedicated") == "doorbell"


def test_a_core_that_is_polled_on_belongs_to_the_host_alone() -> None:
    cores = [0, 1]
    always = Runtime(poll_socket="always")
    assert affinity(always, BRIDGE, cores, "shared") == {1}
    assert affinity(always, WATCHDOG, cores, "shared") == {0}
    assert affinity(always, COCKPIT, cores, "shared") == {0}
    assert affinity(Runtime(), COCKPIT, cores, "shared") == {0, 1}
    assert affinity(Runtime(), WATCHDOG, cores, "shared") == {0}
    assert affinity(Runtime(), WATCHDOG, [3], "shared") == {3}
    assert affinity(Runtime(), WATCHDOG, cores, "dedicated") == {0, 1}
    assert affinity(Runtime(pin=False), WATCHDOG, cores, "shared") == {0, 1}
    assert affinity(Runtime(poll_socket="always", pin=False), COCKPIT, cores, "shared") == {0, 1}
    assert affinity(always, COCKPIT, [3], "shared") == {3}


def test_every_thread_of_who_is_kept_off_the_hot_core_stays_off_it() -> None:
    """A helper of the watchdog's on the host's core stops the host in the middle of the closes."""
    program = """
import os, threading
from types import SimpleNamespace
from engine.config import Runtime
from engine.runtime.placement import affinity, allowed_cores
from engine.runtime.priority import own_threads
from engine.runtime.runner import settle

gate = threading.Event()
threading.Thread(target=gate.wait, daemon=True).start()
cores = allowed_cores()
for service in ("watchdog", "broker-bridge"):
    os.sched_setaffinity(0, cores)
    settle(SimpleNamespace(config=SimpleNamespace(runtime=Runtime()), service=service, heartbeat=None), "shared")
    wanted = affinity(Runtime(), service, cores, "shared")
    found = [os.sched_getaffinity(t) for t in own_threads()]
    assert os.sched_getaffinity(0) == wanted, (service, found, wanted)
    if service == "watchdog":
        assert len(found) > 1 and all(f == wanted for f in found), (service, found, wanted)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
