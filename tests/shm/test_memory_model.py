"""The ring and cell protocols hold under TSO and relaxed memory with a kill at every step; weakened ones do not."""

from __future__ import annotations

import pytest
from memory_model import Fence, Load, Model, Registers, Store, violation

MODELS: tuple[Model, ...] = ("TSO", "RELAXED")
RECORDS, SLOTS = 3, 2


def ring_writer(*, fence: bool = True, release: bool = True) -> tuple[Store | Fence, ...]:
    program: list[Store | Fence] = []
    for n in range(RECORDS):
        slot = n % SLOTS
        program.append(Store("intent", n + 1))
        if fence:
            program.append(Fence())
        program += [Store(f"a{slot}", n + 1), Store(f"b{slot}", n + 1), Store("tail", n + 1, release=release)]
    return tuple(program)


def ring_reader(record: int, *, fence: bool = True, acquire: bool = True) -> tuple[Load | Fence, ...]:
    slot = record % SLOTS
    middle = (Load("a", f"a{slot}"), Load("b", f"b{slot}"), *((Fence(),) if fence else ()))
    return (Load("tail", "tail", acquire=acquire), *middle, Load("intent", "intent"))


def ring_is_sound(record: int, r: Registers) -> bool:
    if r["tail"] <= record or r["intent"] > record + SLOTS:
        return True
    return r["a"] == r["b"] == record + 1


def ring_breaks(model: Model, writer: tuple[Store | Fence, ...], **reader: bool) -> bool:
    return any(
        violation(model, writer, ring_reader(n, **reader), lambda r, n=n: ring_is_sound(n, r))[0] is not None  # type: ignore[misc]
        for n in range(RECORDS)
    )


def cell_writer(*, fence: bool = True, release: bool = True) -> tuple[Store | Fence, ...]:
    program: list[Store | Fence] = []
    for n in range(2):
        program.append(Store("version", 2 * n + 1))
        if fence:
            program.append(Fence())
        program += [Store("a", n + 1), Store("b", n + 1), Store("version", 2 * n + 2, release=release)]
    return tuple(program)


def cell_reader(*, fence: bool = True, acquire: bool = True, late_acquire: bool = False) -> tuple[Load | Fence, ...]:
    middle = (Load("a", "a"), Load("b", "b"), *((Fence(),) if fence else ()))
    return (Load("v1", "version", acquire=acquire), *middle, Load("v2", "version", acquire=late_acquire))


def cell_is_sound(r: Registers) -> bool:
    if r["v1"] != r["v2"] or r["v1"] % 2 or r["v1"] == 0:
        return True
    return r["a"] == r["b"] == r["v1"] // 2


def cell_breaks(model: Model, writer: tuple[Store | Fence, ...], **reader: bool) -> bool:
    return violation(model, writer, cell_reader(**reader), cell_is_sound)[0] is not None


@pytest.mark.parametrize("model", MODELS)
def test_the_ring_protocol_never_shows_a_torn_or_overwritten_record(model: Model) -> None:
    assert not ring_breaks(model, ring_writer())


@pytest.mark.parametrize("model", MODELS)
def test_the_cell_protocol_never_shows_a_torn_value(model: Model) -> None:
    assert not cell_breaks(model, cell_writer())


def test_a_ring_without_the_writers_fence_tears() -> None:
    assert ring_breaks("RELAXED", ring_writer(fence=False))


def test_a_ring_whose_tail_is_not_released_tears() -> None:
    assert ring_breaks("RELAXED", ring_writer(release=False))


def test_a_ring_whose_reader_does_not_acquire_tears() -> None:
    assert ring_breaks("RELAXED", ring_writer(), acquire=False)


def test_a_ring_whose_reader_does_not_fence_tears() -> None:
    assert ring_breaks("RELAXED", ring_writer(), fence=False)


def test_a_cell_without_the_writers_fence_tears() -> None:
    assert cell_breaks("RELAXED", cell_writer(fence=False))


def test_a_cell_whose_even_store_is_plain_tears() -> None:
    assert cell_breaks("RELAXED", cell_writer(release=False))


def test_a_second_acquire_does_not_replace_the_readers_fence() -> None:
    assert cell_breaks("RELAXED", cell_writer(), fence=False, late_acquire=True)


def test_an_heir_that_lowers_the_intent_lets_a_wreck_be_read() -> None:
    """The writer died after intent 3 and half of record 2 (which overwrites record 0): its heir must keep intent 3."""
    wreck = {"tail": 2, "intent": 3, "a0": 3, "b0": 1, "a1": 2, "b1": 2}
    lowering = (Store("intent", 2), Fence())
    reader = ring_reader(0)
    assert violation("TSO", lowering, reader, lambda r: ring_is_sound(0, r), wreck)[0] is not None
    assert violation("TSO", (), reader, lambda r: ring_is_sound(0, r), wreck)[0] is None
