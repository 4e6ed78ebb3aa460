"""``l2dash incident``: what tripped, every order and execution of the flatten, times between steps, what is left."""

from __future__ import annotations

from pathlib import Path

import click

from engine.cli import show
from engine.cli.errors import Refused
from engine.cli.settings import json_option, target_options, target_or_starting

_LIST = {"id": "incident", "time": "time", "state": "state", "text": "what"}


@click.command()
@target_options
@json_option
@click.argument("incident_id", type=int, required=False)
def incident(config_file: Path | None, instance: str | None, as_json: bool, incident_id: int | None) -> None:
    """The report of an incident; without an id, the list of incidents. Works also when nothing runs.

    INCIDENT_ID: a number of the list, of a journal row, or the id of a flatten.
    """
    from engine.store.incident import as_dict, incidents, report
    from engine.store.incident_text import as_text, moment
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
            else:
                shown = [row | {"time": moment(row["wall_ns"])} for row in rows]
                show.table(shown, _LIST, empty="no incidents")
            return
        found = report(journal, incident_id, config.guardrails.cooling_s)
    if found is None:
        raise Refused(f"the journal knows no incident {incident_id}: `l2dash incident` lists them")
    if as_json:
        show.as_json(as_dict(found))
    else:
        click.echo(as_text(found), nl=False)
