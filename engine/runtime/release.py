"""Which version runs: what ops/upgrade.sh installed, else the package's own number."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from pathlib import Path

_FILE = Path(__file__).resolve().parents[2] / "RELEASE"


@cache
def release() -> str:
    try:
        return _FILE.read_text().strip()
    except OSError:
        return metadata.version("l2-dash")
