"""What is shown, from cells, on a clock that stands still; the blotter from events and executions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from cockpit_plant import Plant

from engine.cockpit.blotter import Blotter, fill_key
from engine.cockpit.durable import DurableLog
from engine.cockpit.history import History
from engine.cockpit.services import Services
from engine.cockpit.tail import Tail
from engine.cockpit.view import View
from engine.domain.codes import Badge, BadgeState, ExecKind, OrderState, Source


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    plant = Plant(tmp_path / "state")
    yield plant
    plant.close()


@pytest.fixture
def view(plant: Plant) -> View:
    view = View(plant.instance.context("cockpit"))
    view.refresh(plant.clock.now_ns())
    return view


def fresh(view: View) -> View:
    view.refresh(view.clock.now_ns())
    return view


def test_eight_badges_in_their_order_with_value_limit_and_reason(view: View) -> None:
    badges = view.guardrails()
    assert [b["name"] for b in badges] == ["SPREAD", "POS", "COOL", "LAT", "DD", "KILL", "CONF", "DRIFT"]
    for badge in badges:
        assert {"name", "state", "value", "limit", "unit", "since", "reason", "symbols"} <= badge.keys()
        assert badge["state"] == "OK"


def test_dd_speaks_in_percent_while_it_speaks_of_the_index(plant: Plant, view: View) -> None:
    assert view.guardrails()[Badge.DD]["unit"] == "USD"
    plant.badge(Badge.DD, BadgeState.WARN, 1.7, 2.0, "index moved -1.70 % of 2 %")
    assert fresh(view).guardrails()[Badge.DD]["unit"] == "%"
    plant.instance.clock.advance(3 * 10**9)
    assert fresh(view).guardrails()[Badge.DD]["unit"] == "%", "also when the watchdog's silence is put in front"


def test_a_silent_watchdog_makes_every_badge_stale(plant: Plant, view: View) -> None:
    plant.badge(Badge.DD, BadgeState.TRIPPED, 5100, 5000, "5,100 below the peak")
    plant.instance.clock.advance(3 * 10**9)
    states = {b["name"]: (b["state"], b["reason"]) for b in fresh(view).guardrails()}
    assert states["DD"][0] == "TRIPPED", "a trip is not forgotten"
    assert {s for n, (s, _) in states.items() if n != "DD"} == {"STALE"}
    assert "watchdog" in states["SPREAD"][1]


def test_an_instance_where_nobody_has_spoken_is_not_green(tmp_path: Path) -> None:
    from engine.runtime.testing import instance

    with instance(tmp_path / "s") as empty:
        view = View(empty.context("cockpit"))
        view.refresh(empty.clock.now_ns())
        state = view.state()
        assert {b["state"] for b in state["guardrails"]} == {"STALE"}
        assert state["trading_state"]["state"] == "BLOCKED"
        assert state["account"]["equity_usd"] is None
        assert state["positions"][0]["mid"] is None
        orjson.dumps(state)


def test_an_expired_lease_blocks_by_itself(plant: Plant, view: View) -> None:
    assert view.trading_state() == {"state": "ACTIVE", "reasons": [], "blocked_symbols": [], "killed_at": None}
    plant.instance.clock.advance(300_000_000)
    state = fresh(view).trading_state()
    assert state["state"] == "BLOCKED"
    assert "lease" in state["reasons"][0]


def test_kill_wins_over_pause_and_says_what_latched_it(plant: Plant, view: View) -> None:
    plant.stop.value[0]["pause"] = 1
    plant.stop.publish()
    assert fresh(view).trading_state()["state"] == "PAUSED"
    plant.kill(Badge.POS)
    state = fresh(view).trading_state()
    assert state["state"] == "KILLED"
    assert "latched by POS" in state["reasons"][0]


def test_a_symbol_block_leaves_the_others_active(plant: Plant, view: View) -> None:
    plant.stop.value[0]["symbol_block"] = 0b101
    plant.stop.publish()
    state = fresh(view).trading_state()
    assert (state["state"], state["blocked_symbols"]) == ("ACTIVE", ["AAPL", "AMZN"])


def test_a_position_is_marked_at_mid_against_its_limit(plant: Plant, view: View) -> None:
    plant.position(0, -200, 151.0)
    row = fresh(view).positions()[0]
    assert row["exposure_usd"] == pytest.approx(-200 * row["mid"])
    assert row["unrealized_usd"] == pytest.approx(-200 * (row["mid"] - 151.0))
    assert row["used"] == pytest.approx(200 * row["mid"] / 100_000)
    assert (row["symbol"], row["limit_usd"]) == ("AAPL", 100_000.0)


def test_the_index_is_shown_by_its_common_name_and_never_as_a_position(view: View) -> None:
    assert view.quotes()[-1]["symbol"] == "DJI"
    assert view.index_of("INDU") == view.index_of("DJI") == 8
    assert "DJI" not in {p["symbol"] for p in view.positions()}


def test_unknown_numbers_are_null_in_json(plant: Plant, view: View) -> None:
    plant.books.value[0]["fair_value"] = math.nan
    plant.books.publish(0)
    plant.guardrails.value[0]["badges"][Badge.DRIFT]["value"] = math.nan
    plant.guardrails.publish()
    state = orjson.loads(orjson.dumps(fresh(view).state(), option=orjson.OPT_SERIALIZE_NUMPY))
    assert state["quotes"][0]["fair_value"] is None
    assert state["guardrails"][7]["value"] is None


def test_drawdown_is_against_the_binding_limit(plant: Plant, view: View) -> None:
    g = plant.guardrails.value[0]
    g["day_start_usd"], g["peak_usd"], g["equity_usd"] = 60_000, 61_000, 59_000
    plant.guardrails.publish()
    account = fresh(view).account()
    assert (account["drawdown_usd"], account["drawdown_limit_usd"]) == (2_000.0, 3_000.0)


def test_services_say_hung_down_and_stopped(plant: Plant) -> None:
    services = Services(plant.instance.context("cockpit"))
    now = plant.instance.clock.advance(2 * 10**9)
    plant.beats["watchdog"].beat(now, 1, 1, 0)
    plant.beats["algo"]._beat["pid"] = 2**22 + 1
    plant.beats["algo"]._cell.publish()
    rows = {r["name"]: r for r in services.rows(now)}
    assert (rows["watchdog"]["state"], rows["watchdog"]["status"]) == ("READY", "pass")
    assert (rows["broker-bridge"]["state"], rows["broker-bridge"]["status"]) == ("HUNG", "fail")
    assert (rows["algo"]["state"], rows["algo"]["pid"]) == ("DOWN", None)
    assert rows["cockpit"]["reason"] == "never started"


def test_latency_is_in_microseconds_and_null_without_samples(plant: Plant) -> None:
    services = Services(plant.instance.context("cockpit"))
    for ns in (10_000, 20_000, 30_000):
        plant.contexts["broker-bridge"].counters.record("tick_to_order_ns", ns)
    rows = {r["hop"]: r for r in services.latency()}
    assert rows["tick_to_order"]["count"] == 3
    assert rows["tick_to_order"]["p50_us"] == pytest.approx(20, rel=0.04)
    assert rows["gate"]["p99_us"] is None


def test_history_keeps_the_curve_and_the_ribbon(plant: Plant, view: View) -> None:
    history = History(view)
    for n in range(3):
        plant.equity = 1_000_000 + n
        plant.beat()
        fresh(view)
        history.sample()
        plant.instance.clock.advance(10**9)
    data = history.as_json()
    assert data["equity"]["day_pnl_usd"] == [0.0, 1.0, 2.0]
    assert len(data["regimes"]["symbols"]["AAPL"]["regime"]) == 3
    orjson.dumps(data)


# -- blotter -----------------------------------------------------------------------------------------------------------


def tail_of(plant: Plant) -> Tail:
    ctx = plant.instance.context("cockpit")
    return Tail(ctx, Blotter(ctx.instruments, ctx.clock.wall_ns), DurableLog(1))


def test_an_order_lives_from_pending_to_filled_and_stays_there(plant: Plant) -> None:
    tail = tail_of(plant)
    plant.order_state(5, OrderState.WORKING, qty=-100, limit=150.5)
    plant.order_state(5, OrderState.FILLED, qty=-100, limit=150.5, filled=100, price=150.6)
    plant.order_state(5, OrderState.WORKING, qty=-100, limit=150.5)
    tail.drain()
    order = tail.blotter.order_list()[0]
    assert (order["state"], order["side"], order["qty"], order["filled"], order["avg_price"], order["open"]) == (
        "FILLED",
        "SELL",
        100.0,
        100.0,
        150.6,
        False,
    )


def test_an_execution_counts_once_and_a_correction_replaces_it(plant: Plant) -> None:
    tail = tail_of(plant)
    plant.execution(5, 0, 1, 100, 150.0, exec_id="0001.0a.01.01")
    plant.execution(5, 0, 1, 100, 150.0, exec_id="0001.0a.01.01")
    plant.execution(5, 0, 1, 90, 150.0, exec_id="0001.0a.01.02", kind=int(ExecKind.CORRECTION))
    plant.execution(5, 0, 1, 90, 150.0, exec_id="0001.0a.01.02", kind=int(ExecKind.COMMISSION))
    tail.drain()
    fills = tail.blotter.fill_list()
    assert len(fills) == 1
    assert (fills[0]["qty"], fills[0]["corrected"], fills[0]["commission_usd"]) == (90.0, True, 1.0)


def test_a_cancel_request_gets_a_verdict_and_is_no_order(plant: Plant) -> None:
    from engine.domain.codes import EventKind, IntentKind

    tail = tail_of(plant)
    plant.order_state(5, OrderState.WORKING, qty=10, limit=150.0)
    plant.events.emit(EventKind.INTENT, int(IntentKind.CANCEL), symbol=0, source=1, ref_id=6, ref2=5, qty=0.0)
    plant.order_state(6, OrderState.SENT, qty=10, text="cancel sent for 5")
    plant.order_state(5, OrderState.CANCELLED, qty=10, text="202 Order Canceled - reason:")
    tail.drain()
    assert [(o["order_id"], o["state"], o["reason"]) for o in tail.blotter.order_list()] == [
        ("5", "CANCELLED", "202 Order Canceled")
    ]
    assert tail.results[6].ok


def test_kill_shows_on_its_badge_before_the_watchdog_has_said_a_word(plant: Plant, view: View) -> None:
    stop = plant.instance.context("cockpit").cell_writer("stop.operator")
    stop.value[0]["kill"], stop.value[0]["stop_id"] = 1, 5
    stop.publish()
    badge = fresh(view).guardrails()[Badge.KILL]
    assert badge["state"] == "TRIPPED"
    plant.guardrails.value[0]["badges"][Badge.KILL]["state"] = BadgeState.WAIT
    plant.guardrails.publish()
    assert fresh(view).guardrails()[Badge.KILL]["state"] == "WAIT"


def test_fill_keys() -> None:
    assert fill_key("0000e0d5.65a1.01.01") == "0000e0d5.65a1.01"
    assert fill_key("odd") == "odd"


def test_reading_the_rings_twice_changes_nothing(plant: Plant) -> None:
    tail = tail_of(plant)
    for n in range(20):
        plant.trade()
        plant.order_state(n + 1, OrderState.REJECTED, text="201 margin")
    tail.drain()
    before = (tail.blotter.order_list(), tail.blotter.fill_list(), tail.log.next)
    for _, reader in tail._events:
        reader.seek(0)
    tail._executions.seek(0)
    tail.drain()
    after = (tail.blotter.order_list(), tail.blotter.fill_list(), tail.log.next)
    strip = [{k: v for k, v in o.items() if k not in ("change", "updated")} for o in before[0]]
    again = {o["order_id"]: {k: v for k, v in o.items() if k not in ("change", "updated")} for o in after[0]}
    assert all(again[o["order_id"]] == o for o in strip)
    assert before[1] == after[1]


def test_own_orders_are_marked_on_the_ladder(plant: Plant) -> None:
    tail = tail_of(plant)
    plant.order_state(5, OrderState.PARTIAL, qty=-100, limit=150.5, filled=40, price=150.5)
    plant.order_state(6, OrderState.WORKING, symbol=1, qty=10, limit=400.0)
    tail.drain()
    assert tail.blotter.own_prices(0) == [[150.5, -60.0]]


def test_a_manual_fill_of_another_client_is_shown_as_such(plant: Plant) -> None:
    tail = tail_of(plant)
    plant.execution(0, 0, 1, 1, 150.0, source=Source(1))
    tail.drain()
    assert tail.blotter.fill_list()[0]["order_id"] is None
