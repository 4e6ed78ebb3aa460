"""Looking at the instance under drill: news of the services as they come, stops, flatten, positions, the blotter."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from engine import topology
from engine.cockpit.view import View
from engine.domain.codes import Badge, BadgeState, BlockReason, FlattenState, LinkState, OrderState, ServiceState
from engine.drill.timeline import News, Timeline
from engine.runtime.context import Context
from engine.runtime.instance import living
from engine.store.incident import Incident, incidents, report
from engine.store.journal import journal_path
from engine.store.journal_read import JournalReader, Record

POLL_S = 0.004
_ENDED = {s.name for s in (OrderState.FILLED, OrderState.CANCELLED, OrderState.REJECTED, OrderState.REFUSED)}


@dataclass(frozen=True, slots=True)
class Blotter:
    """What the journal says since a row id. ``open_qty``: the sum of all fills ever by symbol, without zeros."""

    closing: int
    filled: int
    working: int
    open_qty: dict[str, float]
    both_ways: tuple[str, ...] = ()
    """Symbols that were closed and opened again: too much was closed, and bought back."""

    @property
    def flat(self) -> bool:
        done = self.closing > 0 and self.filled == self.closing
        return done and not self.working and not self.open_qty and not self.both_ways

    def __str__(self) -> str:
        left = ", ".join(f"{symbol}: {qty:+g}" for symbol, qty in self.open_qty.items()) or "none"
        return (
            f"{self.filled} of {self.closing} closing orders FILLED, {self.working} working, "
            f"open by the sum of fills: {left}"
        ) + (f"; BOTH WAYS: {', '.join(self.both_ways)}" if self.both_ways else "")


@dataclass(frozen=True, slots=True)
class Fills:
    """What all recorded executions add up to, by symbol without zeros, and how many there are."""

    count: int
    open_qty: dict[str, float]


class Watch:
    """Reads one instance without writing anything. ``poll`` has to be called often enough not to be lapped."""

    def __init__(self, context: Context, timeline: Timeline) -> None:
        self.context = context
        self.config = context.config
        self.view = View(context)
        self.timeline = timeline
        self.news: list[News] = []
        services = (topology.WATCHDOG, topology.BRIDGE, topology.ML)
        self._rings = {name: context.ring_reader(f"events.{name}") for name in services}
        self._beats = {s.name: context.cell_reader(f"heartbeat.{s.name}") for s in topology.SERVICES}
        self._journal = journal_path(context.state_dir)
        self.ended: set[int] = set()
        """Pids that were told to end: they count as gone."""

    def now_ns(self) -> int:
        return self.context.clock.now_ns()

    def poll(self) -> None:
        """Take in what the services have said, and fresh cells."""
        for service, ring in self._rings.items():
            records = ring.poll()
            while len(records):
                for e in records:
                    news = News(
                        int(e["t_ns"]), service, int(e["kind"]), int(e["code"]), int(e["symbol"]), int(e["ref_id"]),
                        float(e["value"]), float(e["limit"]), bytes(e["text"]).decode(errors="replace"),
                    )  # fmt: skip
                    self.news.append(news)
                    self.timeline.tell(news)
                records = ring.poll()
        self.view.refresh(self.now_ns())

    def until(self, condition: Callable[[], bool], within_s: float) -> bool:
        """Poll until the condition holds; False if it did not in time."""
        deadline = time.monotonic() + within_s
        while True:
            self.poll()
            if condition():
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)

    def find(self, test: Callable[[News], bool], since_ns: int) -> News | None:
        return next((n for n in self.news if n.t_ns >= since_ns and test(n)), None)

    # -- what the cells say -------------------------------------------------------------------------------------

    def trading(self) -> str:
        return str(self.view.trading_state()["state"])

    def trading_words(self) -> str:
        state = self.view.trading_state()
        return f"{state['state']} {'; '.join(state['reasons'])}".strip()

    def badge(self, badge: Badge) -> BadgeState:
        return BadgeState(int(self.view.value("guardrails")["badges"][badge]["state"]))

    def badges_not_ok(self) -> str:
        """Badges other than KILL that are not OK, with their reasons; empty if all are."""
        cells = self.view.value("guardrails")["badges"]
        return "; ".join(
            f"{b.name} {BadgeState(int(cells[b]['state'])).name} ({bytes(cells[b]['reason']).decode(errors='replace')})"
            for b in Badge
            if b != Badge.KILL and int(cells[b]["state"]) != BadgeState.OK
        )

    def kill_reasons(self) -> int:
        return int(self.view.value("guardrails")["kill_reasons"])

    def blocked_symbols(self) -> list[str]:
        return [str(s) for s in self.view.trading_state()["blocked_symbols"]]

    def link(self) -> LinkState:
        return LinkState(int(self.view.value("broker")["link"]))

    def flatten_state(self) -> tuple[FlattenState, int, int, int]:
        """State, cause_ns, sent_ns, flat_ns of the newest flatten."""
        f = self.view.value("flatten")
        return FlattenState(int(f["state"])), int(f["cause_ns"]), int(f["sent_ns"]), int(f["flat_ns"])

    def working(self) -> int:
        """Orders that work, or may, by the bridge's own count."""
        b = self.view.value("broker")
        return int(b["working_orders"]) + int(b["unknown_orders"])

    def quantities(self) -> dict[str, float]:
        """Confirmed positions by symbol, without zeros."""
        cells = self.view.cells["positions"].value
        found = {i.symbol: float(cells[i.index]["qty"]) for i in self.context.instruments if i.tradable}
        return {symbol: qty for symbol, qty in found.items() if qty}

    def mid(self, symbol: str) -> float:
        """NaN if it is not known."""
        index = next(i.index for i in self.context.instruments if i.symbol == symbol)
        return float(self.view.cells["book"].value[index]["mid"])

    def not_ready(self) -> list[str]:
        """Services that are not READY, whose heart stands still, or whose process is gone."""
        now_ns, found = self.now_ns(), []
        alive = {life.service for life in living(self.config) if life.pid not in self.ended}
        for service in topology.services(self.config.instance.mode):
            beat = self._beats[service.name].read()
            fresh = now_ns - int(beat["t_beat_ns"]) <= 2e9
            if service.name not in alive or int(beat["state"]) != ServiceState.READY or not fresh:
                found.append(service.name)
        return found

    def all_ready(self) -> bool:
        return not self.not_ready()

    def flat_since(self) -> int:
        """Since when the watchdog has confirmed flat, 0 if it has not."""
        return int(self.view.value("guardrails")["flat_since_ns"])

    def bridge_killed(self) -> bool:
        """The bridge's own dead-man has latched KILL."""
        return bool(self.view.value("stop.bridge")["kill"])

    def block_reasons(self, *reasons: BlockReason) -> bool:
        """One of these holds entries back."""
        mask = int(self.view.value("guardrails")["block_reasons"])
        return any(mask >> r & 1 for r in reasons)

    def session_date(self) -> int:
        return int(self.view.value("guardrails")["session_date"])

    def kill_words(self) -> str:
        """Why KILL holds, in the badge's words."""
        badge = self.view.value("guardrails")["badges"][Badge.KILL]
        return bytes(badge["reason"]).decode(errors="replace")

    def forget(self) -> None:
        """Drop old news: a campaign would keep too many."""
        del self.news[:-2_000]
        del self.timeline.rows[:-2_000]

    # -- what the journal says ----------------------------------------------------------------------------------

    def journal_head(self) -> int:
        if not self._journal.exists():
            return 0
        with JournalReader(self._journal) as journal:
            return journal.head_id()

    def fills(self) -> Fills:
        """All fills ever, each execution once."""
        with JournalReader(self._journal) as journal:
            net, count = journal.net_by_symbol()
        return Fills(count, {s: q for s, q in net.items() if abs(q) > 1e-9})

    def incident(self) -> Incident | None:
        """The report of the newest incident."""
        with JournalReader(self._journal) as journal:
            known = [i for i in incidents(journal) if not i["by_hand"]]
            return report(journal, known[-1]["id"], self.config.guardrails.cooling_s) if known else None

    def stops(self) -> tuple[list[Record], list[Record]]:
        """Every stop and release ever, and those of them that began an incident."""
        if not self._journal.exists():
            return [], []
        with JournalReader(self._journal) as journal:
            return journal.stops(), [i for i in incidents(journal, limit=1_000_000) if not i["by_hand"]]

    def verify_journal(self) -> str:
        """What is wrong with the chain, empty if nothing is."""
        with JournalReader(self._journal) as journal:
            verdict = journal.verify()
        return verdict.reason

    def blotter(self, since: int) -> Blotter:
        """The watchdog's closing orders since a row id, and what all fills add up to."""
        with JournalReader(self._journal) as journal:
            orders = journal.orders(since=max(1, since), limit=10_000)
            positions = journal.positions_from_fills()
        closing = [o for o in orders if o["source"] == "WATCHDOG" and o["state"] != "REFUSED"]
        filled = [o for o in closing if o["state"] == "FILLED"]
        working = [o for o in orders if o["state"] not in _ENDED]
        open_qty = {str(s): float(p.qty) for s, p in positions.items() if abs(p.qty) > 1e-9}
        return Blotter(len(closing), len(filled), len(working), open_qty, both_ways(closing))


def both_ways(closing: Iterable[Record]) -> tuple[str, ...]:
    """Symbols in which closing orders have been filled on both sides."""
    sides: dict[str, set[str]] = {}
    for order in closing:
        if order["filled_qty"]:
            sides.setdefault(str(order["symbol"]), set()).add(str(order["side"]))
    return tuple(sorted(symbol for symbol, seen in sides.items() if len(seen) > 1))
