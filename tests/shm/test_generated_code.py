"""The compiled kernels contain exactly the orderings that the protocol needs, on x86-64 and AArch64."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shm import kernels, wait  # isort: skip  (before numba: it names the cache directory)
import numba

ORDERINGS = {
    # kernel          orderings of its LLVM code in the order of its source, unoptimised; vload, vstore: volatile
    # accesses; without those of the kernels that it calls
    "ring_publish": "load monotonic, store release",
    # vload of the record's own words; mark; fence; lines; mark; tail
    "ring_publish_one": "load monotonic, 8 vload, store monotonic, fence release, 8 vload, vstore, vstore,"
    " store release, store release",
    # marks; fence; lines; mark
    "_write_chunk": "store monotonic, fence release, vstore, vstore, store release",
    "ring_poll": "load monotonic, load acquire, fence acquire, load monotonic, store release",
    "_copy_out": "vload",
    "ring_poll_one": "load monotonic, load acquire, load monotonic, fence acquire, load monotonic, store release",
    "_resume": "load acquire, store release",
    "ring_recover": "load monotonic, load acquire, store release",
    "ring_tail": "load acquire",
    "word_load": "load acquire",
    "word_store": "store release",
    "cell_write": "load monotonic, 8 vload, store monotonic, fence release, vstore, vstore, store release",
    "cell_read": "load acquire, vload, fence acquire, load monotonic, pause",
    "cells_moved": "load acquire",
    "announce": "store monotonic, fence seq_cst",
    "asleep": "fence seq_cst, load acquire",
    "spin": "load acquire, pause",
    "counter_add": "load monotonic, store monotonic",
}
AARCH64 = {
    # kernel          what AArch64 must have, as often as it must at least
    "ring_publish": {"stlr": 1},
    "ring_publish_one": {"dmb ish": 1, "stlr": 2},
    "_write_chunk": {"dmb ish": 1, "stlr": 1},
    "_copy_out": {},
    "ring_poll": {"ldar": 1, "dmb ishld": 1, "stlr": 1},
    "ring_poll_one": {"ldar": 1, "dmb ishld": 1, "stlr": 1},
    "_resume": {"ldar": 1, "stlr": 1},
    "ring_recover": {"ldar": 1, "stlr": 1},
    "ring_tail": {"ldar": 1},
    "word_load": {"ldar": 1},
    "word_store": {"stlr": 1},
    "cell_write": {"dmb ish": 1, "stlr": 1},
    "cell_read": {"ldar": 1, "dmb ishld": 1},
    "cells_moved": {"ldar": 1},
    "announce": {"dmb ish": 1},
    "asleep": {"dmb ish": 1, "ldar": 1},
    "spin": {"ldar": 1, "yield": 1},
    "counter_add": {},
}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    script = Path(__file__).with_name("orderings.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def wanted(kernel: str) -> list[str]:
    events = []
    for entry in ORDERINGS[kernel].split(", "):
        times, _, event = entry.partition(" ")
        events += [event] * int(times) if times.isdigit() else [entry]
    return events


def fits(events: list[str], kernel: str) -> bool:
    """The same orderings as in the table, and stores and fences in its order (loads of a first block may come last)."""
    table, found = wanted(kernel), once(events)
    effects = [[e for e in side if not e.startswith("load")] for side in (table, found)]
    return sorted(found) == sorted(table) and effects[0] == effects[1]


def once(events: list[str]) -> list[str]:
    """Twice the same load in a row counts once: unoptimised code looks at a loop's condition before and in the loop."""
    return [e for i, e in enumerate(events) if e != "load acquire" or i == 0 or events[i - 1] != e]


@pytest.mark.parametrize("kernel", ORDERINGS)
def test_each_kernel_has_exactly_these_orderings(found: dict[str, Any], kernel: str) -> None:
    assert fits(found[kernel]["events"], kernel), found[kernel]["events"]


@pytest.mark.parametrize("kernel", AARCH64)
def test_each_kernel_has_its_barriers_on_aarch64(found: dict[str, Any], kernel: str) -> None:
    for instruction, times in AARCH64[kernel].items():
        assert found[kernel]["aarch64"].count(instruction) >= times, (instruction, found[kernel]["aarch64"])


@pytest.mark.parametrize("kernel", ORDERINGS)
def test_weakening_any_fence_release_or_acquire_is_noticed(found: dict[str, Any], kernel: str) -> None:
    """Each line of the source that orders something is weakened in turn: the table must no longer fit."""
    mutants = found[kernel]["mutants"]
    for line, events in mutants.items():
        assert not fits(events, kernel), f"{kernel}, {line}"
    ordering = [e for e in wanted(kernel) if e.split()[-1] in ("acquire", "release", "seq_cst")]
    assert len(mutants) >= len(ordering)


def optimised(kernel: Any) -> str:
    (signature,) = kernel.nopython_signatures
    (text,) = numba.njit(signature, error_model="numpy", nogil=True)(kernel.py_func).inspect_llvm().values()
    return str(text)


def loops(code: str, name: str) -> list[str]:
    """Basic blocks of the kernel that can reach themselves, each with its code."""
    function = next(
        f[0]
        for f in re.finditer(r"^define .*?^}", code, re.MULTILINE | re.DOTALL)
        if name in f[0].split("\n", 1)[0] and "cpython." not in f[0].split("\n", 1)[0]
        and "cfunc." not in f[0].split("\n", 1)[0]
    )  # fmt: skip
    blocks: dict[str, str] = {}
    label = "entry"
    for line in function.splitlines()[1:]:
        start = re.match(r'^("[^"]+"|[\w.$-]+):', line)
        if start:
            label = start[1].strip('"')
            blocks[label] = ""
        elif label in blocks or label == "entry":
            blocks[label] = blocks.get(label, "") + line + "\n"
    after = {
        name: {s.strip('"') for s in re.findall(r'label %("[^"]+"|[\w.$-]+)', text)} for name, text in blocks.items()
    }

    def reaches(start: str) -> bool:
        todo, seen = list(after[start]), set()
        while todo:
            block = todo.pop()
            if block == start:
                return True
            if block not in seen:
                seen.add(block)
                todo += after.get(block, ())
        return False

    return [text for name, text in blocks.items() if reaches(name)]


@pytest.mark.parametrize(("name", "kernel"), [("spin", wait.spin), ("cell_read", kernels.cell_read)])
def test_the_optimiser_hoists_no_load_out_of_a_spin(name: str, kernel: Any) -> None:
    assert any("load atomic" in text and "acquire" in text for text in loops(optimised(kernel), name))


def test_the_optimiser_keeps_payload_in_volatile_lines_or_atomic_words() -> None:
    assert re.search(r"store volatile <8 x i64>", optimised(kernels.ring_publish))
    assert re.search(r"store volatile <8 x i64>", optimised(kernels.ring_publish_one))
    assert re.search(r"store volatile <8 x i64>", optimised(kernels.cell_write))
    assert re.search(r"load volatile <8 x i64>", optimised(kernels.ring_poll))
    assert re.search(r"load volatile <8 x i64>", optimised(kernels.cell_read))
    assert "load atomic i64" in optimised(kernels.ring_poll_one)
