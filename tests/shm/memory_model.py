"""An explicit-state checker of small concurrent programs under TSO (x86-64) and relaxed (AArch64) memory.

A process is a straight line of loads, stores, fences and acts (system calls: sending, sleeping). An operation may be
carried out as soon as every earlier one that the memory model orders before it is; so each reordering that hardware or
compiler may do is a path. A store or act with a ``when`` happens only if that holds for the registers it names.

Kill: a process may die after any operation; what it had issued still reaches memory, what follows never happens. Its
heir may start from then on. As every state is checked, not only final ones, "killed here" is part of every check.

What is ordered (i before j in the program)
* always: accesses of the same word; what a fence between them orders; a store or act after the loads it depends on;
  an act after everything before it and before everything after it.
* TSO: everything but a store before a later load.
* RELAXED: everything after an acquire load; everything before a release store. (Not a release store before a later
  acquire load: AArch64's own pair orders them, the language does not.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

Model = Literal["TSO", "RELAXED"]
MODELS: tuple[Model, ...] = ("TSO", "RELAXED")
Registers = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Load:
    name: str
    word: str
    acquire: bool = False


@dataclass(frozen=True, slots=True)
class Store:
    word: str
    value: int | str
    """A constant, or the register whose value is stored."""
    release: bool = False
    when: Callable[[Registers], bool] | None = None
    needs: tuple[str, ...] = ()
    """Registers that ``when`` looks at."""


@dataclass(frozen=True, slots=True)
class Act:
    """Something outside memory that happens once: it is recorded, in order, in the trace of all processes."""

    name: str
    when: Callable[[Registers], bool] | None = None
    needs: tuple[str, ...] = ()
    compares: tuple[str, int] | None = None
    """It also needs this word to have this value at the moment it happens, as a futex wait does."""


@dataclass(frozen=True, slots=True)
class Fence:
    kind: Literal["release", "acquire", "full"]


Op = Load | Store | Act | Fence


@dataclass(frozen=True, slots=True)
class Process:
    name: str
    program: tuple[Op, ...]
    killable: bool = False
    after: Callable[[State], bool] | None = None
    """It starts only in states where this holds (an heir after a death, a watchdog after an exit)."""


@dataclass(frozen=True, slots=True)
class State:
    """What a check may look at."""

    memory: Mapping[str, int]
    registers: Mapping[str, int]
    """Of all processes; a load that has not happened is absent."""
    trace: tuple[str, ...]
    dead: frozenset[str]
    finished: frozenset[str]


def _ordered(i: Op, j: Op, relaxed: bool) -> bool:
    if isinstance(j, Act) or isinstance(i, Act):
        return True
    if isinstance(i, Fence):
        return i.kind == "full" or isinstance(j, Fence | Store) or i.kind == "acquire"
    if isinstance(j, Fence):
        return j.kind in ("full", "release") or isinstance(i, Load)
    if i.word == j.word:
        return True
    if isinstance(i, Load) and isinstance(j, Store) and (i.name == j.value or i.name in j.needs):
        return True
    if not relaxed:
        return not (isinstance(i, Store) and isinstance(j, Load))
    if isinstance(i, Load) and i.acquire:
        return True
    return isinstance(j, Store) and j.release


def violation(
    model: Model,
    processes: tuple[Process, ...],
    sound: Callable[[State], bool],
    initial: Mapping[str, int] | None = None,
) -> tuple[State | None, int]:
    """A reachable state that ``sound`` rejects, or None; and the number of states seen."""
    relaxed = model == "RELAXED"
    ops = [o for p in processes for o in p.program]
    words = sorted({o.word for o in ops if isinstance(o, Load | Store)} | set(initial or {}) | {"heirs"})
    place = {w: i for i, w in enumerate(words)}
    names = [o.name for o in ops if isinstance(o, Load)]
    register = {n: i for i, n in enumerate(names)}
    assert len(register) == len(names), "a register is named twice"
    before = [
        [sum(1 << i for i in range(j) if _ordered(p.program[i], p.program[j], relaxed)) for j in range(len(p.program))]
        for p in processes
    ]
    full = [(1 << len(p.program)) - 1 for p in processes]

    def view(state: tuple[object, ...]) -> State:
        masks, dead, memory, values, trace = state
        return State(
            dict(zip(words, memory, strict=True)),  # type: ignore[call-overload]
            {n: v for n, v in zip(names, values, strict=True) if v is not None},  # type: ignore[call-overload]
            trace,  # type: ignore[arg-type]
            frozenset(p.name for i, p in enumerate(processes) if dead >> i & 1),  # type: ignore[operator]
            frozenset(p.name for i, p in enumerate(processes) if masks[i] == full[i]),  # type: ignore[index]
        )

    start = ((0,) * len(processes), 0, tuple((initial or {}).get(w, 0) for w in words), (None,) * len(names), ())
    seen, queue = {start}, deque([start])
    while queue:
        state = queue.popleft()
        masks, dead, memory, values, trace = state
        seen_here = view(state)
        if not sound(seen_here):
            return seen_here, len(seen)
        following = []
        for t, process in enumerate(processes):
            mask = masks[t]
            if dead >> t & 1 or mask == full[t]:
                continue
            if mask == 0 and process.after is not None and not process.after(seen_here):
                continue
            if process.killable and mask & (mask + 1) == 0:  # everything issued so far has reached memory
                following.append((masks, dead | 1 << t, memory, values, trace))
            for j, op in enumerate(process.program):
                if mask >> j & 1 or before[t][j] & ~mask:
                    continue
                new_memory, new_values, new_trace = memory, values, trace
                happens = not isinstance(op, Store | Act) or op.when is None or op.when(seen_here.registers)
                if isinstance(op, Act) and op.compares is not None:
                    happens = happens and memory[place[op.compares[0]]] == op.compares[1]
                if isinstance(op, Load):
                    changed = list(values)
                    changed[register[op.name]] = memory[place[op.word]]
                    new_values = tuple(changed)
                elif isinstance(op, Store) and happens:
                    stored = list(memory)
                    stored[place[op.word]] = values[register[op.value]] if isinstance(op.value, str) else op.value
                    new_memory = tuple(stored)
                elif isinstance(op, Act) and happens:
                    new_trace = (*trace, op.name)
                new_masks = (*masks[:t], mask | 1 << j, *masks[t + 1 :])
                following.append((new_masks, dead, new_memory, new_values, new_trace))
        for after in following:
            if after not in seen:
                seen.add(after)
                queue.append(after)
    return None, len(seen)
