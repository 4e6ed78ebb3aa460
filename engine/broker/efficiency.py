"""Order efficiency ratio of the day, as the broker counts it: pure.

The broker flags an account whose (submissions + revisions + cancels) / (executed orders + 1) is above 20. It is shown,
and held below a limit: past it entries wait for executions, while cancels and what reduces a position always pass. Few
messages say nothing, so the limit holds only from ``begins_at`` messages a day on.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Efficiency:
    limit: float
    begins_at: int
    requests: int = 0
    """Submissions, revisions and cancels of the day."""
    executed: int = 0
    """Orders of the day that have an execution."""

    @property
    def ratio(self) -> float:
        return self.requests / (self.executed + 1)

    @property
    def left(self) -> int:
        """Entries that may still leave before an execution has to come."""
        return max(0, max(self.begins_at, int(self.limit * (self.executed + 1))) - self.requests)

    def begin_day(self) -> None:
        self.requests = self.executed = 0
