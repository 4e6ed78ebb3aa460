"""Prints, as JSON, what memory orderings the compiled kernels contain: run as a program of its own, without optimiser.

For each kernel: the orderings of its LLVM code in the order of its source, before any optimisation; the barriers of the
AArch64 code that LLVM makes of it; and, for every way to weaken one line of its source, the orderings that are left.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
import textwrap
import types
from collections.abc import Iterator
from typing import Any

os.environ["NUMBA_OPT"] = "0"

from shm import atomics, counters, kernels, wait  # isort: skip  (before numba: it names the cache directory)
import llvmlite.binding as llvm
import numba

KERNELS = {
    "ring_publish": kernels.ring_publish,
    "ring_publish_one": kernels.ring_publish_one,
    "_write_chunk": kernels._write_chunk,
    "_copy_out": kernels._copy_out,
    "ring_poll": kernels.ring_poll,
    "ring_poll_one": kernels.ring_poll_one,
    "_resume": kernels._resume,
    "ring_recover": kernels.ring_recover,
    "ring_tail": kernels.ring_tail,
    "word_load": kernels.word_load,
    "word_store": kernels.word_store,
    "cell_write": kernels.cell_write,
    "cell_read": kernels.cell_read,
    "cells_moved": kernels.cells_moved,
    "announce": wait.announce,
    "asleep": wait.asleep,
    "spin": wait.spin,
    "counter_add": counters.counter_add,
}
_EVENT = re.compile(
    r"(?P<load>load atomic \S+, ptr \S+ (?P<load_order>\w+))"
    r"|(?P<store>store atomic \S+ \S+, ptr \S+ (?P<store_order>\w+))"
    r"|(?P<fence>fence (?P<fence_order>\w+))"
    r"|(?P<vload>load volatile)|(?P<vstore>store volatile)"
    r"|(?P<pause>call void @\"?llvm\.(x86\.sse2\.pause|aarch64\.hint))"
)
_A64 = re.compile(r"^\s+(ldar|ldapr|stlr|dmb|yield|hint)\b\s*(ishld|ish|ishst|sy|#1)?", re.MULTILINE)


WEAKENED = {
    "store_release(": "store_relaxed(",
    "load_acquire(": "load_relaxed(",
    "fence_release()": "pass",
    "fence_acquire()": "pass",
    "fence_full()": "pass",
}


INLINED = ("ring_publish_one", "_write_chunk", "_copy_out")


def called(names: dict[str, Any]) -> dict[str, Any]:
    """The names that a kernel sees, with real calls of the kernels that would become part of it: they are looked at
    alone, before any optimisation."""
    plain = {name: names[name] for name in INLINED if name in names}
    return {**names, **{name: numba.njit(k.nopython_signatures[0])(k.py_func) for name, k in plain.items()}}


def text_of(kernel: Any, function: Any = None) -> str:
    """LLVM code of a kernel, compiled anew: what was loaded from the cache can't be inspected."""
    (signature,) = kernel.nopython_signatures
    function = function or kernel.py_func
    names = called(function.__globals__) if kernel.__name__ not in INLINED else function.__globals__
    function = types.FunctionType(function.__code__, names, function.__name__)
    compiled = numba.njit(signature, error_model="numpy", nogil=True)(function)
    (text,) = compiled.inspect_llvm().values()
    return str(text)


def mutants(kernel: Any) -> Iterator[tuple[str, Any]]:
    """Every function that differs from the kernel by one weakened ordering, with the line that was weakened."""
    source = textwrap.dedent(inspect.getsource(kernel.py_func))
    source = source[source.index("def ") :]
    lines = source.splitlines()
    for number, line in enumerate(lines):
        for strong, weak in WEAKENED.items():
            if strong in line:
                changed = [*lines[:number], line.replace(strong, weak), *lines[number + 1 :]]
                names = dict(kernel.py_func.__globals__)
                names.update(load_relaxed=atomics.load_relaxed, store_relaxed=atomics.store_relaxed)
                exec("\n".join(changed), names)
                yield f"{number}: {line.strip()}", names[kernel.py_func.__name__]


def body(text: str, name: str) -> str:
    """The function itself, without the wrappers that Python and C call."""
    for found in re.finditer(r"^define .*?^}", text, re.MULTILINE | re.DOTALL):
        head = found[0].split("\n", 1)[0]
        if name in head and "cpython." not in head and "cfunc." not in head:
            return found[0]
    raise LookupError(name)


def alone(text: str, name: str) -> str:
    """The module with the bodies of all other functions gone: they hold code for this machine only."""
    wanted = body(text, name)

    def declared(found: re.Match[str]) -> str:
        if found[0] == wanted:
            return wanted
        symbol = re.search(r"@(\"[^\"]+\"|[\w.$]+)\(", found[0])
        return f"declare void @{symbol[1]}()" if symbol else ""

    return re.sub(r"^define .*?^}", declared, text, flags=re.MULTILINE | re.DOTALL)


def events(code: str) -> list[str]:
    found = []
    for line in code.splitlines():
        m = _EVENT.search(line)
        if not m:
            continue
        for kind in ("load", "store", "fence"):
            if m[kind]:
                found.append(f"{kind} {m[f'{kind}_order']}")
        found += [word for word in ("vload", "vstore", "pause") if m[word]]
    return found


def aarch64(text: str, name: str) -> list[str]:
    """Barriers and ordered accesses of the kernel compiled for AArch64, in the order of the code."""
    text = re.sub(r'target triple = ".*"', 'target triple = "aarch64-unknown-linux-gnu"', text)
    text = re.sub(r"target datalayout = .*\n", "", text)
    text = text.replace("call void @llvm.x86.sse2.pause()", "call void @llvm.aarch64.hint(i32 1)")
    text = text.replace("declare void @llvm.x86.sse2.pause()", "declare void @llvm.aarch64.hint(i32)")
    module = llvm.parse_assembly(alone(text, name))
    module.verify()
    target = llvm.Target.from_triple("aarch64-unknown-linux-gnu")
    code = target.create_target_machine(opt=3, cpu="generic").emit_assembly(module)
    start = next(
        m.start()
        for m in re.finditer(r"^(\S+):", code, re.MULTILINE)
        if name in m[1] and "cpython" not in m[1] and "cfunc" not in m[1]
    )
    end = code.index(".cfi_endproc", start)
    return [" ".join(filter(None, m.groups())) for m in _A64.finditer(code[start:end])]


def main() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    found = {}
    for name, kernel in KERNELS.items():
        text = text_of(kernel)
        code = body(text, name)
        weaker = {line: events(body(text_of(kernel, mutant), name)) for line, mutant in mutants(kernel)}
        found[name] = {"events": events(code), "aarch64": aarch64(text, name), "mutants": weaker}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
