"""Alerts: grouping and repetition on an injected clock, delivery to a real receiver over HTTP."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.codes import Badge, BadgeState, CommandKind, EventKind, Severity
from engine.store.alert_book import JOIN_NS, ROUTINE_NS, SETTLE_NS, AlertBook, Message
from engine.store.alert_rules import RULES, Alert, alert_of, table
from engine.store.alerts import Answer, Channels, Courier, Dispatcher
from engine.store.blocks import Records
from engine.store.journal import Committed, Journal, journal_path
from engine.store.rows import Batch, Names

from .conftest import Receiver, events

S = 1_000_000_000
REPEAT_NS = 300 * S


def alert(key: str, severity: Severity = Severity.P1, number: int = 1) -> Alert:
    return Alert(number, key, severity, key, f"{key} happened", 0)


def tell(book: AlertBook, now_ns: int, ok: bool = True) -> list[Message]:
    found = book.due(now_ns)
    for message in found:
        book.delivered(message, ok, now_ns)
    return found


def test_the_first_p1_goes_out_at_once_and_what_belongs_to_it_follows_in_one_update() -> None:
    book = AlertBook(REPEAT_NS)
    book.observe(alert("DD", number=7), 0)
    (first,) = tell(book, 0)
    assert (first.severity, first.incident) == (Severity.P1, 7)
    for n, key in enumerate(("KILL", "flatten", "KILL", "KILL")):
        book.observe(alert(key, Severity.P2, n), S)
    assert tell(book, 2 * S) == []
    (update,) = tell(book, S + SETTLE_NS)
    assert update.incident == 7
    assert update.body.count("happened") == 2
    assert "2 repetitions" in update.body


def test_a_p1_is_repeated_until_acknowledged_and_not_a_moment_longer() -> None:
    book = AlertBook(REPEAT_NS)
    book.observe(alert("DD", number=7), 0)
    tell(book, 0)
    times = [t for t in range(1, 2_000) if tell(book, t * S)]
    assert times == [300, 600, 900, 1_200, 1_500, 1_800]
    assert book.acknowledge(0, 2_000 * S) == [7]
    assert not any(tell(book, t * S) for t in range(2_000, 4_000))


def test_acknowledging_one_incident_leaves_another_open() -> None:
    book = AlertBook(REPEAT_NS)
    book.observe(alert("DD", number=7), 0)
    tell(book, 0)
    assert book.acknowledge(8, S) == []
    assert tell(book, REPEAT_NS)


def test_a_p2_is_told_once_and_a_later_one_is_a_new_incident() -> None:
    book = AlertBook(REPEAT_NS)
    book.observe(alert("link", Severity.P2, 3), 0)
    assert [m.incident for m in tell(book, 0)] == [3]
    assert not any(tell(book, t * S) for t in range(1, 400))
    book.observe(alert("link", Severity.P2, 9), JOIN_NS + 400 * S)
    assert [m.incident for m in tell(book, JOIN_NS + 400 * S)] == [9]


def test_a_p2_that_becomes_a_p1_escalates_at_once() -> None:
    book = AlertBook(REPEAT_NS)
    book.observe(alert("link", Severity.P2, 3), 0)
    tell(book, 0)
    book.observe(alert("KILL", Severity.P1, 4), S)
    (message,) = tell(book, S)
    assert (message.incident, message.severity) == (3, Severity.P1)
    assert "escalated" in message.title


def test_routine_alerts_come_in_one_message_a_minute() -> None:
    book = AlertBook(REPEAT_NS)
    for n in range(50):
        book.observe(alert(f"r{n % 3}", Severity.ROUTINE, n), n * S)
    assert tell(book, 50 * S) == []
    (digest,) = tell(book, ROUTINE_NS)
    assert digest.severity == Severity.ROUTINE
    assert digest.title.startswith("50 ")
    assert tell(book, 10 * ROUTINE_NS) == []


def test_a_message_that_was_not_taken_is_tried_again() -> None:
    book = AlertBook(REPEAT_NS)
    book.observe(alert("DD"), 0)
    assert tell(book, 0, ok=False)
    assert tell(book, 4 * S, ok=False) == []
    assert tell(book, 5 * S, ok=True)
    assert tell(book, 20 * S) == []


@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.sampled_from(["a", "b", "c"]), st.sampled_from([1, 2, 3]), st.booleans()),
        max_size=30,
    )
)
@settings(max_examples=60, deadline=None)
def test_every_alert_is_told_at_least_once_and_no_p1_waits(steps: list[tuple[int, str, int, bool]]) -> None:
    book, now, told = AlertBook(REPEAT_NS), 0, ""
    wanted = set()
    for n, (gap, key, severity, ok) in enumerate(steps, 1):  # a journal row is never number 0
        now += gap * S
        book.observe(Alert(n, f"{key}{severity}", Severity(severity), key, f"<{key}{severity}>", now), now)
        wanted.add(f"<{key}{severity}>")
        found = tell(book, now, ok)
        told += "".join(m.body for m in found if ok)
        if severity == Severity.P1 and ok:
            assert not any(i.told_severity < Severity.P1 <= i.severity and not i.retry_ns for i in book.incidents)
    for _ in range(20):
        now += 30 * S
        told += "".join(m.body for m in tell(book, now))
    assert all(w in told for w in wanted)


def row(records: Records, ring: str, number: int = 1) -> Committed:
    names = Names(("AAPL",), 0, lambda wall: 20240102)
    from engine.store.rows import rows_of

    ((name, found),) = rows_of(Batch(ring, 1, records, 0, 1, 1), names)
    return Committed(number, name, found)


@pytest.mark.parametrize(
    ("records", "severity"),
    [
        (events(1, kind=EventKind.GUARDRAIL, code=Badge.DD, ref_id=BadgeState.TRIPPED), Severity.ROUTINE),
        (
            events(1, kind=EventKind.GUARDRAIL, code=Badge.DD, ref_id=BadgeState.TRIPPED, severity=Severity.P1),
            Severity.P1,
        ),
        (events(1, kind=EventKind.GUARDRAIL, code=Badge.DD, ref_id=BadgeState.WARN), Severity.ROUTINE),
        (events(1, kind=EventKind.GUARDRAIL, code=Badge.DD, ref_id=BadgeState.OK), None),
        (events(1, kind=EventKind.ALERT, severity=Severity.P2), Severity.P2),
        (events(1, kind=EventKind.LIFECYCLE, code=3), None),
        (events(1, kind=EventKind.CONNECTIVITY, code=1100), Severity.P2),
        (events(1, kind=EventKind.CONNECTIVITY, code=1100, severity=Severity.P1), Severity.P1),
        (events(1, kind=EventKind.RECONCILE, value=5.0, limit=5.0), None),
        (events(1, kind=EventKind.RECONCILE, value=5.0, limit=4.0), Severity.P2),
        (events(1, kind=EventKind.AUDIT, code=CommandKind.FLATTEN), Severity.P2),
        (events(1, kind=EventKind.ORDER_STATE, code=3, severity=Severity.P1), None),
    ],
)
def test_the_table_gives_each_event_its_severity(records: Records, severity: Severity | None) -> None:
    found = row(records, "events.watchdog")
    alert = alert_of(found.id, found.table, found.row)
    assert (alert.severity if alert else None) == severity


def test_every_rule_can_be_read_by_people() -> None:
    assert len(table()) == len(RULES)
    assert all(all(part for part in line) for line in table())


class Clock:
    now = 10 * S

    def wall_ns(self) -> int:
        return self.now


def dispatcher(tmp_path: Path, clock: Clock, **channels: str) -> Dispatcher:
    return Dispatcher(tmp_path, journal_path(tmp_path), Channels(**channels), 300.0, clock.wall_ns)


def commit(journal: Journal, records: Records, ring: str = "events.watchdog") -> list[Committed]:
    names = Names(("AAPL",), 0, lambda wall: 20240102)
    return journal.append([Batch(ring, 1, records, 0, int(records[-1]["sequence"]) + 1, 1)], names)


def acknowledgement(sequence: int) -> Records:
    import numpy as np

    from shm.layouts import COMMAND

    found = np.zeros(1, COMMAND)
    found["sequence"], found["kind"], found["who"] = sequence, CommandKind.ACKNOWLEDGE, b"eve"
    return found


def test_a_p1_reaches_the_pager_repeats_over_a_restart_and_stops_when_acknowledged(
    tmp_path: Path, receiver: Receiver
) -> None:
    clock, journal = Clock(), Journal(journal_path(tmp_path))
    first = dispatcher(tmp_path, clock, p1=receiver.url, p2="json://127.0.0.1:1/never")
    tripped = events(
        3,
        kind=EventKind.GUARDRAIL,
        code=Badge.DD,
        ref_id=BadgeState.TRIPPED,
        severity=Severity.P1,
        text=b"5,120 under start",
    )
    first.rows(commit(journal, tripped))
    assert first.step() == 1
    assert receiver.got[0]["type"] == "failure"
    assert "5,120 under start" in receiver.got[0]["message"]
    assert first.step() == 0
    first.close()

    clock.now += 301 * S
    second = dispatcher(tmp_path, clock, p1=receiver.url)
    second.catch_up()
    assert second.step() == 1
    assert "not acknowledged" in receiver.got[1]["title"]
    second.rows(commit(journal, acknowledgement(0), "commands.operator"))
    clock.now += 3_000 * S
    assert second.step() == 0
    assert any("eve acknowledged 1" in r for r in second.results)
    second.close()
    journal.close()


def test_rows_committed_while_the_dispatcher_was_down_are_told_later(tmp_path: Path, receiver: Receiver) -> None:
    clock, journal = Clock(), Journal(journal_path(tmp_path))
    first = dispatcher(tmp_path, clock, p1=receiver.url)
    first.rows(commit(journal, events(1, kind=EventKind.ALERT, severity=Severity.P1, text=b"one")))
    first.step()
    commit(journal, events(1, first=1, kind=EventKind.ALERT, severity=Severity.P1, text=b"two"))
    first.close()
    second = dispatcher(tmp_path, clock, p1=receiver.url)
    second.catch_up()
    second.step()
    clock.now += SETTLE_NS
    second.step()
    assert [("one" in m["message"], "two" in m["message"]) for m in receiver.got] == [(True, False), (False, True)]
    second.close()
    journal.close()


def test_a_receiver_that_refuses_gets_the_message_when_it_is_well_again(tmp_path: Path, receiver: Receiver) -> None:
    clock, journal = Clock(), Journal(journal_path(tmp_path))
    box = dispatcher(tmp_path, clock, p2=receiver.url)
    receiver.refuse = True
    box.rows(commit(journal, events(1, kind=EventKind.ALERT, severity=Severity.P2, text=b"disk")))
    assert box.step() == 0
    assert any("did not take it" in r for r in box.results)
    receiver.refuse = False
    clock.now += 6 * S
    assert box.step() == 1
    box.close()
    journal.close()


def test_a_page_nobody_configured_goes_to_the_next_best_channel(tmp_path: Path) -> None:
    assert Channels(routine="json://x").urls(Severity.P1) == "json://x"
    assert Channels(p1="json://p", routine="json://x").urls(Severity.P2) == "json://x"
    assert Channels().urls(Severity.P1) == ""


def test_the_outside_dead_man_hears_nothing_while_the_house_is_not_well(tmp_path: Path, receiver: Receiver) -> None:
    clock, well = Clock(), [True]
    url = receiver.url.replace("json://", "http://")
    box = Dispatcher(
        tmp_path, journal_path(tmp_path), Channels(deadman=url), 300.0, clock.wall_ns, healthy=lambda: well[0]
    )
    for _ in range(120):
        clock.now += S
        box.step()
    assert receiver.pings == 2
    well[0] = False
    clock.now += 600 * S
    box.step()
    assert receiver.pings == 2
    box.close()


def test_a_dispatcher_that_stumbles_says_so_and_goes_on(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, journal = Clock(), Journal(journal_path(tmp_path))
    box = dispatcher(tmp_path, clock, p1=receiver.url)
    send, stumbles = box._courier.send, iter([ValueError("a value nobody thought of")])

    def once(urls: str, message: Message) -> Answer:
        for error in stumbles:
            raise error
        return send(urls, message)

    monkeypatch.setattr(box._courier, "send", once)
    box.start()
    box.rows(commit(journal, events(1, kind=EventKind.ALERT, severity=Severity.P1, text=b"late but told")))
    end = time.monotonic() + 60.0
    while not receiver.got and time.monotonic() < end:
        clock.now += 6 * S
        time.sleep(0.05)
    assert "late but told" in receiver.got[0]["message"]
    assert any("ValueError: a value nobody thought of" in r for r in box.results)
    box.close()
    journal.close()


def test_a_page_goes_out_from_a_process_with_thousands_of_open_files(tmp_path: Path, receiver: Receiver) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limits[1]), limits[1]))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    courier = Courier()
    try:
        assert courier.send(receiver.url, Message(1, Severity.P1, "many files", "told all the same", 1)).ok
    finally:
        courier.close()
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert "told all the same" in receiver.got[0]["message"]
