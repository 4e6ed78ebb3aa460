"""The drills: one row each in ``SCENARIOS``, with the settings that it needs and the script that it runs.

A script causes something real (a fault of the paper gateway, a shock of its market, orders) and expects the course
that docs/RUNBOOK.md promises. Everything else that the instance does is in the time line as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.domain.codes import Badge, BadgeState, LinkState
from engine.drill.stage import OPERATOR, Stage
from engine.drill.timeline import Unexpected

COMMON: dict[str, dict[str, Any]] = {
    "strategy": {"enabled": False},
    "model": {"bar_s": 1.0, "warmup_s": 5.0, "warmup_min_s": 5.0, "train_hours": 0.25},
    "guardrails": {
        "cooling_s": 3.0,
        "link_down_kill_s": 5.0,
        "confidence_block_s": 2.0,
        "confidence_kill_s": 4.0,
        "trades_per_s": 8.0,
    },
}
"""Settings of every private instance. Everything else is as shipped."""
HELD = {"AAPL": 30_000.0, "MSFT": 30_000.0, "NVDA": -20_000.0}
FLAT_S = 20.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """``settings`` are laid over COMMON in a private instance. ``needs`` says what a foreign instance must have."""

    title: str
    run: Callable[[Stage], None]
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    lasting: bool = False
    """It changes the day for good (drawdown): the next drill gets another instance."""
    jumping: bool = False
    """Its processes see a wall clock that the drill can set."""
    small_disk: bool = False
    """The state directory is a small file system of its own (needs root)."""


def _breach(
    s: Stage, badge: Badge, cause: str, act: Callable[[], object], within_s: float, *,
    held: dict[str, float] | None = None, undo: Callable[[], object] | None = None, sent_s: float = 5.0,
) -> float:  # fmt: skip
    """Hold, cause, TRIPPED, KILL, sent, flat; returns the milliseconds to the wire."""
    s.hold(held or HELD)
    s.cause(cause, act)
    s.expect_badge(badge, BadgeState.TRIPPED, within_s)
    s.expect_kill(badge, 1.0)
    took_ms = s.expect_sent(sent_s)
    s.expect_flat(FLAT_S)
    if undo is not None:
        s.say(f"the cause ends: {undo()}", "cause ends")
    return took_ms


def spread(s: Stage) -> None:
    s.hold(HELD)
    s.cause("AAPL's spread widens to 60 bps", lambda: s.faults("widen", symbol="AAPL", bps=60))
    s.expect_badge(Badge.SPREAD, BadgeState.TRIPPED, 5.0)
    s.expect_state("blocked", "AAPL alone is blocked", lambda: s.watch.blocked_symbols() == ["AAPL"], 2.0)
    for symbol, side, passes, step in (
        ("AAPL", "BUY", False, "entry refused"),
        ("AAPL", "SELL", True, "reducing passes"),
        ("MSFT", "BUY", True, "others trade"),
    ):
        done, words = s.hands.order(symbol, side, 1)
        if done != passes:
            raise Unexpected(f"{step}: {side} 1 {symbol}: {words}; {s.seen()}")
        s.say(f"{side} 1 {symbol}: {words}", step)
    s.say(f"the cause ends: {s.faults('widen', symbol='AAPL', bps=0)}", "cause ends")
    s.expect_state("cleared", "the block has cleared itself", lambda: not s.watch.blocked_symbols(), 30.0)
    s.expect_state("OK", "every badge OK, no KILL, positions kept", lambda: _untouched(s), 30.0)


def _untouched(s: Stage) -> bool:
    """Nothing has tripped, and what was held still is."""
    return s.watch.trading() == "ACTIVE" and not s.watch.badges_not_ok() and bool(s.watch.quantities())


def pos(s: Stage) -> None:
    limits = s.watch.config.limits
    usd = min(limits.gate_symbol_usd, limits.order_notional_usd) * 0.96
    pct = round((limits.breaker_symbol_usd / usd - 1.0) * 100.0 + 4.0, 1)
    s.hold({"AAPL": usd})
    s.cause(
        f"AAPL jumps {pct:+g} %: exposure above 20 % of max_position", lambda: s.faults("shock", symbol="AAPL", pct=pct)
    )
    s.expect_badge(Badge.POS, BadgeState.TRIPPED, 5.0)
    s.expect_kill(Badge.POS, 1.0)
    s.expect_sent(5.0)
    s.expect_flat(FLAT_S)
    back = round((1.0 / (1.0 + pct / 100.0) - 1.0) * 100.0, 3)
    s.say(f"the cause ends: {s.faults('shock', symbol='AAPL', pct=back)}", "cause ends")
    s.cool_and_reset()
    _restart_strategy(s)


def _restart_strategy(s: Stage) -> None:
    """The last step of the runbook's recovery, and the report of the whole of it."""
    done, words = s.hands.restart(["algo", "ml-service"])
    if not done:
        raise Unexpected(f"restart: {words}; {s.seen()}")
    s.say(f"algo and ml-service restarted: {words}", "restart")
    s.expect_state("recovered", "every service READY, trading ACTIVE, nothing held", lambda: _recovered(s), 60.0)
    report = s.watch.incident()
    if report is None or not report.ended_wall_ns or not report.orders or not report.causes:
        raise Unexpected(f"incident: the journal tells {report}")
    s.say(f"l2dash incident {report.id}: {report.title}; {report.left[-1]}", "incident")


def _recovered(s: Stage) -> bool:
    return s.watch.all_ready() and s.watch.trading() == "ACTIVE" and not s.watch.quantities()


def cool(s: Stage) -> None:
    rate, passes = s.g.trades_per_s * 2.0, s.watch.config.limits.orders_per_s
    if rate > passes:
        raise Unexpected(
            f"start: guardrails.trades_per_s = {s.g.trades_per_s:g} is out of reach, the gate passes {passes} orders "
            "a second (limits.orders_per_s): drill COOL on a private instance"
        )
    s.hold(HELD)
    symbols = [i.symbol for i in s.watch.context.instruments if i.tradable]
    seconds = s.g.rate_sustained_s + 1.5
    s.cause(f"{rate:g} orders a second for {seconds:g} s", lambda: s.hands.burst(symbols, rate, seconds))
    s.expect_badge(Badge.COOL, BadgeState.TRIPPED, 3.0)
    s.expect_kill(Badge.COOL, 1.0)
    s.expect_sent(5.0)
    s.expect_flat(FLAT_S)
    s.cool_and_reset()


def lat(s: Stage) -> None:
    late = s.g.rtt_ms + 300.0
    probes_s = s.watch.config.gateway.probe_interval_s * (s.g.rtt_bad_samples + 3)
    _breach(
        s, Badge.LAT, f"every reply of the gateway comes {late:g} ms late",
        lambda: s.faults("delay", ms=late), probes_s + 5.0, undo=lambda: s.faults("clear"), sent_s=10.0,
    )  # fmt: skip
    s.cool_and_reset(badges_s=30.0)


def dd_loss(s: Stage) -> None:
    held = {"AAPL": 30_000.0, "MSFT": 30_000.0, "AMZN": 30_000.0}
    pct = -min(round(s.g.drawdown_usd / sum(held.values()) * 130.0, 2), 90.0)

    def fall() -> None:
        for symbol in held:
            s.faults("shock", symbol=symbol, pct=pct)

    _breach(s, Badge.DD, f"everything that is held falls {pct:g} %", fall, 5.0, held=held)
    s.cool_and_reset(override=OPERATOR, lock=True)


def dd_index(s: Stage) -> None:
    took_ms = _breach(
        s, Badge.DD, "the index falls 6 % within 2 s, the stocks stand",
        lambda: s.faults("gap_index", pct=-6, over_s=2.0), 10.0,
    )  # fmt: skip
    if took_ms > 100.0:
        raise Unexpected(f"flatten sent: {took_ms:.1f} ms after the index tick, limit 100 ms")
    s.cool_and_reset(override=OPERATOR, lock=True, badges_s=s.g.index_window_s)


def kill(s: Stage) -> None:
    s.hold(HELD)
    s.cause("the operator's KILL", lambda: s.hands.kill("drill"))
    s.expect_kill(Badge.KILL, 1.0)
    s.expect_badge(Badge.KILL, BadgeState.TRIPPED, 1.0)
    s.expect_sent(5.0)
    s.expect_flat(FLAT_S)
    done, words = s.hands.order("AAPL", "BUY", 1)
    if done or "KILLED" not in words:
        raise Unexpected(f"entry refused: BUY 1 AAPL {words}")
    s.say(f"BUY 1 AAPL: {words}", "entry refused")

    def restart() -> None:
        done, words = s.hands.restart(["algo", "ml-service"])
        if not done or s.watch.until(lambda: s.watch.trading() != "KILLED", 1.0):
            raise Unexpected(f"restart releases nothing: {words}; {s.seen()}")
        s.say(f"algo and ml-service restarted: {words}", "restart releases nothing")

    s.cool_and_reset(meanwhile=restart)


def conf(s: Stage) -> None:
    bars_s = s.watch.config.model.bar_s
    slow_s = bars_s * 20.0  # so many bars at most until their share is above the limit
    symbols = [i.symbol for i in s.watch.context.instruments if i.tradable]

    def strange(bps: float) -> str:
        return [s.faults("widen", symbol=symbol, bps=bps) for symbol in symbols][-1]

    s.hold(HELD)
    s.cause(
        f"spreads of {len(symbols)} symbols at 15 bps: legal, but nothing that the model has seen",
        lambda: strange(15.0),
    )
    s.expect_badge(Badge.CONF, BadgeState.WARN, slow_s + 15.0, "CONF fails")
    s.expect_badge(Badge.CONF, BadgeState.TRIPPED, s.g.confidence_block_s + 5.0, "CONF TRIPPED")
    s.expect_state("blocked", "entries are BLOCKED, no KILL yet", lambda: s.watch.trading() == "BLOCKED", 2.0)
    s.expect_kill(Badge.CONF, s.g.confidence_kill_s + 5.0)
    s.expect_sent(5.0)
    s.expect_flat(FLAT_S)
    s.say(f"the cause ends: {strange(0.0)}", "cause ends")
    s.cool_and_reset(badges_s=bars_s * 64.0 + 30.0)


def drift(s: Stage) -> None:
    pct = s.g.drift_pct + 1.0
    back = round((1.0 / (1.0 + pct / 100.0) - 1.0) * 100.0, 3)
    _breach(
        s, Badge.DRIFT, f"NVDA jumps {pct:+g} %", lambda: s.faults("shock", symbol="NVDA", pct=pct),
        s.g.drift_s + 5.0, undo=lambda: s.faults("shock", symbol="NVDA", pct=back),
    )  # fmt: skip
    s.cool_and_reset()


def _lost(s: Stage, cause: str, act: Callable[[], object], back: Callable[[], object] | None) -> None:
    s.hold(HELD)
    s.cause(cause, act)
    s.expect_state("blocked", "entries are held back at once", lambda: s.watch.trading() != "ACTIVE", 2.0)
    s.expect_kill(Badge.KILL, s.g.link_down_kill_s + 3.0)
    if back is not None:
        s.say(f"the cause ends: {back()}", "cause ends")
    else:
        s.say("the gateway accepts connections again", "cause ends", s.timeline.cause_ns + int(_away_s(s) * 1e9))
    s.expect_state("link UP", "connected and reconciled", lambda: s.watch.link() == LinkState.UP, _away_s(s) + 25.0)
    s.expect_sent(10.0)
    s.expect_flat(FLAT_S)
    s.cool_and_reset(badges_s=60.0)


def _away_s(s: Stage) -> float:
    return s.g.link_down_kill_s + 2.0


def broker(s: Stage) -> None:
    away = _away_s(s)

    def gone() -> None:
        s.faults("refuse", seconds=away)
        s.faults("disconnect")

    _lost(s, f"the gateway is gone for {away:g} s: connections dropped, new ones refused", gone, None)


def broker_1100(s: Stage) -> None:
    _lost(
        s, "1100: the gateway has lost IBKR, its socket stays", lambda: s.faults("1100"), lambda: s.faults("1102")
    )  # fmt: skip


def flap(s: Stage) -> None:
    away = s.g.link_down_kill_s * 0.4
    s.hold(HELD)

    def gone() -> None:
        s.faults("refuse", seconds=away)
        s.faults("disconnect")

    s.cause(f"the link is gone for {away:g} s, less than {s.g.link_down_kill_s:g} s", gone)
    s.expect_state("blocked", "entries are held back at once", lambda: s.watch.trading() != "ACTIVE", 2.0)
    s.expect_state("link UP", "connected and reconciled", lambda: s.watch.link() == LinkState.UP, away + 25.0)
    s.expect_state("ACTIVE", "every badge OK, no KILL, positions kept", lambda: _untouched(s), 30.0)
    s.expect_quiet(
        "no KILL", "nothing tripped", lambda: "KILL latched" if s.watch.trading() == "KILLED" else "",
        s.g.link_down_kill_s,
    )  # fmt: skip


SCENARIOS: dict[str, Scenario] = {
    "SPREAD": Scenario("a wide spread blocks its symbol alone and clears itself", spread),
    "COOL": Scenario("too many trades in every second for 3 s", cool),
    "LAT": Scenario("API round trips above 500 ms in 3 of 5 samples", lat),
    "DRIFT": Scenario("a price 3 % from its fair value", drift),
    "KILL": Scenario("an operator's KILL; restarts release nothing", kill),
    "FLAP": Scenario("a link that flaps below the limit trips nothing", flap),
    "BROKER": Scenario("the gateway gone for longer than link_down_kill_s: KILL, flatten on reconnect", broker),
    "BROKER-1100": Scenario("IBKR behind the gateway gone for longer than link_down_kill_s", broker_1100),
    "CONF": Scenario("a market that the model does not know, in 5 or more symbols", conf),
    "POS": Scenario("exposure above 20 % of max_position through a jump of the price", pos,
                    {"limits": {"max_position_usd": 200_000.0, "order_notional_usd": 36_000.0},
                     "strategy": {"symbol_usd": 30_000.0, "gross_usd": 100_000.0},
                     "guardrails": {"drift_pct": 50.0}}),
    "DD-LOSS": Scenario("a loss beyond the day's limit", dd_loss,
                        {"guardrails": {"drawdown_usd": 1_000.0}, "strategy": {"daily_stop_usd": 500.0}}, lasting=True),
    "DD-INDEX": Scenario("the index moves more than 5 % within the window: on the wire within 100 ms", dd_index,
                         {"guardrails": {"index_window_s": 20.0}}, lasting=True),
}  # fmt: skip
"""Those that need the same settings stand together: they share an instance."""
GROUPS = {"DD": ("DD-LOSS", "DD-INDEX")}
