"""Every drill by name."""

from __future__ import annotations

from engine.drill.breakdowns import BREAKDOWNS
from engine.drill.scenarios import GROUPS, SCENARIOS, Scenario

ALL: dict[str, Scenario] = {**SCENARIOS, **BREAKDOWNS}
PROCESSES = "PROCESSES"
"""Group of the drills in which processes, connections, disk or clock break down."""


def chosen(word: str) -> tuple[str, ...]:
    """Names for an argument: a name, a badge with several drills, ``all`` badges, ``processes``. Empty if neither."""
    name = word.upper()
    if name == "ALL":
        return tuple(SCENARIOS)
    if name == PROCESSES:
        return tuple(BREAKDOWNS)
    return GROUPS.get(name, (name,) if name in ALL else ())
