"""The order machine under repeated, reordered, missing and misleading news."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.broker import orders as life
from engine.broker.news import OpenOrderNews, OrderStatusNews
from engine.broker.orders import Order
from engine.broker.register import Register
from engine.domain.codes import OrderState

QTY = 100.0
S = OrderState


def order(**more: object) -> Order:
    base = Order(
        intent_id=7, order_id=3, symbol=0, source=1, side=1, qty=QTY, order_type=2, limit_price=10.0, tif=1, flags=0,
        entry=True, state=S.SENT, sent_ns=1_000,
    )  # fmt: skip
    return replace(base, **more)  # type: ignore[arg-type]


def status(word: str, filled: float = 0.0, why: str = "") -> OrderStatusNews:
    return OrderStatusNews(3, 11, 55, word, filled, QTY - filled, 10.0 if filled else 0.0, why)


def listed(word: str, qty: float = QTY, limit: float = 10.0) -> OpenOrderNews:
    return OpenOrderNews(3, 11, 55, 1, "AAPL", "DU1", 1, qty, "LMT", limit, "DAY", "L2:7", word)


FALSE_CANCELS = (103, 104, 105, 110, 161, 201, 321, 10147, 10148, 10349)
WORDS = st.sampled_from(
    [
        "ApiPending",
        "PendingSubmit",
        "PreSubmitted",
        "Submitted",
        "PendingCancel",
        "Cancelled",
        "Inactive",
        "Filled",
        "odd",
    ]
)
FILLED = st.sampled_from([0.0, 30.0, 60.0, 100.0])
NEWS = st.one_of(
    st.tuples(st.just("status"), WORDS, FILLED),
    st.tuples(st.just("open"), WORDS, FILLED),
    st.tuples(st.just("listed"), WORDS, FILLED),
    st.tuples(st.just("executed"), WORDS, FILLED),
    st.tuples(st.just("error"), st.sampled_from(FALSE_CANCELS), FILLED),
    st.tuples(st.just("cancel"), WORDS, FILLED),
    st.tuples(st.just("lost"), WORDS, FILLED),
    st.tuples(st.just("silence"), WORDS, FILLED),
)


def take(o: Order, item: tuple[str, object, float], now: int) -> Order:
    kind, word, filled = item
    if kind == "status":
        return life.on_status(o, status(str(word), filled), now)
    if kind in ("open", "listed"):
        return life.on_open(o, listed(str(word)), now, listed_ns=now if kind == "listed" else 0)
    if kind == "executed":
        return life.on_executions(o, filled, 10.0, now)
    if kind == "error":
        return life.on_error(o, int(str(word)), "text", now)
    if kind == "cancel":
        return life.on_cancel_sent(o, now)
    if kind == "lost":
        return life.on_link_lost(o, now)
    return life.on_silence(o, now, 10)


@settings(max_examples=300, deadline=None)
@given(st.lists(NEWS, max_size=25))
def test_filled_never_falls_and_full_is_always_filled(items: list[tuple[str, object, float]]) -> None:
    o, now, best, executed = order(), 2_000, 0.0, 0.0
    for item in items:
        now += 100
        before = o
        if item[0] == "executed":
            executed = max(executed, item[2])
            item = (item[0], item[1], executed)
        o = take(o, item, now)
        if item[0] in ("status", "executed"):
            best = max(best, item[2])
        assert o.filled == best
        assert (o.state == S.FILLED) == (best >= QTY)
        assert o.remaining == (best if o.state in life.TERMINAL else QTY) - executed
        if before.state in life.TERMINAL and o.state != before.state:
            assert o.state == S.FILLED or item[0] == "listed"


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([S.SENT, S.UNKNOWN, S.WORKING, S.PARTIAL, S.PENDING_CANCEL]), st.sampled_from(FALSE_CANCELS))
def test_an_error_alone_never_decides_a_fate(state: OrderState, code: int) -> None:
    after = life.on_error(order(state=state), code, "words", 9_000)
    assert after.active
    assert after.remaining == QTY
    assert after.question_ns or code in life.WARNINGS
    assert str(code) in after.text


@settings(max_examples=100, deadline=None)
@given(st.lists(NEWS, max_size=12))
def test_repeating_every_message_changes_nothing_more(items: list[tuple[str, object, float]]) -> None:
    once = twice = order()
    now = 2_000
    for item in items:
        now += 100
        once = take(once, item, now)
        twice = take(take(twice, item, now), item, now)
    assert (once.state, once.filled, once.text) == (twice.state, twice.filled, twice.text)


def test_fill_after_cancelled_is_counted_and_in_full_is_filled() -> None:
    o = life.on_status(order(), status("Cancelled"), 5)
    assert o.state == S.CANCELLED
    o = life.on_executions(o, 40.0, 10.0, 6)
    assert (o.state, o.filled) == (S.CANCELLED, 40.0)
    assert life.on_executions(o, 100.0, 10.0, 7).state == S.FILLED


def test_late_submitted_does_not_undo_a_pending_cancel_or_a_cancel() -> None:
    pending = life.on_cancel_sent(life.on_status(order(), status("Submitted"), 5), 6)
    assert life.on_status(pending, status("Submitted"), 7).state == S.PENDING_CANCEL
    gone = life.on_status(pending, status("Cancelled"), 8)
    assert life.on_status(gone, status("Submitted"), 9).state == S.CANCELLED
    assert life.on_open(gone, listed("Submitted"), 10, listed_ns=99).state == S.WORKING, (
        "the broker's list is the truth"
    )


def parked(filled: float = 0.0) -> Order:
    """Called Inactive while it worked, and so in a list."""
    o = life.on_status(life.on_status(order(), status("Submitted", filled), 5), status("Inactive", filled), 6)
    return life.on_open(o, listed("Inactive"), 8, listed_ns=7)


def test_inactive_alone_ends_nothing_and_is_asked_about_once() -> None:
    o = life.on_status(order(), status("Inactive", 40.0), 5)
    assert (o.state, o.parked, o.remaining, o.question_ns, o.text) == (S.UNKNOWN, True, QTY, 5, life.PARKED)
    o = life.on_open(o, listed("Inactive"), 8, listed_ns=7)
    assert (o.state, o.parked, o.remaining, o.question_ns) == (S.UNKNOWN, True, QTY, 0)
    assert life.on_status(o, status("Inactive", 40.0), 9) is o
    assert life.on_silence(o, 10**12, 10).question_ns == 10**12, "forty filled shares have no execution yet"
    assert life.on_status(order(), status("Inactive", why="locate"), 5).state == S.SENT
    gone = life.on_missing(o, life.UNLISTED_NS + 2_000, life.UNLISTED_NS + 2_001)
    assert (gone.state, gone.presumed, gone.parked) == (S.CANCELLED, True, False)
    assert gone.text != life.PARKED
    assert life.on_status(gone, status("Inactive", 40.0), 11).presumed, "no proof that it is over"


def test_what_is_parked_comes_back_by_work_or_a_fill_and_not_by_an_older_word() -> None:
    for word, state in (("PreSubmitted", S.WORKING), ("Submitted", S.WORKING), ("PendingCancel", S.PENDING_CANCEL)):
        back = life.on_status(parked(), status(word), 20)
        assert (back.state, back.parked and state == S.WORKING, back.question_ns) == (state, False, 20)
        assert back.text != life.PARKED
        told = life.on_open(back, listed(word), 22, listed_ns=21)
        assert (told.state, told.inactive, told.question_ns) == (state, False, 0)
    again = life.on_status(life.on_status(parked(), status("Submitted"), 20), status("Submitted"), 21)
    assert again.question_ns == 20, "both may be older than the Inactive"
    filled = life.on_executions(parked(), 30.0, 10.0, 20)
    assert (filled.state, filled.parked, filled.question_ns) == (S.PARTIAL, False, 20)
    for word in ("ApiPending", "PendingSubmit"):
        assert life.on_status(parked(), status(word), 20) == parked()
        assert life.on_open(parked(), listed(word), 22, listed_ns=21).parked


def test_inactive_and_a_final_error_in_either_order_reject() -> None:
    for code in (110, 200, 201, 202, 203):
        first = life.on_error(life.on_status(order(), status("Inactive"), 5), code, "words", 6)
        last = life.on_status(life.on_error(order(), code, "words", 5), status("Inactive"), 6)
        listing = life.on_open(life.on_error(order(), code, "words", 5), listed("Inactive"), 7, listed_ns=6)
        for o in (first, last, listing):
            assert (o.state, o.question_ns, o.text) == (S.REJECTED, 0, f"{code} words")
            assert life.on_status(o, status("Submitted"), 9).state == S.REJECTED
    part = life.on_status(life.on_error(order(), 201, "words", 5), status("Inactive", 40.0), 6)
    assert part.state == S.UNKNOWN, "it was accepted: the fill says so"
    for code in (103, 161, 321, 10147):
        assert life.on_error(parked(), code, "words", 9).active


def test_a_final_error_counts_only_until_the_next_proof_of_acceptance_and_not_for_a_change() -> None:
    down = life.on_error(life.on_status(order(), status("PreSubmitted"), 5), 201, "words", 6)
    for accepted in (
        life.on_status(down, status("Submitted"), 7),
        life.on_open(down, listed("Submitted"), 9, listed_ns=8),
        life.on_executions(down, 30.0, 10.0, 7),
        life.on_status(life.on_cancel_sent(down, 7), status("Submitted"), 8),
    ):
        assert life.on_status(accepted, status("Inactive"), 10).parked
    assert life.on_status(down, status("Submitted"), 7).question_ns == 6, "it may be older than the error"
    change = life.on_replace_sent(life.on_status(order(), status("Submitted"), 5), 150.0, 11.0, 6)
    refused = life.on_error(change, 201, "words", 7)
    assert life.on_status(refused, status("Inactive"), 8).parked, "the change was rejected; the order may be parked"
    assert life.on_error(life.on_status(change, status("Inactive"), 7), 201, "words", 8).parked


def test_the_cancel_of_a_parked_order_is_done_when_a_later_list_still_calls_it_inactive() -> None:
    asked = life.on_cancel_sent(parked(), 100)
    assert (asked.state, asked.parked, asked.remaining) == (S.PENDING_CANCEL, True, QTY)
    soon = life.on_open(asked, listed("Inactive"), 102, listed_ns=101)
    assert (soon.state, soon.parked) == (S.PENDING_CANCEL, True), "the cancel may still be on its way"
    late_ns = 101 + life.UNLISTED_NS
    late = life.on_open(asked, listed("Inactive"), late_ns + 1, listed_ns=late_ns)
    assert (late.state, late.presumed, late.remaining) == (S.CANCELLED, True, 0.0)
    assert life.on_open(late, listed("Inactive"), late_ns + 9, listed_ns=late_ns + 8) is late
    assert life.on_status(late, status("Submitted"), late_ns + 2).state == S.UNKNOWN, "it lives after all"
    lost = life.on_open(life.on_link_lost(asked, 200), listed("Inactive"), late_ns + 1, listed_ns=late_ns)
    assert (lost.state, lost.parked) == (S.UNKNOWN, True), "the cancel may have been lost with the link"


def test_a_lost_link_puts_a_parked_order_in_question() -> None:
    o = life.on_link_lost(parked(), 50)
    assert (o.state, o.parked, o.question_ns) == (S.UNKNOWN, True, 50)
    assert life.on_link_lost(o, 60) is o


def test_lost_link_makes_a_living_order_unknown_until_listed_or_missing() -> None:
    working = life.on_status(order(), status("Submitted"), 5)
    unknown = life.on_link_lost(working, 6)
    assert unknown.state == S.UNKNOWN
    assert unknown.remaining == QTY
    assert life.on_open(unknown, listed("Submitted"), 7, listed_ns=99).state == S.WORKING
    assert life.on_missing(unknown, 2_000, 2_001).state == S.CANCELLED
    never_acked = life.on_link_lost(order(), 6)
    assert life.on_missing(never_acked, 2_000 + life.UNLISTED_NS, 2_001 + life.UNLISTED_NS).state == S.REJECTED


def test_order_sent_after_the_list_was_asked_for_is_not_missing() -> None:
    young = order(sent_ns=100)
    assert life.on_missing(young, 50, 200).state == S.SENT
    assert life.on_missing(young, 150, 200).state == S.SENT, "unacknowledged: it may still be on its way inside"


def test_replacement_counts_with_the_larger_size_until_the_broker_shows_it() -> None:
    o = life.on_replace_sent(life.on_status(order(), status("Submitted", 30.0), 5), 150.0, 11.0, 6)
    assert o.remaining == 150.0, "thirty are filled, and not in the position yet"
    o = life.on_executions(o, 30.0, 10.0, 6)
    assert o.remaining == 120.0
    o = life.on_open(o, listed("Submitted", 150.0, 11.0), 7)
    assert (o.qty, o.limit_price, o.remaining, math.isnan(o.next_qty)) == (150.0, 11.0, 120.0, True)


def test_filled_status_without_its_execution_still_counts_until_it_is_booked() -> None:
    o = life.on_status(order(), status("Filled", 100.0), 5)
    assert (o.state, o.active, o.remaining) == (S.FILLED, False, 100.0)
    late = life.on_silence(o, 5 + 3_000_000_000, 2_000_000_000)
    assert late.question_ns, "somebody has to ask for the execution"
    booked = life.on_executions(late, 100.0, 10.0, 6)
    assert (booked.open, booked.remaining, booked.question_ns) == (False, 0.0, 0)
    assert life.on_reading(o, 6).remaining == 0.0, "read after it was filled: it is part of the broker's position"


def test_part_filled_before_today_is_not_taken_for_an_unbooked_fill() -> None:
    o = life.on_executions(life.on_status(order(), status("Submitted", 30.0), 5), 30.0, 10.0, 6)
    o = life.on_new_day(o)
    o = life.on_executions(life.on_status(o, status("Submitted", 50.0), 7), 20.0, 10.0, 8)
    assert (o.filled, o.booked, o.remaining) == (50.0, 50.0, 50.0)


def test_order_presumed_dead_counts_again_at_any_sign_of_life() -> None:
    gone = life.on_missing(life.on_link_lost(order(), 6), 2_000 + life.UNLISTED_NS, 2_001 + life.UNLISTED_NS)
    assert (gone.state, gone.presumed) == (S.REJECTED, True)
    for alive in (
        life.on_status(gone, status("Submitted"), 9),
        life.on_open(gone, listed("PreSubmitted"), 9),
        life.on_executions(gone, 40.0, 10.0, 9),
    ):
        assert (alive.state, bool(alive.question_ns), alive.presumed) == (S.UNKNOWN, True, False)
    told = life.on_status(gone, status("Cancelled"), 9)
    assert life.on_status(told, status("Submitted"), 10).state == S.REJECTED, "the broker itself has called it dead"


def test_change_that_never_arrived_is_given_up_when_the_list_shows_the_old_terms() -> None:
    o = life.on_replace_sent(life.on_status(order(), status("Submitted"), 5), 150.0, 11.0, 6)
    young = life.on_open(o, listed("Submitted"), 8, listed_ns=7)
    assert young.next_qty == 150.0, "it may still be on its way"
    old = life.on_open(o, listed("Submitted"), 8 + life.UNLISTED_NS, listed_ns=7 + life.UNLISTED_NS)
    assert (old.qty, old.limit_price, math.isnan(old.next_qty)) == (QTY, 10.0, True)


def test_terms_that_somebody_else_changed_are_asked_for_and_taken_from_the_list() -> None:
    o = life.on_status(order(), status("Submitted"), 5)
    asked = life.on_open(o, listed("Submitted", 60.0, 9.5), 6)
    assert (asked.qty, bool(asked.question_ns)) == (QTY, True)
    taken = life.on_open(asked, listed("Submitted", 60.0, 9.5), 8, listed_ns=7)
    assert (taken.qty, taken.limit_price, taken.question_ns) == (60.0, 9.5, 0)


def test_after_a_restart_what_never_left_is_refused_and_what_may_live_is_unknown() -> None:
    assert life.after_restart(order(state=S.PENDING), 9, True).state == S.REFUSED
    for state in (S.SENT, S.WORKING, S.PARTIAL, S.PENDING_CANCEL, S.UNKNOWN):
        found = life.after_restart(order(state=state, filled=30.0, booked=30.0), 9, True)
        assert (found.state, found.question_ns, found.remaining) == (S.UNKNOWN, 9, QTY)
    assert life.after_restart(order(state=S.SENT, sent_ns=10**18), 9, False).sent_ns == 9, "another boot's clock"


def test_register_finds_by_intent_perm_and_order_id_and_forgets_old_ones() -> None:
    register = Register()
    register.put(order(perm_id=55))
    assert register.find(intent_id=7) is register.find(perm_id=55) is register.find(order_id=3)
    assert register.put(register.by_intent[7]) is None
    done = life.on_status(register.by_intent[7], status("Cancelled"), 50)
    assert register.put(done) is not None
    assert register.active_count == 0
    assert register.prune(51) == 1
    assert register.find(order_id=3) is None


def test_the_notice_of_a_cancel_whose_status_was_lost_is_a_question() -> None:
    working = life.on_status(order(), status("Submitted"), 5)
    asked = life.on_error(working, 202, "Order Canceled - reason:", 6)
    assert (asked.state, asked.question_ns) == (S.WORKING, 6)
    assert life.on_status(asked, status("Cancelled"), 7).question_ns == 0


def test_an_order_that_was_forgotten_is_not_found_by_any_of_its_ids() -> None:
    register = Register()
    register.put(order(perm_id=55))
    register.put(replace(register.by_intent[7], perm_id=66))
    register.alias(8, register.by_intent[7])
    register.put(life.on_status(register.by_intent[7], status("Cancelled"), 50))
    assert register.prune(10**9) == 1
    assert [register.find(perm_id=55), register.find(perm_id=66), register.find(order_id=3)] == [None, None, None]
    assert register.find(intent_id=8) is None
