"""The gateway's own word about the account, past every process of the system: what all else is compared with."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Truth:
    """Positions by symbol without zeros, working orders in words, executions of the day."""

    positions: dict[str, float]
    working: tuple[str, ...]
    executions: int

    @property
    def flat(self) -> bool:
        return not self.positions and not self.working

    def __str__(self) -> str:
        held = ", ".join(f"{s} {q:+g}" for s, q in sorted(self.positions.items())) or "no position"
        return f"{held}; {len(self.working)} working; {self.executions} executions"


def ask(control_port: int) -> Truth:
    """Raises OSError if the gateway's control port does not answer."""
    with urllib.request.urlopen(f"http://127.0.0.1:{control_port}/state", timeout=10) as answer:
        state: dict[str, Any] = json.loads(answer.read())
    working = tuple(
        f"{o['action']} {o['quantity']:g} {o['symbol']} of client {o['client_id']}" for o in state["working_orders"]
    )
    positions = {str(s): float(q) for s, q in state["positions"].items() if abs(float(q)) > 1e-9}
    return Truth(positions, working, int(state["executions_today"]))
