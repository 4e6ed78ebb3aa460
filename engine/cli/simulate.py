"""``l2dash simulate``: seeded search for faults in all agents at once, on a simulated clock."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.cli.settings import json_option

if TYPE_CHECKING:
    from engine.sim.run import Ask, Outcome


@click.command(
    epilog="FAULTS: groups (link orders market host process operator all harmless none) and single kinds (1100, crash, "
    "...), comma-separated; a leading '-' takes away. Example: l2dash simulate --seeds 20 --hours 24 --faults harmless"
)
@click.option("--seeds", default=10, show_default=True, type=click.IntRange(1), help="how many seeds")
@click.option("--seed", "first", default=1, show_default=True, type=click.IntRange(0), help="the first of them")
@click.option("--hours", default=1.0, show_default=True, type=click.FloatRange(0.01, 10_000), help="simulated, each")
@click.option("--faults", default="all", show_default=True, help="what may happen")
@click.option(
    "--per-hour", default=60.0, show_default=True, type=click.FloatRange(0, 7200), help="faults and actions an hour"
)
@click.option(
    "--messages-per-s",
    default=3.0,
    show_default=True,
    type=click.FloatRange(0.1, 1000),
    help="depth rows of the market",
)
@click.option(
    "--every-s", default=4.0, show_default=True, type=click.FloatRange(0.5, 3600), help="pause of a flat symbol (churn)"
)
@click.option("--cooling-s", default=20.0, show_default=True, type=click.FloatRange(0, 3600), help="after a KILL")
@click.option("--strategy", default="churn", show_default=True, type=click.Choice(["churn", "regime"]))
@click.option("--shrink", is_flag=True, help="leave out of a failing plan what it does not need")
@click.option("--trace", type=click.Path(dir_okay=False), help="write what happened in the last seed to this file")
@click.option(
    "--pace", default="close", show_default=True, type=click.Choice(["close", "wide"]),
    help="wide: look ever less often while nothing happens, 10 to 30 times as fast",
)  # fmt: skip
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(1, 64), help="seeds at a time")
@click.option(
    "--results", type=click.Path(dir_okay=False, path_type=Path),
    help="a line for each finished seed; seeds that this code has finished there are not run again",
)  # fmt: skip
@click.option("--budget-s", default=0.0, type=click.FloatRange(0), help="begin no further seed after so many seconds")
@json_option
def simulate(
    seeds: int, first: int, hours: float, faults: str, per_hour: float, messages_per_s: float, cooling_s: float,
    every_s: float, strategy: str, shrink: bool, trace: str | None, pace: str, jobs: int, results: Path | None,
    budget_s: float, as_json: bool,
) -> int:  # fmt: skip
    """Run all agents, a faulty broker and an operator in one thread on a simulated clock, and check the invariants.

    One seed decides everything: market, latency, faults, crashes, operator. A failing seed is printed with the command
    that repeats it. Exit 1 if an invariant was broken.
    """
    from engine.sim.campaign import BadResults, campaign, summary
    from engine.sim.plan import UnknownFaults, kinds_of
    from engine.sim.run import Ask

    try:
        if faults != "harmless":
            kinds_of(faults)
    except UnknownFaults as error:
        raise click.UsageError(str(error)) from error
    logging.disable(logging.WARNING)  # services that are killed by the hundred have much to say
    asks = [
        Ask(
            seed, hours, faults, per_hour, messages_per_s, cooling_s, trace=trace is not None, strategy=strategy,
            every_s=every_s, pace=pace,
        )
        for seed in range(first, first + seeds)
    ]  # fmt: skip

    def finished(ask: Ask, outcome: Outcome) -> None:
        if trace is not None:
            with open(trace, "w") as file:
                file.write("\n".join(outcome.trace) + "\n")
        if not as_json:
            _print(ask, outcome)
        if outcome.broken and shrink:
            _shrink(ask, outcome)

    try:
        rows = campaign(asks, jobs, results, budget_s, finished)
    except (BadResults, OSError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        for name, value in summary(rows).items():
            click.echo(f"{name:32} {value}")
        if len(rows) < len(asks):
            click.echo(f"{len(asks) - len(rows)} seeds are left: the same command goes on with them")
    return 1 if any(row["broken"] for row in rows) else 0


def _print(ask: Ask, o: Outcome) -> None:
    c = o.counts
    click.echo(
        f"seed {o.seed}: {o.simulated_s / 3600:.2f} h, {c.events:,} events, {c.deeds} deeds, {c.crashes} kills -9, "
        f"{c.orders} orders, {c.fills} fills, {c.kills} KILL, {o.speed:,.0f} x, digest {o.digest[:16]}"
    )
    if o.broken:
        for broken in o.broken:
            click.echo(click.style(f"  BROKEN {broken}", fg="red"))
        click.echo(
            f"  again: l2dash simulate --seeds 1 --seed {o.seed} --hours {ask.hours:g} --faults {ask.faults} "
            f"--per-hour {ask.per_hour:g} --messages-per-s {ask.messages_per_s:g} --cooling-s {ask.cooling_s:g} "
            f"--every-s {ask.every_s:g} --strategy {ask.strategy} --pace {ask.pace} --shrink --trace FILE"
        )


def _shrink(ask: Ask, outcome: Outcome) -> None:
    from engine.sim.plan import Deed
    from engine.sim.run import simulate as run
    from engine.sim.shrink import shrink

    wanted = {b.number for b in outcome.broken}
    last_ns = min(b.t_ns for b in outcome.broken)

    def fails(deeds: tuple[Deed, ...]) -> bool:
        return bool(wanted & {b.number for b in run(replace(ask, deeds=deeds, trace=False)).broken})

    before = tuple(d for d in outcome.deeds if d.at_ns <= last_ns)
    left = shrink(before if fails(before) else outcome.deeds, fails)
    click.echo(f"  {len(left)} of {len(outcome.deeds)} deeds are enough:")
    for deed in left:
        click.echo(f"    {deed!r}")
