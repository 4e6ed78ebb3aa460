from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shm import counters, kernels, layouts, region, wait
from shm.layouts import CELL_RECORDS, GUARDRAIL, LAYOUT_VERSION, RING_RECORDS, SIZES

GOLDEN = Path(__file__).with_name("golden_layouts.txt")


def field(dtype: np.dtype[np.void], name: str) -> str:
    kind, offset = dtype.fields[name][:2]  # type: ignore[index]
    base = kind.base.str if kind.base.names is None else "record"
    return f"{name}@{offset}:{base}{''.join(f'x{n}' for n in kind.shape)}"


def as_they_are() -> str:
    """Every offset that two processes must agree on, a line for each structure."""
    records = {**RING_RECORDS, **CELL_RECORDS, "guardrail": GUARDRAIL}
    lines = [f"layout version {LAYOUT_VERSION}"]
    for name, dtype in records.items():
        lines.append(" ".join([name, str(dtype.itemsize), *(field(dtype, f) for f in dtype.names or ())]))
    words = {k.removeprefix("_H_").removeprefix("H_"): v for k, v in vars(region).items() if k.lstrip("_")[:2] == "H_"}
    lines.append(" ".join(["header", *(f"{k.lower()}@{v * 8}" for k, v in sorted(words.items(), key=lambda i: i[1]))]))
    lines.append(
        f"ring tail@{kernels.TAIL * 8} slots@{kernels.SLOTS * 8} writing={kernels.WRITING} chunk={kernels.CHUNK}"
    )
    lines.append(f"cell first@{kernels.SLOTS * 8} version@0")
    lines.append("cursor first@4096 position@0 generation@8 size=64")
    lines.append(f"histogram buckets={counters.BUCKETS} per_octave={counters.SUB}")
    lines.append(f"sleeper awake={wait.AWAKE} doorbell={wait.DOORBELL} futex={wait.FUTEX}")
    return "\n".join(lines) + "\n"


def test_every_offset_is_the_golden_one() -> None:
    """A change here is a change of layout: LAYOUT_VERSION rises with it, and the golden file is written anew."""
    assert as_they_are().splitlines() == GOLDEN.read_text().splitlines()


def test_every_record_is_whole_lines_without_hidden_padding() -> None:
    layouts.check()


def test_a_record_that_breaks_a_rule_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    padded = np.dtype({"names": ["sequence", "a"], "formats": ["<i8", "<i8"], "offsets": [0, 16], "itemsize": 64})
    monkeypatch.setitem(RING_RECORDS, "bad", padded)
    monkeypatch.setitem(SIZES, "bad", 64)
    with pytest.raises(AssertionError, match=r"bad\.a: implicit padding before offset 16"):
        layouts.check()
    monkeypatch.setitem(RING_RECORDS, "bad", np.dtype([("sequence", "<i8"), ("a", "<i8")]))
    monkeypatch.setitem(SIZES, "bad", 16)
    with pytest.raises(AssertionError, match="bad: 16 bytes are not whole cache lines"):
        layouts.check()


def test_two_layouts_that_differ_in_anything_have_different_hashes() -> None:
    base = [("sequence", "<i8"), ("a", "<i8")]
    others = [
        [("sequence", "<i8"), ("b", "<i8")],
        [("sequence", "<i8"), ("a", "<f8")],
        [("a", "<i8"), ("sequence", "<i8")],
    ]
    hashes = {layouts.dtype_hash(np.dtype(fields)) for fields in (base, *others)}
    assert len(hashes) == 4
