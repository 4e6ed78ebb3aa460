"""algo, driven by hand: from a signal to an intent, verdicts back, stops, refusals, restarts, other people's shares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.domain.codes import (
    EventKind,
    ExecKind,
    IntentFlag,
    IntentKind,
    OrderState,
    Refusal,
    Side,
    Source,
    TimeInForce,
)
from engine.procs.algo import EXPIRY_NS, Algo, create
from engine.runtime.testing import TestInstance, instance
from shm.layouts import SIGNAL, SIGNAL_VALID

MS, S = 1_000_000, 1_000_000_000


class Rig:
    """The services around algo as their cells and rings."""

    def __init__(self, inst: TestInstance) -> None:
        self.inst = inst
        bridge, ml, watchdog = (inst.context(n) for n in ("broker-bridge", "ml-service", "watchdog"))
        self.bridge = bridge
        self.orders = bridge.ring_reader("orders.algo")
        self.executions = bridge.ring_writer("executions")
        self.positions = bridge.cell_writer("positions")
        self.signals = ml.ring_writer("signals")
        self.books, self.models = ml.cell_writer("book"), ml.cell_writer("model")
        self.lease, self.stop = watchdog.cell_writer("lease"), watchdog.cell_writer("stop.watchdog")
        self.guardrails = watchdog.cell_writer("guardrails")
        inst.clock.advance(100 * S)
        for s in range(8):
            self.book(s, 900.0, 100.0)
            model = self.models.value[s]
            model["valid"], model["states"], model["confidence_ema"], model["model_id"] = 1, 3, 0.95, 1
            self.models.publish(s)
        self.lease.value[0]["expires_ns"] = 1 << 62
        self.lease.value[0]["epoch"] = 4
        self.lease.publish()

    @property
    def now(self) -> int:
        return self.inst.clock.now_ns()

    def book(self, symbol: int, bid_size: float, ask_size: float, bid: float = 100.0) -> None:
        b, ask = self.books.value[symbol], bid + 0.01
        b["valid"], b["bid_rows"], b["ask_rows"] = 1, 1, 1
        b["bid_price"][0], b["ask_price"][0], b["bid_size"][0], b["ask_size"][0] = bid, ask, bid_size, ask_size
        b["mid"], b["spread_median_bps"] = bid + 0.005, 1.0
        b["micro_price"] = (ask * bid_size + bid * ask_size) / (bid_size + ask_size)
        self.books.publish(symbol)

    def signal(self, algo: Algo, symbol: int = 0, flags: int = SIGNAL_VALID) -> np.ndarray:
        """One signal through algo; returns the intents it wrote."""
        record = np.zeros(1, SIGNAL)
        record["symbol"], record["flags"], record["t_signal_ns"] = symbol, flags, self.now
        record["t_socket_ns"] = self.now - 20_000
        self.signals.publish(record)
        algo.do_work(self.now)
        return self.intents()

    def intents(self) -> np.ndarray:
        return self.orders.poll().copy()

    def verdict(self, intent: np.void, state: OrderState, filled: float = 0.0) -> None:
        self.bridge.events.emit(
            EventKind.ORDER_STATE, state, symbol=int(intent["symbol"]), source=Source.ALGO,
            ref_id=int(intent["intent_id"]), ref2=5, value=filled,
        )  # fmt: skip

    def refuse(self, intent: np.void, why: Refusal) -> None:
        self.bridge.events.emit(
            EventKind.REFUSED, why, symbol=int(intent["symbol"]), source=Source.ALGO, ref_id=int(intent["intent_id"])
        )

    def fill(self, symbol: int, qty: float, source: Source = Source.ALGO, price: float = 100.0) -> None:
        record = self.executions.record
        record["symbol"], record["kind"], record["source"] = symbol, ExecKind.FILL, source
        record["side"], record["qty"], record["price"] = (1 if qty > 0 else -1), abs(qty), price
        self.executions.publish_record()
        p = self.positions.value[symbol]
        p["qty"] += qty
        p["cash_flow_usd"] -= qty * price
        self.positions.publish(symbol)

    def start(self) -> Algo:
        algo = create(self.inst.context("algo"))
        algo.on_start(self.now)
        return algo

    def wait(self, algo: Algo, ns: int, step_ns: int = 20 * MS) -> np.ndarray:
        """Let time pass with housekeeping only; returns the intents it wrote."""
        found = []
        for _ in range(ns // step_ns):
            self.inst.clock.advance(step_ns)
            algo.do_work(self.now)
            algo.housekeeping(self.now)
            found.append(self.intents())
        return np.concatenate(found)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with instance(tmp_path / "var") as inst:
        yield Rig(inst)


def test_a_signal_becomes_an_intent_that_carries_its_cause(rig: Rig) -> None:
    algo = rig.start()
    (intent,) = rig.signal(algo)
    assert (intent["kind"], intent["side"], intent["limit_price"]) == (IntentKind.NEW, Side.BUY, 100.0)
    assert intent["qty"] * 100.01 <= rig.inst.config.strategy.order_usd
    assert intent["t_socket_ns"] == rig.now - 20_000
    assert intent["expires_ns"] == rig.now + EXPIRY_NS
    assert (intent["source"], intent["epoch"]) == (Source.ALGO, 4)
    assert len(rig.signal(algo)) == 0  # it works already


def test_an_order_that_is_not_filled_is_cancelled_after_its_time(rig: Rig) -> None:
    algo = rig.start()
    (intent,) = rig.signal(algo)
    rig.verdict(intent, OrderState.SENT)
    cancels = rig.wait(algo, 4 * S)
    assert cancels["kind"].tolist() == [IntentKind.CANCEL]
    assert cancels["target_id"].tolist() == [intent["intent_id"]]
    rig.verdict(intent, OrderState.CANCELLED)
    assert len(rig.wait(algo, 1 * S)) == 0
    assert len(algo.ledger) == 0


def test_a_fill_is_closed_again_with_reducing_orders_only(rig: Rig) -> None:
    algo = rig.start()
    (intent,) = rig.signal(algo)
    rig.verdict(intent, OrderState.SENT)
    rig.fill(0, float(intent["qty"]))
    rig.verdict(intent, OrderState.FILLED, float(intent["qty"]))
    (offer,) = rig.signal(algo)
    assert (offer["side"], offer["qty"], offer["flags"]) == (Side.SELL, intent["qty"], IntentFlag.REDUCE_ONLY)
    rig.verdict(offer, OrderState.SENT)
    later = rig.wait(algo, 20 * S)
    assert later["kind"].tolist() == [IntentKind.CANCEL]  # the longest hold has passed: it makes way
    rig.verdict(offer, OrderState.CANCELLED)
    (take,) = rig.wait(algo, 40 * MS)
    assert (take["tif"], take["side"], take["qty"]) == (TimeInForce.IOC, Side.SELL, intent["qty"])
    assert take["limit_price"] < 100.0


@pytest.mark.parametrize("field", ["kill", "pause", "block", "symbol_block"])
def test_no_intent_while_a_stop_holds_but_entries_are_cancelled(rig: Rig, field: str) -> None:
    algo = rig.start()
    (intent,) = rig.signal(algo)
    rig.verdict(intent, OrderState.SENT)
    rig.stop.value[0][field] = 1
    rig.stop.publish()
    found = rig.wait(algo, 100 * MS)
    assert found["kind"].tolist() == [IntentKind.CANCEL]
    rig.verdict(intent, OrderState.CANCELLED)
    rig.inst.clock.advance(10 * S)
    assert len(rig.signal(algo)) == 0


def test_a_stop_set_after_housekeeping_looked_is_seen_before_the_intent_is_written(rig: Rig) -> None:
    algo = rig.start()
    rig.stop.value[0]["pause"] = 1
    rig.stop.publish()
    assert len(rig.signal(algo)) == 0


def test_no_intent_without_a_lease_or_with_a_signal_that_is_not_valid(rig: Rig) -> None:
    algo = rig.start()
    assert len(rig.signal(algo, flags=0)) == 0
    rig.inst.clock.advance(10 * S)
    rig.lease.value[0]["expires_ns"] = rig.now
    rig.lease.publish()
    assert len(rig.signal(algo)) == 0


def test_refusals_slow_it_down_instead_of_making_a_storm(rig: Rig) -> None:
    algo = rig.start()
    written = 0
    for _ in range(2_000):  # ten seconds of signals, every order refused
        rig.inst.clock.advance(5 * MS)
        for intent in rig.signal(algo):
            written += 1
            rig.refuse(intent, Refusal.ORDER_NOTIONAL)
        algo.housekeeping(rig.now)
    assert 1 <= written <= 4


def test_all_symbols_at_once_stay_far_below_the_runaway_limit(rig: Rig) -> None:
    algo = rig.start()
    times = []
    for n in range(1_600):
        rig.inst.clock.advance(5 * MS)
        for intent in rig.signal(algo, symbol=n % 8):
            times.append(rig.now)
            rig.verdict(intent, OrderState.SENT)
            rig.verdict(intent, OrderState.CANCELLED)
        algo.housekeeping(rig.now)
    busiest = max(sum(1 for t in times if 0 <= t - begin < S) for begin in times)
    assert busiest <= 10


def test_a_restarted_algo_knows_its_own_shares_and_leaves_other_peoples_alone(rig: Rig) -> None:
    rig.fill(0, 40.0, Source.ALGO)
    rig.fill(1, 40.0, Source.OPERATOR)
    rig.fill(2, 40.0, Source.ALGO)
    rig.fill(2, -40.0, Source.WATCHDOG)
    rig.fill(2, 15.0, Source.OPERATOR)
    for s in range(8):
        rig.book(s, 500.0, 480.0)  # no imbalance: nothing to enter
    algo = rig.start()
    assert [algo.own.of(s, float(rig.positions.value[s]["qty"])) for s in range(3)] == [40.0, 0.0, 0.0]
    offers = [rig.signal(algo, symbol=s) for s in range(3)]
    assert [len(o) for o in offers] == [1, 0, 0]
    assert (offers[0][0]["side"], offers[0][0]["qty"]) == (Side.SELL, 40.0)


def test_it_stops_for_the_day_at_its_own_loss_and_says_so(rig: Rig) -> None:
    algo = rig.start()
    p = rig.positions.value[3]
    p["cash_flow_usd"], p["commissions_usd"] = -2_450.0, 60.0
    rig.positions.publish(3)
    rig.wait(algo, 200 * MS)
    assert len(rig.signal(algo)) == 0
    p["cash_flow_usd"] = 0.0  # a correction does not start it again
    rig.positions.publish(3)
    rig.wait(algo, 200 * MS)
    assert len(rig.signal(algo)) == 0
    alerts = [e for e in rig.inst.context("recorder").ring_reader("events.algo").poll() if e["kind"] == EventKind.ALERT]
    assert len(alerts) == 1
    assert b"-2510 USD after costs" in alerts[0]["text"]
    rig.guardrails.value[0]["session_date"] = 20240103
    rig.guardrails.publish()
    rig.wait(algo, 200 * MS)
    assert len(rig.signal(algo)) == 1


def test_an_orderly_stop_cancels_own_entries(rig: Rig) -> None:
    algo = rig.start()
    (intent,) = rig.signal(algo)
    rig.verdict(intent, OrderState.SENT)
    algo.do_work(rig.now)
    algo.on_close(rig.now)
    (cancel,) = rig.intents()
    assert (cancel["kind"], cancel["target_id"]) == (IntentKind.CANCEL, intent["intent_id"])


def test_exposure_counts_orders_that_the_bridge_has_not_seen_yet(rig: Rig) -> None:
    algo = rig.start()
    (intent,) = rig.signal(algo)
    rig.wait(algo, 120 * MS)
    assert algo._gross_usd == pytest.approx(float(intent["qty"]) * 100.005)
