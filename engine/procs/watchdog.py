"""The watchdog: evaluates every guardrail, owns KILL and PAUSE, drives flatten, renews the bridge's right to send.

One cycle, woken by ticks and at least every millisecond:

    index ticks -> commands -> other sources' stops -> books and positions (POS, DD) -> flatten
    every 25 ms besides: the other badges, blocks, link, ownership and lease, the guardrails cell

Nothing here waits: files are written by a helper thread, alerts are sent by the recorder.
"""

from __future__ import annotations

import queue
from pathlib import Path

from engine.domain import sessions
from engine.domain.codes import Badge, BadgeState, EventKind, LinkState, Owner, Severity, Source
from engine.procs.watchdog_parts import day as days
from engine.procs.watchdog_parts.cells import Senses
from engine.procs.watchdog_parts.commands import Commands
from engine.procs.watchdog_parts.flattening import Flattening
from engine.procs.watchdog_parts.guard import Guard
from engine.procs.watchdog_parts.host import Host
from engine.procs.watchdog_parts.later import LateFiles
from engine.procs.watchdog_parts.pace import Pace
from engine.procs.watchdog_parts.publish import Publisher
from engine.procs.watchdog_parts.stops import Stops, badges_in_words
from engine.procs.watchdog_parts.takeover import Takeover
from engine.risk.guardrails import kernels as k
from engine.risk.guardrails.link import LinkAction, LinkRule, link_rule
from engine.risk.guardrails.result import BadgeResult
from engine.risk.latch import UNKNOWN_NS
from engine.risk.release import cooling_until_ns
from engine.risk.stops import Stops as Effective
from engine.risk.stops import effective
from engine.runtime.agent import Agent
from engine.runtime.clock import SystemClock
from engine.runtime.context import Context
from shm.ring import Records

FAST_NS = 1_000_000
SLOW_NS = 25_000_000
"""Half a lease renewal, so that one is never late by more than a cycle."""
OBSERVE_NS = 30_000_000_000
"""How long the bridge's own flatten (its dead-man) is left alone before the watchdog begins one."""
EXPOSED_NS = 1_000_000_000
"""A position must have been there for so long before flat is taken for lost."""
SYNCING_SEND_NS = 5_000_000_000
"""A reconciliation that stays open this long must not keep a flatten from closing what the broker has confirmed."""
PERIOD_LIMIT_NS = 1_500_000
REHEARSAL_NS = 100_000_000


class Watchdog:
    """The agent. Parts that tests look at are public."""

    def __init__(self, ctx: Context, host: Host | None = None) -> None:
        """``host`` is what is the machine's: disk, processes, socket. Given only in a simulation."""
        self._ctx = ctx
        self._file_errors: queue.SimpleQueue[tuple[Path, str]] = queue.SimpleQueue()
        host = host or Host(ctx)
        self._files = LateFiles(host.files(lambda path, error: self._file_errors.put((path, str(error)))))
        self.senses = Senses(ctx, host.process())
        self.stops = Stops(ctx, self._files)
        self.flattening = Flattening(ctx, self.senses, self._files, lambda: self.takeover.epoch)
        self.guard = Guard(ctx, self.senses, self.stops, self.flattening)
        self.takeover = Takeover(
            ctx, self.senses, self.stops, self.flattening, self.guard, host.connection(), host.canceller
        )
        self._commands = Commands(ctx, self)
        self._publisher = Publisher(ctx)
        self._dayfile = days.DayFile(ctx.state_dir, self._files)
        self._counters = ctx.counters
        self._ticks = ctx.ring_reader("ticks", batch=4096)
        self._index = ctx.index_symbol
        self._window_ns = int(ctx.config.guardrails.index_window_s * 1e9)
        self._index_limit = ctx.config.guardrails.index_move_pct
        self._link = LinkRule()
        self._fresh_since_ns = 0
        self._syncing_since_ns = 0
        self._observe_until_ns = self._exposed_since_ns = self._loose_since_ns = 0
        self._pace = Pace(FAST_NS)
        self._next_slow = 0
        self._rehearses = False
        """Not on a simulated clock, where nothing gets cold."""
        self._next_rehearsal_ns = 0
        self._last_cycle_ns = 0
        self._cycles = 0
        self._known = False
        self._session = 0
        self._roll_ns = 0
        self._kill_shown = BadgeState.OK
        self._adopted = self.stops.latch
        """What held when the other sources' cells were last looked at."""

    def on_start(self, now_ns: int) -> None:
        senses = self.senses
        for block in senses.beats.values():
            block.refresh()
        self._roll(now_ns)
        self.stops.load(now_ns)
        epoch = self._recall_day(now_ns)
        self.flattening.load(now_ns, self.stops.latch.kill_id if self.stops.latch.kill else 0)
        self.takeover.load(epoch, now_ns)
        self._recall_index()
        if self.guard.day.day.lifted_wall_ns:  # an override must outlive a restart
            senses.forget_index(now_ns - self._ctx.clock.wall_ns(now_ns) + self.guard.day.day.lifted_wall_ns)
        senses.refresh_slow(now_ns, -1)
        if self.stops.latch.awaits_link:  # an outage is as long as it is, whoever has died meanwhile
            window = senses.facts.link.reset_window
            self._link = LinkRule(self.stops.latch.lost_since_ns, killed=True, in_window=window)
        if isinstance(self._ctx.clock, SystemClock):
            self._pace.arm(now_ns)
            self._rehearses = True
        self._known = True

    def _recall_day(self, now_ns: int) -> int:
        """The day's start and peak from disk; the last epoch. A limit that starts anew in the day needs a person."""
        expected = self.stops.latch.day_session
        self.guard.day, epoch, trouble, lost = days.load(self._ctx.state_dir, self.senses, self._session, expected)
        if lost:
            text = f"the day's start and peak are lost, DD is measured from now on: look, then resume ({trouble})"
            self.stops.pause(text, now_ns)
            self._alert(Severity.P1, f"PAUSED: {text}", now_ns)
        elif trouble:
            self._alert(Severity.P2, f"{trouble}; nothing of this day is lost", now_ns)
        return epoch

    def _recall_index(self) -> None:
        """Learn the last minutes of the index from the ring: a restart must not forget them."""
        ticks = self._ticks
        tail = ticks.position + ticks.waiting
        ticks.seek(max(0, tail - ticks.capacity // 2))
        while True:
            records = ticks.poll()
            if not len(records):
                return
            self._scan(ticks.buffer, len(records))

    def _scan(self, buffer: Records, count: int) -> int:
        s = self.senses
        return int(
            k.scan_index(
                buffer,
                count,
                self._index,
                self._window_ns,
                self._index_limit,
                s.index_stamps,
                s.index_buckets,
                s.index_out,
            )
        )

    def do_work(self, now_ns: int) -> int:
        events, files = self._ctx.events, self._files
        events.hold()
        files.hold()
        try:
            return self._turn(now_ns)
        finally:
            events.release()
            files.release()

    def _turn(self, now_ns: int) -> int:
        count = self._ticks.poll_count()
        if count and self._index >= 0:
            breach_ns = self._scan(self._ticks.buffer, count)
            if breach_ns:
                self.guard.index_breach(now_ns, breach_ns)
        commands = self._commands.drain(now_ns)
        if self._pace.due(now_ns) or commands:
            self._fast(now_ns)
        if now_ns >= self._next_slow:
            self._slow(now_ns)
        return count + commands

    def _fast(self, now_ns: int) -> None:
        counters = self._counters
        if self._last_cycle_ns:
            period_ns = now_ns - self._last_cycle_ns
            counters.record("period_ns", period_ns)
            if period_ns > PERIOD_LIMIT_NS:
                counters.add("overruns")
        self._last_cycle_ns = now_ns
        self._cycles += 1
        counters.add("cycles")
        self._adopt(now_ns)
        senses = self.senses
        senses.refresh_market()
        if senses.take_changed():
            senses.measure(now_ns)
            self.guard.fast(now_ns)
        self.takeover.poll(now_ns)
        self.flattening.step(now_ns, self.guard.can_send)
        counters.record("evaluate_ns", self._ctx.clock.now_ns() - now_ns)

    def _slow(self, now_ns: int) -> None:
        self._next_slow = now_ns + SLOW_NS
        senses, guard = self.senses, self.guard
        senses.refresh_slow(now_ns, self.takeover.connection.answer_age_ns(now_ns))
        guard.can_send = self._can_send(now_ns)
        if now_ns >= self._roll_ns:
            self._roll(now_ns)
        guard.slow(now_ns, self._session)
        self._watch_link(now_ns)
        self._observe(now_ns)
        self.takeover.watch(now_ns)
        self.stops.poll(now_ns)
        self._publish(now_ns)
        self._dayfile.update(guard.day.day, self.takeover.epoch, senses, now_ns)
        written = self.stops.latch.day_session == self._session or self.stops.releasing
        if not written and self._dayfile.has(self._session):
            self.stops.amend(now_ns, day_session=self._session)
        if self._rehearses and now_ns >= self._next_rehearsal_ns:
            self._next_rehearsal_ns = now_ns + REHEARSAL_NS
            self.flattening.rehearse(now_ns)

    def _adopt(self, now_ns: int) -> None:
        """Stops that another source has set become ours: persisted, journaled, acted upon."""
        latch = self.stops.latch
        # What came while a stop of its kind held is looked at again once that is released.
        same, self._adopted = latch is self._adopted and self._cycles > 1, latch
        for block, source in zip(self.senses.stops, (Source.BRIDGE, Source.OPERATOR, Source.CLI), strict=True):
            if not block.refresh() and same and not latch.kill and not latch.pause:
                continue
            cell = block.value[0]
            stop_id = int(cell["stop_id"])
            if cell["kill"] and stop_id > latch.released_kill_id and not latch.kill:
                if source == Source.BRIDGE:
                    self._observe_until_ns = now_ns + OBSERVE_NS
                self.guard.kill(
                    1 << Badge.KILL | int(cell["kill_reason"]), f"stop set by {source.name.lower()}", now_ns,
                    source=source, cause_ns=stop_id, flatten=source != Source.BRIDGE,
                )  # fmt: skip
                latch = self.stops.latch
            if cell["pause"] and stop_id > latch.released_pause_id and not latch.pause:
                self.stops.pause(f"pause set by {source.name.lower()}", now_ns, source)
                latch = self.stops.latch

    def effective(self, now_ns: int) -> Effective:
        """All sources together, as the gate sees them."""
        own = self.stops.cell
        cells = [own, *(b.value[0] for b in self.senses.stops)]
        return effective(cells, [False, *(bool(b.torn) for b in self.senses.stops)])

    def _can_send(self, now_ns: int) -> bool:
        link = self.senses.facts.link
        if not link.bridge_alive or self.takeover.ownership.owner != Owner.BRIDGE:
            return False
        if link.link != LinkState.SYNCING:
            self._syncing_since_ns = 0
            return link.link == LinkState.UP
        self._syncing_since_ns = self._syncing_since_ns or now_ns
        return now_ns - self._syncing_since_ns >= SYNCING_SEND_NS

    def _watch_link(self, now_ns: int) -> None:
        senses, latch = self.senses, self.stops.latch
        held = bool(senses.held())
        if senses.held_fresh():
            self._fresh_since_ns = self._fresh_since_ns or now_ns
        else:
            self._fresh_since_ns = 0
        fresh_ns = now_ns - self._fresh_since_ns if self._fresh_since_ns else -1
        link = senses.facts.link
        self._link, action = link_rule(
            link, self._ctx.config.guardrails, self._link, now_ns, awaits=latch.awaits_link, held=held,
            session_open=senses.session_open(), books_fresh_ns=fresh_ns,
        )  # fmt: skip
        if action in (LinkAction.KILL_P1, LinkAction.KILL_P2):
            severity = Severity.P1 if action == LinkAction.KILL_P1 else Severity.P2
            text = f"broker lost for {(now_ns - self._link.down_since_ns) / 1e9:.0f} s"
            self.guard.kill(
                1 << Badge.KILL, text, now_ns, severity=severity, awaits_link=True,
                lost_since_ns=self._link.down_since_ns,
            )  # fmt: skip
        elif action == LinkAction.ESCALATE_P1:
            self._alert(Severity.P1, "the reset window is over and the broker is still lost", now_ns)
        elif action == LinkAction.FLATTEN:
            self.stops.amend(now_ns, awaits_link=False)
            self.flattening.start(
                "the broker is back after an outage", Source.WATCHDOG, now_ns, cause_ns=now_ns,
                **self.flattening.keeps(latch),
            )  # fmt: skip
        elif action == LinkAction.PAGE:
            self.stops.amend(now_ns, awaits_link=False)
            what = senses.in_words(senses.held())
            outage_ns = self._link.outage_ns
            length = f"{outage_ns / 1e9:.0f} s" if outage_ns < UNKNOWN_NS else "an outage of unknown length"
            text = f"broker back after {length}: positions are NOT flattened ({what}): flatten, or reset"
            self._alert(Severity.P1, text, now_ns)

    def _observe(self, now_ns: int) -> None:
        """KILL holds: see to it that flat gets confirmed, by whoever flattens."""
        latch, flattening, senses = self.stops.latch, self.flattening, self.senses
        if not latch.kill:
            flattening.flat_lost = False
        narrow = not latch.kill and flattening.symbol_flat_lost
        if (
            not (latch.kill or narrow)
            or flattening.active
            or flattening.flat_since_ns
            or latch.awaits_link
            or not self.guard.can_send
        ):
            self._exposed_since_ns = self._loose_since_ns = 0
            return
        scope = latch.symbol_kill if narrow else -1
        held = flattening.exposed() & scope
        if (narrow or flattening.flat_lost) and held and senses.facts.link.reconciled:
            self._close_again(held, scope, now_ns)
            return
        self._exposed_since_ns = 0
        if narrow:
            return
        self._cancel_loose(now_ns)
        if flattening.active:
            return
        quiet = not senses.held() and not senses.working()
        if quiet or (self._observe_until_ns and now_ns >= self._observe_until_ns):
            self._observe_until_ns = 0
            text = "confirm that the account is flat"
            flattening.start(text, Source.WATCHDOG, now_ns, **flattening.keeps(latch))

    def _close_again(self, held: int, scope: int, now_ns: int) -> None:
        """Flat was confirmed under a stop, and it is held again: a late fill, a bust, an order of another hand.

        Only what stays for a while: positions are rebuilt piece by piece after a restart of the bridge.
        """
        self._exposed_since_ns = self._exposed_since_ns or now_ns
        if now_ns - self._exposed_since_ns < EXPOSED_NS:
            return
        flattening, what = self.flattening, self.senses.in_words(held)
        stop = "KILL" if scope < 0 else "the stop of its symbol"
        self._exposed_since_ns = 0
        self._alert(Severity.P1, f"held again after flat was confirmed, under {stop}: {what}; closing", now_ns)
        flattening.start(
            f"held again under {stop}: {what}", Source.WATCHDOG, now_ns, cause_ns=now_ns, scope=scope,
            excused=flattening.state.excused, excused_foreign=flattening.state.excused_foreign,
        )  # fmt: skip

    def _cancel_loose(self, now_ns: int) -> None:
        """Orders work under KILL and there is nothing that they could reduce: whoever made them, they are cancelled.

        Only what stays for a while: a close that has filled is not over at once. Those of the bridge's own flatten are
        its own. In a managed account an order of another hand is none of ours, and not counted.
        """
        flattening, senses = self.flattening, self.senses
        kept = flattening.kept(self.stops.latch)
        loose = senses.working_outside(kept)
        if not loose or senses.held() & ~kept or self._observe_until_ns or not senses.facts.link.reconciled:
            self._loose_since_ns = 0
            return
        self._loose_since_ns = self._loose_since_ns or now_ns
        if now_ns - self._loose_since_ns < EXPOSED_NS:
            return
        self._loose_since_ns = 0
        what = f"{loose} order{'s work' if loose > 1 else ' works'} under KILL with nothing held that could be reduced"
        self._alert(Severity.P1, f"{what}: cancelling; see who or what sends them", now_ns)
        flattening.start(what, Source.WATCHDOG, now_ns, cause_ns=now_ns, **flattening.keeps(self.stops.latch))

    def excuse(self, by: str, now_ns: int) -> bool:
        """An operator has named everything that is held: a running flatten confirms the rest. True if one runs."""
        held, foreign = self.senses.held(), self.senses.foreign()
        if not (self.flattening.active or self.takeover.closing) or not (held or foreign):
            return False
        if not self.flattening.active:  # the emergency hand acts: what is kept has to be remembered beyond it
            text = "the emergency connection gets flat"
            self.flattening.start(text, Source.WATCHDOG, now_ns, **self.flattening.keeps(self.stops.latch))
        self.flattening.excuse(held, foreign, by, now_ns)
        self.takeover.excuse(held, foreign)
        return True

    @property
    def day_locked(self) -> bool:
        day = self.guard.day.day
        locked = max(day.tripped, self.stops.latch.locked_session)
        return self.stops.latch.kill and bool(locked) and locked == self._session

    def _roll(self, now_ns: int) -> None:
        wall = self._ctx.clock.wall_ns(now_ns)
        self._session = sessions.session_date(wall, self.senses.always_open)
        self._roll_ns = now_ns + max(1, sessions.next_roll_ns(wall) - wall)

    def _kill_badge(self, now_ns: int, holds: Effective) -> tuple[BadgeResult, int]:
        latch, flattening = self.stops.latch, self.flattening
        if not holds.kill:
            return BadgeResult(BadgeState.OK, 0.0, 1.0, "not latched"), 0
        facts = self._commands.reset_facts(now_ns)
        until = cooling_until_ns(facts, self._ctx.config.guardrails.cooling_s, latch.kill_id, excused=False)
        cause = latch.kill_text or badges_in_words(holds.kill_reason)
        if until and now_ns < until:
            left = (until - now_ns) / 1e9
            return BadgeResult(BadgeState.WAIT, left, 0.0, f"cooling {left:.0f} s; {cause}"), until
        if flattening.active:
            text = f"getting flat; {cause}"
        elif until:
            text = f"latched until `l2dash reset` (restarts release nothing): {cause}"
        else:
            text = f"not confirmed flat; {cause}"
        return BadgeResult(BadgeState.TRIPPED, 1.0, 1.0, text), until

    def _publish(self, now_ns: int) -> None:
        guard, holds = self.guard, self.effective(now_ns)
        kill, until = self._kill_badge(now_ns, holds)
        if kill.state != self._kill_shown:
            self._kill_shown = kill.state
            guard.note(Badge.KILL, kill, now_ns)
        self._publisher.publish(
            now_ns, cycles=self._cycles, results={**guard.evaluator.results, Badge.KILL: kill}, since=guard.since_ns,
            day=guard.day, totals=self.senses.totals, move_pct=self.senses.facts.index.move_pct,
            flat_since_ns=self.flattening.flat_since_ns, cooling_until_ns=until,
            reasons=guard.blocks.reasons | guard.blocks.symbol_reasons | holds.block_reasons, latch=self.stops.latch,
            effective=holds, day_locked=self.day_locked,
        )  # fmt: skip

    def _alert(self, severity: Severity, text: str, now_ns: int) -> None:
        self._ctx.events.emit(EventKind.ALERT, severity=severity, source=Source.WATCHDOG, text=text, now_ns=now_ns)

    def housekeeping(self, now_ns: int) -> None:
        while not self._file_errors.empty():
            path, text = self._file_errors.get()
            self._alert(Severity.P1, f"{path} could not be written: {text}; a stop is only in memory", now_ns)

    def on_close(self, now_ns: int) -> None:
        self._publish(now_ns)
        self._files.close()
        self.takeover.close()
        self.senses.close()
        self._pace.close()

    def ready(self) -> bool:
        """Cells attached and the latch known. The bridge is not needed: it waits for this."""
        return self._known

    def lag(self) -> int:
        return self._ticks.waiting + self._commands.waiting

    def wait_fds(self) -> tuple[int, ...]:
        return (*self.takeover.fds(), self._pace.fileno()) if self._pace.fileno() >= 0 else self.takeover.fds()


def create(ctx: Context) -> Agent:
    return Watchdog(ctx)
