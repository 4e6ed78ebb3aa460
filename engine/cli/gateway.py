"""``l2dash paper-gateway``: the embedded broker alone, for any client of the TWS protocol."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from pathlib import Path

import click

from engine.cli.errors import CliError, say
from engine.cli.settings import config_option, starting


@click.command("paper-gateway")
@config_option
@click.option("--port", type=click.IntRange(0, 65535), help="0 takes a free one [default: gateway.port]")
@click.option("--market", metavar="synthetic|FILE", help="what to trade on [default: paper.market]")
@click.option("--faults", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="timed faults (TOML)")
@click.option("--seed", type=int, help="another market [default: paper.seed]")
@click.option("--control-port", type=click.IntRange(0, 65535), help="inject faults over HTTP on loopback")
def paper_gateway(
    config_file: Path | None,
    port: int | None,
    market: str | None,
    faults: Path | None,
    seed: int | None,
    control_port: int | None,
) -> int:
    """Run the embedded broker in the foreground. Connect with any IB client; account DUSIM001 holds play money."""
    from engine.paper.main import PortTaken, serve
    from engine.procs.paper_gateway import paper_config

    given = {"port": port, "market": market, "faults_file": faults, "seed": seed, "control_port": control_port}
    settings = paper_config(starting(config_file, mode="sim"))
    # Standing alone it starts flat each time and leaves the instance's own gateway state alone.
    settings = replace(settings, state_file=None, **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(
            settings, lambda found: say(f"paper gateway on {settings.host}:{found}, account {settings.account}"), stop
        )

    try:
        asyncio.run(main())
    except (PortTaken, ValueError) as error:
        raise CliError(str(error)) from error
    return 0
