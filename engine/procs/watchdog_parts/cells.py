"""What the watchdog reads, turned into the facts that the rules look at."""

from __future__ import annotations

import os
import select
import signal
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from engine import topology
from engine.domain import sessions
from engine.domain.codes import LinkState, ServiceState
from engine.risk.flatten import FOREIGN
from engine.risk.guardrails import kernels as k
from engine.risk.guardrails.facts import AccountFacts, Facts, IndexFacts, LinkFacts, ModelFacts, StreamFacts
from engine.risk.guardrails.lat import both_mute
from engine.runtime.context import Context
from engine.runtime.heartbeat import DEGRADED
from shm.cell import CellReader
from shm.layouts import RTT_SAMPLES

HUNG_S = 3.0
"""A bridge without a heartbeat for this long, after having been READY, counts as hung."""
DEAF_NS = 500_000_000
"""A bridge without a heartbeat for this long does not read: what it has not heard says nothing about the gateway."""
STARVED_NS = 250_000_000
"""If the watchdog itself was not run for this long, the host is short of CPU: silence of others proves nothing then."""


class Block:
    """The first ``count`` cells of a region, refreshed by one compiled call."""

    def __init__(self, reader: CellReader, count: int) -> None:
        dtype = reader.value.dtype
        self.value: npt.NDArray[np.void] = np.zeros(count, dtype)
        self._words = dtype.itemsize // 8
        self._count = count
        self._flat = self.value.view(np.int64).reshape(count, self._words)
        self._versions = np.zeros(count, np.int64)
        self._torn = np.zeros(1, np.int64)
        self._region: Any = reader._region.words  # a thousand reads a second: one call for all, not one for each

    def refresh(self) -> int:
        """Returns how many cells have changed."""
        return int(k.read_cells(self._region, self._count, self._words, self._flat, self._versions, self._torn))

    @property
    def torn(self) -> int:
        return int(self._torn[0])


class ProcessWatch:
    """Sees the exit of one process at a time, by pidfd."""

    def __init__(self) -> None:
        self.pid = 0
        self._fd = -1
        self._poll = select.poll()
        self.exited = False

    def follow(self, pid: int) -> None:
        """Watch another process; a pid that is gone already counts as exited."""
        if pid == self.pid:
            return
        self.close()
        self.pid, self.exited = pid, False
        if pid <= 0:
            return
        try:
            self._fd = os.pidfd_open(pid)
            self._poll.register(self._fd, select.POLLIN)
        except ProcessLookupError:
            self.exited = True
        except OSError:
            self._fd = -1  # not permitted to watch: the heartbeat alone decides

    def check(self) -> bool:
        """True once the process has exited."""
        if not self.exited and self._fd >= 0 and self._poll.poll(0):
            self.exited = True
        return self.exited

    def kill(self) -> bool:
        """SIGKILL exactly that process; False if that was not possible. Never this process itself."""
        if self._fd < 0 or self.exited or self.pid == os.getpid():
            return False
        try:
            signal.pidfd_send_signal(self._fd, signal.SIGKILL)
        except OSError:
            return False
        return True

    def close(self) -> None:
        if self._fd >= 0:
            self._poll.unregister(self._fd)
            os.close(self._fd)
        self._fd = -1


class Senses:
    """All cells of the watchdog, and the facts made of them."""

    def __init__(self, ctx: Context, process: ProcessWatch | None = None) -> None:
        self._ctx = ctx
        config = ctx.config
        g = config.guardrails
        self.tradable = tuple(i for i in ctx.instruments if i.index != ctx.index_symbol)
        self.names = tuple(i.symbol for i in self.tradable)
        n = len(self.names)
        self.books = Block(ctx.cell_reader("book"), n)
        self.positions = Block(ctx.cell_reader("positions"), n)
        self.models = Block(ctx.cell_reader("model"), n)
        self.account = Block(ctx.cell_reader("account"), 1)
        self.broker = Block(ctx.cell_reader("broker"), 1)
        self.arm = Block(ctx.cell_reader("arm"), 1)
        self.stops = [Block(ctx.cell_reader(name), 1) for name in topology.STOP_CELLS[1:]]
        self.beats = {s.name: Block(ctx.cell_reader(f"heartbeat.{s.name}"), 1) for s in topology.SERVICES}
        self.memory = k.new_memory(n)
        self.table = np.zeros((n, k.COLUMNS))
        self.totals = np.zeros(k.TOTALS)
        self.parameters = np.zeros(k.PARAMETERS)
        self.parameters[: k.P_ACCOUNTED] = (
            g.spread_bps, g.spread_median_factor, g.crossed_s * 1e9, g.stale_min_s * 1e9, g.stale_factor,
        )  # fmt: skip
        self.always_open = config.instance.mode == "sim"
        self.bridge = process or ProcessWatch()
        self.index_stamps = np.full(k.BUCKETS, k.NO_STAMP, np.int64)
        self.index_buckets = np.zeros((k.BUCKETS, 2))
        self.index_out = np.array([np.nan, 0.0, 0.0])
        self._index_wait_ns = 0
        self._rtt_base = 0
        self._was_up = True
        self._ready_incarnation = 0
        self._looked_ns = 0
        self._starved_ns = 0
        self._deaf_ns = 0
        self._minute = (-1, False, False)
        self.commission_adjust_usd = 0.0
        self._commissions_usd = 0.0
        self._executions = 0
        self._changed = 0
        self._vouched = False
        self.facts = Facts(
            self.names, self.table, self.totals, config.limits.breaker_symbol_usd, config.limits.max_position_usd
        )

    def refresh_market(self) -> None:
        """Read books and positions; ``take_changed`` tells whether anything was new."""
        self._changed += self.books.refresh() + self._read_positions()

    def _read_positions(self) -> int:
        """Positions, and whether one life of the bridge vouches for them: one that had compared its books before.

        A bridge that begins shows positions without the executions that it has yet to read, while the broker's cell
        is still its predecessor's. Taken for a new day, that would shift the equity for good.
        """
        before = self._vouching()
        changed = self.positions.refresh()
        self._vouched = before != 0 and self._vouching() == before
        return changed

    def _vouching(self) -> int:
        """Incarnation of the bridge that says by itself that its books have been compared; 0 if none does."""
        beat, broker = self.beats[topology.BRIDGE], self.broker
        beat.refresh()
        broker.refresh()
        return int(beat.value[0]["incarnation"]) if self.own_word and broker.value[0]["reconciled"] else 0

    @property
    def own_word(self) -> bool:
        """Has the bridge that lives now written the broker's cell? A dead one's stands until its successor's first."""
        return int(self.broker.value[0]["updated_ns"]) >= int(self.beats[topology.BRIDGE].value[0]["t_started_ns"])

    def take_changed(self) -> int:
        changed, self._changed = self._changed, 0
        return changed

    def measure(self, now_ns: int) -> None:
        """Recompute table and totals from the cells as last refreshed."""
        link = self.facts.link
        self.parameters[k.P_ACCOUNTED] = 1.0 if link.bridge_alive and link.reconciled and self._vouched else 0.0
        n = len(self.names)
        k.measure(
            self.books.value, self.positions.value, n, now_ns, self.parameters, self.memory, self.table, self.totals
        )

    def refresh_slow(self, now_ns: int, emergency_answer_age_ns: int) -> Facts:
        """Read everything and rebuild the facts."""
        for block in (self.account, self.arm, self.models, self.books, *self.beats.values()):
            block.refresh()
        self._read_positions()
        link = self._link(now_ns, emergency_answer_age_ns)
        self.facts = Facts(
            self.names, self.table, self.totals, self.facts.symbol_limit_usd, self.facts.gross_limit_usd,
            account=self._account(link), link=link, stream=self._stream(now_ns),
            index=self.index(now_ns), models=self._models(now_ns),
        )  # fmt: skip
        self.measure(now_ns)
        return self.facts

    def alive(self, service: str, now_ns: int) -> bool:
        """Its heart has beaten within its limit, and it does not say that it has stopped."""
        beat = self.beats[service].value[0]
        state = int(beat["state"])
        running = state in (ServiceState.STARTING, ServiceState.WARMING, ServiceState.READY)
        return running and now_ns - int(beat["t_beat_ns"]) <= topology.service(service).beat_s * 1e9

    def beat(self, service: str) -> np.void:
        value: np.void = self.beats[service].value[0]
        return value

    def bridge_state(self, now_ns: int) -> tuple[bool, bool, int]:
        """(its process exists, it hangs, its incarnation)."""
        beat = self.beat(topology.BRIDGE)
        pid, state = int(beat["pid"]), int(beat["state"])
        self.bridge.follow(pid)
        exists = pid > 0 and not self.bridge.check() and state not in (ServiceState.DOWN, ServiceState.STOPPED)
        incarnation = int(beat["incarnation"])
        if state == ServiceState.READY:
            self._ready_incarnation = incarnation
        if self._looked_ns and now_ns - self._looked_ns > STARVED_NS:
            self._starved_ns = now_ns
        self._looked_ns = now_ns
        beat_ns = int(beat["t_beat_ns"])
        if now_ns - beat_ns > DEAF_NS:
            self._deaf_ns = now_ns
        silent_ns = now_ns - max(beat_ns, self._starved_ns)
        hung = exists and self._ready_incarnation == incarnation and silent_ns > HUNG_S * 1e9
        return exists, hung, incarnation

    def _link(self, now_ns: int, emergency_answer_age_ns: int) -> LinkFacts:
        b = self.broker.value[0]
        exists, hung, _ = self.bridge_state(now_ns)
        alive = exists and not hung
        link = int(b["link"])
        up = alive and link == LinkState.UP
        count = int(b["rtt_count"])
        if up and not self._was_up:
            self._rtt_base = count  # round trips of an earlier connection say nothing about this one
        self._was_up = up
        usable = min(RTT_SAMPLES, max(0, count - self._rtt_base))
        rtts = b["rtt_ns"]
        newest_last = tuple(int(rtts[(count - usable + i) % RTT_SAMPLES]) for i in range(usable))
        probe, message = int(b["probe_sent_ns"]), int(b["last_message_ns"])
        wall = self._ctx.clock.wall_ns(now_ns)
        facts = LinkFacts(
            link=link, bridge_alive=alive, leaving=bool(b["leaving"]),
            reconciled=bool(b["reconciled"]) and self.own_word,
            down_since_ns=int(b["down_since_ns"]), ever_up=count > 0 or int(b["snapshot_id"]) > 0 or up,
            rtts_ns=newest_last, probe_age_ns=now_ns - probe if up and probe else -1,
            silent_ns=now_ns - max(message, self._deaf_ns) if up and message else -1,
            emergency_answer_age_ns=emergency_answer_age_ns,
            reset_window=self._hours(wall)[1],
        )  # fmt: skip
        return replace(facts, both_mute=True) if both_mute(facts, self._ctx.config.guardrails) else facts

    def _hours(self, wall_ns: int) -> tuple[bool, bool]:
        """(regular hours, inside a reset window), worked out once a second."""
        second = wall_ns // 1_000_000_000
        if second != self._minute[0]:
            windows = self._ctx.config.gateway.reset_windows
            inside = any(sessions.in_window(wall_ns, w) for w in windows)
            self._minute = (second, sessions.is_regular_hours(wall_ns, self.always_open), inside)
        return self._minute[1], self._minute[2]

    @property
    def regular_hours(self) -> bool:
        return self._hours(self._ctx.clock.wall_ns(self._ctx.clock.now_ns()))[0]

    def _account(self, link: LinkFacts) -> AccountFacts:
        a = self.account.value[0]
        commissions, executions = float(a["commissions_usd"]), int(a["executions"])
        if link.reconciled and link.bridge_alive:
            if commissions < self._commissions_usd and executions < self._executions:
                self.commission_adjust_usd += self._commissions_usd - commissions  # the bridge has begun a new day
            self._commissions_usd, self._executions = commissions, executions
        return AccountFacts(
            bool(a["ready"]), float(a["net_liquidation_usd"]), self._commissions_usd + self.commission_adjust_usd,
            int(a["trades"]), tuple(int(x) for x in a["intents"]),
        )  # fmt: skip

    def _stream(self, now_ns: int) -> StreamFacts:
        a = self.arm.value[0]
        gone = int(a["stream_gone_since_ns"])
        return StreamFacts(now_ns - gone if gone else -1, self.alive(topology.COCKPIT, now_ns), bool(a["kill_on_gone"]))

    def forget_index(self, before_ns: int) -> None:
        """Values of the index before this time no longer count for its move; it is measured from how it stands."""
        number = before_ns // k.BUCKET_NS
        self.index_stamps[self.index_stamps < number] = k.NO_STAMP
        slot, value = number % k.BUCKETS, float(self.index_out[0])
        if value > 0.0 and self.index_stamps[slot] <= number:
            self.index_stamps[slot], self.index_buckets[slot] = number, value
        self.index_out[2] = 0.0

    def index(self, now_ns: int, breach_ns: int = 0) -> IndexFacts:
        watched = self._ctx.index_symbol >= 0
        regular, _ = self._hours(self._ctx.clock.wall_ns(now_ns))
        value, stamp, move = (float(x) for x in self.index_out)
        known = stamp > 0.0
        if known or not regular or not self.facts.link.up or not watched:
            self._index_wait_ns = 0
        elif not self._index_wait_ns:
            self._index_wait_ns = now_ns
        waited = now_ns - self._index_wait_ns if self._index_wait_ns else 0
        age = now_ns - int(stamp) if known else -1
        return IndexFacts(watched, value, move, age, regular, waited, breach_ns)

    def _models(self, now_ns: int) -> ModelFacts:
        m = self.models.value
        limit = self._ctx.config.guardrails.invalid_share
        valid = (m["valid"] != 0) & ~(m["invalid_share"] > limit)
        return ModelFacts(
            ema=[float("nan") if w else float(e) for e, w in zip(m["confidence_ema"], m["warming"], strict=True)],
            warming=[bool(w) or not b for w, b in zip(m["warming"], m["bars"], strict=True)],
            valid=[bool(v) for v in valid],
            loaded=bool((m["model_id"] != 0).any()),
            service_alive=self.alive(topology.ML, now_ns),
        )

    def recorder(self, now_ns: int) -> tuple[bool, bool]:
        """(behind or gone, disk low)."""
        beat = self.beat(topology.RECORDER)
        share = self._ctx.config.guardrails.recorder_behind_share
        behind = int(beat["lag"]) > share * topology.ring("ticks").capacity
        return behind or not self.alive(topology.RECORDER, now_ns), bool(int(beat["flags"]) & DEGRADED)

    def held(self) -> int:
        """Mask of symbols with a confirmed position."""
        mask = 0
        for i, qty in enumerate(self.positions.value["qty"].tolist()):
            if abs(qty) > 1e-9:
                mask |= 1 << i
        return mask

    def foreign(self) -> int:
        """Positions outside the instruments that are ours too: 0 unless the account is dedicated."""
        dedicated = self._ctx.config.account_scope == "dedicated"
        return int(self.broker.value[0]["foreign_positions"]) if dedicated else 0

    def open_in_words(self, mask: int, foreign: int) -> str:
        """What is held of these symbols, and how many positions outside the instruments."""
        outside = f"{FOREIGN} ({foreign} position{'s' if foreign > 1 else ''})" if foreign else ""
        return ", ".join(filter(None, (self.in_words(mask), outside)))

    def working(self) -> int:
        b = self.broker.value[0]
        return int(b["working_orders"]) + int(b["unknown_orders"])

    def working_outside(self, kept: int) -> int:
        """Orders that work, but for those in the symbols ``kept``: there they may reduce what an operator keeps."""
        orders: list[int] = self.positions.value["working_orders"].tolist()
        return max(0, self.working() - sum(n for i, n in enumerate(orders) if kept >> i & 1))

    def newest_tick_ns(self, mask: int) -> int:
        """When the newest quote of these symbols came out of the bridge's socket: what a price rule was broken by."""
        stamps = self.books.value["t_socket_ns"].tolist()
        return max((t for i, t in enumerate(stamps) if mask >> i & 1), default=0)

    def halted(self) -> int:
        """Mask of symbols that are halted."""
        flags = self.table[:, k.FLAGS].tolist()
        return sum(1 << i for i, f in enumerate(flags) if int(f) & k.HALTED)

    def held_fresh(self) -> bool:
        """Every held symbol has a live, valid book."""
        for _i, row in enumerate(self.table.tolist()):
            flags = int(row[k.FLAGS])
            if row[k.QTY] and (flags & k.STALE or not flags & k.VALID or not flags & k.OPEN):
                return False
        return True

    def session_open(self) -> bool:
        """The session of every held symbol is open."""
        return all(int(row[k.FLAGS]) & k.OPEN for row in self.table if row[k.QTY])

    def in_words(self, mask: int) -> str:
        """What is held, by name and quantity."""
        qty = self.positions.value["qty"]
        return ", ".join(f"{name} {float(qty[i]):+g}" for i, name in enumerate(self.names) if mask >> i & 1)

    def close(self) -> None:
        self.bridge.close()
