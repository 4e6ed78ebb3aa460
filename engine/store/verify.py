"""Check a journal, or on explicit request move it aside.

python -m engine.store.verify [--move-aside] STATE_DIR
"""

from __future__ import annotations

import sys
from pathlib import Path

from engine.store.files import StoreError
from engine.store.journal import journal_path, move_aside, verify


def main(arguments: list[str]) -> int:
    """Exit code 0: the chain is sound (or the journal was moved), 1: it is not, 2: wrong arguments."""
    aside = "--move-aside" in arguments
    places = [a for a in arguments if not a.startswith("--")]
    if len(places) != 1:
        sys.stderr.write("usage: python -m engine.store.verify [--move-aside] STATE_DIR\n")
        return 2
    path = journal_path(Path(places[0]))
    try:
        if aside:
            sys.stdout.write(f"{path} is now {move_aside(path)}\n")
            return 0
        verdict = verify(path)
    except (StoreError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if not verdict.sound:
        sys.stderr.write(f"{path}: chain broken at row {verdict.broken_at}: {verdict.reason}\n")
        return 1
    sys.stdout.write(f"{path}: {verdict.rows} rows, chain sound\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
