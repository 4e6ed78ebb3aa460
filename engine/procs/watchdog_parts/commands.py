"""Operators' commands: each gets exactly one result, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engine import topology
from engine.domain.codes import Badge, CommandKind, EventKind, Source
from engine.risk.flatten import FOREIGN
from engine.risk.release import EXCUSE_REMAINING, OVERRIDE_DAY, PEOPLE, ResetFacts, ResetRequest, refusals, unnamed
from engine.runtime.context import Context

if TYPE_CHECKING:
    from engine.procs.watchdog import Watchdog

OURS = (CommandKind.FLATTEN, CommandKind.PAUSE, CommandKind.RESUME, CommandKind.RESET, CommandKind.KILL)
STALE_NS = 10_000_000_000
"""A command that loosens something and has waited this long is refused: its writer has looked at another situation."""


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace").strip("\0 ")


class Commands:
    """Reads the operators' and the command line's rings."""

    def __init__(self, ctx: Context, agent: Watchdog) -> None:
        self._ctx, self._agent = ctx, agent
        self._readers = [ctx.ring_reader(name) for name in topology.COMMAND_RINGS if name != "commands.watchdog"]

    @property
    def waiting(self) -> int:
        return sum(r.waiting for r in self._readers)

    def drain(self, now_ns: int) -> int:
        done = 0
        for reader in self._readers:
            records = reader.poll()
            for record in records:
                self._handle(record, now_ns)
            done += len(records)
        return done

    def _handle(self, c: np.void, now_ns: int) -> None:
        kind, command_id, source = int(c["kind"]), int(c["command_id"]), int(c["source"])
        if kind not in OURS:
            return
        who, reason = _text(bytes(c["who"])), _text(bytes(c["reason"]))
        by = f"{CommandKind(kind).name.lower()} by {who or 'unnamed'}{': ' + reason if reason else ''}"
        age_ns = now_ns - int(c["t_ns"])
        agent, stops = self._agent, self._agent.stops
        if kind in (CommandKind.RESUME, CommandKind.RESET) and age_ns > STALE_NS:
            self._refuse(command_id, kind, source, f"the command is {age_ns / 1e9:.0f} s old: give it again", now_ns)
        elif kind == CommandKind.PAUSE:
            new = stops.pause(by, now_ns, source)
            self._done(command_id, kind, source, "paused" if new else "was paused already", now_ns)
        elif kind == CommandKind.KILL:
            new = agent.guard.kill(
                1 << Badge.KILL, by, now_ns, source=source, cause_ns=int(c["t_ns"]), flatten_id=command_id
            )
            self._done(command_id, kind, source, "killed, getting flat" if new else "was killed already", now_ns)
        elif kind == CommandKind.FLATTEN:
            stops.pause(by, now_ns, source)
            running = agent.flattening.active
            agent.flattening.start(by, source, now_ns, cause_ns=int(c["t_ns"]), flatten_id=command_id)
            agent.flattening.step(now_ns, agent.guard.can_send)
            text = "a flatten is running already" if running else "flatten started"
            self._done(command_id, kind, source, text, now_ns, agent.flattening.state.flatten_id)
        elif kind == CommandKind.RESUME:
            self._resume(command_id, source, by, now_ns)
        else:
            self._reset(command_id, source, ResetRequest(int(c["flags"]), who, reason, source), by, now_ns)

    def _resume(self, command_id: int, source: int, by: str, now_ns: int) -> None:
        agent, stops = self._agent, self._agent.stops
        if source not in PEOPLE:
            text = "only an operator releases a stop, by cockpit, API or command line"
            self._refuse(command_id, CommandKind.RESUME, source, text, now_ns)
            return
        if not agent.effective(now_ns).pause:
            self._refuse(command_id, CommandKind.RESUME, source, "nothing is paused", now_ns)
            return
        if stops.releasing:
            self._refuse(command_id, CommandKind.RESUME, source, "another release is being written", now_ns)
            return
        if agent.flattening.active and agent.flattening.whole and not agent.effective(now_ns).kill:
            left = agent.senses.open_in_words(agent.senses.held(), agent.senses.foreign()) or "to be confirmed"
            text = "a flatten is running, it would close what is opened: wait for flat, or keep what remains by name "
            text += f"with l2dash reset --excuse-remaining; open: {left}"
            self._refuse(command_id, CommandKind.RESUME, source, text, now_ns)
            return
        text = "resumed; KILL still holds: reset it" if stops.latch.kill else "resumed"

        def done() -> None:
            self._done(command_id, CommandKind.RESUME, source, text, self._ctx.clock.now_ns())

        def failed(why: str) -> None:
            self._refuse(command_id, CommandKind.RESUME, source, f"{why}: PAUSE holds", self._ctx.clock.now_ns())

        stops.release_pause(by, now_ns, source, done, failed)

    def _reset(self, command_id: int, source: int, request: ResetRequest, by: str, now_ns: int) -> None:
        agent, stops = self._agent, self._agent.stops
        found = refusals(
            self.reset_facts(now_ns), request, self._ctx.config.guardrails.cooling_s, self._killed_ns(now_ns), now_ns
        )
        if stops.releasing:
            found.append("another release is being written")
        flags = request.flags
        if found:
            if flags & EXCUSE_REMAINING and self._excuse(request, by, now_ns):
                then = "reset again after cooling" if self.reset_facts(now_ns).killed else "resume after that"
                found.insert(0, f"what was named is excused: the rest is being confirmed flat, {then}")
            self._refuse(command_id, CommandKind.RESET, source, "; ".join(found), now_ns)
            return
        extra = [
            word
            for bit, word in ((OVERRIDE_DAY, "day lock overridden"), (EXCUSE_REMAINING, "remaining excused"))
            if flags & bit
        ]
        text = f"{by}{' (' + ', '.join(extra) + ')' if extra else ''}"
        paused = self._ctx.config.instance.mode == "live"
        unlock = bool(flags & OVERRIDE_DAY) and agent.day_locked

        def done() -> None:
            if unlock:
                agent.guard.lift_day(self._ctx.clock.now_ns())
            state = "PAUSED: resume when ready" if paused or stops.latch.pause else "ACTIVE"
            self._done(command_id, CommandKind.RESET, source, f"released; now {state}", self._ctx.clock.now_ns())

        def failed(why: str) -> None:
            self._refuse(command_id, CommandKind.RESET, source, f"{why}: KILL holds", self._ctx.clock.now_ns())

        stops.release_kill(text, now_ns, source, done, failed, pause_after=paused, unlock=unlock)

    def _excuse(self, request: ResetRequest, by: str, now_ns: int) -> bool:
        """While a flatten runs, an operator can keep what can't be closed; the release itself still has to cool."""
        facts = self.reset_facts(now_ns)
        named = request.source in PEOPLE and request.who.strip() and request.reason.strip()
        if not facts.flattening or not named or unnamed(facts.open_names, request.reason):
            return False
        return self._agent.excuse(by, now_ns)

    def _whole(self, now_ns: int) -> bool:
        """Not only single symbols are stopped: the whole account has to be flat."""
        latch = self._agent.stops.latch
        return latch.kill or not latch.symbol_kill or self._agent.effective(now_ns).kill

    def _killed_ns(self, now_ns: int) -> int:
        """When what a reset releases was latched: a stop of single symbols, when their flatten began."""
        agent = self._agent
        return agent.stops.latch.kill_id if self._whole(now_ns) else agent.flattening.state.started_ns

    def reset_facts(self, now_ns: int) -> ResetFacts:
        agent = self._agent
        latch, senses = agent.stops.latch, agent.senses
        held, foreign, flat_since_ns = senses.held(), senses.foreign(), agent.flattening.flat_since_ns
        if not self._whole(now_ns):
            held, foreign = held & latch.symbol_kill, 0
            if not flat_since_ns and not agent.flattening.exposed() & latch.symbol_kill:
                flat_since_ns = agent.flattening.symbol_flat_since_ns
        return ResetFacts(
            killed=latch.kill or bool(latch.symbol_kill) or agent.effective(now_ns).kill,
            flat_since_ns=flat_since_ns,
            flattening=agent.flattening.active or agent.takeover.closing,
            remaining=senses.open_in_words(held, foreign),
            day_locked=agent.day_locked,
            states={badge: (r.state, r.reason) for badge, r in agent.guard.evaluator.results.items()},
            link_up=senses.facts.link.up,
            open_names=(*(n for i, n in enumerate(senses.names) if held >> i & 1), *([FOREIGN] if foreign else [])),
        )

    def _done(self, command_id: int, kind: int, source: int, text: str, now_ns: int, ref2: int = 0) -> None:
        self._result(command_id, kind, source, 0, text, now_ns, ref2)

    def _refuse(self, command_id: int, kind: int, source: int, text: str, now_ns: int) -> None:
        self._result(command_id, kind, source, 1, text, now_ns, 0)

    def _result(self, command_id: int, kind: int, source: int, code: int, text: str, now_ns: int, ref2: int) -> None:
        self._ctx.events.emit(
            EventKind.COMMAND_RESULT,
            code,
            ref_id=command_id,
            ref2=ref2 or kind,
            source=source,
            text=text,
            now_ns=now_ns,
        )
        if source in (Source.OPERATOR, Source.CLI):
            self._ctx.wake(topology.COCKPIT)
