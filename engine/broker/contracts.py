"""What the broker says about each instrument: ids, increments, trading hours. Cached in ``contracts.json``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from engine.broker.news import ContractNews, MarketRuleNews
from engine.domain.instruments import Instrument
from engine.risk.pretrade import EDGES

_SPAN = re.compile(r"(\d{8}):(\d{4})-(?:(\d{8}):)?(\d{4})")
DEFAULT_ZONE = "America/New_York"


def zone(name: str) -> ZoneInfo:
    """Time zone of the broker's name for it; New York for names that the tz database lacks."""
    try:
        return ZoneInfo(name.split()[0]) if name else ZoneInfo(DEFAULT_ZONE)
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo(DEFAULT_ZONE)


def parse_hours(text: str, zone_name: str) -> tuple[tuple[int, int], ...]:
    """Intervals (begin, end) of the broker's hours, wall ns: ``20240102:0930-20240102:1600;20240103:CLOSED``.

    The older form without the second date is read too. What can't be read counts as closed.
    """
    tz = zone(zone_name)
    spans = []
    for day, begin, last, end in _SPAN.findall(text):
        try:
            first = datetime.strptime(day + begin, "%Y%m%d%H%M").replace(tzinfo=tz)
            hours, minutes = divmod(int(end), 100)
            base = datetime.strptime(last or day, "%Y%m%d").replace(tzinfo=tz)
            stop = base + timedelta(days=hours // 24, hours=hours % 24, minutes=minutes)
            if not last and stop <= first:
                stop += timedelta(days=1)
        except ValueError:
            continue
        spans.append((int(first.timestamp()) * 1_000_000_000, int(stop.timestamp()) * 1_000_000_000))
    return tuple(sorted(spans))


def open_at(spans: Sequence[tuple[int, int]], wall_ns: int) -> bool:
    return any(begin <= wall_ns < end for begin, end in spans)


@dataclass(frozen=True, slots=True)
class ContractFacts:
    con_id: int
    primary_exchange: str
    min_tick: float
    rule_id: int
    steps: tuple[tuple[float, float], ...]
    """(lower edge, increment), rising."""
    time_zone: str
    trading_hours: str
    liquid_hours: str
    fetched_wall_ns: int


class ContractBook:
    """Facts per symbol number; ``None`` until qualified. ``key`` tells caches of different accounts apart."""

    def __init__(self, instruments: Sequence[Instrument], path: Path, key: str) -> None:
        self._instruments = instruments
        self._path = path
        self._key = key
        self.facts: list[ContractFacts | None] = [None] * len(instruments)
        self._sessions: list[tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]] = [((), ())] * len(
            instruments
        )
        self._rules: dict[int, tuple[tuple[float, float], ...]] = {}
        self.dirty = False

    def load(self, now_wall_ns: int) -> int:
        """Take what the cache still knows; entries whose hours have run out are left. Returns how many symbols."""
        try:
            data = json.loads(self._path.read_text())
            entries = data["contracts"] if data.get("key") == self._key else {}
        except (OSError, ValueError, KeyError, TypeError):
            return 0
        taken = 0
        for i, instrument in enumerate(self._instruments):
            try:
                raw = dict(entries[instrument.symbol])
                raw["steps"] = tuple((float(a), float(b)) for a, b in raw["steps"])
                facts = ContractFacts(**raw)
            except (KeyError, TypeError, ValueError):
                continue
            if any(end > now_wall_ns for _, end in parse_hours(facts.trading_hours, facts.time_zone)):
                self._set(i, facts)
                taken += 1
        return taken

    def save(self) -> bytes:
        """The cache as bytes, for the state writer."""
        contracts = {i.symbol: asdict(f) for i, f in zip(self._instruments, self.facts, strict=True) if f is not None}
        self.dirty = False
        return json.dumps({"key": self._key, "contracts": contracts}, indent=1).encode()

    def _set(self, symbol: int, facts: ContractFacts) -> None:
        self.facts[symbol] = facts
        trading = parse_hours(facts.trading_hours, facts.time_zone)
        self._sessions[symbol] = (parse_hours(facts.liquid_hours, facts.time_zone) or trading, trading)

    def learn(self, news: ContractNews, wall_ns: int) -> int:
        """Take contract details; returns a market rule id that has to be asked for, 0 if none."""
        instrument = self._instruments[news.symbol]
        rule = next((r for exchange, r in news.rules if exchange == instrument.exchange), 0)
        known = self._rules.get(rule)
        old = self.facts[news.symbol]
        if known is None and old is not None and old.rule_id == rule:
            known = old.steps
        facts = ContractFacts(
            con_id=news.con_id,
            primary_exchange=news.primary_exchange or instrument.primary_exchange,
            min_tick=news.min_tick,
            rule_id=rule,
            steps=known or ((0.0, news.min_tick or instrument.tick_size),),
            time_zone=news.time_zone,
            trading_hours=news.trading_hours,
            liquid_hours=news.liquid_hours,
            fetched_wall_ns=wall_ns,
        )
        self._set(news.symbol, facts)
        self.dirty = True
        return rule if rule and rule not in self._rules else 0

    def learn_rule(self, news: MarketRuleNews) -> list[int]:
        """Take a market rule; returns the symbols it concerns."""
        steps = tuple(sorted(news.steps))
        if not steps:
            return []
        self._rules[news.rule_id] = steps
        touched = []
        for symbol, facts in enumerate(self.facts):
            if facts is not None and facts.rule_id == news.rule_id:
                self.facts[symbol] = replace(facts, steps=steps)
                touched.append(symbol)
        self.dirty = True
        return touched

    def increments(self, symbol: int) -> tuple[list[float], list[float]]:
        """(edges, steps) for the gate, padded to EDGES; rules with more bands keep the highest ones."""
        facts = self.facts[symbol]
        steps = facts.steps if facts is not None else ((0.0, self._instruments[symbol].tick_size),)
        steps = steps[:1] + steps[max(1, len(steps) - EDGES + 1) :]
        edges = [edge for edge, _ in steps] + [math.inf] * (EDGES - len(steps))
        return edges, [increment for _, increment in steps] + [0.0] * (EDGES - len(steps))

    def session_open(self, symbol: int, wall_ns: int) -> bool:
        """Regular (liquid) hours."""
        return open_at(self._sessions[symbol][0], wall_ns)

    def extended_open(self, symbol: int, wall_ns: int) -> bool:
        return open_at(self._sessions[symbol][1], wall_ns)

    @property
    def qualified(self) -> bool:
        return all(f is not None for f in self.facts)
