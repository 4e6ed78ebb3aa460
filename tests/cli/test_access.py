"""The command line's hand in an instance: what it writes, in which order, and whom it believes."""

from __future__ import annotations

import fcntl
import math
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from engine.cli import access as access_module
from engine.cli.access import Access, what_remains
from engine.cli.errors import CliError, Refused
from engine.domain.codes import (
    CommandKind,
    EventKind,
    FlattenState,
    IntentKind,
    OrderState,
    Refusal,
    ServiceState,
    Source,
)
from engine.risk.stops import effective
from engine.runtime.heartbeat import Heartbeat
from engine.runtime.testing import TestInstance


@pytest.fixture
def hand(private: TestInstance) -> Iterator[Access]:
    with Access(private.config) as opened:
        yield opened


def live(private: TestInstance, service: str) -> None:
    """Let a service count as alive: this process beats for it."""
    context = private.context(service)
    Heartbeat(context.cell_writer(f"heartbeat.{service}"), 1).set_state(ServiceState.READY, 1)


def test_an_audit_event_stands_before_the_command(private: TestInstance, hand: Access) -> None:
    events, commands = (private.context("recorder").ring_reader(n) for n in ("events.cli", "commands.cli"))
    seen: list[int] = []
    publish = hand.context.ring_writer

    def spy(name: str) -> Any:
        if name == "commands.cli":
            seen.append(len(events.poll().copy()))
        return publish(name)

    hand.context.ring_writer = spy  # type: ignore[method-assign]
    command = hand.command(CommandKind.RESUME, reason="why")
    assert seen == [1], "the audit event must be there before the command ring is even opened"
    record = commands.poll()[0]
    assert int(record["command_id"]) == command
    assert record["kind"] == CommandKind.RESUME
    assert record["source"] == Source.CLI
    assert record["reason"] == b"why"
    assert record["who"].startswith(b"cli:")


def test_an_intent_carries_exactly_what_was_asked_for_and_no_idempotency_key(
    private: TestInstance, hand: Access
) -> None:
    reader = private.context("broker-bridge").ring_reader("orders.cli")
    intent = hand.send_intent(hand.instrument("MSFT"), "order", kind=int(IntentKind.NEW), side=1, qty=5.0)
    record = reader.poll()[0]
    assert int(record["intent_id"]) == intent
    assert (record["symbol"], record["qty"], record["side"], record["source"]) == (1, 5.0, 1, Source.CLI)
    assert math.isnan(record["limit_price"])
    assert record["key"] == b""
    assert record["mode"] == 1


def test_ids_of_two_commands_in_the_same_second_differ(private: TestInstance) -> None:
    ids = []
    for _ in range(3):
        with Access(private.config) as hand:
            ids.append(hand.ids.next(Source.CLI))
    assert len(set(ids)) == 3


def test_a_second_command_waits_for_the_lock_and_then_names_it(
    private: TestInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_module, "LOCK_WAIT_S", 0.05)
    with Access(private.config), pytest.raises(Refused, match=r"cli\.lock"):
        Access(private.config)
    with Access(private.config):
        pass


def test_a_killed_command_leaves_no_lock_behind(private: TestInstance) -> None:
    pid = os.fork()
    if pid == 0:
        fd = os.open(private.config.shm_dir / "cli.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    with Access(private.config):
        pass


def stops_of(private: TestInstance) -> Any:
    context = private.context("algo")
    readers = [context.cell_reader(f"stop.{n}") for n in ("watchdog", "bridge", "operator", "cli")]
    return effective([r.read() for r in readers], [bool(r.torn[0]) for r in readers])


def test_a_stop_of_the_command_line_holds_at_once_and_until_the_watchdog_releases_it(
    private: TestInstance, hand: Access
) -> None:
    stop = hand.stop(pause=True)
    assert stops_of(private).pause
    watchdog = private.context("watchdog").cell_writer("stop.watchdog")
    watchdog.value[0]["released_pause_id"] = stop
    watchdog.publish()
    assert not stops_of(private).pause


def test_a_released_kill_does_not_come_back_with_a_later_pause(private: TestInstance, hand: Access) -> None:
    killed = hand.stop(kill=True)
    watchdog = private.context("watchdog").cell_writer("stop.watchdog")
    watchdog.value[0]["released_kill_id"] = killed
    watchdog.publish()
    hand.stop(pause=True)
    assert not stops_of(private).kill
    assert stops_of(private).pause


def test_an_unreleased_kill_survives_a_later_pause(private: TestInstance, hand: Access) -> None:
    hand.stop(kill=True)
    hand.stop(pause=True)
    assert stops_of(private).kill


def test_the_index_and_unknown_symbols_are_no_instruments(hand: Access) -> None:
    with pytest.raises(click.UsageError, match="watched, not traded"):
        hand.instrument("DJI")
    with pytest.raises(click.UsageError, match="AAPL"):
        hand.instrument("NOPE")


def test_what_remains_is_read_from_the_last_confirmed_state_of_a_dead_system(private: TestInstance) -> None:
    bridge = private.context("broker-bridge")
    positions, broker = bridge.cell_writer("positions"), bridge.cell_writer("broker")
    positions.value[0]["qty"] = 40.0
    positions.publish(0)
    broker.value[0]["working_orders"] = 2
    broker.publish()
    assert what_remains(private.config) == "AAPL +40, 2 working orders"


class Fake(threading.Thread):
    """A service that answers what stands in the command line's rings, once."""

    def __init__(self, private: TestInstance, service: str, ring: str, act: Callable[[Any, Any], None]) -> None:
        super().__init__(daemon=True)
        self.context = private.context(service)
        live(private, service)
        self.reader = self.context.ring_reader(ring)
        self.act, self.done = act, threading.Event()
        self.start()

    def run(self) -> None:
        while not self.done.wait(0.001):
            for record in self.reader.poll():
                self.act(self.context, record)

    def close(self) -> None:
        self.done.set()
        self.join()


def answering(code: int, text: str) -> Callable[[Any, Any], None]:
    def act(context: Any, record: Any) -> None:
        context.events.emit(EventKind.COMMAND_RESULT, code, ref_id=int(record["command_id"]), text=text)

    return act


def test_reset_says_why_it_was_refused_and_exits_three(private: TestInstance, cli: Any) -> None:
    fake = Fake(private, "watchdog", "commands.cli", answering(1, "cooling for 212 s more"))
    code, said = cli("reset")
    fake.close()
    assert (code, said.strip()) == (3, "l2dash: reset refused: cooling for 212 s more")


def test_resume_that_is_done_exits_zero(private: TestInstance, cli: Any) -> None:
    fake = Fake(private, "watchdog", "commands.cli", answering(0, "resumed"))
    assert cli("resume") == (0, "resumed\n")
    fake.close()


def test_a_command_to_a_dead_service_is_refused_with_the_remedy(private: TestInstance, cli: Any) -> None:
    code, said = cli("reconnect")
    assert code == 3
    assert "l2dash start broker-bridge" in said


def test_pause_holds_without_a_watchdog(private: TestInstance, cli: Any) -> None:
    code, said = cli("pause")
    assert code == 0
    assert "own stop" in said
    assert stops_of(private).pause


def test_order_names_the_guardrail_that_refused_it(private: TestInstance, cli: Any) -> None:
    def refuse(context: Any, record: Any) -> None:
        context.events.emit(
            EventKind.REFUSED, Refusal.COLLAR, ref_id=int(record["intent_id"]), text="limit 99 above 52.5"
        )

    fake = Fake(private, "broker-bridge", "orders.cli", refuse)
    code, said = cli("order", "AAPL", "BUY", "1", "--limit", "99")
    fake.close()
    assert code == 3
    assert "COLLAR" in said
    assert "limit 99 above 52.5" in said


def test_order_reports_the_brokers_first_word(private: TestInstance, cli: Any) -> None:
    def accept(context: Any, record: Any) -> None:
        for state in (OrderState.SENT, OrderState.WORKING):
            context.events.emit(EventKind.ORDER_STATE, state, ref_id=int(record["intent_id"]))

    fake = Fake(private, "broker-bridge", "orders.cli", accept)
    code, said = cli("order", "AAPL", "SELL", "1")
    fake.close()
    assert code == 0
    assert "SELL 1 AAPL MKT DAY: WORKING (L2:" in said


def flattening(state: FlattenState, remaining: int = 0) -> Callable[[Any, Any], None]:
    def act(context: Any, record: Any) -> None:
        if record["kind"] != CommandKind.FLATTEN:
            return
        cell = context.cell_writer("flatten")
        now = int(record["t_ns"]) + 1
        cell.value[0]["state"], cell.value[0]["started_ns"] = int(state), now
        cell.value[0]["flat_ns"] = now if state == FlattenState.FLAT else 0
        cell.value[0]["remaining"] = remaining
        cell.publish()
        context.events.emit(EventKind.COMMAND_RESULT, 0, ref_id=int(record["command_id"]), text="flatten started")

    return act


def test_flatten_exits_zero_only_when_the_broker_has_confirmed_flat(private: TestInstance, cli: Any) -> None:
    fake = Fake(private, "watchdog", "commands.cli", flattening(FlattenState.FLAT))
    code, said = cli("flatten")
    fake.close()
    assert code == 0
    assert "confirmed by the broker" in said
    assert stops_of(private).pause


def test_flatten_that_gets_stuck_exits_one_and_names_what_remains(private: TestInstance, cli: Any) -> None:
    fake = Fake(private, "watchdog", "commands.cli", flattening(FlattenState.STUCK, remaining=0b101))
    code, said = cli("flatten", "--wait", "0.3")
    fake.close()
    assert code == 1
    assert "AAPL, AMZN" in said
    assert "--direct" in said


def test_an_older_flat_state_does_not_count_as_this_flatten(private: TestInstance, cli: Any) -> None:
    cell = private.context("watchdog").cell_writer("flatten")
    cell.value[0]["state"], cell.value[0]["flat_ns"], cell.value[0]["started_ns"] = int(FlattenState.FLAT), 5, 1
    cell.publish()
    fake = Fake(private, "watchdog", "commands.cli", answering(0, "flatten started"))
    code, _ = cli("flatten", "--wait", "0.3")
    fake.close()
    assert code == 1


def test_flatten_without_a_watchdog_stops_entries_and_points_to_direct(private: TestInstance, cli: Any) -> None:
    code, said = cli("flatten")
    assert code == 1
    assert "--direct" in said
    assert stops_of(private).pause


def test_a_full_command_ring_is_an_error_not_a_wait(private: TestInstance, hand: Access) -> None:
    for _ in range(256):
        hand.command(CommandKind.SNAPSHOT)
    with pytest.raises(CliError, match="full"):
        hand.command(CommandKind.SNAPSHOT)


def test_no_instance_is_a_refusal_that_says_how_to_start_one(private: TestInstance, tmp_path: Path) -> None:
    import msgspec

    elsewhere = msgspec.structs.replace(private.config.instance, shm_root=str(tmp_path))
    with pytest.raises(Refused, match="l2dash up"):
        Access(msgspec.structs.replace(private.config, instance=elsewhere))
