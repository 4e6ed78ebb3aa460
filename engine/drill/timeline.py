"""What happened in a drill, in order, and whether it was what had to happen. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.domain.codes import EventKind


class Unexpected(Exception):
    """The course was not the expected one; the text says at which step and what was seen instead."""


@dataclass(frozen=True, slots=True)
class News:
    """One record of a service's events ring."""

    t_ns: int
    service: str
    kind: int
    code: int
    symbol: int
    ref_id: int
    value: float
    limit: float
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the time line. ``step`` names an expected step; empty for what else was journaled."""

    t_ns: int
    who: str
    event: str
    step: str = ""


SHOWN = (
    EventKind.GUARDRAIL, EventKind.STOP, EventKind.FLATTEN, EventKind.COMMAND_RESULT, EventKind.CONNECTIVITY,
    EventKind.MODEL,
)  # fmt: skip
"""What a time line shows of the services' events; orders are summed up by the blotter's line."""


@dataclass(slots=True)
class Timeline:
    """Rows of one drill. Times are CLOCK_MONOTONIC ns; the first cause is the zero of what is shown."""

    causes: list[int] = field(default_factory=list)
    """When something was caused, in order; a drill can have several."""
    rows: list[Row] = field(default_factory=list)

    @property
    def cause_ns(self) -> int:
        """The newest cause, 0 before any."""
        return self.causes[-1] if self.causes else 0

    def since_cause_ns(self, t_ns: int) -> int | None:
        """Time since the newest cause before that moment; None before any."""
        before = [c for c in self.causes if c <= t_ns]
        return t_ns - before[-1] if before else None

    def cause(self, t_ns: int, who: str, what: str) -> None:
        """Something is caused: what follows is expected of it."""
        self.causes.append(t_ns)
        self.add(t_ns, who, what, "cause")

    def add(self, t_ns: int, who: str, event: str, step: str = "") -> None:
        self.rows.append(Row(t_ns, who, event, step))

    def tell(self, news: News) -> None:
        """Add an event of a service, unless it says nothing about the course."""
        if news.kind in SHOWN:
            self.add(news.t_ns, news.service, news.text)

    def mark(self, news: News, step: str) -> None:
        """The event is an expected step: name its row."""
        for i, row in enumerate(self.rows):
            if row.t_ns == news.t_ns and row.event == news.text and not row.step:
                self.rows[i] = Row(row.t_ns, row.who, row.event, step)
                return
        self.add(news.t_ns, news.service, news.text, step)

    def at_ns(self, step: str) -> int:
        """Time of the first row of a step, 0 if it has not been reached."""
        return min((r.t_ns for r in self.rows if r.step == step), default=0)

    def shown(self) -> list[dict[str, Any]]:
        """Rows by time: ``t_s`` since the first cause, ``since_s`` since the newest one before the row."""
        zero = self.causes[0] if self.causes else min((r.t_ns for r in self.rows), default=0)
        return [
            {"t_s": round((r.t_ns - zero) / 1e9, 4), "since_s": None if (t := self.since_cause_ns(r.t_ns)) is None
             else round(t / 1e9, 4), "step": r.step, "who": r.who, "event": r.event}
            for r in sorted(self.rows, key=lambda r: r.t_ns)
        ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of one drill. ``figures_ms``: milliseconds from the cause to each step, and what was measured besides."""

    name: str
    title: str
    passed: bool
    reason: str
    settings: Mapping[str, Mapping[str, Any]]
    timeline: list[dict[str, Any]]
    figures_ms: Mapping[str, float]


def figures_ms(timeline: Timeline) -> dict[str, float]:
    """Milliseconds to the first of each step from the cause before it, in the order in which they came."""
    found: dict[str, float] = {}
    for row in sorted(timeline.rows, key=lambda r: r.t_ns):
        took_ns = timeline.since_cause_ns(row.t_ns)
        if row.step and took_ns is not None and row.step not in found:
            found[row.step] = round(took_ns / 1e6, 2)
    return found
