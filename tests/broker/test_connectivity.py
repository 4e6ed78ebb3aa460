"""Reconnecting, probing and silence, on a simulated clock; contracts' hours; order ids; the dead-man's patience."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.broker import statefile
from engine.broker.connectivity import PROBE_GIVE_UP_NS, Connectivity
from engine.broker.contracts import open_at, parse_hours
from engine.broker.deadman import Lease, LeaseVerdict
from engine.domain.codes import LinkState

MS = 1_000_000
S = 1_000 * MS


def link() -> Connectivity:
    return Connectivity(250 * MS, 10 * S, 1_500 * MS, 4 * S)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_attempts_back_off_within_their_bounds(chances: list[float]) -> None:
    conn, now = link(), 0
    for chance in chances:
        conn.connecting(now)
        delay = conn.lost(now, chance)
        assert 250 * MS <= delay <= 10 * S
        assert not conn.due(now + delay - 1)
        assert conn.due(now + delay)
        now += delay
    assert conn.down_since_ns == 0 or conn.down_since_ns <= now


def test_outage_counts_from_the_first_loss_until_the_books_are_read_again() -> None:
    conn = link()
    conn.connecting(5 * S)
    conn.opened(6 * S)
    assert (conn.state, conn.down_since_ns) == (LinkState.SYNCING, 5 * S)
    conn.synced()
    assert (conn.state, conn.down_since_ns) == (LinkState.UP, 0)
    conn.broker_lost(9 * S)
    assert (conn.state, conn.down_since_ns) == (LinkState.BROKER_LOST, 9 * S)
    assert conn.broker_back()
    assert conn.down_since_ns == 9 * S
    conn.synced()
    assert conn.down_since_ns == 0
    assert not conn.broker_back()


def test_operators_wish_overrides_the_back_off() -> None:
    conn = link()
    for _ in range(8):
        conn.lost(0, 1.0)
    assert not conn.due(S)
    conn.hurry(S)
    assert conn.due(S)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 900), st.booleans()), max_size=120))
def test_probes_are_never_closer_than_their_interval(steps: list[tuple[int, bool]]) -> None:
    conn, now, sent = link(), 10 * S, []
    conn.opened(now)
    for gap, answered in steps:
        now += gap * MS
        if answered:
            conn.probe_answered(now)
        if conn.probe_due(now):
            conn.probe_left(now)
            sent.append(now)
    assert all(b - a >= 1_500 * MS for a, b in pairwise(sent))


def test_silence_is_death_only_if_something_was_asked() -> None:
    conn = link()
    conn.opened(10 * S)
    assert not conn.mute(100 * S, 10 * S), "never asked"
    conn.probe_left(100 * S)
    assert not conn.mute(103 * S, 100 * S + 1), "answered since"
    assert not conn.mute(103 * S, 99_500 * MS)
    assert conn.mute(104 * S, 99_500 * MS)


def test_ignored_probe_is_asked_again_and_an_answer_gives_one_round_trip() -> None:
    conn = link()
    conn.opened(0)
    conn.probe_left(10 * S)
    assert not conn.probe_due(12 * S)
    assert conn.probe_due(10 * S + PROBE_GIVE_UP_NS + 1)
    assert conn.probe_answered(10 * S + 7 * MS) == 7 * MS
    assert conn.probe_answered(11 * S) == 0


def test_asking_again_does_not_end_a_silence() -> None:
    conn = link()
    conn.opened(0)
    conn.heard_ns = 9 * S
    conn.probe_left(10 * S)
    assert not conn.unanswered(10_400 * MS)
    assert conn.unanswered(10_600 * MS)
    conn.probe_left(13_100 * MS)
    assert conn.unanswered(13_101 * MS), "entries had better wait on"
    conn.heard_ns = 13_200 * MS
    assert not conn.unanswered(13_800 * MS)
    conn.probe_left(15 * S)
    assert not conn.unanswered(15_400 * MS)
    assert conn.unanswered(15_600 * MS)


def wall(text: str) -> int:
    return int(datetime.strptime(text, "%Y%m%d %H%M").replace(tzinfo=ZoneInfo("America/New_York")).timestamp()) * S


@pytest.mark.parametrize(
    ("hours", "moment", "is_open"),
    [
        ("20240102:0930-20240102:1600;20240103:CLOSED", "20240102 0930", True),
        ("20240102:0930-20240102:1600;20240103:CLOSED", "20240102 1600", False),
        ("20240102:0930-20240102:1600;20240103:CLOSED", "20240103 1200", False),
        ("20240102:0930-1600", "20240102 1200", True),
        ("20240102:1800-20240103:1700", "20240103 0200", True),
        ("20240102:0000-20240103:0000", "20240102 2359", True),
        ("20240102:0930-20240102:2400", "20240102 2330", True),
        ("nonsense", "20240102 1200", False),
    ],
)
def test_hours_are_read_in_the_exchanges_time_zone(hours: str, moment: str, is_open: bool) -> None:
    assert open_at(parse_hours(hours, "US/Eastern"), wall(moment)) is is_open


def test_order_ids_are_on_disk_before_they_are_used_and_never_repeat(tmp_path: Path) -> None:
    path = tmp_path / "risk.bridge.json"
    ids = statefile.OrderIds(0)
    with pytest.raises(ValueError, match="not reserved"):
        ids.take()
    mark = ids.reserve()
    assert mark is not None
    assert not ids.ready(), "reserved, but not on disk"
    statefile.write_atomic(path, statefile.encode(statefile.BridgeState(order_id_mark=mark)))
    ids.confirm(mark)
    used = [ids.take() for _ in range(300)]
    heir = statefile.OrderIds(statefile.load(path).order_id_mark)  # type: ignore[union-attr]
    heir.raise_to(1)  # the gateway's counter has rolled back
    heir.confirm(heir.reserve() or 0)
    assert heir.take() > max(used)
    ids.raise_to(50_000)
    assert not ids.ready()
    assert ids.reserve() == 50_000 + statefile.BLOCK
    with pytest.raises(ValueError, match="not reserved"):
        ids.take()
    assert ids.take(closing=True) == 50_000, "a position is closed whatever the disk does"
    ids.confirm(50_000 + statefile.BLOCK)
    assert ids.take() == 50_001


def test_unreadable_state_is_refused_by_name_and_a_missing_one_is_none(tmp_path: Path) -> None:
    path = tmp_path / "risk.bridge.json"
    assert statefile.load(path) is None
    path.write_text("{")
    with pytest.raises(ValueError, match=r"risk\.bridge\.json"):
        statefile.load(path)


def test_writer_keeps_the_newest_of_several_values(tmp_path: Path) -> None:
    writer, path = statefile.Writer(), tmp_path / "file"
    for k in range(50):
        writer.submit(path, str(k).encode())
    assert writer.drain(5.0)
    assert path.read_text() == "49"
    assert writer.written(path) == 50
    writer.close()


def test_writer_confirms_only_what_is_on_disk(tmp_path: Path) -> None:
    writer, path = statefile.Writer(), tmp_path / "no directory" / "file"
    path.parent.write_text("a file in its place")
    number = writer.submit(path, b"1")
    assert writer.drain(5.0)
    assert writer.error
    assert writer.written(path) < number
    path.parent.unlink()
    number = writer.submit(path, b"2")
    assert writer.drain(5.0)
    assert (writer.error, writer.written(path)) == ("", number)
    writer.close()


def judge(
    lease: Lease, now: int, *, valid: bool = False, ours: bool = True, responsible: bool = True, expires: int = 0
) -> LeaseVerdict:
    return lease.judge(now, valid=valid, ours=ours, responsible=responsible, expires_ns=expires)


def test_watchdog_is_gone_only_after_its_time_with_something_to_lose() -> None:
    lease = Lease(5 * S)
    assert judge(lease, 10 * S, valid=True) == LeaseVerdict.OK
    assert judge(lease, 11 * S, expires=10_250 * MS) == LeaseVerdict.EXPIRED
    assert judge(lease, 15_249 * MS, expires=10_250 * MS) == LeaseVerdict.EXPIRED
    assert judge(lease, 15_250 * MS, expires=10_250 * MS) == LeaseVerdict.GONE
    assert judge(lease, 15_300 * MS, valid=True) == LeaseVerdict.OK
    assert judge(lease, 40 * S, responsible=False, expires=15_550 * MS) == LeaseVerdict.EXPIRED
    assert judge(lease, 41 * S, expires=15_550 * MS) == LeaseVerdict.EXPIRED, (
        "a restarted bridge gives the watchdog its time"
    )
    assert judge(lease, 46 * S, expires=15_550 * MS) == LeaseVerdict.GONE


def test_fenced_bridge_never_flattens() -> None:
    lease = Lease(5 * S)
    for second in range(0, 60, 2):
        assert judge(lease, second * S + 1, ours=False) == LeaseVerdict.EXPIRED
