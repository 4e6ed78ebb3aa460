"""ml-service: ticks to order books, features, regimes and signals. Loads models, never trains.

Everything per tick is compiled; Python runs per batch, per bar and per housekeeping. A model that can't be used never
replaces one that serves; without any usable model the books are still published and the service is not READY.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from engine.domain.codes import CommandKind, EventKind, Severity
from engine.market.layout import FEATURE_SCHEMA, Fault
from engine.market.state import BAR_END, EVERYTHING, NEWS, Market, Records
from engine.model.bundle import BundleError, ModelMissing, Registry
from engine.model.filter import RegimeFilter
from engine.model.params import Model, ModelInvalid
from engine.runtime.context import Context

BATCH = 2048
CATCH_UP_BATCHES = 64
"""While more ticks wait than one batch holds, so many batches are applied before anything is published."""
BAR_GRACE_NS = 50_000_000
"""A silent bar is closed this late: a tick of that bar may still be on its way from the bridge."""
_SWEEP_NS = 100_000_000
_MEDIANS_NS = 1_000_000_000
_RETRY_NS = 1_000_000_000
_LAP_MARGIN = 4096
_LOADED, _REFUSED = 1, 3
OBSERVE, COLLECT = "L2DASH_OBSERVE", "L2DASH_COLLECT"
"""Set to 1 by ``l2dash up --observe`` (signals, no orders) and ``--collect`` (record, no orders)."""


class ModelRefused(Exception):
    """A readable model that must not be used here; the text says why and what to do."""


class MlService:
    """The agent. See ``engine.runtime.agent.Agent``."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        config = ctx.config
        self.ticks = ctx.ring_reader("ticks", BATCH)
        self._commands = [ctx.ring_reader(name, 64) for name in ("commands.operator", "commands.cli")]
        self.signals = ctx.ring_writer("signals")
        self.book_cells = ctx.cell_writer("book")
        self._model_cells = ctx.cell_writer("model")
        self.counters = ctx.counters
        g, m = config.guardrails, config.model
        self.market = Market(
            ctx.instruments,
            bar_s=m.bar_s,
            depth_rows=config.universe.depth_rows,
            fair_value_s=m.fair_value_s,
            fair_value_min_s=m.warmup_min_s,
            stale_min_s=g.stale_min_s,
            stale_factor=g.stale_factor,
            index_stale_s=g.index_stale_s,
            books=self.book_cells.value,
        )
        self.filter = RegimeFilter(
            self._model_cells.value,
            bar_s=m.bar_s,
            ema_s=m.confidence_ema_s,
            warmup_s=m.warmup_min_s,
            invalid_limit=g.invalid_share,
        )
        self.registry = Registry(ctx.state_dir / "models")
        self._stocks = np.array([i.index for i in ctx.instruments if i.index != ctx.index_symbol], np.int64)
        self._bar_rows = np.isin(np.flatnonzero(self.market.state["index"] == 0), self._stocks)
        self._faults = self.market.state["faults"].copy()
        self._faults_seen = 0
        self._linked: int | None = None
        self._pending: tuple[int, int] | None = None
        """Version to swap to at the next bar end (0: the current one) and the command that asked."""
        self._refusal = ""
        self._bars = 0
        self._decoded_ns = 0
        self._next_sweep = self._next_retry = 0
        medians = (self._medians(symbol) for symbol in range(len(self.market.state)))
        self.duties: tuple[Callable[[int], None], ...] = (self._close_bars, self._hear, *medians, self._sweep)
        self._collect = os.environ.get(COLLECT) == "1"

    # -- life ---------------------------------------------------------------------------------------------------

    def on_start(self, now_ns: int) -> None:
        self.registry.import_copies()
        self._linked = self.registry.current
        self._first_model()
        self._rebuild(now_ns)
        self.market.refresh_medians()
        self._publish(now_ns, EVERYTHING)
        self._publish_models()

    def ready(self) -> bool:
        """A model serves (or ``--collect`` asks for none) and every book is valid, halted or out of session."""
        if self.filter.model is None and not self._collect:
            return False
        books = self.market.books[self._stocks]
        return bool(((books["valid"] == 1) | (books["halted"] == 1) | (books["session_open"] == 0)).all())

    def lag(self) -> int:
        return self.ticks.waiting

    def wait_fds(self) -> tuple[int, ...]:
        return ()

    def on_close(self, now_ns: int) -> None:
        """Nothing to hand over: the cells keep the last values and age by themselves."""

    # -- work ---------------------------------------------------------------------------------------------------

    def do_work(self, now_ns: int) -> int:
        done = self._drain(CATCH_UP_BATCHES, live=True)
        if done:
            self._publish(self.ctx.clock.now_ns(), NEWS)
        return done

    def housekeeping(self, now_ns: int) -> None:
        for duty in self.duties:
            duty(now_ns)

    def _close_bars(self, now_ns: int) -> None:
        for bars in self.market.close_until(now_ns - BAR_GRACE_NS) if self.market.next_bar_ns else ():
            self._on_bars(bars, live=True)

    def _hear(self, now_ns: int) -> None:
        for reader in self._commands:
            for command in reader.poll():
                if int(command["kind"]) == CommandKind.SWAP_MODEL:
                    self._pending = (int(command["arg"]), int(command["command_id"]))

    def _medians(self, symbol: int) -> Callable[[int], None]:
        """The duty to look at the medians of one symbol: all at once would be felt."""
        next_ns = 0

        def duty(now_ns: int) -> None:
            nonlocal next_ns
            if now_ns >= next_ns:
                next_ns = now_ns + _MEDIANS_NS
                self.market.refresh_medians(symbol)

        return duty

    def _sweep(self, now_ns: int) -> None:
        if self.filter.model is None and now_ns >= self._next_retry:
            self._next_retry = now_ns + _RETRY_NS
            self._first_model()
        if now_ns >= self._next_sweep:
            self._next_sweep = now_ns + _SWEEP_NS
            self._publish(now_ns, EVERYTHING)

    def _drain(self, batches: int, *, live: bool) -> int:
        done = 0
        for _ in range(batches):
            ticks = self.ticks.poll()
            if self.ticks.last_gap:
                self._lost(self.ticks.last_gap)
            if len(ticks) == 0:
                break
            for bars in self.market.drain(ticks):
                self._on_bars(bars, live=live)
            done += len(ticks)
            self._decoded_ns = int(ticks["t_decoded_ns"][-1])
            if len(ticks) < BATCH:
                break
        if done:
            self.counters.add("ticks", done)
            self.report_faults()
        return done

    def _rebuild(self, now_ns: int) -> None:
        """Start from everything the ring still holds: that is also the history a warm-up may use.

        If the ring has been lapped since the instance began, rows in it rest on rows that are gone: every book is
        invalid until the feed resets it, and the cells say so.
        """
        tail = self.ticks.position + self.ticks.waiting
        if tail <= self.ticks.capacity - _LAP_MARGIN:
            self.ticks.seek(0)
        else:
            self.ticks.seek(tail - self.ticks.capacity + _LAP_MARGIN)
            self.market.invalidate(0)
        while self._drain(CATCH_UP_BATCHES, live=False):
            pass

    def _lost(self, count: int) -> None:
        self.market.invalidate(self.ctx.clock.now_ns())
        text = f"{count} ticks lost: every book is invalid until the feed resets it"
        self.ctx.events.emit(EventKind.CONNECTIVITY, severity=Severity.P2, value=float(count), text=text)

    def report_faults(self) -> None:
        """Say which books have become invalid since the last look."""
        if self.market.faults == self._faults_seen:
            return
        state = self.market.state
        for s in np.flatnonzero(state["faults"] != self._faults):
            fault = Fault(int(state[s]["fault"])).name.lower().replace("_", " ")
            text = f"book invalid {self.ctx.instruments[s].symbol}: {fault}; waiting for the feed to reset it"
            self.ctx.events.emit(
                EventKind.CONNECTIVITY,
                symbol=int(s),
                severity=Severity.ROUTINE,
                value=float(state[s]["faults"]),
                text=text,
            )
            self.counters.add("book_resyncs")
        self._faults[:] = state["faults"]
        self._faults_seen = self.market.faults

    def _on_bars(self, bars: Records, *, live: bool) -> None:
        t_end = int(bars["t_end_ns"][0])
        if self.filter.model is not None:
            mine = bars[self._bar_rows]
            self.filter.step(mine["symbol"], mine["x"], mine["valid"], t_end)
        self._bars += 1
        self.counters.add("bars", len(bars))
        if live:
            self._swap_at_bar_end()
            self._publish_models()
            self._publish(self.ctx.clock.now_ns(), BAR_END)

    def _publish(self, now_ns: int, scope: int) -> None:
        changed, signals = self.market.publish(self.filter.models, now_ns, scope)
        for s in changed.tolist():
            self.book_cells.publish(s)
        if len(signals):
            self.signals.publish(signals)
            if scope == NEWS:
                now = self.ctx.clock.now_ns()
                for t_ns in signals["t_socket_ns"].tolist():
                    self.counters.record("tick_to_signal_ns", now - t_ns)
                self.counters.record("decoded_to_signal_ns", max(0, now - self._decoded_ns))
            self.ctx.wake("algo")

    def _publish_models(self) -> None:
        for s in self._stocks.tolist():
            self._model_cells.publish(s)

    # -- models -------------------------------------------------------------------------------------------------

    def _swap_at_bar_end(self) -> None:
        linked = self.registry.current
        if linked is not None and linked != self._linked and self._pending is None:
            self._pending = (0, 0)  # promoted by a training that touches no running service
        self._linked = linked
        if self._pending is None:
            return
        version, command = self._pending
        self._pending = None
        try:
            self._use(self.registry.load(version, FEATURE_SCHEMA))
        except (BundleError, ModelInvalid, ModelRefused) as error:
            self._refuse(str(error))
            if command:
                self.ctx.events.emit(EventKind.COMMAND_RESULT, 1, ref_id=command, text=str(error))
            return
        if command:
            self.ctx.events.emit(EventKind.COMMAND_RESULT, 0, ref_id=command, text="model swapped")

    def _first_model(self) -> None:
        """The current model, else the newest one that can be used; without any, say so once."""
        candidates = [0, *(v for v in (self.registry.previous, *reversed(self.registry.versions())) if v)]
        problem = ""
        for version in dict.fromkeys(candidates):
            try:
                self._use(self.registry.load(version, FEATURE_SCHEMA))
            except (BundleError, ModelInvalid, ModelRefused) as error:
                problem = problem or str(error)
                if not isinstance(error, ModelMissing):
                    self._refuse(str(error))
                continue
            return
        if problem and not self._collect:
            self._refuse(f"no usable model: {problem}")

    def _use(self, model: Model) -> None:
        """Raises ModelRefused when the model must not serve here."""
        config = self.ctx.config
        if model.provenance != "recorded" and config.instance.mode != "sim" and os.environ.get(OBSERVE) != "1":
            raise ModelRefused(
                f"model {model.version} is of provenance {model.provenance} and mode is {config.instance.mode}: record "
                "with `l2dash up --collect`, then `l2dash retrain`; or look without orders with `l2dash up --observe`"
            )
        if abs(model.bar_s - config.model.bar_s) > 1e-9:
            raise ModelRefused(
                f"model {model.version} was trained on bars of {model.bar_s:g} s, model.bar_s is "
                f"{config.model.bar_s:g}: set it so or run `l2dash retrain`"
            )
        swapped = self.filter.model is not None
        self.filter.load(model)
        self._refusal = ""
        if swapped:
            self.counters.add("model_swaps")
        text = f"model {model.version} loaded: {model.provenance}, {model.window}"
        self.ctx.events.emit(EventKind.MODEL, _LOADED, ref_id=model.version, text=text)
        self.ctx.log.info(text)

    def _refuse(self, text: str) -> None:
        if text == self._refusal:
            return
        self._refusal = text
        self.ctx.events.emit(EventKind.MODEL, _REFUSED, severity=Severity.P2, text=text)
        self.ctx.log.error(text)


def create(ctx: Context) -> MlService:
    return MlService(ctx)
