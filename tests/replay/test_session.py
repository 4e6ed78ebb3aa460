"""A day that the test itself records, replayed: what ml-service makes of it must come out again."""

from __future__ import annotations

import json
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from replay_world import InAndOut, replay_model

from engine.cli.errors import run
from engine.config import Config
from engine.domain.codes import EventKind, ExecKind, OrderState, Owner, Source
from engine.domain.instruments import SIM_UNIVERSE
from engine.model.bundle import Registry
from engine.model.history import ticks_of
from engine.paper.market.synthetic import SyntheticMarket
from engine.paper.port import MARKET_EVENT
from engine.procs.algo import Algo
from engine.procs.ml_service import MlService
from engine.procs.recorder import create
from engine.replay.pages import show
from engine.replay.session import NoTicks, compare, portions, recorded_signals, replay
from engine.runtime.testing import TestInstance, instance
from engine.store.read import recorded_days
from shm.layouts import SIGNAL_BAR

STOCKS = ("AAPL", "MSFT")
STEP_NS = 7_000_000
SECONDS = 95


@dataclass
class Day:
    """``intents`` that the strategy asked for, each of which was filled at once."""

    config: Config
    date: int
    ticks: int
    signals: int
    intents: int


class Filler:
    """Plays the broker's side: a lease, and every order filled at its limit as soon as it is asked for."""

    def __init__(self, world: TestInstance) -> None:
        bridge = world.context("broker-bridge")
        self.ticks = bridge.ring_writer("ticks")
        self._events, self._executions = bridge.events, bridge.ring_writer("executions")
        self._positions, self._orders = bridge.cell_writer("positions"), bridge.ring_reader("orders.algo")
        self._lease = world.context("watchdog").cell_writer("lease")
        self._clock = world.clock
        self.intents = 0

    def turn(self) -> None:
        now_ns = self._clock.now
        lease = self._lease.value[0]
        lease["owner"], lease["epoch"], lease["expires_ns"] = Owner.BRIDGE, 1, now_ns + 1_000_000_000
        self._lease.publish()
        for intent in self._orders.poll().copy():
            self.intents += 1
            symbol, side, qty, price = (intent[k].item() for k in ("symbol", "side", "qty", "limit_price"))
            about = {"symbol": symbol, "source": Source.ALGO, "ref_id": int(intent["intent_id"]), "ref2": self.intents}
            self._events.emit(EventKind.ORDER_STATE, OrderState.SENT, value=0.0, qty=side * qty, limit=price, **about)
            self._executions.record[0] = (
                0, now_ns, self._clock.wall_ns(now_ns), symbol, side, ExecKind.FILL, Source.ALGO, 0, 0,
                b"e.%d.01" % self.intents, self.intents, self.intents, intent["intent_id"], qty, price, qty,
                np.nan, np.nan,
            )  # fmt: skip
            self._executions.publish_record()
            held = self._positions.value[symbol]
            held["qty"] += side * qty
            held["cash_flow_usd"] -= side * qty * price
            self._positions.publish(symbol)
            self._events.emit(EventKind.ORDER_STATE, OrderState.FILLED, value=qty, qty=side * qty, limit=price, **about)


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """A minute and a half of two stocks, recorded by the real recorder while the real ml-service and algo run."""
    state = tmp_path_factory.mktemp("day") / "state"
    sections = {
        "universe": {"stocks": [{"symbol": s} for s in STOCKS], "index": "none"},
        "recorder": {"min_free_bytes": 1},
    }
    registry = Registry(state / "models")
    registry.promote(registry.add(replay_model()).version)
    with instance(state, sections) as world:
        clock = world.clock
        recorder = create(world.context("recorder"))
        recorder.on_start(clock.now)
        broker = Filler(world)
        broker.turn()
        ml = MlService(world.context("ml-service"))
        algo = Algo(world.context("algo"), InAndOut())
        for agent in (ml, algo):
            agent.on_start(clock.now)
        market = SyntheticMarket(SIM_UNIVERSE[:2], None, 3, 10, start_ns=clock.now, messages_per_s=300.0)
        out = np.zeros(1 << 14, MARKET_EVENT)
        end = clock.now + SECONDS * 1_000_000_000
        published, turn = 0, 0
        while clock.now < end:
            clock.advance(STEP_NS)
            market.advance(clock.now)
            ticks = ticks_of(out[: market.poll(out)])
            ticks["t_socket_ns"] = clock.now
            ticks["t_decoded_ns"] = clock.now
            broker.ticks.publish(ticks)
            published += len(ticks)
            ml.do_work(clock.now)
            algo.do_work(clock.now)
            broker.turn()
            turn += 1
            if turn % 3 == 0:
                ml.housekeeping(clock.now)
                algo.housekeeping(clock.now)
                recorder.do_work(clock.now)
                recorder.housekeeping(clock.now)
        recorder.on_close(clock.now)
        signals = world.context("cockpit").ring_reader("signals")
        signals.seek(0)
        (date,) = recorded_days(state)
        yield Day(world.config, date, published, signals.waiting, broker.intents)


def test_every_recorded_bar_comes_out_as_it_was(day: Day) -> None:
    found = replay(day.config, day.date)
    assert found.summary.ticks == day.ticks
    assert found.comparison.bars_recorded >= 2 * (SECONDS // 10 - 1)
    assert found.comparison.bars_differ == 0, found.comparison.differ_first
    assert found.reproduced
    assert (found.lives, found.lost_ticks, found.missing_models) == (1, 0, ())


def test_the_strategy_asks_again_for_the_orders_of_the_day(day: Day) -> None:
    found = replay(day.config, day.date, strategy=InAndOut)
    asked = found.comparison
    assert found.summary.fills == asked.intents_recorded == day.intents > 10
    assert asked.intents_same >= 0.9 * day.intents
    assert asked.intents_replayed <= 1.1 * day.intents


def test_a_replay_gives_the_same_twice(day: Day) -> None:
    first, second = (replay(day.config, date, strategy=InAndOut) for date in (day.date, str(day.date)))
    assert first.comparison == second.comparison
    assert first.signals_replayed == second.signals_replayed > 0


def test_a_signal_that_was_recorded_otherwise_is_found_and_named(day: Day) -> None:
    recorded = recorded_signals(day.config.state_dir, day.date)
    bars = recorded[(recorded["flags"] & SIGNAL_BAR) != 0]
    wrong = bars.copy()
    wrong["confidence"][3] += 0.25
    total, same, differ, first = compare(wrong, bars, 10.0)
    assert (total, same, differ) == (len(bars), len(bars) - 1, 1)
    assert "confidence" in first


def test_ticks_come_back_in_one_life_without_a_gap(day: Day) -> None:
    found = list(portions(day.config.state_dir, day.date))
    assert {p.life for p in found} == {0}
    assert not any(p.lost for p in found)
    assert sum(len(p.ticks) for p in found) == day.ticks


def test_the_record_is_not_touched(day: Day) -> None:
    def files() -> dict[Path, int]:
        found = (p for p in Path(day.config.state_dir).rglob("*") if p.is_file())
        # the index of the write-ahead log is touched by whoever reads the journal
        return {p: p.stat().st_mtime_ns for p in found if not p.name.endswith("-shm")}

    before = files()
    replay(day.config, day.date)
    assert files() == before


def test_a_day_without_ticks_is_refused_by_name(day: Day) -> None:
    with pytest.raises(NoTicks, match="20200101"):
        replay(day.config, "2020-01-01")


def test_the_command_prints_the_comparison_and_exits_three_without_ticks(
    day: Day, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from engine.cli import settings
    from engine.cli.app import app

    monkeypatch.setattr(settings, "running", lambda *_: day.config)
    name = f"{day.date // 10000}-{day.date // 100 % 100:02d}-{day.date % 100:02d}"
    assert run(app, ["replay", name]) == 0
    assert "every recorded bar came out as it was recorded" in capsys.readouterr().out
    assert run(app, ["replay", "2020-01-01"]) == 3
    assert run(app, ["replay", "yesterday"]) == 2
    assert run(app, ["replay"]) == 0
    assert name in capsys.readouterr().out


def test_the_pages_show_the_recorded_day_and_nothing_can_be_sent(day: Day) -> None:
    pages = structs.replace(day.config.cockpit, port=0, health_port=0)
    said: queue.Queue[str] = queue.Queue()
    stopped = threading.Event()
    work = threading.Thread(
        target=show,
        args=(structs.replace(day.config, cockpit=pages), day.date),
        kwargs={"speed": 100.0, "skip_s": 60.0, "say": said.put, "stopped": stopped},
    )
    work.start()
    try:
        assert "REPLAY" in said.get(timeout=60)
        base, _, key = said.get(timeout=60).split()[-1].partition("/cockpit#k=")
        visitor = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())

        def call(path: str, body: dict[str, object] | None = None) -> tuple[int, dict[str, Any]]:
            headers = {"Content-Type": "application/json", "X-L2Dash": "1", "Origin": base}
            data = None if body is None else json.dumps(body).encode()
            try:
                with visitor.open(
                    urllib.request.Request(base + path, data=data, headers=headers), timeout=20
                ) as answer:
                    return answer.status, json.load(answer)
            except urllib.error.HTTPError as error:
                return error.code, json.load(error)

        assert call("/api/login", {"k": key})[0] == 200
        for path in ("order", "flatten-all", "pause", "cancel", "arm"):
            status, answer = call(f"/api/exec/{path}", {"symbol": "AAPL", "qty": 1, "side": "BUY", "type": "MKT"})
            assert (status, answer["guardrail"]) == (409, "REPLAY"), path
        assert "ended" in said.get(timeout=120)
        state = call("/api/state")[1]
        assert state["mode"] == "REPLAY"
        assert len(state["fills"]) == day.intents
        assert state["account"]["day_pnl_usd"] != 0.0
        assert {m["symbol"] for m in state["models"] if m["model_id"]} == set(STOCKS)
    finally:
        stopped.set()
        work.join(30)
    assert not work.is_alive()
