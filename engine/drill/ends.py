"""How a breakdown ends: guarded with everything kept, or flat, each compared with the gateway's own word."""

from __future__ import annotations

from engine.domain.codes import Owner
from engine.drill import truth
from engine.drill.scenarios import HELD
from engine.drill.stage import Stage
from engine.drill.timeline import Unexpected

CANCELS_S = 1.0
"""A dead bridge with exposure: its working orders are cancelled within this."""
BACK_S = 45.0
FLAT_S = 40.0


def gateway(s: Stage) -> truth.Truth:
    return truth.ask(s.watch.config.paper.control_port)


def owner(s: Stage) -> Owner:
    return Owner(int(s.watch.view.value("lease")["owner"]))


def keep(s: Stage) -> dict[str, float]:
    """Positions with a resting entry besides, so that there is something to cancel."""
    s.hold(HELD)
    mid = s.watch.mid("JPM")
    done, words = s.hands.order("JPM", "BUY", 10, limit=round(mid * 0.97, 2))
    if not done:
        raise Unexpected(f"positions: resting order: {words}")
    s.expect_state("resting order", "the gateway has it", lambda: len(gateway(s).working) == 1, 5.0)
    return gateway(s).positions


def back(s: Stage, kept: dict[str, float], step: str = "guarded") -> None:
    """All services READY, owner BRIDGE, ACTIVE, and the positions are what they were: in the cells, at the gateway and
    by the sum of the journal's fills."""
    s.expect_state("READY", "every service is READY again", lambda: s.watch.all_ready(), BACK_S)
    s.expect_state("owner", "the bridge has the right to send", lambda: owner(s) == Owner.BRIDGE, BACK_S)
    s.expect_state("ACTIVE", "no KILL, every badge OK", lambda: s.watch.trading() == "ACTIVE", 60.0)
    if gateway(s).positions != kept or s.watch.quantities() != kept:
        raise Unexpected(f"{step}: kept {kept}, the gateway says {gateway(s)}, the cells {s.watch.quantities()}")
    s.expect_state(
        "orders", "those that work are the gateway's", lambda: len(gateway(s).working) == s.watch.working(), 10.0
    )
    s.expect_state(step, f"kept: {gateway(s)}", lambda: s.watch.blotter(s.journal_from).open_qty == kept, 10.0)


def flat(s: Stage) -> None:
    s.expect_state("confirmed flat", "by the watchdog", lambda: s.watch.flat_since() > 0, FLAT_S)
    found = gateway(s)
    if not found.flat:
        raise Unexpected(f"confirmed flat: but the gateway says {found}")
    s.say(f"the gateway agrees: {found}", "gateway")


def reported(s: Stage, held: dict[str, float]) -> None:
    """The incident's report has the whole flatten, whoever sent it: its orders and executions close what was held."""

    def whole() -> bool:
        found = s.watch.incident()
        if found is None:
            return False
        orders = {o["symbol"]: o["filled"] * (1 if o["side"] == "BUY" else -1) for o in found.orders if o["filled"]}
        closed: dict[str, float] = {}
        for e in found.executions:
            closed[e["symbol"]] = closed.get(e["symbol"], 0.0) + e["qty"] * (1 if e["side"] == "BUY" else -1)
        return orders == closed == {symbol: -qty for symbol, qty in held.items()} and bool(found.flat_wall_ns)

    s.expect_state("report", "every order and execution of it, and no other, is in the incident's report", whole, 10.0)


def cancelled(s: Stage) -> None:
    """From the death to the last cancel at the gateway."""
    s.expect_state("cancelled", "no working order at the gateway", lambda: not gateway(s).working, CANCELS_S)
