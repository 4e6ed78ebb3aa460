"""Operator actions over HTTP: what reaches the rings, in which order, and what the caller is told."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from engine.cockpit.api import routes
from engine.domain.codes import (
    Badge,
    BadgeState,
    CommandKind,
    EventKind,
    FlattenState,
    IntentFlag,
    OrderState,
    Refusal,
    TradingState,
)

BUY = {"symbol": "AAPL", "qty": 10, "side": "BUY", "type": "LMT", "limit": 150.00}


async def armed(rig, headers: dict[str, str], events: Any, tab: str = "t1") -> tuple[Any, str]:
    """Open a stream and arm its tab; returns (response, lease)."""
    response = await rig.http.get(f"{rig.base}/api/stream?tab={tab}", headers=headers)
    await events(response).next("snapshot")
    status, body = await rig.post("/api/exec/arm", {"tab": tab, "mode": "SIM"}, headers)
    assert status == 200, body
    return response, body["arm"]


async def test_an_order_is_audited_then_written_and_answered_with_the_gates_verdict(rig) -> None:
    audit = rig.cockpit.ctx.events._ring
    before = audit.tail
    status, body = await rig.call("POST", "/api/exec/order", BUY, {"Idempotency-Key": "k1"})
    assert status == 202
    assert body["state"] in ("SENT", "WORKING")
    assert audit.tail == before + 1
    _, listed = await rig.call("GET", "/api/audit")
    assert (listed["audit"][0]["action"], listed["audit"][0]["ref_id"]) == ("ORDER", body["order_id"])
    assert "BUY 10 AAPL LMT 150" in listed["audit"][0]["text"]
    record = rig.plant.orders.buffer[0]
    assert (int(record["intent_id"]), bytes(record["key"]), float(record["qty"])) == (
        int(body["order_id"]),
        b"k1",
        10.0,
    )
    _, orders = await rig.call("GET", "/api/orders?limit=1")
    assert orders["orders"][0]["order_id"] == body["order_id"]


@pytest.mark.parametrize(
    ("refusal", "status", "named"),
    [
        (Refusal.GROSS_EXPOSURE, 409, {"guardrail": "GROSS_EXPOSURE"}),
        (Refusal.KILLED, 409, {"guardrail": "KILL"}),
        (Refusal.PAUSED, 409, {"guardrail": "PAUSED"}),
        (Refusal.COLLAR, 422, {"field": "limit"}),
        (Refusal.ORDER_SIZE, 422, {"field": "qty"}),
    ],
)
async def test_a_refusal_by_the_gate_is_named(rig, refusal: Refusal, status: int, named: dict[str, str]) -> None:
    rig.plant.refuse = refusal
    got, body = await rig.call("POST", "/api/exec/order", BUY)
    assert got == status
    assert named.items() <= body.items()
    assert refusal.name in body["detail"]
    assert body["state"] == "REFUSED"


async def test_without_a_verdict_the_order_is_pending_after_a_quarter_second(rig) -> None:
    rig.answering = False
    began = time.monotonic()
    status, body = await rig.call("POST", "/api/exec/order", BUY)
    assert (status, body["state"]) == (202, "PENDING")
    assert time.monotonic() - began >= 0.25


async def test_a_repeated_key_is_the_same_order_and_never_a_second_one(rig) -> None:
    first = (await rig.call("POST", "/api/exec/order", BUY, {"Idempotency-Key": "same"}))[1]
    tail = rig.cockpit.api.desk._orders.tail
    status, second = await rig.call("POST", "/api/exec/order", BUY, {"Idempotency-Key": "same"})
    assert (status, second["order_id"], second["repeated"]) == (202, first["order_id"], True)
    assert rig.cockpit.api.desk._orders.tail == tail
    status, body = await rig.call("POST", "/api/exec/order", {**BUY, "qty": 11}, {"Idempotency-Key": "same"})
    assert status == 422
    assert body["field"] == "Idempotency-Key"


async def test_two_identical_requests_at_once_make_one_order(rig) -> None:
    tail = rig.cockpit.api.desk._orders.tail
    answers = await asyncio.gather(
        *(rig.call("POST", "/api/exec/order", BUY, {"Idempotency-Key": "race"}) for _ in range(6))
    )
    assert len({body["order_id"] for _, body in answers}) == 1
    assert rig.cockpit.api.desk._orders.tail == tail + 1


async def test_a_page_must_show_the_servers_mode_and_be_armed_for_what_adds_risk(rig, events) -> None:
    headers = await rig.browser()
    status, body = await rig.post("/api/exec/order", {**BUY, "mode": "LIVE"}, headers)
    assert (status, body["field"]) == (409, "mode")
    status, body = await rig.post("/api/exec/order", {**BUY, "mode": "SIM", "tab": "t1"}, headers)
    assert (status, body["guardrail"]) == (409, "ARM")
    response, lease = await armed(rig, headers, events)
    status, body = await rig.post("/api/exec/order", {**BUY, "mode": "SIM", "tab": "t1", "arm": lease}, headers)
    assert status == 202, body
    status, body = await rig.post("/api/exec/order", {**BUY, "mode": "SIM", "tab": "t2", "arm": lease}, headers)
    assert status == 409, "a lease belongs to one tab"
    response.close()


async def test_reducing_a_position_needs_no_arming_and_is_marked_reduce_only(rig) -> None:
    headers = await rig.browser()
    rig.plant.position(0, 30, 149.0)
    status, body = await rig.post(
        "/api/exec/order",
        {"symbol": "AAPL", "qty": 30, "side": "SELL", "type": "MKT", "mode": "SIM", "tab": "t"},
        headers,
    )
    assert status == 202, body
    assert int(rig.plant.orders.buffer[0]["flags"]) == IntentFlag.REDUCE_ONLY
    status, body = await rig.post(
        "/api/exec/order",
        {"symbol": "AAPL", "qty": 31, "side": "SELL", "type": "MKT", "mode": "SIM", "tab": "t"},
        headers,
    )
    assert (status, body["guardrail"]) == (409, "ARM"), "past zero adds risk"


async def test_arming_needs_an_open_stream_and_ends_with_kill(rig, events) -> None:
    headers = await rig.browser()
    status, body = await rig.post("/api/exec/arm", {"tab": "t1", "mode": "SIM"}, headers)
    assert (status, body["field"]) == (409, "tab")
    response, _ = await armed(rig, headers, events)
    await rig.call("POST", "/api/exec/kill", {"reason": "drill"})
    await rig.until(lambda: not rig.cockpit.stream.arming.leases, "KILL disarms")
    assert (await rig.post("/api/exec/arm", {"tab": "t1", "mode": "SIM"}, headers))[0] == 409
    response.close()


async def test_pause_is_in_our_own_stop_cell_before_the_answer_even_if_nobody_listens(rig) -> None:
    rig.answering = False
    status, body = await rig.call("POST", "/api/exec/pause", {"reason": "lunch"})
    assert (status, body["state"]) == (202, "PAUSED")
    cell = rig.plant.contexts["broker-bridge"].cell_reader("stop.operator").read()
    assert cell["pause"] == 1
    assert cell["stop_id"] > 0
    _, state = await rig.call("GET", "/api/state")
    assert state["trading_state"]["state"] == "PAUSED"


async def test_pauses_are_coalesced(rig) -> None:
    for _ in range(5):
        assert (await rig.call("POST", "/api/exec/pause", {}))[0] == 202
    await rig.until(lambda: rig.plant.seen, "the watchdog saw it")
    assert [k for k, _ in rig.plant.seen] == [CommandKind.PAUSE]


async def test_resume_releases_a_pause_and_is_refused_under_kill(rig) -> None:
    await rig.call("POST", "/api/exec/pause", {})
    status, body = await rig.call("POST", "/api/exec/resume", {})
    assert (status, body["state"]) == (202, "ACTIVE")
    await rig.call("POST", "/api/exec/kill", {})
    status, body = await rig.call("POST", "/api/exec/resume", {})
    assert (status, body["guardrail"]) == (409, "KILL")


async def test_a_later_pause_does_not_revive_a_released_kill(rig) -> None:
    await rig.call("POST", "/api/exec/kill", {})
    rig.plant.guardrails.value[0]["flat_since_ns"] = 1
    rig.plant.guardrails.publish()
    await rig.until(lambda: rig.plant.seen, "the watchdog adopted it")
    assert (await rig.call("POST", "/api/exec/reset", {"reason": "checked"}))[1]["state"] == "ACTIVE"
    assert (await rig.call("POST", "/api/exec/pause", {}))[0] == 202
    assert (await rig.call("GET", "/api/state"))[1]["trading_state"]["state"] == "PAUSED"
    assert (await rig.call("POST", "/api/exec/resume", {}))[1]["state"] == "ACTIVE"
    await rig.call("POST", "/api/exec/kill", {})
    await rig.call("POST", "/api/exec/pause", {})
    assert (await rig.call("GET", "/api/state"))[1]["trading_state"]["state"] == "KILLED", "an unreleased kill stays"


async def test_flatten_is_idempotent_while_one_runs(rig) -> None:
    rig.plant.position(0, 30, 149.0)
    status, first = await rig.call("POST", "/api/exec/flatten-all")
    assert status == 202
    await rig.until(lambda: rig.plant.seen, "the watchdog took it")
    status, second = await rig.call("POST", "/api/exec/flatten-all")
    assert (status, second["flatten_id"], second["state"]) == (202, first["flatten_id"], "ROUND_ONE")
    assert [k for k, _ in rig.plant.seen] == [CommandKind.FLATTEN]
    rig.plant.flat()
    rig.cockpit.api.flatten_ns = 0
    status, third = await rig.call("POST", "/api/exec/flatten-all")
    assert third["flatten_id"] != first["flatten_id"], "a finished flatten is not the next one"


async def test_flatten_pauses_at_once_and_asks_twice_only_once_while_the_watchdog_is_away(rig) -> None:
    rig.answering = False
    first = (await rig.call("POST", "/api/exec/flatten-all", {}))[1]
    second = (await rig.call("POST", "/api/exec/flatten-all", {}))[1]
    assert (second["flatten_id"], second["state"]) == (first["flatten_id"], "REQUESTED")
    assert rig.plant.contexts["broker-bridge"].cell_reader("stop.operator").read()["pause"] == 1


@pytest.mark.parametrize("data", [b"not json", b"[1]", b'{"reason": 7}', b"\xff\xfe"])
async def test_no_body_can_keep_a_flatten_from_happening(rig, data: bytes) -> None:
    async with rig.http.post(rig.base + "/api/exec/flatten-all", data=data, headers=rig.bearer) as r:
        assert r.status == 202


async def test_a_failed_audit_does_not_hold_up_a_flatten_but_an_order(rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> int:
        raise OSError("no space")

    monkeypatch.setattr(rig.cockpit.ctx.events, "emit", broken)
    assert (await rig.call("POST", "/api/exec/flatten-all", {}))[0] == 202
    await rig.until(lambda: (CommandKind.FLATTEN, "bearer:admin") in rig.plant.seen, "the command went out")
    assert (await rig.call("POST", "/api/exec/order", BUY))[0] == 503


async def test_a_full_ring_is_an_answer(rig) -> None:
    rig.answering = False
    desk = rig.cockpit.api.desk
    while desk._commands.room() > 0:
        desk._commands.publish_record()
    status, body = await rig.call("POST", "/api/exec/flatten-all", {})
    assert status == 503
    assert "stop cell" in body["detail"]
    assert rig.plant.contexts["broker-bridge"].cell_reader("stop.operator").read()["pause"] == 1


async def test_reset_names_every_reason_against_it(rig) -> None:
    status, body = await rig.call("POST", "/api/exec/reset", {"reason": "go on"})
    assert status == 409
    assert "not latched" in body["reasons"][0]
    rig.plant.kill(Badge.DD)
    rig.plant.position(1, 5, 400.0)
    g = rig.plant.guardrails.value[0]
    g["cooling_until_ns"], g["day_locked"] = rig.plant.clock.now_ns() + 200 * 10**9, 1
    rig.plant.badge(Badge.LAT, BadgeState.TRIPPED, 812, 500, "812 ms in 3 of 5 samples")
    status, body = await rig.call("POST", "/api/exec/reset", {"reason": "go on"})
    assert status == 409
    text = "; ".join(body["reasons"])
    for part in ("not confirmed flat: MSFT", "cooling for another", "LAT is TRIPPED", "locks the day"):
        assert part in text
    assert not rig.plant.seen, "nothing was sent"


async def test_reset_is_sent_when_nothing_speaks_against_it(rig) -> None:
    rig.plant.kill()
    rig.plant.guardrails.value[0]["flat_since_ns"] = 1
    rig.plant.guardrails.publish()
    status, body = await rig.call("POST", "/api/exec/reset", {"reason": "checked the blotter"})
    assert (status, body["state"]) == (202, "ACTIVE")
    assert (CommandKind.RESET, "bearer:admin") in rig.plant.seen


async def test_a_flatten_under_pause_ends_by_keeping_what_cant_be_closed(rig) -> None:
    rig.plant.position(1, 5, 400.0)
    await rig.call("POST", "/api/exec/flatten-all", {})
    await rig.until(lambda: rig.plant.seen, "the watchdog took it")
    body = {"reason": "MSFT is halted and kept", "excuse_remaining": True}
    status, answer = await rig.call("POST", "/api/exec/reset", body)
    assert status == 202, answer
    assert (CommandKind.RESET, "bearer:admin") in rig.plant.seen


async def test_an_override_needs_a_reason(rig) -> None:
    status, body = await rig.call("POST", "/api/exec/reset", {"override_day_lock": True})
    assert (status, body["field"]) == (422, "reason")


async def test_reset_without_a_watchdog_says_who_is_missing(rig) -> None:
    rig.plant.kill()
    rig.plant.watchdog_alive = False
    rig.plant.guardrails.value[0]["evaluated_ns"] = 1
    rig.plant.guardrails.publish()
    status, body = await rig.call("POST", "/api/exec/reset", {})
    assert status == 409
    assert "watchdog" in body["reasons"][0]


async def test_cancel_one_order_and_all(rig) -> None:
    order_id = (await rig.call("POST", "/api/exec/order", BUY))[1]["order_id"]
    status, body = await rig.call("POST", "/api/exec/cancel", {"order_id": order_id})
    assert (status, body["state"]) == (202, "PENDING_CANCEL")
    await rig.until(
        lambda: (
            rig.cockpit.tail.drain() is not None
            and rig.cockpit.tail.blotter.orders[int(order_id)].state == OrderState.CANCELLED
        ),
        "cancelled",
    )
    status, body = await rig.call("POST", "/api/exec/cancel", {"order_id": order_id})
    assert status == 409
    assert (await rig.call("POST", "/api/exec/cancel", {"order_id": "12345"}))[0] == 404
    assert (await rig.call("POST", "/api/exec/cancel", {}))[1]["field"] == "order_id"
    assert (await rig.call("POST", "/api/exec/cancel", {"all": True}))[0] == 202


async def test_reconnect_is_a_command(rig) -> None:
    status, body = await rig.call("POST", "/api/exec/reconnect", {})
    assert (status, body["state"]) == (202, "UP")
    await rig.until(lambda: (CommandKind.RECONNECT, "bearer:admin") in rig.plant.seen, "sent")


async def test_lists_take_since_and_limit_and_name_a_bad_one(rig) -> None:
    for _ in range(3):
        rig.plant.trade()
    _, all_orders = await rig.call("GET", "/api/orders")
    change = all_orders["change"]
    assert len((await rig.call("GET", "/api/orders?limit=1"))[1]["orders"]) == 1
    assert (await rig.call("GET", f"/api/orders?since={change}"))[1]["orders"] == []
    status, body = await rig.call("GET", "/api/fills?limit=abc")
    assert (status, body["field"]) == (422, "limit")
    assert (await rig.call("GET", "/api/book/NOPE"))[0] == 404
    assert len((await rig.call("GET", "/api/book/AAPL"))[1]["bids"]) == 10


async def test_openapi_describes_every_route(rig) -> None:
    _, document = await rig.call("GET", "/api/openapi.json")
    assert document["openapi"].startswith("3.1")
    for route in routes(rig.cockpit.api):
        if route.path != "/api/openapi.json":
            assert route.method.lower() in document["paths"][route.path], route.path


async def test_health_knows_each_service_and_kill_is_not_ill(rig) -> None:
    rig.plant.kill()
    async with rig.http.get(rig.health + "/health/all") as r:
        body = await r.json(content_type=None)
        assert (r.status, r.content_type, body["status"]) == (200, "application/health+json", "pass")
        assert body["tradingState"] == TradingState.KILLED.name
        assert body["checks"]["algo:heartbeat"][0]["status"] == "pass"
    rig.plant.beating.discard("algo")
    rig.plant.beats["algo"]._beat["t_beat_ns"] = rig.plant.clock.now_ns() - 3 * 10**9
    rig.plant.beats["algo"]._cell.publish()
    async with rig.http.get(rig.health + "/health/all") as r:
        body = await r.json(content_type=None)
        assert (r.status, body["status"], body["checks"]["algo:heartbeat"][0]["state"]) == (503, "fail", "HUNG")
        assert body["checks"]["watchdog:heartbeat"][0]["status"] == "pass"
    async with rig.http.get(rig.health + "/health/ready") as r:
        assert r.status == 503
        assert "algo" in (await r.json(content_type=None))["output"]
    async with rig.http.get(rig.health + "/health/live") as r:
        assert r.status == 200


async def test_metrics_are_prometheus_text_in_base_units(rig) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    rig.plant.contexts["broker-bridge"].counters.record("rtt_ns", 1_500_000)
    async with rig.http.get(rig.health + "/metrics") as r:
        assert r.headers["Content-Type"].startswith("text/plain")
        families = {f.name: f for f in text_string_to_metric_families(await r.text())}
    assert all(name.startswith("l2dash_") for name in families)
    rtt = {s.labels.get("le"): s.value for s in families["l2dash_rtt_seconds"].samples if s.name.endswith("_bucket")}
    assert (rtt["0.001"], rtt["0.002"], rtt["+Inf"]) == (0.0, 1.0, 1.0)
    assert [s.value for s in families["l2dash_trading_state"].samples if s.labels["state"] == "ACTIVE"] == [1.0]
    assert len(families["l2dash_guardrail_state"].samples) == 8


async def test_the_state_machine_of_a_flatten_is_shown_as_it_is(rig) -> None:
    rig.plant.position(0, 30, 149.0)
    await rig.call("POST", "/api/exec/flatten-all", {})
    await rig.until(lambda: rig.plant.flatten.value[0]["state"] == FlattenState.ROUND_ONE, "running")
    _, state = await rig.call("GET", "/api/state")
    assert (state["flatten"]["state"], state["flatten"]["remaining"]) == ("ROUND_ONE", ["AAPL"])
    rig.plant.flat()
    _, state = await rig.call("GET", "/api/state")
    assert (state["flatten"]["state"], state["flatten"]["remaining"], state["flatten"]["sent_ms"]) == ("FLAT", [], 0.8)
    assert state["trading_state"]["state"] == "PAUSED"


def test_every_event_kind_can_be_told_apart() -> None:
    assert len({int(k) for k in EventKind}) == len(EventKind)
