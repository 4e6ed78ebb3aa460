"""Files derived from code: systemd units, compose.yaml and docs/TOPOLOGY.md from ``engine.topology``, the tables of
docs/PAPER_GATEWAY.md from the gateway, and the exchange's closings from the calendar library.

``python -m engine.generate`` writes them; ``--check`` only compares and exits 1 naming each file that has drifted.
"""

from __future__ import annotations

import sys
from pathlib import Path

from engine.generate.calendar import calendar_module
from engine.generate.compose import compose
from engine.generate.page import topology_page
from engine.generate.units import systemd, unit_name

__all__ = ["compose", "drifted", "files", "main", "systemd", "topology_page", "unit_name", "write"]
ROOT = Path(__file__).resolve().parents[2]


def files() -> dict[Path, str]:
    """Every generated file by its path from the root."""
    found = {Path("systemd") / name: text for name, text in systemd().items()}
    found[Path("compose.yaml")] = compose()
    found[Path("docs/TOPOLOGY.md")] = topology_page()
    # Imported here: units and compose.yaml are made by programs that have no need of the gateway.
    from engine.generate.gateway_page import gateway_page

    found[Path("docs/PAPER_GATEWAY.md")] = gateway_page(ROOT)
    found[Path("engine/domain/xnys.py")] = calendar_module()
    return found


def drifted(root: Path = ROOT) -> list[str]:
    """Generated files that are missing, differ, or should not exist any more."""
    wanted = files()
    wrong = [str(p) for p, text in wanted.items() if not (root / p).is_file() or (root / p).read_text() != text]
    stray = {p.relative_to(root) for p in (root / "systemd").glob("l2dash*")} - set(wanted)
    return sorted(wrong + [str(p) for p in stray])


def write(root: Path = ROOT) -> list[Path]:
    """Write every file that has drifted and remove strays; returns what changed."""
    changed = [Path(name) for name in drifted(root)]
    wanted = files()
    for path in changed:
        if path in wanted:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(wanted[path])
        else:
            (root / path).unlink()
    return changed


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        wrong = drifted()
        for name in wrong:
            sys.stderr.write(f"{name} has drifted from the code: run python -m engine.generate\n")
        return 1 if wrong else 0
    if arguments:
        sys.stderr.write("usage: python -m engine.generate [--check]\n")
        return 2
    for path in write():
        sys.stdout.write(f"wrote {path}\n")
    return 0
