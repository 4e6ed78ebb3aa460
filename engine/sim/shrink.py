"""Delta debugging: the smallest plan that still breaks the same invariant (Zeller and Hildebrandt's ddmin)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def shrink(deeds: Sequence[T], fails: Callable[[tuple[T, ...]], bool], tries: int = 200) -> tuple[T, ...]:
    """A subsequence that fails although no single deed of it can be left out, unless ``tries`` runs out first.

    ``fails`` must be True for ``deeds`` themselves. Pure but for what ``fails`` does.
    """
    kept = tuple(deeds)
    parts = 2
    while len(kept) >= 2 and tries > 0:
        size = -(-len(kept) // parts)
        chunks = [kept[i : i + size] for i in range(0, len(kept), size)]
        smaller = None
        for k in range(len(chunks)):
            if tries <= 0:
                return kept
            rest = tuple(d for j, chunk in enumerate(chunks) if j != k for d in chunk)
            tries -= 1
            if fails(rest):
                smaller = rest
                break
        if smaller is not None:
            kept, parts = smaller, max(2, parts - 1)
        elif parts >= len(kept):
            return kept
        else:
            parts = min(len(kept), parts * 2)
    if len(kept) == 1 and tries > 0 and fails(()):
        return ()
    return kept
