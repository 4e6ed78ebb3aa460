"""``l2dash paper-gateway``: the embedded broker alone, for any TWS client, and its faults on command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import urllib.error
import urllib.request
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from engine.cli.errors import CliError, Refused, say
from engine.cli.settings import config_option, json_option, running, starting

DEFAULT_CONTROL_PORT = 4003


@click.group("paper-gateway", invoke_without_command=True)
@config_option
@click.option("--port", type=click.IntRange(0, 65535), help="0 takes a free one [default: gateway.port]")
@click.option("--market", metavar="synthetic|FILE", help="what to trade on [default: paper.market]")
@click.option("--start", metavar="HH:MM", help="with a FILE: time of day in the recording to begin at")
@click.option("--faults", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="timed faults (TOML)")
@click.option("--seed", type=int, help="another market [default: paper.seed]")
@click.option("--control-port", type=click.IntRange(0, 65535), help="inject faults over HTTP on loopback")
@click.option("--state", type=click.Path(dir_okay=False, path_type=Path), help="keep the account in this file")
@click.option("--equity", type=float, help="USD in a new account [default: paper.equity_usd]")
@click.option("--messages-per-s", type=float, help="depth messages of all symbols together")
@click.option("--latency-ms", type=float, help="how late order messages are handled")
@click.option("--latency-jitter-ms", type=float, help="mean of an exponential time on top of it")
@click.option("--symbols", metavar="NAME[:PRICE],...", help="stocks of the synthetic market")
@click.option("--commissions", type=click.Choice(["fixed", "tiered"]), help="IBKR's table [default: fixed]")
@click.option("--hours", type=click.Choice(["24/7", "regular"]), help="when orders trade [default: 24/7]")
@click.option("--master", type=click.IntRange(0), help="client id that sees the orders of all")
@click.option("--max-messages-per-s", type=click.IntRange(0), help="error 100 above it; 0: never [default: 50]")
@click.option("--depth-lines", type=click.IntRange(1, 1000), help="error 309 above it")
@click.pass_context
def paper_gateway(
    context: click.Context,
    config_file: Path | None,
    port: int | None,
    market: str | None,
    start: str | None,
    faults: Path | None,
    seed: int | None,
    control_port: int | None,
    state: Path | None,
    equity: float | None,
    messages_per_s: float | None,
    latency_ms: float | None,
    latency_jitter_ms: float | None,
    symbols: str | None,
    commissions: str | None,
    hours: str | None,
    master: int | None,
    max_messages_per_s: int | None,
    depth_lines: int | None,
) -> int:
    """Run the embedded broker in the foreground. Connect with any IB client; account DUSIM001 holds play money.

    Sub-commands talk to a gateway that runs with a control port.
    """
    if context.invoked_subcommand is not None:
        return 0
    from engine.paper.main import PortTaken, run, serve
    from engine.paper.universe import ALONE
    from engine.procs.paper_gateway import paper_config

    given = {
        "port": port,
        "market": market,
        "start": start,
        "faults_file": faults,
        "seed": seed,
        "control_port": control_port,
        "equity_usd": equity,
        "messages_per_s": messages_per_s,
        "latency_ms": latency_ms,
        "latency_jitter_ms": latency_jitter_ms,
        "symbols": tuple(symbols.split(",")) if symbols else ALONE,
        "commissions": commissions,
        "hours": hours,
        "master_client_id": master,
        "max_client_messages_per_s": max_messages_per_s,
        "max_depth_lines": depth_lines,
    }
    settings = paper_config(starting(config_file, mode="sim"))
    # Standing alone it starts flat unless told otherwise, and leaves the instance's own gateway state alone.
    kept: dict[str, Any] = {name: value for name, value in given.items() if value is not None}

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(
            replace(settings, state_file=state, **kept),
            lambda found: say(f"paper gateway on {settings.host}:{found}, account {settings.account}"),
            stop,
        )

    try:
        run(main())
    except (PortTaken, ValueError, RuntimeError) as error:
        raise CliError(str(error)) from error
    return 0


control_option = click.option(
    "--control-port",
    type=click.IntRange(1, 65535),
    help=f"of the gateway [default: that of the running instance, else {DEFAULT_CONTROL_PORT}]",
)


def _ask(control_port: int | None, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request to a gateway's control port. Raises CliError, and Refused with the gateway's own words."""
    if control_port is None:
        config = running()
        control_port = (config.paper.control_port if config is not None else 0) or DEFAULT_CONTROL_PORT
    url = f"http://127.0.0.1:{control_port}{path}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            result: dict[str, Any] = json.loads(answer.read())
            return result
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        with contextlib.suppress(ValueError, KeyError):
            text = json.loads(text)["detail"]
        raise Refused(text) from None
    except OSError as error:
        raise CliError(
            f"no control port at {url} ({error}); start the gateway with --control-port {control_port}"
        ) from None


def argument(text: str, texts: Collection[str] = ()) -> tuple[str, Any]:
    """``name=value`` with the value as number, truth value or text; always as text for names in ``texts``.

    Raises BadParameter.
    """
    name, equals, raw = text.partition("=")
    if not equals or not name:
        raise click.BadParameter(f"{text!r}: expected name=value, such as symbol=AAPL or ms=500")
    if name in texts:
        return name, raw
    if raw in ("true", "false"):
        return name, raw == "true"
    try:
        return name, float(raw)
    except ValueError:
        return name, raw


@paper_gateway.command("fault")
@click.argument("name")
@click.argument("arguments", metavar="[ARG=VALUE]...", nargs=-1)
@click.option("--after", "after_s", type=float, help="seconds until the first time")
@click.option("--every", "every_s", type=float, help="seconds between one time and the next")
@click.option("--times", type=int, help="how often; without it, with --every: for ever")
@click.option("--jitter", "jitter_s", type=float, help="up to so many seconds later, anew each time")
@click.option("--probability", type=float, help="chance that it happens, anew each time")
@click.option("--seed", type=click.IntRange(0), help="decides the chances of this command alone")
@control_option
def fault(name: str, arguments: tuple[str, ...], control_port: int | None, **when: float | None) -> int:
    """Carry out a fault on a running gateway, now or by a plan. ``faults`` lists what there is."""
    from engine.paper.faults import FAULTS

    # 1101 is a text where a text is asked for.
    texts = [n for n, a in FAULTS[name].args.items() if a.kind is str] if name in FAULTS else []
    body = {
        "fault": name,
        "args": dict(argument(text, texts) for text in arguments),
        "when": {key: value for key, value in when.items() if value is not None},
    }
    click.echo(_ask(control_port, "/faults", body)["result"])
    return 0


@paper_gateway.command("faults")
@json_option
def list_faults(as_json: bool) -> int:
    """List every fault with its arguments."""
    from engine.paper.faults import FAULTS

    if as_json:
        click.echo(json.dumps({n: {"help": f.help, "args": list(f.args)} for n, f in FAULTS.items()}, indent=1))
        return 0
    width = max(map(len, FAULTS))
    for name, row in FAULTS.items():
        click.echo(f"{name:<{width}}  {row.help}")
        for key, arg in row.args.items():
            default = "must be given" if arg.default is None else f"default {arg.default!r}"
            click.echo(f"{'':<{width}}    {key}: {arg.help} ({default})")
    return 0


@paper_gateway.command("state")
@control_option
def state_command(control_port: int | None) -> int:
    """Show connections, orders and positions of a running gateway as JSON."""
    click.echo(json.dumps(_ask(control_port, "/state"), indent=1))
    return 0


@paper_gateway.command("reset")
@click.option("--equity", type=float, help="USD in the new account [default: as it was opened]")
@control_option
def reset(equity: float | None, control_port: int | None) -> int:
    """Open the account anew: working orders cancelled, no positions, no executions."""
    click.echo(_ask(control_port, "/reset", {} if equity is None else {"equity_usd": equity})["result"])
    return 0
