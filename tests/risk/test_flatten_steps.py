"""The flatten machine, one decision at a time on views made by hand: what the mutation check leans on."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from engine.domain.codes import FlattenState, Side
from engine.risk import flatten as fl
from engine.risk.flatten import Alert, CancelAll, Close, Done, Flatten, FlattenConfig, RequestSnapshot, View

MS = 1_000_000
S = 1_000 * MS
T = 100 * S
CONFIG = FlattenConfig()
SELL, BUY = Side.SELL, Side.BUY


def view(*qty: float, **changes: Any) -> View:
    """Nothing works, nothing is asked, bid 99 and ask 101; ``closing`` none of it unless given."""
    n = len(qty)
    base: dict[str, Any] = {
        "qty": qty, "closing": (0.0,) * n, "bid": (99.0,) * n, "ask": (101.0,) * n, "halted": 0, "open_orders": 0,
        "undecided": 0, "rejected": 0, "order_events": 5, "snapshot_id": 1, "snapshot_begin_ns": 0,
        "snapshot_end_ns": 0, "snapshot_events": 0, "snapshot_open_orders": 0, "snapshot_positions": 0,
    }  # fmt: skip
    return View(**base | changes)


def at(phase: FlattenState, symbols: int = 2, **changes: Any) -> Flatten:
    """A flatten over all symbols that entered this phase at T, with nothing new since."""
    begun = fl.start(7, symbols, source=4, reason="test", cause_ns=T - S, now_ns=T - S)
    full = {"state": int(phase), "phase_ns": T, "progress_ns": T, "progress_events": 5, "rounds": 1}
    return replace(begun, **full | changes)


def step(state: Flatten, seen: View, after_ns: int = 0) -> tuple[Flatten, tuple[fl.Action, ...]]:
    return fl.step(replace(state, remaining=fl.remaining(state, seen)), seen, T + after_ns, CONFIG)


def closes(actions: tuple[fl.Action, ...]) -> list[tuple[int, Side, float]]:
    return [(a.symbol, a.side, a.qty) for a in actions if isinstance(a, Close)]


# -- what remains, and which machine is at work ------------------------------------------------------------------


def test_what_remains_is_held_in_scope_and_not_excused() -> None:
    state = replace(at(FlattenState.CLOSING, 5), scope=0b01111, excused=0b00010)
    assert fl.remaining(state, view(10.0, -5.0, 0.0, -0.5, 8.0)) == 0b1001


@pytest.mark.parametrize("phase", [FlattenState.IDLE, FlattenState.FLAT])
def test_a_flatten_that_does_not_run_does_nothing_whatever_is_held(phase: FlattenState) -> None:
    state = at(phase)
    assert fl.step(state, view(100.0, 0.0), T + 60 * S, CONFIG) == (state, ())


def test_an_unused_flatten_says_who_it_is() -> None:
    begun = fl.start(7, 3, source=4, reason="why", cause_ns=0, now_ns=T, scope=0b1101)
    assert (begun.scope, begun.cause_ns) == (0b101, T), "only symbols that exist; no cause is now"


# -- what is new ---------------------------------------------------------------------------------------------------


def test_progress_is_an_order_event_or_a_change_of_what_remains() -> None:
    state = at(FlattenState.CLOSING)
    quiet = 900 * MS
    assert fl.step(replace(state, remaining=1), view(9.0, 0.0), T + quiet, CONFIG)[0].progress_ns == T
    event, _ = fl.step(replace(state, remaining=1), view(9.0, 0.0, order_events=6), T + quiet, CONFIG)
    assert (event.progress_ns, event.progress_events) == (T + quiet, 6)
    gone, _ = fl.step(replace(state, remaining=3), view(9.0, 0.0), T + quiet, CONFIG)
    assert (gone.progress_ns, gone.remaining) == (T + quiet, 1)


def test_the_time_of_the_last_close_counts_once_and_only_in_round_one() -> None:
    seen = view(9.0, 0.0, last_close_sent_ns=T + MS)
    state = at(FlattenState.ROUND_ONE)
    sent, _ = step(state, seen)
    assert sent.sent_ns == T + MS
    assert step(sent, replace(seen, last_close_sent_ns=T + 9 * MS))[0].sent_ns == T + MS
    assert step(state, replace(seen, last_close_sent_ns=T - 2 * S))[0].sent_ns == 0, "of an earlier flatten"
    assert step(at(FlattenState.CLOSING), seen)[0].sent_ns == 0


def test_a_rejection_backs_off_twice_as_long_each_time_up_to_a_limit_and_in_that_symbol_alone() -> None:
    state = at(FlattenState.CLOSING, 3, scope=0b011)
    waits = []
    for _ in range(12):
        state, _ = step(state, view(9.0, 9.0, 9.0, rejected=0b101))
        waits.append((state.retry_ns[0] - T) // S)
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30, 30]
    assert (state.rejects, state.retry_ns[1:]) == ((12, 0, 0), (0, 0)), "one is not rejected, one not in scope"
    assert step(state, view(9.0, 9.0, 9.0))[0].rejects == (12, 0, 0)


# -- round one -------------------------------------------------------------------------------------------------------


def first(seen: View, state: Flatten | None = None, after_ns: int = 0) -> tuple[fl.Action, ...]:
    state = state or at(FlattenState.STOPPING, len(seen.qty), rounds=0)
    found, actions = step(state, seen, after_ns)
    assert (found.state, found.rounds, found.phase_ns) == (FlattenState.ROUND_ONE, 1, T + after_ns)
    assert isinstance(actions[0], CancelAll)
    return actions[1:]


def test_round_one_cancels_and_closes_the_largest_exposure_first() -> None:
    seen = view(10.0, -20.0, 5.0, 0.0, bid=(99.0, 9.0, math.nan, 1.0), ask=(101.0, 11.0, math.nan, 1.0))
    assert closes(first(seen)) == [(2, SELL, 5.0), (0, SELL, 10.0), (1, BUY, 20.0)], "of no price: first"
    assert all(math.isnan(a.limit) for a in first(seen) if isinstance(a, Close))


def test_round_one_closes_whole_shares_that_no_own_order_closes_already() -> None:
    assert closes(first(view(10.0, -9.9, 0.9, closing=(4.0, 0.0, 0.0)))) == [(1, BUY, 9.0), (0, SELL, 6.0)]
    assert closes(first(view(10.0, closing=(9.5,)))) == []
    assert closes(first(view(1.0))) == [(0, SELL, 1.0)]


def test_round_one_leaves_out_what_is_halted_backs_off_or_is_not_in_scope() -> None:
    assert closes(first(view(10.0, 10.0, halted=0b01))) == [(1, SELL, 10.0)]
    assert closes(first(view(10.0, 10.0), at(FlattenState.STOPPING, scope=0b10))) == [(1, SELL, 10.0)]
    waiting = at(FlattenState.STOPPING, retry_ns=(T + S, 0))
    assert closes(first(view(10.0, 10.0), waiting)) == [(1, SELL, 10.0)]
    assert len(closes(first(view(10.0, 10.0), waiting, S))) == 2


def test_outside_regular_hours_each_side_is_priced_through_its_own_touch_and_not_without_one() -> None:
    found = first(view(10.0, -10.0, regular_hours=False))
    assert {a.symbol: round(a.limit, 6) for a in found if isinstance(a, Close)} == {
        0: round(99.0 * (1 - 10 / 1e4), 6), 1: round(101.0 * (1 + 10 / 1e4), 6),
    }  # fmt: skip
    assert closes(first(view(10.0, regular_hours=False, bid=(math.nan,)))) == []
    assert closes(first(view(10.0, regular_hours=False, bid=(0.0,)))) == []
    assert closes(first(view(10.0, regular_hours=False, ask=(math.nan,)))) == [(0, SELL, 10.0)]


@pytest.mark.parametrize(("rounds", "bps"), [(1, 20.0), (3, 80.0), (4, 160.0), (5, 200.0), (5_000, 200.0)])
def test_a_limit_goes_further_through_the_touch_each_round_up_to_a_cap(rounds: int, bps: float) -> None:
    state = at(FlattenState.CONFIRM_CANCELS, 1, rounds=rounds, asked_ns=T, asked_id=1)
    _, actions = step(state, view(10.0, regular_hours=False, **read(2)))
    assert [round(a.limit, 6) for a in actions if isinstance(a, Close)] == [round(99.0 * (1 - bps / 1e4), 6)]


# -- closes are out --------------------------------------------------------------------------------------------------


OUT = [FlattenState.ROUND_ONE, FlattenState.CLOSING, FlattenState.STUCK]


@pytest.mark.parametrize("phase", OUT)
def test_all_closed_and_nothing_out_is_verified(phase: FlattenState) -> None:
    found, actions = step(at(phase), view(0.0, 0.0))
    assert (found.state, actions) == (FlattenState.VERIFYING, (RequestSnapshot(),))
    assert (found.asked_ns, found.asked_id, found.first_end_ns) == (T, 1, 0)


@pytest.mark.parametrize(
    "seen", [view(5.0, 0.0), view(0.0, 0.0, undecided=1), view(0.0, 0.0, open_orders=1)], ids=["held", "asked", "works"]
)
@pytest.mark.parametrize("phase", OUT)
def test_while_something_is_left_it_waits_for_quiet_and_then_begins_another_round(
    phase: FlattenState, seen: View
) -> None:
    state = at(phase)
    assert step(state, seen, CONFIG.quiet_ns - 1)[1] == ()
    found, actions = step(state, seen, CONFIG.quiet_ns)
    assert (found.state, actions) == (FlattenState.CONFIRM_CANCELS, (CancelAll(), RequestSnapshot()))
    assert (found.asked_ns, found.asked_id, found.phase_ns) == (T + CONFIG.quiet_ns, 1, T + CONFIG.quiet_ns)


def test_a_round_ends_after_its_time_whatever_still_happens() -> None:
    state = at(FlattenState.CLOSING)
    for after, phase in ((CONFIG.round_ns - 1, FlattenState.CLOSING), (CONFIG.round_ns, FlattenState.CONFIRM_CANCELS)):
        found, _ = step(state, view(5.0, 0.0, order_events=99, open_orders=1), after)
        assert found.state == phase


@pytest.mark.parametrize(
    ("seen", "changes", "words"),
    [
        (view(5.0, 0.0, halted=0b01), {}, "halted"),
        (view(5.0, 0.0), {"retry_ns": (T + 60 * S, 0), "rejects": (1, 0)}, "rejected by the broker"),
        (view(0.5, 0.0), {}, "a residue under one share: an operator excuses it by name"),
        (view(5.0, 0.0, regular_hours=False, bid=(0.0, 9.0)), {}, "without a quote outside regular hours"),
        (view(-5.0, 0.0, regular_hours=False, ask=(math.nan, 9.0)), {}, "without a quote outside regular hours"),
    ],
)
def test_what_cant_be_closed_now_is_named_and_retried(seen: View, changes: dict[str, Any], words: str) -> None:
    state = at(FlattenState.CLOSING, **changes)
    found, actions = step(state, seen, CONFIG.quiet_ns)
    assert (found.state, actions) == (FlattenState.STUCK, (Alert(words, 0b01),))
    works = replace(seen, open_orders=1)
    assert step(state, works, CONFIG.quiet_ns)[0].state == FlattenState.CONFIRM_CANCELS, "what works is cancelled first"


@pytest.mark.parametrize(
    "seen",
    [
        view(5.0, 5.0, halted=0b01),
        view(0.5, 5.0),
        view(5.0, -5.0, regular_hours=False, bid=(0.0, 0.0)),
        view(-5.0, 5.0, regular_hours=False, ask=(0.0, 0.0)),
    ],
)
def test_one_that_can_be_closed_is_enough_for_another_round(seen: View) -> None:
    found, _ = step(at(FlattenState.CLOSING), seen, CONFIG.quiet_ns)
    assert found.state == FlattenState.CONFIRM_CANCELS
    found, _ = step(at(FlattenState.CLOSING, scope=0b01), seen, CONFIG.quiet_ns)
    assert found.state == FlattenState.STUCK, "what is not in scope does not count"


def test_in_regular_hours_a_close_needs_no_quote() -> None:
    found, _ = step(at(FlattenState.CLOSING), view(5.0, 0.0, bid=(math.nan,) * 2), CONFIG.quiet_ns)
    assert found.state == FlattenState.CONFIRM_CANCELS


def test_every_cause_is_named_once() -> None:
    state = at(FlattenState.CLOSING, 5, rejects=(0, 0, 3, 0, 0), retry_ns=(0, 0, T + 60 * S, 0, 0), scope=0b01111)
    seen = view(5.0, 6.0, 7.0, 0.5, 0.5, halted=0b00011)
    _, actions = step(state, seen, CONFIG.quiet_ns)
    residue = "a residue under one share: an operator excuses it by name"
    assert actions == (Alert(f"halted, rejected by the broker, {residue}", 0b01111),)


def test_a_person_is_told_once_a_minute() -> None:
    state, actions = step(at(FlattenState.CLOSING), view(5.0, 0.0, halted=1), CONFIG.quiet_ns)
    assert len(actions) == 1
    again = replace(state, phase_ns=T, progress_ns=T)
    assert step(again, view(5.0, 0.0, halted=1), CONFIG.alert_every_ns)[1] == ()
    later = step(again, view(5.0, 0.0, halted=1), CONFIG.quiet_ns + CONFIG.alert_every_ns)[1]
    assert later == (Alert("halted", 1),)


def test_a_host_that_has_just_started_tells_a_person_too() -> None:
    state = fl.start(7, 1, source=4, reason="test", cause_ns=S, now_ns=S)
    assert fl.step(state, view(5.0, can_send=False), 2 * S, CONFIG)[1] == (Alert("the link to the broker is down", 1),)


def test_while_the_link_is_down_a_person_is_told_and_nothing_else_leaves() -> None:
    for phase in (FlattenState.STOPPING, *OUT, FlattenState.CONFIRM_CANCELS, FlattenState.VERIFYING):
        state, actions = step(at(phase), view(5.0, 0.0, can_send=False), 10 * S)
        assert (state.state, actions) == (phase, (Alert("the link to the broker is down", 1),))
        assert step(state, view(5.0, 0.0, can_send=False), 20 * S)[1] == ()


# -- cancels are confirmed -------------------------------------------------------------------------------------------


def read(number: int, begin_ns: int = T, events: int = 5, **changes: Any) -> dict[str, Any]:
    """A snapshot that began then and lasted a millisecond."""
    return {
        "snapshot_id": number, "snapshot_begin_ns": begin_ns, "snapshot_end_ns": begin_ns + MS,
        "snapshot_events": events,
    } | changes  # fmt: skip


ASKED = at(FlattenState.CONFIRM_CANCELS, asked_ns=T, asked_id=1)


def test_the_rest_is_closed_by_what_was_read_after_the_cancels() -> None:
    found, actions = step(ASKED, view(5.0, 0.0, closing=(5.0, 0.0), **read(2)), MS)
    assert (found.state, found.rounds, found.phase_ns) == (FlattenState.CLOSING, 2, T + MS)
    assert closes(actions) == [(0, SELL, 5.0)], "what is said to close it is cancelled: it no longer counts"


@pytest.mark.parametrize(
    "changes",
    [
        read(1),
        read(2, T - 1),
        read(2, events=4),
        read(2, undecided=1),
        read(2, open_orders=1),
        read(2, snapshot_open_orders=1),
    ],
    ids=["none came", "began before", "news since", "own order undecided", "an order works", "an order was read"],
)
def test_nothing_is_closed_before_a_fresh_read_shows_no_order(changes: dict[str, Any]) -> None:
    found, actions = step(ASKED, view(5.0, 0.0, **changes), MS)
    assert (found.state, actions) == (FlattenState.CONFIRM_CANCELS, ())
    late, actions = step(ASKED, view(5.0, 0.0, **changes), CONFIG.round_ns)
    assert (late.state, late.asked_ns) == (FlattenState.CONFIRM_CANCELS, T + CONFIG.round_ns)
    assert actions == (Alert("cancels are not confirmed", 1), CancelAll(), RequestSnapshot())
    assert step(ASKED, view(5.0, 0.0, **changes), CONFIG.round_ns - 1)[1] in ((), (RequestSnapshot(),))


def confirming(*views: View, at_ms: tuple[int, ...]) -> tuple[Flatten, tuple[fl.Action, ...]]:
    """What the views lead to, from the moment at which cancels and a read were asked for."""
    state, actions = fl._confirm(at(FlattenState.CLOSING), views[0], T)
    for seen, ms in zip(views, at_ms, strict=True):
        state, actions = step(state, seen, ms * MS)
    return state, actions


HANGS = {"busy": 0b01, "open_orders": 1, "snapshot_open_orders": 1}
OVER_MS = CONFIG.round_ns // MS


def test_an_order_that_does_not_go_holds_up_its_own_symbol_only_and_not_for_ever() -> None:
    before, after = view(5.0, -7.0, **HANGS), view(5.0, -7.0, **HANGS | read(2, open_orders=1))
    state, actions = confirming(before, after, after, at_ms=(1, 2, OVER_MS - 1))
    assert closes(actions) == []
    state, actions = step(state, after, CONFIG.round_ns)
    assert (state.state, state.rounds) == (FlattenState.CLOSING, 2)
    assert closes(actions) == [(1, BUY, 7.0)]
    assert Alert("cancels are not confirmed", 0b11) in actions


@pytest.mark.parametrize(
    ("changes", "at_ms"),
    [
        ([{"busy": 0b11}, {}, {}], (1, 50, OVER_MS)),  # something worked in it when the read had been asked for
        ([{}, {"busy": 0b11}, {}], (1, 50, OVER_MS)),
        ([{}, {}, {"busy": 0b11}], (1, 50, OVER_MS)),
        ([{}, {}, {"busy": -1}], (1, 50, OVER_MS)),  # not known
    ],
)
def test_nothing_is_closed_in_a_symbol_in_which_something_has_worked_since_the_read(
    changes: list[dict[str, Any]], at_ms: tuple[int, ...]
) -> None:
    views = [view(5.0, -7.0, **HANGS | read(2, open_orders=1) | change) for change in changes]
    asked = replace(views[0], snapshot_id=1, snapshot_begin_ns=0, snapshot_end_ns=0)
    state, actions = fl._confirm(at(FlattenState.CLOSING), asked, T)
    assert state.settled == 0
    for seen, ms in zip(views, at_ms, strict=True):
        state, actions = step(state, seen, ms * MS)
    assert closes(actions) == []
    assert state.state == FlattenState.CONFIRM_CANCELS


def test_without_a_read_that_has_arrived_nothing_is_closed_however_calm() -> None:
    before = view(5.0, -7.0, **HANGS)
    assert closes(confirming(before, before, at_ms=(1, OVER_MS))[1]) == []


def test_a_lost_link_unsettles_what_a_read_before_it_had_shown() -> None:
    """Somebody may have closed it by hand meanwhile, and our books do not have that yet."""
    arrived = view(5.0, -7.0, **HANGS | read(2, open_orders=1))
    state, _ = fl._confirm(at(FlattenState.CLOSING), view(5.0, -7.0, **HANGS), T)
    state, _ = step(state, arrived, 10 * MS)
    assert state.settled == 0b10
    state, _ = step(state, replace(arrived, can_send=False), 20 * MS)
    state, actions = step(state, arrived, CONFIG.round_ns)
    assert closes(actions) == []
    assert state.state == FlattenState.CONFIRM_CANCELS


def test_what_a_read_has_settled_stays_settled_while_the_next_one_is_out() -> None:
    arrived = view(5.0, -7.0, **HANGS | read(2, open_orders=1))
    state, actions = fl._confirm(at(FlattenState.CLOSING), view(5.0, -7.0, **HANGS), T)
    state, actions = step(state, arrived, 200 * MS)
    assert actions == (RequestSnapshot(),)
    assert (state.asked_id, state.settled) == (2, 0b10)
    state, actions = step(state, arrived, CONFIG.round_ns)
    assert closes(actions) == [(1, BUY, 7.0)]


def test_a_read_that_came_is_repeated_soon_and_one_that_is_out_after_its_time() -> None:
    came = view(5.0, 0.0, **read(2, open_orders=1))
    out = view(5.0, 0.0, **read(1))
    older = view(5.0, 0.0, **read(2, T - 1))
    assert step(ASKED, came, CONFIG.poll_ns - 1)[1] == ()
    found, actions = step(ASKED, came, CONFIG.poll_ns)
    assert (found.asked_ns, found.asked_id, actions) == (T + CONFIG.poll_ns, 2, (RequestSnapshot(),))
    for waits in (out, older):
        assert step(ASKED, waits, CONFIG.snapshot_timeout_ns - 1)[1] == ()
        assert step(ASKED, waits, CONFIG.snapshot_timeout_ns)[1] == (RequestSnapshot(),)


def test_flat_by_the_read_is_verified_and_a_position_that_only_the_read_shows_is_not() -> None:
    assert step(ASKED, view(0.0, 0.0, **read(2)))[0].state == FlattenState.VERIFYING
    assert step(ASKED, view(0.0, 0.0, **read(2, snapshot_positions=1)))[0].state == FlattenState.STUCK
    other = replace(ASKED, scope=0b10)
    assert step(other, view(0.0, 0.0, **read(2, snapshot_positions=1)))[0].state == FlattenState.VERIFYING
    excused = replace(ASKED, excused=0b01)
    assert step(excused, view(5.0, 0.0, **read(2, snapshot_positions=1)))[0].state == FlattenState.VERIFYING


def test_what_cant_be_closed_after_the_read_is_stuck() -> None:
    found, actions = step(ASKED, view(5.0, 0.0, halted=1, **read(2)))
    assert (found.state, actions) == (FlattenState.STUCK, (Alert("halted", 1),))
    strange = step(ASKED, view(0.0, 0.0, **read(2, snapshot_positions=1)))[1]
    assert strange == (Alert("nothing can be closed now", 1),)


# -- flat is confirmed -----------------------------------------------------------------------------------------------


VERIFY = at(FlattenState.VERIFYING, asked_ns=T, asked_id=1)
FIRST = replace(VERIFY, first_end_ns=T + MS, first_events=5, asked_ns=0, asked_id=2)


def test_the_first_read_is_kept_and_the_second_asked_for_after_the_distance() -> None:
    found, actions = step(VERIFY, view(0.0, 0.0, **read(2)), 2 * MS)
    assert (found.first_end_ns, found.first_events, found.asked_ns, found.asked_id) == (T + MS, 5, 0, 2)
    assert actions == ()
    assert step(FIRST, view(0.0, 0.0, **read(2)), CONFIG.apart_ns)[1] == ()
    found, actions = step(FIRST, view(0.0, 0.0, **read(2)), CONFIG.apart_ns + MS)
    assert (found.asked_ns, found.asked_id, actions) == (T + CONFIG.apart_ns + MS, 2, (RequestSnapshot(),))


def test_two_reads_apart_without_news_are_flat_and_closer_ones_are_read_again() -> None:
    asked = replace(FIRST, asked_ns=T + 10 * MS)
    apart = read(3, T + MS + CONFIG.apart_ns)
    found, actions = step(asked, view(0.0, 0.0, **apart), S)
    assert (found.state, found.flat_ns, found.remaining, actions) == (FlattenState.FLAT, T + S, 0, (Done(T + S),))
    found, actions = step(asked, view(0.0, 0.0, **read(3, T + CONFIG.apart_ns)), S)
    assert (found.state, found.asked_ns, found.asked_id, actions) == (FlattenState.VERIFYING, 0, 3, ())


def test_news_between_the_reads_begin_anew() -> None:
    found, actions = step(FIRST, view(0.0, 0.0, order_events=6, **read(2)), MS)
    assert (found.first_end_ns, found.asked_ns, actions) == (0, T + MS, (RequestSnapshot(),))
    assert step(VERIFY, view(0.0, 0.0, order_events=6, **read(1)), MS)[1] == (), "before the first there is no between"


@pytest.mark.parametrize("state", [VERIFY, FIRST], ids=["before the first", "between"])
@pytest.mark.parametrize("seen", [view(5.0, 0.0), view(0.0, 0.0, undecided=1)], ids=["held", "asked"])
def test_whatever_is_held_or_out_ends_the_verification(state: Flatten, seen: View) -> None:
    assert step(state, seen, MS)[0].state == FlattenState.CONFIRM_CANCELS


def test_a_read_with_orders_or_positions_in_scope_is_not_flat() -> None:
    for changes in ({"snapshot_open_orders": 1}, {"snapshot_positions": 1}):
        found, actions = step(VERIFY, view(0.0, 0.0, **read(2, **changes)), MS)
        assert (found.state, actions) == (FlattenState.CONFIRM_CANCELS, (CancelAll(), RequestSnapshot()))
    other = step(replace(VERIFY, scope=0b10), view(0.0, 0.0, **read(2, snapshot_positions=1)), MS)[0]
    excused = step(replace(VERIFY, excused=0b01), view(0.0, 0.0, **read(2, snapshot_positions=1)), MS)[0]
    assert other.first_end_ns == excused.first_end_ns == T + MS


def test_a_read_that_is_not_fresh_is_no_evidence_and_is_asked_for_again() -> None:
    stale = view(0.0, 0.0, **read(2, events=4))
    found, actions = step(VERIFY, stale, MS)
    assert (found.first_end_ns, actions) == (0, ())
    assert step(VERIFY, stale, CONFIG.poll_ns)[1] == (RequestSnapshot(),)


# -- our books and the broker's differ -------------------------------------------------------------------------------


def differ(qty: float, theirs: float, **changes: Any) -> View:
    return view(qty, 0.0, theirs=(theirs, 0.0), **changes)


REFUSED = {"rejects": (1, 0)}


@pytest.mark.parametrize(
    ("qty", "theirs", "sent"),
    [
        (100.0, 60.0, [(0, SELL, 60.0)]),
        (-100.0, -60.0, [(0, BUY, 60.0)]),
        (60.0, 100.0, [(0, SELL, 60.0)]),
        (100.0, 100.0, [(0, SELL, 100.0)]),
        (100.0, 0.0, []),
        (100.0, -40.0, []),
        (-100.0, 40.0, []),
    ],
)
def test_after_a_refusal_only_what_both_books_have_is_closed(
    qty: float, theirs: float, sent: list[tuple[int, Side, float]]
) -> None:
    confirming = replace(ASKED, **REFUSED)
    assert closes(step(confirming, differ(qty, theirs, **read(2)), MS)[1]) == sent
    waits = at(FlattenState.STUCK, **REFUSED)
    found, _ = step(waits, differ(qty, theirs), CONFIG.quiet_ns)
    assert found.state == (FlattenState.CONFIRM_CANCELS if sent else FlattenState.STUCK), "no round without a close"
    assert found.remaining == 1
    early = step(at(FlattenState.STOPPING), differ(qty, theirs))[1]
    assert [size for _, _, size in closes(early)] == [abs(qty)], "round one does not wait for the broker's late word"
    other = at(FlattenState.STOPPING, rejects=(0, 1))
    assert [size for _, _, size in closes(step(other, differ(qty, theirs))[1])] == [abs(qty)]
    nobody = step(confirming, view(qty, 0.0, **read(2)), MS)[1]
    assert [size for _, _, size in closes(nobody)] == [abs(qty)], "where our books are the broker's"


def test_what_works_to_close_it_counts_against_what_both_books_have() -> None:
    state = at(FlattenState.STOPPING, **REFUSED)
    assert closes(step(state, differ(100.0, 60.0, closing=(20.0, 0.0)))[1]) == [(0, SELL, 40.0)]


def test_a_difference_is_named_by_its_figures() -> None:
    stuck = at(FlattenState.CLOSING, retry_ns=(T + 60 * S, 0), **REFUSED)
    _, actions = step(stuck, differ(40.0, 0.0), CONFIG.quiet_ns)
    assert actions == (Alert("ours 40, broker 0: accept the broker's figure in the cockpit", 1),)
    _, actions = step(stuck, differ(0.5, 0.0), CONFIG.quiet_ns)
    assert actions == (Alert("ours 0.5, broker 0: accept the broker's figure in the cockpit", 1),)
    _, actions = step(stuck, differ(40.0, 40.0), CONFIG.quiet_ns)
    assert actions == (Alert("rejected by the broker", 1),)
    _, actions = step(at(FlattenState.CLOSING), differ(40.0, 0.0, halted=1), CONFIG.quiet_ns)
    assert actions == (Alert("halted", 1),), "nothing was refused: it is closed in full after the halt"
    kept = replace(stuck, excused=0b01, alerted_ns=0)
    _, actions = step(kept, view(40.0, 5.0, theirs=(0.0, 5.0), halted=0b10), CONFIG.quiet_ns)
    assert actions == (Alert("halted", 0b10),), "what is kept needs no word"
    _, actions = step(at(FlattenState.CLOSING), differ(0.5, 0.0), CONFIG.quiet_ns)
    assert actions == (Alert("a residue under one share: an operator excuses it by name", 1),)


def test_what_only_the_broker_holds_is_named_and_read_again_without_a_cancel() -> None:
    words = "ours 0, broker 40: accept the broker's figure in the cockpit"
    seen = differ(0.0, 40.0, **read(2, snapshot_positions=1))
    found, actions = step(ASKED, seen, MS)
    assert (found.state, actions) == (FlattenState.STUCK, (Alert(words, 1),))
    waits = at(FlattenState.STUCK, alerted_ns=T)
    assert step(waits, seen, CONFIG.round_ns - 1) == (waits, ())
    assert step(waits, seen, CONFIG.round_ns)[1] == (RequestSnapshot(),)
    assert step(waits, seen, 60 * S)[1] == (Alert(words, 1), RequestSnapshot())
    assert step(replace(waits, scope=0b10), seen, MS)[0].state == FlattenState.VERIFYING
    assert step(replace(waits, excused=0b01), seen, MS)[0].state == FlattenState.VERIFYING
    held = view(0.0, 5.0, theirs=(40.0, 5.0), halted=0b10, **read(2, snapshot_positions=0b11))
    assert step(ASKED, held, MS)[1] == (Alert("halted", 0b10),), "first what we hold"


# -- positions outside the instruments -------------------------------------------------------------------------------


ONE = "1 position outside the configured symbols (FOREIGN): close it by hand or with `l2dash flatten --direct`"
TWO = "2 positions outside the configured symbols (FOREIGN): close them by hand or with `l2dash flatten --direct`"


def test_a_position_outside_the_instruments_is_not_flat_and_a_person_is_told() -> None:
    found, actions = step(ASKED, view(0.0, 0.0, foreign=1, **read(2)), MS)
    assert (found.state, actions) == (FlattenState.STUCK, (Alert(ONE, 0),))
    for verifying in (VERIFY, replace(FIRST, asked_ns=T)):
        found, actions = step(verifying, view(0.0, 0.0, foreign=2, **read(3, T + S)), S)
        assert (found.state, actions) == (FlattenState.STUCK, (Alert(TWO, 0),)), "no cancel is needed"
    found, actions = step(ASKED, view(5.0, 0.0, halted=1, foreign=1, **read(2)), MS)
    assert actions == (Alert(f"halted, {ONE}", 1),)


def test_what_is_among_the_instruments_is_closed_without_delay_all_the_same() -> None:
    for phase in (at(FlattenState.STOPPING), ASKED):
        assert closes(step(phase, view(5.0, 0.0, foreign=1, **read(2)), MS)[1]) == [(0, SELL, 5.0)]
    found, actions = step(at(FlattenState.CLOSING), view(0.0, 0.0, foreign=1), MS)
    assert (found.state, actions) == (FlattenState.VERIFYING, (RequestSnapshot(),)), "the count is of an older read"


def test_while_only_that_remains_it_is_read_now_and_then_and_nothing_is_cancelled() -> None:
    waits = at(FlattenState.STUCK, alerted_ns=T)
    assert step(waits, view(0.0, 0.0, foreign=1), CONFIG.round_ns - 1) == (waits, ())
    found, actions = step(waits, view(0.0, 0.0, foreign=1), CONFIG.round_ns)
    assert (found.state, found.phase_ns, actions) == (FlattenState.STUCK, T + CONFIG.round_ns, (RequestSnapshot(),))
    assert step(waits, view(0.0, 0.0, foreign=1), 60 * S)[1] == (Alert(ONE, 0), RequestSnapshot())
    assert step(waits, view(0.0, 0.0, foreign=0), MS)[0].state == FlattenState.VERIFYING, "somebody has closed it"
    assert step(waits, view(0.0, 0.0, foreign=1, open_orders=1), CONFIG.quiet_ns)[1] == (CancelAll(), RequestSnapshot())


def test_what_an_operator_keeps_outside_the_instruments_counts_no_more_until_it_grows() -> None:
    kept = fl.excuse(at(FlattenState.STUCK), 0, 2)
    assert step(kept, view(0.0, 0.0, foreign=2), MS)[0].state == FlattenState.VERIFYING
    assert fl.outside(fl.excuse(kept, 1, 0), view(0.0, 0.0, foreign=2)) == 0, "a later excuse takes nothing back"
    assert fl.outside(kept, view(0.0, 0.0, foreign=3)) == 3
    assert fl.loads(fl.dumps(kept)) == kept


def test_a_flatten_of_single_symbols_has_nothing_to_do_with_it() -> None:
    assert fl.outside(at(FlattenState.CLOSING, scope=0b01), view(0.0, 0.0, foreign=1)) == 0
    assert fl.outside(at(FlattenState.CLOSING), view(0.0, 0.0, foreign=1)) == 1


# -- persistence -----------------------------------------------------------------------------------------------------


def test_an_interrupted_flatten_goes_on_with_a_read_and_one_that_is_over_stays_over() -> None:
    over = at(FlattenState.FLAT, retry_ns=(5, 5))
    assert fl.resume(over, T, 2) == over
    state = at(FlattenState.VERIFYING, rounds=0, started_ns=T + S, cause_ns=T + S, rejects=(3, 3), retry_ns=(T * 2, 0))
    found = fl.resume(state, T, 3)
    assert (found.state, found.rounds, found.started_ns, found.cause_ns) == (FlattenState.CLOSING, 1, T, T)
    assert (found.retry_ns, found.rejects, found.first_end_ns) == ((0, 0, 0), (0, 0, 0), 0)
    assert step(found, view(5.0, 0.0, 0.0))[1] == (CancelAll(), RequestSnapshot()), "at once"
    later = fl.resume(at(FlattenState.CLOSING, rounds=4), T + S, 2)
    assert (later.rounds, later.started_ns, later.cause_ns) == (4, T - S, T - S)


@pytest.mark.parametrize(
    "bad", [b"[]", b"7", b"{}", b'{"state": 1, "more": 2}', b'{"state": 1, "reason": 5}', b'{"state": 1, "scope": 1.5}']
)
def test_a_file_that_is_not_a_flatten_is_refused(bad: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        fl.loads(bad)


def test_a_state_comes_back_as_it_was() -> None:
    state = at(FlattenState.CLOSING, retry_ns=(T, 0), rejects=(1, 0))
    assert fl.loads(fl.dumps(state)) == state
    older = json.loads(fl.dumps(state))
    del older["boot_id"], older["rejects"]
    assert fl.loads(json.dumps(older).encode()) == replace(state, rejects=())
