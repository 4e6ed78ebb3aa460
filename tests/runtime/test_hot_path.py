"""The fused hot path against the agents one after the other: the same bytes in, the same records and bytes out."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.scripted_gateway import ASK, BID, ScriptedGateway
from engine import topology
from engine.broker.ib_link import RECEIVE_BYTES
from engine.domain.codes import EventKind, IntentKind, OrderState, Owner, Refusal, ServiceState, Source
from engine.paper.fields import payload
from engine.paper.framing import frame
from engine.procs import hot_path
from engine.procs.algo import Algo
from engine.procs.broker_bridge import BrokerBridge
from engine.procs.hot_path import HotPath
from engine.procs.ml_service import MlService
from engine.procs.rehearsal import Rehearsal
from engine.runtime.clock import SystemClock
from engine.runtime.compile_watch import CompileWatch
from engine.runtime.runner import Seat
from engine.runtime.testing import instance

pytestmark = pytest.mark.timeout(120)
STOCKS = ("AAPL", "MSFT")
AAPL, MSFT = 0, 1
FACTS = ("working_buy", "active_buy", "last_qty", "own_bid")
TICK_FIELDS = ("symbol", "kind", "op", "level", "price", "size")


class World:
    """Three agents on one thread, a scripted gateway, and the test in the part of watchdog and recorder."""

    def __init__(self, directory: Path, *, fused: bool) -> None:
        config: dict[str, dict[str, Any]] = {
            "universe": {"stocks": [{"symbol": s} for s in STOCKS], "index": "none"},
            "runtime": {"poll_socket": "never"},
            "limits": {"duplicate_window_s": 0.001},
        }
        self.instance = instance(directory, config)
        self.instance.clock = SystemClock(time.time_ns(), time.monotonic_ns())  # type: ignore[assignment]
        self.gateway: ScriptedGateway
        watchdog = self.instance.context(topology.WATCHDOG)
        self._lease = watchdog.cell_writer("lease")
        self.stop = watchdog.cell_writer("stop.watchdog")
        self.stop.publish()
        self.cockpit = self.instance.context(topology.COCKPIT)
        self.recorder = self.instance.context(topology.RECORDER)
        self.readers = {
            name: self.recorder.ring_reader(name, 4096)
            for name in ("ticks", "signals", "orders.algo", "events.broker-bridge", "events.ml-service")
        }
        self.seen: dict[str, list[np.void]] = {name: [] for name in self.readers}
        self.lease_on = True
        self.fused = fused
        self.seats: list[Seat] = []
        self.turn: Callable[[int], int]
        self._next_duties = 0

    def start(self, port: int = 0) -> None:
        from msgspec import structs

        from engine.runtime import universe

        self.gateway = ScriptedGateway(universe.instruments(self.instance.config), port)
        gateway = structs.replace(self.instance.config.gateway, port=self.gateway.port)
        self.instance.config = structs.replace(self.instance.config, gateway=gateway)
        self.restart()
        self.until(lambda: self.bridge.ready() and len(self.gateway.depth) == len(STOCKS), "the session")
        self.pretend_model()

    def restart(self) -> None:
        """All three agents anew, as after the death of their process."""
        contexts = [self.instance.context(name) for name in topology.HOSTED]
        for context in contexts:
            context.start_heartbeat(context.clock.now_ns())
        self.bridge, self.ml, self.algo = BrokerBridge(contexts[0]), MlService(contexts[1]), Algo(contexts[2])
        self.algo.strategy.parameters["entry_gap_ns"] = 0  # type: ignore[attr-defined]
        self.seats = [Seat(c, a) for c, a in zip(contexts, (self.bridge, self.ml, self.algo), strict=True)]
        for seat in self.seats:
            seat.agent.on_start(self.now())
            assert seat.context.heartbeat is not None
            seat.context.heartbeat.set_state(ServiceState.READY, self.now())
        self.hot = hot_path.compose(self.seats)
        assert self.hot is not None
        hot = self.hot
        self.turn = (lambda now_ns: hot.turn(now_ns, False)) if self.fused else self._in_turn
        self.renew()

    def pretend_model(self) -> None:
        """What a filter says that is sure of a quiet regime."""
        models = self.ml.filter.models
        models["valid"], models["warming"], models["states"], models["regime"] = 1, 0, 3, 0
        models["confidence"] = models["confidence_ema"] = 0.95
        for symbol in range(len(STOCKS)):
            self.ml._model_cells.publish(symbol)

    def _in_turn(self, now_ns: int) -> int:
        return sum(seat.work(self.now()) for seat in self.seats)

    def now(self) -> int:
        return time.monotonic_ns()

    def renew(self) -> None:
        lease = self._lease.value[0]
        now_ns = self.now()
        lease["epoch"], lease["owner"] = 1, int(Owner.BRIDGE)
        lease["granted_ns"], lease["expires_ns"] = now_ns, now_ns + 250_000_000
        self._lease.publish()

    def step(self) -> int:
        if self.lease_on:
            self.renew()
        now_ns = self.now()
        done = self.turn(now_ns)
        if now_ns >= self._next_duties:
            self._next_duties = now_ns + 5_000_000
            for seat in self.seats:
                seat.duties(now_ns)
            if self.hot is not None:
                self.hot.disarm()
        self.gateway.pump()
        for name, reader in self.readers.items():
            self.seen[name].extend(reader.poll().copy())
        return done

    def until(self, holds: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.step()
            if found := holds():
                return found
        raise AssertionError(f"{what}: not within {timeout_s:g} s; " + "; ".join(self.events()[-10:]))

    def settle(self) -> None:
        """Until everything that was sent has been dealt with."""
        idle = 0
        self.until(lambda: self.step() == 0 and self.idle(), "quiet")
        for _ in range(20):
            idle += self.step() == 0
        assert idle

    def idle(self) -> bool:
        return all(seat.agent.lag() == 0 for seat in self.seats)

    def events(self) -> list[str]:
        return [
            f"{EventKind(int(e['kind'])).name} {int(e['code'])} {e['text'].decode()}"
            for e in self.seen["events.broker-bridge"]
        ]

    def ml_events(self) -> list[str]:
        return [e["text"].decode() for e in self.seen["events.ml-service"]]

    def play(self, data: bytes) -> None:
        self.gateway.write(data)
        self.settle()

    def open_books(self) -> None:
        for symbol in range(len(STOCKS)):
            self.play(self.gateway.book(symbol, 100.00 + symbol, 100.01 + symbol, 500))

    def lean(self, symbol: int, bid_size: int = 5_000) -> bytes:
        return self.gateway.row(symbol, BID, 0, 100.00 + symbol, bid_size)

    def close(self) -> None:
        self.gateway.close()
        self.instance.close()


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Callable[[bool], World]]:
    made: list[World] = []

    def make(fused: bool) -> World:
        world = World(tmp_path / f"{len(made)}", fused=fused)
        made.append(world)
        world.start()
        world.open_books()
        return world

    yield make
    for world in made:
        world.close()


def order_sent(world: World) -> list[bytes]:
    return world.until(lambda: world.gateway.orders and world.gateway.orders[-1], "an order")


def test_an_order_leaves_from_the_kernel_and_everything_stands_where_the_agents_would_have_put_it(
    worlds: Callable[[bool], World],
) -> None:
    results = []
    for fused in (False, True):
        world = worlds(fused)
        world.play(world.lean(AAPL))
        order_sent(world)
        world.settle()
        assert world.hot is not None
        assert world.hot.fused_orders == int(fused)
        intent = world.seen["orders.algo"][-1]
        order = world.bridge.register.by_intent[int(intent["intent_id"])]
        signal = next(s for s in world.seen["signals"] if s["sequence"] == intent["signal_sequence"])
        tick = world.seen["ticks"][-1]
        assert signal["t_socket_ns"] == intent["t_socket_ns"] == tick["t_socket_ns"]
        assert tick["t_socket_ns"] <= tick["t_decoded_ns"] <= signal["t_signal_ns"] <= intent["t_intent_ns"]
        words, at = world.bridge.flight
        assert words[at] == 0
        names = (
            "symbol",
            "kind",
            "source",
            "side",
            "order_type",
            "tif",
            "flags",
            "qty",
            "limit_price",
            "epoch",
            "mode",
        )
        sent = world.gateway.orders[-1]
        sent[26] = b"ref"
        results.append(
            {
                "wire": sent,
                "intent": [intent[name] for name in names],
                "order": (order.order_id, order.state, order.qty, order.limit_price, order.entry, order.source),
                "facts": [world.bridge.gate.facts[AAPL][n] for n in FACTS],
                "ledger": [(o.side, o.left, o.limit_price, o.purpose) for o in world.algo.ledger.of(AAPL)],
                "told": [e for e in world.events() if e.startswith(("INTENT", "ORDER_STATE", "REFUSED"))],
                "intents": int(world.bridge.cells.account["intents"][Source.ALGO - 1]),
                "books": [world.cockpit.cell_reader("book").read(s)["bid_size"][0] for s in (AAPL, MSFT)],
                "ticks": [tuple(t[n] for n in TICK_FIELDS) for t in world.seen["ticks"] if t["kind"] == 1],
                "governor": world.bridge.governor._others,
                "counters": (world.bridge.counters.get("orders_sent"), world.algo.counters.get("intents")),
                "hops": [int(world.bridge.counters.histogram(h).sum() > 0) for h in ("gate_ns", "tick_to_order_ns")],
            }
        )  # fmt: skip
    plain, hot = results
    for key, value in plain.items():
        assert hot[key] == value, key


def test_a_stop_that_is_set_after_the_last_look_holds_the_order_back(worlds: Callable[[bool], World]) -> None:
    world = worlds(True)
    world.settle()
    world.stop.value[0]["pause"] = 1
    world.stop.value[0]["stop_id"] = world.now()
    world.stop.publish()
    world.play(world.lean(AAPL))
    assert not world.gateway.orders
    assert world.hot is not None
    assert world.hot.fused_orders == 0


def test_without_a_lease_nothing_leaves(worlds: Callable[[bool], World]) -> None:
    world = worlds(True)
    world.settle()
    world.lease_on = False
    world._lease.value[0]["expires_ns"] = world.now() - 1
    world._lease.publish()
    world.play(world.lean(AAPL))
    assert not world.gateway.orders


def test_a_fenced_bridge_sends_nothing(worlds: Callable[[bool], World]) -> None:
    world = worlds(True)
    world.settle()
    world._lease.value[0]["fence"] = 99
    world.renew()
    world.play(world.lean(AAPL))
    assert not world.gateway.orders


def test_what_the_gate_refuses_is_judged_and_told_by_the_bridge(worlds: Callable[[bool], World]) -> None:
    world = worlds(True)
    world.settle()
    world.bridge.gate.account["order_qty"] = 1.0
    world.play(world.lean(AAPL))
    world.until(lambda: any(e.startswith(f"REFUSED {int(Refusal.ORDER_SIZE)}") for e in world.events()), "a refusal")
    assert not world.gateway.orders
    assert world.hot is not None
    assert world.hot.fused_orders == 0
    assert world.bridge.orders_of_algo.waiting == 0


def test_an_order_that_ends_lets_the_next_one_leave(worlds: Callable[[bool], World]) -> None:
    world = worlds(True)
    assert world.hot is not None
    for n in range(1, 4):
        world.play(world.lean(AAPL, 5_000 + n))
        world.until(lambda n=n: len(world.gateway.orders) == n, f"order {n}")
        world.play(world.gateway.done(world.gateway.orders[-1]))
        world.until(lambda: not world.algo.ledger.of(AAPL), "its end")
        world.play(world.lean(AAPL, 500))
    assert world.hot.fused_orders == 3
    ids = [int(o[1]) for o in world.gateway.orders]
    assert ids == list(range(ids[0], ids[0] + 3))


def test_a_cancel_goes_through_the_agents(worlds: Callable[[bool], World]) -> None:
    world = worlds(True)
    world.play(world.lean(AAPL))
    order_sent(world)
    world.algo.strategy.parameters["order_ttl_ns"] = 0  # type: ignore[attr-defined]
    world.play(world.lean(AAPL, 4_000))
    cancel = world.until(lambda: world.gateway.orders[-1] if world.gateway.orders[-1][0] == b"4" else None, "a cancel")
    assert cancel[2] == world.gateway.orders[0][1]


def test_frames_for_the_library_between_ticks_keep_their_place(worlds: Callable[[bool], World]) -> None:
    world = worlds(True)
    world.play(world.lean(AAPL))
    order = order_sent(world)
    world.settle()
    before = len(world.seen["ticks"])
    rows = [world.lean(MSFT, 500 + n) for n in range(4)]
    world.play(rows[0] + rows[1] + world.gateway.done(order) + rows[2] + rows[3])
    world.until(lambda: not world.bridge.register.active_count, "the end of the order")
    sizes = [float(t["size"]) for t in world.seen["ticks"][before:] if t["kind"] == 1]
    assert sizes == [500.0, 501.0, 502.0, 503.0]


def test_a_process_that_dies_after_the_send_leaves_an_order_of_unknown_fate_and_sends_no_second_one(
    worlds: Callable[[bool], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = worlds(True)
    world.settle()

    def die(self: HotPath) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(HotPath, "_sent", die)
    world.gateway.write(world.lean(AAPL))
    with pytest.raises(KeyboardInterrupt):
        world.settle()
    words, at = world.bridge.flight
    assert words[at] != 0
    world.gateway.pump()
    assert len(world.gateway.orders) == 1
    intent_id = int(world.recorder.ring_reader("orders.algo").poll()[-1]["intent_id"])
    world.gateway.drop()
    world.restart()
    order = world.bridge.register.by_intent[intent_id]
    assert (order.state, order.order_id) == (OrderState.UNKNOWN, int(world.gateway.orders[0][1]))
    assert words[at] == 0
    world.until(lambda: world.bridge.ready() and len(world.gateway.depth) == len(STOCKS), "the session")
    world.settle()
    new = [f for f in world.gateway.orders if f[0] == b"3"]
    assert len(new) == 1


def test_intents_stand_in_the_ring_before_their_bytes_can_leave(worlds: Callable[[bool], World]) -> None:
    """The ring's tail is moved before the cursor of the bridge passes it: what is sent was there to be read."""
    world = worlds(True)
    world.play(world.lean(AAPL))
    order_sent(world)
    intent = world.seen["orders.algo"][-1]
    assert intent["kind"] == IntentKind.NEW
    assert intent["t_intent_ns"] > 0
    tail, cursor = world.bridge.orders_of_algo.addresses
    assert tail != cursor
    assert world.bridge.orders_of_algo.waiting == 0


def test_another_strategy_or_link_is_driven_by_the_agents(worlds: Callable[[bool], World]) -> None:
    class Mine:
        def on_signal(self, *_: Any) -> tuple[()]:
            return ()

        on_timer = on_signal

        def busy(self, symbol: int) -> bool:
            return False

    world = worlds(True)
    world.algo.strategy = Mine()
    assert hot_path.compose(world.seats) is None
    assert hot_path.compose(world.seats[:2]) is None


@pytest.mark.parametrize("fused", [False, True])
def test_nothing_compiles_once_the_agents_run(worlds: Callable[[bool], World], fused: bool) -> None:
    """Orders, their ends, cancels, refusals, stops, bars, faults, lost data, a new session: in both placements."""
    world = worlds(fused)
    watch = CompileWatch().start()
    try:
        world.play(world.lean(AAPL))
        order = order_sent(world)
        world.play(world.gateway.done(order))
        world.play(world.lean(AAPL, 400) + world.lean(MSFT))
        world.until(lambda: len(world.gateway.orders) > 1, "a second order")
        world.algo.strategy.parameters["order_ttl_ns"] = 0  # type: ignore[attr-defined]
        world.play(world.lean(MSFT, 4_000))
        world.until(lambda: world.gateway.orders[-1][0] == b"4", "a cancel")
        world.bridge.gate.account["order_qty"] = 1.0
        world.play(world.lean(AAPL, 6_000))
        world.until(lambda: any(e.startswith("REFUSED") for e in world.events()), "a refusal")
        world.stop.value[0]["pause"], world.stop.value[0]["stop_id"] = 1, world.now()
        world.stop.publish()
        world.play(world.lean(AAPL, 300))
        world.play(world.gateway.row(AAPL, BID, 9, 99.91, 0, 2) + world.gateway.row(AAPL, BID, 9, 99.0, 1))
        for bars in world.ml.market.close_until(world.now() + 60_000_000_000):
            world.ml._on_bars(bars, live=True)
        world.ml.market.refresh_medians()
        world.ml._lost(1)
        world.gateway.drop()
        world.until(lambda: world.bridge.ready() and len(world.gateway.depth) == len(STOCKS), "a new session")
        world.open_books()
    finally:
        watch.stop()
    assert watch.names == []


def test_a_compilation_in_the_loop_is_an_error_of_the_heartbeat(worlds: Callable[[bool], World]) -> None:
    import numba

    world = worlds(True)
    world.seats[0].watch = CompileWatch().start()
    try:
        numba.njit("int64(int64)")(lambda x: x + 1)
        world.seats[0].duties(world.now())
    finally:
        world.seats[0].watch.stop()
    assert int(world.cockpit.cell_reader(f"heartbeat.{topology.BRIDGE}").read()["errors"]) == 1


def test_one_sided_asks_sell_only_what_may_be_sold(worlds: Callable[[bool], World]) -> None:
    """A short entry is refused by the gate where shares can't be shorted; the fused way must not know better."""
    world = worlds(True)
    world.bridge.gate.account["allow_short"] = 0
    world.play(world.gateway.row(AAPL, ASK, 0, 100.01, 5_000))
    world.until(lambda: any(e.startswith("REFUSED") for e in world.events()), "a refusal")
    assert not world.gateway.orders


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("bad", ["a row beyond the book", "no number", "infinite"])
def test_bad_depth_is_named_nothing_trades_on_it_and_the_symbol_is_subscribed_anew(
    worlds: Callable[[bool], World], monkeypatch: pytest.MonkeyPatch, fused: bool, bad: str
) -> None:
    monkeypatch.setattr("engine.broker.feed.UNFIT_NS", 20_000_000)
    monkeypatch.setattr("engine.broker.feed.RESYNC_GAP_NS", 20_000_000)
    world = worlds(fused)
    world.play(world.gateway.row(AAPL, BID, 9, 99.91, 0, 2))  # nine rows left
    old = world.gateway.depth[AAPL]
    row = {
        "a row beyond the book": world.gateway.row(AAPL, BID, 9, 99.00, 100),
        "no number": frame(payload(13, 1, old, 3, "NSDQ", 1, BID, "NaN", 100, 1)),
        "infinite": frame(payload(13, 1, old, 3, "NSDQ", 1, BID, "inf", 100, 1)),
    }[bad]
    world.play(row)
    world.play(world.lean(AAPL))
    assert not world.gateway.orders
    world.play(world.lean(MSFT))
    assert order_sent(world), "the other symbol goes on"
    world.until(lambda: any("AAPL" in e for e in world.events() + world.ml_events()), "words about it")
    world.until(lambda: (world.play(world.lean(AAPL)), world.gateway.depth.get(AAPL) != old)[1], "a new subscription")
    count, told = len(world.gateway.orders), old

    def trades_again() -> bool:
        nonlocal told
        if told != world.gateway.depth[AAPL]:  # an empty book is subscribed anew as well, if this process was slow
            told = world.gateway.depth[AAPL]
            world.play(world.gateway.book(AAPL, 100.00, 100.01, 500))
        world.play(world.lean(AAPL))
        return len(world.gateway.orders) > count

    world.until(trades_again, "an order on the new book")


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    ("bad", "words", "counted"),
    [
        ("length 0", "impossible length", 1),
        ("length 2^31", "impossible length", 1),
        ("longer than the buffer", f"longer than {RECEIVE_BYTES} bytes", 1),
        ("cut by a disconnect", "closed the connection", 0),
    ],
)
def test_a_damaged_stream_is_named_nothing_trades_on_it_and_the_session_begins_anew(
    worlds: Callable[[bool], World], fused: bool, bad: str, words: str, counted: int
) -> None:
    world = worlds(fused)
    heavy = world.lean(AAPL)
    data = {
        "length 0": bytes(4) + heavy,
        "length 2^31": (1 << 31).to_bytes(4, "big") + heavy,
        "longer than the buffer": (RECEIVE_BYTES + 10).to_bytes(4, "big") + bytes(RECEIVE_BYTES + 10) + heavy,
        "cut by a disconnect": heavy[:-3],
    }[bad]

    def step() -> None:
        try:
            world.step()
        except ConnectionError:
            world.gateway.drop()

    def until(holds: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + 60.0
        while not holds():
            step()
            assert time.monotonic() < deadline, f"{what}: {world.events()[-10:]}"

    def written() -> bool:
        nonlocal data
        assert world.gateway.client is not None
        with contextlib.suppress(BlockingIOError):
            data = data[world.gateway.client.send(data) :]
        return not data

    with contextlib.suppress(ConnectionError, AssertionError):  # whoever finds the damage first hangs up
        until(written, "the damage at the bridge")
    if not counted:
        world.settle()
        world.gateway.drop()
    until(lambda: any(words in e for e in world.events()), words)
    until(lambda: world.bridge.counters.get("bad_frames") == counted, "its count")
    assert not world.gateway.orders
    until(lambda: len(world.gateway.depth) == len(STOCKS) and world.bridge.ready(), "the next session")
    assert not world.gateway.orders, "an order without a book"
    world.open_books()
    world.pretend_model()
    until(lambda: (world.play(world.lean(AAPL)), world.gateway.orders)[1], "an order on the new book")


def arrives(hot: HotPath) -> None:
    """Wait until the socket shows something."""
    deadline = time.monotonic() + 30.0
    while not hot.pending():
        assert time.monotonic() < deadline


def test_the_rehearsal_goes_to_the_end_and_leaves_the_world_as_it_is(worlds: Callable[[bool], World]) -> None:
    world = worlds(True)
    world.settle()
    assert world.hot is not None
    world.hot.arm()
    arrays = {**world.hot.arrays, "table": world.hot.table, "flight": world.bridge.flight[0]}
    before = {name: array.tobytes() for name, array in arrays.items()}
    rehearsal = Rehearsal(world.hot.table, world.hot.arrays, AAPL)
    assert [rehearsal.play() > 100 for _ in range(5)] == [True] * 5
    assert [name for name, array in arrays.items() if array.tobytes() != before[name]] == []
    world.settle()
    assert not world.gateway.orders
    rehearsal.close()


def test_a_host_that_polls_rehearses_when_the_agents_have_worked_and_nothing_waits(
    worlds: Callable[[bool], World],
) -> None:
    world = worlds(True)
    hot = world.hot
    assert hot is not None
    hot._rehearsal = Rehearsal(hot.table, hot.arrays, AAPL)
    hot.disarm()
    for _ in range(3):
        hot.turn(world.now(), True)
    assert hot._rehearsal.count == 1
    hot.disarm()
    hot.turn(world.now(), False)
    assert hot._rehearsal.count == 1, "duties are waiting"
    world.gateway.write(world.lean(AAPL))
    arrives(hot)
    hot.turn(world.now(), True)
    assert (hot._rehearsal.count, hot.fused_orders) == (1, 1), "a tick goes first"


def test_the_cards_follow_positions_orders_and_stops(worlds: Callable[[bool], World]) -> None:
    world = worlds(True)
    world.settle()
    hot = world.hot
    assert hot is not None
    world.bridge.accounts.set_open(MSFT, 7.0, 100.0)
    world.bridge.cells.publish_position(MSFT, world.now())
    hot.arm()
    assert hot.arrays["cards"][MSFT]["held_qty"] == 7.0
    world.play(world.lean(AAPL))
    order_sent(world)
    hot.arm()
    assert [int(c["orders"]) for c in hot.arrays["cards"][[AAPL, MSFT]]] == [1, 0]
    world.stop.value[0]["pause"] = 1
    world.stop.publish()
    hot.arm()
    assert [int(c["clear"]) for c in hot.arrays["cards"][[AAPL, MSFT]]] == [0, 0]


def test_ticks_are_read_without_going_back_to_the_agents(worlds: Callable[[bool], World]) -> None:
    world = worlds(True)
    world.settle()
    hot = world.hot
    assert hot is not None
    hot.arm()
    before = world.bridge.ticks.tail
    sizes = (510, 520, 530)
    for size in sizes:
        world.gateway.write(world.gateway.row(MSFT, ASK, 3, 101.04, size))
        arrives(hot)
        flags = hot_path.k.turn(hot.table.ctypes.data, 1_000_000)
        assert flags == hot_path.F.WORK
    assert world.bridge.ticks.tail == before + len(sizes)
    assert world.ml.ticks.waiting == 0


def test_a_stop_and_a_lease_that_is_lost_call_for_the_duties_at_once(worlds: Callable[[bool], World]) -> None:
    """A host that polls does its duties rarely: what can't wait for them, the compiled loop has to see."""
    world = worlds(True)
    world.settle()
    hot = world.hot
    assert hot is not None
    hot._spin_ns = 2_000_000_000

    def what_follows(deed: Callable[[], None]) -> bool:
        hot.arm()
        assert not hot.hurry()
        timer = threading.Timer(0.05, deed)
        timer.start()
        hot.turn(world.now(), True)
        timer.join()
        return hot.hurry()

    def pause() -> None:
        world.stop.value[0]["pause"] = 1
        world.stop.publish()

    assert what_follows(pause)
    world.renew()  # valid for 250 ms
    assert what_follows(lambda: None), "the lease has run out"
