"""``l2dash incident``: what tripped, every order and execution of the flatten, times between steps, what is left."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli import show
from engine.cli.errors import Refused
from engine.cli.settings import json_option, target_options, target_or_starting

if TYPE_CHECKING:
    from engine.store.incident import Incident

_LIST = {"id": "incident", "time": "time", "state": "state", "text": "what"}
_CAUSES = {"time": "time", "badge": "badge", "value": "value", "limit": "limit", "unit": "unit", "reason": "reason"}
_STEPS = {"after": "after", "took": "took", "what": "what", "who": "who", "text": "event"}
_ORDERS = {
    "sent": "sent", "symbol": "symbol", "side": "side", "qty": "qty", "order_type": "type", "state": "state",
    "filled": "filled", "avg_price": "price", "done": "done", "source": "by", "text": "word",
}  # fmt: skip
_EXECUTIONS = {
    "time": "time", "exec_id": "execution", "symbol": "symbol", "side": "side", "qty": "qty", "price": "price",
}  # fmt: skip


@click.command()
@target_options
@json_option
@click.argument("incident_id", type=int, required=False)
def incident(config_file: Path | None, instance: str | None, as_json: bool, incident_id: int | None) -> None:
    """The report of an incident; without an id, the list of incidents. Works also when nothing runs.

    INCIDENT_ID: a number of the list, of a journal row, or the id of a flatten.
    """
    from engine.store.incident import as_dict, incidents, report
    from engine.store.journal import journal_path
    from engine.store.journal_read import JournalReader

    config = target_or_starting(config_file, instance)
    path = journal_path(config.state_dir)
    if not path.exists():
        raise Refused(f"no journal in {config.state_dir} yet: nothing has run with this state directory")
    with JournalReader(path) as journal:
        if incident_id is None:
            rows = incidents(journal)
            if as_json:
                show.as_json([row | {"wall_ns": str(row["wall_ns"])} for row in rows])
                return
            shown = [row | {"time": _time(row["wall_ns"])} for row in rows]
            show.table(
                shown, {"id": "incident", "time": "time", "state": "state", "text": "what"}, empty="no incidents"
            )
            return
        found = report(journal, incident_id)
    if found is None:
        raise Refused(f"the journal knows no incident {incident_id}: `l2dash incident` lists them")
    if as_json:
        show.as_json(as_dict(found))
    else:
        _print(found)


def _time(wall_ns: int) -> str:
    return datetime.fromtimestamp(wall_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z" if wall_ns else ""


def _ms(value: float) -> str:
    return f"{value:.1f} ms" if abs(value) < 1_000.0 else f"{value / 1e3:.2f} s"


def _print(found: Incident) -> None:
    state = f"released {_time(found.ended_wall_ns)}" if found.ended_wall_ns else "OPEN"
    click.echo(f"incident {found.id}: {found.title}")
    click.echo(f"began {_time(found.began_wall_ns)}, {state}")
    click.echo("\nWhat tripped")
    causes = [
        c | {"time": _time(c["wall_ns"]), "value": _number(c["value"]), "limit": _number(c["limit"])}
        for c in found.causes
    ]
    show.table(causes, _CAUSES, empty="no badge: the stop was set by hand or by a dead-man")
    click.echo("\nTimes")
    for name, value in found.figures_ms.items():
        click.echo(f"  {name.replace('_', ' ')}: {_ms(value)}")
    click.echo("\nCourse")
    steps = [
        {"after": _ms(s.after_ms), "took": _ms(s.took_ms), "what": s.what, "who": s.who, "text": s.text}
        for s in found.steps
    ]
    show.table(steps, _STEPS, empty="nothing")
    click.echo("\nClosing orders")
    orders = [
        o | {"sent": _time(o["sent_wall_ns"])[11:], "done": _time(o["filled_wall_ns"])[11:]} for o in found.orders
    ]
    show.table(orders, _ORDERS, empty="none: nothing was held")
    click.echo("\nExecutions")
    executions: list[dict[str, Any]] = [e | {"time": _time(e["wall_ns"])[11:]} for e in found.executions]
    show.table(executions, _EXECUTIONS, empty="none")
    click.echo("\nLeft to do")
    for number, line in enumerate(found.left, 1):
        click.echo(f"  {number}. {line}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.2f}"
