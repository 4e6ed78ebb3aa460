"""The state of the link, each condition of each step by itself: what the mutation check leans on."""

from __future__ import annotations

import pytest

from engine.broker.connectivity import PROBE_GIVE_UP_NS, UNANSWERED_NS, Connectivity
from engine.domain.codes import LinkState

MS = 1_000_000
S = 1_000 * MS
SESSIONS = (LinkState.SYNCING, LinkState.UP, LinkState.BROKER_LOST)
OTHERS = (LinkState.DOWN, LinkState.CONNECTING)


def link(state: LinkState = LinkState.DOWN) -> Connectivity:
    made = Connectivity(250 * MS, 10 * S, 1_500 * MS, 4 * S)
    made.state = state
    return made


@pytest.mark.parametrize("state", [*SESSIONS, LinkState.CONNECTING])
def test_only_a_link_that_is_down_is_connected(state: LinkState) -> None:
    assert link().due(0)
    assert not link(state).due(S)


def test_an_outage_begins_once_however_often_it_is_noticed() -> None:
    for notice in (Connectivity.connecting, lambda c, t: c.lost(t, 0.0)):
        conn = link()
        notice(conn, 3 * S)
        notice(conn, 5 * S)
        assert conn.down_since_ns == 3 * S
    conn = link(LinkState.UP)
    conn.broker_lost(3 * S)
    conn.state = LinkState.UP
    conn.broker_lost(5 * S)
    assert conn.down_since_ns == 3 * S


@pytest.mark.parametrize("state", [LinkState.DOWN, LinkState.CONNECTING, LinkState.BROKER_LOST, LinkState.UP])
def test_books_that_were_read_end_an_outage_only_while_they_are_being_read(state: LinkState) -> None:
    conn = link(state)
    conn.down_since_ns, conn.attempts = 3 * S, 4
    conn.synced()
    assert (conn.state, conn.down_since_ns, conn.attempts) == (state, 3 * S, 4)
    conn.state = LinkState.SYNCING
    conn.synced()
    assert (conn.state, conn.down_since_ns, conn.attempts) == (LinkState.UP, 0, 0)


def test_a_delay_is_half_chance_between_the_bounds_and_doubles() -> None:
    conn = link()
    assert [conn.lost(0, 1.0) for _ in range(8)] == [250 * MS << min(k, 16) if k < 6 else 10 * S for k in range(8)]
    assert conn.lost(0, 0.0) == 5 * S
    assert link().lost(0, 0.0) == 250 * MS, "never less than the least"
    for _ in range(100):
        conn.lost(0, 1.0)
    assert conn.lost(0, 1.0) == 10 * S, "a long outage overflows nothing"


@pytest.mark.parametrize("state", OTHERS)
def test_a_broker_that_is_lost_means_nothing_without_a_session(state: LinkState) -> None:
    conn = link(state)
    conn.broker_lost(3 * S)
    assert (conn.state, conn.down_since_ns) == (state, 0)
    assert not conn.broker_back()
    assert conn.state == state


@pytest.mark.parametrize("state", [LinkState.SYNCING, LinkState.UP])
def test_a_broker_that_is_back_is_reconciled_anew(state: LinkState) -> None:
    conn = link(state)
    assert not conn.broker_back()
    conn.broker_lost(3 * S)
    assert conn.state == LinkState.BROKER_LOST
    assert conn.broker_back()
    assert conn.state == LinkState.SYNCING


@pytest.mark.parametrize(
    ("said", "enough"), [((1100,), False), ((2110,), True), ((2110, 1100), False), ((1100, 2110), False)]
)
def test_a_farm_that_is_back_ends_only_what_2110_has_begun(said: tuple[int, ...], enough: bool) -> None:
    conn = link(LinkState.UP)
    for code in said:
        conn.broker_lost(3 * S, code)
    assert (conn.broker_back(2104), conn.lost_code == 0) == (enough, enough)
    conn = link(LinkState.UP)
    conn.broker_lost(3 * S, 2110)
    assert conn.broker_back(1102)


def test_a_broker_that_is_lost_before_the_session_stands_is_lost_when_it_does() -> None:
    conn = link()
    conn.broker_lost(3 * S)
    conn.connecting(4 * S)
    conn.opened(5 * S)
    assert conn.state == LinkState.SYNCING, "said of the connection before"
    for back, state in ((False, LinkState.BROKER_LOST), (True, LinkState.SYNCING)):
        conn = link()
        conn.connecting(4 * S)
        conn.broker_lost(5 * S)
        if back:
            assert not conn.broker_back()
        conn.opened(6 * S)
        assert conn.state == state
    conn.lost(7 * S, 0.0)
    conn.connecting(8 * S)
    conn.opened(9 * S)
    assert conn.state == LinkState.SYNCING


@pytest.mark.parametrize("state", SESSIONS)
def test_a_probe_is_due_after_its_interval_and_while_none_is_out(state: LinkState) -> None:
    assert link(state).probe_due(2 * S), "also on a host that has just started"
    conn = link(state)
    conn.last_probe_ns = 10 * S
    assert not conn.probe_due(11_499 * MS)
    assert conn.probe_due(11_500 * MS)
    conn.probe_left(20 * S)
    assert not conn.probe_due(20 * S + PROBE_GIVE_UP_NS)
    assert conn.probe_due(20 * S + PROBE_GIVE_UP_NS + 1)


@pytest.mark.parametrize("state", OTHERS)
def test_without_a_session_nothing_is_asked_and_silence_means_nothing(state: LinkState) -> None:
    conn = link(state)
    conn.last_probe_ns = conn.probe_sent_ns = conn.asked_ns = 2 * S
    conn.heard_ns = S
    assert not conn.probe_due(100 * S)
    assert not conn.mute(100 * S, S)
    assert not conn.unanswered(100 * S)


def test_a_round_trip_is_never_negative() -> None:
    conn = link(LinkState.UP)
    conn.probe_left(10 * S)
    assert conn.probe_answered(9 * S) == 0


def test_entries_wait_when_a_question_was_asked_and_nothing_at_all_has_come_since() -> None:
    conn = link(LinkState.UP)
    conn.heard_ns, conn.asked_ns = 9 * S, 10 * S
    assert not conn.unanswered(10 * S + UNANSWERED_NS)
    assert conn.unanswered(10 * S + UNANSWERED_NS + 1)
    conn.heard_ns = 10 * S
    assert not conn.unanswered(20 * S), "something came"
    conn.heard_ns = 0
    assert not conn.unanswered(20 * S), "nothing has ever come: the session is being opened"


def test_a_connection_is_dead_after_its_time_when_it_was_asked_since() -> None:
    conn = link(LinkState.UP)
    conn.last_probe_ns = 11 * S
    assert not conn.mute(14 * S, 10 * S)
    assert conn.mute(14 * S + 1, 10 * S)
    assert not conn.mute(20 * S, 11 * S), "not asked since"
