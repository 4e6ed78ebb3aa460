"""``l2dash backtest``: an order-book file through the same agents, trained only on what came before."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli import show
from engine.cli.errors import CliError, say
from engine.cli.settings import config_option, json_option, starting

if TYPE_CHECKING:
    from engine.replay.backtest import Result
    from engine.replay.training import Source

_ROWS = {
    "ticks": "ticks",
    "signals": "signals",
    "intents": "intents",
    "orders": "orders sent",
    "cancels": "cancels",
    "refused": "refused by the gate",
    "fills": "fills",
    "shares": "shares traded",
    "gross_usd": "gross P&L USD",
    "commissions_usd": "commissions USD",
    "net_usd": "net P&L USD",
    "max_drawdown_usd": "max drawdown USD",
    "round_trips": "round trips",
    "hit_rate": "hit rate (net)",
    "open_qty": "still open, shares",
}


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--start", default="", metavar="HH:MM", help="the test begins [default: training's end, else half way]")
@click.option("--end", default="", metavar="HH:MM", help="the test ends [default: the file's end]")
@click.option("--train-until", default="", metavar="HH:MM", help="training ends [default: where the test begins]")
@click.option("--in-sample", is_flag=True, help="train on what is tested; the result is marked")
@click.option("--symbol", default="", help="which one, when a file or folder holds several")
@click.option(
    "--latency-ms", default=10.0, show_default=True, type=click.FloatRange(0, 10_000),
    help="one way, of orders and of market data",
)  # fmt: skip
@config_option
@json_option
def backtest(
    files: tuple[Path, ...],
    start: str,
    end: str,
    train_until: str,
    in_sample: bool,
    symbol: str,
    latency_ms: float,
    config_file: Path | None,
    as_json: bool,
) -> int:
    """Trade recorded order books: zips, folders or pairs of files in LOBSTER's format, each by itself.

    Bridge, gate, ml-service, strategy and watchdog are the product's own, in one thread on a simulated clock. The
    model is trained on the part of each file before the test.
    """
    from engine.paper.market.lobster_file import LobsterError
    from engine.replay.backtest import Ask
    from engine.replay.backtest import backtest as run
    from engine.replay.placement import NotReady
    from engine.replay.training import TrainingFailed
    from engine.replay.window import WindowError

    config = starting(config_file)
    results: list[Result] = []
    for source in sources(files):
        ask = Ask(source, symbol, start, end, train_until, in_sample, latency_ms)
        try:
            results.append(run(ask, config, say=say))
        except WindowError as error:
            raise click.UsageError(str(error)) from error
        except (LobsterError, TrainingFailed, NotReady) as error:
            raise CliError(str(error)) from error
    if as_json:
        show.as_json([as_document(r) for r in results])
    else:
        for result in results:
            _print(result)
        if len(results) > 1:
            _total(results)
    return 1 if any(r.faults for r in results) else 0


def sources(files: tuple[Path, ...]) -> list[Source]:
    """Files as sources: a message and an orderbook file of the same name make one."""
    found: list[Source] = []
    for path in files:
        twin = path.with_name(re.sub(r"_(message|orderbook)_", lambda m: _other(m[1]), path.name))
        if twin != path and twin in files:
            if "_message_" in path.name:
                found.append((path, twin))
        else:
            found.append(path)
    return found


def _other(kind: str) -> str:
    return "_orderbook_" if kind == "message" else "_message_"


def statements(r: Result) -> list[str]:
    """What the figures rest on, and what they do not show."""
    found = []
    if r.faults:
        found.append("THE RUN IS BROKEN, its figures are worth nothing: " + "; ".join(r.faults))
    if r.in_sample:
        found.append("IN-SAMPLE: the model has seen what it was tested on. This says nothing about the future.")
    elif r.training is not None:
        found.append(f"Out of sample: trained on {r.train_from} to {r.train_until}, tested on what came after.")
    if r.training is not None and r.training.gate:
        found.append(f"The model would not have been promoted: {'; '.join(r.training.gate)}")
    found += [f"KILL during the run, nothing was opened after it: {text}" for text in r.kills]
    found.append(
        f"Costs counted: spread, and commissions of 0.005 USD a share, at least 1 USD an order, at most 1 % of it. "
        f"Latency {r.latency_ms:g} ms one way. Not counted: borrowing, exchange and regulatory fees, own market impact "
        "beyond the displayed size that was taken."
    )
    found.append(
        "Resting orders fill by a cautious assumption: behind all that is displayed at their price, which shrinks only "
        "by trades. Real queues may be kinder or, when everybody knows the same, crueller."
    )
    found.append(
        "The watchdog and its guardrails were running, the index rule and its second connection excepted: the file has "
        "no index, and the simulated exchange can't be reached twice."
    )
    if r.open_qty:
        found.append(f"{r.open_qty:+g} shares were still open at the end and count at the last mid, unsold.")
    if r.round_trips < 100:
        found.append(f"{r.round_trips} round trips of one day prove nothing about another.")
    return found


def as_document(r: Result) -> dict[str, Any]:
    document = asdict(r)
    document["hit_rate"], document["speed"] = r.hit_rate, r.speed
    document["statements"] = statements(r)
    document["executions"] = [
        {"t_ns": f.t_ns, "signed": f.signed, "price": f.price, "exec_id": f.exec_id.decode()} for f in r.executions
    ]
    return document


def _print(r: Result) -> None:
    rows = []
    for key, words in _ROWS.items():
        value: Any = getattr(r, key)
        if key == "refused":
            value = ", ".join(f"{name} {count}" for name, count in value.items()) or "0"
        elif key == "hit_rate":
            value = "" if value is None else f"{value:.1%}"
        elif key == "round_trips":
            value = f"{value} ({r.hits} earned more than their commissions)" if value else "0"
        rows.append({"what": words, "value": value if isinstance(value, str) else show.cell(value)})
    mark = " IN-SAMPLE" if r.in_sample else ""
    title = f"{r.symbol} {r.day} {r.test_from} to {r.test_until}{mark}"
    show.table(rows, {"what": title, "value": ""})
    for line in statements(r):
        click.echo(f"- {line}")
    click.echo(f"{r.simulated_s:,.0f} simulated seconds in {r.seconds:.1f} s: {r.speed:,.0f} times real time")


def _total(results: list[Result]) -> None:
    rows = [{"run": f"{r.symbol} {r.day}", "fills": r.fills, "net": r.net_usd, "trips": r.round_trips} for r in results]
    total = {
        "run": "together",
        "fills": sum(r.fills for r in results),
        "net": sum(r.net_usd for r in results),
        "trips": sum(r.round_trips for r in results),
    }
    show.table([*rows, total], {"run": "", "fills": "fills", "trips": "round trips", "net": "net P&L USD"})
