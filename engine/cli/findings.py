"""One thing that ``doctor`` looked at."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """``fix`` is empty when nothing is to be done."""

    check: str
    status: str
    found: str
    fix: str = ""
