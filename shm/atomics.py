"""The only file that makes claims about memory order.

Every access to a word that another process may touch goes through these intrinsics on 64-bit words of an ``int64``
array. They lower to LLVM atomic loads and stores, so the compiler can neither split nor hoist nor drop them, and to
the right instructions on x86-64 (plain moves; ``mfence`` only for the full fence) and AArch64 (``ldar``, ``stlr``,
``dmb``).

Which order for what
* ``load_acquire`` / ``store_release``: cursors and sequence words.
* ``load_relaxed`` / ``store_relaxed``: single words inside a seqlock or ring slot, and words of one writer's own. Not
  plain accesses: those are a data race in LLVM's model and may be torn or repeated.
* ``line_from_shared`` / ``line_to_shared``: one cache line of payload by ``volatile`` vector accesses. A racing plain
  load is ``undef`` in LLVM; a volatile one is "target-dependent": on both targets it yields bytes that were stored, and
  it is neither repeated, dropped nor moved over a fence or another volatile access. Lines that raced are thrown away by
  the protocol. Eight relaxed words give the same guarantee at a quarter of the speed.
* ``fence_release`` (StoreStore and LoadStore): after the odd store of a seqlock, or the intent of a ring, before data.
* ``fence_acquire`` (LoadLoad and LoadStore): after the data, before the second look at the sequence or intent.
* ``fence_full``: between announcing sleep and looking for work once more, and between publishing and looking whether
  somebody sleeps. Nothing weaker orders a store before a later load.

Rejected: a second acquire load instead of ``fence_acquire``. It orders what comes after it, not the data before it.
"""

from __future__ import annotations

import platform
from typing import Any

import shm.jit  # noqa: F401  isort: skip  (sets the cache directory before numba is imported)
from llvmlite import ir
from llvmlite.ir.instructions import LoadInstr, StoreInstr
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def _word_pointer(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.gep(array.data, [arguments[1]])


def _load(order: str) -> Any:
    def typing(typingctx: Any, array: Any, index: Any) -> Any:
        signature = types.int64(array, types.int64)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.load_atomic(_word_pointer(context, builder, sig, args), order, 8)

        return signature, codegen

    return typing


def _store(order: str) -> Any:
    def typing(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
        signature = types.void(array, types.int64, types.int64)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            builder.store_atomic(args[2], _word_pointer(context, builder, sig, args), order, 8)
            return context.get_dummy_value()

        return signature, codegen

    return typing


def _fence(order: str) -> Any:
    def typing(typingctx: Any) -> Any:
        signature = types.void()

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            builder.fence(order)
            return context.get_dummy_value()

        return signature, codegen

    return typing


load_acquire = intrinsic(_load("acquire"))
load_relaxed = intrinsic(_load("monotonic"))
store_release = intrinsic(_store("release"))
store_relaxed = intrinsic(_store("monotonic"))
fence_release = intrinsic(_fence("release"))
fence_acquire = intrinsic(_fence("acquire"))
fence_full = intrinsic(_fence("seq_cst"))


_LINE_WORDS = 8


def _line_pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    pointer = builder.gep(context.make_array(array_type)(context, builder, array).data, [index])
    return builder.bitcast(pointer, ir.VectorType(ir.IntType(64), _LINE_WORDS).as_pointer())


class _VolatileLoad(LoadInstr):  # type: ignore[misc]
    """llvmlite writes no ``volatile`` flag; this adds it to the instruction's text."""

    def descr(self, buf: list[str]) -> None:
        text: list[str] = []
        super().descr(text)
        buf.append("".join(text).replace("load ", "load volatile ", 1))


class _VolatileStore(StoreInstr):  # type: ignore[misc]
    def descr(self, buf: list[str]) -> None:
        text: list[str] = []
        super().descr(text)
        buf.append("".join(text).replace("store ", "store volatile ", 1))


def _volatile(builder: Any, instruction: Any) -> Any:
    instruction.align = 8
    builder._insert(instruction)
    return instruction


@intrinsic  # type: ignore[untyped-decorator]
def line_from_shared(typingctx: Any, to: Any, to_at: Any, shared: Any, shared_at: Any) -> Any:
    """Copy 8 words of ``shared``, that another process may be writing, to ``to``."""
    signature = types.void(to, types.int64, shared, types.int64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        source = _line_pointer(context, builder, sig.args[2], args[2], args[3])
        target = _line_pointer(context, builder, sig.args[0], args[0], args[1])
        builder.store(_volatile(builder, _VolatileLoad(builder.block, source)), target, align=8)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic  # type: ignore[untyped-decorator]
def line_to_shared(typingctx: Any, shared: Any, shared_at: Any, source: Any, source_at: Any) -> Any:
    """Copy 8 words of ``source`` to ``shared``, that other processes may be reading."""
    signature = types.void(shared, types.int64, source, types.int64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        target = _line_pointer(context, builder, sig.args[0], args[0], args[1])
        value = builder.load(_line_pointer(context, builder, sig.args[2], args[2], args[3]), align=8)
        _volatile(builder, _VolatileStore(builder.block, value, target))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic  # type: ignore[untyped-decorator]
def head_line_to_shared(typingctx: Any, shared: Any, shared_at: Any, first: Any, source: Any, source_at: Any) -> Any:
    """Like ``line_to_shared``, with ``first`` in place of the source's first word."""
    signature = types.void(shared, types.int64, types.int64, source, types.int64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        target = _line_pointer(context, builder, sig.args[0], args[0], args[1])
        value = builder.load(_line_pointer(context, builder, sig.args[3], args[3], args[4]), align=8)
        value = builder.insert_element(value, args[2], ir.Constant(ir.IntType(32), 0))
        _volatile(builder, _VolatileStore(builder.block, value, target))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic  # type: ignore[untyped-decorator]
def words_of_line(typingctx: Any, source: Any, source_at: Any) -> Any:
    """8 words of ``source``, an array of this thread's own, as values.

    One by one and ``volatile``, or LLVM would make one vector load of them: that waits for each of the stores that have
    just filled the record, and the line would stand marked as being written for as long.
    """
    signature = types.UniTuple(types.int64, _LINE_WORDS)(source, types.int64)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        at = [builder.add(args[1], ir.Constant(ir.IntType(64), n)) for n in range(_LINE_WORDS)]
        words = [_volatile(builder, _VolatileLoad(builder.block, builder.gep(data, [n]))) for n in at]
        return context.make_tuple(builder, sig.return_type, words)

    return signature, codegen


@intrinsic  # type: ignore[untyped-decorator]
def words_to_shared(typingctx: Any, shared: Any, shared_at: Any, first: Any, words: Any) -> Any:
    """Store what ``words_of_line`` gave, with ``first`` in place of its first word, as one line of ``shared``."""
    signature = types.void(shared, types.int64, types.int64, words)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        target = _line_pointer(context, builder, sig.args[0], args[0], args[1])
        line = ir.Constant(ir.VectorType(ir.IntType(64), _LINE_WORDS), ir.Undefined)
        values = [args[2], *(builder.extract_value(args[3], n) for n in range(1, _LINE_WORDS))]
        for n, value in enumerate(values):
            line = builder.insert_element(line, value, ir.Constant(ir.IntType(32), n))
        _volatile(builder, _VolatileStore(builder.block, line, target))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic  # type: ignore[untyped-decorator]
def cpu_pause(typingctx: Any) -> Any:
    """Spin hint: ``pause`` on x86-64, ``yield`` on AArch64; keeps a sibling hyper-thread and the power budget alive."""
    signature = types.void()

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        arm = platform.machine() in ("aarch64", "arm64")
        name, arguments = ("llvm.aarch64.hint", [ir.IntType(32)]) if arm else ("llvm.x86.sse2.pause", [])
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), arguments), name)
        builder.call(function, [ir.Constant(ir.IntType(32), 1)] if arm else [])
        return context.get_dummy_value()

    return signature, codegen
