"""A recorded day on the cockpit's own pages: the same stage, at the record's pace, with a REPLAY mark and no orders.

Ticks, signals, executions and order states are those of ``session``; badges come from the journal's transitions, and
the P&L is that of the recorded fills at the replayed mid. The server takes no order, and says why.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import structs

from engine import topology
from engine.cockpit.login import create_login
from engine.config import Config
from engine.domain.codes import Badge, BadgeState, LinkState, ServiceState
from engine.model.bundle import Registry
from engine.procs.cockpit import create
from engine.replay.session import Broker, NoTicks, Portion, Stage, _lend, _models, portions, recorded_signals
from engine.store.files import day_number
from engine.store.journal import journal_path, read_only
from shm import scratch

_SHOW_NS = 250_000_000
_YEAR_NS = 365 * 86_400 * 1_000_000_000
Transition = tuple[int, Badge, BadgeState, float, float, str]


def transitions(state_dir: Path, day: int) -> deque[Transition]:
    """Badge changes of a day, in time order: (wall ns, badge, state, value, limit, reason)."""
    found: deque[Transition] = deque()
    if not journal_path(state_dir).exists():
        return found
    with read_only(journal_path(state_dir)) as db:
        rows = db.execute(
            "SELECT wall_ns, value, limit_value, text FROM guardrails WHERE day = ? ORDER BY wall_ns, id", (day,)
        )
        for wall_ns, value, limit, text in rows:
            head, _, reason = text.partition(": ")
            name, _, state = head.partition(" ")
            if name in Badge.__members__ and state in BadgeState.__members__:
                nan = float("nan")
                numbers = (nan if value is None else value, nan if limit is None else limit)
                found.append((wall_ns, Badge[name], BadgeState[state], *numbers, reason))
    return found


class Shown(Stage):
    """A stage that keeps the pace and writes what the pages read of watchdog, broker and account."""

    def __init__(
        self,
        config: Config,
        state: Path,
        first: Portion,
        broker: Broker,
        news: deque[Transition],
        wait: Callable[[int], None],
    ) -> None:
        self._wait: Callable[[int], None] | None = None
        super().__init__(config, state, first, broker)
        bridge, watchdog = self._instance.context(topology.BRIDGE), self._instance.context(topology.WATCHDOG)
        self._guardrails = watchdog.cell_writer("guardrails")
        self._link, self._account = bridge.cell_writer("broker"), bridge.cell_writer("account")
        self._news, self._equity, self._next_show_ns = news, config.paper.equity_usd, 0
        self._peak = self._equity
        self.cockpit = self._instance.context(topology.COCKPIT)
        self.cockpit.replay = True
        self.cockpit.start_heartbeat(self.clock.now).set_state(ServiceState.READY, self.clock.now)
        self._wait = wait

    def _turn(self) -> None:
        super()._turn()
        if self._wait is None:  # still being made
            return
        if self.clock.now >= self._next_show_ns:
            self._next_show_ns = self.clock.now + _SHOW_NS
            self.show(self.clock.now)
        self._wait(self.clock.now)

    def show(self, now_ns: int) -> None:
        """Publish account, link and badges as of ``now_ns``."""
        g, books, held = self._guardrails.value[0], self.ml.market.books, self._positions.value
        pnl = gross = net = 0.0
        for symbol in range(len(self.ml.market.state)):
            p, mid = held[symbol], float(books[symbol]["mid"])
            exposure = float(p["qty"]) * mid if p["qty"] else 0.0
            gross, net = gross + abs(exposure), net + exposure
            pnl += float(p["cash_flow_usd"]) + exposure - float(p["commissions_usd"])
        equity = self._equity + pnl
        self._peak = max(self._peak, equity)
        while self._news and self._news[0][0] <= self.clock.wall_ns(now_ns):
            _, badge, state, value, limit, reason = self._news.popleft()
            b = g["badges"][badge]
            b["state"], b["value"], b["limit"], b["since_ns"] = int(state), value, limit, now_ns
            b["reason"] = reason.encode()[:80]
        g["evaluated_ns"], g["day_start_usd"], g["day_pnl_usd"], g["equity_usd"] = now_ns, self._equity, pnl, equity
        g["peak_usd"], g["gross_usd"], g["net_usd"] = self._peak, gross, net
        self._guardrails.publish()
        link, account = self._link.value[0], self._account.value[0]
        link["link"], link["reconciled"], link["last_message_ns"] = int(LinkState.UP), 1, now_ns
        self._link.publish()
        account["account"], account["ready"], account["matches"] = b"REPLAY", 1, 1
        account["net_liquidation_usd"] = equity
        self._account.publish()


class Pages:
    """The cockpit of a stage on a thread of its own."""

    def __init__(self, stage: Shown) -> None:
        self.ready = threading.Event()
        self._agent = create(stage.cockpit)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="pages", daemon=True)
        self.error: Exception | None = None

    @property
    def port(self) -> int:
        assert self._agent.server is not None
        return self._agent.server.port

    def start(self) -> None:
        """Raises what kept the server from starting (PortTaken names who holds the port)."""
        self._thread.start()
        self.ready.wait()
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10.0)

    def _run(self) -> None:
        async def serve() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            await self._agent.run(self.ready.set, self._stop)

        try:
            asyncio.run(serve())
        except Exception as error:  # told to whoever started us
            self.error = error
        self.ready.set()


def longest_life(state_dir: Path, day: int) -> tuple[int, int]:
    """(number, of how many) of the instance that recorded most of a day. Raises NoTicks."""
    sizes: Counter[int] = Counter()
    for portion in portions(state_dir, day):
        sizes[portion.life] += len(portion.ticks)
    if not sizes:
        raise NoTicks(f"no ticks were recorded on {day}: see the directories in {state_dir / 'ticks'}")
    return sizes.most_common(1)[0][0], len(sizes)


def show(
    config: Config,
    date: int | str,
    *,
    speed: float = 1.0,
    skip_s: float = 0.0,
    say: Callable[[str], None],
    stopped: threading.Event,
) -> None:
    """Show a recorded day until ``stopped``; ``skip_s`` of it go by unpaced. Raises NoTicks, BundleError, PortTaken."""
    day, state_dir = day_number(str(date)), config.state_dir
    life, lives = longest_life(state_dir, day)
    served, _ = _models(recorded_signals(state_dir, day))
    name = structs.replace(config.instance, name="replay")
    mine = structs.replace(config, instance=name)
    began: list[Any] = []

    def wait(now_ns: int) -> None:
        """Hold the record to real time × speed, from the end of what is skipped on."""
        if not began:
            began.append((now_ns + int(skip_s * 1e9), 0.0))
        start_ns, at_s = began[0]
        if now_ns < start_ns:
            return
        if not at_s:
            began[0] = (start_ns, at_s := time.monotonic())
        stopped.wait(max(0.0, at_s + (now_ns - start_ns) / 1e9 / speed - time.monotonic()))

    with scratch.directory("l2dash-replay-") as directory:
        _lend(Registry(state_dir / "models"), Registry(Path(directory) / "models"), served)
        broker, news = Broker(state_dir, day), transitions(state_dir, day)
        stage: Shown | None = None
        pages: Pages | None = None
        try:
            for portion in portions(state_dir, day):
                if portion.life != life or stopped.is_set():
                    continue
                if stage is None:
                    stage = Shown(mine, Path(directory), portion, broker, news, wait)
                    stage.show(stage.clock.now)
                    pages = Pages(stage)
                    pages.start()
                    # The pages live on recorded time: a key for a year of it outlasts any speed.
                    key = create_login(Path(directory), stage.clock.wall_ns(stage.clock.now) + _YEAR_NS)
                    of = f", the longest of {lives} runs" if lives > 1 else ""
                    say(f"REPLAY of {day}{of}, at {speed:g} times its pace; Ctrl-C ends it")
                    say(f"cockpit  http://localhost:{pages.port}/cockpit#k={key}")
                stage.play(portion)
            if stage is not None and not stopped.is_set():
                say("the record has ended; Ctrl-C closes the pages")
                stopped.wait()
        finally:
            if pages is not None:
                pages.close()
            if stage is not None:
                stage.close()
