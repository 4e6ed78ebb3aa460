"""The recorder on real regions and real files, driven by hand on a clock that stands still."""

from __future__ import annotations

import numpy as np
import pytest

from engine.domain.codes import Badge, BadgeState, CommandKind, EventKind, ExecKind, OrderState, Refusal, Severity, Side
from engine.procs.recorder import Recorder, create
from engine.runtime.runner import StartRefused
from engine.runtime.testing import TestInstance
from engine.store.journal import journal_path, verify
from engine.store.journal_read import JournalReader
from engine.store.read import day_gaps, iter_blocks, read_day, recorded_days
from shm.layouts import SIGNAL, SIGNAL_BAR

from .conftest import Receiver, execution, intent, ticks, until


def finish(agent: Recorder, world: TestInstance) -> None:
    agent.on_close(world.clock.now_ns())


def reader(world: TestInstance) -> JournalReader:
    return JournalReader(journal_path(world.config.state_dir))


def start(world: TestInstance) -> Recorder:
    agent = create(world.context("recorder"))
    agent.on_start(world.clock.now_ns())
    return agent


def test_ticks_published_are_read_back_byte_for_byte_across_a_restart(world: TestInstance) -> None:
    writer = world.context("broker-bridge").ring_writer("ticks")
    first = start(world)
    writer.publish(ticks(3_000))
    while first.do_work(world.clock.now_ns()):
        pass
    finish(first, world)
    writer.publish(ticks(2_500, first=3_000))
    second = start(world)
    assert second.lag() == 2_500
    finish(second, world)
    (day,) = recorded_days(world.config.state_dir)
    found = read_day(world.config.state_dir, day)
    assert found.tobytes() == ticks(5_500).tobytes()
    assert day_gaps(world.config.state_dir, day) == []


def test_a_lapped_recorder_records_exactly_how_many_ticks_it_lost(world: TestInstance) -> None:
    agent = start(world)
    writer = world.context("broker-bridge").ring_writer("ticks")
    capacity = writer.capacity
    for at in range(0, capacity + 5_000, 10_000):
        writer.publish(ticks(min(10_000, capacity + 5_000 - at), first=at))
    finish(agent, world)
    (day,) = recorded_days(world.config.state_dir)
    (gap,) = day_gaps(world.config.state_dir, day)
    found = read_day(world.config.state_dir, day)
    assert gap.lost + len(found) == capacity + 5_000
    assert gap.after_sequence + gap.lost + 1 == found[0]["sequence"]


def test_ticks_roll_into_the_next_days_directory_at_four_in_new_york(world: TestInstance) -> None:
    writer = world.context("broker-bridge").ring_writer("ticks")
    agent = start(world)
    writer.publish(ticks(10))
    agent.do_work(world.clock.now_ns())
    world.clock.advance(86_400_000_000_000)
    agent.housekeeping(world.clock.now_ns() - 86_400_000_000_000 + 600_000_000)
    writer.publish(ticks(5, first=10))
    finish(agent, world)
    assert len(recorded_days(world.config.state_dir)) == 2
    assert [len(read_day(world.config.state_dir, d)) for d in recorded_days(world.config.state_dir)] == [10, 5]


def test_bar_signals_are_all_kept_and_others_once_a_second_per_symbol(world: TestInstance) -> None:
    writer = world.context("ml-service").ring_writer("signals")
    agent = start(world)
    signals = np.zeros(100, SIGNAL)
    signals["t_signal_ns"] = 5_000_000_000 + np.arange(100) * 100_000_000
    signals["symbol"] = np.arange(100) % 2
    signals["flags"][::10] = SIGNAL_BAR
    writer.publish(signals)
    finish(agent, world)
    (day,) = recorded_days(world.config.state_dir)
    found = read_day(world.config.state_dir, day, "signals")
    assert set(range(0, 100, 10)) <= set(found["sequence"].tolist())
    assert 20 < len(found) < 40
    ((header, _),) = iter_blocks(world.config.state_dir, day, "signals")
    assert header.next_sequence == 100


def test_every_kind_of_record_reaches_its_table(world: TestInstance) -> None:
    algo, bridge, guard = (world.context(s) for s in ("algo", "broker-bridge", "watchdog"))
    agent = start(world)
    algo.ring_writer("orders.algo").publish(intent(77))
    bridge.events.emit(EventKind.ORDER_STATE, OrderState.SENT, symbol=0, ref_id=77, ref2=5, qty=100.0, limit=150.0)
    bridge.events.emit(
        EventKind.ORDER_STATE, OrderState.FILLED, symbol=0, ref_id=77, ref2=5, value=100.0, qty=100.0, price=149.99
    )
    bridge.events.emit(EventKind.REFUSED, Refusal.COLLAR, symbol=1, ref_id=78, text="5.2 % above the ask")
    bridge.ring_writer("executions").publish(execution("1.2.01.01", 100.0, 149.99, commission=1.0))
    guard.events.emit(EventKind.GUARDRAIL, Badge.DD, ref_id=BadgeState.TRIPPED, value=5_100.0, limit=5_000.0)
    guard.events.emit(EventKind.AUDIT, CommandKind.KILL, source=4, text="drawdown")
    finish(agent, world)
    with reader(world) as journal:
        filled, refused = journal.orders()
        assert (filled["state"], filled["filled_qty"], filled["avg_price"]) == ("FILLED", 100.0, 149.99)
        assert (refused["state"], refused["refusal"]) == ("REFUSED", "COLLAR")
        (fill,) = journal.fills()
        assert (fill["symbol"], fill["side"], fill["qty"], fill["commission_usd"]) == ("AAPL", "BUY", 100.0, 1.0)
        assert journal.positions_from_fills()["AAPL"].qty == 100.0
        assert journal.guardrails()[-1]["badge"] == "DD"
        assert journal.audit()[-1]["command"] == "KILL"
    assert verify(journal_path(world.config.state_dir)).sound


def test_a_recorder_restarted_over_the_same_rings_journals_each_event_once(world: TestInstance) -> None:
    emit = world.context("algo").events.emit
    for n in range(5):
        agent = start(world)
        for i in range(40):
            emit(EventKind.MODEL, 1, ref_id=n * 40 + i)
        finish(agent, world)
    with reader(world) as journal:
        assert [e["ref_id"] for e in journal.events(limit=1000) if e["kind"] == "MODEL"] == list(range(200))


def test_events_lost_before_the_recorder_came_up_stand_in_the_journal_as_a_gap(world: TestInstance) -> None:
    emit = world.context("algo").events.emit
    for i in range(5_000):
        emit(EventKind.MODEL, 1, ref_id=i)
    agent = start(world)
    finish(agent, world)
    with reader(world) as journal:
        rows = journal.events(limit=10_000)
        (gap,) = [e for e in rows if e["text"].startswith("gap:")]
        assert gap["ref2"] + sum(e["kind"] == "MODEL" for e in rows) == 5_000


def test_a_full_journal_queue_leaves_the_backlog_in_the_ring(
    world: TestInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.store.sinks.JOURNAL_QUEUE_RECORDS", 100)
    agent = start(world)
    emit = world.context("algo").events.emit
    with agent._journal._wake:  # the sink's thread can't take anything meanwhile
        for i in range(3_000):
            emit(EventKind.MODEL, 1, ref_id=i)
        for _ in range(5):
            agent.do_work(world.clock.now_ns())
        assert agent.lag() > 2_000
    finish(agent, world)


def test_an_acknowledgement_is_answered_in_the_recorders_events(world: TestInstance, recorder: Recorder) -> None:
    commands = world.context("cockpit").ring_writer("commands.operator")
    commands.record[0]["kind"] = CommandKind.ACKNOWLEDGE
    commands.record[0]["command_id"] = 99
    commands.publish_record()
    recorder.do_work(world.clock.now_ns())
    recorder.do_work(world.clock.now_ns())

    def answered() -> bool:
        with reader(world) as journal:
            return any(r["row"] == "RESULT" and r["ref_id"] == 99 for r in journal.audit())

    until(answered)


def test_a_low_disk_degrades_the_recorder_and_raises_a_p1(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from engine.runtime.testing import instance

    with instance(tmp_path / "s", {"recorder": {"min_free_bytes": 1 << 60}}) as world:
        ctx = world.context("recorder")
        beat = ctx.start_heartbeat(1)
        agent = create(ctx)
        agent.on_start(world.clock.now_ns())
        agent.housekeeping(world.clock.now_ns())
        assert agent.degraded
        beat.beat(2, 0, 0, 0)
        assert int(world.context("watchdog").cell_reader("heartbeat.recorder").read()["flags"]) == 1
        finish(agent, world)
        with reader(world) as journal:
            assert [e["severity"] for e in journal.events() if "disk low" in e["text"]] == [Severity.P1.name]


def test_a_corrupt_journal_refuses_the_start_and_says_what_to_do(world: TestInstance) -> None:
    agent = start(world)
    finish(agent, world)
    path = journal_path(world.config.state_dir)
    data = bytearray(path.read_bytes())
    data[100:4000] = b"\xff" * 3900
    path.write_bytes(data)
    with pytest.raises(StartRefused, match="restore it from a backup"):
        start(world)
    assert path.read_bytes() == data


def test_a_correction_replaces_the_execution_and_a_replayed_one_counts_once(world: TestInstance) -> None:
    bridge = world.context("broker-bridge").ring_writer("executions")
    agent = start(world)
    bridge.publish(execution("7.1.01.01", 100.0, 10.0))
    bridge.publish(execution("7.1.01.01", 100.0, 10.0))
    bridge.publish(execution("7.1.01.02", 100.0, 10.5, kind=ExecKind.CORRECTION))
    bridge.publish(execution("7.2.01.01", 40.0, 11.0, side=Side.SELL))
    bridge.publish(execution("7.2.01.01", 0.0, 0.0, kind=ExecKind.COMMISSION, commission=0.35))
    finish(agent, world)
    with reader(world) as journal:
        fills = journal.fills()
        assert [(f["exec_id"], f["price"]) for f in fills] == [("7.1.01.02", 10.5), ("7.2.01.01", 11.0)]
        position = journal.positions_from_fills()["AAPL"]
    assert (position.qty, position.realized_pnl_usd, position.commissions_usd) == (60.0, 20.0, 0.35)


def test_a_p1_event_of_any_service_reaches_the_pager_named_in_the_environment(
    world: TestInstance, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("L2DASH_ALERT_P1", receiver.url)
    agent = start(world)
    guard = world.context("watchdog").events
    guard.emit(
        EventKind.GUARDRAIL,
        Badge.POS,
        ref_id=BadgeState.TRIPPED,
        symbol=2,
        ref2=4_711,
        severity=Severity.P1,
        text="21 % of limit",
    )
    guard.emit(EventKind.ALERT, 1, severity=Severity.P1, ref_id=4_711, text="KILL: 21 % of limit")
    agent.do_work(world.clock.now_ns())
    until(lambda: len(receiver.got) >= 1, 20)
    finish(agent, world)
    # Both belong to one incident; which of the two opens it depends on how the commits fall.
    assert "21 % of limit" in receiver.got[0]["message"]
    with reader(world) as journal:
        assert [r["table"] for r in journal.incident(4_711) if r["ring"] == "events.watchdog"] == [
            "guardrails",
            "events",
        ]
        assert {i["text"] for i in journal.incidents()} == {"21 % of limit", "KILL: 21 % of limit"}


def test_the_day_that_closed_is_sealed_and_days_past_retention_go(world: TestInstance) -> None:
    old = world.config.state_dir / "ticks" / "2023-11-01"
    old.mkdir(parents=True)
    agent = start(world)
    world.context("broker-bridge").ring_writer("ticks").publish(ticks(50))
    agent.do_work(world.clock.now_ns())
    agent.housekeeping(world.clock.now_ns() + 600_000_000)
    (day,) = [d for d in recorded_days(world.config.state_dir) if d > 20231101]
    until(lambda: agent._ticks.synced.get("ticks") == 50)

    def sealed() -> bool:
        agent.housekeeping(world.clock.advance(86_400_000_000_000))
        return not list((world.config.state_dir / "ticks").rglob("ticks-000001.seg"))

    until(sealed, 20)
    assert read_day(world.config.state_dir, day).tobytes() == ticks(50).tobytes()

    def forgotten() -> bool:
        agent.housekeeping(world.clock.advance(86_400_000_000_000))
        return not old.exists()

    until(forgotten, 20)
    finish(agent, world)
    assert start_and_lag(world) == 0


def start_and_lag(world: TestInstance) -> int:
    """Ticks that a new recorder would read again although a sealed segment has them."""
    agent = start(world)
    again = agent._streams[0].reader.waiting
    finish(agent, world)
    return again
