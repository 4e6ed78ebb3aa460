"""docs/TOPOLOGY.md, derived from ``engine.topology``."""

from __future__ import annotations

from engine import topology


def topology_page() -> str:
    """docs/TOPOLOGY.md."""
    rows = ["| service | does | hot | starts after | modes |", "| --- | --- | --- | --- | --- |"]
    for s in topology.SERVICES:
        rows.append(f"| {s.name} | {s.does} | {'yes' if s.hot else ''} | {', '.join(s.after)} | {', '.join(s.modes)} |")
    rings = [
        "| ring | record | slots | writer | gating readers | lossy readers |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for r in topology.RINGS:
        rings.append(
            f"| {r.name} | {r.record} | {r.capacity} | {r.writer} | {', '.join(r.gate)} | {', '.join(r.lossy)} |"
        )
    cells = ["| cell | record | count | writer | readers |", "| --- | --- | --- | --- | --- |"]
    for c in topology.CELLS:
        cells.append(f"| {c.name} | {c.record} | {c.count} | {c.writer} | {', '.join(c.readers)} |")
    return "\n".join(
        [
            "<!-- Generated from engine/topology.py by `python -m engine.generate`; a test fails on drift. -->",
            "# Topology",
            "",
            "Who writes what, and who reads it. A gating reader is never overwritten: the writer is told that the ring",
            "is full. A lossy reader that is too slow learns exactly how many records it lost.",
            "",
            "## Services, in start order",
            "",
            *rows,
            "",
            "## Rings",
            "",
            *rings,
            "",
            "## Cells (latest value)",
            "",
            *cells,
            "",
            "## Picture",
            "",
            "Thick arrows gate. Event rings (every service to recorder and cockpit) are left out.",
            "",
            "```mermaid",
            topology.mermaid().rstrip(),
            "```",
            "",
        ]
    )
