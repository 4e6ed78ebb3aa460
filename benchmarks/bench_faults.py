"""Every fault of the paper gateway against the bridge: nothing lost, nothing doubled, time to safe, time to recovered.

usage: python benchmarks/bench_faults.py [--smoke] [--only NAME] [--write]

--write puts the table into docs/FAULTS.md. All times are simulated: gateway and bridge are the real ones, on a clock
that is driven, so that the table does not depend on the machine.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from fault_world import FAULTS, SECOND, Broken, World, simulate

from engine.domain.codes import EventKind, LinkState, OrderState

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "FAULTS.md"
LASTS_S = 5.0
"""A fault without an end of its own is ended after this."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row: a fault, its arguments, and what ends it ("" nothing, it ends by itself or has no duration)."""

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)
    end: str = ""
    end_args: Mapping[str, Any] = field(default_factory=dict)


_SPECIAL: dict[str, tuple[Case, ...]] = {
    "1100": (Case("1100", {}, "1101"), Case("1100", {}, "1102"), Case("1100", {}, "1102", {"dead": True})),
    "2110": (Case("2110", {}, "1101"), Case("2110", {}, "1102"), Case("2110", {}, "2104")),
    "1101": (Case("1101"),),
    "1102": (Case("1102"), Case("1102", {"dead": True})),
    "2103": (Case("2103", {}, "2104"), Case("2103", {}, "2104", {"dead": True})),
    "link_flap": tuple(Case("link_flap", {"seconds": 3, "then": then}) for then in ("1101", "1102", "1102-dead")),
    "farm_flap": (Case("farm_flap", {"seconds": 3}), Case("farm_flap", {"seconds": 3, "dead": True})),
    "mute": (Case("mute", {"seconds": LASTS_S}),),
    "unmute": (),
    "unstall": (),
    "resume": (),
    "clear": (),
    "delay": (Case("delay", {"ms": 400, "seconds": LASTS_S}), Case("delay", {"ms": 1800, "seconds": LASTS_S})),
    "half_open": (Case("half_open"), Case("half_open", {"seconds": 1})),
    "error": tuple(
        Case("error", {"code": code, "req_id": "order"})
        for code in (103, 104, 105, 110, 161, 201, 202, 321, 399, 404, 10147, 10148, 10349)
    ),
    "drop_link_on_order": (Case("drop_link_on_order"), Case("drop_link_on_order", {"lost": True})),
    "competing_session": (
        Case("competing_session", {"seconds": LASTS_S}),
        Case("competing_session", {"data_stays": True}),
    ),
    "stall": (Case("stall", {"symbol": "MSFT"}, "unstall"), Case("stall", {"seconds": 40})),
    "halt": (Case("halt", {"symbol": "MSFT"}, "resume"),),
    "freeze": (Case("freeze", {"symbol": "MSFT"}, "resume"),),
    "widen": (Case("widen", {"symbol": "MSFT", "bps": 100}, "widen", {"symbol": "MSFT", "bps": 0}),),
    "shock": (Case("shock", {"symbol": "MSFT", "pct": -6}),),
    "gap_index": (),  # no index here: nothing that the bridge would do about it
    "daily_restart": (Case("daily_restart", {"seconds": 8}),),
    "id_rollback": (Case("id_rollback", {"by": 1000}),),
    "drop_status": (Case("drop_status", {"count": 10}),),
    "late_status": (Case("late_status", {"count": 10, "ms": 400}),),
    "duplicate_status": (Case("duplicate_status", {"count": 10}),),
    "manual_order": (Case("manual_order", {"symbol": "MSFT"}),),
    "zero_perm_id": (Case("zero_perm_id", {"count": 10}),),
}  # fmt: skip
QUICK = ("disconnect", "half_open", "link_flap", "error", "lose_order", "fill_during_disconnect", "fill_on_cancel",
         "drop_status", "reject_next", "duplicate_execution", "late_status")  # fmt: skip


def cases(names: tuple[str, ...] = ()) -> list[Case]:
    """The rows of the table: a fault without an entry of its own is tried with its defaults."""
    found: list[Case] = []
    for name in names or tuple(FAULTS):
        found += _SPECIAL.get(name, (Case(name),))
    return found


def quick() -> list[Case]:
    """One row of each of the faults that hurt most."""
    return [cases((name,))[-1] for name in QUICK if name != "link_flap"]


@dataclass(slots=True)
class Row:
    case: Case
    lost: list[str]
    doubled: list[str]
    safe_s: float
    """The last moment at which something was unsafe, after the fault; 0: never unsafe."""
    unsafe: str
    recovered_s: float
    """Since the fault, NaN never."""
    lasted_s: float
    behaviour: str

    @property
    def good(self) -> bool:
        return not self.lost and not self.doubled and math.isfinite(self.recovered_s)


def dead_data(w: World, symbol: int) -> bool:
    return w.gateway.feed.silent or symbol in w.gateway.feed.stalled


def unsafe(w: World) -> str:
    """What could do harm now; empty if nothing."""
    if w.understated():
        return "exposure understated"
    if w.blocked:
        return ""
    if not w.served:
        return "entries pass to a dead link"
    facts, stopped = w.bridge.gate.facts, w.bridge.cells.stop["symbol_block"]
    if any(dead_data(w, s) and facts["fresh"][s] and not int(stopped) >> s & 1 for s in range(w.stocks)):
        return "entries pass on dead data"
    return ""


def flowing(w: World) -> bool:
    since = w.clock.now - 3 * SECOND
    fresh = all(w.ticked.get(s, 0) > since and w.bridge.gate.facts["fresh"][s] for s in range(w.stocks))
    return fresh and not w.bridge.cells.stop["symbol_block"]


_TOLD = (OrderState.UNKNOWN, OrderState.REJECTED)
_SAID = (EventKind.CONNECTIVITY, EventKind.ALERT, EventKind.RECONCILE)


def behaviour(w: World, since_ns: int) -> str:
    """What the bridge told people, shortened, each thing once."""
    said: list[str] = []
    for e in w.seen:
        if int(e["t_ns"]) < since_ns:
            continue
        text = e["text"].decode(errors="replace").replace("|", "/")
        kind = int(e["kind"])
        state = int(e["code"])
        if kind == EventKind.ORDER_STATE and (state in _TOLD or text[:3].isdigit()):
            text = f"an order is {OrderState(state).name}" + (f" ({text})" if text[:3].isdigit() else "")
        elif kind not in _SAID or "reconciled" in text or text.startswith("connected to"):
            continue
        text = text.partition("; next attempt")[0].replace(f"127.0.0.1:{w.port}", "gateway").strip()
        text = text if len(text) <= 110 else text[:108] + "…"
        if text not in said:
            said.append(text)
    return "; ".join(said[:3]) or "nothing to tell: books right throughout"


async def play(w: World, case: Case) -> Row:
    """A position, working orders; the fault, and orders, a cancel and a change in the middle of it."""
    await w.until(lambda: w.quiet and flowing(w), 60.0, "a quiet start")
    w.order(0, 100)
    kept, going, changing = w.order(1, 10, -0.03), w.order(1, 12, -0.035), w.order(2, 14, -0.03)
    register = w.bridge.register.by_intent
    await w.until(lambda: w.position(0) == 100 and w.quiet and len(register) == 4, 10.0, "a position and orders")
    await w.run(0.5)
    trouble: dict[str, int] = {}
    begin_ns = w.clock.now

    def look(world: World) -> None:
        what = unsafe(world)
        if what:
            trouble[what] = world.clock.now - begin_ns

    args = dict(case.args)
    if args.get("req_id") == "order":
        args["req_id"] = register[kept].order_id
    w.watch = look
    w.fault(case.name, **args)
    await w.run(0.02)
    new = [w.order(0, 20), w.order(2, 16, -0.02)]
    await w.run(0.02)
    w.cancel(going)
    await w.run(0.02)
    w.replace(changing, 2, 18, -0.025)
    await w.run(0.5)
    lasted_s = 0.0
    if case.end:
        await w.run(LASTS_S - 0.56)
        w.fault(case.end, **dict(case.end_args))
        lasted_s = LASTS_S
    for name in ("seconds",):
        lasted_s = max(lasted_s, float(case.args.get(name, 0.0)))
    if case.name in FAULTS and not lasted_s and case.name in ("mute", "stall"):
        lasted_s = LASTS_S
    left_s = lasted_s - (w.clock.now - begin_ns) / 1e9
    if left_s > 0:
        await w.run(left_s + 0.01)
    recovered_s = math.nan
    if case.name in ("1100", "2103", "farm_flap", "link_flap") and "dead" in words(case):
        # Nothing but the farm itself can help here; it does after a while.
        await w.run(30.0)
        w.fault("clear")
        lasted_s = (w.clock.now - begin_ns) / 1e9
    try:
        await w.until(lambda: w.quiet and flowing(w) and not w.differences(), 200.0, "recovery")
        recovered_s = (w.clock.now - begin_ns) / 1e9
    except Broken:
        pass
    said = behaviour(w, begin_ns)
    w.watch = None
    # Every intent must have come to an end that the broker confirms, or to a refusal with its reason.
    await w.run(3.0)
    lost = list(w.differences())
    lost += [
        f"no verdict on {i:x}" for i in (kept, going, changing, *new) if not w.verdicts.get(i) and i not in w.refused
    ]
    worst = max(trouble, key=lambda k: trouble[k], default="")
    return Row(case, lost, w.doubled(), trouble.get(worst, 0) / 1e9, worst, recovered_s, lasted_s, said)


def run_case(case: Case) -> Row:
    async def story(w: World) -> Row:
        return await play(w, case)

    row: Row = simulate(story, seed=7, stocks=3, messages_per_s=40.0)
    return row


def words(case: Case) -> str:
    args = ", ".join(f"{k} {v}" for k, v in case.args.items())
    end = f", then {case.end}" + "".join(f" {k}" for k, v in case.end_args.items() if k == "dead") if case.end else ""
    return f"`{case.name}`" + (f" {args}" if args else "") + end


def seconds(value: float) -> str:
    return "never" if math.isnan(value) else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def table(rows: list[Row]) -> str:
    lines = [
        "| fault | lasted, s | lost | doubled | safe after, s | recovered after, s | what the bridge told |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for r in rows:
        safe = seconds(r.safe_s) + (f" ({r.unsafe})" if r.unsafe else "")
        lasted = f"{r.lasted_s:g}" if r.lasted_s else "-"
        lines.append(
            f"| {words(r.case)} | {lasted} | {len(r.lost)} | {len(r.doubled)} | {safe} | {seconds(r.recovered_s)} "
            f"| {r.behaviour} |"
        )
    return "\n".join(lines)


HEAD = """\
# Faults of the paper gateway against the bridge

Generated by `l2dash bench faults --write` (`benchmarks/bench_faults.py`); do not edit. `./ops/test.sh --all` makes the
same table of its own run in `.cache/FAULTS.md`. The real gateway and the real
bridge over a socket, on a clock that is driven: times are simulated seconds and do not depend on the machine.

In every row the bridge holds a position and three working orders; 20 to 60 ms
after the fault come two new orders, a cancel and a change. *Lost*: orders, fills or positions in which our books and
the broker's differ at the end, and intents without a verdict. *Doubled*: orders that the broker has twice, executions
counted twice. *Safe after*: the last moment at which an entry could have passed to a dead link or on dead data, or
exposure was understated; 0.00 means at no moment. *Recovered after*: connected, reconciled, nothing in question,
nothing blocked, fresh data in every symbol; it counts from the fault, so it holds how long the fault lasted.

"""


def document(rows: list[Row]) -> str:
    good = sum(r.good for r in rows)
    return HEAD + table(rows) + f"\n\n{len(rows)} rows, {good} without loss, doubling or lasting harm.\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--smoke", action="store_true", help="a few rows")
    parser.add_argument("--only", default="", help="rows of one fault")
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.name}")
    arguments = parser.parse_args()
    chosen = cases((arguments.only,) if arguments.only else ())[: 3 if arguments.smoke else None]
    rows = []
    for case in chosen:
        begin = time.monotonic()
        row = run_case(case)
        rows.append(row)
        print(
            f"{'ok ' if row.good else 'BAD'} {words(case):60s} safe {seconds(row.safe_s):>6s} "
            f"recovered {seconds(row.recovered_s):>6s} s  ({time.monotonic() - begin:.1f} s) {row.unsafe}",
            flush=True,
        )
        for problem in (*row.lost, *row.doubled):
            print(f"      {problem}")
    if arguments.write:
        DOCUMENT.write_text(document(rows))
        print(f"{DOCUMENT} written")
    print(f"{len(rows)} rows, {sum(r.good for r in rows)} good")
    return 0 if all(r.good for r in rows) else 1


__all__ = ["LinkState", "Row", "cases", "run_case", "table"]

if __name__ == "__main__":
    sys.exit(main())
