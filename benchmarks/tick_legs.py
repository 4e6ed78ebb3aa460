"""Where the time of ``tick_to_order`` is: each leg of a round by the stamps of both ends, and the core's own gaps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import contenders
from shm.jit import kernel

from numba import types  # isort: skip

_SPIN_NS = 1_000_000_000
_GAPS_US = (20, 50, 100)
# A round's stamps: the driver's write begins, is over, the answer is there; then ``contenders.STAMPS``.
LEGS = (
    ("driver writes until the message is read", 0, 3),
    ("  of it until its write is over", 0, 1),
    ("message read until the write begins", 3, 8),
    ("  decoded", 3, 4),
    ("  book, features, signal", 4, 5),
    ("  decision", 5, 6),
    ("  intent written", 6, 7),
    ("  gate, order's bytes", 7, 8),
    ("write begins until the driver has it", 8, 2),
    ("  of it until the write is over", 8, 9),
)

_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.int64))


@kernel("void(int64[::1], int64, int64)")
def spin(gaps, count, for_ns):  # type: ignore[no-untyped-def]
    """Read the clock for so long; ``gaps`` gets the ``count`` longest times between two readings, ns, in any order."""
    time = np.zeros(2, np.int64)
    at = time.ctypes.data
    _clock_gettime(1, at)
    last = time[0] * 1_000_000_000 + time[1]
    end = last + for_ns
    least = 0
    while last < end:
        _clock_gettime(1, at)
        now = time[0] * 1_000_000_000 + time[1]
        if now - last > gaps[least]:
            gaps[least] = now - last
            for i in range(count):
                if gaps[i] < gaps[least]:
                    least = i
        last = now


def tell_gaps(core: int) -> dict[str, float]:
    """What a program that does nothing but read the clock loses on ``core``: printed, and returned per second."""
    shared = contenders.shared_stamps()
    pid = contenders.on_core(core, lambda: spin(shared, len(shared), _SPIN_NS))
    contenders.wait_out(pid)
    found = {f"{us}_us": float((shared > us * 1000).sum()) * 1e9 / _SPIN_NS for us in _GAPS_US}
    words = ", ".join(f"{n:.0f} above {name.removesuffix('_us')} µs" for name, n in found.items())
    longest = f"the longest {shared.max() / 1e3:.0f} µs"
    print(f"core {core}    a loop that only reads the clock has gaps: {words} in a second; {longest}")
    return found


def tell_legs(stamps: Mapping[str, npt.NDArray[np.int64]]) -> list[dict[str, Any]]:
    """Percentiles of each leg, of each contender that tells its stamps: printed side by side, and returned in µs."""
    rows: list[dict[str, Any]] = []
    print(
        "\nlegs of a round, µs" + " " * 23 + "".join(f"{f'{name} p50':>12s}{'p90':>8s}{'p99':>8s}" for name in stamps)
    )
    for words, a, b in LEGS:
        row: dict[str, Any] = {"leg": words.strip()}
        text = ""
        for name, s in stamps.items():
            known = s[:, a].any() and s[:, b].any()
            found = [float(np.percentile((s[:, b] - s[:, a]) / 1e3, p)) for p in (50, 90, 99)] if known else []
            row[name] = found
            text += "".join(f"{v:{w}.2f}" for v, w in zip(found, (12, 8, 8), strict=True)) if known else " " * 28
        rows.append(row)
        print(f"  {words:40s}{text}")
    return rows
