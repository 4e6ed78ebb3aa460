"""The compiled kernels really contain the orderings that the protocol needs."""

from __future__ import annotations

from typing import Any

from shm import kernels  # isort: skip  (before numba: it names the cache directory)
import numba


def llvm(kernel: Any) -> str:
    """Code of a kernel, compiled anew: what was loaded from the cache can't be inspected."""
    (signature,) = kernel.nopython_signatures
    (text,) = numba.njit(signature)(kernel.py_func).inspect_llvm().values()
    return str(text)


def lines(kernel: Any, *needles: str) -> list[str]:
    return [line for line in llvm(kernel).splitlines() if all(n in line for n in needles)]


def test_publish_fences_after_the_marks_and_releases_mark_and_tail() -> None:
    assert lines(kernels.ring_publish, "fence release")
    assert lines(kernels.ring_publish, "store atomic", "release")


def test_poll_acquires_the_tail_and_fences_before_the_second_look() -> None:
    assert lines(kernels.ring_poll, "load atomic", "acquire")
    assert lines(kernels.ring_poll, "fence acquire")


def test_cell_write_fences_after_odd_and_releases_even() -> None:
    assert lines(kernels.cell_write, "fence release")
    assert lines(kernels.cell_write, "store atomic", "release")


def test_cell_read_acquires_then_fences() -> None:
    assert lines(kernels.cell_read, "load atomic", "acquire")
    assert lines(kernels.cell_read, "fence acquire")


def test_payload_is_copied_by_atomic_words_only() -> None:
    for kernel in (kernels.ring_publish, kernels.cell_write):
        assert lines(kernel, "store atomic", "monotonic")
    for kernel in (kernels.ring_poll, kernels.cell_read):
        assert lines(kernel, "load atomic", "monotonic")
