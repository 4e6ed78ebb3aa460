"""The watchdog's stop cell, the latch behind it, and the words that go with every change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from engine.domain.codes import Badge, BlockReason, EventKind, Severity, Source
from engine.procs.watchdog_parts.later import LateFiles
from engine.risk import latch as latches
from engine.risk.latch import Latch, StopEvent
from engine.runtime.context import Context


def reasons_in_words(mask: int) -> str:
    return ", ".join(r.name.lower().replace("_", " ") for r in BlockReason if mask >> r & 1)


class Stops:
    """Latches at once in shared memory, then on disk; releases on disk first, then in shared memory."""

    def __init__(self, ctx: Context, files: LateFiles) -> None:
        self._ctx = ctx
        self._counters = ctx.counters
        self._files = files
        self._cell = ctx.cell_writer("stop.watchdog")
        self._path = ctx.state_dir / latches.FILE
        self.latch = Latch()
        self._pending: tuple[Latch, Callable[[], None], Callable[[str], None]] | None = None
        self._blocks = (0, 0)

    @property
    def cell(self) -> np.void:
        """The watchdog's own stop cell as published."""
        value: np.void = self._cell.value[0]
        return value

    def load(self, now_ns: int) -> None:
        """What holds at start: the file, and whatever a predecessor had latched but not yet written."""
        ctx, mode = self._ctx, self._ctx.config.instance.mode
        latch = latches.load(ctx.state_dir, mode, now_ns, ctx.clock.wall_ns(now_ns))
        cell = self._cell.value[0]
        latch = replace(
            latch,
            released_kill_id=max(latch.released_kill_id, int(cell["released_kill_id"])),
            released_pause_id=max(latch.released_pause_id, int(cell["released_pause_id"])),
        )
        if cell["kill"] and not latch.kill:
            kill_id = int(cell["stop_id"])  # the incident's number too, unless a PAUSE came after it
            latch = replace(
                latch, kill=True, kill_id=kill_id, incident_id=kill_id, kill_reasons=int(cell["kill_reason"]),
                kill_text="latched before a restart", killed_wall_ns=ctx.clock.wall_ns(now_ns),
            )  # fmt: skip
        if cell["pause"] and not latch.pause:
            latch = replace(latch, pause=True, pause_text="paused before a restart")
        if mode == "live" and not latch.pause:
            latch = replace(latch, pause=True, pause_id=now_ns, pause_text="live starts paused")
        self.latch = latch
        self._publish(now_ns)
        self._write()
        if latch.kill:
            self._event(StopEvent.KILL, latch.kill_text, Severity.P2, latch.kill_source, now_ns)

    def kill(
        self, reasons: int, text: str, now_ns: int, *, source: int = Source.WATCHDOG, severity: Severity = Severity.P1,
        awaits_link: bool = False, lost_since_ns: int = 0,
    ) -> bool:  # fmt: skip
        """Latch KILL. True if it was not latched before; a further cause is added to the reasons."""
        self._withdraw()
        new = not self.latch.kill
        if not new and not reasons & ~self.latch.kill_reasons:
            return False
        if new:
            wall = self._ctx.clock.wall_ns(now_ns)
            self.latch = replace(
                self.latch, kill=True, kill_id=now_ns, kill_reasons=reasons, kill_source=int(source),
                kill_text=text[:160], killed_wall_ns=wall, awaits_link=awaits_link, incident_id=now_ns,
                lost_since_ns=lost_since_ns, lost_wall_ns=wall - (now_ns - lost_since_ns) if lost_since_ns else 0,
            )  # fmt: skip
        else:
            self.latch = replace(self.latch, kill_reasons=self.latch.kill_reasons | reasons)
        self._publish(now_ns)
        self._write()
        self._event(StopEvent.KILL, text, severity, source, now_ns)
        self._ctx.events.emit(
            EventKind.ALERT, StopEvent.KILL, severity=severity, source=source, ref_id=self.latch.incident_id,
            text=f"KILL: {text}", now_ns=now_ns,
        )  # fmt: skip
        if new:
            self._counters.add("kills")
        return new

    def _withdraw(self) -> None:
        """A stop beats a release that is being written: the file must say again what still holds."""
        if self._pending is not None:
            (_, _, failed), self._pending = self._pending, None
            self._write()
            failed("a new stop came meanwhile")

    def pause(self, text: str, now_ns: int, source: int = Source.WATCHDOG) -> bool:
        self._withdraw()
        if self.latch.pause:
            return False
        self.latch = replace(self.latch, pause=True, pause_id=now_ns, pause_text=text[:160])
        self._publish(now_ns)
        self._write()
        self._event(StopEvent.PAUSE, text, Severity.ROUTINE, source, now_ns)
        return True

    def kill_symbols(self, mask: int, text: str, now_ns: int) -> bool:
        """Latch a block of single symbols, released together with KILL by RESET."""
        if self._pending is not None and mask & ~self._pending[0].symbol_kill:
            self._withdraw()
        if not mask & ~self.latch.symbol_kill:
            return False
        self.latch = replace(self.latch, symbol_kill=self.latch.symbol_kill | mask)
        self._publish(now_ns)
        self._write()
        self._event(StopEvent.SYMBOL_KILL, text, Severity.P1, Source.WATCHDOG, now_ns)
        self._ctx.events.emit(EventKind.ALERT, severity=Severity.P1, text=f"symbol stopped: {text}", now_ns=now_ns)
        return True

    def amend(self, now_ns: int, **changes: object) -> None:
        """Change what the latch remembers without touching what it holds.

        Also in a release that is being written: the file must not say again what the cell is about to release."""
        self.latch = replace(self.latch, **changes)  # type: ignore[arg-type]
        if self._pending is None:
            self._write()
            return
        released, finish, failed = self._pending
        released = replace(released, **changes)  # type: ignore[arg-type]
        self._pending = (released, finish, failed)
        self._files.write(self._path, partial(latches.encode, released))

    def release_kill(
        self, text: str, now_ns: int, source: int, done: Callable[[], None], failed: Callable[[str], None],
        pause_after: bool, unlock: bool = False,
    ) -> None:  # fmt: skip
        """File first; ``done`` is called once it is on disk and the cell published, ``failed`` with
        the reason if it can't be written, or if a new stop came meanwhile: that one wins.

        ``unlock``: a named override lifts the day's lock as well.
        """
        released = replace(
            self.latch, kill=False, kill_reasons=0, kill_text="", kill_source=0, awaits_link=False, symbol_kill=0,
            released_kill_id=now_ns, locked_session=0 if unlock else self.latch.locked_session,
            pause=self.latch.pause or pause_after,
            pause_text=self.latch.pause_text if self.latch.pause or not pause_after else "paused after a reset",
        )  # fmt: skip
        self._begin(released, StopEvent.KILL_RELEASED, text, source, done, failed)

    def release_pause(
        self, text: str, now_ns: int, source: int, done: Callable[[], None], failed: Callable[[str], None]
    ) -> None:
        released = replace(self.latch, pause=False, pause_text="", released_pause_id=now_ns)
        self._begin(released, StopEvent.PAUSE_RELEASED, text, source, done, failed)

    def _begin(
        self, released: Latch, event: StopEvent, text: str, source: int, done: Callable[[], None],
        failed: Callable[[str], None],
    ) -> None:  # fmt: skip
        def finish() -> None:
            self._event(event, text, Severity.ROUTINE, source, self._ctx.clock.now_ns())
            done()

        self._files.write(self._path, partial(latches.encode, released))
        self._pending = (released, finish, failed)

    @property
    def releasing(self) -> bool:
        return self._pending is not None

    def poll(self, now_ns: int) -> None:
        """Complete a release whose file has reached the disk."""
        if self._pending is None or not self._files.idle:
            return
        (released, finish, failed), self._pending = self._pending, None
        if self._files.failed(self._path):
            self._write()  # never the released content, which the writer would try again
            failed("the latch file can't be written")
            return
        self.latch = released
        self._publish(now_ns)
        finish()

    def block(self, reasons: int, symbols: int, now_ns: int) -> None:
        """Publish the derived blocks: ``reasons`` hold all symbols."""
        symbols |= self.latch.symbol_kill
        if (reasons, symbols) == self._blocks:
            return
        before, self._blocks = self._blocks, (reasons, symbols)
        self._publish(now_ns)
        if bool(before[0]) != bool(reasons):
            event = StopEvent.BLOCK if reasons else StopEvent.BLOCK_CLEARED
            words = f"entries {'blocked' if reasons else 'pass again, over'}: {reasons_in_words(reasons or before[0])}"
            self._event(event, words, Severity.INFO, Source.WATCHDOG, now_ns)

    def _publish(self, now_ns: int) -> None:
        latch, (reasons, symbols) = self.latch, self._blocks
        c = self._cell.value[0]
        if not c["since_ns"] or bool(c["kill"]) != latch.kill or bool(c["pause"]) != latch.pause:
            c["since_ns"] = now_ns
        c["kill"], c["pause"], c["block"] = latch.kill, latch.pause, bool(reasons)
        c["kill_reason"], c["stop_id"] = latch.kill_reasons, max(latch.kill_id, latch.pause_id)
        c["block_reasons"], c["symbol_block"] = reasons, symbols | latch.symbol_kill
        c["released_kill_id"], c["released_pause_id"] = latch.released_kill_id, latch.released_pause_id
        self._cell.publish()

    def _write(self) -> None:
        self._files.write(self._path, partial(latches.encode, self.latch))

    def _event(self, code: StopEvent, text: str, severity: Severity, source: int, now_ns: int) -> None:
        self._ctx.events.emit(
            EventKind.STOP, code, severity=severity, source=int(source), ref_id=self.latch.incident_id, text=text,
            now_ns=now_ns,
        )  # fmt: skip


def badges_in_words(mask: int) -> str:
    """Badges of a reason mask; an operator's or dead-man's kill shows as KILL."""
    return ", ".join(b.name for b in Badge if mask >> b & 1)
