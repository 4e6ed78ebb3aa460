"""ml-service, driven by hand: readiness, books, signals, lost ticks, restarts, and which model may serve."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.domain.codes import CommandKind, EventKind, TickKind
from engine.domain.instruments import SIM_INDEX, SIM_UNIVERSE
from engine.model.bundle import Registry
from engine.model.history import ticks_of
from engine.model.params import Model
from engine.model.train import train_synthetic
from engine.paper.market.synthetic import SyntheticMarket
from engine.paper.port import MARKET_EVENT
from engine.procs.ml_service import COLLECT, OBSERVE, MlService, create
from engine.runtime.testing import TestInstance, instance
from shm.layouts import SIGNAL_BAR, SIGNAL_VALID, TICK

S = 1_000_000_000
STEP_NS = 5_000_000


class Rig:
    """An instance with a bridge that writes the paper market's ticks and an ml-service that reads them."""

    def __init__(self, inst: TestInstance) -> None:
        self.inst = inst
        self.bridge = inst.context("broker-bridge")
        self.ticks = self.bridge.ring_writer("ticks")
        self.books = self.bridge.cell_reader("book")
        self.models = inst.context("algo").cell_reader("model")
        self.signals = inst.context("algo").ring_reader("signals", 1 << 15)
        self.events = inst.context("recorder").ring_reader("events.ml-service", 1024)
        self.commands = inst.context("cockpit").ring_writer("commands.operator")
        self.market = SyntheticMarket(SIM_UNIVERSE, SIM_INDEX, 3, 10, start_ns=self.now, messages_per_s=1000.0)
        self.buffer = np.zeros(1 << 16, MARKET_EVENT)
        self.registry = Registry(inst.config.state_dir / "models")

    @property
    def now(self) -> int:
        return self.inst.clock.now_ns()

    def start(self) -> MlService:
        service = create(self.inst.context("ml-service"))
        service.on_start(self.now)
        return service

    def trade(self, seconds: float, service: MlService | None, *, write: bool = True) -> None:
        """Let the market run; without a service the ticks pile up, without ``write`` they are lost."""
        for n in range(int(seconds * S) // STEP_NS):
            now = self.inst.clock.advance(STEP_NS) or self.now
            self.market.advance(now)
            count = self.market.poll(self.buffer)
            if count and write:
                self.ticks.publish(ticks_of(self.buffer[:count]))
            if service is not None:
                service.do_work(now)
                if n % 4 == 0:
                    service.housekeeping(now)

    def texts(self, kind: EventKind) -> list[tuple[int, str]]:
        return [(int(e["code"]), e["text"].decode()) for e in self.events.poll() if e["kind"] == kind]


@pytest.fixture(scope="module")
def model() -> Model:
    return train_synthetic(SIM_UNIVERSE[:4], seed=5, hours=0.35, restarts=1)


def rig_with(tmp_path: Path, model: Model | None, **instance_options: object) -> Rig:
    mode = str(instance_options.get("mode", "sim"))
    overrides: dict[str, dict[str, object]] = {"instance": {"mode": mode}}
    if mode == "paper":
        stocks = [{"symbol": i.symbol} for i in SIM_UNIVERSE]
        overrides |= {"gateway": {"account": "DU1"}, "universe": {"stocks": stocks}}
    rig = Rig(instance(tmp_path / "var", overrides))
    if model is not None:
        rig.registry.promote(rig.registry.add(model).version)
    return rig


@pytest.fixture
def rig(tmp_path: Path, model: Model) -> Iterator[Rig]:
    r = rig_with(tmp_path, model)
    yield r
    r.inst.close()


def test_ready_once_every_book_is_valid_and_signals_turn_valid_after_the_warm_up(rig: Rig) -> None:
    service = rig.start()
    assert not service.ready()
    rig.trade(1, service)
    assert service.ready()
    early = rig.signals.poll().copy()
    assert len(early) > 0
    assert not (early["flags"] & SIGNAL_VALID).any()
    rig.trade(44, service)
    late = rig.signals.poll()
    bars = late[(late["flags"] & SIGNAL_BAR) > 0]
    assert len(bars) == 4 * 8  # one signal per stock and bar
    assert (bars["flags"][-8:] & SIGNAL_VALID).all()
    assert (late["t_signal_ns"] >= late["t_socket_ns"]).all()
    cell = rig.models.read(0)
    assert (int(cell["bars"]), int(cell["warming"]), int(cell["valid"])) == (4, 0, 1)
    book = rig.books.read(0)
    bids, asks = rig.market.snapshot(0)
    assert book["bid_price"][: len(bids)].tolist() == bids[:, 0].tolist()
    assert book["ask_size"][: len(asks)].tolist() == asks[:, 1].tolist()
    assert book["fair_value"] == pytest.approx(float(book["mid"]), rel=0.01)
    assert rig.books.read(8)["mid"] > 30_000  # the index


def test_a_restart_rebuilds_books_and_regimes_from_the_ring(rig: Rig) -> None:
    first = rig.start()
    rig.trade(40, first)
    before = rig.models.read(2).copy()
    second = rig.start()
    assert second.ready()
    after = rig.models.read(2)
    assert after["bars"] == before["bars"]
    assert after["probability"].tolist() == before["probability"].tolist()


def test_a_restart_after_the_ring_was_lapped_waits_for_the_feed_to_reset_the_books(rig: Rig) -> None:
    first = rig.start()
    rig.trade(1, first)
    idle = np.zeros(50_000, TICK)
    idle["t_socket_ns"], idle["kind"], idle["symbol"], idle["price"] = rig.now, TickKind.INDEX, 8, 40_000.0
    for _ in range(6):
        rig.ticks.publish(idle)
    second = rig.start()
    assert not second.ready()
    assert rig.books.read(0)["valid"] == 0


def test_lost_ticks_void_every_book_and_say_so(rig: Rig) -> None:
    service = rig.start()
    rig.trade(1, service)
    idle = np.zeros(50_000, TICK)
    idle["t_socket_ns"], idle["kind"], idle["symbol"], idle["price"] = rig.now, TickKind.INDEX, 8, 40_000.0
    for _ in range(7):
        rig.ticks.publish(idle)
    service.do_work(rig.now)
    assert rig.books.read(0)["valid"] == 0
    texts = [text for _, text in rig.texts(EventKind.CONNECTIVITY)]
    assert any("ticks lost" in text for text in texts)
    assert any("book invalid AAPL" in text for text in texts)


def test_a_silent_feed_turns_books_invalid_without_a_tick(rig: Rig) -> None:
    service = rig.start()
    rig.trade(1, service)
    rig.trade(6, service, write=False)
    assert rig.books.read(0)["valid"] == 0


def test_without_a_model_books_are_published_but_it_is_not_ready(tmp_path: Path, model: Model) -> None:
    rig = rig_with(tmp_path, None)
    service = rig.start()
    rig.trade(1, service)
    assert rig.books.read(0)["valid"] == 1
    assert not service.ready()
    problems = rig.texts(EventKind.MODEL)
    assert len(problems) == 1
    assert "l2dash retrain" in problems[0][1]
    rig.registry.promote(rig.registry.add(model).version)
    rig.trade(1.5, service)
    assert service.ready()
    rig.inst.close()


def test_a_corrupt_current_model_is_named_and_the_previous_one_serves(rig: Rig, model: Model) -> None:
    rig.registry.promote(rig.registry.add(model).version)
    rig.registry.path(2).write_bytes(b"damaged")
    service = rig.start()
    assert service.filter.model is not None
    assert service.filter.model.version == 1
    assert any(code == 3 and "model-000002" in text for code, text in rig.texts(EventKind.MODEL))


def test_a_promoted_model_is_taken_over_at_the_next_bar_end(rig: Rig, model: Model) -> None:
    service = rig.start()
    rig.trade(2, service)
    rig.registry.promote(rig.registry.add(model).version)
    rig.trade(1, service)
    assert service.filter.model is not None
    assert service.filter.model.version == 1
    rig.trade(8, service)
    assert service.filter.model.version == 2
    assert rig.models.read(0)["model_id"] == 2


def _swap(rig: Rig, version: int) -> None:
    record = rig.commands.record
    record["command_id"], record["kind"], record["arg"] = 77, CommandKind.SWAP_MODEL, version
    rig.commands.publish_record()


def test_a_swap_command_is_answered_and_a_bad_one_keeps_the_incumbent(rig: Rig, model: Model) -> None:
    service = rig.start()
    rig.registry.add(model)
    rig.registry.add(replace(model, schema="0:other"))
    _swap(rig, 2)
    rig.trade(11, service)
    assert service.filter.model is not None
    assert service.filter.model.version == 2
    assert [code for code, _ in rig.texts(EventKind.COMMAND_RESULT)] == [0]
    _swap(rig, 3)
    rig.trade(11, service)
    assert service.filter.model.version == 2
    ((code, text),) = rig.texts(EventKind.COMMAND_RESULT)
    assert code == 1
    assert "0:other" in text


def test_paper_refuses_a_synthetic_model_unless_it_only_observes_or_collects(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = rig_with(tmp_path, model, mode="paper")
    service = rig.start()
    rig.trade(1, service)
    assert not service.ready()
    assert any("--collect" in text and "--observe" in text for _, text in rig.texts(EventKind.MODEL))
    monkeypatch.setenv(COLLECT, "1")
    assert rig.start().ready()
    monkeypatch.delenv(COLLECT)
    monkeypatch.setenv(OBSERVE, "1")
    assert rig.start().filter.model is not None
    monkeypatch.delenv(OBSERVE)
    rig.registry.promote(rig.registry.add(replace(model, provenance="recorded")).version)
    assert rig.start().ready()
    rig.inst.close()


def test_a_model_of_another_bar_length_is_refused(tmp_path: Path, model: Model) -> None:
    rig = rig_with(tmp_path, replace(model, bar_s=5.0))
    service = rig.start()
    assert service.filter.model is None
    assert any("model.bar_s" in text for _, text in rig.texts(EventKind.MODEL))
    rig.inst.close()
