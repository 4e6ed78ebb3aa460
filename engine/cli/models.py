"""``l2dash retrain`` and ``l2dash models``: a running ml-service takes a promoted model over at its next bar."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.cli import show
from engine.cli.errors import say
from engine.cli.settings import json_option, target_options, target_or_starting

if TYPE_CHECKING:
    from engine.config import Config
    from engine.model.bundle import Registry


def _registry(config_file: Path | None, instance: str | None) -> Registry:
    from engine.model.bundle import Registry

    registry = Registry(target_or_starting(config_file, instance).state_dir / "models")
    registry.import_copies()
    return registry


@click.command()
@target_options
@click.option("--synthetic", is_flag=True, help="train on a generated market instead of recorded days")
@click.option(
    "--days", default=5, show_default=True, type=click.IntRange(min=1), help="recorded days to use, the latest"
)
@click.option("--json", "as_json", is_flag=True, help="print the outcome as JSON; progress goes to stderr")
def retrain(config_file: Path | None, instance: str | None, synthetic: bool, days: int, as_json: bool) -> int:
    """Train a candidate and promote it if it passes the gate. Exit 3 if the incumbent is kept."""
    config = target_or_starting(config_file, instance)
    return _train(config, ["--days", str(days)] + ["--synthetic"] * synthetic + ["--json"] * as_json)


def _train(config: Config, arguments: list[str]) -> int:
    import tempfile

    from engine.config import dump
    from engine.model.train import main

    # The trainer is a program of its own that reads a file: it gets exactly the configuration that is meant.
    with tempfile.NamedTemporaryFile("w", suffix=".toml", prefix="l2dash-retrain-") as file:
        file.write(dump(config))
        file.flush()
        return main(["--retrain", "--config", file.name, *arguments])


@click.group()
def models() -> None:
    """List, promote and roll back models."""


@models.command("list")
@target_options
@json_option
def list_models(config_file: Path | None, instance: str | None, as_json: bool) -> None:
    """Every version, newest first."""
    rows = [
        {
            "version": e.version,
            "serves": "current" if e.current else "previous" if e.previous else "",
            "provenance": e.provenance,
            "created": datetime.fromtimestamp(e.created_wall_ns / 1e9, UTC).isoformat(timespec="seconds")
            if e.created_wall_ns
            else None,
            "metrics": e.metrics,
            "error": e.error,
            "file": str(e.path),
        }
        for e in _registry(config_file, instance).list()
    ]
    if as_json:
        show.as_json(rows)
        return
    columns = {"version": "version", "serves": "serves", "provenance": "provenance", "created": "created", "error": ""}
    show.table(rows, columns, empty="no models: `l2dash retrain` makes one")


@models.command()
@target_options
@click.argument("version", type=click.IntRange(min=1))
def promote(config_file: Path | None, instance: str | None, version: int) -> None:
    """Let a version serve."""
    _registry(config_file, instance).promote(version)
    say(f"model {version} serves; a running ml-service takes it over at its next bar")


@models.command()
@target_options
def rollback(config_file: Path | None, instance: str | None) -> None:
    """Return to the version that served before."""
    version = _registry(config_file, instance).rollback()
    say(f"model {version} serves again")


@models.command()
@target_options
def first(config_file: Path | None, instance: str | None) -> int:
    """Make a first synthetic model in sim if there is none (units call it before ml-service)."""
    config = target_or_starting(config_file, instance)
    if _registry(config_file, instance).current is not None or config.instance.mode != "sim":
        return 0
    return _train(config, ["--synthetic"])
