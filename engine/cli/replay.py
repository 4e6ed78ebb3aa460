"""``l2dash replay``: a recorded day through the same agents."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli import show
from engine.cli.errors import CliError, Refused
from engine.cli.settings import json_option, target_options, target_or_starting

if TYPE_CHECKING:
    from engine.config import Config
    from engine.replay.session import Replayed


@click.command()
@target_options
@json_option
@click.option("--cockpit", is_flag=True, help="show it on the cockpit's pages, with a REPLAY mark and no orders")
@click.option("--speed", default=1.0, show_default=True, type=click.FloatRange(0.1, 100.0), help="times its own pace")
@click.option("--skip", "skip_min", default=0.0, type=click.FloatRange(min=0.0), help="minutes that go by unpaced")
@click.option("--port", type=click.IntRange(0, 65535), help="of the pages; 0 takes a free one [default: cockpit.port]")
@click.argument("session", required=False)
def replay(
    config_file: Path | None,
    instance: str | None,
    as_json: bool,
    cockpit: bool,
    speed: float,
    skip_min: float,
    port: int | None,
    session: str | None,
) -> int:
    """Run the recorded ticks of SESSION (YYYY-MM-DD or `today`) through ml-service and strategy, and compare.

    Without SESSION, list what is recorded. Exit 3 if the day has no ticks, 1 if a bar came out differently.
    """
    from engine.store.read import recorded_days

    config = target_or_starting(config_file, instance)
    if session is None:
        days = [f"{d // 10000:04d}-{d // 100 % 100:02d}-{d % 100:02d}" for d in recorded_days(config.state_dir)]
        if as_json:
            show.as_json(days)
        else:
            show.table(
                [{"day": d} for d in days], {"day": "recorded"}, empty=f"nothing is recorded in {config.state_dir}"
            )
        return 0
    from engine.domain.sessions import session_date
    from engine.model.bundle import ModelMissing
    from engine.replay.session import NoTicks
    from engine.replay.session import replay as run
    from engine.store.files import day_number

    try:
        if session == "today":
            now_ns = int(datetime.now(UTC).timestamp() * 1e9)
            day = session_date(now_ns, config.instance.mode == "sim")
        else:
            day = day_number(session)
    except ValueError as error:
        raise click.BadParameter(f"{session!r}: {error}, or today", param_hint="SESSION") from error
    if cockpit:
        return _on_pages(config, day, speed, skip_min * 60.0, port)
    try:
        found = run(config, day)
    except (NoTicks, ModelMissing) as error:
        raise Refused(str(error)) from error
    if as_json:
        show.as_json(asdict(found) | {"reproduced": found.reproduced})
    else:
        _print(found)
    return 1 if found.comparison.bars_differ and not found.lost_ticks and not found.missing_models else 0


def _on_pages(config: Config, day: int, speed: float, skip_s: float, port: int | None) -> int:
    import threading

    from msgspec import structs

    from engine.cockpit.server import PortTaken
    from engine.model.bundle import ModelMissing
    from engine.replay.pages import show as run
    from engine.replay.session import NoTicks
    from engine.runtime.stopping import StopRequest

    stopped = threading.Event()
    StopRequest(stopped.set).install()
    pages = structs.replace(config.cockpit, port=config.cockpit.port if port is None else port, health_port=0)
    try:
        run(structs.replace(config, cockpit=pages), day, speed=speed, skip_s=skip_s, say=click.echo, stopped=stopped)
    except (NoTicks, ModelMissing) as error:
        raise Refused(str(error)) from error
    except PortTaken as error:
        raise CliError(str(error)) from error
    return 0


def _print(found: Replayed) -> None:
    s, c = found.summary, found.comparison
    first, last = (
        datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="seconds") for ns in (s.first_wall_ns, s.last_wall_ns)
    )
    rows: list[dict[str, Any]] = [
        {"what": "ticks", "recorded": s.ticks, "replayed": s.ticks},
        {"what": "signals", "recorded": f"{found.signals_recorded:,} kept", "replayed": found.signals_replayed},
        {"what": "signals that close a bar", "recorded": c.bars_recorded, "replayed": c.bars_replayed},
        {"what": "- of those, the same", "recorded": "", "replayed": c.bars_same},
        {"what": "- different", "recorded": "", "replayed": c.bars_differ},
        {"what": "strategy's orders", "recorded": c.intents_recorded, "replayed": c.intents_replayed},
        {"what": "- of those, the same", "recorded": "", "replayed": c.intents_same},
        {"what": "orders, of all sources", "recorded": s.orders, "replayed": ""},
        {"what": "fills", "recorded": s.fills, "replayed": ""},
        {"what": "P&L after commissions, USD", "recorded": s.pnl_usd, "replayed": ""},
    ]
    show.table(rows, {"what": f"{first} to {last}", "recorded": "recorded", "replayed": "replayed"})
    symbols = [
        {"symbol": name, "ticks": x.ticks, "resets": x.resets, "faults": x.faults, "mid": x.mid, "pnl_usd": x.pnl_usd}
        | asdict(x.position)
        for name, x in s.symbols.items()
    ]
    columns = {"symbol": "symbol", "ticks": "ticks", "resets": "resets", "faults": "faults", "mid": "last mid"}
    show.table(symbols, columns | {"fills": "fills", "qty": "position", "pnl_usd": "P&L USD"})
    for line in statements(found):
        click.echo(f"- {line}")


def statements(found: Replayed) -> list[str]:
    """What was lost, what differs, and what a replay can't show."""
    s, c = found.summary, found.comparison
    said = []
    if s.gaps:
        said.append(f"{len(s.gaps)} gaps in the record, {found.lost_ticks:,} ticks lost: books are invalid after each")
    if found.lives > 1:
        said.append(f"{found.lives} instances made this record; each was replayed from its own beginning")
    if found.missing_models:
        said.append(f"models that served are gone: {', '.join(map(str, found.missing_models))}; another one stood in")
    if found.reproduced and c.bars_recorded:
        said.append("every recorded bar came out as it was recorded")
    elif c.differ_first:
        said.append(f"first difference: {c.differ_first}")
    said.append(
        "stops, gate and watchdog are not replayed: an order that was only asked for here counts as cancelled at once, "
        "and executions are those of the day"
    )
    return said
