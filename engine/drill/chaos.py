"""Random kills of real processes while positions are open: nothing lost, doubled or left open.

Each round brings positions about, disturbs a random process at a random moment (kill -9, SIGSTOP for a while, an
orderly restart), sometimes in the middle of a flatten, waits until the system is guarded or flat again, and compares
the gateway's own word with the position cells and with the sum of the journal's fills. One seed gives the same choices;
the moments they hit are the machine's.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from engine import topology
from engine.drill import truth
from engine.drill.processes import names
from engine.drill.stage import Stage
from engine.drill.timeline import Unexpected

SETTINGS: dict[str, dict[str, Any]] = {
    "strategy": {"enabled": True},
    "model": {"bar_s": 1.0, "warmup_s": 5.0, "warmup_min_s": 5.0, "train_hours": 0.25},
    "guardrails": {"cooling_s": 0.5},
}
"""As shipped but for warm-up and cooling: the strategy trades all the time."""
BACK_S = 90.0
AGREE_S = 30.0
PATIENCE_S = 25.0
"""What is not back by then has been given up by the supervisor (three deaths in a minute): an operator starts it."""


@dataclass(slots=True)
class Round:
    number: int
    what: str
    pid: int
    before: str
    course: str = ""
    back_s: float = 0.0
    agreed_s: float = 0.0
    wrong: str = ""


@dataclass(slots=True)
class Campaign:
    """Result. ``wrong`` names each round in which something was lost, doubled or left open."""

    seed: int
    asked: int
    rounds: list[Round] = field(default_factory=list)
    by_kind: Counter[str] = field(default_factory=Counter)
    kills_latched: int = 0
    executions: int = 0
    elapsed_s: float = 0.0
    end: str = ""
    wrong: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        backs = sorted(r.back_s for r in self.rounds) or [0.0]
        return {
            "seed": self.seed, "asked": self.asked, "reached": len(self.rounds), "by_kind": dict(self.by_kind),
            "kills_latched": self.kills_latched, "executions": self.executions, "elapsed_s": round(self.elapsed_s, 1),
            "back_s": {"p50": backs[len(backs) // 2], "max": backs[-1]}, "end": self.end, "wrong": self.wrong,
        }  # fmt: skip


class Chaos:
    """Runs rounds on one instance. ``start`` starts a service that the supervisor has given up on."""

    def __init__(self, stage: Stage, seed: int, start: Callable[[list[str]], tuple[bool, str]]) -> None:
        self._s, self._start = stage, start
        self._random = random.Random(seed)
        self._control = stage.watch.config.paper.control_port
        self._symbols = [i.symbol for i in stage.watch.context.instruments if i.tradable]

    def run(self, kills: int, seed: int, say: Callable[[Round], None], until_s: float) -> Campaign:
        """At most ``kills`` rounds and ``until_s`` seconds; then everything is flattened and compared for good."""
        campaign, began = Campaign(seed, kills), time.monotonic()
        for number in range(1, kills + 1):
            if time.monotonic() - began > until_s:
                break
            done = self._round(number, campaign)
            campaign.rounds.append(done)
            if done.wrong:
                campaign.wrong.append(f"round {number} ({done.what}): {done.wrong}")
            say(done)
        campaign.end = self._end(campaign)
        campaign.executions = truth.ask(self._control).executions
        campaign.elapsed_s = time.monotonic() - began
        return campaign

    def _round(self, number: int, campaign: Campaign) -> Round:
        rnd, s = self._random, self._s
        found = Round(number, "", 0, "")
        try:
            self._ready(campaign)
            self._positions()
            found.before = str(truth.ask(self._control))
            in_flatten = rnd.random() < 0.15
            if in_flatten:
                s.hands.kill("chaos: a kill in the middle of a flatten")
                self._pause(rnd.uniform(0.0, 0.4))
            else:
                if rnd.random() < 0.3:
                    self._burst()
                self._pause(rnd.uniform(0.0, 0.8))
            began = time.monotonic()
            found.what, found.pid = self._disturb(campaign)
            found.what += " in a flatten" if in_flatten else ""
            self._back()
            found.back_s = round(time.monotonic() - began, 2)
            found.course = self._settle(campaign)
            found.agreed_s = round(time.monotonic() - began, 2)
        except Unexpected as error:
            found.wrong = str(error)
        return found

    def _pause(self, seconds: float) -> None:
        self._s.watch.until(lambda: False, seconds)

    def _ready(self, campaign: Campaign) -> None:
        """ACTIVE before the next disturbance."""
        s = self._s
        s.watch.forget()
        if s.watch.trading() == "KILLED":
            s.release(90.0)
        if not s.watch.until(lambda: s.watch.trading() == "ACTIVE", 60.0):
            raise Unexpected(f"not ACTIVE within 60 s; {s.seen()}")

    def _positions(self) -> None:
        """Something to lose: at least two symbols held."""
        s, rnd = self._s, self._random
        for _ in range(6):
            if len(truth.ask(self._control).positions) >= 2:
                return
            symbol = rnd.choice(self._symbols)
            mid = s.watch.mid(symbol)
            if mid > 0:
                s.hands.order(symbol, rnd.choice(("BUY", "SELL")), max(1, int(rnd.uniform(4_000, 20_000) / mid)))
        if not s.watch.until(lambda: bool(truth.ask(self._control).positions), 10.0):
            raise Unexpected(f"no position within 10 s; {s.seen()}")

    def _burst(self) -> None:
        """Orders that are on their way when the process dies."""
        rnd = self._random
        for symbol in rnd.sample(self._symbols, 3):
            self._s.hands.fire(symbol, rnd.choice(("BUY", "SELL")), rnd.randint(1, 20))

    def _disturb(self, campaign: Campaign) -> tuple[str, int]:
        s, rnd = self._s, self._random
        processes = list(s.processes.apart(topology.PAPER).items())
        if not processes:
            raise Unexpected("no process lives")
        pid, services = rnd.choice(processes)
        how = rnd.random()
        who = names(services)
        if how < 0.7:
            s.processes.send(pid, signal.SIGKILL)
            kind = "kill -9"
        elif how < 0.9:
            seconds = rnd.uniform(0.1, 7.0)
            s.processes.send(pid, signal.SIGSTOP)
            self._pause(seconds)
            s.processes.send(pid, signal.SIGCONT)
            kind = f"SIGSTOP {seconds:.1f} s"
        else:
            s.processes.send(pid, signal.SIGTERM)
            kind = "SIGTERM"
        counted = "SIGSTOP" if kind.startswith("SIGSTOP") else kind
        campaign.by_kind[f"{counted} of {who}"] += 1
        return f"{kind} of {who}", pid

    def _back(self) -> None:
        """Every service READY; what the supervisor has given up on is started as an operator would."""
        s = self._s
        deadline = time.monotonic() + BACK_S
        asked = time.monotonic()
        while not s.watch.until(s.watch.all_ready, 1.0):
            if time.monotonic() > deadline:
                raise Unexpected(f"not every service READY within {BACK_S:g} s: {s.watch.not_ready()}; {s.seen()}")
            if time.monotonic() - asked > PATIENCE_S:
                asked = time.monotonic()
                self._start(s.watch.not_ready())

    def _settle(self, campaign: Campaign) -> str:
        """Guarded or flat, and all three books agree."""
        s = self._s

        def settled() -> bool:
            state = s.watch.trading()
            if state == "KILLED":
                return s.watch.flat_since() > 0
            return state == "ACTIVE"

        if not s.watch.until(settled, BACK_S):
            raise Unexpected(f"neither guarded nor flat within {BACK_S:g} s; {s.seen()}")
        killed = s.watch.trading() == "KILLED"
        if killed:
            campaign.kills_latched += 1
            self._agree(flat=True)
            return f"flat: {s.watch.kill_words()}"
        self._agree(flat=False)
        return "guarded"

    def _agree(self, *, flat: bool) -> None:
        """The gateway's positions, the cells and the journal are one; while the strategy trades, at some moment."""
        s = self._s
        seen = ""

        def same() -> bool:
            nonlocal seen
            before = truth.ask(self._control)
            cells, fills = s.watch.quantities(), s.watch.fills()
            after = truth.ask(self._control)
            seen = f"gateway {after}, cells {cells}, journal {fills.open_qty} in {fills.count} executions"
            if before != after:
                return False
            if flat and not after.flat:
                return False
            return cells == after.positions == fills.open_qty and fills.count == after.executions

        if not s.watch.until(same, AGREE_S):
            raise Unexpected(f"the books differ: {seen}")

    def _end(self, campaign: Campaign) -> str:
        """Flatten, and the last comparison."""
        s = self._s
        try:
            self._back()
            s.hands.kill("chaos: the end")
            if not s.watch.until(lambda: s.watch.flat_since() > 0, 60.0):
                raise Unexpected(f"not flat at the end; {s.seen()}")
            self._agree(flat=True)
            verdict = s.watch.verify_journal()
            if verdict:
                raise Unexpected(f"journal: {verdict}")
        except Unexpected as error:
            campaign.wrong.append(f"end: {error}")
            return f"WRONG: {error}"
        return "flat by the gateway's word; journal chain whole; its fills are the gateway's executions"
