"""``l2dash orders`` and ``l2dash fills``: read from the journal, also when nothing runs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli import show
from engine.cli.errors import Refused
from engine.cli.settings import json_option, target_options, target_or_starting

if TYPE_CHECKING:
    from engine.config import Config
    from engine.store.journal_read import JournalReader

Rows = list[dict[str, Any]]


def _journal(config: Config) -> JournalReader:
    """Raises Refused if there is no journal yet."""
    from engine.store.journal import journal_path
    from engine.store.journal_read import JournalReader

    path = journal_path(config.state_dir)
    if not path.exists():
        raise Refused(f"no journal in {config.state_dir} yet: nothing has run with this state directory")
    return JournalReader(path)


def _named(config: Config, rows: Rows) -> Rows:
    """Symbols by name and times as text: the journal keeps numbers."""
    from engine.domain.instruments import DISPLAY_NAMES
    from engine.runtime.ids import order_ref
    from engine.runtime.universe import instruments

    names = {i.index: DISPLAY_NAMES.get(i.symbol, i.symbol) for i in instruments(config)}
    for row in rows:
        if isinstance(row.get("symbol"), int):
            row["symbol"] = names.get(row["symbol"], "")
        if row.get("wall_ns"):
            row["time"] = datetime.fromtimestamp(row["wall_ns"] / 1e9, UTC).isoformat(timespec="milliseconds")
        if row.get("intent_id"):
            row["order"] = order_ref(int(row["intent_id"]))
    return rows


def _limit_option(function: Any) -> Any:
    option = click.option(
        "-n", "--limit", default=50, show_default=True, type=click.IntRange(min=1), help="the newest so many"
    )
    return option(function)


@click.command()
@target_options
@json_option
@_limit_option
def orders(config_file: Path | None, instance: str | None, as_json: bool, limit: int) -> None:
    """Orders of every source with their newest state, newest last."""
    config = target_or_starting(config_file, instance)
    with _journal(config) as journal:
        rows = _named(config, journal.orders(limit=limit))
    if as_json:
        show.as_json(rows)
        return
    columns = {"time": "time", "order": "order", "source": "source", "symbol": "symbol", "side": "side", "qty": "qty"}
    more = {"order_type": "type", "limit_price": "limit", "state": "state", "filled": "filled", "text": "reason"}
    show.table(rows, columns | more, empty="no orders")


@click.command()
@target_options
@json_option
@_limit_option
def fills(config_file: Path | None, instance: str | None, as_json: bool, limit: int) -> None:
    """Fills, each once with its newest correction, newest last."""
    config = target_or_starting(config_file, instance)
    with _journal(config) as journal:
        rows = _named(config, journal.fills(limit=limit))
    if as_json:
        show.as_json(rows)
        return
    columns = {
        "time": "time",
        "exec_id": "execution",
        "symbol": "symbol",
        "side": "side",
        "qty": "qty",
        "price": "price",
    }
    more = {"commission_usd": "commission", "realized_pnl_usd": "realized", "source": "source", "order": "order"}
    show.table(rows, columns | more, empty="no fills")
