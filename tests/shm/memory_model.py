"""An explicit-state checker for one writer and one reader under TSO and under relaxed (AArch64-like) memory.

A program is a tuple of operations. The writer's stores wait in a buffer from which they reach memory in order (TSO) or
in any order that releases, fences and same-word order allow (RELAXED). The reader's loads happen in program order, or
(RELAXED) pass earlier plain loads of other words unless an acquire or a fence stands between. Every prefix of the
writer is a reachable state, so a kill at every instruction is part of every check.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Model = Literal["TSO", "RELAXED"]


@dataclass(frozen=True, slots=True)
class Store:
    word: str
    value: int
    release: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    name: str
    word: str
    acquire: bool = False


@dataclass(frozen=True, slots=True)
class Fence:
    """StoreStore for a writer, LoadLoad for a reader."""


Registers = dict[str, int]
Pending = tuple[tuple[str, int, int, bool], ...]  # word, value, fence epoch, release


def _may_leave(pending: Pending, relaxed: bool) -> list[int]:
    if not relaxed:
        return [0] if pending else []
    free = []
    for i, (word, _, epoch, release) in enumerate(pending):
        earlier = pending[:i]
        if release and earlier:
            continue
        if any(w == word or e < epoch for w, _, e, _ in earlier):
            continue
        free.append(i)
    return free


def _may_load(reader: tuple[Load | Fence, ...], done: int, at: int, relaxed: bool) -> bool:
    op = reader[at]
    before = [(k, reader[k]) for k in range(at) if not done >> k & 1]
    if not before:
        return True
    if not relaxed or isinstance(op, Fence):
        return False
    return all(isinstance(o, Load) and not o.acquire and o.word != op.word for _, o in before)


def violation(
    model: Model,
    writer: tuple[Store | Fence, ...],
    reader: tuple[Load | Fence, ...],
    sound: Callable[[Registers], bool],
    initial: dict[str, int] | None = None,
) -> tuple[Registers | None, int]:
    """First register file that ``sound`` rejects, or None; and the number of states seen."""
    relaxed = model == "RELAXED"
    words = sorted({o.word for o in (*writer, *reader) if not isinstance(o, Fence)})
    place = {w: i for i, w in enumerate(words)}
    memory0 = tuple((initial or {}).get(w, 0) for w in words)
    start = (0, 0, (), memory0, 0, (None,) * len(reader))
    seen, queue = {start}, deque([start])
    full = (1 << len(reader)) - 1
    while queue:
        at, epoch, pending, memory, done, values = queue.popleft()
        if done == full:
            registers = {o.name: values[i] for i, o in enumerate(reader) if isinstance(o, Load)}
            if not sound(registers):  # type: ignore[arg-type]
                return registers, len(seen)  # type: ignore[return-value]
            continue
        following = []
        if at < len(writer):
            op = writer[at]
            if isinstance(op, Fence):
                following.append((at + 1, epoch + 1, pending, memory, done, values))
            else:
                grown = (*pending, (op.word, op.value, epoch, op.release))
                following.append((at + 1, epoch, grown, memory, done, values))
        for i in _may_leave(pending, relaxed):
            word, value = pending[i][:2]
            changed = list(memory)
            changed[place[word]] = value
            following.append((at, epoch, pending[:i] + pending[i + 1 :], tuple(changed), done, values))
        for k, op in enumerate(reader):
            if done >> k & 1 or not _may_load(reader, done, k, relaxed):
                continue
            got = list(values)
            if isinstance(op, Load):
                got[k] = memory[place[op.word]]
            following.append((at, epoch, pending, memory, done | 1 << k, tuple(got)))
        for state in following:
            if state not in seen:
                seen.add(state)
                queue.append(state)
    return None, len(seen)
