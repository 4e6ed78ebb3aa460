"""Each condition of the small decisions, one by one: what the mutation check leans on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.broker.deadman import Lease, LeaseVerdict
from engine.broker.governor import Governor, Priority
from engine.config import Guardrails
from engine.domain.codes import BlockReason, LinkState, OrderType, Owner, Refusal, Source, TradingState
from engine.risk import pretrade
from engine.risk.guardrails import kernels as k
from engine.risk.guardrails.blocks import Duties, blocks
from engine.risk.guardrails.conf import ConfState, conf
from engine.risk.guardrails.dd import DdState, anchored, dd
from engine.risk.guardrails.facts import AccountFacts, Facts, IndexFacts, LinkFacts, ModelFacts
from engine.risk.guardrails.result import Breach
from engine.risk.guardrails.spread import SpreadState, spread
from engine.risk.ownership import BridgeFacts, Ownership, Step, step
from engine.risk.stops import effective
from shm.layouts import INTENT, STOP

S = 1_000_000_000
FINE = k.SEEN | k.OPEN | k.VALID | k.WARMED


def well(n: int = 2) -> Facts:
    table = np.zeros((n, k.COLUMNS))
    table[:, k.FLAGS] = FINE
    link = LinkFacts(link=int(LinkState.UP), bridge_alive=True, reconciled=True, ever_up=True)
    return Facts(
        tuple(f"S{i}" for i in range(n)), table, np.zeros(k.TOTALS), 100_000.0, 500_000.0,
        account=AccountFacts(ready=True), link=link, index=IndexFacts(),
        models=ModelFacts([0.9] * n, [False] * n, [True] * n, loaded=True, service_alive=True),
    )  # fmt: skip


def test_nothing_is_blocked_when_all_is_well() -> None:
    found = blocks(well(), Duties())
    assert (found.reasons, found.symbols) == (0, 0)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (FINE & ~k.SEEN, BlockReason.STALE_DATA),
        (FINE | k.STALE, BlockReason.STALE_DATA),
        (FINE & ~k.OPEN, BlockReason.SESSION_CLOSED),
        (FINE | k.HALTED, BlockReason.HALTED),
    ],
)
def test_a_symbol_is_blocked_alone(flags: int, reason: BlockReason) -> None:
    facts = well()
    facts.table[1, k.FLAGS] = flags
    found = blocks(facts, Duties())
    assert (found.symbols, found.symbol_reasons, found.reasons) == (2, 1 << reason, 0)


@pytest.mark.parametrize(
    ("duty", "reason"),
    [("killed_symbols", BlockReason.SYMBOL_KILLED), ("invalid_models", BlockReason.MODEL_INVALID)],
)
def test_a_symbol_is_blocked_by_a_mask(duty: str, reason: BlockReason) -> None:
    found = blocks(well(), Duties(**{duty: 2}))
    assert (found.symbols, found.symbol_reasons) == (2, 1 << reason)


@pytest.mark.parametrize(
    ("duty", "value", "reason"),
    [
        ("started", False, BlockReason.STARTING),
        ("recorder_behind", True, BlockReason.RECORDER_BEHIND),
        ("disk_low", True, BlockReason.DISK),
        ("ml_down", True, BlockReason.ML_DOWN),
        ("algo_down", True, BlockReason.ALGO_DOWN),
        ("evaluator_slow", True, BlockReason.EVALUATOR_SLOW),
        ("scope_unanswered", True, BlockReason.SCOPE_UNANSWERED),
    ],
)
def test_a_duty_that_fails_blocks_all(duty: str, value: bool, reason: BlockReason) -> None:
    assert blocks(well(), Duties(**{duty: value})).reasons == 1 << reason


def test_a_link_that_is_down_or_not_reconciled_blocks_all() -> None:
    facts = well()
    down = replace(facts, link=replace(facts.link, link=int(LinkState.DOWN)))
    assert blocks(down, Duties()).reasons == 1 << BlockReason.LINK_DOWN
    open_ = replace(facts, link=replace(facts.link, reconciled=False))
    assert blocks(open_, Duties()).reasons == 1 << BlockReason.RECONCILIATION_OPEN


def test_when_every_symbol_is_blocked_that_is_a_block_of_all() -> None:
    facts = well()
    facts.table[:, k.FLAGS] = FINE | k.HALTED
    assert blocks(facts, Duties()).reasons == 1 << BlockReason.HALTED


def cells(**of: dict[str, int]) -> list[np.void]:
    """Stop cells in the order watchdog, bridge, operator, cli."""
    made = []
    for name in ("watchdog", "bridge", "operator", "cli"):
        cell = np.zeros(1, STOP)[0]
        for field, value in of.get(name, {}).items():
            cell[field] = value
        made.append(cell)
    return made


@pytest.mark.parametrize("source", ["watchdog", "bridge", "operator", "cli"])
def test_every_source_stops_by_itself(source: str) -> None:
    calm = [False] * 4
    assert effective(cells(), calm).state == TradingState.ACTIVE
    assert effective(cells(**{source: {"kill": 1, "stop_id": 5}}), calm).state == TradingState.KILLED
    assert effective(cells(**{source: {"pause": 1, "stop_id": 5}}), calm).state == TradingState.PAUSED
    assert effective(cells(**{source: {"block": 1}}), calm).state == TradingState.BLOCKED
    torn = [name == source for name in ("watchdog", "bridge", "operator", "cli")]
    assert effective(cells(), torn).state == TradingState.BLOCKED


def test_the_state_is_the_strongest_stop_and_entries_need_none() -> None:
    found = effective(cells(cli={"kill": 1, "stop_id": 5}, operator={"pause": 1, "stop_id": 5}), [False] * 4)
    assert (found.state, found.pause) == (TradingState.KILLED, True)
    assert not found.entries_allowed(0)
    symbol = effective(cells(watchdog={"symbol_block": 2}), [False] * 4)
    assert (symbol.entries_allowed(0), symbol.entries_allowed(1)) == (True, False)


def test_only_what_is_older_than_the_release_is_released() -> None:
    held = {"watchdog": {"released_kill_id": 7, "released_pause_id": 7}, "cli": {"kill": 1, "pause": 1, "stop_id": 7}}
    assert effective(cells(**held), [False] * 4).state == TradingState.ACTIVE
    held["cli"]["stop_id"] = 8
    assert effective(cells(**held), [False] * 4).state == TradingState.KILLED


def lease(now_s: float, watch_s: float = 0.0, **more: Any) -> LeaseVerdict:
    facts = {"valid": False, "ours": True, "responsible": True, "expires_ns": 0} | more
    return Lease(5 * S, int(watch_s * S)).judge(int(now_s * S), **facts)


def test_a_lease_that_is_not_valid_expires_and_is_gone_after_its_time() -> None:
    assert lease(100, 94, valid=True) == LeaseVerdict.OK
    assert lease(100, 96) == LeaseVerdict.EXPIRED
    assert lease(100, 95) == LeaseVerdict.GONE
    assert lease(100, 94, ours=False) == LeaseVerdict.EXPIRED
    assert lease(100, 94, responsible=False) == LeaseVerdict.EXPIRED


def test_the_absence_of_a_watchdog_counts_from_the_expiry() -> None:
    held = Lease(5 * S)
    facts = {"ours": True, "responsible": True, "expires_ns": 98 * S}
    assert held.judge(100 * S, valid=False, **facts) == LeaseVerdict.EXPIRED  # type: ignore[arg-type]
    assert held.judge(103 * S, valid=False, **facts) == LeaseVerdict.GONE  # type: ignore[arg-type]
    assert held.judge(104 * S, valid=True, **facts) == LeaseVerdict.OK  # type: ignore[arg-type]
    assert held.judge(105 * S, valid=False, **facts) == LeaseVerdict.EXPIRED, "it begins anew"  # type: ignore[arg-type]


def test_a_governor_lets_no_more_leave_than_its_classes_have() -> None:
    governor: Governor[int] = Governor(45, 20)
    assert sum(governor.spend(Priority.ORDER, 0) for _ in range(60)) == 25
    assert sum(governor.spend(Priority.URGENT, 0) for _ in range(60)) == 20
    assert governor.room(Priority.URGENT, 0) == 0
    assert not governor.spend(Priority.URGENT, S)
    assert governor.room(Priority.URGENT, 2 * S) == 45
    assert sum(governor.spend(Priority.URGENT, 2 * S) for _ in range(60)) == 45


G = Guardrails()
HERE = BridgeFacts(incarnation=1, alive=True, reconciled=True)
OURS = Ownership(Owner.BRIDGE, 5, 0, 1)


def after(state: Ownership, facts: BridgeFacts, at_s: float = 0.0) -> tuple[Owner, Step, bool]:
    found, what = step(state, facts, G, int(at_s * S))
    return found.owner, what, found.fencing


def test_a_bridge_that_is_well_keeps_the_right() -> None:
    assert after(OURS, HERE) == (Owner.BRIDGE, Step.NONE, False)
    assert step(replace(OURS, gone_since_ns=5), HERE, G, 9)[0].gone_since_ns == 0


def test_a_dead_or_hung_bridge_with_exposure_is_fenced_and_without_is_only_missed() -> None:
    dead = replace(HERE, alive=False, exit_seen=True)
    assert after(OURS, replace(dead, exposed=True)) == (Owner.BRIDGE, Step.FENCE, True)
    assert after(OURS, dead) == (Owner.NOBODY, Step.NONE, False)
    assert after(OURS, replace(HERE, hung=True, exposed=True)) == (Owner.BRIDGE, Step.FENCE, True)
    assert after(OURS, replace(HERE, hung=True)) == (Owner.BRIDGE, Step.NONE, False)
    assert after(replace(OURS, incarnation=0), replace(dead, incarnation=0, exposed=True))[1] == Step.NONE


def test_the_hand_acts_only_after_the_exit() -> None:
    fenced = replace(OURS, fencing=True, fence=6)
    assert after(fenced, replace(HERE, exposed=True)) == (Owner.BRIDGE, Step.NONE, True)
    assert after(fenced, replace(HERE, exit_seen=True, alive=False)) == (Owner.WATCHDOG, Step.TAKE_OVER, False)
    assert after(fenced, replace(HERE, incarnation=2)) == (Owner.WATCHDOG, Step.TAKE_OVER, False)


def test_a_newcomer_gets_a_new_epoch_and_from_the_watchdog_only_when_all_is_done() -> None:
    newcomer = replace(HERE, incarnation=2)
    found, what = step(OURS, newcomer, G, 0)
    assert (found.epoch, found.incarnation, what) == (6, 2, Step.HAND_BACK)
    theirs = replace(OURS, owner=Owner.WATCHDOG)
    assert after(theirs, newcomer) == (Owner.BRIDGE, Step.HAND_BACK, False)
    assert after(theirs, replace(newcomer, reconciled=False))[0] == Owner.WATCHDOG
    assert after(theirs, replace(newcomer, flattening=True))[0] == Owner.WATCHDOG
    assert after(theirs, replace(newcomer, hung=True))[0] == Owner.WATCHDOG
    assert after(theirs, replace(newcomer, leaving=True))[0] == Owner.WATCHDOG
    assert after(replace(OURS, owner=Owner.NOBODY), replace(newcomer, reconciled=False))[0] == Owner.BRIDGE


def test_a_bridge_that_leaves_has_twenty_seconds() -> None:
    gone = replace(HERE, alive=False, exit_seen=True)
    assert after(OURS, replace(HERE, leaving=True)) == (Owner.LEAVING, Step.NONE, False)
    leaving = replace(OURS, owner=Owner.LEAVING)
    assert after(leaving, replace(gone, exposed=True), 19.9) == (Owner.LEAVING, Step.NONE, False)
    assert after(leaving, replace(gone, exposed=True), 20.0) == (Owner.LEAVING, Step.LEFT_TOO_LONG, True)
    assert after(leaving, gone, 20.0) == (Owner.NOBODY, Step.NONE, False)


def test_exposure_that_is_found_later_is_fenced_too() -> None:
    nobody = replace(OURS, owner=Owner.NOBODY)
    assert after(nobody, replace(HERE, alive=False, exit_seen=True, exposed=True))[1] == Step.FENCE
    assert after(nobody, replace(HERE, alive=False, exit_seen=True))[1] == Step.NONE


def test_every_badge_that_blocks_says_why() -> None:
    facts = well(8)
    facts.table[:, k.SPREAD_LIMIT_BPS] = 25.0
    facts.table[0, k.SPREAD_BPS] = 30.0
    wide, _ = spread(facts, G, SpreadState(), S)
    assert (wide.breach, wide.block_reasons) == (Breach.BLOCK, 1 << BlockReason.SPREAD)
    weak = replace(facts, models=replace(facts.models, ema=[0.1] * 8))
    state = conf(weak, G, ConfState(), S)[1]
    unsure, _ = conf(weak, G, state, 11 * S)
    assert (unsure.breach, unsure.block_reasons) == (Breach.BLOCK, 1 << BlockReason.CONFIDENCE)


def test_a_stale_index_blocks_all() -> None:
    facts = replace(
        well(8), index=IndexFacts(watched=True, value=40_000.0, age_ns=16 * S, regular_hours=True),
        account=AccountFacts(ready=True, net_liquidation_usd=1_000_000.0),
    )  # fmt: skip
    facts.table[:, k.MID] = facts.table[:, k.MARK] = 100.0
    found, _ = dd(facts, G, anchored(DdState(), facts, 20240102), S)
    assert (found.breach, found.block_reasons) == (Breach.BLOCK, 1 << BlockReason.INDEX_STALE)


def test_equity_that_cant_be_marked_kills_after_its_time_and_not_before() -> None:
    facts = replace(
        well(8), index=IndexFacts(watched=True, value=40_000.0, age_ns=0, regular_hours=True),
        account=AccountFacts(ready=True, net_liquidation_usd=1_000_000.0),
    )  # fmt: skip
    facts.table[:, k.MID] = facts.table[:, k.MARK] = 100.0
    facts.table[0, k.QTY], facts.table[0, k.FLAGS] = 10.0, k.SEEN | k.OPEN | k.STALE
    _, state = dd(facts, G, anchored(DdState(), facts, 20240102), S)
    assert dd(facts, G, state, 60 * S)[0].breach == Breach.NONE
    assert dd(facts, G, state, 61 * S)[0].breach == Breach.KILL


def gate(**of: Any) -> int:
    """The gate's verdict on ten shares bought at the market by an operator, facts changed by name."""
    f = np.zeros(2, pretrade.SYMBOL_FACTS)
    f["mid"], f["own_bid"], f["own_ask"], f["last_price"], f["edge"] = 100.0, -np.inf, np.inf, np.nan, np.inf
    f["edge"][:, 0], f["step"][:, 0], f["shortable"] = 0.0, 0.01, 3
    f["tradable"] = f["session_open"] = f["fresh"] = 1
    a = np.zeros(1, pretrade.ACCOUNT_FACTS)
    for name in ("connected", "reconciled", "account_ok", "owner", "lease", "allow_short", "budget"):
        a[name] = 1
    a["now_ns"], a["buying_power_usd"], a["order_qty"], a["order_notional_usd"] = 100 * S, 1e6, 5_000, 50_000
    a["symbol_usd"], a["gross_usd"], a["collar"], a["active_per_side"] = 90_000, 200_000, 0.05, 20
    a["rate_per_s"], a["tradable_count"], a["stale_intent_ns"] = 20, 2, S
    i = np.zeros(1, INTENT)
    i["side"], i["qty"], i["order_type"], i["limit_price"] = 1, 10, int(OrderType.MKT), np.nan
    i["source"], i["t_intent_ns"] = int(Source.OPERATOR), 100 * S
    for name, value in of.items():
        place, _, field = name.partition("_")
        target = {"first": f[:1], "second": f[1:], "intent": i}[place]
        target[field] = value
    return int(pretrade.check(i, f, a, np.zeros(3)))


def test_a_person_has_five_times_as_long_and_no_longer() -> None:
    assert gate(intent_t_intent_ns=95 * S) == Refusal.NONE
    assert gate(intent_t_intent_ns=95 * S - 1) == Refusal.STALE_INTENT


def test_a_position_that_has_no_price_leaves_no_room() -> None:
    assert gate(second_qty=10.0) == Refusal.NONE
    assert gate(second_qty=10.0, second_mid=np.nan) == Refusal.GROSS_EXPOSURE
    assert gate(second_qty=10.0, second_mid=0.0) == Refusal.GROSS_EXPOSURE


def test_a_dead_newcomer_proves_no_exit_and_other_owners_do_not_expire_like_one_that_leaves() -> None:
    fenced = replace(OURS, fencing=True, fence=6)
    assert after(fenced, replace(HERE, incarnation=2, alive=False)) == (Owner.BRIDGE, Step.NONE, True)
    gone = replace(HERE, alive=False, exit_seen=True)
    assert after(replace(OURS, owner=Owner.WATCHDOG), gone, 25.0) == (Owner.WATCHDOG, Step.NONE, False)
    assert after(replace(OURS, owner=Owner.NOBODY), replace(HERE, exposed=True)) == (Owner.NOBODY, Step.NONE, False)


def test_a_bridge_that_can_not_reach_the_broker_is_fenced_only_with_exposure() -> None:
    assert after(OURS, replace(HERE, unreachable=True, exposed=True)) == (Owner.BRIDGE, Step.FENCE, True)
    found, what = step(replace(OURS, gone_since_ns=5), replace(HERE, unreachable=True), G, 9)
    assert (found.owner, what, found.gone_since_ns) == (Owner.BRIDGE, Step.NONE, 0)


def test_the_watchdogs_own_stop_holds_whatever_was_released_before() -> None:
    released = {"released_kill_id": 7, "released_pause_id": 7, "stop_id": 5}
    assert effective(cells(watchdog={"kill": 1} | released), [False] * 4).state == TradingState.KILLED
    assert effective(cells(watchdog={"pause": 1} | released), [False] * 4).state == TradingState.PAUSED
