"""Random kills of real processes while positions are open: nothing lost, doubled or left open.

Each round brings positions about, disturbs a random process at a random moment (kill -9, SIGSTOP for a while, an
orderly restart), sometimes in the middle of a flatten, waits until the system is guarded or flat again, and compares
the gateway's own word with the position cells and with the sum of the journal's fills. Every KILL is told apart: one
that neither the operator nor the disturbance of its round explains is as wrong as a lost fill. One seed gives the same
choices; the moments they hit are the machine's.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from typing import Any

from engine import topology
from engine.drill import truth
from engine.drill.campaign import PURPOSE, UNEXPLAINED, Campaign, Deed, Round, explain, latched
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
REACTION_S = 8.0
"""What the supervisor has given up on (three deaths in a minute, a page) an operator starts within this time."""


class Chaos:
    """Runs rounds on one instance. ``stays_down``: services that the supervisor has given up on."""

    def __init__(self, stage: Stage, campaign: Campaign, stays_down: Callable[[], list[str]]) -> None:
        self._s, self._campaign, self._stays_down = stage, campaign, stays_down
        self._random = random.Random()
        self._deed = Deed()
        self._stop_row = 0
        self._control = stage.watch.config.paper.control_port
        self._symbols = [i.symbol for i in stage.watch.context.instruments if i.tradable]

    def run(self, say: Callable[[Round], None], until_s: float) -> None:
        """Rounds until as many are done as asked for, or for ``until_s``; then all is flattened and compared."""
        campaign, began = self._campaign, time.monotonic()
        self._stop_row = max((int(row["id"]) for row in self._s.watch.stops()[0]), default=0)
        while len(campaign.rounds) < campaign.asked and time.monotonic() - began < until_s:
            number = len(campaign.rounds) + 1
            self._random = random.Random(f"{campaign.seed}/{number}")
            done = self._round(number)
            campaign.add(done, self._kind())
            say(done)
        campaign.end = self._end()
        campaign.executions = truth.ask(self._control).executions
        campaign.elapsed_s += time.monotonic() - began
        campaign.portions += 1

    def _kind(self) -> str:
        return f"{self._deed.how} of {names(list(self._deed.services))}" if self._deed.how else ""

    def _round(self, number: int) -> Round:
        rnd, s = self._random, self._s
        found, self._deed = Round(number), Deed()
        began = time.monotonic()
        try:
            self._ready()
            self._positions()
            found.before = str(truth.ask(self._control))
            found.ready_s = round(time.monotonic() - began, 2)
            self._deed.operator = rnd.random() < 0.15
            if self._deed.operator:
                s.hands.kill(f"{PURPOSE}in a flatten")
                self._pause(rnd.uniform(0.0, 0.4))
            else:
                if rnd.random() < 0.3:
                    self._burst()
                self._pause(rnd.uniform(0.0, 0.8))
            began = time.monotonic()
            found.what, found.pid = self._disturb()
            found.what += " in a flatten" if self._deed.operator else ""
            self._back()
            self._deed.down_s = found.back_s = round(time.monotonic() - began, 2)
            found.course = self._settle()
            found.agreed_s = round(time.monotonic() - began, 2)
        except Unexpected as error:
            found.wrong = str(error)
        found.trips = self._trips()
        unknown = [trip for trip in found.trips if trip.startswith(UNEXPLAINED)]
        if unknown and not found.wrong:
            found.wrong = "; ".join(unknown)
        return found

    def _trips(self) -> list[str]:
        """By which cause each KILL was latched since the last call, by the journal."""
        stops, begins = self._s.watch.stops()
        new = [row for row in stops if int(row["id"]) > self._stop_row]
        if new:
            self._stop_row = max(int(row["id"]) for row in new)
        g = self._s.g
        return [explain(text, self._deed, g.watchdog_gone_s, g.bridge_grace_s) for text in latched(new, begins)]

    def _pause(self, seconds: float) -> None:
        self._s.watch.until(lambda: False, seconds)

    def _ready(self) -> None:
        """ACTIVE before the next disturbance."""
        s = self._s
        s.watch.forget()
        if not s.watch.until(lambda: s.watch.trading() in ("ACTIVE", "KILLED"), 60.0):
            raise Unexpected(f"not ACTIVE within 60 s; {s.seen()}")
        if s.watch.trading() == "KILLED":
            s.release(90.0)

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

    def _disturb(self) -> tuple[str, int]:
        s, rnd = self._s, self._random
        processes = list(s.processes.apart(topology.PAPER).items())
        if not processes:
            raise Unexpected("no process lives")
        pid, services = rnd.choice(processes)
        how = rnd.random()
        who = names(services)
        kind = self._deed.how = "kill -9" if how < 0.7 else "SIGSTOP" if how < 0.9 else "SIGTERM"
        self._deed.services = tuple(services)
        if kind == "kill -9":
            s.processes.send(pid, signal.SIGKILL)
        elif kind == "SIGSTOP":
            seconds = rnd.uniform(0.1, 7.0)
            self._deed.stopped_s = seconds
            s.processes.send(pid, signal.SIGSTOP)
            self._pause(seconds)
            s.processes.send(pid, signal.SIGCONT)
            kind = f"SIGSTOP {seconds:.1f} s"
        else:
            s.processes.send(pid, signal.SIGTERM)
        return f"{kind} of {who}", pid

    def _back(self) -> None:
        """Every service READY; what the supervisor has given up on is started as an operator would."""
        s = self._s
        deadline = time.monotonic() + BACK_S
        while not s.watch.until(s.watch.all_ready, 1.0):
            if time.monotonic() > deadline:
                raise Unexpected(f"not every service READY within {BACK_S:g} s: {s.watch.not_ready()}; {s.seen()}")
            down = self._stays_down()
            if down:
                self._pause(self._random.uniform(0.0, REACTION_S))
                s.hands.start(down)

    def _settle(self) -> str:
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
            working = s.watch.working()
            journal = f"{fills.open_qty} in {fills.count} executions"
            seen = f"gateway {after}, cells {cells} and {working} working, journal {journal}"
            if before != after:
                return False
            if flat and not after.flat:
                return False
            if len(after.working) != working:  # an orphan, or one that was sent twice
                return False
            return cells == after.positions == fills.open_qty and fills.count == after.executions

        if not s.watch.until(same, AGREE_S):
            raise Unexpected(f"the books differ: {seen}")

    def _end(self) -> str:
        """Flatten, and the last comparison; every KILL that the journal knows is one that was explained."""
        s, campaign = self._s, self._campaign
        self._deed = Deed(operator=True)
        try:
            self._back()
            s.hands.kill(f"{PURPOSE}the end")
            if not s.watch.until(lambda: s.watch.flat_since() > 0, 60.0):
                raise Unexpected(f"not flat at the end; {s.seen()}")
            self._agree(flat=True)
            verdict = s.watch.verify_journal()
            if verdict:
                raise Unexpected(f"journal: {verdict}")
            campaign.tripped(self._trips())
            known = len(s.watch.stops()[1])
            if known != campaign.kills_latched:
                raise Unexpected(f"{known} KILLs in the journal, {campaign.kills_latched} told apart")
        except Unexpected as error:
            campaign.wrong.append(f"end: {error}")
            return f"WRONG: {error}"
        return "flat by the gateway's word; journal chain whole; its fills are the gateway's executions"
