"""``l2dash init``, ``l2dash config check|show``, ``l2dash topology``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from engine.cli import show
from engine.cli.errors import Refused, say
from engine.cli.settings import config_option, json_option, starting


@click.command()
@config_option
@click.option("--mode", type=click.Choice(["sim", "paper", "live"]), help="overrides the file's")
def init(config_file: Path | None, mode: str | None) -> None:
    """Arm a new state directory. Without it, paper and live start KILLED. Refused where there is a history."""
    from engine.risk.latch import init as arm

    config = starting(config_file, mode=mode)
    config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = arm(config.state_dir)
    say(f"armed: {path} (mode {config.instance.mode}, account {config.gateway.account})")


@click.group("config")
def config() -> None:
    """Check or show a configuration."""


@config.command("check")
@config_option
@click.option("--runs", "service", metavar="SERVICE", help="exit 3 if the mode does not run this service")
@click.argument("file", required=False, type=click.Path(path_type=Path))
def check(config_file: Path | None, service: str | None, file: Path | None) -> None:
    """Verify a file without starting anything: exit 2 naming line, key, value and what is allowed."""
    from engine.runtime.universe import instruments

    found = starting(file or config_file)
    names = [i.symbol for i in instruments(found)]
    if service is not None:
        from engine import topology

        if service not in [s.name for s in topology.services(found.instance.mode)]:
            raise Refused(f"mode {found.instance.mode} does not run {service}")
    say(f"ok: mode {found.instance.mode}, account {found.gateway.account}, {', '.join(names)}")


@config.command("show")
@config_option
@click.argument("file", required=False, type=click.Path(path_type=Path))
def show_config(config_file: Path | None, file: Path | None) -> None:
    """Print the whole configuration as TOML, defaults included."""
    from engine.config import dump

    click.echo(dump(starting(file or config_file)), nl=False)


@click.command()
@json_option
@click.option("--mermaid", is_flag=True, help="the diagram of docs/TOPOLOGY.md")
def topology(as_json: bool, mermaid: bool) -> None:
    """Services, rings and cells: who writes, who reads, who is waited for."""
    from engine import topology as t

    if mermaid:
        click.echo(t.mermaid(), nl=False)
        return
    from engine.runtime.placement import allowed_cores

    cores = len(allowed_cores())
    services, rings, cells = ([asdict(x) for x in kind] for kind in (t.SERVICES, t.RINGS, t.CELLS))
    if as_json:
        auto, hosted = t.placement(cores, "auto"), t.HOSTED
        show.as_json({"services": services, "rings": rings, "cells": cells, "auto_placement": auto, "hosted": hosted})
        return
    show.table(services, {"name": "service", "does": "does", "hot": "hot", "after": "starts after", "modes": "modes"})
    click.echo(
        f"placement here ({cores} cores, auto): {t.placement(cores, 'auto')}; shared means "
        f"{', '.join(t.HOSTED)} in one process on one thread"
    )
    click.echo()
    show.table(
        rings,
        {
            "name": "ring",
            "record": "record",
            "capacity": "slots",
            "writer": "writer",
            "gate": "gates",
            "lossy": "lossy readers",
        },
    )
    click.echo()
    show.table(cells, {"name": "cell", "record": "record", "count": "count", "writer": "writer", "readers": "readers"})
