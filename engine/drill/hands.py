"""What an operator's hands and the world do in a drill: orders, stops, releases; faults of the paper gateway."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.request
from typing import Any, Protocol


class Hands(Protocol):
    """The operator, through shared memory. Answers are (done, words)."""

    def order(self, symbol: str, side: str, qty: int, limit: float = math.nan) -> tuple[bool, str]:
        """A market order, or one at ``limit``; ``done`` when the gate let it pass."""

    def fire(self, symbol: str, side: str, qty: int) -> None:
        """A market order whose verdict nobody waits for."""

    def burst(self, symbols: list[str], per_s: float, seconds: float) -> int:
        """Market orders of one share, buying and selling in turn; returns how many were written."""

    def kill(self, reason: str) -> tuple[bool, str]:
        """The operator's KILL: own stop cell at once, then the command."""

    def reset(self, override: str, reason: str) -> tuple[bool, str]:
        """Release KILL; ``override`` is the name that lifts a day lock, empty for none."""

    def start(self, services: list[str]) -> tuple[bool, str]:
        """Start services that are down for good."""

    def restart(self, services: list[str]) -> tuple[bool, str]:
        """Restart services alone."""


class FaultFailed(Exception):
    """The gateway did not carry out a fault; the text is its own word."""


class Faults:
    """Client of the paper gateway's control port. Raises FaultFailed."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/faults"

    def __call__(self, fault: str, **arguments: Any) -> str:
        body = json.dumps({"fault": fault, "args": arguments}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return str(json.loads(answer.read())["result"])
        except urllib.error.HTTPError as error:
            raise FaultFailed(f"fault {fault}: {error.read().decode(errors='replace')}") from error
        except OSError as error:
            raise FaultFailed(f"fault {fault}: control port {self._url} does not answer ({error})") from error
