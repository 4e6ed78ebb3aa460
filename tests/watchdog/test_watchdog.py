from __future__ import annotations

import json
from pathlib import Path

import pytest
from world import MS, S, World

from engine import topology
from engine.domain.codes import (
    Badge,
    BadgeState,
    BlockReason,
    CommandKind,
    EventKind,
    FlattenState,
    LinkState,
    Owner,
    ServiceState,
    Severity,
    Source,
    TradingState,
)  # fmt: skip
from engine.risk import latch


def test_quiet_data_is_active_with_every_badge_ok(world: World) -> None:
    world.run(20, step_ms=5)
    assert world.state == TradingState.ACTIVE, world.said()
    assert [bytes(b["reason"]) for b in world.guardrails.read(0)["badges"] if b["state"] != BadgeState.OK] == []
    assert world.guardrails.read(0)["all_ok"]
    assert world.guardrails.read(0)["equity_usd"] == 1_000_000.0


def test_index_jump_kills_and_sends_the_closes_in_the_same_cycle(world: World) -> None:
    world.hold(0, 100.0)
    world.hold(1, -50.0)
    world.run(1.5)
    world.tick_index(world.index * 0.949)
    world.agent.do_work(world.clock.advance(MS))
    assert world.killed
    world.serve_bridge()
    assert [(int(o["symbol"]), int(o["side"]), float(o["qty"])) for o in world.orders] == [(0, -1, 100.0), (1, 1, 50.0)]
    world.run(1.5)
    flatten = world.flatten.read(0)
    assert flatten["state"] == FlattenState.FLAT, world.said()
    assert 0 < flatten["sent_ns"] - flatten["cause_ns"] <= 100 * MS
    assert any("index moved -5.10 %" in t for t in world.said(EventKind.ALERT))


def test_index_move_of_just_under_the_limit_does_not_kill(world: World) -> None:
    world.index *= 0.9501
    world.run(5)
    assert not world.killed
    assert world.badge(Badge.DD)["state"] == BadgeState.WARN


def test_a_fall_spread_over_more_than_the_window_does_not_kill(tmp_path: Path) -> None:
    world = World(tmp_path, {"guardrails": {"index_window_s": 60.0}})
    for _ in range(14):
        world.index *= 0.995
        world.run(6, step_ms=100)
    assert not world.killed, world.said()
    world.index *= 0.985
    world.run(2)
    assert world.killed
    assert any("within 1 min, limit 5 %" in t for t in world.said(EventKind.ALERT))
    world.close()


def test_blocks_are_told_in_words_when_they_begin_and_when_they_are_over(world: World) -> None:
    world.index_silent = True
    world.run(17, step_ms=20)
    world.index_silent = False
    world.run(2, step_ms=20)
    told = [t for t in world.said(EventKind.STOP) if "index stale" in t]
    assert told == ["entries blocked: index stale", "entries pass again, over: index stale"]


def test_position_breach_kills_flattens_and_confirms_flat(world: World) -> None:
    world.hold(2, 1_001.0)
    world.run(2)
    assert world.killed
    assert world.positions.value[2]["qty"] == 0.0
    g = world.guardrails.read(0)
    assert g["flat_since_ns"] > 0
    assert g["kill_reasons"] == 1 << Badge.POS
    assert world.badge(Badge.KILL)["state"] == BadgeState.WAIT
    assert any(e["kind"] == EventKind.ALERT and e["severity"] == Severity.P1 for e in world.events)


def test_kill_survives_a_restart_and_the_restart_of_everything_else(world: World) -> None:
    world.hold(2, 1_001.0)
    world.run(2)
    world.restart()
    world.run(1)
    assert world.killed
    assert world.state == TradingState.KILLED
    assert "latched by" in " ".join(world.said()) or "POS" in world.badge(Badge.KILL)["reason"].decode()


def test_kill_survives_lost_shared_memory(tmp_path: Path) -> None:
    first = World(tmp_path)
    first.run(0.2)
    assert first.command(CommandKind.KILL)[0] == 0
    first.close()
    second = World(tmp_path)
    second.run(0.2)
    assert second.killed
    second.close()


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 99}', b'{"version": 1, "kill": "no", "pause": false}'])
def test_unreadable_latch_file_means_latched(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "latch.json").write_bytes(content)
    w = World(tmp_path)
    w.run(0.1)
    assert w.killed
    w.close()


def test_missing_latch_file_next_to_a_journal_means_latched(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"x")
    w = World(tmp_path)
    w.run(0.1)
    assert w.killed
    w.close()


def test_virgin_directory_arms_itself_in_sim_only(tmp_path: Path) -> None:
    w = World(tmp_path / "sim")
    w.run(0.1)
    assert not w.killed
    w.close()
    paper = World(
        tmp_path / "paper", {"instance": {"mode": "paper"}, "gateway": {"port": 1, "account": "DU1"}}, arm=False
    )
    paper.run(0.1)
    assert paper.killed
    paper.close()


def test_init_arms_paper_once_and_never_twice(tmp_path: Path) -> None:
    latch.init(tmp_path)
    with pytest.raises(latch.LatchExists):
        latch.init(tmp_path)
    w = World(tmp_path, {"instance": {"mode": "paper"}, "gateway": {"port": 1, "account": "DU1"}})
    w.run(0.1)
    assert not w.killed
    assert int(w.guardrails.read(0)["block_reasons"]) >> BlockReason.SCOPE_UNANSWERED & 1
    w.close()


def test_live_starts_paused(tmp_path: Path) -> None:
    w = World(
        tmp_path, {"instance": {"mode": "live"}, "gateway": {"port": 1, "account": "U1", "account_scope": "dedicated"}}
    )
    w.run(0.1)
    assert w.state == TradingState.PAUSED
    w.close()


def test_reset_is_refused_with_every_reason_until_cooled_then_releases(world: World) -> None:
    world.hold(2, 1_001.0)
    world.run(2)
    code, text = world.command(CommandKind.RESET)
    assert code == 1
    assert "cooling for another 0:2" in text
    world.run(25, step_ms=20)
    assert world.command(CommandKind.RESET)[0] == 1
    world.run(7, step_ms=20)
    code, text = world.command(CommandKind.RESET)
    assert (code, text) == (0, "released; now ACTIVE")
    assert not world.killed
    assert world.state == TradingState.ACTIVE
    assert json.loads((world.state_dir / "latch.json").read_text())["kill"] is False
    world.restart()
    world.run(0.1)
    assert not world.killed


def test_reset_names_badges_that_are_not_ok(world: World) -> None:
    world.command(CommandKind.KILL)
    world.run(32, step_ms=20)
    world.spread_bps[0] = 90.0
    world.run(1)
    code, text = world.command(CommandKind.RESET)
    assert code == 1
    assert "SPREAD is TRIPPED: blocked: AAPL 90.0 bps above 25.0" in text


def test_reset_while_something_is_open_needs_it_named(world: World) -> None:
    world.bridge_fills = False
    world.hold(0, 10.0)
    world.command(CommandKind.KILL)
    code, text = world.command(CommandKind.RESET)
    assert code == 1
    assert "flatten is still running" in text


def test_drawdown_locks_the_day_and_needs_a_named_override(world: World) -> None:
    world.hold(0, 500.0)
    world.run(1)
    world.books.value[0]["fair_value"] = 89.0
    world.mids[0] = 89.0
    world.run(2)
    assert world.killed, world.badge(Badge.DD)
    assert "DD: equity 994,500 is 5,500 below the day's start, limit 5,000 USD" in world.said(EventKind.STOP)[0]
    world.account.value[0]["net_liquidation_usd"] = 994_500.0
    world.run(31, step_ms=20)
    assert world.guardrails.read(0)["day_locked"]
    assert world.command(CommandKind.RESET)[0] == 1
    assert world.command(CommandKind.RESET, flags=1, reason="")[0] == 1
    code, text = world.command(CommandKind.RESET, flags=1, reason="checked with risk")
    assert code == 0, text


def test_one_bad_print_does_not_kill_through_the_drawdown(world: World) -> None:
    world.hold(0, 900.0)
    world.run(1)
    mid = world.mids[0]
    for _ in range(20):
        world.mids[0] = mid * 0.9
        world.quote(0)
        world.clock.advance(MS)
        world.agent.do_work(world.clock.now)
        world.mids[0] = mid
        world.quote(0)
        world.run(0.05)
    assert not world.killed, world.said()


def test_day_start_and_peak_survive_a_restart(world: World) -> None:
    world.hold(0, 500.0)
    world.mids[0] = 104.0
    world.books.value[0]["fair_value"] = 104.0
    world.run(1.5)
    before = world.guardrails.read(0).copy()
    assert before["peak_usd"] == pytest.approx(1_002_000.0)
    world.restart()
    world.run(0.2)
    after = world.guardrails.read(0)
    assert after["peak_usd"] == pytest.approx(float(before["peak_usd"]))
    assert after["day_start_usd"] == 1_000_000.0
    assert after["equity_usd"] == pytest.approx(float(before["equity_usd"]))


def test_a_bridge_that_rebuilds_its_positions_does_not_move_equity(world: World) -> None:
    world.hold(0, 500.0)
    world.run(1)
    world.broker.value[0]["reconciled"] = 0
    world.run(0.05)
    world.positions.value[0]["cash_flow_usd"] = 0.0
    world.positions.publish(0)
    world.run(1)
    world.positions.value[0]["cash_flow_usd"] = -50_000.0
    world.positions.publish(0)
    world.broker.value[0]["reconciled"] = 1
    world.run(1)
    assert not world.killed
    assert world.guardrails.read(0)["equity_usd"] == pytest.approx(1_000_000.0)


def test_a_new_day_of_the_bridge_does_not_move_equity(world: World) -> None:
    world.hold(0, 500.0)
    world.mids[0] = 103.0
    world.books.value[0]["fair_value"] = 103.0
    world.run(1)
    p = world.positions.value[0]
    p["cash_flow_usd"], p["day_open_qty"], p["executions"] = 0.0, 500.0, 0
    world.positions.publish(0)
    world.run(1)
    assert world.guardrails.read(0)["equity_usd"] == pytest.approx(1_001_500.0)


def test_operators_stop_cell_is_adopted_persisted_and_flattened(world: World) -> None:
    world.hold(0, 10.0)
    c = world.operator_stop.value[0]
    c["kill"], c["stop_id"] = 1, world.clock.now
    world.operator_stop.publish()
    world.run(1.5)
    assert world.killed
    assert world.flatten.read(0)["state"] == FlattenState.FLAT
    assert json.loads((world.state_dir / "latch.json").read_text())["kill"] is True
    world.run(31, step_ms=20)
    assert world.command(CommandKind.RESET)[0] == 0
    world.run(1)
    assert world.state == TradingState.ACTIVE  # the operator's cell still says kill, but it has been released


def test_pause_and_resume_end_to_end(world: World) -> None:
    assert world.command(CommandKind.PAUSE) == (0, "paused")
    assert world.state == TradingState.PAUSED
    world.restart()
    world.run(0.1)
    assert world.state == TradingState.PAUSED
    assert world.command(CommandKind.RESUME) == (0, "resumed")
    assert world.state == TradingState.ACTIVE
    assert world.command(CommandKind.RESUME)[0] == 1


def test_flatten_command_leaves_a_pause_and_confirms_flat(world: World) -> None:
    world.hold(3, -20.0)
    assert world.command(CommandKind.FLATTEN)[0] == 0
    world.run(1)
    assert world.flatten.read(0)["state"] == FlattenState.FLAT
    assert world.state == TradingState.PAUSED
    assert not world.killed


def test_flatten_continues_in_a_restarted_watchdog(world: World) -> None:
    world.hold(0, 100.0)
    world.bridge_drains = False
    world.command(CommandKind.FLATTEN)
    world.restart()
    world.bridge_drains = True
    world.run(15)
    assert world.flatten.read(0)["state"] == FlattenState.FLAT, world.said()
    assert world.positions.value[0]["qty"] == 0.0


def test_slow_api_kills_at_the_third_of_five(world: World) -> None:
    b = world.broker.value[0]
    for sample in (600, 3, 700):
        b["rtt_ns"][int(b["rtt_count"]) % 5] = sample * MS
        b["rtt_count"] += 1
        world.run(0.1)
    assert not world.killed
    b["rtt_ns"][int(b["rtt_count"]) % 5] = 501 * MS
    b["rtt_count"] += 1
    world.run(0.1)
    assert world.killed
    assert world.guardrails.read(0)["kill_reasons"] == 1 << Badge.LAT


def test_what_a_bridge_that_hangs_has_not_heard_is_not_the_gateways_silence(world: World) -> None:
    """It has asked, and the answer waits unread in its socket: only what it could have heard counts."""
    world.run(0.5)
    senses, broker = world.agent.senses, world.broker.value[0]
    broker["probe_sent_ns"], heard_ns = world.clock.now, world.clock.now
    publish = world.broker.publish

    def keep() -> None:
        broker["last_message_ns"] = heard_ns
        publish()

    world.broker.publish = keep  # type: ignore[method-assign]
    world.silent.add(topology.BRIDGE)
    world.run(2.6)
    assert senses.facts.link.bridge_alive, "not yet taken for hung"
    assert senses.facts.link.silent_ns < 1 * S
    world.silent.remove(topology.BRIDGE)
    world.run(1.9)
    assert not senses.facts.link.both_mute, "it reads again, and has not been without an answer for long enough"
    world.run(0.3)
    assert senses.facts.link.both_mute
    assert not world.killed


def test_armed_stream_gone_pauses_and_kills_only_if_chosen(world: World) -> None:
    a = world.arm.value[0]
    a["armed"], a["stream_gone_since_ns"] = 1, world.clock.now
    world.arm.publish()
    world.run(2.9)
    assert world.state == TradingState.ACTIVE
    world.run(0.3)
    assert world.state == TradingState.PAUSED
    a["kill_on_gone"] = 1
    world.arm.publish()
    world.run(0.1)
    assert world.killed


def test_dead_cockpit_is_not_a_gone_stream(world: World) -> None:
    world.silent.add(topology.COCKPIT)
    world.arm.value[0]["stream_gone_since_ns"] = world.clock.now
    world.arm.publish()
    world.ctx[topology.COCKPIT].heartbeat.set_state(ServiceState.DOWN, world.clock.now)  # type: ignore[union-attr]
    world.run(6)
    assert world.state == TradingState.ACTIVE


def test_confidence_blocks_after_ten_and_kills_after_sixty_seconds(world: World) -> None:
    for i in range(5):
        world.models.value[i]["confidence_ema"] = 0.6
    world.run(9)
    assert world.state == TradingState.ACTIVE
    world.run(2)
    assert world.state == TradingState.BLOCKED
    world.run(48, step_ms=50)
    assert not world.killed
    world.run(3, step_ms=50)
    assert world.killed


def test_stale_symbol_is_blocked_alone_and_recovers(world: World) -> None:
    world.quiet_symbols.add(1)
    world.run(6, step_ms=2)
    assert world.stop.read(0)["symbol_block"] == 0b10
    assert world.state == TradingState.ACTIVE
    world.quiet_symbols.clear()
    world.run(0.2)
    assert world.stop.read(0)["symbol_block"] == 0


def test_equity_that_cannot_be_marked_kills_after_sixty_seconds(world: World) -> None:
    world.hold(1, 10.0)
    world.quiet_symbols.add(1)
    world.run(60, step_ms=50)
    assert not world.killed
    world.run(8, step_ms=50)
    assert world.killed


@pytest.mark.parametrize(
    ("service", "reason"),
    [
        (topology.ML, BlockReason.ML_DOWN),
        (topology.ALGO, BlockReason.ALGO_DOWN),
        (topology.RECORDER, BlockReason.RECORDER_BEHIND),
    ],
)
def test_a_dead_service_blocks_and_its_return_clears(world: World, service: str, reason: BlockReason) -> None:
    world.silent.add(service)
    world.run(6, step_ms=20)
    assert world.state == TradingState.BLOCKED
    assert int(world.stop.read(0)["block_reasons"]) >> reason & 1
    world.silent.clear()
    world.run(0.2)
    assert world.state == TradingState.ACTIVE


def test_low_disk_blocks(world: World) -> None:
    world.ctx[topology.RECORDER].set_flag(1)
    world.run(0.2)
    assert int(world.stop.read(0)["block_reasons"]) >> BlockReason.DISK & 1


def test_silent_index_blocks_after_fifteen_seconds(world: World) -> None:
    world.index_silent = True
    world.run(14, step_ms=20)
    assert world.state == TradingState.ACTIVE
    world.run(3, step_ms=50)
    assert int(world.stop.read(0)["block_reasons"]) >> BlockReason.INDEX_STALE & 1
    assert not world.killed


def outage(world: World, seconds: float) -> None:
    world.hold(0, 100.0)
    world.run(0.5)
    world.broker.value[0]["link"], world.broker.value[0]["reconciled"] = LinkState.DOWN, 0
    world.broker.value[0]["down_since_ns"] = world.clock.now
    world.quiet_symbols = set(range(world.n))
    world.index_silent = True
    world.run(seconds, step_ms=50)
    world.broker.value[0]["link"], world.broker.value[0]["reconciled"] = LinkState.UP, 1
    world.broker.value[0]["down_since_ns"] = 0
    world.quiet_symbols = set()
    world.index_silent = False


def test_a_link_flap_under_sixty_seconds_blocks_and_never_flattens(world: World) -> None:
    outage(world, 58)
    assert world.state == TradingState.BLOCKED
    world.run(5)
    assert world.state == TradingState.ACTIVE
    assert world.positions.value[0]["qty"] == 100.0
    assert not world.orders


def test_a_minute_of_outage_kills_and_flattens_on_return(world: World) -> None:
    outage(world, 62)
    assert world.killed
    assert not world.orders
    world.run(4)
    assert world.flatten.read(0)["state"] == FlattenState.FLAT
    assert world.positions.value[0]["qty"] == 0.0


def test_too_long_an_outage_pages_and_leaves_positions_to_the_operator(tmp_path: Path) -> None:
    world = World(tmp_path, {"guardrails": {"reconnect_flatten_outage_s": 90.0}})
    world.run(0.5)
    outage(world, 95)
    world.run(3)
    assert world.killed
    assert world.positions.value[0]["qty"] == 100.0
    assert any("NOT flattened (AAPL +100)" in t for t in world.said(EventKind.ALERT))
    world.close()


def test_an_evaluator_that_raises_is_a_kill(world: World) -> None:
    world.agent.guard.evaluator._rules[Badge.DRIFT] = lambda *_: 1 / 0  # type: ignore[assignment, return-value]
    world.run(0.1)
    assert world.killed
    assert any("DRIFT failed: ZeroDivisionError" in t for t in world.said())


def test_the_lease_is_renewed_and_a_restart_gives_a_higher_epoch(world: World) -> None:
    world.run(0.3)
    first = world.lease.read(0).copy()
    assert first["owner"] == Owner.BRIDGE
    assert 150 * MS < first["expires_ns"] - world.clock.now <= 250 * MS
    world.restart()
    world.run(0.1)
    assert world.lease.read(0)["epoch"] > first["epoch"]


def test_a_leaving_bridge_keeps_positions_and_loses_the_lease(world: World) -> None:
    world.hold(0, 100.0)
    world.run(0.2)
    world.broker.value[0]["leaving"] = 1
    world.run(5)
    lease = world.lease.read(0)
    assert lease["owner"] == Owner.LEAVING
    assert lease["expires_ns"] == 0
    world.broker.value[0]["leaving"] = 0
    world.ctx[topology.BRIDGE].start_heartbeat(world.clock.now).set_state(ServiceState.READY, world.clock.now)
    world.run(0.2)
    assert world.lease.read(0)["owner"] == Owner.BRIDGE
    assert not world.killed
    assert not world.orders


def test_stale_loosening_commands_are_refused(world: World) -> None:
    world.command(CommandKind.PAUSE)
    r = world._cli.record
    r[0] = 0
    r["t_ns"], r["command_id"], r["kind"], r["source"] = world.clock.now - 11 * S, 77, CommandKind.RESUME, Source.CLI
    world._cli.publish_record()
    world.run(0.1)
    assert world.state == TradingState.PAUSED
    assert any("give it again" in t for t in world.said(EventKind.COMMAND_RESULT))


def test_drift_of_one_symbol_kills_only_it_when_configured_so(tmp_path: Path) -> None:
    w = World(tmp_path, {"guardrails": {"drift_scope": "symbol"}})
    w.hold(0, 10.0)
    w.hold(1, 10.0)
    w.run(0.5)
    w.mids[0] = 103.0
    w.run(3)
    assert not w.killed, w.said()
    assert w.stop.read(0)["symbol_block"] == 1
    assert w.positions.value[0]["qty"] == 0.0
    assert w.positions.value[1]["qty"] == 10.0
    w.close()


def test_a_kill_beats_a_release_that_is_still_being_written(world: World) -> None:
    world.command(CommandKind.KILL)
    world.run(32, step_ms=20)
    agent, now = world.agent, world.clock.now
    released: list[bool] = []
    refused: list[str] = []
    agent.stops.release_kill("reset", now, Source.CLI, lambda: released.append(True), refused.append, pause_after=False)
    agent.guard.kill(1 << Badge.KILL, "again", now, source=Source.CLI)
    world.run(0.2)
    assert world.killed
    assert not released
    assert refused == ["a new stop came meanwhile"]
    assert json.loads((world.state_dir / "latch.json").read_text())["kill"] is True


def test_what_is_noted_while_a_release_is_being_written_is_in_the_released_file(world: World) -> None:
    world.command(CommandKind.KILL)
    world.run(32, step_ms=20)
    stops, now = world.agent.stops, world.clock.now
    released: list[bool] = []
    stops.release_kill("reset", now, Source.CLI, lambda: released.append(True), print, pause_after=False)
    stops.amend(now, locked_session=20240102)
    world.run(0.2)
    assert released
    assert not world.killed
    on_disk = json.loads((world.state_dir / "latch.json").read_text())
    assert (on_disk["kill"], on_disk["locked_session"]) == (False, 20240102), "memory and disk say the same"
