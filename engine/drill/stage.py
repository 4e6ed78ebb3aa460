"""What a scenario is written with: hold positions, cause something, expect steps in time, look into the blotter."""

from __future__ import annotations

from collections.abc import Callable

from engine import topology
from engine.domain.codes import Badge, BadgeState, EventKind, FlattenState
from engine.drill import truth
from engine.drill.hands import Faults, Hands
from engine.drill.processes import Processes
from engine.drill.timeline import News, Timeline, Unexpected
from engine.drill.watch import Watch
from engine.risk.latch import StopEvent

DRILL = "drill"
OPERATOR = "l2dash drill"
READ_S = 10.0
"""Position cells are the bridge's. One that the watchdog has stood in for reads the account anew before it gets the
right to send back; only then do its cells know what was closed without it."""


class Stage:
    """One drill on one instance. Every expectation raises Unexpected, naming the step and what was seen instead."""

    def __init__(
        self, watch: Watch, hands: Hands, faults: Faults, timeline: Timeline, processes: Processes | None = None,
        jump: Callable[[float], None] | None = None,
    ) -> None:  # fmt: skip
        """``processes`` and ``jump`` (of the wall clock, seconds) exist on a private instance only."""
        self.watch, self.hands, self.faults, self.timeline = watch, hands, faults, timeline
        self._processes, self._jump = processes, jump
        if processes is not None:
            watch.ended = processes.ended
        self.g = watch.config.guardrails
        self.journal_from = watch.journal_head()

    @property
    def processes(self) -> Processes:
        """Raises Unexpected on an instance that is not ours."""
        if self._processes is None:
            raise Unexpected("start: processes are ended on a private instance only")
        return self._processes

    def jump(self, seconds: float) -> None:
        """Let the wall clock of every process of the instance differ by so much from the machine's."""
        if self._jump is None:
            raise Unexpected("start: the wall clock jumps on a private instance only")
        self._jump(seconds)

    # -- telling ------------------------------------------------------------------------------------------------

    def say(self, event: str, step: str = "", t_ns: int = 0) -> None:
        self.timeline.add(t_ns or self.watch.now_ns(), DRILL, event, step)

    def cause(self, what: str, act: Callable[[], object]) -> None:
        """The first one is the zero of the time line: do it now."""
        self.watch.poll()
        self.timeline.cause(self.watch.now_ns(), DRILL, what)
        act()

    # -- expecting ----------------------------------------------------------------------------------------------

    def expect(self, step: str, test: Callable[[News], bool], within_s: float) -> News:
        """An event since the cause that passes the test."""
        found: list[News] = []

        def look() -> bool:
            news = self.watch.find(test, self.timeline.cause_ns)
            if news is not None:
                found.append(news)
            return bool(found)

        if not self.watch.until(look, within_s):
            raise Unexpected(f"{step}: not within {within_s:g} s; {self.seen()}")
        self.timeline.mark(found[0], step)
        return found[0]

    def expect_state(self, step: str, what: str, test: Callable[[], bool], within_s: float) -> None:
        """A state of the cells."""
        if not self.watch.until(test, within_s):
            raise Unexpected(f"{step}: {what} not within {within_s:g} s; {self.seen()}")
        self.say(what, step)

    def expect_quiet(self, step: str, what: str, fault: Callable[[], str], for_s: float) -> None:
        """Nothing wrong for a while. ``fault`` says what is wrong, empty if nothing is."""
        if self.watch.until(lambda: bool(fault()), for_s):
            raise Unexpected(f"{step}: {fault()}; {self.seen()}")
        self.say(what, step)

    def seen(self) -> str:
        state, _, _, _ = self.watch.flatten_state()
        return (
            f"seen: {self.watch.trading_words()}; badges: {self.watch.badges_not_ok() or 'OK'}; "
            f"flatten {state.name}; positions {self.watch.quantities() or 'none'}"
        )

    def expect_badge(self, badge: Badge, state: BadgeState, within_s: float, step: str = "") -> News:
        return self.expect(
            step or f"{badge.name} {state.name}",
            lambda n: n.kind == EventKind.GUARDRAIL and n.code == badge and n.ref_id == state,
            within_s,
        )

    # -- the parts of most courses ------------------------------------------------------------------------------

    def quiet_start(self, within_s: float = 90.0) -> None:
        """ACTIVE with every badge OK: what follows is caused by the drill."""

        def calm() -> bool:
            w = self.watch
            return w.trading() == "ACTIVE" and not w.badges_not_ok() and not w.blocked_symbols()

        if not self.watch.until(calm, within_s):
            raise Unexpected(f"start: not ACTIVE with every badge OK within {within_s:g} s; {self.seen()}")

    def hold(self, usd_by_symbol: dict[str, float]) -> None:
        """Take positions by the operator's market orders, signed USD by symbol, and wait until they are confirmed."""
        largest = self.watch.config.limits.order_notional_usd * 0.97
        wanted: dict[str, int] = {}
        for symbol, usd in usd_by_symbol.items():
            mid = self.watch.mid(symbol)
            qty = int(min(abs(usd), largest) / mid) if mid > 0 else 0
            if not qty:
                raise Unexpected(f"positions: no price of {symbol}; {self.seen()}")
            side = "BUY" if usd > 0 else "SELL"
            done, words = self.hands.order(symbol, side, qty)
            if not done:
                raise Unexpected(f"positions: {side} {qty} {symbol} {words}; {self.seen()}")
            wanted[symbol] = qty if usd > 0 else -qty
        before = self.watch.config.strategy.enabled

        def held() -> bool:
            have = self.watch.quantities()
            return all(have.get(s, 0.0) == q or (before and have.get(s)) for s, q in wanted.items())

        if not self.watch.until(held, 15.0):
            raise Unexpected(f"positions: {wanted} not confirmed within 15 s; {self.seen()}")
        self.say("holding " + ", ".join(f"{s} {q:+g}" for s, q in sorted(self.watch.quantities().items())), "positions")

    def expect_kill(self, badge: Badge, within_s: float) -> None:
        """KILL, latched for the badge's reason and, in what the drill sees first, for no other."""
        self.expect("KILL latched", lambda n: n.kind == EventKind.STOP and n.code == StopEvent.KILL, within_s)
        self.watch.until(lambda: bool(self.watch.kill_reasons()), 1.0)
        reasons = self.watch.kill_reasons()
        if not reasons >> badge & 1:
            names = ", ".join(b.name for b in Badge if reasons >> b & 1) or "nothing"
            raise Unexpected(f"KILL latched: by {names}, expected {badge.name}; {self.seen()}")

    def expect_sent(self, within_s: float) -> float:
        """Closing orders on the wire; returns milliseconds from the tick or fact that made the rule true."""
        since = self.timeline.cause_ns

        def sent() -> bool:
            return self.watch.flatten_state()[2] >= since

        if not self.watch.until(sent, within_s):
            raise Unexpected(f"flatten sent: not within {within_s:g} s; {self.seen()}")
        _, cause_ns, sent_ns, _ = self.watch.flatten_state()
        took_ms = (sent_ns - cause_ns) / 1e6
        self.say(
            f"last closing order of round one on the wire, {took_ms:.1f} ms after its cause", "flatten sent", sent_ns
        )
        return took_ms

    def expect_flat(self, within_s: float) -> None:
        """Confirmed by two snapshots of the broker, and the blotter agrees."""
        flat = self.expect(
            "confirmed flat", lambda n: n.kind == EventKind.FLATTEN and n.code == FlattenState.FLAT, within_s
        )
        if not self.watch.until(lambda: not self.watch.quantities(), READ_S):
            raise Unexpected(f"confirmed flat: but positions are {self.watch.quantities()} {READ_S:g} s later")
        if not self.watch.until(lambda: self.watch.blotter(self.journal_from).flat, 5.0):
            raise Unexpected(f"blotter: {self.watch.blotter(self.journal_from)}; {self.seen()}")
        self.say(f"journal: {self.watch.blotter(self.journal_from)}", "blotter")
        if self.watch.config.paper.control_port:
            theirs = truth.ask(self.watch.config.paper.control_port)
            if not theirs.flat:
                raise Unexpected(f"confirmed flat: but the gateway says {theirs}")
            self.say(f"the gateway agrees: {theirs}", "gateway")
        if flat.t_ns < self.timeline.at_ns("KILL latched"):
            raise Unexpected("confirmed flat: before KILL was latched")

    def refused_reset(self, why: str) -> None:
        """A reset that must be refused, for a reason that has these words in it."""
        done, words = self.hands.reset("", "drill: too early")
        if done or why not in words:
            raise Unexpected(f"reset: {words!r}, expected to be refused with {why!r}")

    def cool_and_reset(
        self, override: str = "", badges_s: float = 60.0, lock: bool = False,
        meanwhile: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        """WAIT, an early reset refused, the badges calm again, cooling over, reset, ACTIVE."""
        self.expect_badge(Badge.KILL, BadgeState.WAIT, 5.0, "cooling")
        self.refused_reset("cooling for another")
        if meanwhile is not None:
            meanwhile()
        excused = {Badge.DD} if override else set()

        def calm() -> bool:
            cells = self.watch.view.value("guardrails")
            ok = all(self.watch.badge(b) == BadgeState.OK for b in Badge if b != Badge.KILL and b not in excused)
            return ok and self.watch.now_ns() >= int(cells["cooling_until_ns"]) > 0

        wait_s = self.g.cooling_s + badges_s
        if not self.watch.until(calm, wait_s):
            raise Unexpected(f"cooling: not over with every badge OK within {wait_s:g} s; {self.seen()}")
        self.say("cooling over, every badge OK" + (" but DD" if override else ""), "badges OK")
        if lock:
            self.refused_reset("DD is locked")
            self.say("reset without a name refused: DD is locked until the next session", "day lock")
        done, words = self.hands.reset(override, "drill")
        self.watch.poll()
        if not done:
            raise Unexpected(f"reset: {words}; {self.seen()}")
        news = self.watch.find(
            lambda n: (
                n.kind == EventKind.COMMAND_RESULT
                and n.code == 0
                and n.service == topology.WATCHDOG
                and n.text == words
            ),
            self.timeline.cause_ns,
        )
        if news is not None:
            self.timeline.mark(news, "reset")
        self.expect_state("ACTIVE", "trading is ACTIVE again", lambda: self.watch.trading() == "ACTIVE", 10.0)
        self.expect_quiet(
            "stays ACTIVE",
            "no new KILL for 1 s",
            lambda: "KILL latched again" if self.watch.trading() == "KILLED" else "",
            1.0,
        )

    def release(self, within_s: float) -> None:
        """Cooling over, every badge OK, reset, ACTIVE; asked again until it is accepted."""
        words = ""

        def released() -> bool:
            nonlocal words
            if self.watch.trading() == "ACTIVE":
                return True
            done, words = self.hands.reset("", "drill")
            if not done and "nothing is latched" in words:
                return self.watch.trading() == "ACTIVE"
            self.watch.until(lambda: False, 0.5)
            return False

        if not self.watch.until(released, within_s):
            raise Unexpected(f"reset: not within {within_s:g} s: {words}; {self.seen()}")
        self.say("reset; trading is ACTIVE again", "ACTIVE")

    def tidy(self) -> None:
        """Leave the account flat for the next drill, when a course has kept its positions."""
        for symbol, qty in self.watch.quantities().items():
            self.hands.order(symbol, "SELL" if qty > 0 else "BUY", int(abs(qty)))
        if not self.watch.until(lambda: not self.watch.quantities(), 15.0):
            raise Unexpected(f"tidy: positions are left: {self.watch.quantities()}; {self.seen()}")
