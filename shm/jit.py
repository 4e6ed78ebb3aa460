"""How kernels are compiled: eagerly, with explicit signatures, into a cache keyed by everything they depend on.

A kernel declares its signature, so importing its module either loads it from the cache or compiles it there and then;
nothing can compile later. numba's own cache does not see edits in callees of other files, so the cache directory is
keyed by a hash of all kernel-bearing sources, the library versions and the CPU. Where the sources lie and when they
were written does not count: a second clone, or a version installed beside the one that runs, starts with warm kernels.

This module must be imported before ``numba`` is, because numba reads its cache directory at import.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
_KERNEL_PACKAGES = (
    "shm",
    "engine/domain",
    "engine/market",
    "engine/model",
    "engine/risk",
    "engine/strategy",
    "engine/paper",
)
_KERNEL_FILES = (
    "engine/broker/decode.py",
    "engine/broker/encode.py",
    "engine/procs/hot_kernel.py",
    "engine/runtime/doorbell.py",
)
"""Kernels in packages whose other files change often without touching one."""


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "CPU part")):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()


def cache_key() -> str:
    """Hash of all kernel-bearing sources, library versions, Python and CPU: 16 hex digits."""
    digest = hashlib.blake2b(digest_size=8)
    files = [path for package in _KERNEL_PACKAGES for path in sorted((_ROOT / package).rglob("*.py"))]
    for path in (*files, *(_ROOT / name for name in _KERNEL_FILES)):
        if path.is_file():
            digest.update(path.relative_to(_ROOT).as_posix().encode())
            digest.update(path.read_bytes())
    for name in ("numba", "llvmlite", "numpy"):
        digest.update(f"{name}={metadata.version(name)}".encode())
    digest.update(f"{sys.version_info[:3]}{platform.machine()}{_cpu_name()}".encode())
    return digest.hexdigest()


def cache_directory() -> Path:
    """Where compiled kernels of exactly this code live.

    ``L2DASH_KERNEL_CACHE`` names the directory itself and leaves freshness to the caller (development only);
    otherwise it is ``$XDG_CACHE_HOME/l2dash/kernels/<key>`` (``~/.cache`` when unset).
    """
    explicit = os.environ.get("L2DASH_KERNEL_CACHE")
    if explicit:
        return Path(explicit)
    base = os.environ.get("L2DASH_CACHE_DIR") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "l2dash"
    )
    return Path(base) / "kernels" / cache_key()


if "numba" in sys.modules and "NUMBA_CACHE_DIR" not in os.environ:
    raise ImportError("shm.jit must be imported before numba: numba reads its cache directory at import")
os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_directory()))
if not os.environ.get("L2DASH_KERNEL_CACHE"):
    os.environ.setdefault("NUMBA_CACHE_LOCATOR_CLASSES", "shm.jit.ContentLocator,UserProvidedCacheLocator")

# numba imports scipy.linalg (85 modules, 0.2 s, 25 MB in every service) only to offer BLAS inside kernels, which none
# of ours uses. It is hidden while numba looks for it, and importable as ever afterwards.
_hidden = "scipy" not in sys.modules
if _hidden:
    sys.modules["scipy"] = None  # type: ignore[assignment]
try:
    import numba
    import numba.np.arraymath
    import numpy as np
    from numba.core.caching import UserProvidedCacheLocator
finally:
    if _hidden:
        del sys.modules["scipy"]


class ContentLocator(UserProvidedCacheLocator):  # type: ignore[misc]
    """Where the cache of one function lies, by its place in this tree. The directory's key stands for its content:
    numba's own stamp, the file's time and full path, would miss the same code elsewhere."""

    def __init__(self, py_func: Any, py_file: str) -> None:
        super().__init__(py_func, py_file)
        inside = Path(py_file).resolve().relative_to(_ROOT)
        self._cache_path = str(Path(numba.config.CACHE_DIR, *inside.with_suffix("").parts))

    def get_source_stamp(self) -> str:
        return "by content"

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> Any:
        path = Path(py_file).resolve()
        covered = any(path.is_relative_to(_ROOT / place) for place in (*_KERNEL_PACKAGES, *_KERNEL_FILES))
        return super().from_function(py_func, py_file) if covered else None


def rec(dtype: np.dtype[Any]) -> Any:
    """Numba type of a one-dimensional C-contiguous array of ``dtype`` records."""
    return numba.from_dtype(dtype)[::1]


def kernel(signature: Any, *, inline: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Compile a module function for ``signature`` now, or load it from the cache.

    ``error_model='numpy'``: a division by zero is inf or NaN, never an exception. ``.py_func`` is the interpreted form.
    ``inline``: its machine code becomes part of every kernel that calls it, with the constants it is called with.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        return numba.njit(signature, cache=True, nogil=True, error_model="numpy", forceinline=inline)(function)

    return decorate
