"""``l2dash login``: a one-time cockpit address. Needs no server: the key's digest goes through a file."""

from __future__ import annotations

import getpass
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.cli.settings import target_options, target_or_starting

if TYPE_CHECKING:
    from engine.config import Config


def cockpit_url(config: Config) -> str:
    """Cockpit address with a fresh one-time key in its fragment, which never reaches a log."""
    from engine.cockpit.login import create_login

    key = create_login(config.state_dir, time.time_ns())
    scheme = "https" if config.cockpit.tls_cert else "http"
    host = "localhost" if config.cockpit.host.startswith("127.") else config.cockpit.host
    return f"{scheme}://{host}:{config.cockpit.port}/cockpit#k={key}"


@click.command()
@target_options
def login(config_file: Path | None, instance: str | None) -> None:
    """Print a fresh one-time cockpit address (ten minutes, one session) and how to reach it from elsewhere."""
    config = target_or_starting(config_file, instance)
    click.echo(cockpit_url(config))
    c = config.cockpit
    click.echo(
        f"from another machine: ssh -L {c.port}:localhost:{c.port} {getpass.getuser()}@{socket.gethostname()}", err=True
    )
