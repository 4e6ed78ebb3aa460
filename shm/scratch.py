"""Directories for one run (simulation, drill, benchmark): each names its owner; orphans go before a new one comes.

An instance's own regions name no owner: they hold intents that its next start must still see.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shm import janitor
from shm.owner import own


def make(prefix: str, root: str | Path | None = None) -> Path:
    """A directory of this process in ``root`` (None: where temporary files go), 0700. Prefixes begin with l2dash-."""
    place = Path(root or tempfile.gettempdir())
    janitor.sweep(place)
    made = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    own(made)
    return made


@contextlib.contextmanager
def directory(prefix: str, root: str | Path | None = None) -> Iterator[Path]:
    """``make``, removed at the end."""
    made = make(prefix, root)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
