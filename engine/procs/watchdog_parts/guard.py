"""Runs the rules and acts on what they say: transitions to the journal, breaches to the stops and the flatten."""

from __future__ import annotations

from dataclasses import replace

from engine import topology
from engine.domain.codes import Badge, BadgeState, BlockReason, EventKind, Severity, Source
from engine.domain.instruments import ALL_SYMBOLS
from engine.procs.watchdog_parts.cells import Senses
from engine.procs.watchdog_parts.flattening import Flattening
from engine.procs.watchdog_parts.stops import Stops
from engine.risk.guardrails import kernels as k
from engine.risk.guardrails import spread as spread_rule
from engine.risk.guardrails.blocks import Blocks, Duties, blocks
from engine.risk.guardrails.dd import DdState, anchored, lifted
from engine.risk.guardrails.evaluate import FAST, SLOW, Evaluator
from engine.risk.guardrails.result import BadgeResult, Breach
from engine.risk.release import PEOPLE
from engine.runtime.context import Context

SLOW_EVALUATION_NS = 20_000_000
"""CPU time of one evaluation above which it counts as slow. CPU time, because a busy host is not a slow rule."""
SLOW_KILL_NS = 1_000_000_000
TICK_IS_CAUSE_NS = 50_000_000
"""A price rule that has come true names the tick that did it, if there was one this recently."""


class Guard:
    """The evaluator and its consequences."""

    def __init__(self, ctx: Context, senses: Senses, stops: Stops, flattening: Flattening) -> None:
        self._ctx, self._senses, self._stops, self._flattening = ctx, senses, stops, flattening
        self.evaluator = Evaluator(ctx.config.guardrails)
        self._shown: dict[Badge, BadgeState] = {}
        self.since_ns: dict[Badge, int] = dict.fromkeys(Badge, 0)
        self._slow_since_ns = 0
        self._slow_until_ns = 0
        self._spread_alerted = 0
        self._halt_alerted = 0
        self.can_send = False
        self.started = False
        self.blocks = Blocks()
        self._last_trip: dict[Badge, int] = {}

    @property
    def day(self) -> DdState:
        state: DdState = self.evaluator.states[Badge.DD]
        return state

    @day.setter
    def day(self, state: DdState) -> None:
        self.evaluator.states[Badge.DD] = state

    def kill(
        self, reasons: int, text: str, now_ns: int, *, source: int = Source.WATCHDOG, cause_ns: int = 0,
        severity: Severity = Severity.P1, awaits_link: bool = False, lost_since_ns: int = 0,
        flatten: bool = True, flatten_id: int = 0,
    ) -> bool:  # fmt: skip
        """Latch, then start getting flat in the same cycle. True if it was not latched before."""
        new = self._stops.kill(
            reasons, text, now_ns, source=source, severity=severity, awaits_link=awaits_link,
            lost_since_ns=lost_since_ns,
        )  # fmt: skip
        if self._stops.latch.awaits_link and source == Source.WATCHDOG:
            return new  # the broker is lost: what to do with positions is decided when it is back
        if flatten and (new or not self._flattening.active):
            # A further cause under the same KILL sells nothing that a person keeps; a person's own word does.
            keeps = {} if source in PEOPLE else self._flattening.keeps(self._stops.latch)
            self._flattening.start(text, source, now_ns, cause_ns=cause_ns, flatten_id=flatten_id, **keeps)
            self._flattening.step(now_ns, self.can_send)
        return new

    def index_breach(self, now_ns: int, tick_ns: int) -> None:
        """A tick moved the index beyond its limit: evaluate DD at once."""
        facts = self._senses.facts
        if facts.index.regular_hours or self._senses.index(now_ns).regular_hours:
            self._senses.facts = replace(facts, index=self._senses.index(now_ns, tick_ns))
            self._run(Badge.DD, now_ns)
            self._senses.facts = replace(self._senses.facts, index=self._senses.index(now_ns))

    def lift_day(self, now_ns: int) -> None:
        """A named override has been released: loss and index are measured anew from here."""
        self.day = lifted(self.day, self._ctx.clock.wall_ns(now_ns))
        self._senses.forget_index(now_ns)
        self._senses.facts = replace(self._senses.facts, index=self._senses.index(now_ns))

    def fast(self, now_ns: int) -> None:
        """The rules that a single price or fill can break, when it has come near to that.

        Far from the limits the evaluation every 25 ms shows the value; nothing can be decided that it would miss.
        """
        share = self._ctx.config.guardrails.warn_share * 0.9
        facts, totals = self._senses.facts, self._senses.totals.tolist()
        near = totals[k.MAX_WORST_USD] >= share * facts.symbol_limit_usd
        near = near or totals[k.GROSS_WORST_USD] >= share * facts.gross_limit_usd
        if near or self._shown.get(Badge.POS) != BadgeState.OK:
            self._run(Badge.POS, now_ns)
        day, g = self.day.day, self._ctx.config.guardrails
        equity = day.base_usd + totals[k.PNL_TOTAL_USD] - facts.account.commissions_usd
        limit = share * min(g.drawdown_usd, g.drawdown_pct / 100.0 * day.from_usd)
        calm = equity > day.from_usd - limit and equity > day.peak_usd - limit  # NaN: not calm
        if not calm or self._shown.get(Badge.DD) != BadgeState.OK:
            self._run(Badge.DD, now_ns)

    def slow(self, now_ns: int, session: int) -> None:
        """All rules, then the blocks."""
        clock = self._ctx.clock
        began = clock.cpu_ns()
        self.day = anchored(self.day, self._senses.facts, session)
        for badge in (*FAST, *SLOW):
            self._run(badge, now_ns)
        self._watch_slowness(clock.cpu_ns() - began, now_ns)
        self._spread_alert(now_ns)
        self._halt_alert(now_ns)
        self._block(now_ns)

    def _run(self, badge: Badge, now_ns: int) -> None:
        result = self.evaluator.run(badge, self._senses.facts, now_ns)
        if result.state != self._shown.get(badge):
            self.note(badge, result, now_ns)
        if result.breach > Breach.BLOCK:
            self._react(badge, result, now_ns)

    def note(self, badge: Badge, result: BadgeResult, now_ns: int) -> None:
        """Journal a transition with the numbers that caused it."""
        self._shown[badge] = result.state
        self.since_ns[badge] = now_ns
        symbol = result.symbols.bit_length() - 1 if result.symbols.bit_count() == 1 else ALL_SYMBOLS
        self._ctx.events.emit(
            EventKind.GUARDRAIL, badge, ref_id=int(result.state), value=result.value, limit=result.limit,
            severity=Severity.P2 if result.breach > Breach.BLOCK else Severity.INFO, source=Source.WATCHDOG,
            text=f"{badge.name} {result.state.name}: {result.reason}", now_ns=now_ns, symbol=symbol,
        )  # fmt: skip

    def _react(self, badge: Badge, result: BadgeResult, now_ns: int) -> None:
        text = f"{badge.name}: {result.reason}"
        if result.breach == Breach.PAUSE:
            self._stops.pause(text, now_ns)
            return
        if result.breach == Breach.SYMBOL_KILL:
            if self._stops.kill_symbols(result.symbols, text, now_ns):
                self._flattening.start(text, Source.WATCHDOG, now_ns, cause_ns=now_ns, scope=result.symbols)
            return
        if result.locks_day and self.day.day.session:
            day = self.day.day
            if day.tripped != day.session:
                self.day = replace(self.day, day=replace(day, tripped=day.session))
                self._stops.amend(now_ns, locked_session=day.session)
        latch = self._stops.latch
        if not latch.kill or not latch.kill_reasons >> badge & 1:
            self.kill(1 << badge, text, now_ns, cause_ns=result.cause_ns or self._cause_ns(badge, result, now_ns))

    def _cause_ns(self, badge: Badge, result: BadgeResult, now_ns: int) -> int:
        """POS and DD come true by a tick of what is held; everything else by the passing of time."""
        if badge not in FAST:
            return now_ns
        held = self._senses.held()
        tick_ns = self._senses.newest_tick_ns(held & result.symbols or held)
        return tick_ns if 0 <= now_ns - tick_ns <= TICK_IS_CAUSE_NS else now_ns

    def _watch_slowness(self, cpu_ns: int, now_ns: int) -> None:
        if cpu_ns <= SLOW_EVALUATION_NS:
            if now_ns >= self._slow_until_ns:
                self._slow_since_ns = 0
            return
        self._slow_since_ns = self._slow_since_ns or now_ns
        self._slow_until_ns = now_ns + 500_000_000
        if cpu_ns >= SLOW_KILL_NS or now_ns - self._slow_since_ns >= SLOW_KILL_NS:
            self.kill(1 << Badge.KILL, f"evaluating the guardrails takes {cpu_ns / 1e6:.0f} ms of CPU", now_ns)

    def _spread_alert(self, now_ns: int) -> None:
        state = self.evaluator.states[Badge.SPREAD]
        if not isinstance(state, spread_rule.SpreadState):
            return
        g = self._ctx.config.guardrails
        held = spread_rule.held_too_long(state, self._senses.facts, g, now_ns)
        new = held & ~self._spread_alerted
        self._spread_alerted = held
        if new:
            text = f"SPREAD wide for {g.spread_warn_s:g} s with a position open: {self._senses.in_words(new)}"
            self._ctx.events.emit(EventKind.ALERT, Badge.SPREAD, severity=Severity.P2, text=text, now_ns=now_ns)

    def _halt_alert(self, now_ns: int) -> None:
        """A halted symbol is blocked and marked at its last mid; somebody must know at once."""
        halted = self._senses.halted()
        new, self._halt_alerted = halted & ~self._halt_alerted, halted
        if new:
            names = [name for i, name in enumerate(self._senses.names) if new >> i & 1]
            held = self._senses.in_words(new & self._senses.held())
            text = f"{', '.join(names)} halted: entries blocked, {f'holding {held}' if held else 'nothing held'}"
            self._ctx.events.emit(EventKind.ALERT, severity=Severity.P1, text=text, now_ns=now_ns)

    def _block(self, now_ns: int) -> None:
        senses = self._senses
        facts, config = senses.facts, self._ctx.config
        link, models = facts.link, facts.models
        if not self.started:
            seen = all(int(f) & k.SEEN for f in facts.table[:, k.FLAGS])
            self.started = link.up and link.reconciled and facts.account.ready and models.loaded and seen
        behind, disk = senses.recorder(now_ns)
        invalid = 0
        for i, (valid, warming) in enumerate(zip(models.valid, models.warming, strict=True)):
            if models.loaded and not warming and not valid:
                invalid |= 1 << i
        duties = Duties(
            recorder_behind=behind, disk_low=disk, started=self.started, invalid_models=invalid,
            algo_down=not self._algo_alive(now_ns), ml_down=not models.service_alive,
            evaluator_slow=now_ns < self._slow_until_ns, killed_symbols=self._stops.latch.symbol_kill,
            scope_unanswered=not config.account_scope,
        )  # fmt: skip
        found = blocks(facts, duties)
        reasons, symbols = found.reasons, found.symbols
        for result in self.evaluator.results.values():
            symbols |= result.block_symbols
            if not result.block_symbols:
                reasons |= result.block_reasons
        why = found.symbol_reasons
        if self.evaluator.results[Badge.SPREAD].block_symbols:
            why |= 1 << BlockReason.SPREAD
        self.blocks = Blocks(reasons, symbols, why)
        self._stops.block(reasons, symbols, now_ns)

    def _algo_alive(self, now_ns: int) -> bool:
        beat = self._senses.beat(topology.ALGO)
        silent = now_ns - int(beat["t_beat_ns"]) > self._ctx.config.guardrails.algo_silent_s * 1e9
        return self._senses.alive(topology.ALGO, now_ns) and not silent
