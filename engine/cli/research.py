"""``l2dash replay`` and ``l2dash bench``."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click

from engine.cli import show
from engine.cli.errors import Refused
from engine.cli.settings import json_option, target_options, target_or_starting

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@click.command()
@target_options
@json_option
@click.argument("session", required=False)
def replay(config_file: Path | None, instance: str | None, as_json: bool, session: str | None) -> None:
    """Rebuild books, positions and P&L of a recorded SESSION (YYYY-MM-DD); without one, list what is recorded."""
    from engine.runtime.universe import instruments
    from engine.store.read import recorded_days
    from engine.store.replay import summarise

    config = target_or_starting(config_file, instance)
    if session is None:
        days = [f"{d // 10000:04d}-{d // 100 % 100:02d}-{d % 100:02d}" for d in recorded_days(config.state_dir)]
        if as_json:
            show.as_json(days)
        else:
            show.table(
                [{"day": d} for d in days], {"day": "recorded"}, empty=f"nothing is recorded in {config.state_dir}"
            )
        return
    try:
        found = summarise(config.state_dir, session, instruments(config))
    except ValueError as error:
        raise click.BadParameter(f"{session!r}: {error}", param_hint="SESSION") from error
    rows = [
        {"symbol": name, "ticks": s.ticks, "resets": s.resets, "faults": s.faults, "mid": s.mid, "pnl_usd": s.pnl_usd}
        | asdict(s.position)
        for name, s in found.symbols.items()
    ]
    if as_json:
        show.as_json(asdict(found))
        return
    first, last = (
        datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="seconds")
        for ns in (found.first_wall_ns, found.last_wall_ns)
    )
    click.echo(
        f"{first} to {last}: {found.ticks:,} ticks, {found.bars:,} bars, {found.orders} orders, {found.fills} fills"
    )
    click.echo(
        f"P&L at the last mids, after commissions: {show.cell(found.pnl_usd)} USD; {len(found.gaps)} gaps in the record"
    )
    columns = {"symbol": "symbol", "ticks": "ticks", "resets": "resets", "faults": "faults", "mid": "last mid"}
    show.table(rows, columns | {"fills": "fills", "qty": "position", "pnl_usd": "P&L USD"})


@click.command()
@click.option("--smoke", is_flag=True, help="a short run, to see that it works")
@click.argument("name", required=False)
def bench(smoke: bool, name: str | None) -> int:
    """Run a benchmark, or all of them; each prints its machine, its baseline and its figures."""
    known = sorted(p.stem.removeprefix("bench_") for p in BENCHMARKS.glob("bench_*.py"))
    if not known:
        raise Refused(f"no benchmarks in {BENCHMARKS}: they come with the sources")
    if name is not None and name not in known:
        raise click.BadParameter(f"{name!r}: there are {', '.join(known)}", param_hint="NAME")
    code = 0
    for one in [name] if name else known:
        click.echo(f"== {one}")
        command = [sys.executable, str(BENCHMARKS / f"bench_{one}.py"), *(["--smoke"] if smoke else [])]
        code = max(code, abs(subprocess.run(command, check=False).returncode))
    return min(code, 1)
