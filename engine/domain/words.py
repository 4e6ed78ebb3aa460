"""Lengths of time for people."""

from __future__ import annotations

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))


def duration(seconds: float) -> str:
    """``20 s``, ``5 min``, ``1 min 30 s``, ``1.5 s``: whole units, never a fraction of a minute."""
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    if seconds < 59.95:
        return f"{sign}{round(seconds, 1 if seconds >= 1 else 3):g} s"
    left, parts = round(seconds), []
    for unit, size in _UNITS:
        if left >= size:
            parts.append(f"{left // size} {unit}")
            left %= size
    if left:
        parts.append(f"{left} s")
    return sign + " ".join(parts)
