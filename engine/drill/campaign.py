"""A campaign of random kills: what each round was, what it led to, and by which cause each KILL was latched. Pure.

A campaign can be run in portions on one instance: its record is a file beside the instance's state.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from engine import topology
from engine.store.journal_read import Record

FILE = "campaign.json"
PURPOSE = "chaos: "
"""How the reason of every KILL begins that the campaign gives as an operator."""
ON_PURPOSE = "an operator, on purpose"
UNEXPLAINED = "UNEXPLAINED"


MUTE_S, SLOW_S = 2.0, 0.5
"""A bridge that was stopped for less has not made its connection mute, or a round trip slow."""


@dataclass(slots=True)
class Deed:
    """What was done to the system in a round. ``down_s``: from the disturbance until every service was READY again."""

    operator: bool = False
    how: str = ""
    services: tuple[str, ...] = ()
    down_s: float = 0.0
    stopped_s: float = 0.0
    """How long by SIGSTOP."""


@dataclass(slots=True)
class Round:
    number: int
    what: str = ""
    pid: int = 0
    before: str = ""
    course: str = ""
    ready_s: float = 0.0
    """Until trading was ACTIVE and positions were held."""
    back_s: float = 0.0
    agreed_s: float = 0.0
    trips: list[str] = field(default_factory=list)
    """By which cause KILL was latched, each time."""
    wrong: str = ""


@dataclass(slots=True)
class Campaign:
    """Result so far. ``wrong`` names each round in which something was lost, doubled, left open or unexplained."""

    seed: int
    asked: int
    rounds: list[Round] = field(default_factory=list)
    by_kind: dict[str, int] = field(default_factory=dict)
    by_cause: dict[str, int] = field(default_factory=dict)
    executions: int = 0
    elapsed_s: float = 0.0
    portions: int = 0
    end: str = ""
    wrong: list[str] = field(default_factory=list)

    def add(self, done: Round, kind: str) -> None:
        self.rounds.append(done)
        if kind:
            self.by_kind[kind] = self.by_kind.get(kind, 0) + 1
        self.tripped(done.trips)
        if done.wrong:
            self.wrong.append(f"round {done.number} ({done.what}): {done.wrong}")

    def tripped(self, causes: Iterable[str]) -> None:
        for cause, count in Counter(causes).items():
            self.by_cause[cause] = self.by_cause.get(cause, 0) + count

    @property
    def kills_latched(self) -> int:
        return sum(self.by_cause.values())

    def as_dict(self) -> dict[str, Any]:
        backs = sorted(r.back_s for r in self.rounds) or [0.0]
        return {
            "seed": self.seed, "asked": self.asked, "reached": len(self.rounds), "by_kind": self.by_kind,
            "kills_latched": self.kills_latched, "by_cause": self.by_cause, "executions": self.executions,
            "elapsed_s": round(self.elapsed_s, 1), "portions": self.portions,
            "back_s": {"p50": backs[len(backs) // 2], "max": backs[-1]}, "end": self.end, "wrong": self.wrong,
        }  # fmt: skip


def save(campaign: Campaign, directory: Path) -> None:
    temporary = directory / f"{FILE}.new"
    temporary.write_text(json.dumps(asdict(campaign)))
    temporary.replace(directory / FILE)


def load(directory: Path, seed: int, asked: int) -> Campaign:
    """The campaign of a directory, or a new one. Raises ValueError when the record is of another seed or unreadable."""
    path = directory / FILE
    if not path.exists():
        return Campaign(seed, asked)
    raw = json.loads(path.read_text())
    if not isinstance(raw, dict) or set(raw) != {f.name for f in fields(Campaign)}:
        raise ValueError(f"{path} is not the record of a campaign of this version: give an empty directory")
    if raw["seed"] != seed:
        raise ValueError(f"{path} is a campaign of seed {raw['seed']}, asked for is {seed}: give another directory")
    raw["rounds"] = [Round(**r) for r in raw["rounds"]]
    return Campaign(**raw | {"asked": asked})


def latched(stops: Iterable[Record], begins: Iterable[Record]) -> list[str]:
    """Words of those stops that latched KILL anew; a further reason, or its return after a restart, is none."""
    first = {int(row["id"]) for row in begins}
    return [str(row["text"]) for row in stops if int(row["id"]) in first]


def explain(text: str, deed: Deed, gone_s: float, grace_s: float) -> str:
    """By which cause KILL was latched with these words in a round with this deed; UNEXPLAINED if by none of its own."""
    if deed.operator and (text == "stop set by cli" or (text.startswith("kill by") and PURPOSE.strip() in text)):
        return ON_PURPOSE
    hit = set(deed.services)
    if text == "stop set by bridge" and topology.WATCHDOG in hit and deed.down_s >= gone_s:
        return f"the bridge's dead-man: no watchdog for {gone_s:g} s"
    if text.startswith("broker-bridge not back within") and topology.BRIDGE in hit and deed.down_s >= grace_s:
        return f"the bridge was not back within {grace_s:g} s"
    if text.startswith("LAT: gateway mute") and topology.BRIDGE in hit and deed.stopped_s >= MUTE_S:
        return "LAT: the bridge's connection mute while it was stopped"
    if text.startswith("LAT: API round trip") and topology.BRIDGE in hit and deed.stopped_s >= SLOW_S:
        return "LAT: round trips as long as the bridge was stopped"
    return f"{UNEXPLAINED}: {text}"
