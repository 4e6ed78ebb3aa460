"""The only file that makes claims about memory order.

Every access to a word that another process may touch goes through these intrinsics on 64-bit words of an ``int64``
array. They lower to LLVM atomic loads and stores, so the compiler can neither split nor hoist nor drop them, and to
the right instructions on x86-64 (plain moves; ``mfence`` only for the full fence) and AArch64 (``ldar``, ``stlr``,
``dmb``).

Which order for what
* ``load_acquire`` / ``store_release``: cursors and sequence words.
* ``load_relaxed`` / ``store_relaxed``: payload words inside a seqlock or ring slot. Not plain accesses: those are a
  data race in LLVM's model and may be torn or repeated.
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
