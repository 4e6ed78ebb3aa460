"""Rings and cells under TSO and relaxed memory with a kill at every step: sound as built, and not when weakened."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from memory_model import MODELS, Fence, Load, Model, Op, Process, State, Store, violation

HEIR = 100
"""Added to the payload of records that the heir of a dead writer publishes."""


def publish(
    first: int, count: int, slots: int, *, chunk: int = 1, tag: int = 0, marks: bool = True, fence: bool = True,
    release: bool = True, tail_release: bool = True, look: str = "", prefix: str = "",
) -> tuple[Op, ...]:  # fmt: skip
    """``ring_publish``. ``look``: the gating reader's cursor, taken before each record ("late": after its mark)."""
    program: list[Op] = []
    for start in range(first, first + count, chunk):
        numbers = range(start, min(start + chunk, first + count))
        room, needs = None, ()
        if look and start >= slots:
            needs = (f"{prefix}room{start}",)
            room = _room(needs[0], start, slots)
        cursor = [Load(n, "cursor", acquire=True) for n in needs]
        if look == "late":
            program += [*(Store(f"m{n % slots}", -1 - n) for n in numbers), *cursor]
        else:
            program += cursor
            program += [Store(f"m{n % slots}", -1 - n, when=room, needs=needs) for n in numbers] if marks else []
        if fence:
            program.append(Fence("release"))
        for n in numbers:
            program += [Store(f"{w}{n % slots}", n + 1 + tag, when=room, needs=needs) for w in "ab"]
            program.append(Store(f"m{n % slots}", n, release=release, when=room, needs=needs))
        program.append(Store("tail", numbers[-1] + 1, release=tail_release, when=room, needs=needs))
    return tuple(program)


def _room(name: str, number: int, slots: int) -> Callable[[object], bool]:
    return lambda r: r[name] + slots > number  # type: ignore[index]


def poll(first: int, count: int, slots: int, *, acquire: bool = True, fence: bool = True) -> tuple[Op, ...]:
    """``ring_poll`` of ``count`` records from ``first``."""
    copies = [Load(f"{w}@{n}", f"{w}{n % slots}") for n in range(first, first + count) for w in "ab"]
    look = [Fence("acquire")] if fence else []
    return (Load("tail", "tail", acquire=acquire), *copies, *look, Load("again", f"m{first % slots}"))


def poll_one(n: int, slots: int, *, acquire: bool = True, fence: bool = True, p: str = "") -> tuple[Op, ...]:
    """``ring_poll_one`` of record ``n``. ``p``: prefix of its registers."""
    copies = [Load(f"{p}{w}@{n}", f"{w}{n % slots}") for w in "ab"]
    look = [Fence("acquire")] if fence else []
    word = f"m{n % slots}"
    return (Load(f"{p}mark", word, acquire=acquire), *copies, *look, Load(f"{p}again", word))


def whole(r: dict[str, int], n: int, p: str = "") -> bool:
    a, b = r[f"{p}a@{n}"], r[f"{p}b@{n}"]
    return a == b and a in (n + 1, n + 1 + HEIR)


def polled(first: int, count: int) -> Callable[[State], bool]:
    def sound(s: State) -> bool:
        r = s.registers
        if "reader" not in s.finished or r["tail"] < first + count or r["again"] != first:
            return True
        return all(whole(r, n) for n in range(first, first + count))  # type: ignore[arg-type]

    return sound


def took_one(n: int, slots: int) -> Callable[[State], bool]:
    """What was taken is whole; and what is published as that record is, for ever, what was taken."""

    def sound(s: State) -> bool:
        r = s.registers
        if "reader" not in s.finished or r["mark"] != n or r["again"] != n:
            return True
        if not whole(r, n):  # type: ignore[arg-type]
            return False
        return s.memory[f"m{n % slots}"] != n or s.memory[f"a{n % slots}"] == r[f"a@{n}"]

    return sound


VIRGIN = {"m0": -1}


def ring_breaks(model: Model, slots: int, count: int, read: int, reader: dict[str, bool], **writer: object) -> bool:
    """Some batch of ``read`` records of a ring to which ``count`` were written is accepted although it is not whole."""
    for first in range(count - read + 1):
        sides = (
            Process("writer", publish(0, count, slots, **writer), killable=True),  # type: ignore[arg-type]
            Process("reader", poll(first, read, slots, **reader)),
        )
        if violation(model, sides, polled(first, read), VIRGIN)[0] is not None:
            return True
    return False


def one_breaks(model: Model, reader: dict[str, bool], **writer: object) -> bool:
    for n in range(3):
        sides = (
            Process("writer", publish(0, 3, 2, **writer), killable=True),  # type: ignore[arg-type]
            Process("reader", poll_one(n, 2, **reader)),
        )
        if violation(model, sides, took_one(n, 2), VIRGIN)[0] is not None:
            return True
    return False


@pytest.mark.parametrize("model", MODELS)
def test_the_ring_never_shows_a_torn_or_overwritten_record(model: Model) -> None:
    assert not ring_breaks(model, 2, 4, 1, {})
    assert not one_breaks(model, {})


@pytest.mark.parametrize("model", MODELS)
def test_one_look_at_the_first_mark_covers_a_whole_batch(model: Model) -> None:
    assert not ring_breaks(model, 4, 6, 2, {}, chunk=2)


@pytest.mark.parametrize(
    ("what", "reader", "writer"),
    [
        ("the writer's fence", {}, {"fence": False}),
        ("the marks", {}, {"marks": False}),
        ("release of the tail", {}, {"tail_release": False, "release": False}),
        ("the reader's acquire", {"acquire": False}, {}),
        ("the reader's fence", {"fence": False}, {}),
    ],
)
def test_a_ring_tears_without(what: str, reader: dict[str, bool], writer: dict[str, bool]) -> None:
    assert ring_breaks("RELAXED", 2, 4, 1, reader, **writer), what


@pytest.mark.parametrize(
    ("what", "reader", "writer"),
    [
        ("the writer's fence", {}, {"fence": False}),
        ("release of the mark", {}, {"release": False}),
        ("the reader's acquire", {"acquire": False}, {}),
        ("the reader's fence", {"fence": False}, {}),
    ],
)
def test_taking_one_record_tears_without(what: str, reader: dict[str, bool], writer: dict[str, bool]) -> None:
    assert one_breaks("RELAXED", reader, **writer), what


def test_even_strong_memory_tears_a_ring_that_does_not_mark_before_it_overwrites() -> None:
    assert one_breaks("TSO", {}, marks=False)


def heirs(slots: int, *, recover: bool = True) -> tuple[Process, ...]:
    """The heir of a writer killed at any step: one process per tail that it may find, and only one may start."""

    def finds(tail: int) -> Callable[[State], bool]:
        def starts(s: State) -> bool:
            found = s.memory["tail"]
            while recover and s.memory[f"m{found % slots}"] == found:
                found += 1
            return "writer" in s.dead and s.memory["heirs"] == 0 and found == tail

        return starts

    return tuple(
        Process(
            f"heir{t}", (Store("heirs", 1), Fence("full"), *publish(t, 2, slots, tag=HEIR)), after=finds(t)
        )
        for t in range(4)
    )  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("record", range(3))
def test_whatever_a_reader_took_before_the_writer_died_stays_that_record(model: Model, record: int) -> None:
    sides = (
        Process("writer", publish(0, 3, 2), killable=True),
        Process("reader", poll_one(record, 2)),
        *heirs(2),
    )
    assert violation(model, sides, took_one(record, 2), VIRGIN)[0] is None


def test_an_heir_that_trusts_the_tail_alone_replaces_records_that_were_taken() -> None:
    sides = (
        Process("writer", publish(0, 2, 2), killable=True),
        Process("reader", poll_one(1, 2)),
        *heirs(2, recover=False),
    )
    assert violation("TSO", sides, took_one(1, 2), VIRGIN)[0] is not None


def gated(model: Model, *, look: str = "before", early_cursor: bool = False, off_by_one: bool = False) -> bool:
    """True if a gating reader of two slots is lapped or gets a torn record, out of four records."""
    reader: list[Op] = []
    for n in range(2):
        p = f"r{n}."
        seen = (f"{p}mark",)

        def there(r: object, n: int = n, p: str = p) -> bool:
            return r[f"{p}mark"] == n  # type: ignore[index]

        take = poll_one(n, 2, p=p)
        move = Store("cursor", n + 1 + off_by_one, release=True, when=there, needs=seen)
        reader += [take[0], move, *take[1:]] if early_cursor else [*take, move]

    def sound(s: State) -> bool:
        for n in range(2):
            p, r = f"r{n}.", s.registers
            if f"{p}mark" not in r:
                continue
            if (r[f"{p}mark"] if r[f"{p}mark"] >= 0 else -1 - r[f"{p}mark"]) > n:
                return False  # lapped
            if r[f"{p}mark"] != n or not {f"{p}again", f"{p}a@{n}", f"{p}b@{n}"} <= r.keys():
                continue
            if r[f"{p}again"] != n or not whole(r, n, p):  # type: ignore[arg-type]
                return False
        return True

    sides = (Process("writer", publish(0, 4, 2, look=look), killable=True), Process("reader", tuple(reader)))
    return violation(model, sides, sound, {**VIRGIN, "cursor": 0})[0] is not None


@pytest.mark.parametrize("model", MODELS)
def test_an_order_ring_never_laps_its_gating_reader(model: Model) -> None:
    assert not gated(model)


@pytest.mark.parametrize(
    "wrong", [{"look": ""}, {"look": "late"}, {"early_cursor": True}, {"off_by_one": True}], ids=lambda w: str(w)
)
def test_an_order_ring_loses_a_record_with(wrong: dict[str, bool]) -> None:
    assert gated("RELAXED", **wrong), wrong  # type: ignore[arg-type]


def cell_writes(first: int, count: int, tag: int = 0, *, fence: bool = True, release: bool = True) -> tuple[Op, ...]:
    program: list[Op] = []
    for n in range(first, first + count):
        program.append(Store("version", 2 * n + 1))
        if fence:
            program.append(Fence("release"))
        program += [Store("a", n + 1 + tag), Store("b", n + 1 + tag), Store("version", 2 * n + 2, release=release)]
    return tuple(program)


def cell_breaks(
    model: Model, writer: tuple[Op, ...], *, fence: bool = True, acquire: bool = True, late_acquire: bool = False,
    repair: bool = True,
) -> bool:  # fmt: skip
    look = [Fence("acquire")] if fence else []
    reader = (
        Load("v1", "version", acquire=acquire), Load("x", "a"), Load("y", "b"), *look,
        Load("v2", "version", acquire=late_acquire),
    )  # fmt: skip

    def dead_at(n: int) -> Callable[[State], bool]:
        return lambda s: "writer" in s.dead and s.memory["heirs"] == 0 and s.memory["version"] // 2 == n

    heir = tuple(
        Process(f"heir{n}", (Store("heirs", 1), Fence("full"), *cell_writes(n, 1, HEIR)[0 if repair else 2 :]),
                after=dead_at(n))
        for n in range(3)
    )  # fmt: skip

    def sound(s: State) -> bool:
        r = s.registers
        if "reader" not in s.finished or r["v1"] != r["v2"] or r["v1"] % 2 or r["v1"] == 0:
            return True
        return r["x"] == r["y"] and r["x"] in (r["v1"] // 2, r["v1"] // 2 + HEIR)

    sides = (Process("writer", writer, killable=True), Process("reader", reader), *heir)
    return violation(model, sides, sound)[0] is not None


@pytest.mark.parametrize("model", MODELS)
def test_a_cell_never_shows_a_torn_value_whoever_died_in_it(model: Model) -> None:
    assert not cell_breaks(model, cell_writes(0, 2))


@pytest.mark.parametrize(
    ("what", "writer", "reader"),
    [
        ("the writer's fence", {"fence": False}, {}),
        ("release of the even version", {"release": False}, {}),
        ("the reader's acquire", {}, {"acquire": False}),
        ("the reader's fence", {}, {"fence": False}),
        ("the reader's fence, a second acquire in its place", {}, {"fence": False, "late_acquire": True}),
        ("an odd version before the heir writes", {}, {"repair": False}),
    ],
)
def test_a_cell_tears_without(what: str, writer: dict[str, bool], reader: dict[str, bool]) -> None:
    assert cell_breaks("RELAXED", cell_writes(0, 2, **writer), **reader), what  # type: ignore[arg-type]
