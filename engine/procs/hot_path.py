"""The fused hot path around ``hot_kernel.turn``: fills its table, hands on what it leaves, keeps the books true.

Composed by the shared host when all three agents are there, the link is a socket and the strategy is the compiled one.
The agents stay what they are; this only spares the walk through Python between a tick and an order. ``arm`` tells the
kernel what it may do until the agents have worked again: whenever anything is unusual (a session not open, something
queued, a stop that changed) it may do nothing, and the agents do everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engine import topology
from engine.broker.encode import FRAME_BYTES
from engine.broker.ib_link import IbLink
from engine.domain.codes import Source
from engine.procs import hot_kernel as k
from engine.procs.algo import Algo
from engine.procs.broker_bridge import BrokerBridge
from engine.procs.hot_kernel import F
from engine.procs.ml_service import MlService
from engine.procs.rehearsal import Rehearsal
from engine.runtime.placement import allowed_cores, waits
from engine.runtime.runner import Seat, Turns
from engine.strategy.protocol import OWN_ORDERS
from engine.strategy.regime import RegimeStrategy
from engine.strategy.regime_kernel import DECISION, SITUATION, WORKING
from shm.kernels import SLOTS, cells_moved
from shm.layouts import INTENT, LEASE, POSITION

Array = npt.NDArray[Any]
_SPIN_NS = 5_000_000
"""Polled inside the kernel for so long at a time: signals and duties wait no longer."""
_CALM = 5
"""Duties come so many times rarer while the kernel polls: what can't wait for them, stops and the lease, it watches."""
_UNKNOWN = -1
_WAKE = (topology.WATCHDOG,)
_REST = F.COLD_FRAME | F.SOCKET | F.OTHERS | F.MARKET | F.STRATEGY | F.ORDER


def compose(seats: Sequence[Seat]) -> HotPath | None:
    """The fused turn of these agents, None where they can only be driven one after the other."""
    agents = {seat.service: seat.agent for seat in seats}
    bridge, ml, algo = (agents.get(name) for name in topology.HOSTED)
    if not (isinstance(bridge, BrokerBridge) and isinstance(ml, MlService) and isinstance(algo, Algo)):
        return None
    if not (isinstance(bridge.link, IbLink) and isinstance(algo.strategy, RegimeStrategy)):
        return None
    return HotPath(list(seats), bridge, ml, algo)


class HotPath(Turns):
    """The turns of the three agents as one."""

    def __init__(self, seats: list[Seat], bridge: BrokerBridge, ml: MlService, algo: Algo) -> None:
        assert isinstance(bridge.link, IbLink)
        assert isinstance(algo.strategy, RegimeStrategy)
        self._seats = seats
        self.bridge, self.ml, self.algo = bridge, ml, algo
        self._link = bridge.link
        self._clock = seats[0].context.clock
        self._context = seats[0].context
        self.table: npt.NDArray[np.void] = np.zeros(1, k.HOT)
        self._words = self.table.view(np.int64)
        self._at = {name: i for i, name in enumerate(k.HOT.names or ())}
        self.arrays: dict[str, Array] = {}
        """What the table names by address."""
        self.intent = self._own("intent", np.zeros(1, INTENT))
        self.decision = self._own("decision", np.zeros(1, DECISION))
        self._situation = self._own("situation", np.zeros(1, SITUATION))
        symbols = len(algo.strategy.memory)
        self._cards = self._own("cards", np.zeros(symbols, k.CARD))
        self._orders = self._own("orders", np.zeros(symbols * OWN_ORDERS, WORKING))
        self._frame = self._own("frame", np.zeros(4 * FRAME_BYTES, np.uint8))
        self._armed = self._straight = False
        self._agreed = False
        """Bridge and strategy have seen the stops as they stand."""
        self._bell_fds: list[int] = []
        self._address = int(self.table.ctypes.data)
        self._stops = self._own("stops", np.zeros(2 * len(topology.STOP_CELLS), np.int64))
        self._positions: npt.NDArray[np.int64] = np.full(algo.position_cells.count, -1, np.int64)
        self._moved: npt.NDArray[np.int64] = np.zeros(len(self._positions), np.int64)
        self._position_words = POSITION.itemsize // 8
        algo.changed.update(algo.stocks)
        self._bells = self._own("bells", np.zeros(2 * len(_WAKE), np.int64))
        self._fill(symbols)
        self._urgent = False
        self._cold = True
        """The agents have worked since the last rehearsal."""
        self._rehearsal: Rehearsal | None = None
        if self._spin_ns and algo.stocks:
            try:
                self._rehearsal = Rehearsal(self.table, self.arrays, algo.stocks[0])
            except OSError as error:
                self._context.log.warning("the hot path is not kept warm: no sockets for that: %s", error)
        self.fused_orders = 0
        """Orders that left from the kernel, for tests and measurements."""

    # The table.

    def _own(self, name: str, array: Array) -> Array:
        """Name an array by its address, and keep it alive."""
        assert array.flags.c_contiguous
        self.arrays[name] = array
        self._words[self._at[name]] = array.ctypes.data
        return array

    def _set(self, **values: int) -> None:
        for name, value in values.items():
            self._words[self._at[name]] = value

    def _get(self, name: str) -> int:
        return int(self._words[self._at[name]])

    def _fill(self, symbols: int) -> None:
        """Everything that stays as long as the agents do."""
        bridge, ml, algo, link = self.bridge, self.ml, self.algo, self._link
        assert isinstance(algo.strategy, RegimeStrategy)
        buffer, frames = link.receive_buffer()
        fields, ten = frames.scratch
        for name, array in (
            ("buf", buffer), ("ticks", link.ticks), ("lines", frames.lines), ("ten", ten), ("fields", fields),
            ("decoded", frames.out), ("state", ml.market.state), ("control", ml.market.control),
            ("books", ml.market.books), ("models", ml.filter.models), ("signals", ml.market.signals),
            ("changed", ml.market.changed), ("last_tick", bridge.feed.last_tick_ns), ("memory", algo.strategy.memory),
            ("parameters", algo.strategy.parameters), ("bucket", algo.pace.bucket), ("filled", algo.pace.filled),
            ("until", algo.pace.until), ("facts", bridge.gate.facts), ("account", bridge.gate.account),
            ("templates", link.templates), ("verdict", np.zeros(3)), ("lease", np.zeros(1, LEASE)),
            ("time", np.zeros(2, np.int64)), ("bell_byte", np.zeros(1, np.int64)),
            ("ticks_ring", bridge.ticks.words), ("signals_ring", ml.signals.words), ("orders_ring", algo.orders.words),
            ("book_region", ml.book_cells.words), ("lease_region", bridge.gate.lease_cell.words),
        ):  # fmt: skip
            self._own(name, array)
        for service, counters in (("bridge", bridge.counters), ("ml", ml.counters), ("algo", algo.counters)):
            self._own(f"{service}_words", counters.words)
            self._words[self._at[f"{service}_words_n"]] = len(counters.words)
        flight, at = bridge.flight
        b, m, a = bridge.counters, ml.counters, algo.counters
        self._set(
            buf_size=len(buffer), tick_room=len(link.ticks), lines_n=len(frames.lines),
            ticks_cap=bridge.ticks.capacity, signals_cap=ml.signals.capacity, orders_cap=algo.orders.capacity,
            ml_ticks_cursor=ml.ticks.addresses[1], algo_signals_cursor=algo.signals.addresses[1],
            bridge_orders_cursor=bridge.orders_of_algo.addresses[1], flight=flight.ctypes.data + 8 * at,
            symbols=len(ml.market.state), books_n=len(ml.market.books), memory_n=symbols,
            book_region_n=len(ml.book_cells.words), lease_region_n=len(bridge.gate.lease_cell.words),
            frame_size=4 * FRAME_BYTES, stops_n=len(topology.STOP_CELLS), bells_n=len(_WAKE), mode=algo.mode,
            n_ticks=b.counter_word("ticks"), n_ml_ticks=m.counter_word("ticks"), n_signals=a.counter_word("signals"),
            h_decoded=b.histogram_word("socket_to_decoded_ns"), h_signal=m.histogram_word("tick_to_signal_ns"),
            h_decoded_signal=m.histogram_word("decoded_to_signal_ns"), h_intent=a.histogram_word("signal_to_intent_ns"),
            h_intent_gate=b.histogram_word("intent_to_gate_ns"), h_gate=b.histogram_word("gate_ns"),
            h_gate_wire=b.histogram_word("gate_to_wire_ns"), h_order=b.histogram_word("tick_to_order_ns"),
        )  # fmt: skip
        self.table["stale_min_ns"], self.table["stale_factor"] = bridge.gate.staleness
        readers = (*bridge.other_rings, *algo.other_rings)
        self._own("watch", np.array([a for r in readers for a in r.addresses], np.int64))
        self._set(watch_n=len(readers))
        config = self._context.config
        placed = waits(config.runtime, topology.BRIDGE, len(allowed_cores()), "shared")
        self._spin_ns = _SPIN_NS if placed == "busy-spin" else 0
        self.calm = _CALM if self._spin_ns else 1

    def arm(self) -> None:
        """The agents have worked: tell the kernel what holds now. Looks at everything, writes what has changed."""
        bridge, algo, link = self.bridge, self.algo, self._link
        self._armed = self._cold = True
        self._straight = link.straight and not bridge.governor.waiting
        if not self._straight:
            return
        now_ns = self._clock.now_ns()
        start, end = link.window
        room = bridge.desk.room(now_ns)
        self._set(
            fd=link.fileno(), start=start, end=end, faults_seen=self.ml.market.faults, sends=int(room > 0), room=room,
            next_order=bridge.desk.next_order_id, lease_was=_UNKNOWN, next_intent=algo.ctx.ids.peek(Source.ALGO),
        )  # fmt: skip
        if not self._agreed or not k.stops_as_known(self._get("stops"), len(topology.STOP_CELLS)):
            self._learn_stops(now_ns)
        self._open_bells()
        self._situation["gross_usd"], self._situation["day_pnl_usd"] = algo.account
        count = cells_moved(algo.position_cells.words, self._position_words, self._positions, self._moved)
        stale = algo.changed
        stale.update(self._moved[:count].tolist())
        if stale:
            algo.fill_cards(self._cards, self._orders, stale)
            stale.clear()

    def _learn_stops(self, now_ns: int) -> None:
        """Flags of bridge and strategy from the stops as they stand, and the versions for which they hold."""
        bridge, algo = self.bridge, self.algo
        bridge.gate.authority(now_ns)
        known = algo.know_stops()
        versions = [int(cell.version[0]) for cell in bridge.gate.stop_cells]
        agree = versions == [int(cell.version[0]) for cell in known] and not any(c.torn[0] for c in known)
        for i, cell in enumerate(bridge.gate.stop_cells):
            self._stops[2 * i] = cell.words.ctypes.data + 8 * SLOTS
            self._stops[2 * i + 1] = versions[i]
        self._agreed = agree and algo.ready()
        self._set(decides=int(self._agreed))
        algo.changed.update(algo.stocks)

    def _open_bells(self) -> None:
        fds = [self._context.bell(name).fd for name in _WAKE]
        if fds != self._bell_fds:
            self._bell_fds = fds
            for i, name in enumerate(_WAKE):
                self._bells[2 * i], self._bells[2 * i + 1] = self._context.bell(name).address, fds[i]

    def close(self) -> None:
        """Another turn takes its place."""
        if self._rehearsal is not None:
            self._rehearsal.close()

    def pending(self) -> bool:
        """Does the socket, or a ring, wait to be read?"""
        return self._straight and bool(k.shows(self._address))

    def hurry(self) -> bool:
        urgent, self._urgent = self._urgent, False
        return urgent

    def disarm(self) -> None:
        """Somebody has worked, or will have when the next turn comes."""
        self._armed = False

    # A turn.

    def turn(self, now_ns: int, rest: bool) -> int:
        if not self._armed:
            self.arm()
        if not self._straight:
            return self._in_turn()
        flags = 0
        if rest and self._cold and self._rehearsal is not None:
            flags = int(k.turn(self._address, 0))
            if flags == 0:
                self._cold = False
                self._rehearsal.play()
        if flags == 0:
            flags = int(k.turn(self._address, self._spin_ns if rest else 0))
        return self._after(F(flags), now_ns) if flags else 0

    def _in_turn(self) -> int:
        """The agents themselves, one after the other."""
        self._armed = False
        done = 0
        for seat in self._seats:
            done += seat.work(self._clock.now_ns())
        return done

    def _after(self, flags: F, now_ns: int) -> int:
        done = 1
        if flags & F.WORK:
            t_socket_ns = self._get("t_socket")
            done = self._get("frames")
            self._link.received(self._get("start"), self._get("end"), t_socket_ns)
            busy_ns = self._get("busy_ns")
            for seat, work in zip(self._seats, (done, self._get("ml_count"), self._get("signal_count")), strict=True):
                seat.count(work, busy_ns // len(self._seats))
        self._urgent |= bool(flags & F.GUARD)
        if flags & F.SHORT:
            self._link.disconnect("the socket did not give the bytes that it had shown")
        if flags & F.PLACED:
            self.algo.placed_by_fused(self.intent[0], self.decision[0])
        if flags & F.ORDER:
            self._sent()
        if flags & F.FAULT:
            self.ml.report_faults()
            self._set(faults_seen=self.ml.market.faults)
        if flags & F.COLD_FRAME:
            start, stop = (int(x) for x in self._link.receive_buffer()[1].out[3:5])
            self._link.left_cold(start, stop, self._get("t_socket"))
        if flags & F.WAKE:
            for name in _WAKE:
                self._context.wake(name)
            self._open_bells()
        if flags & (F.PLACED | F.ORDER):
            self._armed = False
        if flags & _REST:
            self._in_turn()
        return max(1, done)

    def _sent(self) -> None:
        """An order has left: the books take it over."""
        self.fused_orders += 1
        length = self._get("length")
        self._link.sent(self._frame[:length], self._get("sent"))
        times = (self._get("t_gate"), self._get("t_gated"), self._get("t_wire"))
        self.bridge.sent_by_fused(self.intent.copy(), bool(self._get("reducing")), times)
