"""The bridge against the paper gateway over a real socket."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from bridge_paper import PaperThread
from bridge_rig import Rig

from engine.broker.news import CommissionNews
from engine.domain.codes import (
    BlockReason,
    CommandKind,
    EventKind,
    ExecFlag,
    ExecKind,
    IntentFlag,
    LinkState,
    OrderState,
    Owner,
    Refusal,
    Source,
    TickKind,
)
from engine.runtime.ids import order_ref


def test_depth_reaches_the_ticks_ring_with_socket_times_and_all_kinds(rig: Rig) -> None:
    reader = rig.algo.ring_reader("ticks", batch=8192)
    reader.seek(0)
    kinds: set[int] = set()
    sane = []

    def enough() -> bool:
        ticks = reader.poll()
        kinds.update(int(k) for k in np.unique(ticks["kind"]))
        depth = ticks[ticks["kind"] == TickKind.DEPTH]
        sane.append(bool((depth["t_decoded_ns"] >= depth["t_socket_ns"]).all() and (depth["price"] > 0).all()))
        return {TickKind.DEPTH, TickKind.DEPTH_RESET, TickKind.STATUS, TickKind.TRADE, TickKind.INDEX} <= kinds

    rig.until(enough, 20.0, "every kind of tick")
    assert all(sane)


def test_order_is_filled_and_the_position_cell_agrees_with_the_broker(rig: Rig, market: PaperThread) -> None:
    before = rig.account.read().copy()
    flow = float(rig.positions.read(0)["cash_flow_usd"])
    intent = rig.order(0, 100)
    rig.until(lambda: rig.qty(0) == 100.0 and OrderState.FILLED in rig.states(intent))
    states = rig.states(intent)
    assert states[0] == OrderState.SENT
    assert states[-1] == OrderState.FILLED
    fill = next(f for f in rig.fills if f["kind"] == ExecKind.FILL)
    assert (int(fill["intent_id"]), float(fill["qty"]), int(fill["side"])) == (intent, 100.0, 1)
    rig.until(lambda: any(f["kind"] == ExecKind.COMMISSION for f in rig.fills))
    position = rig.positions.read(0)
    assert position["cash_flow_usd"] - flow == pytest.approx(-100.0 * float(fill["price"]))
    rig.until(lambda: rig.positions.read(0)["broker_qty"] == 100.0)
    assert rig.positions.read(0)["mismatch_since_ns"] == 0
    assert market.call(lambda g: g.account.positions[0].quantity) == 100.0
    account = rig.account.read()
    assert account["trades"] - before["trades"] == 1
    assert account["intents"][Source.OPERATOR - 1] - before["intents"][Source.OPERATOR - 1] == 1


def test_closes_that_leave_in_another_order_than_they_came_are_all_accepted(rig: Rig) -> None:
    """The largest exposure leaves first, and the broker takes rising order ids only."""
    for symbol, qty in enumerate((5, 40, 20)):
        rig.filled(symbol, qty)
    rig.run(0.25)  # past the window of duplicates
    rig.command(CommandKind.CANCEL_ALL)  # it waits in the queue of urgent messages, and so does what comes after it
    closes = [rig.order(s, -rig.qty(s), source=Source.WATCHDOG, flags=3) for s in range(3)]
    rig.until(lambda: not any(rig.qty(s) for s in range(3)), what="flat")
    assert [rig.states(intent)[-1] for intent in closes] == [OrderState.FILLED] * 3
    sent = [e for e in rig.seen if e["kind"] == EventKind.ORDER_STATE and e["code"] == OrderState.SENT]
    left = [(int(e["symbol"]), int(e["ref2"])) for e in sent if int(e["ref_id"]) in closes]
    assert [number for _, number in left] == sorted(number for _, number in left)
    assert left[0][0] != 0, "not the smallest first"


def test_an_entry_that_was_numbered_before_a_reducing_order_leaves_after_it_and_is_accepted(rig: Rig) -> None:
    rig.filled(0, 30)
    rig.run(0.25)
    entry = rig.order(1, 10)
    reduce = rig.order(0, -30, source=Source.ALGO, flags=1)
    rig.until(lambda: rig.qty(0) == 0.0 and rig.qty(1) == 10.0, what="both filled")
    assert rig.states(entry)[-1] == rig.states(reduce)[-1] == OrderState.FILLED
    assert any("Duplicate" in text for text in rig.texts(EventKind.ORDER_STATE)) is False


def test_working_order_is_shown_and_cancelled(rig: Rig) -> None:
    intent = rig.order(1, 10, limit=rig.near(1, -0.03))
    rig.until(lambda: OrderState.WORKING in rig.states(intent))
    assert rig.positions.read(1)["working_buy_qty"] == 10.0
    cancel = rig.cancel(intent)
    rig.until(lambda: OrderState.CANCELLED in rig.states(intent))
    assert rig.states(cancel) == [OrderState.SENT]
    assert rig.positions.read(1)["working_buy_qty"] == 0.0


def test_working_order_is_replaced_in_place(rig: Rig) -> None:
    intent = rig.order(1, 10, limit=rig.near(1, -0.03))
    rig.until(lambda: OrderState.WORKING in rig.states(intent))
    price = rig.near(1, -0.025)
    replacement = rig.order(1, 20, limit=price, kind=3, target_id=intent)
    rig.until(lambda: rig.bridge.register.by_intent[intent].qty == 20.0)
    assert rig.states(replacement) == [OrderState.SENT]
    assert rig.bridge.register.by_intent[intent].limit_price == price
    rig.cancel(replacement)
    rig.until(lambda: OrderState.CANCELLED in rig.states(intent), what="a cancel by the replacement's id")


@pytest.mark.parametrize(
    ("symbol", "qty", "away", "code"),
    [
        (0, 10.5, -0.01, Refusal.QUANTITY),
        (0, 10, 0.08, Refusal.COLLAR),
        (0, 6000, -0.04, Refusal.ORDER_SIZE),
        (0, 600, -0.01, Refusal.ORDER_NOTIONAL),
        (63, 1, -0.01, Refusal.UNKNOWN_SYMBOL),
        (4, 1, -0.01, Refusal.UNKNOWN_SYMBOL),
    ],
)
def test_bad_orders_are_refused_with_a_named_reason(
    rig: Rig, symbol: int, qty: float, away: float, code: Refusal
) -> None:
    intent = rig.order(symbol, qty, limit=rig.near(min(symbol, 3), away))
    event = rig.until(lambda: rig.refusal(intent))
    assert Refusal(int(event["code"])) == code
    assert len(event["text"]) > 10
    assert rig.states(intent) == []


def test_price_off_the_increment_is_refused_before_the_wire(rig: Rig) -> None:
    intent = rig.order(0, 1, limit=rig.near(0, -0.01) + 0.005)
    assert rig.until(lambda: rig.refusal(intent))["code"] == Refusal.INCREMENT


def test_repeated_idempotency_key_is_refused_as_duplicate(rig: Rig) -> None:
    first = rig.order(0, 1, limit=rig.near(0, -0.02), key=b"same")
    second = rig.order(1, 2, limit=rig.near(1, -0.02), key=b"same")
    event = rig.until(lambda: rig.refusal(second))
    assert event["code"] == Refusal.DUPLICATE
    assert rig.refusal(first) is None


def test_old_intent_of_the_strategy_is_stale(rig: Rig) -> None:
    intent = rig.order(0, 1, source=Source.ALGO, t_intent_ns=rig.now() - 1_500_000_000)
    assert rig.until(lambda: rig.refusal(intent))["code"] == Refusal.STALE_INTENT


def test_entry_of_a_person_that_lay_in_the_ring_is_stale_but_a_close_is_not(rig: Rig) -> None:
    rig.filled(0, 20)
    old = rig.now() - 6_000_000_000
    entry, exit_ = rig.order(1, 1, t_intent_ns=old), rig.order(0, -20, t_intent_ns=old)
    assert rig.until(lambda: rig.refusal(entry))["code"] == Refusal.STALE_INTENT
    rig.until(lambda: rig.qty(0) == 0.0)
    assert rig.refusal(exit_) is None


def test_entries_of_a_silent_strategy_are_cancelled_and_others_stay(rig: Rig) -> None:
    rig.algo_alive()
    mine = rig.order(1, 10, limit=rig.near(1, -0.03), source=Source.ALGO)
    other = rig.order(1, 7, limit=rig.near(1, -0.035))
    rig.until(lambda: OrderState.WORKING in rig.states(mine) and OrderState.WORKING in rig.states(other))
    rig.until(lambda: OrderState.CANCELLED in rig.states(mine), 5.0, "silence of one second")
    assert rig.states(other)[-1] == OrderState.WORKING


@pytest.mark.parametrize(("stop", "code"), [("pause", Refusal.PAUSED), ("kill", Refusal.KILLED)])
def test_pause_and_kill_let_only_reducing_orders_pass_and_say_so(rig: Rig, stop: str, code: Refusal) -> None:
    rig.filled(0, 100)
    rig.stop.value[0][stop] = 1
    rig.stop.publish()
    entry, too_much, close = rig.order(0, 10), rig.order(0, -150), rig.order(0, -60)
    rig.until(lambda: rig.qty(0) == 40.0)
    for refused in (entry, too_much):
        event = rig.refusal(refused)
        assert event is not None
        assert event["code"] == code
        assert bytes(event["text"]).startswith(code.name.encode()), "in words, to the journal"
    assert rig.refusal(close) is None


def test_without_fresh_books_only_reducing_orders_pass(rig: Rig) -> None:
    rig.filled(0, 50)
    rig.books_on = False
    rig._book.value[0]["t_socket_ns"] = rig.now() - 60_000_000_000
    rig._book.publish(0)
    entry, close = rig.order(0, 10), rig.order(0, -50)
    rig.until(lambda: rig.qty(0) == 0.0)
    assert rig.refusal(entry)["code"] == Refusal.STALE_DATA  # type: ignore[index]
    assert rig.refusal(close) is None


def test_expired_lease_cancels_entries_and_blocks_new_ones(rig: Rig) -> None:
    working = rig.order(1, 10, limit=rig.near(1, -0.03))
    rig.until(lambda: OrderState.WORKING in rig.states(working))
    rig.lease_on = False
    rig.until(lambda: OrderState.CANCELLED in rig.states(working), 5.0)
    entry = rig.order(0, 10)
    assert rig.until(lambda: rig.refusal(entry))["code"] == Refusal.LEASE
    assert int(rig.stop_bridge.read()["block_reasons"]) >> BlockReason.LEASE_EXPIRED & 1
    rig.lease_on = True
    rig.until(lambda: not rig.stop_bridge.read()["block"], what="the block to clear itself")


def test_a_bridge_started_during_a_takeover_says_so_to_a_cancel_that_waited_and_sends_it_when_it_may(own: Rig) -> None:
    rig = own
    working = rig.order(1, 10, limit=rig.near(1, -0.03))
    rig.until(lambda: OrderState.WORKING in rig.states(working))
    rig.kill_bridge()
    rig.lease_on = False
    lease = rig._lease.value[0]
    lease["owner"], lease["epoch"] = int(Owner.WATCHDOG), lease["epoch"] + 1
    rig._lease.publish()
    command = rig.command(CommandKind.CANCEL_ALL)
    rig.start()
    result = rig.until(lambda: rig.result(command))
    assert b"the watchdog cancels" in result["text"]
    rig.until(lambda: rig.bridge.conn.state == LinkState.UP)
    rig.run(0.3)
    assert rig.bridge.desk.cancels_written == 0
    rig.lease_on = True
    rig.until(lambda: not rig.bridge.register.active_count, what="what was asked for, by whom it is due now")


def test_without_a_watchdog_for_long_the_bridge_latches_kill_and_gets_flat(paper: PaperThread, tmp_path: Path) -> None:
    rig = Rig(tmp_path / "state", paper.port, {"guardrails": {"watchdog_gone_s": 0.6}})
    try:
        rig.ready()
        first, second = rig.order(0, 100), rig.order(2, -50)
        rig.until(lambda: rig.qty(0) == 100.0 and rig.qty(2) == -50.0)
        assert rig.refusal(first) is None
        assert rig.refusal(second) is None
        rig.lease_on = False
        rig.until(lambda: rig.qty(0) == 0.0 and rig.qty(2) == 0.0, 10.0, "flat")
        assert rig.stop_bridge.read()["kill"] == 1
        rig.until(lambda: rig.texts(EventKind.FLATTEN), 10.0, "confirmed flat")
        flat = [f for f in rig.fills if f["kind"] == ExecKind.FILL and f["flags"] & ExecFlag.FLATTEN]
        assert {int(f["symbol"]) for f in flat} == {0, 2}
        assert int(rig.account.read()["trades"]) == 2, "a flatten does not count for COOL"
    finally:
        rig.close()


def test_cancel_all_and_flatten_orders_leave_in_one_turn_with_their_time(rig: Rig) -> None:
    rig.filled(0, 100)
    working = rig.order(1, 10, limit=rig.near(1, -0.03))
    rig.until(lambda: OrderState.WORKING in rig.states(working))
    rig.stop.value[0]["kill"] = 1
    rig.stop.publish()
    command = rig.command(CommandKind.CANCEL_ALL)
    close = rig.order(0, -100, source=Source.WATCHDOG, flags=int(IntentFlag.REDUCE_ONLY | IntentFlag.FLATTEN))
    again = rig.order(0, -100, source=Source.WATCHDOG, flags=int(IntentFlag.REDUCE_ONLY | IntentFlag.FLATTEN))
    rig.turn()
    assert rig.states(close)[0] == OrderState.SENT
    assert rig.refusal(again)["code"] == Refusal.NOT_REDUCING  # type: ignore[index]
    assert int(rig.broker.read()["last_close_sent_ns"]) > 0
    assert rig.result(command) is not None
    rig.until(lambda: rig.qty(0) == 0.0 and OrderState.CANCELLED in rig.states(working))


def test_snapshot_command_reads_orders_and_positions(rig: Rig) -> None:
    rig.filled(3, 7)
    working = rig.order(1, 10, limit=rig.near(1, -0.03))
    rig.until(lambda: OrderState.WORKING in rig.states(working))
    before = int(rig.broker.read()["snapshot_id"])
    command = rig.command(CommandKind.SNAPSHOT)
    rig.until(lambda: rig.result(command) is not None)
    broker = rig.broker.read()
    assert int(broker["snapshot_id"]) > before
    assert int(broker["snapshot_open_orders"]) == 1
    assert int(broker["snapshot_positions"]) == 1 << 3
    assert broker["snapshot_events"] == broker["order_events"]
    assert broker["snapshot_begin_ns"] <= broker["snapshot_end_ns"]


def test_gateway_restart_applies_no_execution_twice_and_keeps_the_working_order(own: Rig, paper: PaperThread) -> None:
    rig = own
    rig.filled(0, 100)
    working = rig.order(1, 10, limit=rig.near(1, -0.04))
    rig.until(lambda: OrderState.WORKING in rig.states(working))
    fills = len(rig.fills)
    paper.stop()
    rig.until(lambda: rig.broker.read()["link"] == LinkState.DOWN)
    assert OrderState.UNKNOWN in rig.states(working)
    assert rig.positions.read(1)["unknown_buy_qty"] == 10.0
    entry = rig.order(2, 5)
    assert rig.until(lambda: rig.refusal(entry))["code"] in (Refusal.NOT_CONNECTED, Refusal.BLOCKED)
    paper._start()
    rig.until(lambda: rig.broker.read()["link"] == LinkState.UP, 30.0)
    assert rig.qty(0) == 100.0
    assert not [f for f in rig.fills[fills:] if f["kind"] == ExecKind.FILL]
    assert rig.states(working)[-1] == OrderState.WORKING
    assert rig.broker.read()["down_since_ns"] == 0
    rig.cancel(working)
    rig.until(lambda: OrderState.CANCELLED in rig.states(working))


def test_fill_during_a_disconnect_is_found_once_afterwards(own: Rig, paper: PaperThread) -> None:
    rig = own
    working = rig.order(1, 10, limit=rig.near(1, -0.03))
    rig.until(lambda: OrderState.WORKING in rig.states(working))
    paper.fault("fill_during_disconnect")
    rig.until(lambda: rig.broker.read()["link"] != LinkState.UP, what="the disconnect")
    rig.until(lambda: rig.broker.read()["link"] == LinkState.UP, 20.0)
    assert rig.qty(1) == 10.0
    mine = [f for f in rig.fills if f["kind"] == ExecKind.FILL and f["symbol"] == 1]
    assert sum(float(f["qty"]) for f in mine) == 10.0
    assert mine[0]["flags"] & ExecFlag.REPLAYED
    assert rig.states(working)[-1] == OrderState.FILLED


def test_killed_bridge_comes_back_with_positions_and_adopts_its_working_order(own: Rig, paper: PaperThread) -> None:
    rig = own
    rig.filled(0, 100)
    working = rig.order(1, 10, limit=rig.near(1, -0.03))
    rig.until(lambda: OrderState.WORKING in rig.states(working))
    before = rig.positions.read(0).copy()
    used = max(o.order_id for o in rig.bridge.register.by_intent.values())
    rig.kill_bridge()
    paper.fault("id_rollback", by=1000)
    rig.seen.clear()
    rig.start()
    rig.ready()
    after = rig.positions.read(0)
    for name in ("qty", "cash_flow_usd", "day_open_qty", "executions", "commissions_usd"):
        assert after[name] == before[name], name
    adopted = rig.bridge.register.by_intent[working]
    assert adopted.state == OrderState.WORKING
    assert order_ref(adopted.intent_id) == order_ref(working)
    new = rig.order(2, 5)
    rig.until(lambda: OrderState.FILLED in rig.states(new))
    assert rig.bridge.register.by_intent[new].order_id > used, "order ids never repeat, whatever nextValidId says"
    rig.cancel(working)
    rig.until(lambda: OrderState.CANCELLED in rig.states(working))


@pytest.mark.parametrize(
    "moment", ["before it is judged", "before it is sent", "before the socket", "after the socket"]
)
def test_bridge_killed_around_a_send_neither_loses_nor_doubles_the_order(
    own: Rig, paper: PaperThread, moment: str
) -> None:
    class Dead(BaseException):
        pass

    def die(*_: object) -> None:
        raise Dead

    rig = own
    bridge = rig.bridge
    if moment == "before it is judged":
        bridge.desk.handle = die  # type: ignore[method-assign]
    elif moment == "before it is sent":
        bridge.desk.release_entries = die  # type: ignore[method-assign]
    elif moment == "before the socket":
        bridge.link.flush = die  # type: ignore[method-assign]
    else:
        bridge._teller.tell = die  # type: ignore[method-assign]
    intent = rig.order(0, 10)
    with pytest.raises(Dead):
        bridge.do_work(rig.now())
    rig.kill_bridge()
    rig.start()
    rig.ready()
    rig.until(lambda: not rig.bridge.register.active_count, 20.0, "its fate")
    refs = paper.call(lambda g: [o.order_ref for o in g.desk.ledger.orders.values()])
    bought = refs.count(order_ref(intent))
    assert bought == (moment == "after the socket")
    assert rig.qty(0) == 10.0 * bought
    if moment == "before it is judged":
        assert rig.refusal(intent) is not None, "it lay in the ring: whoever comes next gives the verdict"
        return
    expected = {
        "before it is sent": OrderState.REFUSED,
        "before the socket": OrderState.REJECTED,
        "after the socket": OrderState.FILLED,
    }[moment]
    assert rig.bridge.register.by_intent[intent].state == expected
    assert rig.refusal(intent) is None, "one answer, not two"


def test_cancel_that_got_lost_with_the_link_is_sent_again(own: Rig, paper: PaperThread) -> None:
    intent = own.order(1, 10, limit=own.near(1, -0.03))
    own.until(lambda: OrderState.WORKING in own.states(intent))
    own.bridge.link.cancel = lambda _: None  # type: ignore[method-assign]
    own.cancel(intent)
    own.until(lambda: own.states(intent)[-1] == OrderState.PENDING_CANCEL)
    del own.bridge.link.cancel  # type: ignore[attr-defined]
    own.bridge.link.disconnect("cut before the cancel left")
    own.until(lambda: own.states(intent)[-1] == OrderState.CANCELLED, 20.0, "the cancel, once more")


def test_lost_broker_blocks_entries_until_reconciled_again(own: Rig, paper: PaperThread) -> None:
    rig = own
    paper.fault("1100")
    rig.until(lambda: rig.broker.read()["link"] == LinkState.BROKER_LOST)
    entry = rig.order(0, 10)
    assert rig.until(lambda: rig.refusal(entry))["code"] == Refusal.NOT_CONNECTED
    paper.fault("1101")
    rig.until(lambda: rig.broker.read()["link"] == LinkState.UP)
    reader = rig.algo.ring_reader("ticks", batch=8192)
    reader.skip_to_end()
    rig.until(lambda: (reader.poll()["kind"] == TickKind.DEPTH).any(), what="depth after 1101: subscribed anew")


def test_mute_gateway_is_left_and_reached_again(own: Rig, paper: PaperThread) -> None:
    rig = own
    paper.fault("mute", seconds=3.0)
    rig.until(lambda: rig.broker.read()["link"] != LinkState.UP, 10.0, "the silence to be noticed")
    rig.until(lambda: rig.broker.read()["link"] == LinkState.UP, 30.0, "a new connection")
    assert any("mute" in text for text in rig.texts(EventKind.CONNECTIVITY))


def test_cancels_asked_for_as_the_link_dies_do_no_harm_and_the_order_is_settled_afterwards(
    own: Rig, paper: PaperThread
) -> None:
    intent = own.order(1, 10, limit=own.near(1, -0.5))
    own.until(lambda: OrderState.WORKING in own.states(intent))
    own.bridge.commands.cancel_entries(own.now())
    own.bridge.link.disconnect("cut between the decision and the socket")
    own.bridge.housekeeping(own.now())  # sends what is due: nothing may raise
    own.until(lambda: own.broker.read()["link"] == LinkState.UP and own.broker.read()["reconciled"] == 1, 20.0)
    own.until(lambda: own.states(intent)[-1] in (OrderState.CANCELLED, OrderState.WORKING), 20.0)


def test_leaving_cancels_entries_and_keeps_positions(own: Rig, paper: PaperThread) -> None:
    rig = own
    rig.filled(0, 100)
    working = rig.order(1, 10, limit=rig.near(1, -0.03))
    rig.until(lambda: OrderState.WORKING in rig.states(working))
    rig.bridge.on_close(rig.now())
    rig.seen.extend(rig.events.poll().copy())
    assert OrderState.CANCELLED in rig.states(working)
    assert rig.qty(0) == 100.0
    assert rig.broker.read()["leaving"] == 1
    assert paper.call(lambda g: g.account.positions[0].quantity) == 100.0


def test_absent_gateway_is_named_with_a_remedy_and_asked_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "state", 1, {"gateway": {"port": 1, "reconnect_min_s": 0.01, "reconnect_max_s": 0.02}})
    try:
        rig.until(lambda: rig.bridge.conn.attempts >= 3)
        texts = rig.texts(EventKind.CONNECTIVITY)
        assert len(texts) == 1, "said once, not at every attempt"
        assert "127.0.0.1:1" in texts[0]
        assert "start the gateway" in texts[0]
        assert not rig.bridge.ready()
    finally:
        rig.close()


def test_account_of_another_mode_is_refused(tmp_path: Path, paper: PaperThread) -> None:
    rig = Rig(tmp_path / "state", paper.port, {"gateway": {"account": "DU1234567"}})
    try:
        rig.until(lambda: int(rig.stop_bridge.read()["block_reasons"]) >> BlockReason.ACCOUNT_MISMATCH & 1)
        rig.run(0.3)
        assert not rig.bridge.books.reconciled
        assert any("DUSIM001" in text for text in rig.texts(EventKind.CONNECTIVITY))
        intent = rig.order(0, 1)
        assert rig.until(lambda: rig.refusal(intent))["code"] == Refusal.ACCOUNT
    finally:
        rig.close()


# What brokers do to a client.


def test_correction_of_an_execution_replaces_it(rig: Rig, market: PaperThread) -> None:
    rig.filled(0, 100)
    before = rig.positions.read(0).copy()
    market.fault("correct_execution", change=0.5)
    correction = rig.until(lambda: next((f for f in rig.fills if f["kind"] == ExecKind.CORRECTION), None))
    after = rig.positions.read(0)
    assert after["qty"] == before["qty"]
    assert after["executions"] == before["executions"]
    assert after["cash_flow_usd"] == pytest.approx(before["cash_flow_usd"] - 50.0)
    assert float(correction["qty"]) == 100.0


def test_commission_in_another_currency_is_named_once_and_not_taken_for_dollars(rig: Rig) -> None:
    rig.filled(0, 10)
    rig.until(lambda: rig.positions.read(0)["commissions_usd"] > 0)
    before = float(rig.positions.read(0)["commissions_usd"])
    for fill in {bytes(f["exec_id"]).decode() for f in rig.fills}:
        rig.bridge.session.take(CommissionNews(fill, 7777.0, "CHF", math.nan), rig.now())
    told = rig.until(lambda: [e for e in rig.seen if b"CHF" in e["text"]])
    assert len(told) == 1
    assert rig.positions.read(0)["commissions_usd"] <= before


def test_rejected_order_ends_as_rejected_with_the_brokers_words(rig: Rig, market: PaperThread) -> None:
    market.fault("reject_next", count=1, reason="margin of the day")
    intent = rig.order(0, 10)
    rig.until(lambda: OrderState.REJECTED in rig.states(intent))
    assert any("margin of the day" in text for text in rig.texts(EventKind.ORDER_STATE))
    assert rig.positions.read(0)["unknown_buy_qty"] == 0.0


def test_fill_without_any_status_is_still_a_filled_order(rig: Rig, market: PaperThread) -> None:
    market.fault("drop_status", count=5)
    intent = rig.order(0, 10)
    rig.until(lambda: rig.states(intent)[-1:] == [OrderState.FILLED])
    market.fault("clear")
    assert rig.qty(0) == 10.0


def test_cancel_that_crosses_a_fill_ends_as_filled(rig: Rig, market: PaperThread) -> None:
    intent = rig.order(1, 10, limit=rig.near(1, -0.03))
    rig.until(lambda: OrderState.WORKING in rig.states(intent))
    market.fault("fill_on_cancel", count=1)
    rig.cancel(intent)
    rig.until(lambda: rig.states(intent)[-1] == OrderState.FILLED)
    assert rig.qty(1) == 10.0
    rig.run(0.2)
    assert rig.states(intent)[-1] == OrderState.FILLED


def test_false_cancel_error_leaves_the_order_working(rig: Rig, market: PaperThread) -> None:
    intent = rig.order(1, 10, limit=rig.near(1, -0.03))
    rig.until(lambda: OrderState.WORKING in rig.states(intent))
    order_id = rig.bridge.register.by_intent[intent].order_id
    for code in (103, 104, 105, 161, 321, 10147, 10148, 10349):
        market.fault("error", code=code, req_id=order_id)
    rig.until(lambda: any("10349" in text for text in rig.texts(EventKind.ORDER_STATE)))
    rig.until(lambda: not rig.bridge.register.by_intent[intent].question_ns, what="the question to be answered")
    assert rig.bridge.register.by_intent[intent].state == OrderState.WORKING
    assert rig.positions.read(1)["working_buy_qty"] == 10.0


def test_broken_farm_stops_entries_until_each_symbol_ticks_again(own: Rig, paper: PaperThread) -> None:
    rig = own
    paper.fault("2103")
    rig.until(lambda: int(rig.stop_bridge.read()["symbol_block"]) & 0b1111 == 0b1111, what="every symbol blocked")
    entry = rig.order(0, 1)
    assert rig.until(lambda: rig.refusal(entry))["code"] == Refusal.BLOCKED
    paper.fault("2104")
    rig.until(lambda: not rig.stop_bridge.read()["symbol_block"], 20.0, "ticks")


def test_depth_reset_voids_the_book_in_the_order_of_the_stream(rig: Rig, market: PaperThread) -> None:
    reader = rig.algo.ring_reader("ticks", batch=8192)
    reader.skip_to_end()
    market.fault("depth_reset", symbol="MSFT")
    found: list[tuple[int, int, int]] = []

    def full_again() -> bool:
        found.extend((int(t["kind"]), int(t["op"]), int(t["level"])) for t in reader.poll() if t["symbol"] == 1)
        resets = [k for k, f in enumerate(found) if f[0] == TickKind.DEPTH_RESET]
        return bool(resets) and (int(TickKind.DEPTH), 0, 9) in found[resets[0] :]

    rig.until(full_again)


def test_client_id_in_use_is_named_and_tried_again(market: PaperThread, rig: Rig, tmp_path: Path) -> None:
    second = Rig(tmp_path / "state", market.port)
    try:
        text = second.until(lambda: next((t for t in second.texts(EventKind.CONNECTIVITY) if "326" in t), ""))
        assert "gateway.client_id" in text
    finally:
        second.close()


def test_position_that_nobody_explains_blocks_until_it_is_accepted(own: Rig, paper: PaperThread) -> None:
    rig = own
    rig.filled(0, 100)
    rig.bridge.accounts.set_open(0, 30.0)  # as if a fill had been lost or invented
    rig.command(CommandKind.SNAPSHOT)
    rig.until(lambda: int(rig.stop_bridge.read()["block_reasons"]) >> BlockReason.POSITION_MISMATCH & 1)
    assert any("AAPL: ours 130, broker 100" in text for text in rig.texts(EventKind.RECONCILE))
    too_much = rig.order(0, -130, flags=int(IntentFlag.REDUCE_ONLY))
    assert rig.until(lambda: rig.refusal(too_much))["code"] == Refusal.NOT_REDUCING, "only what both books have"
    command = rig.command(CommandKind.ACCEPT_POSITIONS)
    rig.until(lambda: rig.result(command) is not None and not rig.stop_bridge.read()["block"])
    assert rig.qty(0) == 100.0


def test_recorded_position_of_an_earlier_day_must_agree_with_the_brokers(own: Rig, paper: PaperThread) -> None:
    rig = own
    path = rig.instance.config.state_dir / "risk.bridge.json"
    rig.filled(0, 100)
    rig.kill_bridge()
    text = (
        '{"order_id_mark": 5000, "date": 20200102, "account": "DUSIM001",'
        ' "day_open": {}, "day_open_cost": {}, "qty": {"AAPL": 40.0}}'
    )
    path.write_text(text)
    rig.start()
    rig.until(lambda: rig.bridge.books.reconciled)
    rig.run(0.05)
    assert int(rig.stop_bridge.read()["block_reasons"]) >> BlockReason.POSITION_MISMATCH & 1
    command = rig.command(CommandKind.ACCEPT_POSITIONS)
    rig.until(lambda: rig.result(command) is not None and not rig.stop_bridge.read()["block"])
    assert rig.qty(0) == 100.0
